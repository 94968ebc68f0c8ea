//! What a term still has to publish, and what becomes of each call.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};

use super::{
    Call, Delivery, Fatal, GREATEST_WAIT, LEAST_WAIT, LONGEST_ASKED_WAIT, Now, SELDOM,
    passed::PassedOver, queue::Queue, reads::Reads, steps::Steps,
};
use crate::{
    backoff::Trouble,
    cursor::Cursor,
    error::Chain,
    failpoint::{self, Point},
    sink::{Again, DeliverError, Failure, FailureKind},
};

mod adding;

/// Records in calls under way: beyond this, no further call is made.
const MOST_CALLING: usize = 10_000;

/// What a term still has to publish.
pub struct Outbox<'a> {
    delivery: &'a Delivery,
    queue: Queue,
    steps: Steps,
    passed: PassedOver,
    calls: FuturesUnordered<BoxFuture<'a, Done>>,
    most_calls: usize,
    /// Calls that have ended, and were not asked for yet.
    ended: VecDeque<Done>,
    trouble: Trouble,
    /// No call is made before this.
    paused: Option<Instant>,
    /// Whether anything got through since a call failed as a whole.
    fruitful: bool,
    /// Keys of records that the receiver was not available for, until they get through.
    missed: HashSet<Arc<str>>,
    reads: Reads,
}

/// A call that has ended.
pub struct Done {
    call: Call,
    result: Result<(), DeliverError>,
    took: Duration,
}

impl Done {
    /// How many records it had.
    #[must_use]
    pub fn count(&self) -> usize {
        self.call.records().len()
    }
}

/// The sink broke its contract; see [`DeliverError::Failed`].
#[derive(Debug, thiserror::Error)]
#[error("the sink failed without saying which records it did not deliver; this is a defect in it")]
struct Unclear;

impl<'a> Outbox<'a> {
    /// Nothing to publish so far.
    #[must_use]
    pub fn new(delivery: &'a Delivery) -> Self {
        let limits = delivery.sink.limits();
        Self {
            delivery,
            queue: Queue::new(limits),
            steps: Steps::default(),
            passed: PassedOver::default(),
            calls: FuturesUnordered::new(),
            most_calls: limits.calls,
            ended: VecDeque::new(),
            trouble: Trouble::new(LEAST_WAIT, GREATEST_WAIT),
            paused: None,
            fruitful: true,
            missed: HashSet::new(),
            reads: Reads::default(),
        }
    }

    /// Whether more can be added: it would make the next call fuller, and may be sent before what
    /// waits is settled.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let full = self.steps.is_full() || self.passed.is_full();
        self.queue.wants_more() && !self.steps.is_barred() && !full
    }

    /// Whether all that was added is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.first() == self.queue.next() && self.calls.is_empty() && self.ended.is_empty()
    }

    /// When the next call can be made, if there is anything to send and not too much under way.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let under_way = self.calls.len() + self.ended.len();
        if under_way >= self.most_calls || self.calling() >= MOST_CALLING {
            return None;
        }
        let at = self.queue.next_at(Instant::now())?;
        Some(self.paused.map_or(at, |paused| paused.max(at)))
    }

    /// Takes out the records of the next call, which is to be made now.
    pub fn next_call(&mut self) -> Option<Call> {
        self.queue.next_call(Instant::now())
    }

    /// Makes a call.
    pub fn start(&mut self, call: Call) {
        let sink = &self.delivery.sink;
        self.delivery.metrics.health.sink.is_waited_for();
        self.calls.push(Box::pin(async move {
            let since = Instant::now();
            let result = failpoint::around(Point::Deliver, sink.deliver(call.records())).await;
            Done { call, result, took: since.elapsed() }
        }));
    }

    /// How many records are in calls that have not been settled.
    #[must_use]
    pub fn calling(&self) -> usize {
        self.queue.calling()
    }

    /// Waits for a call to end; for ever where there is none.
    pub async fn done(&mut self) -> Done {
        if let Some(done) = self.ended.pop_front() {
            return done;
        }
        match self.calls.next().await {
            Some(done) => done,
            None => pending().await,
        }
    }

    /// Lets calls go on while something else is waited for.
    pub async fn go_on(&mut self) -> Infallible {
        while let Some(done) = self.calls.next().await {
            self.ended.push_back(done);
        }
        pending().await
    }

    /// Waits for all calls to end, for the grace period.
    pub async fn finish(&mut self, cursor: &mut Cursor) -> Result<(), Fatal> {
        let late = sleep(self.delivery.grace);
        tokio::pin!(late);
        let mut result = Ok(());
        while self.calls.len() + self.ended.len() > 0 {
            tokio::select! {
                biased;
                done = self.done() => {
                    let settled = self.settle(done, cursor).await;
                    result = result.and(settled);
                }
                () = &mut late => {
                    tracing::warn!(
                        records = self.calling(),
                        "the sink did not answer within the grace period; these records may be \
                         published again. If it recurs, raise NOMAD_FIREHOSE_GRACE"
                    );
                    break;
                }
            }
        }
        result
    }

    /// Notes in `cursor` what is durable after a call; what is to be sent again goes back.
    pub async fn settle(&mut self, done: Done, cursor: &mut Cursor) -> Result<(), Fatal> {
        failpoint::reach(Point::Settle).await;
        let Done { call, result, took } = done;
        self.delivery.called(call.records(), took);
        let count = call.records().len();
        let clear = |failures: &[Failure]| {
            !failures.is_empty() && failures.iter().all(|it| it.position < count)
        };
        let failures = match result {
            Ok(()) => Vec::new(),
            Err(DeliverError::Fatal(err)) => {
                self.delivery.fails(&*err);
                return Err(Fatal::Sink(err));
            }
            Err(DeliverError::Unavailable { source, again }) => {
                let metrics = &self.delivery.metrics;
                match again {
                    Again::Soon => metrics.retries_unavailable.one(),
                    Again::Seldom => metrics.retries_unusable.one(),
                    Again::After(_) => metrics.retries_throttled.one(),
                }
                self.give_back(call, &*source, again);
                return Ok(());
            }
            Err(DeliverError::Failed(failures)) if !clear(&failures) => {
                self.delivery.metrics.retries_unclear.one();
                self.give_back(call, &Unclear, Again::Soon);
                return Ok(());
            }
            Err(DeliverError::Failed(failures)) => failures,
        };
        self.settle_each(call, failures, cursor).await
    }

    async fn settle_each(
        &mut self,
        call: Call,
        failures: Vec<Failure>,
        cursor: &mut Cursor,
    ) -> Result<(), Fatal> {
        let mut failed: Vec<Option<Failure>> = call.records().iter().map(|_| None).collect();
        for failure in failures {
            if let Some(at) = failed.get_mut(failure.position) {
                *at = Some(failure);
            }
        }
        let alone = failed.len() == 1;
        let moves = cursor.moves();
        let mut delivered = false;
        let mut suspects = Vec::new();
        let mut suspected = false;
        let mut fatal = None;
        // What follows an unsettled record of the same key is sent again with it, lest the
        // checkpoint pass it.
        let mut unsettled: HashSet<Arc<str>> = HashSet::new();
        let mut waiting: HashSet<Arc<str>> = HashSet::new();
        let mut reason = None;
        let mut given_back = false;
        let mut answered = false;
        let now = Now::new();
        for ((place, record), failure) in call.into_places().zip(failed) {
            let settled = match failure.map(|it| (it.kind, it.source)) {
                _ if unsettled.contains(&record.key) => false,
                None => {
                    delivered = true;
                    self.delivery.confirmed(&record, self.reads.of(place), &now);
                    true
                }
                Some((FailureKind::Transient, source)) => {
                    reason.get_or_insert(source);
                    waiting.insert(record.key.clone());
                    false
                }
                Some((FailureKind::Suspect, _)) if !alone => {
                    suspects.push(place);
                    false
                }
                Some(failed @ (FailureKind::Rejected | FailureKind::Suspect, _)) => {
                    // What was confirmed is noted, whatever becomes of this one.
                    let given_up = self.delivery.reject(&record, failed, &mut self.trouble).await;
                    let given_up = given_up.unwrap_or_else(|err| {
                        fatal.get_or_insert(err);
                        false
                    });
                    if !given_up {
                        given_back = true;
                        waiting.insert(record.key.clone());
                    }
                    given_up
                }
            };
            if settled {
                answered = true;
                self.steps.settled(place, record.mark, cursor);
                self.delivery.metrics.settled(record.body.len());
                suspected |= self.queue.settle(place, &record);
                self.missed.remove(&record.key);
                for (place, mark) in self.passed.settle(&record.key, place) {
                    self.steps.settled(place, mark, cursor);
                }
            } else {
                unsettled.insert(record.key.clone());
                self.queue.put_back(place, record);
            }
        }
        self.reach(moves, None, cursor);
        self.steps.advance(self.queue.first(), cursor);
        failpoint::reach(Point::Settled).await;
        match &reason {
            // Why a record was given back was said where it was.
            _ if given_back => (),
            Some(reason) if !answered => self.delivery.fails(&**reason),
            _ if answered => self.delivery.works(delivered),
            _ => (),
        }
        self.wait_on();
        if delivered {
            self.fruitful = true;
            self.trouble.backoff.reset();
        }
        if !suspects.is_empty() {
            self.queue.narrow(suspects);
        } else if delivered && (suspected || !self.queue.has_suspects()) {
            self.queue.widen();
        }
        if !waiting.is_empty() {
            failpoint::reach(Point::Retry).await;
            if let Some(reason) = reason {
                self.delivery.metrics.retries_transient.one();
                transient(&mut self.trouble, &*reason);
            } else {
                self.delivery.metrics.retries_rejected.one();
            }
            let mut now = Instant::now();
            let news = waiting.iter().any(|key| !self.queue.has_failed(key));
            let paused = self.is_paused(now);
            if !delivered && news && !paused && !std::mem::take(&mut self.fruitful) {
                // Perhaps the receiver takes nothing at all: others are tried next, and not at once.
                now += self.trouble.backoff.next_wait();
                self.pause_until(now);
            }
            self.queue.hold(&waiting, now);
        } else if unsettled.is_empty() && !self.queue.is_holding() && self.missed.is_empty() {
            over(&mut self.trouble);
        }
        fatal.map_or(Ok(()), Err)
    }

    /// Other calls may be under way, of which the sink has yet to say something.
    fn wait_on(&self) {
        let waits = self.calls.len() + self.ended.len() > 0;
        self.delivery.metrics.health.sink.waits_on(waits);
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused.is_some_and(|it| it > now)
    }

    fn pause_until(&mut self, at: Instant) {
        self.paused = Some(self.paused.map_or(at, |paused| paused.max(at)));
    }

    /// The receiver took nothing: everything waits.
    fn give_back(&mut self, call: Call, err: &(dyn std::error::Error + 'static), again: Again) {
        self.delivery.unavailable(&mut self.trouble, err);
        self.wait_on();
        let now = Instant::now();
        let paused = self.is_paused(now);
        let backoff = &mut self.trouble.backoff;
        if again == Again::Seldom {
            backoff.slow_down(SELDOM);
        }
        let wait = match again {
            Again::After(wait) => wait.clamp(LEAST_WAIT, LONGEST_ASKED_WAIT),
            // All calls that were under way fail together, and that is one failure.
            Again::Soon | Again::Seldom if paused => Duration::ZERO,
            Again::Soon | Again::Seldom => backoff.next_wait(),
        };
        let until = now + wait;
        self.pause_until(until);
        let mut keys = HashSet::new();
        for (place, record) in call.into_places() {
            keys.insert(record.key.clone());
            self.queue.put_back(place, record);
        }
        if let Again::After(_) = again {
            // It may be these that the receiver does not want now.
            self.queue.defer(&keys, until);
        }
        self.missed.extend(keys);
    }
}

fn transient(trouble: &mut Trouble, err: &(dyn std::error::Error + 'static)) {
    if trouble.is_news(Chain(err).to_string()) {
        tracing::warn!(
            error = %Chain(err),
            "some records were not delivered and are sent again. If it lasts, mend what the error \
             says"
        );
    }
}

fn over(trouble: &mut Trouble) {
    if let Some((after, attempts)) = trouble.over() {
        tracing::info!(?after, attempts, "the receiver takes records again");
    }
}
