//! Election by a Consul lock, wire-compatible with the Go client's, so that this and the Go tool
//! exclude one another. The lock key is only ever written by acquire and release: a plain write
//! would reset the flags that the Go client looks for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::{Leader, LeaderError, Term, lease::Task};
use crate::{
    api::{self, Lock, TxnRefused, Write, connect},
    backoff::Trouble,
    cursor::{self, Cursor, Encoded, Loading, Saved},
    env::{Env, Noted},
    error::{Chain, brief},
    failpoint::{self, Point},
    finding::Finding,
    metrics::Metrics,
    shutdown::Shutdown,
};

mod check;
mod lease;

use lease::Lease;

/// How long one read waits for the lock to be free. A change is answered at once.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// Between attempts while a lock-delay is in force, which a server does not tell.
const DELAY_WAIT: Duration = Duration::from_millis(500);
const LEAST_WAIT: Duration = Duration::from_millis(500);
const GREATEST_WAIT: Duration = Duration::from_secs(15);
/// For giving the lock back; beyond it the session's TTL does so.
const RESIGN_LIMIT: Duration = Duration::from_secs(2);
/// What Consul allows.
const TTL_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// A checkpoint that somebody else wrote is read again so many times.
const MAX_CONFLICTS: u32 = 3;

/// Competes for `<prefix>/<type>.lock`.
#[derive(Clone, Debug)]
pub(super) struct Consul {
    consul: api::Consul,
    keys: Keys,
    session_name: String,
    ttl: Duration,
    lock_delay: Duration,
    metrics: Arc<Metrics>,
}

/// The keys of one stream.
#[derive(Clone, Debug)]
struct Keys {
    /// What all of them begin with, without a slash.
    prefix: String,
    lock: String,
    value: String,
    cursor: String,
}

impl Consul {
    pub(super) fn from_env(env: &Env, stream: &'static str) -> Result<Self, Noted> {
        let endpoint = connect::consul(env);
        let scope = connect::consul_scope(env);
        let prefix = env.or("NOMAD_FIREHOSE_CONSUL_PREFIX", "nomad-firehose".to_owned());
        let ttl =
            super::ranged(env, "NOMAD_FIREHOSE_SESSION_TTL", TTL_RANGE.0, TTL_RANGE, "Consul");
        let lock_delay = super::ranged(
            env,
            "NOMAD_FIREHOSE_LOCK_DELAY",
            Duration::from_secs(1),
            (Duration::ZERO, MAX_LOCK_DELAY),
            "Consul",
        );
        let consul = api::Consul::new(endpoint?, scope?);
        Ok(Self::new(consul, &prefix?, stream, ttl?, lock_delay?))
    }

    pub(super) fn new(
        consul: api::Consul,
        prefix: &str,
        stream: &str,
        ttl: Duration,
        lock_delay: Duration,
    ) -> Self {
        // As the Go tool does; Consul takes no key that begins with a slash.
        let prefix = prefix.trim_matches('/');
        let key = |suffix: &str| format!("{prefix}/{stream}.{suffix}");
        let (lock, value, cursor) = (key("lock"), key("value"), key("cursor"));
        let keys = Keys { prefix: prefix.to_owned(), lock, value, cursor };
        let (session_name, metrics) = (format!("nomad-firehose-{stream}"), Arc::default());
        Self { consul, keys, session_name, ttl, lock_delay, metrics }
    }

    /// One attempt, which ends elected, stopped, or with an error.
    async fn compete(&self, stop: &Shutdown) -> Result<Option<Lease>, LeaderError> {
        let doing = "create a session in Consul";
        let lease = tokio::select! {
            biased;
            () = stop.requested() => return Ok(None),
            lease = Lease::open(
                &self.consul, &self.session_name, self.ttl, self.lock_delay, &self.metrics,
            ) => lease.map_err(|err| LeaderError::unavailable(doing, err))?,
        };
        let won = tokio::select! {
            biased;
            () = stop.requested() => Ok(false),
            () = lease.over() => Err(LeaderError::unavailable("stand by", "the session is lost")),
            won = self.acquire(&lease) => won.map(|()| true),
        };
        match won {
            Ok(true) => Ok(Some(lease)),
            Ok(false) => {
                // The request to acquire may be on its way: the session takes the lock with it.
                let _ = timeout(RESIGN_LIMIT, lease.close()).await;
                Ok(None)
            }
            Err(err) => {
                let _ = timeout(RESIGN_LIMIT, lease.close()).await;
                Err(err)
            }
        }
    }

    /// Waits for the lock, and takes it.
    async fn acquire(&self, lease: &Lease) -> Result<(), LeaderError> {
        let failed = |err| LeaderError::unavailable("take the lock", err);
        let mut past = None;
        let mut said = false;
        loop {
            let read = self.consul.read(&self.keys.lock, past);
            let key = failpoint::around(Point::ReadLock, read).await.map_err(failed)?;
            self.metrics.health.leader.heard();
            match key.lock() {
                Lock::Foreign { flags } => {
                    return Err(LeaderError::unavailable(
                        "take the lock",
                        foreign(&self.keys.lock, flags),
                    ));
                }
                Lock::Held(session) if session == lease.session() => return Ok(()),
                Lock::Held(holder) => {
                    if !said {
                        tracing::info!(
                            lock = self.keys.lock,
                            holder = brief(&holder),
                            "standing by"
                        );
                        self.metrics.stands_by();
                        said = true;
                    }
                    // An index that went back is one of another or a restored server.
                    let seen = past.map_or(0, |(index, _)| index);
                    let index = if key.index < seen { 0 } else { key.index.max(1) };
                    past = (index > 0).then_some((index, LOCK_WAIT));
                }
                Lock::Free => {
                    let won = self.consul.acquire(&self.keys.lock, lease.session());
                    let won = failpoint::around(Point::AcquireLock, won).await;
                    if won.map_err(failed)? {
                        return Ok(());
                    }
                    past = None;
                    sleep(DELAY_WAIT).await;
                }
            }
        }
    }
}

#[async_trait]
impl Leader for Consul {
    async fn elect(&self, stop: &Shutdown) -> Result<Option<Box<dyn Term>>, LeaderError> {
        let mut trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
        loop {
            match self.compete(stop).await {
                Ok(None) => return Ok(None),
                Ok(Some(lease)) => {
                    failpoint::reach(Point::Elected).await;
                    trouble.over();
                    self.metrics.health.leader.works();
                    let monitor = lease.watch_lock(&self.consul, &self.keys.lock);
                    let leader = self.clone();
                    return Ok(Some(Box::new(ConsulTerm {
                        leader,
                        lease,
                        monitor,
                        indexes: Mutex::default(),
                    })));
                }
                Err(err) => super::report(&mut trouble, &err, &self.metrics),
            }
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(None),
                () = trouble.backoff.wait() => (),
                () = self.consul.token_changed() => (),
            }
        }
    }

    async fn check(&self) -> Vec<Finding> {
        self.findings().await
    }

    fn counts_in(&mut self, metrics: &Arc<Metrics>) {
        self.metrics = metrics.clone();
    }
}

/// What is to be done about a key that has something else in it.
fn foreign(key: &str, flags: u64) -> String {
    format!(
        "key {key} has flags {flags}: it is not a lock of this tool. Choose another \
         NOMAD_FIREHOSE_CONSUL_PREFIX, or delete the key if nothing uses it"
    )
}

/// A term that lasts as long as the session can be shown to, and the lock is its.
struct ConsulTerm {
    leader: Consul,
    lease: Lease,
    monitor: Task,
    /// The index at which each key of the checkpoint was written last; none where there is no key.
    indexes: Mutex<HashMap<String, u64>>,
}

impl ConsulTerm {
    fn indexes(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, point: Point, key: &str) -> Result<Option<api::Entry>, LeaderError> {
        let read = failpoint::around(point, self.leader.consul.read(key, None)).await;
        let doing = format!("read the checkpoint {key}");
        let entry = read.map_err(|err| LeaderError::unavailable(doing, err))?.entry;
        let index = entry.as_ref().map_or(0, |it| it.modify_index);
        self.indexes().insert(key.to_owned(), index);
        Ok(entry)
    }

    /// Writes a part of the checkpoint, and what belongs to it, over what was read or written
    /// here. So a write that seemed to have failed, and arrives late, changes nothing any more.
    async fn replace(
        &self,
        point: Point,
        (key, value): (&str, &[u8]),
        beside: Option<Write<'_>>,
    ) -> Result<(), LeaderError> {
        let mut conflicts = 0;
        loop {
            let cas = Some(self.indexes().get(key).copied().unwrap_or_default());
            let writes = beside.into_iter().chain([Write { key, value, cas }]).collect();
            match self.write(point, writes).await {
                Ok(index) => {
                    self.indexes().insert(key.to_owned(), index);
                    return Ok(());
                }
                // Either an answer of ours was lost, or somebody wrote the key by hand. The lock
                // is ours in both cases, or the transaction would not have got so far.
                Err(TxnRefused::Conflict(what)) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    tracing::debug!(error = what, "the checkpoint was written since it was read");
                    self.read(Point::Reread, key).await?;
                }
                Err(err) => return Err(self.refused(err)),
            }
        }
    }

    async fn write(&self, point: Point, writes: Vec<Write<'_>>) -> Result<u64, TxnRefused> {
        let Consul { consul, keys, .. } = &self.leader;
        let written = consul.write_fenced(&keys.lock, self.lease.session(), writes);
        failpoint::around(point, written).await
    }

    fn refused(&self, err: TxnRefused) -> LeaderError {
        match err {
            TxnRefused::NotHeld(what) => {
                self.lease.end(&format!("Consul says that {what}"));
                LeaderError::Over
            }
            TxnRefused::Conflict(_) | TxnRefused::Denied(_) | TxnRefused::Api(_) => {
                LeaderError::unavailable("save the checkpoint", err)
            }
        }
    }
}

#[async_trait]
impl Term for ConsulTerm {
    async fn load(&self) -> Result<Saved, LeaderError> {
        let keys = &self.leader.keys;
        let head = self.read(Point::LoadHead, &keys.cursor).await?;
        let value = self.read(Point::LoadValue, &keys.value).await?.map(|it| it.value);
        let head = head.map(|it| it.value);
        let mut loading = Loading::new(head.as_deref());
        for number in 0..loading.shards() {
            let key = format!("{}.{number}", keys.cursor);
            let shard = self.read(Point::LoadShard, &key).await?;
            loading.add(number, shard.as_ref().map(|it| &it.value[..]));
        }
        let (saved, damaged) = loading.finish(value.as_deref());
        super::report_damaged(damaged, &keys.cursor);
        Ok(saved)
    }

    async fn save(&self, cursor: &mut Cursor) -> Result<(), LeaderError> {
        let keys = &self.leader.keys;
        let Encoded { shards, head, value } = cursor.encode(cursor::now());
        for number in shards {
            let (key, bytes) = (format!("{}.{number}", keys.cursor), cursor.shard(number));
            self.replace(Point::SaveShard, (&key, &bytes), None).await?;
        }
        let value = Write { key: &keys.value, value: value.as_bytes(), cas: None };
        self.replace(Point::SaveHead, (&keys.cursor, &head), Some(value)).await?;
        cursor.saved();
        Ok(())
    }

    async fn over(&self) {
        self.lease.over().await;
    }

    fn holds(&self) -> bool {
        self.lease.holds()
    }

    async fn resign(self: Box<Self>) {
        let Self { leader, lease, monitor, .. } = *self;
        // It would take our own release for a loss.
        drop(monitor);
        let release = async {
            let released = leader.consul.release(&leader.keys.lock, lease.session());
            if let Err(err) = failpoint::around(Point::ReleaseLock, released).await {
                tracing::warn!(
                    error = %Chain(&err),
                    "the lock could not be released; it is free once it has expired, and nothing \
                     is to be done"
                );
            }
            lease.close().await;
        };
        let _ = timeout(RESIGN_LIMIT, release).await;
    }
}
