//! A copy of the firehose: a process with a network of its own.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nomad_firehose::{
    api,
    deliver::Delivery,
    env::Env,
    failpoint::{self, Fate, Plan, Point, Process},
    metrics::Metrics,
    run::lead,
    shutdown::{self, Trigger},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    link::{Link, Passing, When},
    sink::{Door, Receiver},
    subject::Subject,
};
use crate::support::{GRACE, World, client, lock_with};

/// A process that is asked to stop leaves within this time on top of the grace period.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// Making one takes longer than many requests, and nothing here is sent by it.
static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(client);

/// What is known of a copy from outside.
pub struct Facts {
    pub copy: usize,
    pub process: Arc<Process>,
    pub metrics: Arc<Metrics>,
    consul: OnceLock<Weak<Link>>,
    claim: Mutex<Claim>,
    loaded: Mutex<BTreeMap<u8, i64>>,
    /// Whether answers of the receiver may be lost on their way to it.
    lossy: AtomicBool,
    stopping: Mutex<Option<Instant>>,
}

/// A session, when the lock was asked for with it, and when the last renewal set out that was
/// answered.
type Claim = (Option<String>, Option<Instant>, Option<Instant>);

impl Facts {
    pub fn claim(&self) -> Claim {
        self.claim.lock().unwrap().clone()
    }

    pub fn loaded(&self) -> BTreeMap<u8, i64> {
        self.loaded.lock().unwrap().clone()
    }

    pub fn is_lossy(&self) -> bool {
        self.lossy.load(Ordering::Relaxed)
    }

    /// The receiver may confirm what it does not learn of.
    pub fn expect_loss(&self) {
        self.lossy.store(true, Ordering::Relaxed);
    }

    /// Until when something was wrong with its way to Consul.
    pub fn impaired(&self) -> Option<Instant> {
        self.consul.get()?.upgrade()?.impaired()
    }

    /// Whether it was asked to stop, and has had nothing to contend with since.
    fn stops_well(&self) -> bool {
        let asked = *self.stopping.lock().unwrap();
        let disturbed = self.impaired().max(self.process.disturbed());
        asked.is_some() && disturbed < asked
    }

    /// A request to Consul passes.
    fn passes<R: Subject>(&self, receiver: &Receiver, when: When, it: &Passing<'_>) {
        let path = it.uri.path();
        let session = |name: &str| {
            let pairs = it.uri.query().unwrap_or_default().split('&');
            pairs.filter_map(|it| it.split_once('=')).find(|(key, _)| *key == name).map(|it| it.1)
        };
        let head = format!("/v1/kv/nomad-firehose/{}.cursor", R::LOCK);
        match when {
            When::Before if session("release").is_some() && self.stops_well() => {
                receiver.ledger.lock().unwrap().released::<R>(self);
            }
            When::Answered if session("acquire").is_some() => {
                let mut claim = self.claim.lock().unwrap();
                (claim.0, claim.1) = (session("acquire").map(str::to_owned), Some(Instant::now()));
            }
            When::Done if path == "/v1/txn" => {
                receiver.ledger.lock().unwrap().written::<R>();
            }
            When::Done if path == head => {
                *self.loaded.lock().unwrap() = receiver.ledger.lock().unwrap().saved::<R>();
            }
            When::Answered
                if path.starts_with("/v1/session/create")
                    || path.starts_with("/v1/session/renew") =>
            {
                let mut claim = self.claim.lock().unwrap();
                claim.2 = claim.2.max(Some(it.sent));
            }
            When::Before | When::Done | When::Answered => (),
        }
    }
}

/// A copy that runs, or did.
pub struct Copy {
    pub facts: Arc<Facts>,
    pub plan: Arc<Plan>,
    pub consul: Arc<Link>,
    pub nomad: Arc<Link>,
    trigger: Trigger,
    task: JoinHandle<Result<(), String>>,
}

impl Copy {
    pub fn start<R: Subject>(
        world: &World,
        receiver: &Arc<Receiver>,
        copy: usize,
        plan: Arc<Plan>,
        env: &Env,
    ) -> Self {
        let process = Arc::new(Process::new(plan.clone(), copy as u64));
        let metrics = Arc::new(Metrics::default());
        let facts = Arc::new(Facts {
            copy,
            process: process.clone(),
            metrics: metrics.clone(),
            consul: OnceLock::new(),
            claim: Mutex::default(),
            loaded: Mutex::default(),
            lossy: AtomicBool::new(false),
            stopping: Mutex::default(),
        });
        let (told, receives) = (facts.clone(), receiver.clone());
        let watch = move |when, passing: &Passing<'_>| told.passes::<R>(&receives, when, passing);
        let consul = Link::new(world.consul.router(), process.clone(), watch);
        let _ = facts.consul.set(Arc::downgrade(&consul));
        let nomad = Link::new(world.nomad.router(), process.clone(), |_, _| ());
        let door =
            Door::<R> { receiver: receiver.clone(), facts: facts.clone(), stream: PhantomData };
        let delivery = Delivery::from_env(env, Ok(Box::new(door)), &metrics).unwrap();
        let to_nomad = api::Nomad::stand_in(nomad.router(), CLIENT.clone());
        let config = world.config(
            to_nomad,
            lock_with::<R>(consul.router(), CLIENT.clone()),
            delivery,
            &metrics,
        );
        let (trigger, stop) = shutdown::channel();
        let work = async move { lead::<R>(&config, &stop).await.map_err(|err| err.to_string()) };
        let task = tokio::spawn(failpoint::run(process, work));
        Self { facts, plan, consul, nomad, trigger, task }
    }

    /// This happens to it, once it has passed a point so often.
    pub fn expect(&self, point: Point, after: usize, fate: Fate) {
        if point == Point::Deliver {
            self.facts.expect_loss();
        }
        self.plan.add(point, after, fate);
    }

    /// Whether it has to be replaced.
    pub fn is_over(&self) -> bool {
        self.facts.process.is_dead() || self.task.is_finished()
    }

    /// As SIGKILL does: nothing is saved, nothing released.
    pub async fn kill(self) {
        self.facts.process.end();
        self.task.abort();
        let _ = self.task.await;
    }

    /// As SIGTERM does; whether it had the time to end well.
    pub async fn stop(mut self) -> Result<bool, String> {
        self.facts.process.resume();
        *self.facts.stopping.lock().unwrap() = Some(Instant::now());
        self.trigger.stop();
        match timeout(GRACE + LAST_STEPS, &mut self.task).await {
            Ok(Ok(ended)) => ended.map(|()| true),
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_) => {
                self.kill().await;
                Ok(false)
            }
        }
    }
}
