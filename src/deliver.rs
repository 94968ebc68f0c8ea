//! Gets records through a sink: in order per key, and again until they are through. The only
//! place that retries, and the only one that gives a record up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{
    backoff::Trouble,
    env::{Env, Noted},
    error::{BoxError, Chain, brief},
    failpoint::{self, Point},
    filter::Filter,
    metrics::Metrics,
    record::Record,
    sink::Sink,
};

mod dead_letter;
mod outbox;
mod passed;
mod queue;
mod sift;
mod steps;

use dead_letter::DeadLetter;
pub use outbox::{Done, Outbox};
pub use queue::Call;
use sift::Sieve;
pub use sift::Sifted;

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
    sieve: Option<Sieve>,
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

/// Publishing cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The sink says so.
    #[error("the sink cannot go on")]
    Sink(#[source] BoxError),
    /// A record was rejected, and the configuration says to halt.
    #[error("the sink rejected record {}, and NOMAD_FIREHOSE_REJECTED is `halt`", brief(.id))]
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

impl Delivery {
    /// Publishes through this sink, with the defaults.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>, grace: Duration, metrics: Arc<Metrics>) -> Self {
        let rejected_in_a_row = AtomicU32::default();
        let on_rejected = OnRejected::default();
        Self {
            sink,
            sieve: None,
            on_rejected,
            dead_letter: None,
            grace,
            metrics,
            rejected_in_a_row,
        }
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
        let filter = Filter::from_env(env);
        let grace = env.duration("NOMAD_FIREHOSE_GRACE", Duration::from_secs(3));
        Ok(Self {
            dead_letter: dead_letter?,
            on_rejected: on_rejected?,
            ..Self::new(sink?, grace?, metrics.clone()).with_filter(filter?)
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
        failpoint::reach(Point::GiveUp).await;
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
                tracing::error!(
                    error = %Chain(&err),
                    "publishing waits for a dead letter; make room or permission for it at \
                     NOMAD_FIREHOSE_DEAD_LETTER"
                );
            }
            return Ok(false);
        }
        self.rejected_in_a_row.fetch_add(1, Ordering::Relaxed);
        self.metrics.records_rejected.one();
        tracing::error!(
            record = brief(&id),
            bytes = record.body.len(),
            kept = self.dead_letter.is_some(),
            error = reason,
            "the sink rejected a record for good; raise the receiver's limits, or set \
             NOMAD_FIREHOSE_DEAD_LETTER to keep such records"
        );
        Ok(true)
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
