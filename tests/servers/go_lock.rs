//! Beside the Go tool: its client's lock protocol, request by request, and its position.

use std::time::Duration;

use nomad_firehose::api::LOCK_FLAGS;
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use super::{
    World,
    consul::Agent,
    firehose::{change, names, nodes, wait},
};

const LOCK: &str = "nomad-firehose/nodes.lock";
const VALUE: &str = "nomad-firehose/nodes.value";
/// Longer than an election takes that nothing stands in the way of.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

/// A session as the Go client makes one: no word of checks, so that it gets the default ones.
pub struct Holder<'a> {
    consul: &'a Agent,
    session: String,
}

impl<'a> Holder<'a> {
    pub async fn new(consul: &'a Agent, name: &str) -> Self {
        let body = json!({"Name": name, "TTL": "15s"}).to_string();
        // Refused until the server has found itself to be healthy.
        let session = wait("a session with the default checks", async || {
            let created = consul.ask(Method::PUT, "/v1/session/create", &body).await?;
            Some(created["ID"].as_str()?.to_owned())
        })
        .await;
        Self { consul, session }
    }

    pub async fn acquires(&self, key: &str) -> bool {
        self.lock(key, "acquire").await
    }

    pub async fn releases(&self, key: &str) -> bool {
        self.lock(key, "release").await
    }

    async fn lock(&self, key: &str, what: &str) -> bool {
        // The number is written out: it is the Go client's, whatever our constant says.
        let path = format!("/v1/kv/{key}?{what}={}&flags=3304740253564472344", self.session);
        self.consul.ask(Method::PUT, &path, "").await.unwrap().as_bool().unwrap()
    }
}

#[tokio::test]
async fn a_lock_that_the_go_client_holds_keeps_us_out_until_it_is_released() {
    let world = World::new().await;
    change(&world.nomad, 0);
    let other = Holder::new(&world.consul, "nomad-firehose-nodes").await;
    assert!(other.acquires(LOCK).await);
    let running = world.stream("nodes").start();
    running.logs("standing by").await;
    sleep(LONG_ENOUGH).await;
    assert_eq!(running.out.count(), 0);
    assert_eq!(world.consul.holder(LOCK).await, other.session);
    assert!(other.releases(LOCK).await);
    running.publishes(1).await;
    running.stop().await;
    assert!(other.acquires(LOCK).await, "the lock is not free after a clean stop");
}

#[tokio::test]
async fn a_lock_that_we_hold_keeps_the_go_client_out_and_looks_to_it_like_its_own() {
    let world = World::new().await;
    change(&world.nomad, 0);
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    let other = Holder::new(&world.consul, "nomad-firehose-nodes").await;
    assert!(!other.acquires(LOCK).await, "both hold the lock");
    let entry = world.consul.entry(LOCK).await.unwrap();
    assert_eq!(
        (entry.flags, entry.flags, entry.value),
        (LOCK_FLAGS, 3_304_740_253_564_472_344, vec![])
    );
    let path = format!("/v1/session/info/{}", entry.session.unwrap());
    let session = world.consul.ask(Method::GET, &path, "").await.unwrap()[0].take();
    assert_eq!(session["Name"], "nomad-firehose-nodes");
    assert_eq!(session["Behavior"], "release");
    assert_eq!(session["TTL"], "10000ms");
    let checks = [&session["NodeChecks"], &session["ServiceChecks"]];
    assert!(checks.iter().all(|it| it.as_array().is_none_or(Vec::is_empty)), "{session}");
    running.stop().await;
}

#[tokio::test]
async fn a_key_that_is_not_a_lock_is_an_error_in_the_log_and_is_left_alone() {
    let world = World::new().await;
    change(&world.nomad, 0);
    world.consul.put(LOCK, "a note to myself").await;
    let running = world.stream("nodes").start();
    running.logs("is not a lock of this tool").await;
    let log = running.log.text();
    let error = log.lines().find(|it| it.contains("is not a lock of this tool")).unwrap();
    assert!(error.contains("ERROR") && error.contains(LOCK), "{error}");
    assert!(error.contains("NOMAD_FIREHOSE_CONSUL_PREFIX"), "{error}");
    sleep(LONG_ENOUGH).await;
    assert_eq!(running.out.count(), 0);
    assert_eq!(world.consul.value(LOCK).await.unwrap(), "a note to myself");
    running.stop().await;
}

#[tokio::test]
async fn the_go_tools_position_is_taken_up_and_ours_is_an_integer_that_it_can_take_up() {
    let world = World::new().await;
    for number in 0..3 {
        change(&world.nomad, number);
    }
    // Each change moves Nomad's index by two; the third node is the first after this index.
    let index = world.nomad.index() - 2;
    world.consul.put(VALUE, &index.to_string()).await;
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    assert!(running.log.text().contains("the Go tool"), "{}", running.log.text());
    world.saved(VALUE, world.nomad.index() - 1).await;
    assert_eq!(names(&running.stop().await.out), nodes(3)[2..]);

    // The Go tool runs for one change, and writes its position as it does: unconditionally.
    change(&world.nomad, 3);
    world.consul.put(VALUE, &(world.nomad.index() - 1).to_string()).await;
    change(&world.nomad, 4);
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    assert_eq!(names(&running.stop().await.out), nodes(5)[4..]);
}

#[tokio::test]
async fn task_events_later_than_the_go_tools_time_are_published() {
    let world = World::new().await;
    for number in 0..3 {
        change(&world.nomad, number);
    }
    let value = "nomad-firehose/allocations.value";
    world.consul.put(value, "2001").await;
    let running = world.stream("allocations").start();
    running.publishes(3).await;
    world.saved(value, 3002).await;
    let mut published = names(&running.stop().await.out);
    published.sort();
    assert_eq!(published, ["2002", "3001", "3002"]);
}
