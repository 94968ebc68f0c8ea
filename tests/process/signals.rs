//! What SIGTERM and SIGINT do, and how long it takes.

use std::{io::Read, process::ChildStdout, time::Duration};

use nomad_firehose::standin::nomad::Table;
use serde_json::json;
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    World,
    firehose::{Process, Program, names},
};
use crate::support::node;

const LOCK: &str = "nomad-firehose/nodes.lock";
/// On top of the grace period, as documented.
const LAST_STEPS: Duration = Duration::from_millis(500);
/// What a busy machine may take on top of that.
const SLACK: Duration = Duration::from_secs(3);

/// Starts the program and leaves it in the middle of a write that cannot end.
async fn blocked(world: &World, program: Program) -> (Process, ChildStdout) {
    for number in 0..100 {
        let mut large = node(&format!("m{number:05}"), "ready");
        large.insert("Attributes".into(), json!({"padding": "x".repeat(4 << 10)}));
        world.nomad.upsert(Table::Nodes, large);
    }
    // Lists are published in large calls, and events as they come.
    let (process, mut out) = program.set("NOMAD_FIREHOSE_SOURCE", "poll").start_unread();
    // One byte came, so a write is under way; a pipe holds far less than all of it.
    let read = spawn_blocking(move || out.read_exact(&mut [0]).map(|()| out));
    (process, read.await.unwrap().unwrap())
}

#[tokio::test]
async fn a_signal_ends_the_process_with_the_checkpoint_saved_and_the_lock_released() {
    let world = World::with(0).await;
    for (number, signal) in ["TERM", "INT"].into_iter().enumerate() {
        let name = format!("n{number:05}");
        world.nomad.upsert(Table::Nodes, node(&name, "ready"));
        let running = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "1s").start();
        running.publishes(1).await;
        let asked = Instant::now();
        running.signal(signal);
        let finished = running.finished().await;
        assert_eq!(finished.code, Some(0), "{}", finished.log);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1) + LAST_STEPS + SLACK, "SIG{signal}: {took:?}");
        assert_eq!(world.consul.entry(LOCK).unwrap().session, None, "{}", finished.log);
        assert!(world.consul.sessions().is_empty());
        // The second of the two runs would repeat what the first has not saved.
        assert_eq!(names(&finished.out), [name]);
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_not_waited_for_beyond_the_grace_period() {
    let world = World::with(0).await;
    let program = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "1s");
    let (process, out) = blocked(&world, program).await;
    let asked = Instant::now();
    process.signal("TERM");
    let finished = process.finished().await;
    let took = asked.elapsed();
    assert_eq!(finished.code, Some(0), "{}", finished.log);
    assert!(took >= Duration::from_secs(1), "the call in flight had no time: {took:?}");
    assert!(took < Duration::from_secs(1) + LAST_STEPS + SLACK, "{took:?}");
    assert_eq!(world.consul.entry(LOCK).unwrap().session, None, "{}", finished.log);
    drop(out);
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let world = World::with(0).await;
    let program = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "10m");
    let (process, out) = blocked(&world, program).await;
    process.signal("TERM");
    process.logs("asked to stop").await;
    let asked = Instant::now();
    process.signal("INT");
    let finished = process.finished().await;
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert!(finished.log.contains("leaving at once"), "{}", finished.log);
    drop(out);
}

#[tokio::test]
async fn a_second_signal_right_after_the_first_is_not_missed() {
    let world = World::with(0).await;
    let program = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "10m");
    let (process, out) = blocked(&world, program).await;
    let asked = Instant::now();
    process.signal("TERM");
    process.signal("INT");
    let finished = process.finished().await;
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert!(finished.log.contains("leaving at once"), "{}", finished.log);
    drop(out);
}

#[tokio::test]
async fn a_standby_ends_at_once_and_leaves_the_publisher_alone() {
    let world = World::with(1).await;
    let first = world.elected("nodes").start();
    first.publishes(1).await;
    let second = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "10m").start();
    second.logs("standing by").await;
    let asked = Instant::now();
    let finished = second.stop().await;
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert_eq!(finished.out, "");
    assert_eq!(world.consul.sessions().len(), 1);
    world.nomad.upsert(Table::Nodes, node("n00001", "ready"));
    first.publishes(2).await;
    first.stop().await;
}

#[tokio::test]
async fn servers_that_do_not_answer_do_not_keep_a_process_that_is_to_end() {
    let world = World::with(1).await;
    let running = world.elected("nodes").set("NOMAD_FIREHOSE_GRACE", "1s").start();
    running.publishes(1).await;
    world.consul.partition(true);
    world.nomad.partition(true);
    let asked = Instant::now();
    let finished = running.stop().await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1) + LAST_STEPS + SLACK, "{took:?}\n{}", finished.log);
}
