//! The copies of one stream, each with proxies of its own before Consul and RabbitMQ.

use std::time::Duration;

use reqwest::Method;

use super::{issuer::Kind, leases::Leases, wire::Wire};
use crate::{
    consul::Agent,
    firehose::{Process, Program, wait},
    rabbitmq::{EXCHANGE, Node},
    sinks::proxy::Proxy,
};

pub const COUNT: usize = 3;

/// Where copies find what they need.
pub struct Place {
    pub kind: Kind,
    pub nomad: String,
    pub consul: u16,
    pub broker: u16,
    /// The longest time between two lists.
    pub resync: &'static str,
    pub wire: Wire,
    pub leases: Leases,
}

/// A process that runs. Each new one has a number of its own.
pub struct Copy {
    pub number: usize,
    pub process: Process,
    pub consul: Proxy,
    _broker: Proxy,
}

#[derive(Default)]
pub struct Copies {
    pub running: Vec<Copy>,
    started: usize,
    /// What those logged that have ended.
    pub log: String,
}

impl Place {
    pub fn new(
        kind: Kind,
        nomad: String,
        consul: &Agent,
        broker: &Node,
        resync: &'static str,
    ) -> Self {
        let address = consul.address();
        let (_, port) = address.rsplit_once(':').unwrap();
        Self {
            kind,
            nomad,
            consul: port.parse().unwrap(),
            broker: broker.port(),
            resync,
            wire: Wire::default(),
            leases: Leases::default(),
        }
    }

    pub fn key(&self, suffix: &str) -> String {
        format!("nomad-firehose/{}.{suffix}", self.kind.stream())
    }
}

impl Copies {
    /// Starts one more.
    pub async fn start(&mut self, place: &Place) {
        let number = self.started;
        self.started += 1;
        let (leases, wire) = (place.leases.clone(), place.wire.clone());
        let consul = Proxy::heard(place.consul, move || leases.connection(number)).await;
        let broker = Proxy::heard(place.broker, move || wire.connection(number)).await;
        let process = Program::stream(place.kind.stream())
            .set("NOMAD_ADDR", &place.nomad)
            .set("CONSUL_HTTP_ADDR", format!("127.0.0.1:{}", consul.port()))
            .set("SINK_TYPE", "amqp")
            .set("SINK_AMQP_CONNECTION", format!("amqp://127.0.0.1:{}", broker.port()))
            .set("SINK_AMQP_EXCHANGE", EXCHANGE)
            .set("SINK_AMQP_ROUTING_KEY", "{stream}.{namespace}")
            // Positions are saved often, so that there are many to look at.
            .set("NOMAD_FIREHOSE_CHECKPOINT", "1s")
            .set("NOMAD_FIREHOSE_RESYNC", place.resync)
            .start();
        self.running.push(Copy { number, process, consul, _broker: broker });
    }

    pub fn place_of(&self, number: usize) -> Option<usize> {
        self.running.iter().position(|it| it.number == number)
    }

    /// Takes one out, as whoever kills or stops it.
    pub fn remove(&mut self, at: usize) -> Copy {
        self.running.remove(at)
    }

    /// Keeps what it said after its end.
    pub fn keep_log(&mut self, log: &str) {
        self.log.push_str(log);
    }

    /// What all of them logged.
    pub fn logs(&self) -> String {
        let running = self.running.iter().map(|it| it.process.log.text());
        running.fold(self.log.clone(), |all, it| all + &it)
    }

    /// None has ended by itself.
    pub fn all_run(&mut self) {
        for Copy { number, process, .. } in &mut self.running {
            assert!(process.is_running(), "copy {number} has ended by itself");
        }
    }

    /// Asks all of them to stop.
    pub async fn stop(&mut self) {
        while let Some(copy) = self.running.pop() {
            let log = copy.process.stop().await.log;
            self.log.push_str(&log);
        }
    }
}

/// How many sessions there are.
pub async fn sessions(consul: &Agent) -> Option<usize> {
    let all = consul.ask(Method::GET, "/v1/session/list", "").await?;
    Some(all.as_array()?.len())
}

/// Every copy has one session, and nobody else.
pub async fn each_has_a_session(consul: &Agent, copies: usize) {
    wait(&format!("{copies} copies have {copies} sessions"), async || {
        (sessions(consul).await? == copies).then_some(())
    })
    .await;
}

/// A broker with a durable queue for a stream.
pub async fn broker(kind: Kind) -> Node {
    let mut broker = Node::start().await;
    broker.declare_exchange().await;
    broker.bind(QUEUE, &format!("{}.#", kind.stream())).await;
    broker
}

pub const QUEUE: &str = "events";
/// What a proxy does is done for at least so long.
pub const AFTER: Duration = Duration::from_secs(1);
