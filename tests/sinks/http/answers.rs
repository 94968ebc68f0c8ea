//! What becomes of a record when the receiver does not take it at once.

use std::time::Duration;

use super::{TOKEN, World, each_once, sink};
use crate::sinks::proxy::{Proxy, Way};
use futures::future::join_all;

/// What is waited for before a receiver is asked again that somebody has to mend first.
const SELDOM: Duration = Duration::from_millis(2_500);

/// Publishes an event to a receiver that answers with this status at first.
async fn once(status: u16) -> (World, Duration) {
    let world = World::new().await;
    world.source.evaluations("web", 0..1);
    world.web.answer_with(status, &[("location", "http://127.0.0.1:9/elsewhere")]);
    let running = world.program("evaluations").start();
    each_once(&world.web.took(1).await, 0..1);
    let log = running.stop().await.log;
    assert!(log.contains(&format!("{status} ")), "{status}: {log}");
    let posted = world.web.posted();
    let [first, second] = &posted[..] else { panic!("{status}: {} requests", posted.len()) };
    assert_eq!(first.header("ce-id"), second.header("ce-id"));
    assert_eq!(world.source.dead_letters().len(), 0, "{status}");
    let between = second.at - first.at;
    (world, between)
}

#[tokio::test]
async fn what_may_pass_by_itself_is_tried_again_soon() {
    for (_, between) in join_all([408, 425, 429, 500, 502, 503, 504].map(once)).await {
        assert!(between < SELDOM, "{between:?}");
    }
}

#[tokio::test]
async fn what_somebody_has_to_mend_is_tried_again_seldom_and_no_redirect_is_followed() {
    for (world, between) in join_all([401, 403, 404, 302].map(once)).await {
        assert!(between >= SELDOM && between < Duration::from_secs(8), "{between:?}");
        assert!(world.web.posted().iter().all(|it| it.uri.starts_with("/in/events?")));
    }
}

#[tokio::test]
async fn a_receiver_that_says_when_to_come_back_is_left_alone_until_then() {
    // An answer takes so long, and what was sent before it was known came within so much more.
    let (latency, under_way) = (Duration::from_millis(150), Duration::from_millis(100));
    for workers in ["1", "4"] {
        let world = World::new().await;
        world.web.take_time(latency);
        world.web.answer_with(429, &[("retry-after", "2")]);
        world.source.evaluations("web", 0..16);
        let running = world.program("evaluations").set("SINK_WORKER_COUNT", workers).start();
        // More of them do not make it more urgent.
        world.web.asked(1).await;
        world.source.evaluations("web", 16..20);
        each_once(&world.web.took(20).await, 0..20);
        running.stop().await;
        let posted = world.web.posted();
        let told = posted[0].at + latency;
        let mut after = posted.iter().filter(|it| it.at > told + under_way);
        let waited = after.next().unwrap().at - told;
        let expected = Duration::from_millis(1_900)..Duration::from_millis(4_000);
        assert!(expected.contains(&waited), "{workers} workers: {waited:?}");
    }
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_cut_short() {
    let world = World::new().await;
    world.source.evaluations("web", 0..1);
    world.web.answer_with(503, &[("retry-after", "18446744073709551615")]);
    let mut running = world.program("evaluations").start();
    running.logs("503 Service Unavailable").await;
    assert!(running.is_running());
    running.stop().await;
    let running = world.program("evaluations").start();
    each_once(&world.web.took(1).await, 0..1);
    let log = running.stop().await.log;
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_asked_again() {
    let world = World::new().await;
    let proxy = Proxy::to(world.web.port()).await;
    world.source.evaluations("web", 0..1);
    proxy.set(Way::Deaf);
    let running = sink(world.source.program("evaluations"), proxy.port())
        .set("SINK_HTTP_TOKEN", TOKEN)
        .set("SINK_HTTP_TIMEOUT", "500ms")
        .start();
    let posted = world.web.asked(3).await;
    assert!(posted[1].at - posted[0].at >= Duration::from_millis(500));
    assert!(posted.iter().all(|it| it.header("ce-id") == posted[0].header("ce-id")));
    assert!(!world.source.has_checkpoint());
    proxy.set(Way::Open);
    running.logs("takes records again").await;
    let log = running.stop().await.log;
    assert_eq!(log.matches("operation timed out").count(), 1, "{log}");
    assert!(world.source.has_checkpoint());
}

#[tokio::test]
async fn connections_are_used_again() {
    let world = World::new().await;
    let proxy = Proxy::to(world.web.port()).await;
    let running = sink(world.source.program("evaluations"), proxy.port())
        .set("SINK_HTTP_TOKEN", TOKEN)
        .start();
    for number in 0..50 {
        world.source.evaluations("web", number..number + 1);
        if number % 10 == 0 {
            world.web.took(number + 1).await;
        }
    }
    each_once(&world.web.took(50).await, 0..50);
    running.stop().await;
    assert_eq!(world.web.posted().len(), 50);
    // A request that is made before the client knows that the last answer is at its end makes
    // another connection, and then there are enough.
    assert!(proxy.accepted() <= 4, "{} connections", proxy.accepted());
}

#[tokio::test]
async fn a_wait_that_the_receiver_asks_for_again_and_again_is_said_once() {
    let world = World::new().await;
    world.web.full_says("1");
    world.source.evaluations("full", 0..2);
    world.source.evaluations("web", 2..40);
    let running = world.program("evaluations").set("SINK_WORKER_COUNT", "16").start();
    for round in 0..5 {
        // Some of these get through, and those of the job that fails do not.
        let asked = world.web.posted().len();
        world.source.evaluations("web", 40 + round * 10..50 + round * 10);
        world.web.asked(asked + 6).await;
    }
    world.web.take_full();
    each_once(&world.web.took(90).await, 0..90);
    let log = running.stop().await.log;
    let said = log.lines().filter(|it| it.contains("WARN") || it.contains("ERROR")).count();
    assert!(said <= 3, "{log}");
}
