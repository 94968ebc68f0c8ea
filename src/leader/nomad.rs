//! Election and checkpoints by Nomad's own variables, without Consul.
//!
//! The lock of a variable says who is to publish. It fences nothing: whether a checkpoint may move
//! is decided by the variable of the checkpoint alone, which carries the number of the term and is
//! only ever written where it is as it was last seen.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Leader, LeaderError, Term,
    lease::{self, Lease, Renew, Sent, Task},
};
use crate::{
    api::{self, Acquired, Items, Variables, connect},
    backoff::Trouble,
    env::{Env, Noted},
    error::{Chain, brief},
    finding::Finding,
    metrics::Metrics,
    shutdown::Shutdown,
};

mod check;
mod checkpoint;
mod names;
mod paths;
mod term;

use names::{unique, version};
use paths::Paths;
use term::NomadTerm;

/// How long one read waits for the lock to change. A release or an expiry is answered at once.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// How long one read of the lock of a term waits.
const MONITOR_WAIT: Duration = Duration::from_secs(30);
/// Attempts to lock are no closer than this: each is an entry in Nomad's log.
const LEAST_BETWEEN: Duration = Duration::from_millis(500);
const LEAST_WAIT: Duration = Duration::from_millis(500);
const GREATEST_WAIT: Duration = Duration::from_secs(15);
/// For giving the lock back; beyond it the lock expires.
const RESIGN_LIMIT: Duration = Duration::from_secs(2);
/// The renewal that follows an acquire has so long.
const RENEWAL_LIMIT: Duration = Duration::from_secs(2);
/// What Nomad allows.
const TTL_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));
/// Nomad has no limit, but a take-over waits for it.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// The first version with locks.
const LOCKS_SINCE: (u32, u32) = (1, 7);
/// The value by which a variable says who wrote it.
const HOLDER: &str = "holder";

/// Competes for the lock `<prefix>/<type>/lock`.
#[derive(Clone, Debug)]
pub(super) struct Nomad {
    variables: Variables,
    paths: Paths,
    ttl: Duration,
    lock_delay: Duration,
    metrics: Arc<Metrics>,
}

/// The name under which the lock is competed for. It is our own, so that an acquire whose answer
/// was lost can be recognised.
#[derive(Debug)]
struct Claim {
    id: String,
    /// When the lock may first have been acquired by it.
    sent: Option<Sent>,
}

/// The lock, as the lease renews it.
struct Held {
    variables: Variables,
    path: String,
    id: String,
}

impl Renew for Held {
    async fn renew(&self, limit: Duration) -> api::Result<bool> {
        self.variables.renew(&self.path, &self.id, limit).await
    }
}

/// A lock that was won.
struct Won {
    lease: Lease,
    /// The index of its variable.
    index: u64,
}

impl Claim {
    fn new() -> Self {
        Self { id: unique(), sent: None }
    }

    /// Whether a lock that this took would still be within its TTL. Later it may have expired, and
    /// then its removal is pending, which asks nobody whose lock it removes.
    fn is_fresh(&self, ttl: Duration) -> bool {
        self.sent.is_some_and(|sent| lease::holds(sent, ttl))
    }
}

impl Nomad {
    pub(super) fn from_env(env: &Env, stream: &'static str) -> Result<Self, Noted> {
        let endpoint = connect::nomad(env);
        let region = connect::nomad_region(env);
        let name = "NOMAD_FIREHOSE_VARIABLE_PREFIX";
        let prefix = env.or(name, "nomad-firehose".to_owned());
        let paths =
            prefix.and_then(|it| Paths::new(&it, stream).map_err(|err| env.note(name, err)));
        let namespace = namespace(env);
        let ttl = super::ranged(env, "NOMAD_FIREHOSE_SESSION_TTL", TTL_RANGE.0, TTL_RANGE, "Nomad");
        let lock_delay = super::ranged(
            env,
            "NOMAD_FIREHOSE_LOCK_DELAY",
            Duration::from_secs(1),
            (Duration::ZERO, MAX_LOCK_DELAY),
            "this program",
        );
        let nomad = api::Nomad::new(endpoint?, region?);
        let variables = nomad.variables(&namespace?);
        let metrics = Arc::default();
        Ok(Self { variables, paths: paths?, ttl: ttl?, lock_delay: lock_delay?, metrics })
    }

    /// For the stream whose variables are called so; fails where Nomad takes no such path.
    pub(super) fn new(
        variables: Variables,
        prefix: &str,
        stream: &str,
        ttl: Duration,
        lock_delay: Duration,
    ) -> Result<Self, String> {
        let (paths, metrics) = (Paths::new(prefix, stream)?, Arc::default());
        Ok(Self { variables, paths, ttl, lock_delay, metrics })
    }

    /// One attempt, which ends elected, stopped, or with an error.
    async fn compete(
        &self,
        claim: &mut Claim,
        stop: &Shutdown,
    ) -> Result<Option<NomadTerm>, LeaderError> {
        let won = tokio::select! {
            biased;
            () = stop.requested() => None,
            won = self.win(claim) => Some(won?),
        };
        let Some(won) = won else {
            // The request to acquire may be on its way, or have got there.
            self.abandon(claim.is_fresh(self.ttl), claim).await;
            return Ok(None);
        };
        let begun = tokio::select! {
            biased;
            () = stop.requested() => Ok(None),
            () = won.lease.over() => Err(LeaderError::unavailable("take over", "the lock is lost")),
            begun = self.begin(&won.lease) => begun.map(Some),
        };
        match begun {
            Ok(Some(begun)) => {
                let term = NomadTerm::new(self.clone(), won, claim.id.clone(), begun);
                Ok(Some(term))
            }
            failed => {
                let holds = won.lease.holds();
                drop(won);
                self.abandon(holds, claim).await;
                failed.map(|_| None)
            }
        }
    }

    /// Waits for the lock, and takes it.
    async fn win(&self, claim: &mut Claim) -> Result<Won, LeaderError> {
        self.check_versions().await?;
        let failed = |err| self.failed("take the lock", err);
        let lock = &self.paths.lock;
        let mut past = None;
        let mut said = false;
        loop {
            let found = self.variables.read(lock, past).await.map_err(failed)?;
            self.metrics.health.leader.heard();
            let earliest = Instant::now() + LEAST_BETWEEN;
            if claim.sent.is_some() && !claim.is_fresh(self.ttl) {
                *claim = Claim::new();
            }
            // Most tokens are not shown who holds the lock, and have to try.
            let holder = found.variable.as_ref().and_then(|it| it.holder.as_ref());
            if holder.is_none_or(|it| *it == claim.id) {
                claim.sent.get_or_insert_with(lease::now);
                let items = Items::from([(HOLDER.to_owned(), unique())]);
                let acquired =
                    self.variables.acquire(lock, &claim.id, &items, self.ttl, self.lock_delay);
                match acquired.await.map_err(failed)? {
                    Acquired::Won { id, index } => {
                        claim.id = id;
                        if let Some(lease) = self.hold(claim).await.map_err(failed)? {
                            return Ok(Won { lease, index });
                        }
                        *claim = Claim::new();
                    }
                    Acquired::Held => claim.sent = None,
                    Acquired::Unknown => {
                        return Err(LeaderError::unavailable("take the lock", TOO_OLD));
                    }
                }
            }
            if !said {
                let items = found.variable.as_ref().map(|it| &it.items);
                let holder = items.and_then(|it| it.get(HOLDER)).map_or("", |it| it);
                tracing::info!(lock, holder = brief(holder), "standing by");
                self.metrics.stands_by();
                said = true;
            }
            // An index that went back is one of another or a restored server.
            let seen = past.map_or(0, |(index, _)| index);
            let index = if found.index < seen { 0 } else { found.index.max(1) };
            past = (index > 0).then_some((index, LOCK_WAIT));
            sleep_until(earliest).await;
        }
    }

    /// Keeps alive what was acquired. What counts is a renewal, since an acquire does not set a
    /// timer anew that one of before has set.
    async fn hold(&self, claim: &Claim) -> api::Result<Option<Lease>> {
        let (variables, path, id) =
            (self.variables.clone(), self.paths.lock.clone(), claim.id.clone());
        let held = Held { variables, path, id };
        let sent = lease::now();
        let renewed = held.renew(RENEWAL_LIMIT).await?;
        Ok(renewed.then(|| Lease::start(held, sent, self.ttl, &self.metrics)))
    }

    /// Releases what the claim may have, where that can be relied on, and makes a new one of it. A
    /// lock that may have expired is left to itself.
    async fn abandon(&self, holds: bool, claim: &mut Claim) {
        if holds {
            let release = self.variables.release(&self.paths.lock, &claim.id);
            if let Ok(Err(err)) = timeout(RESIGN_LIMIT, release).await {
                tracing::debug!(error = %Chain(&err), "the lock could not be released; it expires");
            }
        }
        *claim = Claim::new();
    }

    /// Fails where a server is known to have no locks: it would take an acquire for a plain write.
    async fn check_versions(&self) -> Result<(), LeaderError> {
        let servers = match self.variables.servers().await {
            Ok(servers) => servers,
            // What an acquire answers tells as well.
            Err(err) if err.is_forbidden() => return Ok(()),
            Err(err) => return Err(self.failed("take the lock", err)),
        };
        let old = servers.iter().find(|it| version(&it.version).is_some_and(|it| it < LOCKS_SINCE));
        match old {
            Some(api::Member { name, version }) => {
                let what = format!("{TOO_OLD}; server {name} is {version}");
                Err(LeaderError::unavailable("take the lock", what))
            }
            None => Ok(()),
        }
    }

    /// Says what was being done, and what right the token lacks where it does.
    fn failed(&self, doing: &str, err: api::ApiError) -> LeaderError {
        if !err.is_forbidden() {
            return LeaderError::unavailable(doing, err);
        }
        LeaderError::unavailable(format!("{doing}: the token needs {}", self.rule()), err)
    }

    /// The right that is needed.
    fn rule(&self) -> String {
        let (namespace, prefix) = (self.variables.namespace(), &self.paths.prefix);
        format!(
            "`namespace \"{namespace}\" {{ variables {{ path \"{prefix}/*\" {{ capabilities = \
             [\"read\", \"write\"] }} }} }}`"
        )
    }
}

const TOO_OLD: &str = "this needs locks of variables, which all servers have from Nomad 1.7 on; \
                       use NOMAD_FIREHOSE_LEADER=consul";

#[async_trait]
impl Leader for Nomad {
    async fn elect(&self, stop: &Shutdown) -> Result<Option<Box<dyn Term>>, LeaderError> {
        let mut trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
        let mut claim = Claim::new();
        loop {
            match self.compete(&mut claim, stop).await {
                Ok(None) => return Ok(None),
                Ok(Some(term)) => {
                    trouble.over();
                    self.metrics.health.leader.works();
                    return Ok(Some(Box::new(term)));
                }
                Err(err) => super::report(&mut trouble, &err, &self.metrics),
            }
            tokio::select! {
                biased;
                () = stop.requested() => {
                    self.abandon(claim.is_fresh(self.ttl), &mut claim).await;
                    return Ok(None);
                }
                () = trouble.backoff.wait() => (),
                () = self.variables.token_changed() => (),
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

/// The namespace of the variables.
fn namespace(env: &Env) -> Result<String, Noted> {
    let name = "NOMAD_FIREHOSE_VARIABLE_NAMESPACE";
    match env.or(name, "default".to_owned())? {
        wildcard if wildcard.contains('*') => {
            Err(env.note(name, "variables are in one namespace, and `*` is none"))
        }
        namespace => Ok(namespace),
    }
}

/// Watches the lock of a term. Who holds it is hidden from most tokens, so a change only lets a
/// renewal tell.
fn watch(leader: &Nomad, won: &Won, id: &str) -> Task {
    let (variables, path, id) =
        (leader.variables.clone(), leader.paths.lock.clone(), id.to_owned());
    let (end, known, limit) = (won.lease.end(), won.index, leader.ttl / 10);
    let metrics = leader.metrics.clone();
    Task::start(async move {
        let mut past = Some((known, MONITOR_WAIT));
        loop {
            let renewed = match variables.read(&path, past).await {
                Ok(found) => match found.variable {
                    None => return end.now("the lock was deleted"),
                    Some(variable) => {
                        past = Some((variable.modify_index, MONITOR_WAIT));
                        match variable.modify_index == known {
                            true => Ok(true),
                            false => variables.renew(&path, &id, limit).await,
                        }
                    }
                },
                Err(err) => Err(err),
            };
            match renewed {
                Ok(true) => metrics.health.leader.heard(),
                Ok(false) => return end.now("the lock was released, or another process has it"),
                // Whether the lock is held is what the renewals of the lease are for.
                Err(err) => {
                    tracing::debug!(error = %Chain(&err), "the lock could not be watched");
                    past = None;
                }
            }
            tokio::time::sleep(LEAST_BETWEEN).await;
        }
    })
}
