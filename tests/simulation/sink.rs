//! The receiver, which all copies share.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use nomad_firehose::{
    record::{Limits, Record},
    sink::{DeliverError, Failure, FailureKind, Sink},
};
use tokio::time::sleep;

use super::{
    copy::Facts,
    ledger::Ledger,
    subject::{Subject, object_of},
};

/// What the receiver does with a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The first record does not get through, nor do later ones of its key.
    LoseFirst,
    /// The record at this position does not get through, and later ones of its key do.
    Lose(u8),
    /// The first record is refused for good.
    RefuseFirst,
    /// The records of an object fail in so many calls.
    FailObject(u8, u8),
    /// The records get through, and then an error says that they did not.
    FailAfter,
    /// The records get through, and it takes so many seconds until it says so.
    Slow(u8),
    /// Nothing gets through.
    Away,
}

/// The receiver.
pub struct Receiver {
    pub ledger: Mutex<Ledger>,
    pub limits: Limits,
    /// How long every call takes.
    pub latency: Duration,
    faults: Mutex<VecDeque<Fault>>,
    failing: Mutex<HashMap<u8, u8>>,
    /// Objects of which records are in a call, by copy.
    busy: Mutex<HashSet<(usize, u8)>>,
}

impl Receiver {
    pub fn new(ledger: Ledger, limits: Limits, latency: Duration) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            limits,
            latency,
            faults: Mutex::default(),
            failing: Mutex::default(),
            busy: Mutex::default(),
        }
    }

    pub fn fault(&self, fault: Fault) {
        match fault {
            Fault::FailObject(object, calls) => {
                self.failing.lock().unwrap().insert(object, calls);
            }
            fault => self.faults.lock().unwrap().push_back(fault),
        }
    }

    /// It takes everything from now on.
    pub fn heal(&self) {
        self.faults.lock().unwrap().clear();
        self.failing.lock().unwrap().clear();
    }

    fn failing(&self, objects: &HashSet<u8>) -> HashSet<u8> {
        let mut failing = self.failing.lock().unwrap();
        let fails = |it: &&u8| {
            failing.get_mut(it).filter(|left| **left > 0).map(|left| *left -= 1).is_some()
        };
        objects.iter().filter(fails).copied().collect()
    }
}

/// The way of one copy to the receiver.
pub struct Door<R> {
    pub receiver: Arc<Receiver>,
    pub facts: Arc<Facts>,
    pub stream: PhantomData<fn() -> R>,
}

/// The objects of a call, while it is under way.
struct Busy<'a>(&'a Receiver, usize, HashSet<u8>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap().retain(|(copy, it)| *copy != self.1 || !self.2.contains(it));
    }
}

#[async_trait]
impl<R: Subject> Sink for Door<R> {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (receiver, facts) = (&*self.receiver, &*self.facts);
        facts.process.running().await;
        let objects: HashSet<u8> =
            records.iter().filter_map(|it| object_of::<R>(&it.key)).collect();
        {
            let mut ledger = receiver.ledger.lock().unwrap();
            ledger.call_begins::<R>(facts, records, receiver.limits);
            let mut busy = receiver.busy.lock().unwrap();
            if objects.iter().any(|it| !busy.insert((facts.copy, *it))) {
                ledger.wrong("two calls at once have records of one key".to_owned());
            }
        }
        let _busy = Busy(receiver, facts.copy, objects.clone());
        let fault = receiver.faults.lock().unwrap().pop_front();
        if let Some(Fault::Away) = fault {
            sleep(receiver.latency).await;
            return Err(DeliverError::unavailable("injected"));
        }
        let failing = receiver.failing(&objects);
        let (mut failures, mut arrived, mut missed) = (Vec::new(), Vec::new(), HashSet::new());
        for (position, record) in records.iter().enumerate() {
            let object = object_of::<R>(&record.key);
            let lost = object.is_some_and(|it| failing.contains(&it))
                || matches!(fault, Some(Fault::LoseFirst)) && record.key == records[0].key
                || matches!(fault, Some(Fault::Lose(at)) if usize::from(at) == position);
            let refused = position == 0 && matches!(fault, Some(Fault::RefuseFirst));
            // What follows a record that is lost is not settled, whatever is said of it.
            let follows = object.is_some_and(|it| missed.contains(&it));
            if lost && !refused {
                missed.extend(object);
            }
            let number = match refused || !lost {
                true => receiver.ledger.lock().unwrap().arrives::<R>(facts, record, refused),
                false => None,
            };
            let kind = match (refused, lost) {
                (true, _) => FailureKind::Rejected,
                (false, true) => FailureKind::Transient,
                (false, false) => {
                    arrived.extend(number.filter(|_| !follows));
                    continue;
                }
            };
            failures.push(Failure { position, kind, source: "injected".into() });
        }
        let slow = match fault {
            Some(Fault::Slow(seconds)) => Duration::from_secs(seconds.into()),
            _ => Duration::ZERO,
        };
        if !(receiver.latency + slow).is_zero() {
            sleep(receiver.latency + slow).await;
        }
        if facts.process.is_dead() {
            pending().await
        }
        if let Some(Fault::FailAfter) = fault {
            return Err(DeliverError::unavailable("injected"));
        }
        receiver.ledger.lock().unwrap().confirms(facts, &arrived);
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        self.receiver.limits
    }
}
