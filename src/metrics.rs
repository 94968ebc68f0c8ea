//! What is counted, measured and known of the process. One struct, passed in; nothing is global.

mod health;
mod kinds;
mod process;
mod text;

pub use health::{Check, Contact, Health, Liveness, Readiness, Role};
pub use kinds::{Counter, Gauge, Histogram, Stamp};
pub use text::{Described, Identity, described, names};

use kinds::Value;

/// Bounds of histograms, in the unit in which they are observed; what is shown is divided by the
/// number beside it.
const COUNTS: &[u64] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1000];
const BYTES: &[u64] = &[1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24];
const MICROSECONDS: f64 = 1e6;
const CALLS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
const WAITS: &[u64] = &[
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
];
const AGES: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    3_600_000_000,
    21_600_000_000,
];

/// What is known of a metric but for its value.
struct Row {
    field: &'static str,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    label: Option<(&'static str, &'static str)>,
}

macro_rules! metrics {
    ($(
        $(#[doc = $about:literal])+
        $field:ident: $kind:ident $(($bounds:expr, $per:expr))? = $name:literal
            $({ $label:ident = $value:literal })?;
    )+) => {
        /// Everything that is counted or measured, since the process began.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $about])+ pub $field: $kind,)+
            /// Whether it works, and whether what it needs can be reached.
            pub health: Health,
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self {
                    $($field: $kind::new($($bounds, $per)?),)+
                    health: Health::default(),
                }
            }
        }

        /// Rows of one name stand together, and the first has the help of all.
        const ROWS: &[Row] = &[$(Row {
            field: stringify!($field),
            name: $name,
            kind: $kind::KIND,
            help: concat!($($about),+),
            label: metrics!(@label $($label = $value)?),
        }),+];

        impl Metrics {
            /// What each row is at this moment.
            fn values(&self) -> [Value<'_>; ROWS.len()] {
                [$(self.$field.value()),+]
            }
        }
    };
    (@label) => { None };
    (@label $label:ident = $value:literal) => { Some((stringify!($label), $value)) };
}

metrics! {
    /// Records that the sink has confirmed.
    records_delivered: Counter = "records_delivered_total";
    /// Bytes of the payloads of records that the sink has confirmed.
    bytes_delivered: Counter = "delivered_bytes_total";
    /// Records that the sink can never take, and that were given up: `rejected` where it said so of
    /// the record, `at_fault` where it refused a call and the record was found to be the reason.
    records_rejected: Counter = "records_rejected_total" { reason = "rejected" };
    /// Records that were found to be the reason why a call was refused.
    records_at_fault: Counter = "records_rejected_total" { reason = "at_fault" };
    /// Changes that were not published since the filter does not let them through.
    records_filtered: Counter = "records_filtered_total";
    /// Records of which the filter could not tell, and that were published.
    filter_errors: Counter = "filter_errors_total";
    /// Calls to the sink that did not deliver everything and were made again: `unavailable`, it may
    /// be back at any moment; `unusable`, somebody has to mend something; `throttled`, it said when
    /// to ask again; `transient`, some records did not get through; `rejected`, records that it
    /// refuses and that are not given up; `unclear`, a defect in the sink.
    retries_unavailable: Counter = "delivery_retries_total" { kind = "unavailable" };
    /// The receiver is not available before somebody mends something.
    retries_unusable: Counter = "delivery_retries_total" { kind = "unusable" };
    /// The receiver said when to ask again.
    retries_throttled: Counter = "delivery_retries_total" { kind = "throttled" };
    /// Some records did not get through.
    retries_transient: Counter = "delivery_retries_total" { kind = "transient" };
    /// Records that the receiver refuses, and that are not given up.
    retries_rejected: Counter = "delivery_retries_total" { kind = "rejected" };
    /// The sink did not say which records failed.
    retries_unclear: Counter = "delivery_retries_total" { kind = "unclear" };
    /// Connections of the sink after its first, where it keeps one.
    sink_reconnects: Counter = "sink_reconnects_total";
    /// Records of each call to the sink.
    call_records: Histogram(COUNTS, 1.0) = "sink_call_records";
    /// Bytes of the payloads of each call to the sink.
    call_bytes: Histogram(BYTES, 1.0) = "sink_call_bytes";
    /// How long each call to the sink took, whatever came of it.
    call_duration: Histogram(CALLS, MICROSECONDS) = "sink_call_duration_seconds";
    /// From a record having been read from Nomad to the sink's confirmation.
    source_to_sink: Histogram(WAITS, MICROSECONDS) = "source_to_sink_seconds";
    /// From the time that Nomad says a change happened to the sink's confirmation, of records that
    /// have a time. The clocks of Nomad's machines and of this one matter: where they differ, so
    /// does this, and what seems to come from the future counts as 0. After a start it has the age
    /// of all that was there.
    event_age: Histogram(AGES, MICROSECONDS) = "event_age_seconds";
    /// When the sink last confirmed a record.
    last_delivered: Stamp = "last_delivered_timestamp_seconds";
    /// Records that are read, and wait to be published or confirmed.
    queue_records: Gauge = "queue_records";
    /// Bytes of their payloads.
    queue_bytes: Gauge = "queue_bytes";
    /// 1 while the process is the publisher of the stream, 0 otherwise.
    leader: Gauge = "leader";
    /// How elections ended: `won`; `standby`, another process has the lock; `failed`, it could not
    /// be told or taken, and is tried again.
    elections_won: Counter = "elections_total" { outcome = "won" };
    /// Elections in which another process had the lock.
    elections_standby: Counter = "elections_total" { outcome = "standby" };
    /// Elections that failed.
    elections_failed: Counter = "elections_total" { outcome = "failed" };
    /// Terms as the publisher.
    terms: Counter = "terms_total";
    /// Checkpoints saved.
    checkpoints_saved: Counter = "checkpoint_saves_total";
    /// Checkpoints that could not be saved and were tried again.
    checkpoint_errors: Counter = "checkpoint_errors_total";
    /// When a checkpoint was last saved.
    last_checkpoint: Stamp = "last_checkpoint_timestamp_seconds";
    /// Records that are published, and that would be published again after a crash at this moment.
    unsaved_records: Gauge = "unsaved_records";
    /// The floor of the position: every change up to this index of Nomad is published.
    cursor_index: Gauge = "cursor_index";
    /// The latest index that Nomad has shown.
    nomad_index: Gauge = "nomad_index";
    /// 1 where changes come from: `events`, the event stream; `poll`, lists. Both are 0 while there
    /// is nothing to read from, and while standing by.
    streaming: Gauge = "source" { kind = "events" };
    /// 1 while changes come from lists.
    polling: Gauge = "source" { kind = "poll" };
    /// Lists read to their end.
    lists_read: Counter = "lists_read_total";
    /// Subscriptions to the event stream.
    subscriptions: Counter = "subscriptions_total";
    /// Subscriptions that could not be had, or were cut.
    stream_errors: Counter = "stream_errors_total";
    /// Requests to Nomad that failed and were made again.
    nomad_errors: Counter = "nomad_errors_total";
    /// What Nomad sent and cannot be read: `object`, an element of a list or an object read by id;
    /// `event`, a line of the event stream or an event in it.
    bad_elements: Counter = "decode_errors_total" { what = "object" };
    /// Events that could not be read.
    bad_events: Counter = "decode_errors_total" { what = "event" };
    /// Reads of objects that were listed and not found: mostly they were deleted in between.
    objects_missing: Counter = "objects_missing_total";
    /// Tasks of which Nomad dropped events before they could be read: these are lost.
    gaps: Counter = "gaps_total";
    /// Changes that only a list has shown, which are published all the same: `in_stream`, after the
    /// event stream had passed over them; `between_streams`, because the stream no longer had them
    /// when it was subscribed to again. Task events count as what they are, changes of objects as
    /// one each.
    missed_in_stream: Counter = "missed_total" { cause = "in_stream" };
    /// Changes that the event stream no longer had when it was subscribed to again.
    missed_between_streams: Counter = "missed_total" { cause = "between_streams" };
    /// Tails of task events that were dropped for want of space.
    tails_dropped: Counter = "tails_dropped_total";
    /// Lists of servers that lagged behind what had been read.
    stale_lists: Counter = "stale_lists_total";
    /// Times that Nomad's index went back.
    index_regressions: Counter = "index_regressions_total";
}

impl Metrics {
    /// Every counter that is not zero, with its name, for the log.
    #[must_use]
    pub fn counted(&self) -> String {
        let rows = ROWS.iter().zip(self.values());
        let counts = rows.filter_map(|(row, value)| match value {
            Value::Counter(count) if count > 0 => Some(format!("{}={count}", row.field)),
            _ => None,
        });
        counts.collect::<Vec<_>>().join(" ")
    }

    /// Records that were given up, for whatever reason.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.records_rejected.get() + self.records_at_fault.get()
    }

    /// A term begins.
    pub fn term_began(&self) {
        self.terms.one();
        self.elections_won.one();
        self.leader.set(1);
        self.health.enter(Role::Publishing);
    }

    /// A term is over: whoever comes next begins with what is saved.
    pub fn term_ended(&self) {
        for gauge in [
            &self.leader,
            &self.streaming,
            &self.polling,
            &self.queue_records,
            &self.queue_bytes,
            &self.unsaved_records,
        ] {
            gauge.set(0);
        }
        self.health.sink.waits_on(false);
        self.health.enter(Role::Standby);
    }

    /// Another process has the lock.
    pub fn stands_by(&self) {
        self.elections_standby.one();
        self.health.leader.works();
        self.health.enter(Role::Standby);
    }

    /// A batch was read, and is handed over to be published.
    pub fn queued(&self, records: usize, bytes: usize) {
        self.queue_records.add(records);
        self.queue_bytes.add(bytes);
    }

    /// A record is confirmed, given up, or left out by the filter.
    pub fn settled(&self, bytes: usize) {
        self.queue_records.subtract(1);
        self.queue_bytes.subtract(bytes);
    }

    /// All of it in the text format of Prometheus.
    #[must_use]
    pub fn text(&self, identity: &Identity) -> String {
        text::text(self, identity)
    }

    /// Whether it is ready to do what it is there for, or does it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        // What waits for the sink keeps Nomad from being asked.
        self.health.readiness(tokio::time::Instant::now(), self.queue_records.get() > 0)
    }
}

#[cfg(test)]
mod tests;
