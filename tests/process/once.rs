//! `--once` as a process: what exists, to its end, and the exit code.

use std::io::Read;

use nomad_firehose::{
    standin::nomad::{Nomad, Table},
    streams,
};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{
    World,
    firehose::{FAILED, change, events, names, nodes, wait},
    saved_floor,
};
use crate::support::{evaluation, job, node, object, uuid};

/// One more object of every stream.
pub fn more(nomad: &Nomad, number: usize) {
    change(nomad, number);
    let name = format!("x{number}");
    nomad.upsert(Table::Evaluations, evaluation(&name, "default", "complete"));
    nomad.upsert(Table::Jobs, job(&name, "default", "running"));
    let deployment = json!({
        "ID": uuid(&name), "Namespace": "default", "JobID": "web", "Status": "running",
    });
    nomad.upsert(Table::Deployments, object(deployment));
}

#[tokio::test]
async fn every_stream_publishes_what_exists_and_ends_and_the_next_run_goes_on_from_there() {
    let world = World::with(0).await;
    (0..3).for_each(|number| more(&world.nomad, number));
    for (name, ..) in streams::ALL {
        let each = if *name == "allocations" { 2 } else { 1 };
        let once = world.elected(name).arguments(&["--once"]).run().await;
        assert_eq!(once.code, Some(0), "{name}: {}", once.log);
        assert_eq!(once.out.lines().count(), 3 * each, "{name}: {}", once.out);
        assert!(once.log.contains("everything that exists is published"), "{}", once.log);
        assert!(world.consul.sessions().is_empty(), "{name}");
        let again = world.elected(name).arguments(&["--once"]).run().await;
        assert_eq!((again.code, again.out.as_str()), (Some(0), ""), "{name}: {}", again.log);
    }
    more(&world.nomad, 3);
    for (name, ..) in streams::ALL {
        let each = if *name == "allocations" { 2 } else { 1 };
        let running = world.elected(name).start();
        running.publishes(each).await;
        assert_eq!(running.stop().await.out.lines().count(), each, "{name}");
    }
}

#[tokio::test]
async fn a_new_sink_is_filled_under_a_prefix_of_its_own_beside_a_run_that_goes_on() {
    let world = World::with(4).await;
    let running = world.elected("nodes").start();
    running.publishes(4).await;
    let program = world.elected("nodes").set("NOMAD_FIREHOSE_CONSUL_PREFIX", "new-sink");
    let filled = program.arguments(&["--once"]).run().await;
    assert_eq!((filled.code, names(&filled.out)), (Some(0), nodes(4)), "{}", filled.log);
    assert!(world.consul.entry("new-sink/nodes.cursor").is_some());
    assert_eq!(running.stop().await.out.lines().count(), 4);
}

#[tokio::test]
async fn it_works_by_nomads_variables_and_alone_too() {
    let world = World::with(2).await;
    let once = world.by_nomad("allocations").arguments(&["--once"]).run().await;
    assert_eq!((once.code, once.out.lines().count()), (Some(0), 4), "{}", once.log);
    let dir = tempfile::tempdir().unwrap();
    let once = world.solo("nodes", dir.path()).arguments(&["--once"]).run().await;
    assert_eq!((once.code, names(&once.out)), (Some(0), nodes(2)), "{}", once.log);
    assert!(saved_floor(dir.path()).is_some());
}

#[tokio::test]
async fn it_says_that_it_waits_for_the_lock_and_a_signal_then_means_that_it_is_not_done() {
    let world = World::with(1).await;
    let holder = world.elected("nodes").start();
    holder.publishes(1).await;
    let waiting = world.elected("nodes").arguments(&["--once"]).start();
    waiting.logs("standing by").await;
    waiting.signal("TERM");
    let finished = waiting.finished().await;
    assert_eq!((finished.code, finished.out.as_str()), (Some(FAILED), ""), "{}", finished.log);
    assert!(finished.log.contains("asked to stop before everything"), "{}", finished.log);

    let waiting = world.elected("nodes").arguments(&["--once"]).start();
    waiting.logs("standing by").await;
    holder.stop().await;
    let finished = waiting.finished().await;
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), ""), "{}", finished.log);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_waited_for_until_a_signal_and_then_not_longer() {
    let world = World::with(0).await;
    for number in 0..100 {
        let mut large = node(&format!("m{number:05}"), "ready");
        large.insert("Attributes".into(), json!({"padding": "x".repeat(4 << 10)}));
        world.nomad.upsert(Table::Nodes, large);
    }
    let program = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "1s");
    let (process, mut out) = program.arguments(&["--once"]).start_unread();
    // One byte came, so a write is under way; a pipe holds far less than all of it.
    let read = spawn_blocking(move || out.read_exact(&mut [0]).map(|()| out));
    let out = read.await.unwrap().unwrap();
    process.signal("TERM");
    let finished = process.finished().await;
    assert_eq!(finished.code, Some(FAILED), "{}", finished.log);
    drop(out);
}

#[tokio::test]
async fn what_cannot_be_read_is_in_the_log_and_in_the_exit_code() {
    let world = World::with(2).await;
    for _ in 0..200 {
        let missing = nomad_firehose::standin::Fault::status(404, "node not found");
        world.nomad.script(&format!("/v1/node/{}", uuid("n00001")), missing);
    }
    let once = world.elected("nodes").arguments(&["--once"]).run().await;
    assert_eq!(once.code, Some(FAILED), "{}", once.log);
    assert_eq!(names(&once.out), nodes(1));
    assert!(once.log.contains("unread=1") && once.log.contains("cannot be read"), "{}", once.log);
    world.nomad.forget_faults();
    let once = world.elected("nodes").arguments(&["--once"]).run().await;
    assert_eq!((once.code, names(&once.out)), (Some(0), nodes(2)[1..].to_vec()), "{}", once.log);
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_leaves_the_rest_to_the_next_one() {
    let world = World::with(400).await;
    let once = world.elected("allocations").arguments(&["--once"]);
    let (mut process, mut out) = once.start_unread();
    process.logs("elected").await;
    process.kill();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    wait("its session expires", async || {
        let all = world.consul.sessions();
        all.iter().for_each(|it| world.consul.expire(&it.id));
        world.consul.sessions().is_empty().then_some(())
    })
    .await;
    let once = world.elected("allocations").arguments(&["--once"]).run().await;
    assert_eq!(once.code, Some(0), "{}", once.log);
    // A line that was cut by the end of the process is no record.
    let whole = &text[..text.rfind('\n').map_or(0, |it| it + 1)];
    let published = [names(whole), names(&once.out)].concat();
    super::firehose::repeated(&events(400), &published);
}
