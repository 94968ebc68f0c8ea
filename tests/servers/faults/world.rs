//! One run: real copies, Consul and RabbitMQ, a Nomad that issues changes, and what goes wrong.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use nomad_firehose::standin::nomad::Nomad;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::{
    copies::{Copies, Place, QUEUE, broker, each_has_a_session},
    issuer::{BETWEEN, Issuer, Kind},
    judge::{Evidence, Verdict, parse},
    lanes::{Noted, OfCopies, OfServers},
    leases::{Followed, holder},
    oracle::Oracle,
    schedule::{Fault, Schedule, Slot, Step},
};
use crate::{
    consul::Agent,
    firehose::{Served, wait},
    print,
    rabbitmq::Node,
    sinks::proxy::Proxy,
    support::Version,
};

/// After the last fault of a slot, everything is delivered within this time. A session ends up to
/// 20 s after its last renewal, and the lock is free a second later; who could not be elected
/// tries again after 15 s at most, and a receiver that was away is tried after 30 s at most.
const RECOVERY: Duration = Duration::from_secs(70);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Lists, which alone move the floor, are read often.
const RESYNC: &str = "5s";
/// Changes at the beginning.
const FIRST: usize = 150;
/// Changes at the end, of which each has to come.
const CALM: usize = 100;

pub struct World {
    place: Place,
    consul: Agent,
    broker: Node,
    copies: Copies,
    issuer: Issuer,
    nomad: Nomad,
    nomad_proxy: Proxy,
    _nomad_port: Served,
    oracle: Oracle,
    holder: Followed<Option<String>>,
    cursor: Followed<Option<Vec<u8>>>,
    value: Followed<Option<Vec<u8>>>,
    noted: Mutex<Noted>,
}

/// What a run came to.
pub struct Outcome {
    pub kind: Kind,
    pub verdict: Verdict,
    pub issued: usize,
    pub faults: BTreeMap<&'static str, usize>,
    pub stopped: Vec<Duration>,
    pub killed: Vec<Duration>,
    pub recovered: Vec<Duration>,
}

impl World {
    pub async fn new(kind: Kind, seed: u64) -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        let (_, port) = nomad_port.address.rsplit_once(':').unwrap();
        let nomad_proxy = Proxy::to(port.parse().unwrap()).await;
        let (consul, broker) = tokio::join!(Agent::start(), broker(kind));
        let address = format!("http://127.0.0.1:{}", nomad_proxy.port());
        let place = Place::new(kind, address, &consul, &broker, RESYNC);
        let bytes = |suffix| {
            Followed::new(consul.api.clone(), place.key(suffix), |_, entry| {
                entry.map(|it| it.value)
            })
        };
        let mut world = Self {
            holder: Followed::new(consul.api.clone(), place.key("lock"), holder),
            cursor: bytes("cursor"),
            value: bytes("value"),
            oracle: Oracle::new(broker.port(), QUEUE),
            issuer: Issuer::new(kind, nomad.clone(), seed),
            copies: Copies::default(),
            noted: Mutex::default(),
            _nomad_port: nomad_port,
            nomad_proxy,
            place,
            consul,
            broker,
            nomad,
        };
        // What is there already when the first copy starts.
        world.issuer.make(FIRST);
        for _ in 0..super::copies::COUNT {
            world.copies.start(&world.place).await;
        }
        world
    }

    /// Lets everything go wrong that is in the schedule, and judges what came of it.
    pub async fn run(mut self, schedule: &Schedule, until: Option<Instant>) -> Outcome {
        let kind = self.place.kind;
        let print = |what: &str| print(&format!("{}: {what}", kind.stream()));
        self.settle(Instant::now()).await;
        // Before there is a checkpoint, gaps are history that nobody asked for.
        wait("the first checkpoint", async || self.cursor.last()?).await;
        for (number, slot) in schedule.slots.iter().enumerate() {
            if until.is_some_and(|it| it <= Instant::now()) {
                break;
            }
            let began = Instant::now();
            let ended = self.slot(slot).await;
            self.settle(ended).await;
            let back = |it: &Step| matches!(it.fault, Fault::Restored | Fault::CursorCorrupted);
            if slot.servers.iter().chain(&slot.copies).any(back) {
                self.seen_through().await;
            }
            self.copies.all_run();
            let names: Vec<_> =
                slot.copies.iter().chain(&slot.servers).map(|it| it.fault.name()).collect();
            let (took, back) = (began.elapsed(), ended.elapsed());
            print(&format!("slot {number}, {took:.1?}, all delivered {back:.1?} after: {names:?}"));
        }
        // With nothing going wrong, every state in between comes.
        let before = self.issuer.count();
        self.issue(async || {
            let enough = async || (self.issuer.count() >= before + CALM).then_some(());
            wait("some more changes", enough).await;
        })
        .await;
        self.issuer.pause(true);
        self.settle(Instant::now()).await;
        let unseen: Vec<_> = {
            let came = self.oracle.came(&self.issuer);
            (before..self.issuer.count()).filter(|it| !came.contains(it)).collect()
        };
        assert!(unseen.is_empty(), "nothing was wrong, and these never came: {unseen:?}");
        each_has_a_session(&self.consul, self.copies.running.len()).await;
        self.copies.stop().await;
        self.outcome()
    }

    fn outcome(self) -> Outcome {
        let noted = self.noted.into_inner().unwrap();
        let (arrivals, bodies, wrong) =
            self.oracle.with(|it| (it.arrivals.clone(), it.bodies.clone(), it.wrong.clone()));
        let evidence = Evidence {
            kind: self.place.kind,
            changes: self.issuer.changes(),
            arrivals,
            bodies,
            wire: self.place.wire.heard(),
            leases: self.place.leases.all(),
            holders: self.holder.seen(),
            cursors: self.cursor.seen(),
            values: self.value.seen(),
            woken: noted.woken,
            backs: noted.backs,
            log: self.copies.logs(),
        };
        let mut verdict = evidence.judge();
        verdict.wrong.extend(wrong);
        if !verdict.wrong.is_empty() {
            print(&evidence.log);
        }
        Outcome {
            kind: self.place.kind,
            verdict,
            issued: evidence.changes.len(),
            faults: noted.faults,
            stopped: noted.stopped,
            killed: noted.killed,
            recovered: noted.recovered,
        }
    }

    /// Issues changes at a steady rate while something else is done.
    async fn issue<T>(&self, work: impl AsyncFnOnce() -> T) -> T {
        let issuing = async {
            let mut ticks = interval(BETWEEN);
            loop {
                ticks.tick().await;
                self.issuer.tick();
            }
        };
        tokio::select! {
            done = work() => done,
            () = issuing => unreachable!("it goes on for ever"),
        }
    }

    /// Waits until all is delivered that was issued so far.
    async fn settle(&self, since: Instant) {
        let count = self.issuer.count();
        self.issue(async || {
            loop {
                let came = self.oracle.came(&self.issuer);
                let mut missing = self.issuer.missing(count, &came);
                missing.extend(self.not_again());
                if missing.is_empty() {
                    break;
                }
                let first = &self.issuer.changes()[missing[0]];
                assert!(
                    since.elapsed() < RECOVERY,
                    "{RECOVERY:?} after the last fault these are missing: {missing:?}; {first:?}\n{}",
                    self.copies.log
                );
                sleep(LOOK_AGAIN).await;
            }
        })
        .await;
        self.noted.lock().unwrap().recovered.push(since.elapsed());
    }

    /// Waits until a list was read whole after Nomad was set back or the checkpoint damaged. Until
    /// then, what a task lacks is taken for history, and is no gap.
    async fn seen_through(&self) {
        let index = self.nomad.index();
        self.issue(async || {
            wait("the floor is beyond what was said to begin anew", async || {
                let (floor, _) = parse(&self.cursor.last()??)?;
                (floor >= index).then_some(())
            })
            .await;
        })
        .await;
    }

    /// What has not come once more since Nomad was set back to it.
    fn not_again(&self) -> Vec<usize> {
        let mut noted = self.noted.lock().unwrap();
        noted.again.retain(|(since, number)| {
            self.issuer.holds(*number) && !self.oracle.has_come_since(*since, *number, &self.issuer)
        });
        noted.again.iter().map(|(_, number)| *number).collect()
    }

    /// Runs both lanes of a slot; when all that went wrong was over.
    async fn slot(&mut self, slot: &Slot) -> Instant {
        let began = Instant::now();
        let Self {
            place,
            consul,
            broker,
            copies,
            issuer,
            nomad,
            nomad_proxy,
            oracle,
            holder,
            noted,
            ..
        } = self;
        let is_end = |it: &Step| matches!(it.fault, Fault::Killed | Fault::Stopped);
        let alone = slot.servers.is_empty() && slot.copies.iter().all(is_end);
        let mut first = OfCopies { place, consul, copies, holder, noted, alone };
        let mut other = OfServers { broker, issuer, nomad, nomad_proxy, oracle, noted };
        let issuing = async {
            let mut ticks = interval(BETWEEN);
            loop {
                ticks.tick().await;
                issuer.tick();
            }
        };
        let lanes = async {
            let copies = async {
                for step in &slot.copies {
                    sleep_until(began + step.at).await;
                    first.strike(*step).await;
                }
            };
            let servers = async {
                for step in &slot.servers {
                    sleep_until(began + step.at).await;
                    other.strike(*step).await;
                }
            };
            tokio::join!(copies, servers);
        };
        tokio::select! {
            () = lanes => (),
            () = issuing => unreachable!("it goes on for ever"),
        }
        Instant::now()
    }
}
