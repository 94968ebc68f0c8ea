//! Gets records through a sink: in order per key, and again until they are through. The only
//! place that retries, and the only one that gives a record up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    backoff::Trouble,
    env::{Env, Noted},
    error::{BoxError, Chain, brief},
    failpoint::{self, Point},
    filter::Filter,
    metrics::Metrics,
    record::Record,
    sink::{FailureKind, Sink},
};

mod dead_letter;
mod outbox;
mod passed;
mod queue;
mod reads;
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

/// How long a call may take once the process is asked to stop, as the environment says.
pub fn grace(env: &Env) -> Result<Duration, Noted> {
    env.duration("NOMAD_FIREHOSE_GRACE", Duration::from_secs(3))
}

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
        let grace = grace(env);
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
    fn confirmed(&self, record: &Record, read: Option<Instant>, now: &Now) {
        let Metrics { records_delivered, bytes_delivered, source_to_sink, event_age, .. } =
            &*self.metrics;
        self.rejected_in_a_row.store(0, Ordering::Relaxed);
        records_delivered.one();
        bytes_delivered.add(record.body.len());
        if let Some(read) = read {
            source_to_sink.observe(micros(now.instant.saturating_duration_since(read)));
        }
        let time = record.meta.time.as_deref().and_then(|it| humantime::parse_rfc3339(it).ok());
        if let Some(time) = time {
            event_age.observe(micros(now.wall.duration_since(time).unwrap_or_default()));
        }
    }

    /// A call has ended; it is also known now how often the sink has connected.
    fn called(&self, records: &[Record], took: Duration) {
        let bytes: usize = records.iter().map(|it| it.body.len()).sum();
        self.metrics.call_records.observe(records.len() as u64);
        self.metrics.call_bytes.observe(bytes as u64);
        self.metrics.call_duration.observe(micros(took));
        if let Some(connections) = self.sink.connections() {
            self.metrics.sink_reconnects.reach(connections.saturating_sub(1));
        }
    }

    /// Gives a record up; false where it is to be sent again after all.
    async fn reject(
        &self,
        record: &Record,
        (kind, source): (FailureKind, BoxError),
        trouble: &mut Trouble,
    ) -> Result<bool, Fatal> {
        failpoint::reach(Point::GiveUp).await;
        let id = record.meta.id.clone();
        if self.on_rejected == OnRejected::Halt {
            return Err(Fatal::Rejected { id, source });
        }
        if self.rejected_in_a_row.load(Ordering::Relaxed) >= MAX_REJECTED_IN_A_ROW {
            self.unavailable(trouble, &TooManyRejected(source));
            return Ok(false);
        }
        let reason = Chain(&*source).to_string();
        if let Some(dead_letter) = &self.dead_letter
            && let Err(err) = dead_letter.append(record, reason.clone()).await
        {
            // Going on would lose the record without a trace.
            self.metrics
                .health
                .sink
                .fails(&format!("publishing waits for a dead letter: {}", Chain(&err)));
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
        match kind {
            FailureKind::Suspect => self.metrics.records_at_fault.one(),
            FailureKind::Rejected | FailureKind::Transient => self.metrics.records_rejected.one(),
        }
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

    /// The receiver has answered, and what it took is settled.
    fn works(&self, delivered: bool) {
        self.metrics.health.sink.works();
        if delivered {
            self.metrics.last_delivered.now();
        }
    }

    /// The receiver took nothing of a call.
    fn fails(&self, err: &(dyn std::error::Error + 'static)) {
        self.metrics.health.sink.fails(&Chain(err).to_string());
    }

    /// The receiver takes nothing.
    fn unavailable(&self, trouble: &mut Trouble, err: &(dyn std::error::Error + 'static)) {
        let reason = Chain(err).to_string();
        self.fails(err);
        if trouble.is_news(reason) {
            tracing::error!(
                error = %Chain(err),
                "the receiver is not available; check its address, its permissions and its state. \
                 Nothing is lost: publishing goes on once it answers"
            );
        }
    }
}

/// One instant by both clocks.
struct Now {
    instant: Instant,
    wall: SystemTime,
}

impl Now {
    fn new() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
