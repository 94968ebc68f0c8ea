//! What a term still has to publish, and what becomes of each call.

use std::{collections::HashSet, sync::Arc};

use tokio::time::{Instant, sleep};

use super::{
    Call, Delivered, Delivery, Fatal, GREATEST_WAIT, LEAST_WAIT, SELDOM, queue::Queue,
    steps::Steps, unavailable,
};
use crate::{
    backoff::Trouble,
    cursor::{Cursor, Mark, Move},
    error::Chain,
    leader::Term,
    record::Record,
    shutdown::Shutdown,
    sink::{Again, DeliverError, Failure, FailureKind, LONGEST_ASKED_WAIT},
};

/// What a term still has to publish.
pub struct Outbox<'a> {
    delivery: &'a Delivery,
    queue: Queue,
    steps: Steps,
    trouble: Trouble,
    /// No call is made before this.
    paused: Option<Instant>,
}

/// The sink broke its contract; see [`DeliverError::Failed`].
#[derive(Debug, thiserror::Error)]
#[error("the sink failed without saying which records it did not deliver; this is a defect in it")]
struct Unclear;

impl<'a> Outbox<'a> {
    /// Nothing to publish so far.
    #[must_use]
    pub fn new(delivery: &'a Delivery) -> Self {
        let queue = Queue::new(delivery.sink.limits());
        let trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
        Self { delivery, queue, steps: Steps::default(), trouble, paused: None }
    }

    /// Adds what comes after all that was added before: positions that move silently, records, and
    /// where the floor goes then. What can be noted at once is noted in `cursor`.
    pub fn add(
        &mut self,
        silent: Vec<Mark>,
        records: Vec<Record>,
        then: Option<Move>,
        cursor: &mut Cursor,
    ) {
        self.steps.add(self.queue.next(), silent, None);
        self.queue.add(records);
        self.steps.add(self.queue.next(), Vec::new(), then);
        self.steps.advance(self.queue.first(), cursor);
    }

    /// Whether more can be added: it would make the next call fuller, and may be sent before what
    /// waits is settled.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.wants_more() && !self.steps.is_barred()
    }

    /// When the next call can be made, if there is anything to send.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        let at = self.queue.next_at(Instant::now())?;
        Some(self.paused.map_or(at, |paused| paused.max(at)))
    }

    /// Takes out the records of the next call, which is to be made now.
    pub fn next_call(&mut self) -> Option<Call> {
        self.queue.next_call(Instant::now())
    }

    /// Makes a call, and notes in `cursor` what is durable; what is to be sent again goes back.
    /// Once the process is asked to stop, the call has the grace period to end.
    pub async fn send(
        &mut self,
        call: Call,
        cursor: &mut Cursor,
        term: &dyn Term,
        stop: &Shutdown,
    ) -> Result<Delivered, Fatal> {
        if stop.is_requested() {
            return Ok(Delivered::Stopped);
        }
        if !term.holds() {
            return Ok(Delivered::Over);
        }
        let grace = self.delivery.grace;
        let result = tokio::select! {
            biased;
            result = self.delivery.sink.deliver(call.records()) => result,
            () = async { stop.requested().await; sleep(grace).await } => {
                tracing::warn!(
                    records = call.records().len(),
                    "the sink did not answer within the grace period; these records may be \
                     published again"
                );
                return Ok(Delivered::Stopped);
            }
        };
        let count = call.records().len();
        let clear = |failures: &[Failure]| {
            !failures.is_empty() && failures.iter().all(|it| it.position < count)
        };
        let failures = match result {
            Ok(()) => Vec::new(),
            Err(DeliverError::Fatal(err)) => return Err(Fatal::Sink(err)),
            Err(DeliverError::Unavailable { source, again }) => {
                self.unavailable(call, &*source, again);
                return Ok(Delivered::Settled);
            }
            Err(DeliverError::Failed(failures)) if !clear(&failures) => {
                self.unavailable(call, &Unclear, Again::Soon);
                return Ok(Delivered::Settled);
            }
            Err(DeliverError::Failed(failures)) => failures,
        };
        self.settle(call, failures, cursor).await?;
        Ok(Delivered::Settled)
    }

    /// Notes what is delivered and what is rejected; what is to be sent again goes back.
    async fn settle(
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
        let mut suspects = 0;
        // What follows an unsettled record of the same key is sent again with it, lest the
        // checkpoint pass it.
        let mut unsettled: HashSet<Arc<str>> = HashSet::new();
        let mut waiting: HashSet<Arc<str>> = HashSet::new();
        let mut reason = None;
        for ((place, record), failure) in call.into_places().zip(failed) {
            let settled = match failure.map(|it| (it.kind, it.source)) {
                _ if unsettled.contains(&record.key) => false,
                None => {
                    delivered = true;
                    self.delivery.confirmed(&record);
                    true
                }
                Some((FailureKind::Transient, source)) => {
                    reason.get_or_insert(source);
                    waiting.insert(record.key.clone());
                    false
                }
                Some((FailureKind::Suspect, _)) if !alone => {
                    suspects += 1;
                    false
                }
                Some((FailureKind::Rejected | FailureKind::Suspect, source)) => {
                    let given_up = self.delivery.reject(&record, source, &mut self.trouble).await?;
                    if !given_up {
                        waiting.insert(record.key.clone());
                    }
                    given_up
                }
            };
            if settled {
                self.steps.settled(place, record.mark, cursor);
                self.queue.release(&record.key);
            } else {
                unsettled.insert(record.key.clone());
                self.queue.put(place, record);
            }
        }
        if cursor.moves() != moves
            && let Some(below) = self.queue.below()
        {
            cursor.reach(below);
        }
        self.steps.advance(self.queue.first(), cursor);
        if delivered {
            self.trouble.backoff.reset();
        }
        if suspects > 0 {
            self.queue.narrow(suspects);
        } else if delivered {
            self.queue.widen();
        }
        if !waiting.is_empty() {
            self.delivery.metrics.delivery_retries.one();
            if let Some(reason) = reason {
                transient(&mut self.trouble, &*reason);
            }
            let mut now = Instant::now();
            if !delivered {
                // Perhaps the receiver takes nothing at all: others are tried next, and not at once.
                now += self.trouble.backoff.next_wait();
                self.paused = Some(now);
            }
            self.queue.hold(&waiting, now);
        } else if unsettled.is_empty() && !self.queue.is_holding() {
            over(&mut self.trouble);
        }
        Ok(())
    }

    /// The receiver took nothing: everything waits.
    fn unavailable(&mut self, call: Call, err: &(dyn std::error::Error + 'static), again: Again) {
        self.delivery.metrics.delivery_retries.one();
        unavailable(&mut self.trouble, err);
        let backoff = &mut self.trouble.backoff;
        let wait = match again {
            Again::Soon => backoff.next_wait(),
            Again::Seldom => {
                backoff.slow_down(SELDOM);
                backoff.next_wait()
            }
            Again::After(wait) => wait.min(LONGEST_ASKED_WAIT).max(backoff.next_wait()),
        };
        self.paused = Some(Instant::now() + wait);
        for (place, record) in call.into_places() {
            self.queue.put(place, record);
        }
    }
}

fn transient(trouble: &mut Trouble, err: &(dyn std::error::Error + 'static)) {
    if trouble.is_news(Chain(err).to_string()) {
        tracing::warn!(error = %Chain(err), "some records were not delivered and are sent again");
    }
}

fn over(trouble: &mut Trouble) {
    if let Some((after, attempts)) = trouble.over() {
        tracing::info!(?after, attempts, "the receiver takes records again");
    }
}
