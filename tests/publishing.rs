//! From Nomad's list to the sink and the checkpoint, with a sink that fails.

use nomad_firehose::{
    record::Limits,
    streams::{Allocations, Evaluations, Nodes},
};

use crate::support::{
    Fault, Table, Version, World, allocation, evaluation, node, pass, times, until, uuid,
};

fn nodes(names: &[&str]) -> World {
    let world = World::new(Version::V2_0);
    for name in names {
        world.nomad.upsert(Table::Nodes, node(name, "ready"));
    }
    world
}

fn uuids(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| uuid(it)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_exists_is_published_in_order_and_then_what_changes() {
    let world = nodes(&["c", "a", "b"]);
    let running = world.start::<Nodes>();
    world.published(3).await;
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    world.published(4).await;
    assert_eq!(world.sink.subjects(), uuids(&["c", "a", "b", "a"]));
    assert_eq!(world.sink.bodies()[3]["Status"], "down");
    running.stop().await;
    assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_restart_after_a_clean_stop_repeats_nothing_and_misses_nothing() {
    let world = nodes(&["a", "b"]);
    let running = world.start::<Nodes>();
    world.published(2).await;
    running.stop().await;
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    let running = world.start::<Nodes>();
    world.published(3).await;
    pass(600).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "b", "c"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_what_was_lost_is_sent_again() {
    let world = nodes(&["a", "b", "c"]);
    world.sink.fault(Fault::Lose(vec![1]));
    let running = world.start::<Nodes>();
    world.published(3).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "c", "b"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_means_a_duplicate_with_the_same_id_and_never_a_loss() {
    let world = nodes(&["a", "b"]);
    world.sink.fault(Fault::FailAfter);
    let running = world.start::<Nodes>();
    world.published(4).await;
    let ids = world.sink.ids();
    assert_eq!(ids[..2], ids[2..]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_for_ten_minutes_loses_nothing_and_moves_no_checkpoint() {
    let world = nodes(&["a", "b"]);
    for _ in 0..25 {
        world.sink.fault(Fault::Away);
    }
    let running = world.start::<Nodes>();
    pass(300).await;
    assert_eq!((world.sink.count(), world.value::<Nodes>()), (0, None));
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.published(3).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "b", "c"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_for_good_is_counted_and_does_not_hold_up_the_others() {
    let world = nodes(&["a", "b", "c", "d"]);
    world.sink.fault(Fault::Refuse(vec![uuid("b")]));
    let running = world.start::<Nodes>();
    world.published(3).await;
    until("a checkpoint", || world.value::<Nodes>().is_some()).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "c", "d"]));
    assert_eq!(running.metrics.records_rejected.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_as_a_whole_is_halved_until_the_culprit_is_known() {
    let world = nodes(&["a", "b", "c", "d"]);
    world.sink.fault(Fault::Suspect(vec![uuid("c")]));
    let running = world.start::<Nodes>();
    world.published(3).await;
    until("the rejection", || running.metrics.records_at_fault.get() == 1).await;
    assert_eq!(world.sink.calls(), [4, 2, 2, 1, 1]);
    assert_eq!(world.sink.subjects(), uuids(&["a", "b", "d"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn standard_output_that_is_gone_ends_the_process_and_moves_no_checkpoint() {
    let world = nodes(&["a"]);
    world.sink.fault(Fault::Gone);
    let error = world.start::<Nodes>().fails().await;
    assert_eq!(error, "the sink cannot go on");
    assert_eq!(world.value::<Nodes>(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_abandoned_after_the_grace_period_and_repeated_by_the_next_run() {
    let world = nodes(&["a"]);
    world.sink.fault(Fault::Hang);
    let running = world.start::<Nodes>();
    until("a call", || world.sink.calls().len() == 1).await;
    let asked = tokio::time::Instant::now();
    running.stop().await;
    assert!(asked.elapsed() <= std::time::Duration::from_millis(3_500), "{:?}", asked.elapsed());
    let running = world.start::<Nodes>();
    world.published(1).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_in_the_middle_of_one_index_repeats_nothing_of_it() {
    let limits = Limits { records: 2, ..Limits::default() };
    let mut world = World::new(Version::V2_0);
    world.sink.limits = limits;
    let all = ["a", "b", "c", "d", "e"]
        .map(|it| (Table::Evaluations, evaluation(it, "default", "pending")));
    world.nomad.upsert_many(all);
    // The second call of the index never ends.
    world.sink.fault(Fault::Lose(vec![]));
    world.sink.fault(Fault::Hang);
    let running = world.start::<Evaluations>();
    until("the second call", || world.sink.calls().len() == 2).await;
    running.stop().await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "b"]));
    let running = world.start::<Evaluations>();
    world.published(5).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "b", "c", "d", "e"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_task_event_is_published_once_whatever_the_clocks_of_the_nodes_say() {
    let world = World::new(Version::V1_0);
    let minutes = 600_000;
    world.nomad.upsert(Table::Allocations, allocation("fast", &[minutes + 1, minutes + 2]));
    world.nomad.upsert(Table::Allocations, allocation("slow", &[1]));
    let running = world.start::<Allocations>();
    world.published(3).await;
    // The slow clock is ten minutes behind, and then steps back.
    world.nomad.upsert(Table::Allocations, allocation("slow", &[1, 3]));
    world.published(4).await;
    world.nomad.upsert(Table::Allocations, allocation("slow", &[1, 3, 2]));
    world.published(5).await;
    running.stop().await;
    let running = world.start::<Allocations>();
    world.nomad.upsert(Table::Allocations, allocation("slow", &[1, 3, 2, 4]));
    world.published(6).await;
    pass(600).await;
    assert_eq!(times(&world.sink), [minutes + 1, minutes + 2, 1, 3, 2, 4]);
    assert_eq!(running.metrics.gaps.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_failed_holds_back_those_of_its_task_that_did_not() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    // A sink that ought to say that it can fail records one by one, and does not.
    world.sink.fault(Fault::Lose(vec![0]));
    world.sink.fault(Fault::Hang);
    let running = world.start::<Allocations>();
    until("the second call", || world.sink.calls().len() == 2).await;
    running.stop().await;
    let running = world.start::<Allocations>();
    world.published(3).await;
    assert_eq!(times(&world.sink), [2, 1, 2]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_failed_holds_back_a_refused_one_of_its_task() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    world.sink.fault(Fault::LoseAndRefuse(0, 1));
    world.sink.fault(Fault::Hang);
    let running = world.start::<Allocations>();
    until("the second call", || world.sink.calls().len() == 2).await;
    running.stop().await;
    let running = world.start::<Allocations>();
    world.published(2).await;
    assert_eq!(times(&world.sink), [1, 2]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_does_not_say_what_failed_confirms_nothing() {
    let world = nodes(&["a", "b"]);
    world.sink.fault(Fault::Unclear);
    let running = world.start::<Nodes>();
    world.published(2).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "b"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_saved_while_nothing_is_published_but_at_the_usual_interval() {
    let world = nodes(&["a"]);
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(5).await;
    let before = running.metrics.checkpoints_saved.get();
    for _ in 0..60 {
        world.nomad.touch(Table::Nodes);
        pass(1).await;
    }
    let saved = running.metrics.checkpoints_saved.get() - before;
    assert!(saved <= 7, "{saved}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_that_nomad_has_dropped_are_reported_as_a_gap() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    let running = world.start::<Allocations>();
    world.published(2).await;
    let burst: Vec<i64> = (50..60).collect();
    world.nomad.upsert(Table::Allocations, allocation("a", &burst));
    world.published(12).await;
    assert_eq!(running.metrics.gaps.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_no_more_than_what_was_published_since_the_last_checkpoint() {
    let world = nodes(&["a", "b"]);
    let running = world.start::<Nodes>();
    world.published(2).await;
    until("a checkpoint", || world.value::<Nodes>().is_some()).await;
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.published(3).await;
    running.kill().await;
    let running = world.start::<Nodes>();
    world.published(4).await;
    pass(600).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "b", "c", "c"]));
    running.stop().await;
}
