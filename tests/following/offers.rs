//! Whether there is a stream to be followed, and what is done where there is none.

use super::*;

fn auto(version: Version) -> World {
    World { changes: Source::Auto, ..World::new(version) }
}

/// Evaluations are published as they change, from lists.
async fn polls(world: &World) {
    let running = world.start::<Evaluations>();
    until("the lists", || lists(&world.nomad, "/v1/evaluations") > 0).await;
    pass(30).await;
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    let since = tokio::time::Instant::now();
    world.published(1).await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(running.metrics.streaming.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn auto_takes_the_stream_where_there_is_one() {
    let world = auto(Version::V2_0);
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    assert_eq!(running.metrics.streaming.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn auto_polls_a_nomad_1_0_whose_stream_encodes_objects_in_another_way() {
    let world = auto(Version::V1_0);
    polls(&world).await;
    assert!(!world.nomad.requests().iter().any(|it| it.path == "/v1/event/stream"));
}

#[tokio::test(start_paused = true)]
async fn auto_notices_a_nomad_1_0_by_its_events_where_the_token_may_not_ask() {
    let world = auto(Version::V1_0);
    for _ in 0..100 {
        world.nomad.script(
            "/v1/agent/self",
            nomad_firehose::standin::Fault::status(403, "Permission denied"),
        );
    }
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start::<Allocations>();
    world.published(1).await;
    until("lists", || running.metrics.streaming.get() == 0).await;
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    world.published(2).await;
    assert_eq!(times(&world.sink), [1, 2]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn auto_polls_where_the_stream_is_denied_switched_off_or_unknown() {
    for (status, text) in [
        (403, "Permission denied"),
        (500, "Permission denied"),
        (404, ""),
        (500, "EventBroker not configured"),
    ] {
        let world = auto(Version::V2_0);
        for _ in 0..3 {
            let denied = nomad_firehose::standin::Fault::status(status, text);
            world.nomad.script("/v1/event/stream", denied);
        }
        polls(&world).await;
        pass(600).await;
        let asked =
            world.nomad.requests().iter().filter(|it| it.path == "/v1/event/stream").count();
        assert!(asked <= 2, "{status} {text}: asked {asked} times");
    }
}

#[tokio::test(start_paused = true)]
async fn auto_polls_where_the_stream_is_silent_and_takes_it_once_it_speaks() {
    let world = auto(Version::V2_0);
    world.nomad.disable_events();
    let running = world.start::<Evaluations>();
    // Beside the attempts lists are polled.
    pass(120).await;
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    let since = tokio::time::Instant::now();
    world.published(1).await;
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(running.metrics.streaming.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_granted_later_is_taken_within_the_hour() {
    let world = auto(Version::V2_0);
    for _ in 0..2 {
        world.nomad.script(
            "/v1/event/stream",
            nomad_firehose::standin::Fault::status(403, "Permission denied"),
        );
    }
    let running = world.start::<Evaluations>();
    pass(600).await;
    assert_eq!(running.metrics.streaming.get(), 0);
    pass(3_400).await;
    assert_eq!(running.metrics.streaming.get(), 1);
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    world.published(1).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_alone_never_polls_and_goes_on_once_the_stream_is_there() {
    let world = world();
    for _ in 0..3 {
        world.nomad.script(
            "/v1/event/stream",
            nomad_firehose::standin::Fault::status(403, "Permission denied"),
        );
    }
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    let running = world.start::<Evaluations>();
    pass(20).await;
    assert_eq!(lists(&world.nomad, "/v1/evaluations"), 0);
    world.published(1).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_list_is_an_error_and_no_silence() {
    let world = world();
    world.nomad.require_token(Some(uuid("secret")));
    let running = world.start::<Evaluations>();
    pass(60).await;
    assert_eq!(running.metrics.subscriptions.get(), 0);
    assert!(running.metrics.stream_errors.get() > 1);
    world.nomad.require_token(None);
    subscribed(&world, 1, &running).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_made_later_is_followed_at_once() {
    let world = auto(Version::V2_0);
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    pass(60).await;
    world.nomad.add_namespace("later");
    pass(5).await;
    world.nomad.upsert(Table::Evaluations, evaluation("a", "later", "pending"));
    let since = tokio::time::Instant::now();
    world.published(1).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    running.stop().await;
}
