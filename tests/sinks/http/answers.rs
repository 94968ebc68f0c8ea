//! What becomes of a record when the receiver does not take it at once.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::{TOKEN, World, each_once, sink};
use crate::sinks::proxy::{Proxy, Way};

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
    for workers in ["1", "4"] {
        let world = World::new().await;
        world.source.evaluations("web", 0..40);
        let running = world.program("evaluations").set("SINK_WORKER_COUNT", workers).start();
        world.web.took(40).await;
        // The workers are in the middle of their records when one of them is told.
        for _ in 0..5 {
            world.web.answer_with(202, &[]);
        }
        world.web.answer_with(429, &[("retry-after", "2")]);
        world.source.evaluations("full", 40..60);
        let before = world.web.asked(46).await;
        let told = before[45].at;
        world.source.evaluations("web", 60..70);
        world.web.take_full();
        world.web.took(65).await;
        running.stop().await;
        let mut after: Vec<_> = world.web.posted().split_off(46);
        after.retain(|it| it.at - told > UNDER_WAY);
        let came = after.iter().map(|it| it.at - told).min().unwrap();
        let expected = Duration::from_millis(1_900)..Duration::from_millis(3_500);
        assert!(expected.contains(&came), "{workers} workers: {came:?}");
    }
}

/// Requests that are on their way when another one is answered come within this.
const UNDER_WAY: Duration = Duration::from_millis(20);

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
    assert_eq!(log.matches("no answer; check SINK_HTTP_ADDRESS").count(), 1, "{log}");
    assert!(world.source.has_checkpoint());
}

#[tokio::test]
async fn a_worker_has_one_connection_for_all_its_requests() {
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
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_receiver_that_fails_one_job_and_says_when_to_come_back_is_no_news_each_time() {
    let world = World::new().await;
    world.web.full_says("1");
    world.source.evaluations("full", 0..3);
    world.source.evaluations("web", 3..6);
    let running = world.program("evaluations").start();
    world.web.took(3).await;
    let asked = world.web.posted().len();
    world.web.asked(asked + 6).await;
    world.web.take_full();
    let since = Instant::now();
    each_once(&world.web.took(6).await, 0..6);
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let log = running.stop().await.log;
    let said = log.lines().filter(|it| it.contains("WARN") || it.contains("ERROR")).count();
    assert!(said <= 3, "{log}");
}
