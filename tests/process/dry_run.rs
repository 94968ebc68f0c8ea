//! `--dry-run`: everything is shown, and nothing is kept.

use std::io::{BufRead, BufReader};

use nomad_firehose::streams;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{
    World,
    firehose::{CONFIGURATION, Program, change, names, nodes, when},
    once::more,
};

/// Where everything else would be refused or written.
fn looking(world: &World, stream: &str) -> Program {
    Program::stream(stream).set("NOMAD_ADDR", &world.nomad_port.address)
}

#[tokio::test]
async fn every_stream_shows_what_exists_and_ends_without_any_other_setting() {
    let world = World::with(0).await;
    (0..3).for_each(|number| more(&world.nomad, number));
    for (name, ..) in streams::ALL {
        let each = if *name == "allocations" { 2 } else { 1 };
        let once = looking(&world, name).arguments(&["--dry-run", "--once"]).run().await;
        assert_eq!(once.code, Some(0), "{name}: {}", once.log);
        assert_eq!(once.out.lines().count(), 3 * each, "{name}: {}", once.out);
    }
    assert!(world.consul.requests().is_empty());
    assert!(world.nomad.requests().iter().all(|it| it.method == "GET"));
}

#[tokio::test]
async fn nothing_is_written_whatever_is_configured_and_no_lock_is_waited_for() {
    let world = World::with(2).await;
    let holder = world.elected("nodes").start();
    holder.publishes(2).await;
    when("the holder's checkpoint", || world.consul.entry("nomad-firehose/nodes.cursor").is_some())
        .await;
    let keys = ["lock", "value", "cursor"].map(|it| format!("nomad-firehose/nodes.{it}"));
    let entries = || keys.clone().map(|it| world.consul.entry(&it));
    let (before, sessions) = (entries(), world.consul.sessions().len());
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).display().to_string();
    for leader in ["consul", "nomad", "solo"] {
        let program = world
            .elected("nodes")
            .set("NOMAD_FIREHOSE_LEADER", leader)
            .set("NOMAD_FIREHOSE_STATE_DIR", place("state"))
            .set("NOMAD_FIREHOSE_DEAD_LETTER", place("letters"))
            .set("SINK_TYPE", "http")
            .set("SINK_HTTP_ADDRESS", "http://127.0.0.1:9");
        let looking = program.arguments(&["--dry-run"]).start();
        looking.publishes(2).await;
        // The checkpoint of the others is not read: what they have published is shown.
        assert_eq!(looking.out.names(), nodes(2));
        looking.stop().await;
    }
    assert_eq!(entries(), before);
    assert_eq!(world.consul.sessions().len(), sessions);
    assert!(world.nomad.variables().is_empty());
    assert!(world.nomad.requests().iter().all(|it| it.method == "GET"));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    holder.stop().await;
}

#[tokio::test]
async fn it_goes_on_until_it_is_stopped_and_begins_as_configured() {
    let world = World::with(2).await;
    let latest = looking(&world, "nodes").set("NOMAD_FIREHOSE_START", "latest");
    let latest = latest.arguments(&["--dry-run"]).start();
    let earliest = looking(&world, "nodes").arguments(&["--dry-run"]).start();
    earliest.publishes(2).await;
    latest.logs("changes come from").await;
    change(&world.nomad, 2);
    for (process, expected) in [(latest, nodes(3)[2..].to_vec()), (earliest, nodes(3))] {
        process.publishes(expected.len()).await;
        assert_eq!(process.out.names(), expected);
        process.stop().await;
    }
}

#[tokio::test]
async fn the_format_applies_and_the_settings_of_a_sink_that_is_named_are_looked_at() {
    let world = World::with(1).await;
    let program = looking(&world, "nodes").set("NOMAD_FIREHOSE_FORMAT", "cloudevents");
    let shown = program.arguments(&["--dry-run", "--once"]).run().await;
    let event: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(event["type"], "nomad.node.changed");
    for (name, value) in [("SINK_TYPE", "http"), ("SINK_TYPE", "pigeon")] {
        let program = looking(&world, "nodes").set(name, value);
        let wrong = program.arguments(&["--dry-run", "--once"]).run().await;
        assert_eq!((wrong.code, wrong.out.as_str()), (Some(CONFIGURATION), ""), "{}", wrong.log);
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_it_with_success() {
    for flags in [&["--dry-run"][..], &["--dry-run", "--once"]] {
        let world = World::with(500).await;
        let (process, out) = looking(&world, "nodes").arguments(flags).start_unread();
        let mut out = BufReader::new(out);
        let read = spawn_blocking(move || {
            let mut line = String::new();
            out.read_line(&mut line).map(|_| line)
        });
        let line = read.await.unwrap().unwrap();
        assert_eq!(names(&line).len(), 1);
        // The pipe is closed; the next write is the last.
        change(&world.nomad, 500);
        let finished = process.finished().await;
        assert_eq!(finished.code, Some(0), "{}", finished.log);
        assert!(!finished.log.contains("ERROR"), "{}", finished.log);
    }
}
