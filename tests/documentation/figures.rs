//! Figures that pages have and that are constants of the program.

use std::{fs, time::Duration};

use super::pages::root;

/// How a page writes a constant.
#[derive(Clone, Copy)]
enum As {
    /// `10,000`
    Count,
    /// `4 MiB`
    Size,
    /// `1048576`
    Digits,
    /// `250 ms`, `30 s`, `5 minutes`
    Time,
    /// `30s`, `5m`
    Go,
}
use As::{Count, Digits, Go, Size, Time};

/// A constant, and the texts that have it as `{}`.
type Figure = (&'static str, &'static str, As, &'static [(&'static str, &'static str)]);

mod sinks;

const README: &str = "README.md";
const AMQP: &str = "docs/amqp.md";
const CONTRACT: &str = "docs/contract.md";
const EVENTBRIDGE: &str = "docs/eventbridge.md";
const GUARANTEES: &str = "docs/guarantees.md";
const HTTP: &str = "docs/http.md";
const KINESIS: &str = "docs/kinesis.md";
const NATS: &str = "docs/nats.md";
const NSQ: &str = "docs/nsq.md";
const OPERATIONS: &str = "docs/operations.md";
const REDIS: &str = "docs/redis.md";
const SOURCES: &str = "docs/sources.md";
const SQS: &str = "docs/sqs.md";
const SYSLOG: &str = "docs/syslog.md";

/// Those of the sinks are apart.
const FIGURES: &[Figure] = &[
    (
        "src/pipeline.rs",
        "MAX_UNSAVED",
        Count,
        &[
            (README, "comes again, {} records at most"),
            (GUARANTEES, "Up to {} records may be unsaved"),
            (GUARANTEES, "is published again, {} records at most"),
            (OPERATIONS, "publishing goes on until {} records are unsaved"),
            (CONTRACT, "the ids of the last {} records"),
        ],
    ),
    (
        "src/deliver.rs",
        "LEAST_WAIT",
        Time,
        &[
            (GUARANTEES, "at first after {}, in the end"),
            (AMQP, "at first after {}, in the end"),
            (KINESIS, "at first after {}, in the end"),
            (NATS, "at first after {}, in the end"),
            (SQS, "at first after {}, in the end"),
            (EVENTBRIDGE, "at first after {}, in the end"),
            (REDIS, "at first after {}, in the end"),
            (HTTP, "at first {}, in the end 30 s. What"),
            (NSQ, "at first after {}, in the end"),
            (SYSLOG, "at first after {}, in the end"),
        ],
    ),
    (
        "src/deliver.rs",
        "GREATEST_WAIT",
        Time,
        &[
            (GUARANTEES, "in the end {} apart"),
            (AMQP, "in the end {} apart"),
            (KINESIS, "in the end {} apart"),
            (NATS, "in the end {} apart"),
            (SQS, "in the end {} apart"),
            (EVENTBRIDGE, "in the end {} apart"),
            (REDIS, "in the end {} apart"),
            (HTTP, "in the end {}; check the token"),
            (NSQ, "in the end {} apart"),
            (SYSLOG, "in the end {} apart"),
        ],
    ),
    (
        "src/deliver.rs",
        "SELDOM",
        Time,
        &[
            (GUARANTEES, "it begins with {}."),
            (AMQP, "at first after {}; the log says"),
            (KINESIS, "at first after {}; the log says"),
            (NATS, "at first after {}; the log says"),
            (NATS, "everything waits, at first {}. Where"),
            (SQS, "at first after {}; the log says"),
            (EVENTBRIDGE, "at first after {}; the log says"),
            (REDIS, "at first after {}; the log says"),
            (HTTP, "Everything waits, at first {}, in the end 30 s; check"),
            (NSQ, "at first after {}; the log says"),
            (SYSLOG, "at first after {}; the log says"),
        ],
    ),
    (
        "src/deliver.rs",
        "LONGEST_ASKED_WAIT",
        Time,
        &[(GUARANTEES, "is kept, up to {}"), (HTTP, "waits that long, {} at most")],
    ),
    ("src/deliver.rs", "MAX_REJECTED_IN_A_ROW", Count, &[(GUARANTEES, "After {} refusals")]),
    (
        "src/deliver/queue.rs",
        "WINDOW_BYTES",
        Size,
        &[(GUARANTEES, "Once {} of payloads wait"), (OPERATIONS, "{} of payloads wait")],
    ),
    ("src/pipeline.rs", "IDLE", Time, &[(README, "when idle it is {}")]),
    (
        "src/watch/split.rs",
        "MAX_ELEMENT_BYTES",
        Size,
        &[(GUARANTEES, "of Nomad or Consul may have {}")],
    ),
    (
        "src/api/limit.rs",
        "MAX_ANSWER_BYTES",
        Size,
        &[(GUARANTEES, "of Nomad or Consul may have {}")],
    ),
    ("src/watch/lines.rs", "MAX_LINE_BYTES", Size, &[(GUARANTEES, "a line may have {}")]),
    (
        "src/watch/subscription.rs",
        "DEAD_AFTER",
        Time,
        &[(GUARANTEES, "After {} of silence"), (SOURCES, "of the stream for {}")],
    ),
    ("src/watch/join.rs", "HOLD", Time, &[(GUARANTEES, "is held for up to {}")]),
    (
        "src/cursor/saved.rs",
        "MAX_ABOVE",
        Count,
        &[(README, "and after {} changes"), (SOURCES, "and after {} changes")],
    ),
    ("src/cursor/shard.rs", "SHARD_BYTES", Size, &[(OPERATIONS, "of {} for each 4,000 tasks")]),
    ("src/leader/consul.rs", "MAX_LOCK_DELAY", Go, &[(README, "from `0s` to `{}`;")]),
    ("src/leader/nomad.rs", "LOCK_WAIT", Time, &[(OPERATIONS, "tries to take it every {}")]),
];

pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|it| std::str::from_utf8(it).unwrap()).collect();
    groups.join(",")
}

pub fn size(bytes: u64) -> String {
    match bytes {
        it if it % (1 << 20) == 0 => format!("{} MiB", it >> 20),
        it if it % (1 << 10) == 0 => format!("{} KiB", it >> 10),
        it => format!("{} bytes", count(it)),
    }
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        it if it % 1_000 != 0 => format!("{it} ms"),
        it if it > 60_000 && it % 60_000 == 0 => format!("{} minutes", it / 60_000),
        it => format!("{} s", it / 1_000),
    }
}

fn go(time: Duration) -> String {
    match time.as_secs() {
        it if it > 60 && it % 60 == 0 => format!("{}m", it / 60),
        it => format!("{it}s"),
    }
}

/// What the sources say that a constant is.
fn constant(file: &str, name: &str) -> String {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let declared = format!("const {name}: ");
    let mut found = text.lines().filter_map(|it| it.split_once(&declared)).map(|it| it.1);
    let line = found.next().unwrap_or_else(|| panic!("{file} has no {name}"));
    line.split_once(" = ").and_then(|it| it.1.split(';').next()).unwrap().to_owned()
}

fn number(text: &str) -> u64 {
    let plain = |it: &str| it.trim().replace('_', "").parse::<u64>().unwrap();
    match (text.split_once("<<"), text.split_once('*')) {
        (Some((number, shift)), _) => plain(number) << plain(shift),
        (_, Some((one, other))) => plain(one) * plain(other),
        _ => plain(text),
    }
}

fn duration(text: &str) -> Duration {
    let (unit, rest) = text.strip_prefix("Duration::from_").unwrap().split_once('(').unwrap();
    let number = number(rest.trim_end_matches(')'));
    match unit {
        "secs" => Duration::from_secs(number),
        "millis" => Duration::from_millis(number),
        other => panic!("no such unit: {other}"),
    }
}

#[test]
fn figures_are_those_of_the_program() {
    let mut wrong = Vec::new();
    for (file, name, written, places) in FIGURES.iter().chain(sinks::FIGURES) {
        let text = constant(file, name);
        let figure = match written {
            Count => count(number(&text)),
            Size => size(number(&text)),
            Digits => number(&text).to_string(),
            Time => time(duration(&text)),
            Go => go(duration(&text)),
        };
        for (page, phrase) in *places {
            let phrase = phrase.replace("{}", &figure);
            if !fs::read_to_string(root().join(page)).unwrap().contains(&phrase) {
                wrong.push(format!("{page} does not say: {phrase} ({name} in {file})"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn figures_are_written_as_people_write_them() {
    assert_eq!([count(7), count(1_024), count(1_000_000)], ["7", "1,024", "1,000,000"]);
    assert_eq!([size(4 << 20), size(256 << 10), size(1_000)], ["4 MiB", "256 KiB", "1,000 bytes"]);
    let times = [number("250"), 60 * 1_000, number("5 * 60") * 1_000].map(Duration::from_millis);
    assert_eq!(times.map(time), ["250 ms", "60 s", "5 minutes"]);
    assert_eq!([times[1], times[2]].map(go), ["60s", "5m"]);
}
