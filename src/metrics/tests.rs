use std::collections::BTreeSet;

use super::*;

fn identity() -> Identity {
    Identity { stream: "nodes", sink: "http".into(), leader: "consul".into() }
}

#[test]
fn only_what_happened_is_named() {
    let metrics = Metrics::default();
    metrics.gaps.one();
    metrics.records_delivered.add(3);
    assert_eq!(metrics.counted(), "records_delivered=3 gaps=1");
}

#[test]
fn rows_of_one_name_stand_together_and_differ_in_one_label() {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut last: Option<&Row> = None;
    for row in ROWS {
        assert!(!row.help.trim().is_empty(), "{}", row.name);
        match last.filter(|it| it.name == row.name) {
            Some(last) => {
                let (a, b) = (last.label.unwrap(), row.label.unwrap());
                assert!(a.0 == b.0 && a.1 != b.1 && last.kind == row.kind, "{}", row.name);
            }
            None => assert!(done.insert(row.name), "{} is in two places", row.name),
        }
        assert_eq!(row.kind == "counter", row.name.ends_with("_total"), "{}", row.name);
        last = Some(row);
    }
}

#[test]
fn a_histogram_counts_each_value_once_and_shows_sums() {
    let histogram = Histogram::new(&[1, 10], 1e3);
    for value in [0, 1, 2, 10, 11, 5_000] {
        histogram.observe(value);
    }
    assert_eq!(histogram.cumulative(), [(Some(0.001), 2), (Some(0.01), 4), (None, 6)]);
    assert_eq!((histogram.sum(), histogram.count()), (5.024, 6));
}

#[test]
fn the_text_has_the_stream_in_every_line_that_is_its_and_each_family_once() {
    let metrics = Metrics::default();
    metrics.records_delivered.add(2);
    metrics.call_records.observe(2);
    metrics.records_at_fault.one();
    let text = metrics.text(&identity());
    for line in [
        "# TYPE nomad_firehose_records_delivered_total counter",
        "nomad_firehose_records_delivered_total{stream=\"nodes\"} 2",
        "nomad_firehose_records_rejected_total{stream=\"nodes\",reason=\"rejected\"} 0",
        "nomad_firehose_records_rejected_total{stream=\"nodes\",reason=\"at_fault\"} 1",
        "nomad_firehose_sink_call_records_bucket{stream=\"nodes\",le=\"1\"} 0",
        "nomad_firehose_sink_call_records_bucket{stream=\"nodes\",le=\"2\"} 1",
        "nomad_firehose_sink_call_records_bucket{stream=\"nodes\",le=\"+Inf\"} 1",
        "nomad_firehose_sink_call_records_sum{stream=\"nodes\"} 2",
        "nomad_firehose_sink_call_records_count{stream=\"nodes\"} 1",
        "nomad_firehose_ready{stream=\"nodes\"} 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    // A time that never was is not there, lest it be taken for one long ago.
    assert!(!text.contains("\nnomad_firehose_last_delivered_timestamp_seconds{"));
    let types: Vec<&str> = text.lines().filter(|it| it.starts_with("# TYPE ")).collect();
    let once: BTreeSet<&str> = types.iter().copied().collect();
    assert_eq!(types.len(), once.len());
    let named = names();
    for line in text.lines().filter(|it| !it.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(named.iter().any(|it| it == name), "{name} is in no list");
        let ours = name.starts_with("nomad_firehose_");
        assert!(ours || name.starts_with("process_"), "{name}");
        assert!(line.contains("stream=\"nodes\""), "{line}");
    }
}

#[test]
fn what_is_not_a_plain_word_cannot_break_a_label() {
    let identity = Identity { sink: "a\"b\\c\nd".into(), ..identity() };
    let text = Metrics::default().text(&identity);
    assert!(text.contains(r#"sink="a\"b\\c\nd""#), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_knows_what_it_uses() {
    let text = Metrics::default().text(&identity());
    for (name, least) in [
        ("process_resident_memory_bytes", 1e5),
        ("process_virtual_memory_bytes", 1e5),
        ("process_open_fds", 3.0),
        ("process_max_fds", 3.0),
        ("process_start_time_seconds", 1.6e9),
        ("process_threads", 1.0),
        ("process_cpu_seconds_total", 0.0),
    ] {
        let line = text.lines().find(|it| it.starts_with(&format!("{name}{{"))).unwrap();
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value >= least, "{line}");
    }
}
