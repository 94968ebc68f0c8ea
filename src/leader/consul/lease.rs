//! A session that is kept alive while it is competed with it, and led.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::super::lease::{self, End, Renew, Task};
use crate::{
    api::{self, Lock},
    error::{Chain, brief},
    failpoint::{self, Point},
    metrics::Metrics,
};

/// How long one read of the lock waits for a change. A change is answered at once.
const MONITOR_WAIT: Duration = Duration::from_secs(30);
/// Between attempts to read it.
const RETRY: Duration = Duration::from_secs(1);

/// A session that is kept alive in the background. Dropped, it expires.
pub(super) struct Lease {
    consul: api::Consul,
    session: String,
    lease: lease::Lease,
    metrics: Arc<Metrics>,
}

/// A session, as the lease renews it.
struct Session(api::Consul, String);

impl Renew for Session {
    async fn renew(&self, limit: Duration) -> api::Result<bool> {
        let renewed = self.0.renew(&self.1, limit);
        failpoint::around(Point::RenewSession, renewed).await
    }
}

impl Lease {
    /// Creates a session and keeps it alive.
    pub(super) async fn open(
        consul: &api::Consul,
        name: &str,
        ttl: Duration,
        lock_delay: Duration,
        metrics: &Arc<Metrics>,
    ) -> api::Result<Self> {
        let sent = lease::now();
        let created = consul.create_session(name, ttl, lock_delay);
        let session = failpoint::around(Point::CreateSession, created).await?;
        let claim = Session(consul.clone(), session.clone());
        let lease = lease::Lease::start(claim, sent, ttl, metrics);
        let (consul, metrics) = (consul.clone(), metrics.clone());
        let lease = Self { consul, session, lease, metrics };
        let checks = lease.consul.session_checks(&lease.session);
        match failpoint::around(Point::ReadSession, checks).await {
            Ok(Some(checks)) if !checks.is_empty() => tracing::warn!(
                checks = brief(&checks.join(", ")),
                "Consul gave the session health checks although none were asked for; it may end a \
                 term before the session's TTL is over. If terms end early, look at the health of \
                 its agent"
            ),
            Ok(_) => (),
            // Reading sessions is a permission of its own, and nothing depends on it.
            Err(err) => tracing::debug!(error = %Chain(&err), "the session could not be read back"),
        }
        Ok(lease)
    }

    /// The session's id.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// Whether nobody else can have the lock at this instant.
    pub(super) fn holds(&self) -> bool {
        self.lease.holds()
    }

    /// Ends the lease at once.
    pub(super) fn end(&self, why: &str) {
        self.lease.end().now(why);
    }

    /// Resolves once the lease has ended or can no longer be relied on.
    pub(super) async fn over(&self) {
        self.lease.over().await;
    }

    /// Watches the lock, and ends the lease once somebody else has it.
    pub(super) fn watch_lock(&self, consul: &api::Consul, key: &str) -> Task {
        let end = self.lease.end();
        let (key, session) = (key.to_owned(), self.session.clone());
        Task::start(monitor(consul.clone(), key, session, end, self.metrics.clone()))
    }

    /// Ends the session, and so frees the lock after the lock-delay where it is still held.
    pub(super) async fn close(self) {
        let ended = self.consul.destroy(&self.session);
        if let Err(err) = failpoint::around(Point::EndSession, ended).await {
            tracing::debug!(error = %Chain(&err), "the session could not be ended; it expires");
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("session", &self.session).finish_non_exhaustive()
    }
}

async fn monitor(
    consul: api::Consul,
    key: String,
    session: String,
    end: End,
    metrics: Arc<Metrics>,
) {
    let mut past = None;
    loop {
        match failpoint::around(Point::WatchLock, consul.read(&key, past)).await {
            Ok(read) => {
                metrics.health.leader.heard();
                match read.lock() {
                    Lock::Held(holder) if holder == session => (),
                    Lock::Held(_) => return end.now("another process has the lock"),
                    Lock::Free => return end.now("the lock was released or deleted"),
                    Lock::Foreign { .. } => {
                        return end.now("the lock key was overwritten with something else");
                    }
                }
                // An index that went back is one of a restored server, on which to wait for the
                // old one would be to look away.
                let back = past.is_some_and(|(index, _)| read.index < index);
                past = (!back).then_some((read.index.max(1), MONITOR_WAIT));
            }
            // Whether the session lives is what the renewal is for.
            Err(err) => {
                tracing::debug!(error = %Chain(&err), "the lock could not be read");
                past = None;
                sleep(RETRY).await;
            }
        }
    }
}
