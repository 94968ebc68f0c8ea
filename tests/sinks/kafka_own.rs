//! What the sink `kafka` has besides: what a message is, each answer of a broker, logins, TLS, sizes,
//! and that nothing is taken for stored without an offset.

use std::{collections::HashSet, sync::Arc};

use futures::future::join_all;
use tokio_rustls::TlsAcceptor;

use super::{
    contract::{LARGE, Receiver},
    kafka::{
        Kafka,
        login::Login,
        script::{IDENTITY, TELEMETRY},
    },
    proxy::{Proxy, Way},
    source::{Source, each_problem_once, id},
};
use crate::{
    connecting::servers::Authority,
    firehose::{CONFIGURATION, FAILED, Process, Program, when},
};

struct World {
    source: Source,
    kafka: Kafka,
}

impl World {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Self {
        Self { source: Source::new().await, kafka: Kafka::new(tls).await }
    }

    fn program(&self) -> Program {
        Kafka::sink(self.source.program("evaluations"), self.kafka.port())
    }

    /// The sink, where TLS is spoken to a broker of this authority.
    fn secure(&self, authority: &Authority) -> Program {
        self.program()
            .set("SINK_KAFKA_CA_CERT_PATH", authority.file("authorities/ca.pem"))
            .set("SINK_KAFKA_TLS_SERVER_NAME", "broker.test")
    }

    /// Waits until so many evaluations came, the first of all.
    async fn all_came(&self, count: usize) {
        let came = || self.kafka.records().into_iter().map(|(_, body)| body["ID"].clone());
        when("every evaluation comes", || came().collect::<HashSet<_>>().len() == count).await;
        assert_eq!(came().collect::<HashSet<_>>(), (0..count).map(id).collect());
    }
}

fn login(mechanism: &'static str, password: &str) -> Login {
    Login { mechanism, user: "me", password: password.into() }
}

#[tokio::test]
async fn a_message_has_the_key_of_its_object_and_says_what_it_is_in_its_headers() {
    let world = World::new().await;
    world.source.evaluations("web", 0..1);
    let running = world.program().start();
    let message = world.kafka.took(1).await.remove(0);
    running.stop().await;
    let header = |name| message.header(name).unwrap();
    assert!(header("ce_id").starts_with("evaluations/") && header("ce_id").contains(&message.key));
    assert_eq!((header("ce_specversion"), header("content-type")), ("1.0", "application/json"));
    assert_eq!(header("ce_type"), "nomad.evaluation.changed");
    assert_eq!(header("ce_nomadnamespace"), "default");
    assert!(!header("ce_source").is_empty() && !header("ce_subject").is_empty());
    assert_eq!(world.kafka.clients(), ["nomad-firehose"]);
    assert_eq!(TELEMETRY.map(|it| world.kafka.asked(it)), [0, 0], "nothing is reported");
}

#[tokio::test]
async fn with_the_envelope_the_body_is_a_cloud_event() {
    let world = World::new().await;
    world.source.evaluations("web", 0..1);
    let running = world.program().set("NOMAD_FIREHOSE_FORMAT", "cloudevents").start();
    let message = world.kafka.took(1).await.remove(0);
    running.stop().await;
    let headers = [("content-type".to_owned(), "application/cloudevents+json".to_owned())];
    assert_eq!(message.headers, headers);
    crate::cloudevents::assert_event(&serde_json::from_slice(&message.body).unwrap());
}

#[tokio::test]
async fn an_answer_without_an_offset_is_no_confirmation() {
    let world = World::new().await;
    world.kafka.script(|it| it.without_offset = 1);
    world.source.evaluations("web", 0..1);
    let running = world.program().start();
    running.logs("the answer has no offset of the message").await;
    let messages = world.kafka.took(2).await;
    running.logs("takes records again").await;
    running.stop().await;
    assert_eq!(messages[0].header("ce_id"), messages[1].header("ce_id"));
}

/// Three evaluations are stored, and the answer for the last two is lost.
async fn with_a_lost_answer(world: &World, proxy: &Proxy) -> Process {
    world.kafka.advertise(proxy.port());
    let running = Kafka::sink(world.source.program("evaluations"), proxy.port()).start();
    world.source.evaluations("web", 0..1);
    world.kafka.took(1).await;
    when("it is confirmed", || world.source.has_checkpoint()).await;
    proxy.set(Way::Deaf);
    world.source.evaluations("web", 1..3);
    world.kafka.took(3).await;
    running
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_and_brokers_know_the_messages() {
    let world = World::new().await;
    let proxy = Proxy::to(world.kafka.port()).await;
    let running = with_a_lost_answer(&world, &proxy).await;
    // Whatever is connected is cut now, and the library connects again.
    proxy.set(Way::Open);
    world.source.evaluations("web", 3..4);
    world.all_came(4).await;
    running.stop().await;
    assert_eq!(world.kafka.messages().len(), 4, "nothing came twice");
}

#[tokio::test]
async fn answers_that_are_lost_for_longer_mean_duplicates_and_never_a_loss() {
    let world = World::new().await;
    let proxy = Proxy::to(world.kafka.port()).await;
    let running = with_a_lost_answer(&world, &proxy).await;
    running.logs("no offset within SINK_KAFKA_TIMEOUT").await;
    proxy.set(Way::Open);
    world.source.evaluations("web", 3..4);
    world.all_came(4).await;
    running.logs("takes records again").await;
    running.stop().await;
    assert!(world.kafka.messages().len() > 4, "an answer was lost, and nothing was repeated");
}

#[tokio::test]
async fn each_refusal_says_what_the_operator_can_do_and_loses_nothing() {
    let refusals = [
        (29, "TOPIC_AUTHORIZATION_FAILED; grant the user Write and Describe on the topic"),
        (19, "NOT_ENOUGH_REPLICAS at last; fewer replicas are in sync than `min.insync.replicas`"),
        (3, "UNKNOWN_TOPIC_OR_PARTITION at last; create the topic, or check SINK_KAFKA_TOPIC"),
        (6, "a partition has no leader: look at the brokers"),
        (7, "REQUEST_TIMED_OUT at last; replicas are slow"),
        (56, "a broker cannot write: look at its disk"),
    ];
    let refused = refusals.map(|(code, said)| async move {
        let world = World::new().await;
        world.kafka.script(|it| it.produce = Some(code));
        world.source.evaluations("web", 0..3);
        let running = world.program().set("SINK_KAFKA_TIMEOUT", "1s").start();
        running.logs(said).await;
        assert!(!world.source.has_checkpoint());
        world.kafka.script(|it| it.produce = None);
        world.all_came(3).await;
        running.logs("takes records again").await;
        let log = running.stop().await.log;
        assert_eq!(log.matches(said).count(), 1, "{log}");
        assert!(!log.contains("rejected"), "{log}");
    });
    join_all(refused).await;
}

#[tokio::test]
async fn a_producer_that_gets_no_identity_says_which_right_it_needs() {
    let world = World::new().await;
    world.kafka.script(|it| it.identity = Some(31));
    world.source.evaluations("web", 0..2);
    let running = world.program().start();
    running.logs("grant the user IdempotentWrite on the cluster").await;
    running.stop().await;
    let asked = world.kafka.asked(IDENTITY);
    let running = world.program().set("SINK_KAFKA_IDEMPOTENT", "false").start();
    world.all_came(2).await;
    running.stop().await;
    assert_eq!(world.kafka.asked(IDENTITY), asked, "it was not asked for one");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_not_created_and_loses_nothing() {
    let world = World::new().await;
    world.source.evaluations("web", 0..2);
    let other = || world.program().set("SINK_KAFKA_TOPIC", "other").set("SINK_KAFKA_TIMEOUT", "1s");
    let said = "create the topic, or check SINK_KAFKA_TOPIC";
    let running = other().start();
    running.logs(said).await;
    let log = running.stop().await.log;
    assert!(log.contains("ERROR") && log.contains("`other`"), "{log}");
    assert!(!world.source.has_checkpoint());
    let checked = other().arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(FAILED), "{}", checked.out);
    assert!(checked.out.contains(said), "{}", checked.out);
    let checked = world.program().arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    assert!(checked.out.contains("topic events"), "{}", checked.out);
    assert!(world.kafka.messages().is_empty(), "a check publishes nothing");
    let running = world.program().start();
    world.all_came(2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_the_topic_is_sent_in_parts_and_one_message_is_given_up() {
    let world = World::new().await;
    world.kafka.script(|it| it.most = Some(1_500));
    world.source.evaluations("web", 0..50);
    world.source.evaluations(&"j".repeat(1_500), 50..51);
    let running = world.program().start();
    running.logs("raise `max.message.bytes` of the topic").await;
    world.all_came(50).await;
    running.logs("rejected a record for good").await;
    running.stop().await;
    assert_eq!(world.source.dead_letters().len(), 1);
}

#[tokio::test]
async fn a_message_as_large_as_the_limit_is_sent_and_a_larger_one_is_not() {
    let world = World::new().await;
    world.source.evaluations(&"j".repeat(LARGE - 2_000), 0..1);
    world.source.evaluations(&"k".repeat(LARGE), 1..2);
    let running = world.program().start();
    running.logs("and SINK_KAFKA_MAX_MESSAGE_BYTES allows 100000; raise it").await;
    world.all_came(1).await;
    running.stop().await;
    assert_eq!(world.source.dead_letters().len(), 1);
    assert!(world.kafka.batches().iter().all(|(size, _)| *size <= LARGE));
}

#[tokio::test]
async fn a_backlog_goes_in_batches() {
    const COUNT: usize = 3_000;
    let world = World::new().await;
    world.source.evaluations("web", 0..COUNT);
    let running = world.program().start();
    world.all_came(COUNT).await;
    running.stop().await;
    assert_eq!(world.kafka.messages().len(), COUNT, "nothing came twice");
    // One identity for each call at once.
    assert!(world.kafka.asked(IDENTITY) <= 4, "{}", world.kafka.asked(IDENTITY));
}

#[tokio::test]
async fn every_mechanism_lets_in_who_has_the_password_and_nobody_else() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let world = World::new().await;
        world.kafka.script(|it| it.login = Some(login(mechanism, "planted-right")));
        world.source.evaluations("web", 0..2);
        let named = || {
            let program = world.program().set("SINK_KAFKA_SASL_MECHANISM", mechanism);
            program.set("SINK_KAFKA_USER", "me").set("LOG_LEVEL", "trace")
        };
        let running = named().set("SINK_KAFKA_PASSWORD", "planted-wrong").start();
        running.logs("check SINK_KAFKA_USER and SINK_KAFKA_PASSWORD").await;
        let denied = running.stop().await;
        assert!(!world.source.has_checkpoint() && world.kafka.messages().is_empty());
        let running = named().set("SINK_KAFKA_PASSWORD", "planted-right").start();
        world.all_came(2).await;
        let taken = running.stop().await;
        for log in [denied.log, taken.log] {
            assert!(!log.contains("planted"), "{log}");
        }
    }
}

#[tokio::test]
async fn a_mechanism_that_the_broker_does_not_have_is_named() {
    let world = World::new().await;
    world.kafka.script(|it| it.login = Some(login("SCRAM-SHA-512", "right")));
    world.source.evaluations("web", 0..1);
    let program = world.program().set("SINK_KAFKA_USER", "me").set("SINK_KAFKA_PASSWORD", "right");
    let running = program.start();
    running.logs("check SINK_KAFKA_SASL_MECHANISM").await;
    running.stop().await;
}

#[tokio::test]
async fn a_password_in_a_file_is_read_again_for_each_connection() {
    let mut world = World::new().await;
    world.kafka.script(|it| it.login = Some(login("PLAIN", "first")));
    let file = world.source.file("password", "first\n");
    let program =
        world.program().set("SINK_KAFKA_USER", "me").set("SINK_KAFKA_PASSWORD_FILE", file);
    let running = program.start();
    world.source.evaluations("web", 0..1);
    world.all_came(1).await;
    world.kafka.script(|it| it.login = Some(login("PLAIN", "second")));
    world.source.file("password", "second\n");
    world.kafka.crash().await;
    world.kafka.come_back().await;
    world.source.evaluations("web", 1..2);
    world.all_came(2).await;
    running.stop().await;
}

#[tokio::test]
async fn with_tls_each_side_proves_who_it_is() {
    let authority = Authority::new();
    let config = authority.server("broker.test", true);
    let world = World::with(Some(TlsAcceptor::from(Arc::new(config)))).await;
    world.source.evaluations("web", 0..2);
    let known = |program: Program| {
        let program = program.set("SINK_KAFKA_CLIENT_CERT", authority.file("cert.pem"));
        program.set("SINK_KAFKA_CLIENT_KEY", authority.file("key.pem"))
    };
    let other = Authority::new();
    let wrong_name = known(world.secure(&authority)).set("SINK_KAFKA_TLS_SERVER_NAME", "x.test");
    for program in [known(world.secure(&other)), wrong_name] {
        let running = program.start();
        running.logs("check SINK_KAFKA_CA_CERT_PATH, SINK_KAFKA_TLS_SERVER_NAME").await;
        running.stop().await;
    }
    let nobody = world.secure(&authority).start();
    nobody.logs("the receiver is not available").await;
    nobody.stop().await;
    let plain = world.program().start();
    plain.logs("check SINK_KAFKA_BROKERS, SINK_KAFKA_TLS").await;
    plain.stop().await;
    assert!(world.kafka.messages().is_empty());
    let running = known(world.secure(&authority)).start();
    world.all_came(2).await;
    running.stop().await;
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_at_once() {
    let world = World::new().await;
    let wrong = [
        ("SINK_KAFKA_BROKERS", "kafka://planted@broker"),
        ("SINK_KAFKA_TOPIC", "no such name"),
        ("SINK_KAFKA_CA_CERT_PATH", "/nowhere.pem"),
        ("SINK_KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("SINK_KAFKA_TLS", "maybe"),
        ("SINK_KAFKA_IDEMPOTENT", "maybe"),
        ("SINK_KAFKA_MAX_MESSAGE_BYTES", "0"),
        ("SINK_KAFKA_TIMEOUT", "1h"),
        ("SINK_KAFKA_WORKERS", "65"),
        ("NOMAD_FIREHOSE_REJECTED", "perhaps"),
    ];
    let program = world.program().set("SINK_KAFKA_CLIENT_KEY", "/nowhere.pem");
    let finished = each_problem_once(program, &wrong).await;
    assert!(finished.log.contains("SINK_KAFKA_CLIENT_CERT: is not set"), "{}", finished.log);
    assert!(!finished.log.contains("planted"), "{}", finished.log);
    let finished = world.source.program("evaluations").set("SINK_TYPE", "kafka").run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    for name in ["SINK_KAFKA_BROKERS: is not set", "SINK_KAFKA_TOPIC: is not set"] {
        assert!(finished.log.contains(name), "{}", finished.log);
    }
    let off = world.program().set("SINK_KAFKA_TLS", "false");
    let authority = Authority::new();
    let off = off.set("SINK_KAFKA_CA_CERT_PATH", authority.file("authorities/ca.pem")).run().await;
    assert!(off.log.contains("is off, and SINK_KAFKA_CA_CERT_PATH is set"), "{}", off.log);
}
