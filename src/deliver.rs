//! Gets records through a sink: in order per key, and again until they are through. The only
//! place that retries, and the only one that gives a record up.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    backoff::Trouble,
    cursor::Cursor,
    env::{Env, Noted},
    error::{BoxError, Chain},
    leader::Term,
    metrics::Metrics,
    record::{Limits, Record},
    shutdown::Shutdown,
    sink::{DeliverError, Failure, FailureKind, Sink},
};

mod dead_letter;

use dead_letter::DeadLetter;

const LEAST_WAIT: Duration = Duration::from_millis(250);
const GREATEST_WAIT: Duration = Duration::from_secs(30);
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

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The receiver has everything, or has refused it for good.
    All,
    /// The process was asked to stop; some may be missing.
    Stopped,
    /// The term is over; some may be missing.
    Over,
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

    /// The most that one call takes.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.sink.limits()
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

    /// Publishes `records`, which are one call, and notes in `cursor` what is durable. Returns once
    /// the receiver has them for good or has refused them for good, unless the process is asked to
    /// stop: then the call in flight has the grace period to end.
    pub async fn deliver(
        &self,
        records: Vec<Record>,
        cursor: &mut Cursor,
        term: &dyn Term,
        stop: &Shutdown,
    ) -> Result<Delivered, Fatal> {
        let mut calls = VecDeque::from([records]);
        let mut trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
        while let Some(call) = calls.pop_front() {
            if stop.is_requested() {
                return Ok(Delivered::Stopped);
            }
            if !term.holds() {
                return Ok(Delivered::Over);
            }
            let result = tokio::select! {
                biased;
                result = self.sink.deliver(&call) => result,
                () = async { stop.requested().await; sleep(self.grace).await } => {
                    tracing::warn!(
                        records = call.len(),
                        "the sink did not answer within the grace period; these records may be \
                         published again"
                    );
                    return Ok(Delivered::Stopped);
                }
            };
            let failures = match result {
                Ok(()) => Vec::new(),
                Err(DeliverError::Fatal(err)) => return Err(Fatal::Sink(err)),
                Err(DeliverError::Unavailable(err)) => {
                    unavailable(&mut trouble, &*err);
                    calls.push_front(call);
                    if self.pause(&mut trouble, stop).await {
                        return Ok(Delivered::Stopped);
                    }
                    continue;
                }
                Err(DeliverError::Failed(failures))
                    if failures.is_empty()
                        || failures.iter().any(|it| it.position >= call.len()) =>
                {
                    unavailable(&mut trouble, &Unclear);
                    calls.push_front(call);
                    if self.pause(&mut trouble, stop).await {
                        return Ok(Delivered::Stopped);
                    }
                    continue;
                }
                Err(DeliverError::Failed(failures)) => failures,
            };
            let all_rejected = failures.len() == call.len()
                && failures.iter().all(|it| it.kind == FailureKind::Rejected);
            if all_rejected && call.len() > 1 {
                // The call was refused as a whole: halve it until the culprit is known.
                let mut first = call;
                let second = first.split_off(first.len() / 2);
                calls.push_front(second);
                calls.push_front(first);
                continue;
            }
            let again = self.settle(call, failures, cursor, &mut trouble).await?;
            if again.is_empty() {
                over(&mut trouble);
            } else {
                calls.push_front(again);
                if self.pause(&mut trouble, stop).await {
                    return Ok(Delivered::Stopped);
                }
            }
        }
        Ok(Delivered::All)
    }

    /// Notes what is delivered and what is rejected; returns what is to be sent again.
    async fn settle(
        &self,
        call: Vec<Record>,
        failures: Vec<Failure>,
        cursor: &mut Cursor,
        trouble: &mut Trouble,
    ) -> Result<Vec<Record>, Fatal> {
        let mut failed: Vec<Option<Failure>> = call.iter().map(|_| None).collect();
        for failure in failures {
            if let Some(at) = failed.get_mut(failure.position) {
                *at = Some(failure);
            }
        }
        let mut again = Vec::new();
        // What follows a failed record of the same key is sent again with it, lest the checkpoint
        // pass the one that failed.
        let mut held: HashSet<Arc<str>> = HashSet::new();
        for (record, failure) in call.into_iter().zip(failed) {
            match failure {
                None | Some(Failure { kind: FailureKind::Rejected, .. })
                    if held.contains(&record.key) =>
                {
                    again.push(record);
                }
                None => {
                    self.rejected_in_a_row.store(0, Ordering::Relaxed);
                    self.metrics.records_delivered.one();
                    self.metrics.bytes_delivered.add(record.body.len());
                    cursor.apply(record.mark);
                }
                Some(Failure { kind: FailureKind::Transient, source, .. }) => {
                    transient(trouble, &*source);
                    held.insert(record.key.clone());
                    again.push(record);
                }
                Some(Failure { kind: FailureKind::Rejected, source, .. }) => {
                    if self.reject(&record, source, trouble).await? {
                        cursor.apply(record.mark);
                    } else {
                        held.insert(record.key.clone());
                        again.push(record);
                    }
                }
            }
        }
        Ok(again)
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

    /// Waits before the next attempt; true where the process is asked to stop.
    async fn pause(&self, trouble: &mut Trouble, stop: &Shutdown) -> bool {
        self.metrics.delivery_retries.one();
        tokio::select! {
            biased;
            () = stop.requested() => true,
            () = trouble.backoff.wait() => false,
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
