//! The README's example is what a real Nomad led to, and its defaults are those of the program.

use std::time::Duration;

use nomad_firehose::{
    env::{Env, parse_duration},
    run::Config,
    streams::Nodes,
};

use super::{
    generated::SINKS,
    pages::{self, Page},
};
use crate::contract::{emit_elements, lists_of};

fn readme() -> Page {
    pages::all().into_iter().find(|it| it.path == "README.md").unwrap()
}

/// Variables, and the defaults that the tables of a text give them.
fn defaults(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for row in text.lines().filter(|it| it.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, default, ..] = cells[..] else { continue };
        let name = name.trim_matches(['|', ' ', '`']);
        let variable = name.chars().all(|it| it.is_ascii_uppercase() || "_0123456789".contains(it));
        let value = default.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
        if let Some(value) = value.filter(|it| variable && !it.contains('`')) {
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    found
}

fn config(set: &[(&str, &str)]) -> Result<Config, String> {
    let env: Env = set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let config = Config::from_env::<Nodes>(&env);
    let unknown = env.unknown();
    let config = env.check(config).map_err(|it| format!("{it:?}"))?;
    if unknown.is_empty() { Ok(config) } else { Err(unknown.join("\n")) }
}

#[test]
fn the_example_is_what_a_real_nomad_led_to() {
    let readme = readme();
    let example = readme.blocks.iter().find(|it| it.language == "json").unwrap();
    // Lines were broken so that it can be read.
    let example = example.text.replace('\n', "");
    let emitted = lists_of("allocations")
        .flat_map(|list| emit_elements("allocations", list, &list.elements()));
    let mut bodies = emitted.map(|it| it.body);
    assert!(bodies.any(|it| it == example.as_bytes()), "no recording leads to it:\n{example}");
}

#[test]
fn every_default_is_a_value_that_is_taken() {
    let readme = defaults(&readme().text);
    assert!(readme.len() > 15, "only {readme:?}");
    for (name, default) in readme {
        let (sink, _, needed) = SINKS
            .iter()
            .copied()
            .find(|(sink, ..)| name.starts_with(&format!("SINK_{}_", sink.to_uppercase())))
            .unwrap_or(SINKS[0]);
        let mut set = vec![("SINK_TYPE", sink), (name.as_str(), default.as_str())];
        set.extend(needed.iter().filter(|it| it.0 != name));
        if let Err(what) = config(&set) {
            panic!("{name}={default}: {what}");
        }
    }
}

/// Variables that say something only beside others, and these.
#[cfg(feature = "full")]
const BESIDE: &[(&str, &[(&str, &str)])] = &[
    ("SINK_KAFKA_SASL_MECHANISM", &[("SINK_KAFKA_USER", "me"), ("SINK_KAFKA_PASSWORD", "x")]),
    ("SINK_SQS_GROUP", &[("SINK_SQS_QUEUE_NAME", "x.fifo")]),
];

/// A build that lacks a sink does not know its variables.
#[cfg(feature = "full")]
#[test]
fn every_default_on_the_page_of_a_receiver_is_a_value_that_is_taken() {
    let (mut tried, mut wrong) = (0, Vec::new());
    for (sink, _, needed) in SINKS.iter().copied() {
        let page = format!("docs/{sink}.md");
        let page = pages::all().into_iter().find(|it| it.path == page).unwrap();
        let Some((_, table)) = page.text.split_once("\n## Variables\n") else { continue };
        for (name, default) in defaults(table.split("\n## ").next().unwrap()) {
            let beside = BESIDE.iter().find(|it| it.0 == name).map_or(&[][..], |it| it.1);
            let mut set = vec![("SINK_TYPE", sink), (name.as_str(), default.as_str())];
            set.extend(needed.iter().chain(beside).filter(|it| it.0 != name));
            wrong.extend(config(&set).err().map(|what| format!("{name}={default}: {what}")));
            tried += 1;
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(tried > 15, "only {tried} defaults were found");
}

#[test]
fn defaults_are_those_of_the_program() {
    let documented = defaults(&readme().text);
    let default = |name: &str| documented.iter().find(|it| it.0 == name).unwrap().1.clone();
    let time = |name: &str| -> Duration { parse_duration(&default(name)).unwrap() };
    let config = config(&[("SINK_TYPE", "stdout")]).unwrap();
    assert_eq!(time("NOMAD_FIREHOSE_CHECKPOINT"), config.checkpoint);
    assert_eq!(time("NOMAD_FIREHOSE_GRACE"), config.grace);
    assert_eq!(time("NOMAD_FIREHOSE_RESYNC"), config.scope.resync);
    assert_eq!(default("NOMAD_FIREHOSE_NAMESPACE"), &*config.scope.namespace);
    assert_eq!(default("NOMAD_FIREHOSE_START"), format!("{:?}", config.start).to_lowercase());
    assert_eq!(
        default("NOMAD_FIREHOSE_SOURCE"),
        format!("{:?}", config.scope.changes).to_lowercase()
    );
}
