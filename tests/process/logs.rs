//! The log in each of its formats, as a process writes it.

use std::collections::BTreeSet;

use nomad_firehose::standin::Fault;
use serde_json::{Map, Value};

use super::{
    World,
    firehose::{CONFIGURATION, Program},
};

pub const FORMATS: [&str; 4] = ["text", "json", "gelf", "seatgeek-json"];

/// What a line is made of, whatever its format.
#[derive(Debug)]
pub struct Entry {
    pub level: String,
    pub message: String,
    pub module: String,
    /// The whole line, or what its texts say.
    pub text: String,
}

/// The entries of a log; fails where a line is not of the format.
pub fn entries(format: &str, log: &str) -> Vec<Entry> {
    let entry = |line: &str| match format {
        "text" => text(line),
        _ => document(format, line),
    };
    log.lines().map(entry).collect()
}

fn text(line: &str) -> Entry {
    let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no time: {line}"));
    assert_is_time(time);
    assert!(!line.contains(|it: char| it.is_control()), "{line:?}");
    let (level, rest) = rest.trim_start().split_once(' ').unwrap();
    let (module, message) = rest.split_once(": ").unwrap();
    assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line}");
    Entry {
        level: level.to_lowercase().replace("warn", "warning"),
        message: message.to_owned(),
        module: module.to_owned(),
        text: line.to_owned(),
    }
}

fn document(format: &str, line: &str) -> Entry {
    let members: Map<String, Value> =
        serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
    let [level, message, module] = match format {
        "json" => ["level", "msg", "module"],
        "seatgeek-json" => ["@level", "@message", "module"],
        "gelf" => ["_level_name", "short_message", "_module"],
        other => panic!("no such format: {other}"),
    };
    match format {
        "json" => assert_is_time(members["time"].as_str().unwrap()),
        "seatgeek-json" => assert_is_time(members["@timestamp"].as_str().unwrap()),
        _ => assert_is_gelf(&members),
    }
    let word = |name: &str| {
        let word = members[name].as_str().filter(|it| !it.is_empty());
        word.unwrap_or_else(|| panic!("no {name}: {line}")).to_owned()
    };
    let stream = if format == "gelf" { "_stream" } else { "stream" };
    assert_eq!(word(stream), "nodes");
    let levels = ["error", "warning", "info", "debug", "trace"];
    assert!(levels.contains(&word(level).as_str()), "{line}");
    let texts: Vec<&str> = members.values().filter_map(Value::as_str).collect();
    let text = texts.join("\n");
    Entry { level: word(level), message: word(message), module: word(module), text }
}

fn assert_is_time(text: &str) {
    humantime::parse_rfc3339(text).unwrap_or_else(|err| panic!("{err}: {text}"));
}

/// The rules of GELF 1.1.
fn assert_is_gelf(members: &Map<String, Value>) {
    let is_text = |name: &str| members[name].as_str().is_some_and(|it| !it.is_empty());
    assert_eq!(members["version"], "1.1");
    assert!(is_text("host") && is_text("short_message"), "{members:?}");
    let now = humantime::parse_rfc3339("2020-01-01T00:00:00Z").unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(members["timestamp"].as_f64().is_some_and(|it| it > now), "{members:?}");
    assert!(members["level"].as_u64().is_some_and(|it| it <= 7), "{members:?}");
    for (name, value) in members {
        assert!(value.is_string() || value.is_number(), "{name}: {value}");
        if ["version", "host", "short_message", "timestamp", "level"].contains(&name.as_str()) {
            continue;
        }
        let rest = name.strip_prefix('_').unwrap_or_else(|| panic!("not a member: {name}"));
        let fine = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
        assert!(name != "_id" && !rest.is_empty() && rest.chars().all(fine), "{name}");
    }
}

#[tokio::test]
async fn every_line_of_a_process_is_of_the_format_whatever_servers_say() {
    for format in FORMATS {
        let world = World::with(3).await;
        for _ in 0..2 {
            let hostile = "no\r\nleader\u{1b}[31m\u{85}";
            world.nomad.script("/v1/nodes", Fault::status(500, hostile));
            world.consul.script("/v1/session/create", Fault::status(500, hostile));
        }
        let program = world.elected("nodes").set("LOG_FORMAT", format).set("LOG_LEVEL", "debug");
        let running = program.set("NOMAD_FIREHOSE_CHEKPOINT", "5s").start();
        running.publishes(3).await;
        let finished = running.stop().await;
        let entries = entries(format, &finished.log);
        let said = |level: &str, text: &str| {
            let it = entries.iter().find(|it| it.level == level && it.text.contains(text));
            assert!(it.is_some(), "{format}: no {level} says {text}: {}", finished.log);
        };
        said("warning", "did you mean NOMAD_FIREHOSE_CHECKPOINT");
        said("error", "cannot be elected");
        said("warning", "cannot read from Nomad");
        said("info", "asked to stop");
        said("info", "stopped");
        assert!(!finished.log.contains('\u{1b}'), "{format} has colours in a pipe");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_configuration_is_said_in_the_format() {
    for format in FORMATS {
        let program = Program::stream("nodes").set("LOG_FORMAT", format).set("LOG_LEVEL", "loud");
        let program = program.set("NOMAD_FIREHOSE_START", "a\nb").set("SINK_TIPE", "x");
        let finished = program.run().await;
        assert_eq!((finished.code, finished.out.as_str()), (Some(CONFIGURATION), ""));
        let lines: Vec<String> = match format {
            "text" => finished.log.lines().map(str::to_owned).collect(),
            _ => entries(format, &finished.log).into_iter().map(|it| it.message).collect(),
        };
        let names: Vec<&str> =
            lines.iter().map(|it| it.split([':', ' ']).next().unwrap()).collect();
        let all = ["LOG_LEVEL", "SINK_TYPE", "NOMAD_FIREHOSE_START", "SINK_TIPE"];
        assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(all), "{format}: {}", finished.log);
        assert_eq!(lines.len(), all.len());
    }
    let finished = Program::stream("nodes").set("LOG_FORMAT", "xml").run().await;
    let mut lines = finished.log.lines();
    assert!(lines.all(|it| it.starts_with("LOG_FORMAT: ") || it.starts_with("SINK_TYPE: ")));
}

#[tokio::test]
async fn colours_are_never_in_a_pipe() {
    let world = World::with(1).await;
    let program =
        world.elected("nodes").set("TERM", "xterm-256color").set("COLORTERM", "truecolor");
    let running = program.set("CLICOLOR_FORCE", "1").set("FORCE_COLOR", "1").start();
    running.publishes(1).await;
    let log = running.stop().await.log;
    assert!(!log.is_empty() && !log.contains('\u{1b}'), "{log:?}");
}

#[tokio::test]
async fn a_module_can_be_given_a_level_of_its_own() {
    let world = World::with(1).await;
    let program = world.elected("nodes").set("LOG_LEVEL", "error, run=info");
    let running = program.set("LOG_FORMAT", "json").start();
    running.publishes(1).await;
    let log = running.stop().await.log;
    let modules: BTreeSet<String> = entries("json", &log).into_iter().map(|it| it.module).collect();
    assert_eq!(modules, BTreeSet::from(["run".to_owned()]));

    let program = world.elected("nodes").set("LOG_FORMAT", "json");
    let running = program.arguments(&["--log-level=error,leader=debug,watch=trace"]).start();
    running.logs("changes come from Nomad's event stream").await;
    let log = running.stop().await.log;
    assert!(entries("json", &log).iter().all(|it| it.module != "run"), "{log}");

    for wrong in ["info,leadr=debug", "info,leader=degub", "lapin=trace", "info,lapin=trace"] {
        let finished = world.elected("nodes").set("LOG_LEVEL", wrong).run().await;
        assert_eq!(finished.code, Some(CONFIGURATION));
        assert!(finished.log.starts_with("LOG_LEVEL: `"), "{}", finished.log);
        let meant = if wrong.contains("lapin") { "not one of the modules" } else { "did you mean" };
        assert!(finished.log.contains(meant), "{}", finished.log);
    }
}

/// A line with what differs from run to run made the same.
fn redacted(line: &str, nomad: &str) -> String {
    let mut line = line.replace(nomad, "http://127.0.0.1:4646");
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    line = line.replace(&version, "\"0.1.0\"");
    if !line.starts_with('{') {
        let (_, rest) = line.split_once(' ').unwrap();
        return format!("2026-11-26T08:00:00.000000Z {rest}");
    }
    for (member, value) in [
        ("time", "\"2026-11-26T08:00:00.000000Z\""),
        ("@timestamp", "\"2026-11-26T08:00:00.000000Z\""),
        ("timestamp", "1795680000.0"),
        ("host", "\"host-1\""),
        ("_pid", "4711"),
    ] {
        let name = format!("\"{member}\":");
        let Some(start) = line.find(&name).map(|it| it + name.len()) else { continue };
        let end = start + line[start..].find([',', '}']).unwrap();
        line.replace_range(start..end, value);
    }
    line
}

#[tokio::test]
async fn each_format_looks_as_accepted_and_as_the_page_about_logs_shows_it() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs.md")).unwrap();
    let mut lines = Vec::new();
    for format in FORMATS {
        let world = World::with(1).await;
        let running = world.elected("nodes").set("LOG_FORMAT", format).start();
        running.publishes(1).await;
        let log = running.stop().await.log;
        let line = log.lines().find(|it| it.contains("started")).unwrap();
        lines.push(redacted(line, &world.nomad_port.address));
    }
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!("log-formats", lines.join("\n"));
    });
    for line in &lines {
        assert!(page.lines().any(|it| it == line), "docs/logs.md does not have:\n{line}");
    }
}
