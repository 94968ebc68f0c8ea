//! Positions beside the stream: from the Go tool's and back to it, and after a crash.

use nomad_firehose::cursor::{Index, Saved};

use super::*;

const VALUE: &str = "nomad-firehose/evaluations.value";

fn changed(world: &World, id: &str, status: &str) -> u64 {
    world.nomad.upsert(Table::Evaluations, evaluation(id, "default", status))
}

#[tokio::test(start_paused = true)]
async fn the_stream_goes_on_where_the_go_tool_left_off_and_the_go_tool_where_a_list_was() {
    let world = world();
    changed(&world, "old", "complete");
    let left_off = changed(&world, "known", "complete");
    changed(&world, "a", "pending");
    world.consul.put(VALUE, left_off.to_string());
    let running = world.start::<Evaluations>();
    world.published(1).await;
    pass(5).await;
    let listed = world.nomad.index();
    changed(&world, "b", "pending");
    world.published(2).await;
    running.stop().await;
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    // What came since the list is published again by the Go tool, and nothing is skipped.
    assert_eq!(world.value::<Evaluations>().unwrap(), listed.to_string());

    let left_off = changed(&world, "b", "complete");
    world.consul.put(VALUE, left_off.to_string());
    changed(&world, "c", "pending");
    let running = world.start::<Evaluations>();
    world.published(3).await;
    pass(400).await;
    assert_eq!(world.sink.subjects(), ["a", "b", "c"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_later_than_the_go_tools_time_come_from_the_stream_too() {
    let world = world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3]));
    world.consul.put("nomad-firehose/allocations.value", "2");
    let running = world.start::<Allocations>();
    world.published(1).await;
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3, 4]));
    world.nomad.upsert(Table::Allocations, allocation("b", &[5]));
    world.published(3).await;
    pass(400).await;
    assert_eq!(times(&world.sink), [3, 4, 5]);
    running.stop().await;
    assert_eq!(world.value::<Allocations>().unwrap(), "5");
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_what_was_not_saved_and_loses_nothing() {
    let world = world();
    changed(&world, "a", "0");
    let running = world.start::<Evaluations>();
    world.published(1).await;
    pass(30).await;
    changed(&world, "a", "1");
    world.published(2).await;
    running.kill().await;
    changed(&world, "a", "2");
    let running = world.start::<Evaluations>();
    until("the last", || statuses(&world).last().is_some_and(|it| it == "2")).await;
    pass(400).await;
    assert_eq!(statuses(&world), ["0", "1", "1", "2"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn both_states_of_one_index_are_known_after_a_restart() {
    let world = world();
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    let index = changed(&world, "a", "0");
    world.nomad.upsert_at(index, Table::Evaluations, evaluation("a", "default", "1"));
    world.published(2).await;
    running.stop().await;
    let running = world.start::<Evaluations>();
    pass(400).await;
    assert_eq!(statuses(&world), ["0", "1"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_past_what_the_stream_shows_at_its_index_is_not_gone_behind() {
    let world = world();
    world.nomad.mute_events(true);
    let index = changed(&world, "a", "0");
    world.nomad.upsert_at(index, Table::Evaluations, evaluation("a", "default", "1"));
    let running = world.start::<Evaluations>();
    world.published(1).await;
    // Only now does the stream show both.
    world.nomad.mute_events(false);
    pass(400).await;
    assert_eq!(statuses(&world), ["1"]);
    world.nomad.upsert_at(index, Table::Evaluations, evaluation("a", "default", "2"));
    world.published(2).await;
    assert_eq!(statuses(&world), ["1", "2"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_floor_is_below_every_task_event_that_is_not_delivered_however_new_its_allocation() {
    let world = world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start::<Allocations>();
    world.published(1).await;
    pass(5).await;
    world.nomad.mute_events(true);
    let since = world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    world.nomad.upsert(Table::Allocations, allocation("b", &[3]));
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 4]));
    world.sink.fail(&uuid("a"), 1_000);
    // A list has both, and only that of the other allocation is delivered.
    until("the event of b", || times(&world.sink).contains(&3)).await;
    pass(60).await;
    assert_eq!(times(&world.sink), [1, 3]);
    let (saved, _) = crate::support::checkpoint(&world.consul, "allocations");
    let Saved::Ours(cursor) = saved else { panic!("{saved:?}") };
    assert!(cursor.floor() < Index(since), "{:?}, and {since} is not delivered", cursor.floor());
    running.kill().await;
}
