//! Tokens, and what nobody is to see.

use super::{World, each_once, sink};
use crate::{
    firehose::Program,
    sinks::proxy::{Proxy, Way},
};

#[tokio::test]
async fn a_token_that_is_replaced_is_used_without_a_restart() {
    let world = World::new().await;
    let path = world.source.file("token", "stale\n");
    world.source.evaluations("web", 0..3);
    let running = sink(world.source.program("evaluations"), world.web.port())
        .set("SINK_HTTP_TOKEN_FILE", &path)
        .start();
    running.logs("401 Unauthorized; check SINK_HTTP_TOKEN").await;
    assert!(!world.source.has_checkpoint());
    world.source.file("token", "let-me-in\n");
    each_once(&world.web.took(3).await, 0..3);
    // It is replaced while everything is well, too, and what was last in it counts meanwhile.
    world.source.file("token", "");
    world.source.evaluations("web", 3..4);
    world.web.took(4).await;
    world.web.demand("Bearer next");
    world.source.file("token", "next");
    world.source.evaluations("web", 4..6);
    each_once(&world.web.took(6).await, 0..6);
    let log = running.stop().await.log;
    assert_eq!(log.matches("401 Unauthorized").count(), 1, "{log}");
    assert_eq!(world.source.dead_letters().len(), 0);
}

const PLANTED: [&str; 5] =
    ["planted-token", "planted-header", "planted-hmac", "planted-query", "planted-payload"];

fn planted(world: &World, port: u16) -> Program {
    world
        .source
        .program("evaluations")
        .set("LOG_LEVEL", "trace")
        .set("SINK_TYPE", "http")
        .set("SINK_HTTP_ADDRESS", format!("http://127.0.0.1:{port}/in?key=planted-query"))
        .set("SINK_HTTP_TOKEN", "planted-token")
        .set("SINK_HTTP_HEADERS", "X-Key: planted-header")
        .set("SINK_HTTP_HMAC_SECRET", "planted-hmac")
        .set("SINK_HTTP_TIMEOUT", "1s")
}

fn assert_silent(text: &str) {
    for secret in PLANTED {
        assert!(!text.contains(secret), "{secret} is in what was written:\n{text}");
    }
}

#[tokio::test]
async fn secrets_and_payloads_are_not_in_the_log_whatever_the_receiver_answers() {
    let world = World::new().await;
    let proxy = Proxy::to(world.web.port()).await;
    world.web.demand("Bearer planted-token");
    let statuses = [400, 422, 429, 503, 500, 302];
    for status in statuses {
        let elsewhere = "http://127.0.0.1:9/?key=planted-query&token=planted-token";
        world.web.answer_with(status, &[("location", elsewhere), ("x-key", "planted-header")]);
    }
    world.source.evaluations("planted-payload", 0..8);
    let running = planted(&world, proxy.port()).start();
    world.web.took(6).await;
    proxy.set(Way::Cut);
    world.source.evaluations("planted-payload", 8..9);
    running.logs("no answer").await;
    proxy.set(Way::Open);
    world.web.took(7).await;
    let finished = running.stop().await;
    for status in [400, 422] {
        assert!(finished.log.contains(&format!(": {status} ")), "{}", finished.log);
    }
    assert_silent(&finished.log);
    assert_silent(&finished.out);
}

#[tokio::test]
async fn secrets_are_not_in_what_a_check_or_a_halt_says() {
    let world = World::new().await;
    world.web.always(Some(400));
    world.source.evaluations("planted-payload", 0..1);
    let program = planted(&world, world.web.port()).set("NOMAD_FIREHOSE_REJECTED", "halt");
    let finished = program.run().await;
    assert!(finished.log.contains("rejected record"), "{}", finished.log);
    assert_silent(&finished.log);
    for (status, code) in [(400, 0), (204, 0), (403, 1)] {
        world.web.always(Some(status));
        let program = planted(&world, world.web.port()).arguments(&["--check"]);
        let finished = program.run().await;
        assert_eq!(finished.code, Some(code), "{status}: {}{}", finished.out, finished.log);
        assert_silent(&finished.log);
        assert_silent(&finished.out);
    }
}
