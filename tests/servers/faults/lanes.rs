//! How each fault is made.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use nomad_firehose::standin::{Fault as Answer, nomad::Nomad};
use reqwest::Method;
use tokio::time::{Instant, sleep};

use super::{
    copies::{AFTER, Copies, Place},
    issuer::Issuer,
    leases::Followed,
    oracle::Oracle,
    schedule::{Fault, Step, Target},
};
use crate::{
    consul::Agent,
    firehose::wait,
    rabbitmq::Node,
    sinks::proxy::{Proxy, Way},
};

/// Changes between the state that is saved and the moment when Nomad is set back to it.
const SET_BACK: usize = 20;

/// What the run itself has to tell.
#[derive(Default)]
pub struct Noted {
    pub woken: Vec<(Instant, usize)>,
    pub backs: Vec<Instant>,
    pub faults: BTreeMap<&'static str, usize>,
    /// What is to come once more, and after when.
    pub again: Vec<(Instant, usize)>,
    pub stopped: Vec<Duration>,
    pub killed: Vec<Duration>,
    pub recovered: Vec<Duration>,
}

/// What happens to copies and Consul.
pub struct OfCopies<'a> {
    pub place: &'a Place,
    pub consul: &'a mut Agent,
    pub copies: &'a mut Copies,
    pub holder: &'a Followed<Option<String>>,
    pub noted: &'a Mutex<Noted>,
    /// Nothing happens to the servers meanwhile.
    pub alone: bool,
}

impl OfCopies<'_> {
    /// The session that has the lock, and the place of its copy.
    async fn holding(&self) -> (String, usize) {
        wait("a copy has the lock", async || {
            let session = self.holder.last()??;
            let at = self.copies.place_of(self.place.leases.copy(&session)?)?;
            Some((session, at))
        })
        .await
    }

    async fn target(&self, target: Target) -> usize {
        let (_, holder) = self.holding().await;
        match target {
            Target::Holder | Target::Servers => holder,
            Target::Standby(number) => (holder + 1 + number) % self.copies.running.len(),
        }
    }

    async fn destroy(&self, session: &str) {
        let path = format!("/v1/session/destroy/{session}");
        self.consul.ask(Method::PUT, &path, "").await.expect("Consul ends the session");
    }

    pub async fn strike(&mut self, step: Step) {
        *self.noted.lock().unwrap().faults.entry(step.fault.name()).or_default() += 1;
        match step.fault {
            Fault::Killed => {
                let at = self.target(step.target).await;
                let mut copy = self.copies.remove(at);
                copy.process.kill();
                let killed = Instant::now();
                self.copies.keep_log(&copy.process.log.text());
                self.copies.start(self.place).await;
                if self.alone && step.target == Target::Holder {
                    let took = self.taken_over(copy.number, killed).await;
                    self.noted.lock().unwrap().killed.push(took);
                }
            }
            Fault::Stopped => {
                let at = self.target(step.target).await;
                let copy = self.copies.remove(at);
                let asked = Instant::now();
                let finished = copy.process.stop().await;
                self.copies.keep_log(&finished.log);
                if self.alone && step.target == Target::Holder {
                    let took = self.taken_over(copy.number, asked).await;
                    self.noted.lock().unwrap().stopped.push(took);
                }
                self.copies.start(self.place).await;
            }
            Fault::Suspended(time) => {
                let at = self.target(step.target).await;
                let copy = &self.copies.running[at];
                copy.process.signal("STOP");
                sleep(time).await;
                // Before: it may go on with what it was at before the signal is known to be sent.
                self.noted.lock().unwrap().woken.push((Instant::now(), copy.number));
                copy.process.signal("CONT");
            }
            Fault::ConsulRestarted => {
                self.consul.terminate().await;
                assert!(self.consul.resume().await, "Consul does not start again");
            }
            Fault::ConsulUnreachable(way, time) => {
                let at = self.target(step.target).await;
                let proxy = &self.copies.running[at].consul;
                proxy.set(way);
                sleep(time).await;
                proxy.set(Way::Open);
            }
            Fault::SessionDestroyed => {
                let (session, _) = self.holding().await;
                self.destroy(&session).await;
            }
            Fault::LockDeleted => {
                self.holding().await;
                let path = format!("/v1/kv/{}", self.place.key("lock"));
                self.consul.ask(Method::DELETE, &path, "").await.expect("Consul deletes the lock");
            }
            Fault::LockOverwritten => self.overwrite().await,
            Fault::CursorCorrupted => {
                let (session, _) = self.holding().await;
                // Whoever had the lock can save no more, and for a second nobody can have it.
                self.destroy(&session).await;
                self.noted.lock().unwrap().backs.push(Instant::now());
                self.consul.put(&self.place.key("cursor"), "nomad-firehose-cursor-1 0 {}").await;
            }
            other => unreachable!("{other:?} is of the other lane"),
        }
    }

    /// Writes a note into the lock, as of somebody who does not know what it is, and mends it: it
    /// is nobody's to mend but the operator's.
    async fn overwrite(&mut self) {
        let (session, _) = self.holding().await;
        let key = self.place.key("lock");
        self.consul.put(&key, "a note to myself").await;
        wait("the term ends", async || {
            (self.holder.last()?.as_ref() != Some(&session)).then_some(())
        })
        .await;
        sleep(AFTER).await;
        if self.holder.last().flatten().is_none() {
            self.consul.ask(Method::DELETE, &format!("/v1/kv/{key}"), "").await.expect("deleted");
        }
    }

    /// How long it takes until another copy publishes.
    async fn taken_over(&self, from: usize, after: Instant) -> Duration {
        let took = wait("another copy publishes", async || self.place.wire.taken_over(from, after));
        took.await.1 - after
    }
}

/// What happens to Nomad and RabbitMQ.
pub struct OfServers<'a> {
    pub broker: &'a mut Node,
    pub issuer: &'a Issuer,
    pub nomad: &'a Nomad,
    pub nomad_proxy: &'a Proxy,
    pub oracle: &'a Oracle,
    pub noted: &'a Mutex<Noted>,
}

impl OfServers<'_> {
    pub async fn strike(&mut self, step: Step) {
        *self.noted.lock().unwrap().faults.entry(step.fault.name()).or_default() += 1;
        match step.fault {
            Fault::BrokerRestarted => self.away(Duration::ZERO).await,
            Fault::BrokerAway(time) => self.away(time).await,
            Fault::NomadAway(way, time) => {
                self.nomad_proxy.set(way);
                sleep(time).await;
                self.nomad_proxy.set(Way::Open);
            }
            Fault::NomadCut => {
                let path = format!("/v1/{}", self.issuer.kind.stream());
                // The first of these is a list that is nearly empty, which tries the token.
                for _ in 0..2 {
                    self.nomad.script(&path, Answer::CutBody { after_bytes: 1_000 });
                }
                self.nomad.restart_broker(1);
            }
            Fault::Restored => {
                self.issuer.pause(true);
                self.delivered().await;
                let before = self.issuer.snapshot();
                self.issuer.make(SET_BACK);
                self.delivered().await;
                let again = self.issuer.restore(before);
                let now = Instant::now();
                let mut noted = self.noted.lock().unwrap();
                noted.backs.push(now);
                noted.again.extend(again.into_iter().map(|it| (now, it)));
                drop(noted);
                self.issuer.pause(false);
            }
            Fault::ClockSteppedBack => self.issuer.step_back(),
            Fault::Burst => {
                self.issuer.burst();
            }
            other => unreachable!("{other:?} is of the other lane"),
        }
    }

    async fn away(&mut self, time: Duration) {
        self.broker.kill();
        sleep(time).await;
        assert!(self.broker.resume().await, "RabbitMQ does not start again");
    }

    async fn delivered(&self) {
        let count = self.issuer.count();
        wait("all is delivered", async || {
            let came = self.oracle.came(self.issuer);
            self.issuer.missing(count, &came).is_empty().then_some(())
        })
        .await;
    }
}
