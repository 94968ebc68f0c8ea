//! A session that is kept alive, and the instant up to which it can be relied on.
//!
//! Consul ends a session no sooner than its TTL after the last renewal. So until the TTL after the
//! last renewal was *sent*, less a margin, nobody else can have the lock, whatever became of the
//! network since.

use std::{
    fmt,
    future::Future,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    api::{self, Lock},
    backoff::Trouble,
    error::{Chain, brief},
    failpoint::{self, Point},
};

/// A session is renewed so many times within its TTL.
const RENEWALS_PER_TTL: u32 = 3;
/// A renewal has this part of the TTL to be answered: packets may be dropped without a word, and
/// there is to be time for another try.
const RENEWAL_LIMIT: u32 = 10;
/// This part of the TTL is kept as a margin for clocks that run at different speeds.
const MARGIN: u32 = 10;
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(1);
/// How long one read of the lock waits for a change. A change is answered at once.
const MONITOR_WAIT: Duration = Duration::from_secs(30);

/// A session that is kept alive in the background. Dropped, it expires.
pub(super) struct Lease {
    consul: api::Consul,
    session: String,
    state: watch::Sender<State>,
    _renewal: Task,
}

/// How long a lease can be relied on.
#[derive(Clone, Copy, Debug)]
struct State {
    /// By the clock that cannot be set, which may stand still while the machine is suspended.
    until: Instant,
    /// By the clock that goes on then.
    until_wall: SystemTime,
    ended: bool,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    /// A task of its own, so that the lock is renewed whatever the pipeline is busy with.
    #[expect(clippy::disallowed_methods, reason = "owned: it is aborted when it is dropped")]
    fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(failpoint::inherit(work)))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl State {
    fn renewed(sent: (Instant, SystemTime), ttl: Duration) -> Self {
        let lasts = ttl - ttl / MARGIN;
        Self { until: sent.0 + lasts, until_wall: sent.1 + lasts, ended: false }
    }

    fn holds(&self) -> bool {
        !self.ended && Instant::now() < self.until && SystemTime::now() < self.until_wall
    }
}

impl Lease {
    /// Creates a session and keeps it alive.
    pub(super) async fn open(
        consul: &api::Consul,
        name: &str,
        ttl: Duration,
        lock_delay: Duration,
    ) -> api::Result<Self> {
        let sent = (Instant::now(), SystemTime::now());
        let created = consul.create_session(name, ttl, lock_delay);
        let session = failpoint::around(Point::CreateSession, created).await?;
        let (state, _) = watch::channel(State::renewed(sent, ttl));
        let renewal = Task::start(renew(consul.clone(), session.clone(), ttl, state.clone()));
        let lease = Self { consul: consul.clone(), session, state, _renewal: renewal };
        let checks = consul.session_checks(&lease.session);
        match failpoint::around(Point::ReadSession, checks).await {
            Ok(Some(checks)) if !checks.is_empty() => tracing::warn!(
                checks = brief(&checks.join(", ")),
                "Consul gave the session health checks although none were asked for; it may end a \
                 term before the session's TTL is over"
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
        self.state.borrow().holds()
    }

    /// Ends the lease at once.
    pub(super) fn end(&self, why: &str) {
        end(&self.state, why);
    }

    /// Resolves once the lease has ended or can no longer be relied on.
    pub(super) async fn over(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if !state.holds() {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(state.until) => (),
            }
        }
    }

    /// Watches the lock, and ends the lease once somebody else has it.
    pub(super) fn watch_lock(&self, consul: &api::Consul, key: &str) -> Task {
        let work =
            monitor(consul.clone(), key.to_owned(), self.session.clone(), self.state.clone());
        Task::start(work)
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

fn end(state: &watch::Sender<State>, why: &str) {
    state.send_if_modified(|state| {
        let news = !state.ended;
        state.ended = true;
        if news {
            tracing::warn!(
                why,
                "the session or its lock is lost: nothing is published on it any more"
            );
        }
        news
    });
}

async fn renew(consul: api::Consul, session: String, ttl: Duration, state: watch::Sender<State>) {
    let mut trouble = Trouble::new(RETRY, MAX_RETRY);
    let interval = ttl / RENEWALS_PER_TTL;
    let mut next = Instant::now() + interval;
    loop {
        sleep_until(next).await;
        let sent = (Instant::now(), SystemTime::now());
        let renewed = consul.renew(&session, ttl / RENEWAL_LIMIT);
        match failpoint::around(Point::RenewSession, renewed).await {
            Ok(true) => {
                // A lease that has ended stays ended, although the session lives. It can be ended
                // by another task at any instant, so looking and renewing is one step.
                let renewed = state.send_if_modified(|state| {
                    let holds = state.holds();
                    if holds {
                        *state = State::renewed(sent, ttl);
                    }
                    holds
                });
                if !renewed {
                    return end(&state, "the session could not be renewed in time");
                }
                next = sent.0 + interval;
                if let Some((after, attempts)) = trouble.over() {
                    tracing::info!(?after, attempts, "the session is renewed again");
                }
            }
            Ok(false) => return end(&state, "the session is gone"),
            Err(err) => {
                if !state.borrow().holds() {
                    return end(&state, "the session could not be renewed in time");
                }
                let reason = Chain(&err).to_string();
                if trouble.is_news(reason.clone()) {
                    tracing::warn!(
                        error = reason,
                        "the session could not be renewed; publishing stops before it can expire"
                    );
                }
                next = Instant::now() + trouble.backoff.next_wait();
            }
        }
    }
}

async fn monitor(consul: api::Consul, key: String, session: String, state: watch::Sender<State>) {
    let mut past = None;
    loop {
        match failpoint::around(Point::WatchLock, consul.read(&key, past)).await {
            Ok(read) => {
                match read.lock() {
                    Lock::Held(holder) if holder == session => (),
                    Lock::Held(_) => return end(&state, "another process has the lock"),
                    Lock::Free => return end(&state, "the lock was released or deleted"),
                    Lock::Foreign { .. } => {
                        return end(&state, "the lock key was overwritten with something else");
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
                sleep(MAX_RETRY).await;
            }
        }
    }
}
