//! Plays a history, and says what of it went wrong.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use nomad_firehose::{
    api::LOCK_FLAGS, env::Env, failpoint::Plan, metrics::Metrics, standin::nomad::Snapshot,
};
use tokio::time::{Instant, sleep};

use super::{
    copy::Copy,
    history::{History, Kind, Part, Server, Step},
    ledger::Ledger,
    sink::Receiver,
    subject::{State, Subject, filter},
};
use crate::support::{StreamFault, Version, World, disturb, fail};

/// After the last fault everything is published within this time: a list is read every five
/// minutes at least, and whatever failed is tried again within one.
const SETTLED: Duration = Duration::from_secs(1_200);
/// Sessions of the dead are gone after this, those included that were created late; and what is to
/// be saved is.
const QUIET: Duration = Duration::from_secs(70);

/// A simulation of one stream.
pub struct Simulation<R> {
    pub world: World,
    pub receiver: Arc<Receiver>,
    pub env: Env,
    /// What any copy is to meet.
    pub plan: Option<Arc<Plan>>,
    /// How long it goes on once everything is published.
    pub quiet: Duration,
    /// Whether what it is to meet is the loss of an answer of the receiver.
    pub lossy: bool,
    copies: Vec<Copy>,
    started: usize,
    metrics: Vec<Arc<Metrics>>,
    kept: Option<(Snapshot, BTreeMap<u8, Vec<State>>)>,
    stream: PhantomData<R>,
}

/// Plays a history.
pub async fn play<R: Subject>(history: &History) -> Result<(), String> {
    let mut simulation = Simulation::<R>::new(history);
    simulation.go_on(history).await?;
    simulation.finish().await
}

impl<R: Subject> Simulation<R> {
    pub fn new(history: &History) -> Self {
        let world = World { changes: history.changes, ..World::new(Version::V2_0) };
        let ledger = Ledger::new(world.consul.clone(), R::LOCK, history.filters);
        let filter = if history.filters { filter::<R>() } else { "" };
        Self {
            receiver: Arc::new(Receiver::new(ledger, history.limits, history.latency)),
            world,
            env: Env::from([("NOMAD_FIREHOSE_FILTER", filter)]),
            plan: None,
            quiet: QUIET,
            lossy: false,
            copies: Vec::new(),
            started: 0,
            metrics: Vec::new(),
            kept: None,
            stream: PhantomData,
        }
    }

    pub async fn go_on(&mut self, history: &History) -> Result<(), String> {
        while self.copies.len() < history.copies.into() {
            let copy = self.start();
            self.copies.push(copy);
        }
        for step in &history.steps {
            self.replace_the_dead().await;
            self.step(step).await?;
            self.receiver.ledger.lock().unwrap().violations()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Copy {
        let plan = self.plan.clone().unwrap_or_default();
        let copy = Copy::start::<R>(&self.world, &self.receiver, self.started, plan, &self.env);
        if self.lossy {
            copy.facts.expect_loss();
        }
        self.started += 1;
        self.metrics.push(copy.facts.metrics.clone());
        copy
    }

    async fn replace_the_dead(&mut self) {
        for at in 0..self.copies.len() {
            if self.copies[at].is_over() {
                let new = self.start();
                std::mem::replace(&mut self.copies[at], new).kill().await;
            }
        }
    }

    fn change(&mut self, objects: &[u8], again: bool, early: bool) {
        let nomad = &self.world.nomad;
        let index = nomad.index() + u64::from(!again);
        let mut ledger = self.receiver.ledger.lock().unwrap();
        let rows: Vec<_> = objects
            .iter()
            .map(|it| (R::TABLE, R::row(*it, &ledger.changes::<R>(*it, index, again, early))))
            .collect();
        drop(ledger);
        if again {
            rows.into_iter().for_each(|(table, row)| nomad.upsert_at(index, table, row));
        } else {
            assert_eq!(nomad.upsert_many(rows), index);
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let consul = &self.world.consul;
        let key = |suffix: &str| format!("nomad-firehose/{}.{suffix}", R::LOCK);
        let holder = consul.entry(&key("lock")).and_then(|it| it.session);
        let ledger = || self.receiver.ledger.lock().unwrap();
        match step {
            Step::Change(objects, early) => {
                let mut objects = objects.clone();
                objects.sort_unstable();
                objects.dedup();
                self.change(&objects, false, *early);
            }
            Step::Again(object) => {
                if !ledger().states(*object).is_empty() {
                    self.change(&[*object], true, false);
                }
            }
            Step::Burst(object, times) => {
                (0..*times).for_each(|_| self.change(&[*object], false, false));
            }
            Step::Wait(time) => sleep(Duration::from_millis((*time).into())).await,
            Step::Nomad(fault) => fail(&self.world.nomad, *fault),
            Step::Stream(fault) => disturb(&self.world.nomad, *fault),
            Step::Sink(fault) => self.receiver.fault(*fault),
            Step::Meet(copy, point, after, fate) => {
                self.copy(*copy).expect(*point, (*after).into(), *fate);
            }
            Step::Kill(copy) => {
                let new = self.start();
                let at = usize::from(*copy) % self.copies.len();
                std::mem::replace(&mut self.copies[at], new).kill().await;
            }
            Step::Stop(copy) => {
                let new = self.start();
                let at = usize::from(*copy) % self.copies.len();
                std::mem::replace(&mut self.copies[at], new).stop().await?;
            }
            Step::Suspend(copy, seconds) => {
                let process = self.copy(*copy).facts.process.clone();
                process.suspend();
                after(*seconds, move || process.resume());
            }
            Step::Cut(copy, server, seconds) => {
                let copy = self.copy(*copy);
                let link = if *server == Server::Consul { &copy.consul } else { &copy.nomad };
                link.cut(true);
                let link = link.clone();
                after(*seconds, move || link.cut(false));
            }
            Step::Delay(copy, by) => {
                let link = self.copy(*copy).consul.clone();
                link.delay(Duration::from_millis((*by).into()) * 10);
                after(*by, move || link.delay(Duration::ZERO));
            }
            Step::Lose(copy, kind, loss) => {
                let copy = self.copy(*copy);
                let (link, path) = match kind {
                    Kind::Transaction => (&copy.consul, "PUT /v1/txn"),
                    Kind::Read => (&copy.consul, "GET /v1/kv/"),
                    Kind::Write => (&copy.consul, "PUT /v1/kv/"),
                    Kind::Create => (&copy.consul, "PUT /v1/session/create"),
                    Kind::Renew => (&copy.consul, "PUT /v1/session/renew"),
                    Kind::End => (&copy.consul, "PUT /v1/session/destroy"),
                    Kind::Nomad => (&copy.nomad, "/v1/"),
                };
                link.lose(path, *loss);
            }
            Step::Restart => {
                consul.change_leader();
                self.copies.iter().for_each(|it| it.consul.reset());
            }
            Step::Expire => {
                if let Some(session) = holder {
                    ledger().force();
                    consul.expire(&session);
                }
            }
            Step::Unlock => {
                ledger().force();
                consul.delete(&key("lock"));
            }
            Step::Overwrite => {
                if holder.is_some() {
                    ledger().force();
                    consul.put(&key("lock"), "somebody's value");
                }
            }
            Step::Damage(part) => {
                let part = match part {
                    Part::Head => "cursor",
                    Part::Shard => "cursor.0",
                };
                if consul.value(&key(part)).is_some() {
                    ledger().damage();
                    consul.put(&key(part), "damaged");
                }
            }
            Step::Snapshot => self.kept = Some((self.world.nomad.snapshot(), ledger().told())),
            Step::SetBack => {
                if let Some((snapshot, told)) = &self.kept {
                    ledger().set_back(told.clone());
                    self.world.nomad.restore(snapshot);
                }
            }
        }
        Ok(())
    }

    fn copy(&self, number: u8) -> &Copy {
        &self.copies[usize::from(number) % self.copies.len()]
    }

    /// Nothing goes wrong any more: everything is published and saved, and the copies stop well.
    pub async fn finish(mut self) -> Result<(), String> {
        for fault in [StreamFault::Mute(false), StreamFault::Stall(false), StreamFault::CatchUp] {
            disturb(&self.world.nomad, fault);
        }
        self.receiver.heal();
        for copy in &self.copies {
            copy.plan.clear();
            copy.facts.process.resume();
            copy.consul.heal();
            copy.nomad.heal();
        }
        self.replace_the_dead().await;
        let since = Instant::now();
        let mut settled = since;
        while settled.elapsed() < self.quiet && since.elapsed() < SETTLED {
            sleep(Duration::from_secs(1)).await;
            self.mend_the_lock();
            // A request that was under way may be the last one of its copy.
            self.replace_the_dead().await;
            if !self.missing().is_empty() {
                settled = Instant::now();
            }
        }
        for copy in std::mem::take(&mut self.copies) {
            if copy.facts.process.is_dead() {
                copy.kill().await;
                continue;
            }
            if copy.is_over() {
                return Err(format!("copy {} has ended by itself", copy.facts.copy));
            }
            if !copy.stop().await? {
                return Err("a copy does not stop within the grace period".to_owned());
            }
        }
        let gaps = self.metrics.iter().map(|it| it.gaps.get()).sum();
        let sessions = self.world.consul.sessions().len();
        let mut ledger = self.receiver.ledger.lock().unwrap();
        if sessions > 0 {
            ledger.wrong(format!("{sessions} sessions are left"));
        }
        ledger.ends::<R>(gaps);
        ledger.violations()
    }

    fn missing(&self) -> Vec<i64> {
        self.receiver.ledger.lock().unwrap().missing::<R>()
    }

    /// A lock that was written over while its holder died belongs to nobody: an operator deletes
    /// it, as the log says.
    fn mend_the_lock(&self) {
        let key = format!("nomad-firehose/{}.lock", R::LOCK);
        let lock = self.world.consul.entry(&key);
        if lock.is_some_and(|it| it.flags != LOCK_FLAGS && it.session.is_none()) {
            self.receiver.ledger.lock().unwrap().force();
            self.world.consul.delete(&key);
        }
    }
}

/// Does something after so many seconds.
fn after(seconds: u8, then: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(Duration::from_secs(seconds.into())).await;
        then();
    });
}
