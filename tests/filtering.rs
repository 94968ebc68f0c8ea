//! Records that a filter leaves out: they are not published, and the position moves on with them.

use std::sync::Arc;

use nomad_firehose::{
    cursor::{Saved, Task},
    deliver::Delivery,
    filter::Filter,
    metrics::Metrics,
    record::Record,
    streams::{ALL, Allocations, Evaluations, Nodes, Resource},
    watch::Source,
};

use crate::{
    contract::emit,
    support::{
        Fault, FaultySink, GRACE, Table, Version, World, allocation, checkpoint, evaluation, node,
        pass, times, until, uuid,
    },
};

const READY: &str = "data.Status == 'ready'";

fn world(filter: &'static str, nodes: &[(&str, &str)]) -> World {
    let world = World { filter: Some(filter), ..World::new(Version::V2_0) };
    for (name, status) in nodes {
        world.nomad.upsert(Table::Nodes, node(name, status));
    }
    world
}

fn uuids(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| uuid(it)).collect()
}

/// Whether all that there is, is saved as published or left out.
fn is_saved<R: Resource>(world: &World) -> bool {
    world.value::<R>() == Some(world.nomad.index().to_string())
}

#[tokio::test(start_paused = true)]
async fn only_what_matches_is_published_and_the_position_covers_the_rest() {
    let mut world = world(READY, &[("a", "ready"), ("b", "down"), ("c", "ready"), ("d", "down")]);
    let running = world.start::<Nodes>();
    world.published(2).await;
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.published(3).await;
    until("the position", || is_saved::<Nodes>(&world)).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "c", "b"]));
    let counted = &running.metrics;
    assert_eq!((counted.records_filtered.get(), counted.records_delivered.get()), (3, 3));
    running.stop().await;

    // Another filter, or none, brings nothing back.
    world.filter = None;
    let running = world.start::<Nodes>();
    pass(600).await;
    assert_eq!(world.sink.count(), 3);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_nothing_matches_the_checkpoint_moves_on_and_nothing_is_read_twice() {
    for changes in [Source::Poll, Source::Auto] {
        let world = World { changes, ..world("false", &[]) };
        for number in 0..300 {
            world.nomad.upsert(Table::Evaluations, evaluation(&number.to_string(), "ns", "x"));
        }
        let running = world.start::<Evaluations>();
        until("the position", || is_saved::<Evaluations>(&world)).await;
        for _ in 0..5_000 {
            world.nomad.upsert(Table::Evaluations, evaluation("7", "ns", "y"));
            world.nomad.upsert(Table::Evaluations, evaluation("7", "ns", "z"));
        }
        until("the position", || is_saved::<Evaluations>(&world)).await;
        let left_out = running.metrics.records_filtered.get();
        assert!(left_out > 300, "{left_out}");
        running.kill().await;
        let (Saved::Ours(saved), 0) = checkpoint(&world.consul, Evaluations::LOCK) else {
            panic!()
        };
        assert_eq!(saved.floor().0, world.nomad.index());

        let running = world.start::<Evaluations>();
        pass(600).await;
        assert_eq!(running.metrics.records_filtered.get(), 0);
        assert!(world.sink.calls().is_empty());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_what_was_published_and_never_publishes_what_was_left_out() {
    let world = world(READY, &[("a", "ready"), ("b", "down"), ("c", "ready")]);
    let running = world.start::<Nodes>();
    world.published(2).await;
    running.kill().await;
    assert_eq!(world.value::<Nodes>(), None);
    let running = world.start::<Nodes>();
    world.published(4).await;
    until("the position", || is_saved::<Nodes>(&world)).await;
    assert_eq!(world.sink.subjects(), uuids(&["a", "c", "a", "c"]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_passes_no_record_of_its_object_that_is_not_delivered() {
    // The first event of each task is to be published, and the others are not.
    let world = world("data.TaskEvent.Type == 'Received'", &[]);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1_001, 1_002]));
    world.nomad.upsert(Table::Allocations, allocation("b", &[2_001, 2_002]));
    world.sink.fail(&uuid("a"), 1_000);
    let running = world.start::<Allocations>();
    world.published(1).await;
    world.nomad.upsert(Table::Allocations, allocation("a", &[1_001, 1_002, 1_003]));
    until("a checkpoint", || running.metrics.checkpoints_saved.get() > 0).await;
    pass(60).await;
    assert_eq!(running.metrics.records_filtered.get(), 3);
    running.kill().await;
    let (Saved::Ours(saved), 0) = checkpoint(&world.consul, Allocations::LOCK) else { panic!() };
    let tail = |name: &str| saved.tail(Task::new(&uuid(name), "main")).map(|it| it.time);
    assert_eq!((tail("a"), tail("b")), (None, Some(2_002)));

    world.sink.fail(&uuid("a"), 0);
    let running = world.start::<Allocations>();
    world.published(2).await;
    running.stop().await;
    assert_eq!(times(&world.sink), [2_001, 1_001]);
    let (Saved::Ours(saved), 0) = checkpoint(&world.consul, Allocations::LOCK) else { panic!() };
    assert_eq!(saved.tail(Task::new(&uuid("a"), "main")).map(|it| it.time), Some(1_003));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_of_other_objects_does_not_wait_for_a_record_that_fails() {
    let world = World { changes: Source::Auto, ..world(READY, &[("a", "ready")]) };
    let first = world.nomad.index();
    world.sink.fail(&uuid("a"), 1_000);
    let running = world.start::<Nodes>();
    until("a call", || !world.sink.calls().is_empty()).await;
    for number in 0..2_000 {
        world.nomad.upsert(Table::Nodes, node(&(number % 50).to_string(), "down"));
        world.nomad.upsert(Table::Nodes, node(&(number % 50).to_string(), "initializing"));
    }
    world.nomad.upsert(Table::Nodes, node("z", "ready"));
    world.published(1).await;
    assert_eq!(world.sink.subjects(), uuids(&["z"]));
    assert!(world.value::<Nodes>().is_none_or(|it| it.parse::<u64>().unwrap() < first));
    world.sink.fail(&uuid("a"), 0);
    world.published(2).await;
    until("the position", || is_saved::<Nodes>(&world)).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_for_good_holds_up_nothing_beside_those_left_out() {
    let world = world(READY, &[("a", "ready"), ("b", "down"), ("c", "ready"), ("d", "down")]);
    world.sink.fault(Fault::Refuse(vec![uuid("c")]));
    let running = world.start::<Nodes>();
    until("the position", || is_saved::<Nodes>(&world)).await;
    assert_eq!(world.sink.subjects(), uuids(&["a"]));
    let counted = &running.metrics;
    assert_eq!((counted.records_filtered.get(), counted.records_rejected.get()), (2, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_of_which_it_cannot_be_told_is_published_and_counted() {
    let world = world("data.Missing == 1", &[("a", "ready"), ("b", "down")]);
    let running = world.start::<Nodes>();
    world.published(2).await;
    assert_eq!(running.metrics.filter_errors.get(), 2);
    assert_eq!(running.metrics.records_filtered.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_expensive_expression_lets_others_have_their_turn_between_records() {
    let loops = "[1,2,3,4,5,6,7,8,9,10]";
    let filter = format!(
        "{loops}.all(a, {loops}.all(b, {loops}.all(c, {loops}.all(d, d > 0)))) && data.Status == 'x'"
    );
    let list = emit::lists_of("evaluations").next().unwrap();
    let records: Vec<Record> =
        emit::emit("evaluations", list).records.into_iter().take(9).collect();
    let count = records.len();
    let metrics = Arc::new(Metrics::default());
    let delivery = Delivery::new(Box::new(FaultySink::default()), GRACE, metrics.clone());
    let delivery = delivery.with_filter(Some(Filter::parse(&filter).unwrap()));
    let mut sift = Box::pin(delivery.sift(records));
    let mut turns = 0;
    while futures::poll!(&mut sift).is_pending() {
        turns += 1;
    }
    assert!(turns >= count / 3, "{turns} turns for {count} records");
    assert_eq!((metrics.records_filtered.get(), metrics.filter_errors.get()), (count as u64, 0));
}

#[test]
fn every_example_of_the_page_matches_some_of_what_was_recorded_and_not_all_of_it() {
    let page = include_str!("../docs/filter.md");
    let examples: Vec<&str> =
        page.split("```cel\n").skip(1).filter_map(|it| it.split("\n```").next()).collect();
    assert!(examples.len() >= 10, "{} examples", examples.len());
    let mut records = Vec::new();
    for (stream, ..) in ALL {
        let lists = emit::lists_of(stream);
        records.extend(lists.flat_map(|it| emit::emit(stream, it).records));
        records.extend(emit::objects_of(stream).map(|it| emit::emit_object(stream, it)));
    }
    for example in examples {
        let filter = Filter::parse(example).unwrap_or_else(|err| panic!("{example}: {err}"));
        let verdict = |it| {
            let judged = filter.judge(it);
            judged.verdict.unwrap_or_else(|why| panic!("{example}: {why}: {:?}", it.meta))
        };
        let matched = records.iter().filter(|it| verdict(it)).count();
        assert!(0 < matched && matched < records.len(), "{example}: {matched}");
    }
}
