//! The sink `nats` against a real NATS with JetStream.

use std::time::Duration;

use async_nats::jetstream::stream;
use futures::StreamExt;
use nomad_firehose::standin::nomad::{Nomad, Table, Version};
use serde_json::Value;

use super::nats_server::{Message, STREAM, Server, USERS};
use crate::{
    firehose::{Program, Served, wait},
    sinks::{
        contract::{LARGE, Receiver},
        proxy::{Proxy, Way},
    },
    support::{allocation, node},
};

/// The stream remembers ids for so long: a test is to see what was sent again.
const WINDOW: Duration = Duration::from_millis(100);

/// A server with a stream for the jobs that it takes.
pub struct Stored {
    server: Server,
    received: Vec<(String, Value)>,
}

impl Receiver for Stored {
    const UNREACHABLE: &'static str = "cannot connect to NATS";
    const DENIED: &'static str = "did not let us in";

    async fn start() -> Self {
        let server = Server::start().await;
        let mut stored = Self { server, received: Vec::new() };
        stored.take_full(false).await;
        stored
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        program
            .set("SINK_TYPE", "nats")
            .set("SINK_NATS_URL", format!("nats://firehose:let%20me%20in@127.0.0.1:{port}"))
            .set("SINK_NATS_SUBJECT", "events.{stream}.{job}")
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        let address = format!("nats://firehose:planted@127.0.0.1:{port}");
        self.configure(program, port).set("SINK_NATS_URL", address)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        let more = self.server.take().await;
        let more = more.into_iter().map(|it| (it.header("Nats-Msg-Id").to_owned(), it.body));
        self.received.extend(more);
        self.received.clone()
    }

    async fn take_full(&mut self, takes: bool) {
        let mut subjects = vec!["events.allocations.web".to_owned()];
        subjects.extend(takes.then(|| "events.allocations.full".to_owned()));
        let config = stream::Config {
            subjects,
            duplicate_window: WINDOW,
            max_message_size: LARGE as i32,
            ..Default::default()
        };
        self.server.stream(config).await;
    }

    async fn crash(&mut self) {
        self.server.kill();
    }

    async fn come_back(&mut self) {
        self.server.resume().await;
    }
}

// A stream refuses nothing but what is too large.
crate::sink_contract!(Stored: of the common ones,
    only_what_failed_is_sent_again_and_holds_up_nobody_else
);

/// A Nomad and a server, and how to publish from the one to the other.
pub struct World {
    pub nomad: Nomad,
    nomad_port: Served,
    pub server: Server,
}

impl World {
    pub async fn with(server: Server) -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        Self { nomad, nomad_port, server }
    }

    /// A server with a stream that takes everything.
    pub async fn new() -> Self {
        let mut server = Server::start().await;
        server.stream_of("events").await;
        Self::with(server).await
    }

    pub fn program(&self, name: &str, address: &str) -> Program {
        Program::stream(name)
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("SINK_TYPE", "nats")
            .set("SINK_NATS_URL", address)
            .set("SINK_NATS_SUBJECT", "events")
    }

    pub fn stream(&self, name: &str) -> Program {
        self.program(name, &self.server.address())
    }

    pub fn nodes(&self, names: &[&str]) {
        names.iter().for_each(|it| {
            self.nomad.upsert(Table::Nodes, node(it, "ready"));
        });
    }

    pub fn event(&self, name: &str, job: &str) {
        let mut allocation = allocation(name, &[1]);
        allocation.insert("JobID".into(), job.into());
        self.nomad.upsert(Table::Allocations, allocation);
    }
}

pub fn names(messages: &[Message]) -> Vec<String> {
    let mut names: Vec<String> = messages.iter().map(Message::name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_message_says_what_it_is() {
    let mut world = World::new().await;
    let time = 1_795_447_386_339_470_430;
    world.nomad.upsert(Table::Allocations, allocation("a", &[time]));
    let running = world.stream("allocations").set("SINK_NATS_STREAM", STREAM).start();
    let messages = world.server.messages(1).await;
    running.stop().await;
    let message = &messages[0];
    assert!(message.header("ce-id").starts_with("allocations/"));
    assert_eq!(message.header("Nats-Msg-Id"), message.header("ce-id"));
    assert_eq!(message.header("Content-Type"), "application/json");
    assert_eq!(message.header("ce-datacontenttype"), "application/json");
    assert_eq!(message.header("ce-type"), "nomad.allocation.task-event");
    assert_eq!(message.header("ce-time"), "2026-11-23T15:23:06.339470430Z");

    // With other ids: the stream would not take the same once more.
    world.nomad.upsert(Table::Allocations, allocation("b", &[time]));
    let structured = world.stream("allocations").set("NOMAD_FIREHOSE_FORMAT", "cloudevents");
    let running = structured.start();
    let messages = world.server.messages(1).await;
    running.stop().await;
    let message = &messages[0];
    assert_eq!(message.body["id"], message.header("Nats-Msg-Id"));
    assert_eq!(message.header("Content-Type"), "application/cloudevents+json");
    assert_eq!(message.header("ce-id"), "");
}

#[tokio::test]
async fn what_is_sent_again_is_dropped_by_a_stream_that_remembers_it() {
    let mut world = World::new().await;
    let proxy = Proxy::to(world.server.port()).await;
    world.nodes(&["a"]);
    let address =
        world.server.address().replace(&world.server.port().to_string(), &proxy.port().to_string());
    let running = world.program("nodes", &address).start();
    let mut came = world.server.messages(1).await;
    proxy.set(Way::Deaf);
    world.nodes(&["b"]);
    came.extend(world.server.messages(1).await);
    proxy.set(Way::Open);
    running.logs("the receiver is not available").await;
    running.logs("takes records again").await;
    world.nodes(&["c"]);
    came.extend(world.server.messages(1).await);
    running.stop().await;
    came.extend(world.server.take().await);
    assert_eq!(names(&came), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_subject_that_no_stream_has_is_waited_for() {
    let mut world = World::with(Server::start().await).await;
    world.nodes(&["a", "b"]);
    let running = world.stream("nodes").start();
    running.logs("no stream has the subject `events`").await;
    assert!(running.log.text().contains("ERROR"));
    world.server.stream_of("events").await;
    assert_eq!(names(&world.server.messages(2).await), ["a", "b"]);
    running.stop().await;
}

#[tokio::test]
async fn a_full_stream_is_waited_for() {
    let mut world = World::with(Server::start().await).await;
    let config = stream::Config {
        subjects: vec!["events".into()],
        max_messages: 2,
        discard: stream::DiscardPolicy::New,
        ..Default::default()
    };
    world.server.stream(config).await;
    world.nodes(&["a", "b", "c", "d"]);
    let running = world.stream("nodes").start();
    running.logs("make room in the stream").await;
    let mut came = world.server.messages(2).await;
    let stream = world.server.jetstream().await.get_stream(STREAM).await.unwrap();
    stream.purge().await.unwrap();
    came.extend(world.server.messages(2).await);
    running.stop().await;
    assert_eq!(names(&came), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_stream_of_another_name_is_not_published_to() {
    let mut world = World::new().await;
    world.nodes(&["a"]);
    let running = world.stream("nodes").set("SINK_NATS_STREAM", "OTHER").start();
    running.logs("is not that of SINK_NATS_STREAM").await;
    running.stop().await;
    assert!(world.server.take().await.is_empty());
}

#[tokio::test]
async fn what_answers_without_being_a_stream_is_not_taken_for_one() {
    let mut world = World::with(Server::start().await).await;
    let admin = world.server.admin().await;
    let mut requests = admin.subscribe("events").await.unwrap();
    admin.flush().await.unwrap();
    let answering = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            admin.publish(request.reply.unwrap(), "+OK".into()).await.unwrap();
        }
    });
    world.nodes(&["a"]);
    let running = world.stream("nodes").start();
    running.logs("what answered for the subject `events` is not a stream").await;
    answering.abort();
    let _ = answering.await;
    world.server.stream_of("events").await;
    world.server.messages(1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_payload_that_the_server_does_not_take_is_refused_and_the_connection_stays() {
    let server = Server::start_with(&format!("max_payload: {LARGE}\n{USERS}")).await;
    let mut world = World::with(server).await;
    world.server.stream_of("events").await;
    for mode in ["jetstream", "core"] {
        let proxy = Proxy::to(world.server.port()).await;
        let port = world.server.port().to_string();
        let address = world.server.address().replace(&port, &proxy.port().to_string());
        let (large, fine) = (format!("large-{mode}"), format!("fine-{mode}"));
        let mut element = node(&large, "ready");
        element.insert("Filler".into(), "x".repeat(LARGE).into());
        let running = world.program("nodes", &address).set("SINK_NATS_MODE", mode).start();
        running.logs("elected").await;
        world.nomad.upsert(Table::Nodes, element);
        world.nodes(&[&fine]);
        wait("the one that fits comes", async || {
            let came = world.server.take().await;
            came.iter().any(|it| it.name() == fine).then_some(())
        })
        .await;
        running.logs("larger than the server's `max_payload`").await;
        assert_eq!(proxy.accepted(), 1, "{mode}");
        running.stop().await;
    }
}

#[tokio::test]
async fn each_value_of_a_subject_is_one_token_whatever_jobs_are_called() {
    let mut world = World::with(Server::start().await).await;
    world.server.stream_of("nomad.*.*.*.*").await;
    let jobs = ["web", "team.web", "a b > *", "gr\u{fc}n/x", "$JS.API"];
    for (at, job) in jobs.iter().enumerate() {
        world.event(&format!("a{at}"), job);
    }
    let subject = "nomad.{stream}.{namespace}.{job}.{type}";
    // A type has three tokens, and a stream has to have them all.
    let running = world.stream("allocations").set("SINK_NATS_SUBJECT", subject).start();
    running.logs("no stream has the subject `nomad.allocations.default.").await;
    running.stop().await;
    let subject = "nomad.{stream}.{namespace}.{job}.x";
    let running = world.stream("allocations").set("SINK_NATS_SUBJECT", subject).start();
    let mut subjects: Vec<String> =
        world.server.messages(jobs.len()).await.into_iter().map(|it| it.subject).collect();
    running.stop().await;
    subjects.sort();
    let wanted = ["%24JS%2EAPI", "a%20b%20%3E%20%2A", "gr\u{fc}n/x", "team%2Eweb", "web"];
    assert_eq!(subjects, wanted.map(|it| format!("nomad.allocations.default.{it}.x")));
}

#[tokio::test]
async fn the_core_mode_gives_messages_to_whoever_listens() {
    let mut world = World::with(Server::start().await).await;
    let admin = world.server.admin().await;
    let mut listening = admin.subscribe("nomad.>").await.unwrap();
    admin.flush().await.unwrap();
    world.nodes(&["a", "b", "c"]);
    let core = world.stream("nodes").set("SINK_NATS_MODE", "core");
    let core = core.set("SINK_NATS_SUBJECT", "nomad.{stream}");
    let running = core.start();
    let mut came = Vec::new();
    for _ in 0..3 {
        came.push(Message::from(listening.next().await.unwrap()));
    }
    assert_eq!(names(&came), ["a", "b", "c"]);
    assert_eq!(came[0].subject, "nomad.nodes");
    assert_eq!(came[0].header("Nats-Msg-Id"), came[0].header("ce-id"));
    running.stop().await;
}
