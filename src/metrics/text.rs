//! The text format of Prometheus, version 0.0.4, which every collector reads. It is written here
//! and not by a library: those that do without a global either speak OpenMetrics only, or bring
//! counters of their own that can fail to be made, and a second library for `/proc`.

use std::fmt::Write;

use super::{Metrics, ROWS, kinds::Value, process};

/// What all names of ours begin with.
const PREFIX: &str = "nomad_firehose_";

/// What the process is; labels of `build_info`, and of every line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The stream that it publishes.
    pub stream: &'static str,
    /// The kind of its sink.
    pub sink: String,
    /// The kind of its leader.
    pub leader: String,
}

/// What is to be known of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: String,
    /// The label that tells its values apart, beside `stream`, and those it can have.
    pub label: Option<(&'static str, Vec<&'static str>)>,
}

const CONTACTS: [&str; 3] = ["nomad", "leader", "sink"];

/// Metrics that are not in the table, since they have no place of their own.
const LAST_CONTACT: (&str, &str) = (
    "last_contact_timestamp_seconds",
    "When something was last heard of each: Nomad, as the source of changes; the backend of the \
     leader; the sink. A process that stands by asks the leader only.",
);
const READY: (&str, &str) = ("ready", "1 where /ready answers 200, 0 otherwise.");
const BUILD_INFO: (&str, &str) =
    ("build_info", "Always 1; the labels say what this process is made of and set up with.");

/// Every metric, in the order in which it is shown.
#[must_use]
pub fn described() -> Vec<Described> {
    let mut all: Vec<Described> = Vec::new();
    for row in ROWS {
        let name = format!("{PREFIX}{}", row.name);
        let last = all.last_mut().filter(|it| it.name == name);
        match (last.and_then(|it| it.label.as_mut()), row.label) {
            (Some((_, values)), Some((_, value))) => values.push(value),
            (_, label) => all.push(Described {
                name,
                kind: row.kind,
                help: row.help.trim().to_owned(),
                label: label.map(|(key, value)| (key, vec![value])),
            }),
        }
    }
    let gauge = |(name, help): (&str, &str), label| Described {
        name: format!("{PREFIX}{name}"),
        kind: "gauge",
        help: help.to_owned(),
        label,
    };
    all.push(gauge(LAST_CONTACT, Some(("with", CONTACTS.to_vec()))));
    all.push(gauge(READY, None));
    all.push(gauge(BUILD_INFO, None));
    for (name, kind, help) in process::METRICS {
        all.push(Described { name: name.to_owned(), kind, help: help.to_owned(), label: None });
    }
    all
}

/// Every name that a query can ask for: a histogram has three, beside its own.
#[must_use]
pub fn names() -> Vec<String> {
    let mut all = Vec::new();
    for Described { name, kind, .. } in described() {
        if kind == "histogram" {
            all.extend(["_bucket", "_sum", "_count"].map(|it| format!("{name}{it}")));
        }
        all.push(name);
    }
    all
}

/// All metrics with their values.
pub(super) fn text(metrics: &Metrics, identity: &Identity) -> String {
    let mut out = Text { out: String::with_capacity(32 << 10), stream: identity.stream };
    let mut last = "";
    for (row, value) in ROWS.iter().zip(metrics.values()) {
        let name = format!("{PREFIX}{}", row.name);
        if last != row.name {
            out.family(&name, row.kind, row.help.trim());
            last = row.name;
        }
        let label = row.label.as_slice();
        match value {
            Value::Counter(count) => out.line(&name, label, count as f64),
            Value::Gauge(value) => value.into_iter().for_each(|it| out.line(&name, label, it)),
            Value::Histogram(histogram) => {
                let bucket = format!("{name}_bucket");
                let mut count = 0;
                for (bound, sum) in histogram.cumulative() {
                    let bound = bound.map_or_else(|| "+Inf".to_owned(), |it| it.to_string());
                    out.line(&bucket, &[("le", &bound)], sum as f64);
                    count = sum;
                }
                out.line(&format!("{name}_sum"), &[], histogram.sum());
                // It has to agree with the last bucket, whatever was added since.
                out.line(&format!("{name}_count"), &[], count as f64);
            }
        }
    }
    let health = &metrics.health;
    let name = out.gauge(LAST_CONTACT);
    for (with, contact) in CONTACTS.into_iter().zip([&health.nomad, &health.leader, &health.sink]) {
        if let Some(at) = contact.last() {
            out.line(&name, &[("with", with)], at as f64 / 1e3);
        }
    }
    let name = out.gauge(READY);
    out.line(&name, &[], f64::from(u8::from(metrics.readiness().ready)));
    let name = out.gauge(BUILD_INFO);
    let labels = [
        ("version", crate::VERSION),
        ("commit", crate::COMMIT),
        ("sink", &identity.sink),
        ("leader", &identity.leader),
    ];
    out.line(&name, &labels, 1.0);
    let known = process::values();
    for (name, kind, help) in process::METRICS {
        if let Some((_, value)) = known.iter().find(|(it, _)| *it == name) {
            out.family(name, kind, help);
            out.line(name, &[], *value);
        }
    }
    out.out
}

struct Text {
    out: String,
    stream: &'static str,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, (name, help): (&str, &str)) -> String {
        let name = format!("{PREFIX}{name}");
        self.family(&name, "gauge", help);
        name
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.out, "{name}{{stream=\"{}\"", self.stream);
        for (key, value) in labels {
            let _ = write!(self.out, ",{key}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.out, "}} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
