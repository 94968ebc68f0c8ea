//! What the program knows itself is written into pages by this test, and kept equal by it.

use std::{env, fmt::Write, fs, process::Command};

use nomad_firehose::{
    env::Env,
    record::Limits,
    sink::{self, Summary},
};

use super::{
    cargo::Manifest,
    figures::{count, size},
    pages::{self, Page},
    stage::PROGRAMS,
};

/// If this is set, pages are written instead of compared.
const UPDATE: &str = "UPDATE_DOCS";
const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";
/// Features that are no sinks, and what they bring.
const OTHER_FEATURES: [(&str, &str); 3] = [
    ("demo", "the stand-ins for Nomad and Consul, and `firehose-demo`"),
    ("filter", "expressions that tell which records are published"),
    ("full", "all of these"),
];
/// What others need, and nobody asks for: what the sinks of Amazon share, and the fuzzer.
const NO_FEATURES: [&str; 2] = ["aws", "fuzz"];

/// A sink, how a table calls it, and the variables that it needs.
type Sample = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Each sink as it can be set up with nothing but what it needs.
pub const SINKS: &[Sample] = &[
    ("stdout", "`stdout`", &[]),
    (
        "amqp",
        "`amqp`",
        &[
            ("SINK_AMQP_CONNECTION", "amqp://localhost"),
            ("SINK_AMQP_EXCHANGE", "x"),
            ("SINK_AMQP_ROUTING_KEY", "x"),
        ],
    ),
    ("kafka", "`kafka`", &[("SINK_KAFKA_BROKERS", "localhost:9092"), ("SINK_KAFKA_TOPIC", "x")]),
    ("kinesis", "`kinesis`", &[("SINK_KINESIS_STREAM_NAME", "x")]),
    ("nats", "`nats`", &[("SINK_NATS_URL", "nats://localhost"), ("SINK_NATS_SUBJECT", "x")]),
    (
        "mongodb",
        "`mongodb`",
        &[
            ("SINK_MONGODB_CONNECTION", "mongodb://localhost"),
            ("SINK_MONGODB_DATABASE", "x"),
            ("SINK_MONGODB_COLLECTION", "x"),
        ],
    ),
    ("sqs", "`sqs`", &[("SINK_SQS_QUEUE_NAME", "x")]),
    (
        "eventbridge",
        "`eventbridge`",
        &[
            ("SINK_EVENT_BUS_NAME", "x"),
            ("SINK_EVENT_BUS_DETAIL_TYPE", "x"),
            ("SINK_EVENT_BUS_SOURCE", "x"),
        ],
    ),
    ("http", "`http`", &[("SINK_HTTP_ADDRESS", "http://localhost")]),
    (
        "http",
        "`http`, in batches",
        &[("SINK_HTTP_ADDRESS", "http://localhost"), ("SINK_HTTP_BATCH", "array")],
    ),
    ("redis", "`redis`", &[("SINK_REDIS_URL", "redis://localhost"), ("SINK_REDIS_KEY", "x")]),
    ("nsq", "`nsq`", &[("SINK_NSQ_ADDR", "localhost:4150"), ("SINK_NSQ_TOPIC_NAME", "x")]),
    ("syslog", "`syslog`", &[]),
];

fn about(name: &str) -> Summary {
    sink::documented().find(|it| it.0 == name).unwrap().1
}

fn limits(name: &str, set: &[(&str, &str)]) -> Limits {
    let own = [("SINK_TYPE", name)];
    let env: Env = set.iter().chain(&own).map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let sink = sink::from_env(&env);
    env.check(sink).map_err(|it| format!("{name}: {it:?}")).unwrap().limits()
}

fn order(limits: Limits) -> &'static str {
    match limits.calls {
        1 => "all records, as they were read, as long as none fails",
        _ => "of each object",
    }
}

fn sinks() -> String {
    let mut out = "| receiver | delivered is | order | a duplicate is recognised by |\n\
                   |---|---|---|---|\n"
        .to_owned();
    for (name, shown, set) in SINKS.iter().filter(|it| !it.1.contains(',')) {
        let (Summary { delivered, duplicate, set_by }, order) =
            (about(name), order(limits(name, set)));
        let more = match set_by.first() {
            Some(workers) if limits(name, set).calls == 1 => {
                format!("; with a larger `{workers}`, of each object")
            }
            _ => String::new(),
        };
        writeln!(out, "| {shown} | {delivered} | {order}{more} | {duplicate} |").unwrap();
    }
    out
}

fn calls() -> String {
    let mut out =
        "| receiver | records | bytes | calls at once | set by |\n|---|---|---|---|---|\n"
            .to_owned();
    for (name, shown, set) in SINKS {
        let Limits { calls, records, bytes, one_per_key, .. } = limits(name, set);
        let alone = records == 1;
        let each = if one_per_key { ", one of each object" } else { "" };
        let bytes = if alone { String::new() } else { size(bytes as u64) };
        let set_by = about(name).set_by.iter().filter(|it| !(alone && it.contains("BATCH")));
        let set_by = set_by.map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
        let records = count(records as u64);
        writeln!(out, "| {shown} | {records}{each} | {bytes} | {calls} | {set_by} |").unwrap();
    }
    out
}

fn features() -> String {
    let mut out = "| feature | | in a plain build |\n|---|---|---|\n".to_owned();
    let manifest = Manifest::read();
    let mut features: Vec<(&String, &bool)> = manifest.features.iter().collect();
    features.sort();
    for (name, default) in features {
        if NO_FEATURES.contains(&name.as_str()) {
            continue;
        }
        let types: Vec<String> = sink::optional()
            .filter(|it| it.1 == name)
            .map(|(name, _)| format!("`SINK_TYPE={name}`"))
            .collect();
        let other = || OTHER_FEATURES.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        let what = if types.is_empty() { other() } else { Some(types.join(", ")) };
        let what = what.unwrap_or_else(|| panic!("nothing is known of the feature {name}"));
        writeln!(out, "| `{name}` | {what} | {} |", if *default { "yes" } else { "no" }).unwrap();
    }
    out
}

fn help(program: &str) -> String {
    let (_, path) = PROGRAMS.iter().find(|it| it.0 == program).unwrap();
    let output = Command::new(path).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{program} --help: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.trim_matches('\n').lines().map(str::trim_end).collect();
    format!("```text\n{}\n```\n", lines.join("\n"))
}

fn generated(what: &str) -> String {
    match what.split_once(' ') {
        Some(("help", program)) => help(program),
        _ => match what {
            "calls" => calls(),
            "features" => features(),
            "sinks" => sinks(),
            other => panic!("nothing is generated as {other}"),
        },
    }
}

/// The page with everything that is generated in it as it has to be.
fn renewed(page: &Page, generated: impl Fn(&str) -> String) -> String {
    let mut parts = page.text.split(BEGIN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (what, rest) = part.split_once(" -->\n").expect("a marker has an end");
        let (_, rest) = rest.split_once(END).expect("what is generated has an end");
        write!(out, "{BEGIN}{what} -->\n{}{END}{rest}", generated(what)).unwrap();
    }
    out
}

// A build that lacks a sink does not know what there is to say of it.
#[cfg(feature = "full")]
#[test]
fn what_is_generated_is_as_the_program_has_it() {
    let mut wrong = Vec::new();
    for page in pages::all() {
        // This page tells how it is done.
        if page.path == "CONTRIBUTING.md" {
            continue;
        }
        let text = renewed(&page, generated);
        if text == page.text {
            continue;
        }
        if env::var_os(UPDATE).is_some() {
            fs::write(pages::root().join(&page.path), text).unwrap();
        } else {
            wrong.push(page.path);
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong:?} are out of date: {UPDATE}=1 cargo test --test all documentation::generated"
    );
}

#[test]
fn what_is_out_of_date_is_renewed_and_nothing_else() {
    let old = format!("# A\n\n{BEGIN}x -->\nold\n{END}\n\ntext\n{BEGIN}y -->\n{END}\n");
    let new = renewed(&Page::new("a.md", &old), |what| format!("new {what}\n"));
    let expected =
        format!("# A\n\n{BEGIN}x -->\nnew x\n{END}\n\ntext\n{BEGIN}y -->\nnew y\n{END}\n");
    assert_eq!(new, expected);
}
