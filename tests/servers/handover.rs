//! Two copies of a stream: one publishes, and the other takes over.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    World,
    firehose::{
        Changes, Process, bodies, events, names, nodes, published_all, repeated, wait, when,
    },
    print,
};

const CLEAN_LIMIT: Duration = Duration::from_secs(1);
const CRASH_LIMIT: Duration = Duration::from_secs(25);

/// Waits until a copy has published all changes but those that others had before, stops it, and
/// tells what it wrote.
async fn caught_up(process: Process, expected: &[String], before: &[String]) -> String {
    when("all changes are published", || published_all(expected, before, &process)).await;
    process.stop().await.out
}

async fn standby(world: &World, stream: &str) -> Process {
    let process = world.stream(stream).start();
    process.logs("standing by").await;
    process
}

#[tokio::test]
async fn a_standby_takes_over_within_a_second_of_a_clean_stop_with_nothing_lost_or_repeated() {
    let world = World::new().await;
    let changes = Changes::of(&world.nomad);
    let mut holder = world.stream("nodes").start();
    holder.publishes(1).await;
    let mut published = Vec::new();
    let mut took = Vec::new();
    for _ in 0..3 {
        let next = standby(&world, "nodes").await;
        holder.publishes(holder.out.count() + 1).await;
        assert_eq!(next.out.count(), 0, "both publish");
        let asked = Instant::now();
        published.extend(names(&holder.stop().await.out));
        next.publishes(1).await;
        took.push(next.out.began().unwrap() - asked);
        holder = next;
    }
    let expected = nodes(changes.end().await);
    published.extend(names(&caught_up(holder, &expected, &published).await));
    assert_eq!(repeated(&expected, &published), [""; 0]);
    print(&format!("Measured: from SIGTERM to the first record of the next: {took:?}"));
    took.sort();
    // One of three may meet a machine that is busy with something else.
    assert!(took[1] < CLEAN_LIMIT, "{took:?}");
}

#[tokio::test]
async fn task_events_are_neither_lost_nor_repeated_by_a_clean_stop() {
    let world = World::new().await;
    let changes = Changes::of(&world.nomad);
    let first = world.stream("allocations").start();
    first.publishes(1).await;
    let second = standby(&world, "allocations").await;
    first.publishes(100).await;
    let mut published = names(&first.stop().await.out);
    second.publishes(100).await;
    let expected = events(changes.end().await);
    published.extend(names(&caught_up(second, &expected, &published).await));
    assert_eq!(repeated(&expected, &published), [""; 0]);
}

/// The position of a numbered change, as the Go tool's value counts: an index, or a time.
fn position(body: &Value) -> u64 {
    let time = &body["TaskEvent"]["Time"];
    let position = if time.is_null() { &body["ModifyIndex"] } else { time };
    position.as_u64().unwrap()
}

#[tokio::test]
async fn a_standby_takes_over_within_25_seconds_of_a_crash_and_repeats_only_what_was_not_saved() {
    let world = World::new().await;
    let changes = Changes::of(&world.nomad);
    // Both kinds of stream at once, since each takes its time.
    let mut pairs = Vec::new();
    for stream in ["nodes", "allocations"] {
        let first = world.stream(stream).set("NOMAD_FIREHOSE_CHECKPOINT", "1s").start();
        first.publishes(1).await;
        let second = standby(&world, stream).await;
        let value = format!("nomad-firehose/{stream}.value");
        wait("a checkpoint", async || world.consul.entry(&value).await).await;
        pairs.push((stream, value, first, second));
    }
    let mut crashed = Vec::new();
    for (stream, value, mut first, second) in pairs {
        first.publishes(first.out.count() + 1).await;
        first.kill();
        let at = Instant::now();
        let saved: u64 = world.consul.value(&value).await.unwrap().parse().unwrap();
        crashed.push((stream, at, saved, first.out.names(), second));
    }
    for (.., second) in &crashed {
        second.publishes(1).await;
    }
    let count = changes.end().await;
    for (stream, at, saved, published, second) in crashed {
        let took = second.out.began().unwrap() - at;
        let expected = if stream == "nodes" { nodes(count) } else { events(count) };
        let after = caught_up(second, &expected, &published).await;
        for body in bodies(&after) {
            assert!(position(&body) > saved, "{stream}: saved at {saved}, and yet: {body}");
        }
        let again = repeated(&expected, &[published, names(&after)].concat());
        print(&format!(
            "Measured: {stream}, from kill -9 to the first record of the next: {took:?}, and {} \
             of {} records repeated",
            again.len(),
            expected.len()
        ));
        assert!(took < CRASH_LIMIT, "{took:?}");
    }
}
