//! The suite against real servers: real processes, elected by a real Consul, which publish what a
//! stand-in for Nomad holds to receivers of others. `tools/test` runs it, and sets the paths of the
//! servers: `CONSUL_BIN`, `RABBITMQ_BIN` and so on. It has every sink.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a test binary, which shares helpers with another"
)]

#[path = "servers/acls.rs"]
mod acls;
#[path = "servers/amqp.rs"]
mod amqp;
#[path = "servers/amqp_tls.rs"]
mod amqp_tls;
#[path = "connecting/servers.rs"]
mod authority;
#[path = "servers/checkpoints.rs"]
mod checkpoints;
#[path = "servers/consul.rs"]
mod consul;
#[path = "servers/deploying.rs"]
mod deploying;
#[path = "servers/documentation.rs"]
mod documentation;
#[path = "contract/emit.rs"]
mod emit;
#[path = "servers/eventbridge.rs"]
mod eventbridge;
#[path = "servers/faults.rs"]
mod faults;
#[path = "support/process.rs"]
mod firehose;
#[path = "servers/go_lock.rs"]
mod go_lock;
#[path = "servers/handover.rs"]
mod handover;
#[path = "servers/kafka.rs"]
mod kafka;
#[path = "servers/kills.rs"]
mod kills;
#[path = "servers/kinesis.rs"]
mod kinesis;
#[path = "servers/leaders.rs"]
mod leaders;
#[path = "servers/moto.rs"]
mod moto;
#[path = "servers/nats.rs"]
mod nats;
#[path = "servers/nats_access.rs"]
mod nats_access;
#[path = "servers/nats_server.rs"]
mod nats_server;
#[path = "servers/outages.rs"]
mod outages;
#[path = "servers/rabbitmq.rs"]
mod rabbitmq;
#[path = "servers/receivers.rs"]
mod receivers;
#[path = "servers/recorded.rs"]
mod recorded;
#[path = "servers/redis.rs"]
mod redis;
#[path = "servers/redis_nodes.rs"]
mod redis_nodes;
#[path = "servers/redis_server.rs"]
mod redis_server;
#[path = "servers/sinks.rs"]
mod sinks;
#[path = "servers/sqs.rs"]
mod sqs;
#[path = "servers/streams.rs"]
mod streams;
mod support;
#[path = "servers/syslog.rs"]
mod syslog;
#[path = "servers/syslog_own.rs"]
mod syslog_own;

use std::io::Write;

use nomad_firehose::standin::nomad::Nomad;

use self::{
    consul::Agent,
    firehose::{Program, Served},
    support::Version,
};

/// A real Consul, and a Nomad that a test writes to.
struct World {
    consul: Agent,
    nomad: Nomad,
    nomad_port: Served,
}

impl World {
    async fn new() -> Self {
        Self::with(Agent::start().await).await
    }

    async fn with(consul: Agent) -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        Self { consul, nomad, nomad_port }
    }

    /// The binary of a stream.
    fn stream(&self, name: &str) -> Program {
        Program::stream(name)
            .set("SINK_TYPE", "stdout")
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("CONSUL_HTTP_ADDR", self.consul.address())
    }

    /// Waits until a key of Consul is this number.
    ///
    /// A record is out before the position has passed all that Nomad may have said at its index:
    /// a process that is asked to stop in between saves the record beside an earlier position.
    async fn saved(&self, key: &str, number: u64) {
        let number = number.to_string();
        firehose::wait(&format!("{key} is {number}"), async || {
            (self.consul.value(key).await.as_ref() == Some(&number)).then_some(())
        })
        .await;
    }
}

/// Prints past the test harness, which keeps to itself what a test that passes has to say.
fn print(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
