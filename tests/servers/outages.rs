//! A Consul that goes away and comes back, and a publisher that is suspended meanwhile.

use std::time::Duration;

use reqwest::Method;
use tokio::time::sleep;

use super::{
    World,
    firehose::{Changes, Process, change, names, nodes, published_all, repeated, wait, when},
};

const LOCK: &str = "nomad-firehose/nodes.lock";
const VALUE: &str = "nomad-firehose/nodes.value";
/// Longer than a change takes to be published, while there is somebody to publish it.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

async fn publishes_to(process: &Process, last: &str) {
    when("the last change is published", || process.out.names().iter().any(|it| it == last)).await;
}

/// Ends the changes, and makes sure that the process has published every one of them.
async fn nothing_is_lost(changes: Changes, process: Process) -> usize {
    let expected = nodes(changes.end().await);
    when("all changes are published", || published_all(&expected, &[], &process)).await;
    let finished = process.stop().await;
    repeated(&expected, &names(&finished.out)).len()
}

#[tokio::test]
async fn a_holder_whose_session_is_destroyed_competes_again_without_exiting_or_losing_anything() {
    let world = World::new().await;
    let changes = Changes::of(&world.nomad);
    let running = world.stream("nodes").start();
    running.publishes(20).await;
    let session = world.consul.holder(LOCK).await;
    world.consul.ask(Method::PUT, &format!("/v1/session/destroy/{session}"), "").await.unwrap();
    running.logs("competing again").await;
    running.logs_times(2, "elected").await;
    assert_ne!(world.consul.holder(LOCK).await, session);
    running.publishes(running.out.count() + 20).await;
    nothing_is_lost(changes, running).await;
}

#[tokio::test]
async fn a_holder_that_is_deposed_publishes_nothing_while_another_has_the_lock() {
    let world = World::new().await;
    change(&world.nomad, 0);
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    wait("a checkpoint", async || world.consul.entry(VALUE).await).await;
    let session = world.consul.holder(LOCK).await;
    let other = super::go_lock::Holder::new(&world.consul, "nomad-firehose-nodes").await;
    world.consul.ask(Method::PUT, &format!("/v1/session/destroy/{session}"), "").await.unwrap();
    // The firehose competes for it as well, so it may have to be taken from it more than once.
    while !other.acquires(LOCK).await {
        if let Some(session) = world.consul.entry(LOCK).await.unwrap().session {
            let path = format!("/v1/session/destroy/{session}");
            world.consul.ask(Method::PUT, &path, "").await.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
    }
    running.logs("standing by").await;
    change(&world.nomad, 1);
    sleep(LONG_ENOUGH).await;
    assert_eq!(running.out.names(), nodes(1));
    assert!(other.releases(LOCK).await);
    publishes_to(&running, "n00001").await;
    assert_eq!(names(&running.stop().await.out), nodes(2));
}

#[tokio::test]
async fn a_restart_of_consul_loses_nothing_and_ends_no_process() {
    let mut world = World::new().await;
    let changes = Changes::of(&world.nomad);
    let mut copies = [world.stream("nodes").start(), world.stream("nodes").start()];
    let published = |copies: &[Process; 2]| [copies[0].out.names(), copies[1].out.names()].concat();
    when("one publishes", || published(&copies).len() >= 20).await;
    world.consul.terminate().await;
    assert!(world.consul.resume().await, "Consul does not start again");
    let before = published(&copies).len();
    when("one goes on", || published(&copies).len() >= before + 100).await;
    assert!(copies.iter_mut().all(Process::is_running));
    let expected = nodes(changes.end().await);
    let [one, other] = &copies;
    when("all changes are published", || published_all(&expected, &one.out.names(), other)).await;
    repeated(&expected, &published(&copies));
    for copy in copies {
        copy.stop().await;
    }
}

#[tokio::test]
async fn a_crash_of_consul_beyond_the_ttl_stops_publishing_until_it_is_back() {
    let mut world = World::new().await;
    let changes = Changes::of(&world.nomad);
    let mut running = world.stream("nodes").start();
    running.publishes(20).await;
    world.consul.kill();
    running.logs("competing again").await;
    let published = running.out.count();
    sleep(LONG_ENOUGH).await;
    assert_eq!(running.out.count(), published, "it publishes without a lock");
    assert!(running.is_running());
    assert!(world.consul.resume().await, "Consul does not start again");
    running.publishes(published + 100).await;
    nothing_is_lost(changes, running).await;
}

#[tokio::test]
async fn a_publisher_that_was_suspended_beyond_its_ttl_publishes_nothing_until_it_is_elected_again()
{
    let world = World::new().await;
    change(&world.nomad, 0);
    let suspended = world.stream("nodes").start();
    suspended.publishes(1).await;
    let standby = world.stream("nodes").start();
    standby.logs("standing by").await;
    suspended.signal("STOP");
    change(&world.nomad, 1);
    publishes_to(&standby, "n00001").await;
    suspended.signal("CONT");
    suspended.logs("standing by").await;
    change(&world.nomad, 2);
    publishes_to(&standby, "n00002").await;
    assert_eq!(suspended.out.names(), nodes(1), "it publishes in another's term");
    let taken_over = names(&standby.stop().await.out);
    change(&world.nomad, 3);
    publishes_to(&suspended, "n00003").await;
    let published = [names(&suspended.stop().await.out), taken_over].concat();
    repeated(&nodes(4), &published);
}
