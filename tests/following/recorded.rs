//! The recorded streams of real servers, replayed: what is published is what their lists said.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use nomad_firehose::{
    record::Record,
    streams::{Resource, Work, with_stream},
};
use serde_json::Value;

use super::*;
use crate::contract::{Recording, emit_elements, lists_of, objects};

const VERSIONS: [(&str, Version); 2] = [("1.0.18", Version::V1_0), ("2.0.5", Version::V2_0)];

fn stream(version: &str) -> Bytes {
    let path = format!("tests/fixtures/nomad-{version}/stream/all-index1.ndjson.gz");
    let file = std::fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let mut text = Vec::new();
    GzDecoder::new(file).read_to_end(&mut text).unwrap();
    text.into()
}

/// A server that has recorded this stream, and those objects that were recorded in full.
fn server(version: &'static str, behaves: Version) -> World {
    let world = World { changes: Source::Events, ..World::new(behaves) };
    for it in objects().filter(|it| it.version == version) {
        let object: Value = serde_json::from_slice(&it.body).unwrap();
        let text = |key| object[key].as_str().unwrap_or_default().to_owned();
        let namespace = if it.table() == "nodes" { String::new() } else { text("Namespace") };
        world.nomad.serve_object(
            it.standin_table(),
            &namespace,
            &text("ID"),
            it.body.clone().into(),
        );
    }
    world.nomad.serve_stream(stream(version));
    world
}

/// The elements of a list that the recorded stream, which was of one namespace, can have.
fn of_the_stream(list: &Recording) -> Vec<Vec<u8>> {
    let of_namespace = |it: &Vec<u8>| {
        let element: Value = serde_json::from_slice(it).unwrap();
        element
            .get("Namespace")
            .and_then(Value::as_str)
            .is_none_or(|it| it.is_empty() || it == "default")
            && element["JobSummary"]["Namespace"].as_str().is_none_or(|it| it == "default")
    };
    list.elements().into_iter().filter(of_namespace).collect()
}

/// A value without what means nothing: absent, `null`, empty and zero are the same.
fn normal(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(it) if it.as_f64() == Some(0.0) => None,
        // A number of a job's own is written as 137 or 137.0.
        Value::Number(it) if it.is_f64() => {
            let number = it.as_f64().unwrap();
            Some(if number.fract() == 0.0 { (number as i64).into() } else { value.clone() })
        }
        Value::String(it) if it.is_empty() || it == "0001-01-01T00:00:00Z" => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            Some(items.iter().map(|it| normal(it).unwrap_or_default()).collect())
        }
        Value::Object(members) => {
            let members: BTreeMap<_, _> =
                members.iter().filter_map(|(key, it)| Some((key, normal(it)?))).collect();
            (!members.is_empty()).then(|| serde_json::to_value(members).unwrap())
        }
        other => Some(other.clone()),
    }
}

/// What identifies a change, whatever its encoding: for 1.0 the hash of an id is of another text.
fn name(record: &Record) -> String {
    let (name, _) = record.meta.id.rsplit_once('/').unwrap();
    name.to_owned()
}

struct Replay {
    version: &'static str,
    behaves: Version,
    list: Option<&'static Recording>,
}

impl Work for Replay {
    type Output = std::pin::Pin<Box<dyn Future<Output = (World, u64)>>>;

    fn on<R: Resource>(self) -> Self::Output {
        Box::pin(async move {
            let Self { version, behaves, list } = self;
            let world = server(version, behaves);
            if let Some(list) = list {
                let index = |it: &Vec<u8>| {
                    let element: Value = serde_json::from_slice(it).unwrap();
                    element["ModifyIndex"].as_u64().unwrap()
                };
                let newest = list.elements().iter().map(index).max().unwrap();
                world.nomad.serve_recorded(list.standin_table(), list.body.clone().into(), newest);
            }
            let running = world.start::<R>();
            subscribed(&world, 1, &running).await;
            let mut count = usize::MAX;
            while count != world.sink.count() {
                count = world.sink.count();
                pass(20).await;
            }
            // Of some nodes and jobs that are listed, no object was recorded.
            if list.is_none() || matches!(R::TOPIC, nomad_firehose::streams::Topic::Announces(_)) {
                assert_eq!(running.metrics.bad_elements.get(), 0, "{version} {}", R::NAME);
                assert_eq!(running.metrics.bad_events.get(), 0, "{version} {}", R::NAME);
            }
            let gaps = running.metrics.gaps.get();
            running.stop().await;
            (world, gaps)
        })
    }
}

/// Everything that the lists would have published is there, and says the same.
fn covers(world: &World, gaps: u64, stream: &str, version: &'static str, lists: &[&Recording]) {
    let records = world.sink.records();
    let mut published: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for it in &records {
        let body: Value = serde_json::from_slice(&it.body).unwrap();
        published.entry(name(it)).or_default().push(body);
    }
    let mut ids = BTreeSet::new();
    let twice = records.iter().filter(|it| !ids.insert(&it.meta.id));
    let twice: BTreeSet<_> = twice.map(|it| &it.key).collect();
    // Clients that were killed came back without the last events of a task. Which of its events
    // are new cannot be told then, and all are published again.
    assert_eq!(twice.len() as u64, gaps, "{version} {stream}: published twice: {twice:?}");
    assert!(gaps <= 2, "{version} {stream}: {gaps} gaps");
    let mut compared = 0;
    for list in lists {
        for record in emit_elements(stream, list, &of_the_stream(list)) {
            let said: Value = serde_json::from_slice(&record.body).unwrap();
            let Some(found) = published.get(&name(&record)) else {
                // An object that was read by id can be later than what named it.
                let later = |it: &Record| it.key == record.key && it.meta.index > record.meta.index;
                let by_id = matches!(stream, "jobs" | "nodes");
                assert!(by_id && records.iter().any(later), "{list}: no {}", record.meta.id);
                continue;
            };
            let expected = normal(&constant(stream, said.clone()));
            let same = found.iter().any(|it| normal(&constant(stream, it.clone())) == expected);
            assert!(same, "{list}: {}\n{found:?}\n{said}", record.meta.id);
            if version == "2.0.5" && stream != "allocations" {
                assert!(ids.contains(&record.meta.id), "{list}: {}", record.meta.id);
            }
            compared += 1;
        }
    }
    assert!(compared > 0, "{version} {stream}: nothing was compared");
}

/// What of a payload does not depend on when it was read. Some members of a node change without an
/// index, and a task event is published with the state of its allocation when that was read.
fn constant(stream: &str, mut payload: Value) -> Value {
    let members = payload.as_object_mut().unwrap();
    match stream {
        "nodes" => members.retain(|key, _| {
            !["Events", "LastAllocUpdateIndex", "LastMissedHeartbeatIndex"].contains(&key.as_str())
        }),
        "allocations" => members.retain(|key, _| {
            !key.starts_with("Client")
                && !key.starts_with("Desired")
                && !["EvalID", "TaskState", "TaskFailed", "TaskStartedAt", "TaskFinishedAt"]
                    .contains(&key.as_str())
        }),
        _ => (),
    }
    payload
}

#[tokio::test(start_paused = true)]
async fn the_stream_alone_has_every_state_that_the_lists_have() {
    for (version, behaves) in VERSIONS {
        for stream in ["allocations", "nodes", "evaluations", "jobs", "deployments"] {
            let work = Replay { version, behaves, list: None };
            let (world, gaps) = with_stream(stream, work).unwrap().await;
            let lists: Vec<_> = lists_of(stream)
                .filter(|it| it.version == version && matches!(it.folder.as_str(), "A" | "B"))
                .collect();
            covers(&world, gaps, stream, version, &lists);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_and_the_stream_together_publish_nothing_twice() {
    for (version, behaves) in VERSIONS {
        for stream in ["allocations", "nodes", "evaluations", "jobs", "deployments", "jobliststubs"]
        {
            let list =
                lists_of(stream).find(|it| it.version == version && it.folder == "B").unwrap();
            let work = Replay { version, behaves, list: Some(list) };
            let (world, gaps) = with_stream(stream, work).unwrap().await;
            covers(&world, gaps, stream, version, &[list]);
        }
    }
}
