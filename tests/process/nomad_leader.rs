//! Processes that Nomad's own variables elect, without a Consul anywhere.

use std::time::Duration;

use nomad_firehose::standin::nomad::Nomad;
use tokio::time::Instant;

use super::{
    World,
    firehose::{change, events, names, nodes, repeated, wait, when},
};

/// Twice the TTL and the delay, and some time for a machine that is busy.
const CRASH_LIMIT: Duration = Duration::from_secs(30);

fn is_saved(nomad: &Nomad, stream: &str) -> Option<()> {
    let cursor = nomad.variable("default", &format!("nomad-firehose/{stream}/cursor"))?;
    cursor.items.contains_key("head").then_some(())
}

fn is_free(nomad: &Nomad, stream: &str) -> bool {
    let lock = nomad.variable("default", &format!("nomad-firehose/{stream}/lock")).unwrap();
    lock.lock.is_none()
}

#[tokio::test]
async fn one_that_is_killed_is_followed_by_another_and_nothing_is_lost() {
    let world = World::with(20).await;
    let mut first = world.by_nomad("nodes").start();
    first.publishes(20).await;
    let second = world.by_nomad("nodes").start();
    second.logs("standing by").await;
    wait("a checkpoint", async || is_saved(&world.nomad, "nodes")).await;
    (20..40).for_each(|it| change(&world.nomad, it));
    first.publishes(40).await;
    first.kill();
    let killed = Instant::now();
    change(&world.nomad, 40);
    when("the second takes over", || second.out.names().contains(&"n00040".into())).await;
    assert!(killed.elapsed() < CRASH_LIMIT, "{:?}", killed.elapsed());
    let published = [first.out.names(), second.out.names()].concat();
    // What was saved is not among what comes twice.
    let again = repeated(&nodes(41), &published);
    assert!(again.len() <= 20, "{again:?}");
    second.stop().await;
    assert!(is_free(&world.nomad, "nodes"));
}

#[tokio::test]
async fn a_clean_stop_hands_over_within_a_second_and_nothing_is_repeated() {
    for (stream, expected) in [("nodes", nodes(11)), ("allocations", events(11))] {
        let world = World::with(10).await;
        let first = world.by_nomad(stream).start();
        first.publishes(10).await;
        let next = world.by_nomad(stream).start();
        next.logs("standing by").await;
        let asked = Instant::now();
        let mut published = names(&first.stop().await.out);
        change(&world.nomad, 10);
        let end = expected.last().unwrap();
        when("the last change", || next.out.names().contains(end)).await;
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        published.extend(names(&next.stop().await.out));
        assert_eq!(repeated(&expected, &published), [""; 0]);
        assert!(is_free(&world.nomad, stream));
    }
}
