//! What the stream does not show, and what Nomad no longer has.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_change_that_the_stream_passes_over_is_found_by_the_next_list_and_counted() {
    let world = world();
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    world.nomad.skip_events(1);
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    world.nomad.upsert(Table::Evaluations, evaluation("b", "default", "pending"));
    pass(200).await;
    assert_eq!(world.sink.subjects(), [uuid("b")]);
    world.published(2).await;
    assert_eq!(world.sink.subjects(), [uuid("b"), uuid("a")]);
    assert_eq!(running.metrics.missed_in_stream.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_next_list_does_not_lose_what_the_stream_passed_over() {
    let world = world();
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    world.nomad.skip_events(1);
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    world.nomad.upsert(Table::Evaluations, evaluation("b", "default", "pending"));
    world.published(1).await;
    // The position is saved, and is below what was passed over.
    pass(60).await;
    running.stop().await;
    world.nomad.restart_broker(0);
    let running = world.start::<Evaluations>();
    world.published(2).await;
    pass(700).await;
    assert_eq!(world.sink.subjects(), [uuid("b"), uuid("a")]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_event_that_only_a_list_has_is_published_after_those_that_the_stream_still_has() {
    let world = world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start::<Allocations>();
    world.published(1).await;
    pass(5).await;
    // Each event of a task would be shown by its own state, of which a list has the last only.
    world.nomad.stall_events(true);
    for last in 2..=14 {
        let first = 1.max(last - 9);
        world
            .nomad
            .upsert(Table::Allocations, allocation("a", &(first..=last).collect::<Vec<_>>()));
    }
    world.nomad.close_subscriptions();
    world.nomad.stall_events(false);
    world.published(14).await;
    assert_eq!(times(&world.sink), (1..=14).collect::<Vec<_>>());
    assert_eq!(running.metrics.gaps.get(), 0, "the stream had all of them");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_that_nomad_no_longer_has_are_a_gap_and_an_old_state_is_none() {
    let world = world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start::<Allocations>();
    world.published(1).await;
    pass(5).await;
    let old = world.nomad.index();
    world.nomad.upsert(Table::Allocations, allocation("a", &[2_003, 2_004]));
    world.published(3).await;
    assert_eq!(running.metrics.gaps.get(), 1);
    // The state before is shown again, as a server does that lags or starts anew.
    world.nomad.repeat_event(old);
    pass(700).await;
    assert_eq!(times(&world.sink), [1, 2_003, 2_004]);
    assert_eq!(running.metrics.gaps.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_twice_in_a_commit_is_published_once() {
    let world = world();
    let running = world.start::<Allocations>();
    subscribed(&world, 1, &running).await;
    let index = world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    world.published(2).await;
    world.nomad.repeat_event(index);
    pass(400).await;
    assert_eq!(times(&world.sink), [1, 2]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_changes_between_two_lists_bring_the_next_list_forward() {
    let world = world();
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    pass(20).await;
    let before = lists(&world.nomad, "/v1/evaluations");
    for round in 0..5_000 {
        world
            .nomad
            .upsert(Table::Evaluations, evaluation(&format!("{round}"), "default", "pending"));
        if round % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.published(5_000).await;
    until("a list", || lists(&world.nomad, "/v1/evaluations") > before).await;
    pass(30).await;
    assert_eq!(lists(&world.nomad, "/v1/evaluations"), before + 1);
    let floor: u64 = world.value::<Evaluations>().unwrap().parse().unwrap();
    assert!(floor > 4_000, "{floor}");
    running.stop().await;
}
