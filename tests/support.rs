//! What the tests run against: stand-ins for Nomad and Consul in this process, a sink that fails
//! on request, and a firehose that runs until it is told to stop.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::Router;
use nomad_firehose::{
    api,
    cursor::{Loading, Saved, Start},
    deliver::Delivery,
    filter::Filter,
    leader::{self, Leader},
    metrics::Metrics,
    record::{Limits, Record},
    run::{Config, lead},
    shutdown::{self, Trigger},
    sink::{Again, DeliverError, Failure, FailureKind, Sink},
    standin,
    streams::Resource,
    watch::{Scope, Source},
};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

mod faults;
mod objects;

pub use faults::{NomadFault, StreamFault, disturb, fail, nomad_faults, stream_faults};
pub use nomad_firehose::standin::nomad::{Table, Version};
pub use objects::{allocation, evaluation, job, node, object, stub, times, uuid};

/// How long a call to the sink may take once a process is asked to stop.
pub const GRACE: Duration = Duration::from_secs(3);

/// What the sink does next.
#[derive(Debug)]
pub enum Fault {
    /// The records at these positions do not get through; the others do.
    Lose(Vec<usize>),
    /// The first record does not get through, nor do later ones of its key.
    LoseFirst,
    /// The first of these positions does not get through, the second is refused for good.
    LoseAndRefuse(usize, usize),
    /// Says that some did not get through, and not which.
    Unclear,
    /// The records with these keys are refused for good, in whatever call they come.
    Refuse(Vec<String>),
    /// Every call that holds one of these keys is refused as a whole, from now on.
    Suspect(Vec<String>),
    /// The records get through, and then an error says that they did not.
    FailAfter,
    /// Nothing gets through.
    Away,
    /// Nothing gets through, and this says when to come back.
    AwayFor(Again),
    /// Never answers.
    Hang,
    /// Standard output is gone.
    Gone,
}

/// A sink that keeps what it is given, and fails on request.
#[derive(Clone, Default)]
pub struct FaultySink {
    got: Arc<Mutex<Vec<Record>>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    refused: Arc<Mutex<Vec<String>>>,
    suspected: Arc<Mutex<Vec<String>>>,
    /// How many more calls fail the records of each key.
    failing: Arc<Mutex<HashMap<String, u32>>>,
    calls: Arc<Mutex<Vec<(Instant, usize)>>>,
    pub limits: Limits,
}

impl FaultySink {
    pub fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// Refuses every call with a record of this key as a whole from now on.
    pub fn suspect(&self, key: String) {
        self.suspected.lock().unwrap().push(key);
    }

    /// The records with this key fail in so many calls from now on; those with others do not.
    pub fn fail(&self, key: &str, calls: u32) {
        self.failing.lock().unwrap().insert(key.to_owned(), calls);
    }

    /// Which of these records fail because of their keys.
    fn failing(&self, records: &[Record]) -> Vec<usize> {
        let mut failing = self.failing.lock().unwrap();
        let keys: HashSet<_> = records.iter().map(|it| it.key.clone()).collect();
        let mut failed = HashSet::new();
        for key in keys {
            if let Some(calls) = failing.get_mut(&*key).filter(|it| **it > 0) {
                *calls -= 1;
                failed.insert(key);
            }
        }
        (0..records.len()).filter(|it| failed.contains(&records[*it].key)).collect()
    }

    pub fn records(&self) -> Vec<Record> {
        self.got.lock().unwrap().clone()
    }

    pub fn ids(&self) -> Vec<String> {
        self.records().into_iter().map(|it| it.meta.id).collect()
    }

    /// The subjects of what arrived: objects, or allocation and task.
    pub fn subjects(&self) -> Vec<String> {
        self.records().into_iter().map(|it| it.meta.subject).collect()
    }

    pub fn bodies(&self) -> Vec<Value> {
        let body = |it: &Record| serde_json::from_slice(&it.body).unwrap();
        self.records().iter().map(body).collect()
    }

    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// Sizes of the calls so far.
    pub fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().iter().map(|(_, size)| *size).collect()
    }

    /// When the calls so far were made.
    pub fn call_times(&self) -> Vec<Instant> {
        self.calls.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

#[async_trait]
impl Sink for FaultySink {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        self.calls.lock().unwrap().push((Instant::now(), records.len()));
        assert!(records.len() <= self.limits.records, "{} in a call", records.len());
        let keys: HashSet<_> = records.iter().map(|it| &it.key).collect();
        assert!(
            !self.limits.one_per_key || keys.len() == records.len(),
            "a key is twice in a call"
        );
        let fault = self.faults.lock().unwrap().pop_front();
        let mut lost = Vec::new();
        match &fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Away) => return Err(DeliverError::unavailable("injected")),
            Some(Fault::AwayFor(again)) => {
                let source = "injected".into();
                return Err(DeliverError::Unavailable { source, again: *again });
            }
            Some(Fault::Gone) => return Err(DeliverError::Fatal("injected".into())),
            Some(Fault::Refuse(keys)) => self.refused.lock().unwrap().extend(keys.clone()),
            Some(Fault::Suspect(keys)) => self.suspected.lock().unwrap().extend(keys.clone()),
            Some(Fault::Lose(positions)) => lost.clone_from(positions),
            Some(Fault::LoseFirst) => {
                lost.extend((0..records.len()).filter(|it| records[*it].key == records[0].key));
            }
            Some(Fault::LoseAndRefuse(first, _)) => lost.push(*first),
            Some(Fault::Unclear) => return Err(DeliverError::Failed(Vec::new())),
            Some(Fault::FailAfter) | None => (),
        }
        let refused_at = match &fault {
            Some(Fault::LoseAndRefuse(_, second)) => Some(*second),
            _ => None,
        };
        let suspected = self.suspected.lock().unwrap().clone();
        if records.iter().any(|record| suspected.iter().any(|it| **it == *record.key)) {
            let suspect = |position| Failure {
                position,
                kind: FailureKind::Suspect,
                source: "injected".into(),
            };
            return Err(DeliverError::Failed((0..records.len()).map(suspect).collect()));
        }
        lost.extend(self.failing(records));
        let refused = self.refused.lock().unwrap().clone();
        let mut failures = Vec::new();
        for (position, record) in records.iter().enumerate() {
            let refused = refused.iter().any(|it| **it == *record.key);
            let kind = if refused || refused_at == Some(position) {
                FailureKind::Rejected
            } else if lost.contains(&position) {
                FailureKind::Transient
            } else {
                self.got.lock().unwrap().push(record.clone());
                continue;
            };
            failures.push(Failure { position, kind, source: "injected".into() });
        }
        match fault {
            Some(Fault::FailAfter) => Err(DeliverError::unavailable("injected")),
            _ if failures.is_empty() => Ok(()),
            _ => Err(DeliverError::Failed(failures)),
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// A Nomad, a Consul, and what is published of the one under the rule of the other.
pub struct World {
    pub nomad: standin::nomad::Nomad,
    pub consul: standin::consul::Consul,
    pub sink: FaultySink,
    pub start: Start,
    pub changes: Source,
    pub resync: Duration,
    pub namespace: &'static str,
    /// The expression of what is published.
    pub filter: Option<&'static str>,
}

/// A firehose that runs.
pub struct Running {
    trigger: Trigger,
    task: JoinHandle<Result<(), String>>,
    pub metrics: Arc<Metrics>,
}

impl World {
    pub fn new(version: Version) -> Self {
        Self {
            nomad: standin::nomad::Nomad::new(version),
            consul: standin::consul::Consul::new(),
            sink: FaultySink::default(),
            start: Start::Earliest,
            changes: Source::Poll,
            resync: Duration::from_secs(300),
            namespace: "*",
            filter: None,
        }
    }

    /// A leader that competes for the lock of the stream.
    pub fn leader<R: Resource>(&self) -> Box<dyn Leader> {
        lock_with::<R>(self.consul.router(), client())
    }

    /// Starts a copy of the firehose.
    pub fn start<R: Resource>(&self) -> Running {
        self.start_with::<R>(self.leader::<R>())
    }

    pub fn start_with<R: Resource>(&self, leader: Box<dyn Leader>) -> Running {
        let metrics = Arc::new(Metrics::default());
        let nomad = api::Nomad::stand_in(self.nomad.router(), client());
        let sink = Box::new(self.sink.clone());
        let filter = self.filter.map(|it| Filter::parse(it).unwrap());
        let delivery = Delivery::new(sink, GRACE, metrics.clone()).with_filter(filter);
        let config = self.config(nomad, leader, delivery, &metrics);
        let (trigger, stop) = shutdown::channel();
        let task =
            tokio::spawn(
                async move { lead::<R>(&config, &stop).await.map_err(|err| err.to_string()) },
            );
        Running { trigger, task, metrics }
    }

    /// What a copy of the firehose is told.
    pub fn config(
        &self,
        nomad: api::Nomad,
        mut leader: Box<dyn Leader>,
        delivery: Delivery,
        metrics: &Arc<Metrics>,
    ) -> Config {
        leader.counts_in(metrics);
        Config {
            nomad,
            scope: Scope {
                namespace: self.namespace.into(),
                source: "/nomad/test".into(),
                changes: self.changes,
                resync: self.resync,
            },
            delivery,
            leader,
            start: self.start,
            checkpoint: Duration::from_secs(10),
            grace: GRACE,
            metrics: metrics.clone(),
            listen: None,
        }
    }

    /// The Go tool's position of the stream, as Consul has it.
    pub fn value<R: Resource>(&self) -> Option<String> {
        let value = self.consul.value(&format!("nomad-firehose/{}.value", R::LOCK))?;
        Some(String::from_utf8(value).unwrap())
    }

    pub async fn published(&self, count: usize) {
        let what = format!("{count} records");
        until(&what, || self.sink.count() >= count).await;
    }
}

impl Running {
    /// As SIGTERM does.
    pub async fn stop(self) {
        self.trigger.stop();
        self.task.await.unwrap().unwrap();
    }

    /// As SIGKILL does: nothing is saved, nothing released.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        // The trigger asks to stop when it is dropped; nobody listens any more.
    }

    /// Waits until it ends by itself, with an error.
    pub async fn fails(self) -> String {
        self.task.await.unwrap().unwrap_err()
    }
}

/// A leader that competes for the lock of the stream, in the Consul that answers there.
pub fn lock_with<R: Resource>(consul: Router, client: reqwest::Client) -> Box<dyn Leader> {
    let consul = api::Consul::stand_in(consul, client);
    let (ttl, lock_delay) = (Duration::from_secs(10), Duration::from_secs(1));
    leader::consul(consul, "nomad-firehose", R::LOCK, ttl, lock_delay)
}

/// A client without system certificates: nothing here uses TLS.
pub fn client() -> reqwest::Client {
    api::connect::install_crypto();
    reqwest::Client::builder().tls_certs_only([]).build().unwrap()
}

/// Waits for a condition, for up to an hour of the paused clock.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..36_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: has not come about within an hour");
}

/// Runs to the end under a paused clock.
pub fn paused<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(future)
}

/// A checkpoint as Consul has it, and how many parts of it are damaged.
pub fn checkpoint(consul: &standin::consul::Consul, lock: &str) -> (Saved, usize) {
    let key = |suffix: &str| consul.value(&format!("nomad-firehose/{lock}.{suffix}"));
    let mut loading = Loading::new(key("cursor").as_deref());
    for number in 0..loading.shards() {
        loading.add(number, key(&format!("cursor.{number}")).as_deref());
    }
    loading.finish(key("value").as_deref())
}

/// Lets time pass.
pub async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// A world with node `a`.
pub fn one_node() -> World {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Nodes, node("a", "ready"));
    world
}

/// A world with nodes `a` and `b`.
pub fn two_nodes() -> World {
    let world = one_node();
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world
}
