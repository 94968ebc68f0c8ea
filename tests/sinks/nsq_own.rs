//! What the sink `nsq` has besides: each error, heartbeats, TLS, and secrets.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::{
    contract::Receiver,
    nsq::{Nsqd, SECRET},
    source::{Source, each_once},
};
use crate::{
    connecting::servers::Authority,
    firehose::{CONFIGURATION, Program, when},
};

struct World {
    source: Source,
    nsqd: Nsqd,
}

impl World {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Self {
        Self { source: Source::new().await, nsqd: Nsqd::with(tls).await }
    }

    fn program(&self) -> Program {
        self.nsqd.sink(self.source.program("evaluations"))
    }
}

#[tokio::test]
async fn a_backlog_is_published_in_large_calls_over_one_connection() {
    const COUNT: usize = 3_000;
    let mut world = World::new().await;
    world.source.evaluations("web", 0..COUNT);
    let running = world.program().start();
    each_once(&world.nsqd.took(COUNT).await, 0..COUNT);
    running.stop().await;
    let inner = world.nsqd.inner();
    assert!(inner.calls.iter().all(|it| *it <= 500), "{:?}", inner.calls);
    assert!(inner.calls.contains(&500), "{:?}", inner.calls);
    assert_eq!(inner.connections, 1);
    assert!(inner.topics.iter().all(|it| it == "events"));
    assert_eq!(inner.identified["tls_v1"], false);
}

#[tokio::test]
async fn heartbeats_are_answered_within_a_call_and_between_two() {
    let mut world = World::new().await;
    world.nsqd.inner().beats = true;
    let running = world.program().start();
    for number in 0..3 {
        world.source.evaluations("web", number..number + 1);
        world.nsqd.took(number + 1).await;
    }
    running.stop().await;
    let inner = world.nsqd.inner();
    // Before each of the three answers, and after at least one of two.
    assert!(inner.heard >= 4, "{}", inner.heard);
    assert_eq!(inner.connections, 1);
}

#[tokio::test]
async fn what_nsqd_says_is_told_with_what_can_be_done_and_nothing_is_lost() {
    let mut world = World::new().await;
    let said = [
        ("E_BAD_TOPIC MPUB topic name \"planted\" is not valid", "check SINK_NSQ_TOPIC_NAME"),
        ("E_MPUB_FAILED MPUB failed planted", "look at its disk and its log"),
        ("E_UNAUTHORIZED AUTH failed for MPUB", "let the holder of SINK_NSQ_AUTH_SECRET"),
        ("E_INVALID cannot MPUB in current state (TLS required)", "set SINK_NSQ_TLS to true"),
        ("planted", "an error of an unknown kind"),
    ];
    for (number, (error, text)) in said.into_iter().enumerate() {
        world.nsqd.inner().says.push_back(error);
        world.source.evaluations("web", number..number + 1);
        let running = world.program().start();
        running.logs(text).await;
        world.nsqd.took(number + 1).await;
        let log = running.stop().await.log;
        assert!(!log.contains("planted") && !log.contains("rejected a record"), "{log}");
    }
    each_once(&world.nsqd.received().await, 0..said.len());
}

#[tokio::test]
async fn a_connection_that_was_closed_between_two_calls_is_made_again_without_a_word() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..1);
    let running = world.program().start();
    world.nsqd.took(1).await;
    world.nsqd.restart().await;
    world.source.evaluations("web", 1..2);
    each_once(&world.nsqd.took(2).await, 0..2);
    let log = running.stop().await.log;
    assert!(!log.contains("not available"), "{log}");
    assert_eq!(world.nsqd.inner().connections, 2);
}

#[tokio::test]
async fn over_tls_both_show_who_they_are() {
    let authority = Authority::new();
    let tls = || Some(TlsAcceptor::from(Arc::new(authority.server("nsqd.test", true))));
    let mut world = World::with(tls()).await;
    world.source.evaluations("web", 0..1);
    let secure = |world: &World| {
        world
            .program()
            .set("SINK_NSQ_TLS", "true")
            .set("SINK_NSQ_TLS_SERVER_NAME", "nsqd.test")
            .set("SINK_NSQ_CACERT", authority.file("authorities/ca.pem"))
    };
    let known = |program: Program| {
        program
            .set("SINK_NSQ_CLIENT_CERT", authority.file("cert.pem"))
            .set("SINK_NSQ_CLIENT_KEY", authority.file("key.pem"))
    };
    let other = Authority::new();
    let wrong = [
        secure(&world),
        known(secure(&world)).set("SINK_NSQ_TLS_SERVER_NAME", "other.test"),
        known(secure(&world)).set("SINK_NSQ_CACERT", other.file("authorities/ca.pem")),
    ];
    for program in wrong {
        let running = program.start();
        running.logs("do not agree on TLS; check SINK_NSQ_CACERT").await;
        running.stop().await;
    }
    assert!(world.nsqd.received().await.is_empty());
    let checked = known(secure(&world)).arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    let running = known(secure(&world)).start();
    each_once(&world.nsqd.took(1).await, 0..1);
    running.stop().await;
    assert_eq!(world.nsqd.inner().identified["tls_v1"], true);
}

#[tokio::test]
async fn who_wants_tls_does_not_publish_without_it() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..1);
    let running = world.program().set("SINK_NSQ_TLS", "true").start();
    running.logs("has no TLS; start it with a certificate").await;
    running.stop().await;
    assert!(world.nsqd.received().await.is_empty());
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_again_with_each_connection() {
    let mut world = World::new().await;
    world.nsqd.inner().secret = Some(SECRET);
    world.source.evaluations("web", 0..1);
    let nameless = world.program().start();
    nameless.logs("asks who we are; set SINK_NSQ_AUTH_SECRET").await;
    nameless.stop().await;
    let file = world.source.file("secret", "wrong-planted\n");
    let running =
        world.program().set("LOG_LEVEL", "trace").set("SINK_NSQ_AUTH_SECRET_FILE", file).start();
    running.logs("says E_AUTH_FAILED").await;
    world.source.file("secret", &format!("{SECRET}\n"));
    each_once(&world.nsqd.took(1).await, 0..1);
    let log = running.stop().await.log;
    assert!(!log.contains("planted"), "{log}");
}

#[tokio::test]
async fn payloads_are_not_in_the_log() {
    let mut world = World::new().await;
    world.source.evaluations("planted-payload", 0..2);
    world.source.evaluations("bad", 2..3);
    world.nsqd.inner().says.push_back("E_BAD_BODY {\"JobID\":\"planted-payload\"}");
    let running = world.program().set("LOG_LEVEL", "trace").start();
    running.logs("rejected a record for good").await;
    world.nsqd.took(2).await;
    let stopped = running.stop().await;
    assert!(!stopped.log.contains("planted"), "{}", stopped.log);
    assert_eq!(world.source.dead_letters().len(), 1);
}

#[tokio::test]
async fn a_port_where_somebody_else_listens_is_what_the_log_says() {
    let world = World::new().await;
    world.nsqd.inner().babbles = Some("HTTP/1.1 400 Bad Request\r\n\r\n");
    let checked = world.program().arguments(&["--check"]).run().await;
    assert!(checked.out.contains("speaks the protocol of nsqd"), "{}", checked.out);
    let mut world = World::new().await;
    world.source.evaluations("web", 0..1);
    world.nsqd.crash().await;
    let running = world.program().start();
    running.logs("cannot connect to nsqd at 127.0.0.1").await;
    world.nsqd.come_back().await;
    each_once(&world.nsqd.took(1).await, 0..1);
    when("a checkpoint", || world.source.has_checkpoint()).await;
    running.stop().await;
}

#[tokio::test]
async fn mistakes_are_told_before_anything_connects() {
    let program = Program::stream("nodes").set("SINK_TYPE", "nsq").set("SINK_NSQ_TLS", "maybe");
    let finished = program.set("SINK_NSQ_CLIENT_KEY", "/nowhere").run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    for name in ["SINK_NSQ_ADDR", "SINK_NSQ_TOPIC_NAME", "SINK_NSQ_TLS", "SINK_NSQ_CLIENT_CERT"] {
        assert!(finished.log.contains(&format!("{name}: ")), "{name}: {}", finished.log);
    }
}
