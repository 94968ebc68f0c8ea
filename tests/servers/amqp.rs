//! The sink `amqp` against a real RabbitMQ.

use std::{collections::BTreeMap, time::Duration};

use lapin::types::{AMQPValue, ShortString};
use nomad_firehose::standin::nomad::{Nomad, Table, Version};
use serde_json::Value;
use tokio::time::sleep;

use super::rabbitmq::{EXCHANGE, Message, Node};
use crate::{
    firehose::{Process, Program, Served, wait},
    sinks::{
        contract::{LARGE, Receiver},
        proxy::{Proxy, Way},
    },
    support::{allocation, node},
};

/// An exchange with a queue for each job that the contract knows.
pub struct Rabbit {
    node: Node,
    received: Vec<(String, Value)>,
}

impl Receiver for Rabbit {
    const UNREACHABLE: &'static str = "cannot connect to RabbitMQ";
    const DENIED: &'static str = "ACCESS_REFUSED";

    async fn start() -> Self {
        let settings = format!("max_message_size = {LARGE}\n");
        let mut node = Node::start_with(|_| settings.clone()).await;
        node.declare_exchange().await;
        node.bind("web", "allocations.web").await;
        node.bind("full", "allocations.full").await;
        let mut rabbit = Self { node, received: Vec::new() };
        rabbit.take_full(false).await;
        rabbit
    }

    fn port(&self) -> u16 {
        self.node.port()
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        program
            .set("SINK_TYPE", "rabbitmq")
            .set("SINK_AMQP_CONNECTION", format!("amqp://guest:guest@127.0.0.1:{port}/"))
            .set("SINK_AMQP_EXCHANGE", EXCHANGE)
            .set("SINK_AMQP_ROUTING_KEY", "{stream}.{job}")
            .set("SINK_AMQP_WORKERS", "4")
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        let address = format!("amqp://guest:planted@127.0.0.1:{port}/");
        self.configure(program, port).set("SINK_AMQP_CONNECTION", address)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        for queue in ["web", "full"] {
            for message in self.node.take(queue).await {
                self.received.push((message.id, serde_json::from_slice(&message.body).unwrap()));
            }
        }
        self.received.clone()
    }

    async fn take_full(&mut self, takes: bool) {
        let none = r#"{"max-length":0,"overflow":"reject-publish"}"#;
        match takes {
            false => self.node.ctl(&["set_policy", "full", "^full$", none, "--apply-to", "queues"]),
            true => self.node.ctl(&["clear_policy", "full"]),
        }
    }

    async fn crash(&mut self) {
        self.node.kill();
    }

    async fn come_back(&mut self) {
        assert!(self.node.resume().await, "RabbitMQ does not start again");
    }
}

crate::sink_contract!(Rabbit);

/// A Nomad and a broker, and how to publish from the one to the other.
struct World {
    nomad: Nomad,
    nomad_port: Served,
    broker: Node,
}

impl World {
    async fn with(broker: Node) -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        Self { nomad, nomad_port, broker }
    }

    fn stream(&self, name: &str, address: &str) -> Program {
        Program::stream(name)
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("SINK_TYPE", "amqp")
            .set("SINK_AMQP_CONNECTION", address)
            .set("SINK_AMQP_EXCHANGE", EXCHANGE)
            .set("SINK_AMQP_ROUTING_KEY", "events")
    }

    fn address(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.broker.port())
    }

    fn nodes(&self, names: &[&str]) {
        names.iter().for_each(|it| {
            self.nomad.upsert(Table::Nodes, node(it, "ready"));
        });
    }

    /// Waits until so many messages have come to a queue.
    async fn messages(&mut self, queue: &str, count: usize) -> Vec<Message> {
        let mut taken = Vec::new();
        wait(&format!("{count} messages in {queue}"), async || {
            taken.extend(self.broker.take(queue).await);
            (taken.len() >= count).then_some(())
        })
        .await;
        taken
    }
}

async fn bound() -> World {
    let mut broker = Node::start().await;
    broker.declare_exchange().await;
    broker.bind("events", "events").await;
    World::with(broker).await
}

/// The names of the nodes that messages are about.
fn names(messages: &[Message]) -> Vec<String> {
    let name = |it: &Message| {
        let body: Value = serde_json::from_slice(&it.body).unwrap();
        body["Name"].as_str().unwrap().to_owned()
    };
    messages.iter().map(name).collect()
}

#[tokio::test]
async fn a_message_says_what_it_is_and_outlives_the_broker() {
    let mut world = bound().await;
    let time = 1_795_447_386_339_470_430;
    world.nomad.upsert(Table::Allocations, allocation("a", &[time]));
    let running = world.stream("allocations", &world.address()).start();
    let messages = world.messages("events", 1).await;
    running.stop().await;
    let properties = &messages[0].properties;
    let short = |it: &str| Some(ShortString::from(it));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.content_type(), short("application/json"));
    assert_eq!(*properties.kind(), short("nomad.allocation.task-event"));
    assert_eq!(*properties.app_id(), short("nomad-firehose"));
    assert_eq!(*properties.timestamp(), Some(1_795_447_386));
    let headers: BTreeMap<String, String> = properties
        .headers()
        .as_ref()
        .unwrap()
        .inner()
        .iter()
        .map(|(name, value)| {
            let AMQPValue::LongString(value) = value else { panic!("{name}") };
            (name.to_string(), value.to_string())
        })
        .collect();
    assert_eq!(headers["cloudEvents:id"], messages[0].id);
    assert_eq!(headers["cloudEvents:specversion"], "1.0");
    assert_eq!(headers["cloudEvents:time"], "2026-11-23T15:23:06.339470430Z");
    assert!(messages[0].id.starts_with("allocations/"));

    let structured = world.stream("allocations", &world.address());
    let running = structured.set("NOMAD_FIREHOSE_FORMAT", "cloudevents").start();
    let messages = world.messages("events", 1).await;
    running.stop().await;
    let body: Value = serde_json::from_slice(&messages[0].body).unwrap();
    assert_eq!(body["id"], *messages[0].id);
    let properties = &messages[0].properties;
    assert_eq!(*properties.content_type(), short("application/cloudevents+json"));
    assert!(properties.headers().is_none());
}

#[tokio::test]
async fn a_message_that_no_queue_is_bound_for_waits_until_one_is() {
    let mut broker = Node::start().await;
    broker.declare_exchange().await;
    let mut world = World::with(broker).await;
    world.nodes(&["a", "b"]);
    let running = world.stream("nodes", &world.address()).start();
    running.logs("exchange `nomad` has no queue for the routing key `events`").await;
    assert!(running.log.text().contains("ERROR"));
    world.broker.bind("events", "events").await;
    let messages = world.messages("events", 2).await;
    assert_eq!(names(&messages), ["a", "b"]);
    running.stop().await;
}

#[tokio::test]
async fn what_no_queue_is_bound_for_is_dropped_where_that_is_asked_for() {
    let mut broker = Node::start().await;
    broker.declare_exchange().await;
    let mut world = World::with(broker).await;
    world.nodes(&["a"]);
    let running =
        world.stream("nodes", &world.address()).set("SINK_AMQP_UNROUTABLE", "ignore").start();
    wait("it is published", async || {
        world.broker.bind("probe", "nothing").await;
        running.log.text().contains("elected").then_some(())
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    world.broker.bind("events", "events").await;
    world.nodes(&["b"]);
    assert_eq!(names(&world.messages("events", 1).await), ["b"]);
    running.stop().await;
}

#[tokio::test]
async fn an_exchange_that_is_missing_is_waited_for() {
    let mut world = World::with(Node::start().await).await;
    world.nodes(&["a", "b"]);
    let running = world.stream("nodes", &world.address()).start();
    running.logs("no exchange 'nomad'").await;
    world.broker.declare_exchange().await;
    world.broker.bind("events", "events").await;
    assert_eq!(names(&world.messages("events", 2).await), ["a", "b"]);
    running.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_short_of_memory_is_waited_for_and_gets_nothing_twice() {
    let mut world = bound().await;
    world.nodes(&["a"]);
    let running = world.stream("nodes", &world.address()).start();
    world.messages("events", 1).await;
    world.broker.ctl(&["set_vm_memory_high_watermark", "0.00000001"]);
    world.nodes(&["b", "c"]);
    running.logs("short of memory or disk").await;
    world.nodes(&["d"]);
    world.broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    running.logs("RabbitMQ takes messages again").await;
    let messages = world.messages("events", 3).await;
    running.stop().await;
    let more = world.broker.take("events").await;
    assert_eq!(names(&messages), ["b", "c", "d"]);
    assert!(more.is_empty(), "{:?}", names(&more));
}

#[tokio::test]
async fn a_connection_that_goes_silent_is_given_up_and_nothing_is_lost() {
    let mut world = bound().await;
    let proxy = Proxy::to(world.broker.port()).await;
    world.nodes(&["a"]);
    let address = format!("amqp://127.0.0.1:{}?heartbeat=2", proxy.port());
    let running = world.stream("nodes", &address).start();
    world.messages("events", 1).await;
    // What is published comes, and no confirm and no heartbeat comes back.
    proxy.set(Way::Deaf);
    world.nodes(&["b"]);
    running.logs("the receiver is not available").await;
    proxy.set(Way::Open);
    world.nodes(&["c"]);
    let mut came = Vec::new();
    wait("the last one comes", async || {
        came.extend(names(&world.broker.take("events").await));
        came.iter().any(|it| it == "c").then_some(())
    })
    .await;
    running.stop().await;
    assert!(came.iter().filter(|it| *it == "b").count() >= 2, "nothing came twice: {came:?}");
}

#[tokio::test]
async fn the_next_of_several_brokers_is_used_where_the_first_is_away() {
    let mut world = bound().await;
    world.nodes(&["a"]);
    let nobody = super::consul::free_port();
    let port = world.broker.port();
    for address in [
        format!("amqp://127.0.0.1:{nobody},127.0.0.1:{port}/%2f"),
        format!("amqp://127.0.0.1:{nobody},amqp://guest:guest@127.0.0.1:{port}"),
    ] {
        let running = world.stream("nodes", &address).start();
        assert_eq!(names(&world.messages("events", 1).await), ["a"]);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_check_says_whether_the_exchange_is_there_and_publishes_nothing() {
    let mut world = bound().await;
    world.nodes(&["a"]);
    let good = world.stream("nodes", &world.address()).arguments(&["--check"]).run().await;
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.log);
    let bad = world.stream("nodes", &world.address()).set("SINK_AMQP_EXCHANGE", "nowhere");
    let bad = bad.arguments(&["--check"]).run().await;
    assert_eq!(bad.code, Some(1));
    assert!(bad.out.contains("no exchange 'nowhere'"), "{}", bad.out);
    let denied = world.address().replace("amqp://", "amqp://guest:planted-password@");
    let denied = world.stream("nodes", &denied).arguments(&["--check"]).run().await;
    assert_eq!(denied.code, Some(1));
    let row = denied.out.lines().find(|it| it.starts_with("sink ")).unwrap();
    assert!(row.contains("FAILED") && row.contains("ACCESS_REFUSED"), "{row}");
    assert!(!denied.out.contains("planted"), "{}", denied.out);
    assert!(world.broker.take("events").await.is_empty());
}

#[tokio::test]
async fn no_password_and_no_payload_is_in_the_log_whatever_happens() {
    let mut broker = Node::start().await;
    broker.declare_exchange().await;
    let world = World::with(broker).await;
    world.nomad.upsert(Table::Nodes, node("planted-payload", "ready"));
    // The library of the sink logs every message that comes back, payload and all.
    let address = world.address().replace("amqp://", "amqp://guest:guest@");
    let running: Process = world.stream("nodes", &address).set("LOG_LEVEL", "trace").start();
    running.logs("has no queue for the routing key").await;
    let denied = world.address().replace("amqp://", "amqp://guest:planted-password@");
    let other = world.stream("nodes", &denied).set("LOG_LEVEL", "trace").start();
    other.logs("ACCESS_REFUSED").await;
    for process in [running, other] {
        let log = process.stop().await.log;
        assert!(!log.contains("planted"), "{log}");
    }
}
