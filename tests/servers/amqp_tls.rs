//! The sink `amqp` over TLS, to a real RabbitMQ that asks for a certificate.

use nomad_firehose::standin::nomad::{Nomad, Table, Version};

use super::rabbitmq::{EXCHANGE, Node};
use crate::{
    authority::Authority,
    firehose::{Program, Served, wait},
    support::node,
};

/// A broker that is called `broker.test`, the port where it speaks TLS, and the authority that
/// vouches for it and for its clients.
struct Secure {
    authority: Authority,
    broker: Node,
    port: u16,
    nomad_port: Served,
}

impl Secure {
    async fn new() -> Self {
        let authority = Authority::new();
        let (cert, key) = authority.server_files("broker.test");
        let ca = authority.file("authorities/ca.pem");
        let mut broker = Node::start_with(|port| {
            format!(
                "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {ca}\n\
                 ssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n\
                 ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
            )
        })
        .await;
        broker.declare_exchange().await;
        broker.bind("events", "events").await;
        let nomad = Nomad::new(Version::V2_0);
        nomad.upsert(Table::Nodes, node("a", "ready"));
        let nomad_port = Served::new(nomad.router()).await;
        let port = broker.other_port();
        Self { authority, broker, port, nomad_port }
    }

    fn stream(&self) -> Program {
        Program::stream("nodes")
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("SINK_TYPE", "amqp")
            .set("SINK_AMQP_CONNECTION", format!("amqps://127.0.0.1:{}", self.port))
            .set("SINK_AMQP_TLS_SERVER_NAME", "broker.test")
            .set("SINK_AMQP_EXCHANGE", EXCHANGE)
            .set("SINK_AMQP_ROUTING_KEY", "events")
    }

    fn known(&self, program: Program) -> Program {
        program
            .set("SINK_AMQP_CLIENT_CERT", self.authority.file("cert.pem"))
            .set("SINK_AMQP_CLIENT_KEY", self.authority.file("key.pem"))
    }
}

#[tokio::test]
async fn a_broker_and_a_client_that_the_same_authority_vouches_for_talk_to_each_other() {
    let mut secure = Secure::new().await;
    let ca = secure.authority.file("authorities/ca.pem");
    let running = secure.known(secure.stream()).set("SINK_AMQP_CACERT", &ca).start();
    wait("the message comes", async || {
        (!secure.broker.take("events").await.is_empty()).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn without_the_right_certificates_or_the_right_name_nothing_is_published() {
    let mut secure = Secure::new().await;
    let ca = secure.authority.file("authorities/ca.pem");
    let other = Authority::new();
    let no_client = secure.stream().set("SINK_AMQP_CACERT", &ca).start();
    let wrong_ca = other.file("authorities/ca.pem");
    let wrong_ca = secure.known(secure.stream()).set("SINK_AMQP_CACERT", wrong_ca).start();
    let wrong_name = secure
        .known(secure.stream())
        .set("SINK_AMQP_CACERT", &ca)
        .set("SINK_AMQP_TLS_SERVER_NAME", "other.test")
        .start();
    // No authority of the system vouches for it either.
    let system = secure.known(secure.stream()).start();
    for process in [no_client, wrong_ca, wrong_name, system] {
        process.logs("cannot connect to RabbitMQ").await;
        process.stop().await;
    }
    assert!(secure.broker.take("events").await.is_empty());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_problems_before_anything_connects() {
    let program = Program::stream("nodes")
        .set("SINK_TYPE", "amqp")
        .set("SINK_AMQP_CONNECTION", "amqps://u:planted@broker")
        .set("SINK_AMQP_EXCHANGE", EXCHANGE)
        .set("SINK_AMQP_ROUTING_KEY", "{pod}")
        .set("SINK_AMQP_WORKERS", "0")
        .set("SINK_AMQP_UNROUTABLE", "maybe")
        .set("SINK_AMQP_CACERT", "/nowhere.pem")
        .set("SINK_AMQP_CLIENT_CERT", "/nowhere.pem");
    let finished = program.run().await;
    assert_eq!(finished.code, Some(crate::firehose::CONFIGURATION));
    for name in [
        "SINK_AMQP_ROUTING_KEY",
        "SINK_AMQP_WORKERS",
        "SINK_AMQP_UNROUTABLE",
        "SINK_AMQP_CACERT",
        "SINK_AMQP_CLIENT_KEY",
    ] {
        assert!(finished.log.contains(&format!("{name}: ")), "{name}: {}", finished.log);
    }
    assert!(!finished.log.contains("planted"), "{}", finished.log);
}
