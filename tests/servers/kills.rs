//! Kills under load: ten of the broker, and ten of the firehose, with real servers on both sides.

use std::collections::{HashMap, HashSet};

use nomad_firehose::standin::nomad::Table;
use reqwest::Method;
use serde_json::Value;

use super::{
    World, print,
    rabbitmq::{EXCHANGE, Message, Node},
};
use crate::{
    firehose::{Process, Program, wait},
    support::evaluation,
};

const KILLS: usize = 10;
/// Changes that are made before each kill.
const LOAD: usize = 3_000;
/// So many of them have come when the kill comes: it is in the middle of the others.
const COME: usize = 300;
const QUEUE: &str = "events";
const LOCK: &str = "nomad-firehose/evaluations.lock";
const VALUE: &str = "nomad-firehose/evaluations.value";

async fn broker() -> Node {
    let mut broker = Node::start().await;
    broker.declare_exchange().await;
    broker.bind(QUEUE, "evaluations.#").await;
    broker
}

fn stream(world: &World, broker: &Node) -> Program {
    world
        .stream("evaluations")
        .set("SINK_TYPE", "amqp")
        .set("SINK_AMQP_CONNECTION", format!("amqp://127.0.0.1:{}", broker.port()))
        .set("SINK_AMQP_EXCHANGE", EXCHANGE)
        .set("SINK_AMQP_ROUTING_KEY", "{stream}.{namespace}")
}

/// Makes the changes of a round, each with a name of its own.
fn load(world: &World, round: usize) {
    for number in 0..LOAD {
        let name = format!("{round:02}{number:04}");
        world.nomad.upsert(Table::Evaluations, evaluation(&name, "default", "pending"));
    }
}

/// Waits until so many messages are in the queue; how many there are then.
async fn come(broker: &mut Node, count: usize) -> usize {
    wait(&format!("{count} messages come"), async || {
        let there = broker.count(QUEUE).await;
        (there >= count).then_some(there)
    })
    .await
}

/// The last of the messages are in the queue.
async fn everything(broker: &mut Node, ids: &mut HashMap<String, Value>, count: usize) -> usize {
    let mut repeated = 0;
    wait(&format!("{count} different messages"), async || {
        for Message { id, body, .. } in broker.take(QUEUE).await {
            let body: Value = serde_json::from_slice(&body).unwrap();
            if let Some(before) = ids.insert(id, body.clone()) {
                assert_eq!(before, body, "one id, two payloads");
                repeated += 1;
            }
        }
        (ids.len() >= count).then_some(())
    })
    .await;
    repeated
}

fn nothing_is_lost(ids: &HashMap<String, Value>, rounds: usize) {
    let names: HashSet<&str> = ids.values().map(|it| it["ID"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), names.len()), (rounds * LOAD, rounds * LOAD));
}

/// How many records a process says at its end that were confirmed.
fn confirmed(log: &str) -> usize {
    let (_, after) = log.rsplit_once("records_delivered=").unwrap();
    after.split(|it: char| !it.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_crashes_of_the_broker_under_load_lose_nothing_and_repeat_only_what_was_unconfirmed() {
    let (world, mut broker) = (World::new().await, broker().await);
    let running = stream(&world, &broker).start();
    let mut before = 0;
    let mut seen = 0;
    for round in 0..KILLS {
        load(&world, round);
        seen += come(&mut broker, before + COME).await - before;
        broker.kill();
        assert!(broker.resume().await, "RabbitMQ does not start again");
        before = come(&mut broker, (round + 1) * LOAD).await;
    }
    let mut ids = HashMap::new();
    let repeated = everything(&mut broker, &mut ids, KILLS * LOAD).await;
    nothing_is_lost(&ids, KILLS);
    let log = running.stop().await.log;
    print(&format!(
        "Measured: {KILLS} kills of RabbitMQ, after {seen} of {} messages: 0 lost, {repeated} repeated",
        KILLS * LOAD
    ));
    // Each record was confirmed once: what came twice was not confirmed the first time.
    assert_eq!(confirmed(&log), KILLS * LOAD, "{log}");
    assert!(broker.take(QUEUE).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_crashes_of_the_firehose_under_load_lose_nothing_and_repeat_no_more_than_was_unsaved() {
    let (world, mut broker) = (World::new().await, broker().await);
    let start = |broker: &Node| -> Process {
        stream(&world, broker).set("NOMAD_FIREHOSE_LOCK_DELAY", "0s").start()
    };
    let mut running = start(&broker);
    let mut before = 0;
    let mut unsaved = 0;
    for round in 0..KILLS {
        load(&world, round);
        come(&mut broker, before + COME).await;
        let session = world.consul.holder(LOCK).await;
        running.kill();
        // What is on its way to the broker still comes, and nothing after it.
        let mut last = 0;
        let came = wait("nothing more comes", async || {
            let there = broker.count(QUEUE).await;
            let still = there == last;
            last = there;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            still.then_some(there)
        })
        .await;
        unsaved += came - before;
        // Consul would end the session by itself, 20 s later.
        let path = format!("/v1/session/destroy/{session}");
        world.consul.ask(Method::PUT, &path, "").await.unwrap();
        running = start(&broker);
        // All of the round is saved before the next: whatever comes after it is unsaved.
        world.saved(VALUE, world.nomad.index()).await;
        before = broker.count(QUEUE).await;
    }
    let mut ids = HashMap::new();
    let repeated = everything(&mut broker, &mut ids, KILLS * LOAD).await;
    nothing_is_lost(&ids, KILLS);
    running.stop().await;
    print(&format!(
        "Measured: {KILLS} kills of the firehose among {} messages: 0 lost, {repeated} repeated, \
         of {unsaved} that had come unsaved",
        KILLS * LOAD
    ));
    assert!(repeated <= unsaved, "{repeated} repeated, of {unsaved} unsaved");
    assert!(repeated > 0, "no kill was in the middle of anything");
}
