//! Gets records through a sink: in order per key, and again until they are through. The only
//! place that retries, and the only one that gives a record up.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    backoff::Trouble,
    cursor::{Cursor, Index},
    env::{Env, Noted},
    error::{BoxError, Chain},
    leader::Term,
    metrics::Metrics,
    record::Record,
    shutdown::Shutdown,
    sink::{Again, DeliverError, Failure, FailureKind, Sink},
};

mod dead_letter;
mod queue;

use dead_letter::DeadLetter;
pub use queue::Call;
use queue::Queue;

/// Between attempts.
const LEAST_WAIT: Duration = Duration::from_millis(250);
const GREATEST_WAIT: Duration = Duration::from_secs(30);
/// The first wait where somebody has to mend something.
const SELDOM: Duration = Duration::from_secs(5);
/// A receiver that asks for a longer wait is asked again all the same.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);
/// So many rejections in a row, without one success, are taken for a receiver that is broken.
const MAX_REJECTED_IN_A_ROW: u32 = 100;

/// Publishes through a sink.
pub struct Delivery {
    sink: Box<dyn Sink>,
    on_rejected: OnRejected,
    dead_letter: Option<DeadLetter>,
    grace: Duration,
    metrics: Arc<Metrics>,
    rejected_in_a_row: AtomicU32,
}

/// What to do with a record that the sink can never take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRejected {
    /// Report it, keep it as a dead letter where one is configured, and go on.
    #[default]
    Continue,
    /// Stop.
    Halt,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// What the receiver has, or has refused for good, is settled; the rest is to be sent again.
    Settled,
    /// The process was asked to stop; some may be missing.
    Stopped,
    /// The term is over; some may be missing.
    Over,
}

/// What a term still has to publish.
pub struct Outbox<'a> {
    delivery: &'a Delivery,
    queue: Queue,
    trouble: Trouble,
    /// No call is made before this.
    paused: Option<Instant>,
}

/// Publishing cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The sink says so.
    #[error("the sink cannot go on")]
    Sink(#[source] BoxError),
    /// A record was rejected, and the configuration says to halt.
    #[error("the sink rejected record {id}, and NOMAD_FIREHOSE_REJECTED is `halt`")]
    Rejected {
        /// The record's id.
        id: String,
        /// Why it was rejected.
        #[source]
        source: BoxError,
    },
}

/// The receiver takes nothing any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "{MAX_REJECTED_IN_A_ROW} records in a row were rejected without one success, so the receiver \
     is taken to be at fault and no more are given up until it takes one"
)]
struct TooManyRejected(#[source] BoxError);

/// The sink broke its contract; see [`DeliverError::Failed`].
#[derive(Debug, thiserror::Error)]
#[error("the sink failed without saying which records it did not deliver; this is a defect in it")]
struct Unclear;

impl Delivery {
    /// Publishes through this sink, with the defaults.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>, grace: Duration, metrics: Arc<Metrics>) -> Self {
        let rejected_in_a_row = AtomicU32::default();
        let on_rejected = OnRejected::default();
        Self { sink, on_rejected, dead_letter: None, grace, metrics, rejected_in_a_row }
    }

    /// Publishes through this sink, as the environment says.
    pub fn from_env(
        env: &Env,
        sink: Result<Box<dyn Sink>, Noted>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Noted> {
        let name = "NOMAD_FIREHOSE_REJECTED";
        let on_rejected = match env.or(name, "continue".to_owned()) {
            Ok(value) if value == "continue" => Ok(OnRejected::Continue),
            Ok(value) if value == "halt" => Ok(OnRejected::Halt),
            Ok(value) => Err(env.note(name, format!("`{value}` is not one of: continue, halt"))),
            Err(noted) => Err(noted),
        };
        let dead_letter = DeadLetter::from_env(env);
        let grace = env.duration("NOMAD_FIREHOSE_GRACE", Duration::from_secs(3));
        Ok(Self {
            dead_letter: dead_letter?,
            on_rejected: on_rejected?,
            ..Self::new(sink?, grace?, metrics.clone())
        })
    }

    /// How long a call may take once the process is asked to stop.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// The sink itself.
    #[must_use]
    pub fn sink(&self) -> &dyn Sink {
        &*self.sink
    }

    /// A record is delivered.
    fn confirmed(&self, record: &Record) {
        self.rejected_in_a_row.store(0, Ordering::Relaxed);
        self.metrics.records_delivered.one();
        self.metrics.bytes_delivered.add(record.body.len());
    }

    /// Gives a record up; false where it is to be sent again after all.
    async fn reject(
        &self,
        record: &Record,
        source: BoxError,
        trouble: &mut Trouble,
    ) -> Result<bool, Fatal> {
        let id = record.meta.id.clone();
        if self.on_rejected == OnRejected::Halt {
            return Err(Fatal::Rejected { id, source });
        }
        if self.rejected_in_a_row.load(Ordering::Relaxed) >= MAX_REJECTED_IN_A_ROW {
            unavailable(trouble, &TooManyRejected(source));
            return Ok(false);
        }
        let reason = Chain(&*source).to_string();
        if let Some(dead_letter) = &self.dead_letter
            && let Err(err) = dead_letter.append(record, reason.clone()).await
        {
            // Going on would lose the record without a trace.
            if trouble.is_news(Chain(&err).to_string()) {
                tracing::error!(error = %Chain(&err), "publishing waits for a dead letter");
            }
            return Ok(false);
        }
        self.rejected_in_a_row.fetch_add(1, Ordering::Relaxed);
        self.metrics.records_rejected.one();
        tracing::error!(
            id,
            bytes = record.body.len(),
            kept = self.dead_letter.is_some(),
            error = reason,
            "the sink rejected a record for good; raise the receiver's limits, or set \
             NOMAD_FIREHOSE_DEAD_LETTER to keep such records"
        );
        Ok(true)
    }
}

impl<'a> Outbox<'a> {
    /// Nothing to publish so far.
    #[must_use]
    pub fn new(delivery: &'a Delivery) -> Self {
        let queue = Queue::new(delivery.sink.limits());
        let trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
        Self { delivery, queue, trouble, paused: None }
    }

    /// Adds records, which come after all others.
    pub fn add(&mut self, records: Vec<Record>) {
        self.queue.add(records);
    }

    /// Whether nothing is left to publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether more records would make the next call fuller.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        self.queue.wants_more()
    }

    /// The index that is durable once all calls so far are; `None` where nothing is left.
    #[must_use]
    pub fn below(&self) -> Option<Index> {
        self.queue.below()
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
        let all_rejected =
            failures.len() == count && failures.iter().all(|it| it.kind == FailureKind::Rejected);
        if all_rejected && count > 1 {
            // The call was refused as a whole, and it is not known why.
            self.queue.halve(call);
            return Ok(Delivered::Settled);
        }
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
        let mut delivered = false;
        // What follows a failed record of the same key is sent again with it, lest the checkpoint
        // pass the one that failed.
        let mut held: HashSet<Arc<str>> = HashSet::new();
        let mut reason = None;
        for ((place, record), failure) in call.into_places().zip(failed) {
            let settled = match failure {
                _ if held.contains(&record.key) => false,
                None => {
                    delivered = true;
                    self.delivery.confirmed(&record);
                    true
                }
                Some(Failure { kind: FailureKind::Transient, source, .. }) => {
                    reason.get_or_insert(source);
                    false
                }
                Some(Failure { kind: FailureKind::Rejected, source, .. }) => {
                    self.delivery.reject(&record, source, &mut self.trouble).await?
                }
            };
            if settled {
                cursor.apply(record.mark);
                self.queue.release(&record.key);
            } else {
                held.insert(record.key.clone());
                self.queue.put(place, record);
            }
        }
        if delivered {
            self.queue.widen();
        }
        if !held.is_empty() {
            self.delivery.metrics.delivery_retries.one();
            if let Some(reason) = reason {
                transient(&mut self.trouble, &*reason);
            }
            self.queue.hold(&held, Instant::now());
        } else if !self.queue.is_holding() {
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

fn unavailable(trouble: &mut Trouble, err: &(dyn std::error::Error + 'static)) {
    if trouble.is_news(Chain(err).to_string()) {
        tracing::error!(
            error = %Chain(err),
            "the receiver is not available; check its address, its permissions and its state. \
             Nothing is lost: publishing goes on once it answers"
        );
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
