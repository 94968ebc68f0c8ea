//! The metrics that the dashboard and the alerts may name.

use nomad_firehose::metrics;

/// What each name begins with.
const PREFIX: &str = "nomad_firehose_";

/// What every metric has, and `build_info` beside it.
const OF_ALL: &[&str] = &["stream", "version", "commit", "sink", "leader"];

/// Labels that Prometheus gives, and the one of buckets.
const OF_PROMETHEUS: &[&str] = &["job", "instance", "le"];

/// Whether there is a metric of this name.
pub fn exists(name: &str) -> bool {
    metrics::names().iter().any(|it| it == name)
}

/// Whether any metric has this label.
pub fn has_label(name: &str) -> bool {
    let shown = metrics::described();
    OF_PROMETHEUS.contains(&name)
        || OF_ALL.contains(&name)
        || shown.iter().any(|it| it.label.as_ref().is_some_and(|(key, _)| *key == name))
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
    let ours = metrics::described().into_iter().map(|it| it.name);
    ours.filter(|it| it.starts_with(PREFIX))
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
