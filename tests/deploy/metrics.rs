//! The metrics that the dashboard and the alerts may name.

/// What each name begins with.
const PREFIX: &str = "nomad_firehose_";

/// Every metric, without its prefix, and the labels that it has beside `stream`.
///
/// TO BE TAKEN FROM THE PROGRAM: once the library has the list of what it exposes, this is that.
const METRICS: &[(&str, &[&str])] = &[
    ("records_delivered_total", &[]),
    ("delivered_bytes_total", &[]),
    ("records_rejected_total", &["reason"]),
    ("records_filtered_total", &[]),
    ("delivery_retries_total", &["kind"]),
    ("gaps_total", &[]),
    ("missed_total", &["cause"]),
    ("tails_dropped_total", &[]),
    ("nomad_errors_total", &[]),
    ("decode_errors_total", &["what"]),
    ("objects_missing_total", &[]),
    ("stale_lists_total", &[]),
    ("index_regressions_total", &[]),
    ("lists_read_total", &[]),
    ("subscriptions_total", &[]),
    ("stream_errors_total", &[]),
    ("sink_reconnects_total", &[]),
    ("elections_total", &["outcome"]),
    ("terms_total", &[]),
    ("checkpoint_saves_total", &[]),
    ("checkpoint_errors_total", &[]),
    ("leader", &[]),
    ("ready", &[]),
    ("last_delivered_timestamp_seconds", &[]),
    ("last_checkpoint_timestamp_seconds", &[]),
    ("unsaved_records", &[]),
    ("queue_records", &[]),
    ("queue_bytes", &[]),
    ("cursor_index", &[]),
    ("nomad_index", &[]),
    ("source", &["kind"]),
    ("last_contact_timestamp_seconds", &["with"]),
    ("build_info", &["version", "commit", "sink", "leader"]),
];

/// Histograms, which have `_bucket`, `_sum` and `_count`.
const HISTOGRAMS: &[&str] = &[
    "sink_call_records",
    "sink_call_bytes",
    "sink_call_duration_seconds",
    "source_to_sink_seconds",
    "event_age_seconds",
];

/// Of those that every exporter has of its process.
const OF_THE_PROCESS: &[&str] =
    &["process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes"];

/// Labels that Prometheus gives, and the one of buckets.
const OF_PROMETHEUS: &[&str] = &["job", "instance", "le"];

/// Whether there is a metric of this name.
pub fn exists(name: &str) -> bool {
    let Some(own) = name.strip_prefix(PREFIX) else {
        return OF_THE_PROCESS.contains(&name);
    };
    let of_histogram = |it: &&str| {
        own.strip_prefix(*it).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
    };
    METRICS.iter().any(|it| it.0 == own) || HISTOGRAMS.iter().any(of_histogram)
}

/// Whether any metric has this label.
pub fn has_label(name: &str) -> bool {
    name == "stream"
        || OF_PROMETHEUS.contains(&name)
        || METRICS.iter().any(|it| it.1.contains(&name))
}

/// The names of metrics of ours, and of processes, in an expression.
pub fn named(expression: &str) -> Vec<&str> {
    let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let ours = words.filter(|it| it.starts_with(PREFIX) || it.starts_with("process_"));
    ours.collect()
}

/// The labels that an expression names: in matchers, and in groupings.
pub fn labels(expression: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in expression.split('{').skip(1) {
        let inside = part.split('}').next().unwrap_or_default();
        found.extend(inside.split(',').filter_map(|it| it.split(['=', '!']).next()));
    }
    for word in ["by (", "on (", "group_left ("] {
        for part in expression.split(word).skip(1) {
            found.extend(part.split(')').next().unwrap_or_default().split(','));
        }
    }
    found.into_iter().map(str::trim).filter(|it| !it.is_empty()).collect()
}

/// Every metric that something should show or watch.
pub fn all() -> impl Iterator<Item = String> {
    let names = METRICS.iter().map(|it| it.0).chain(HISTOGRAMS.iter().copied());
    names.map(|it| format!("{PREFIX}{it}"))
}

#[test]
fn names_and_labels_are_found_in_an_expression() {
    let expression = "sum by (job, stream, le) (rate(nomad_firehose_event_age_seconds_bucket\
                      {with=\"nomad\", job!=\"x\"}[5m])) > process_start_time_seconds";
    assert_eq!(
        named(expression),
        ["nomad_firehose_event_age_seconds_bucket", "process_start_time_seconds"]
    );
    assert_eq!(labels(expression), ["with", "job", "job", "stream", "le"]);
    assert!(named(expression).into_iter().all(exists) && !exists("nomad_firehose_event_age"));
    assert!(!exists("nomad_firehose_leader_bucket") && !exists("process_threads_ever"));
    assert!(has_label("with") && !has_label("where"));
}
