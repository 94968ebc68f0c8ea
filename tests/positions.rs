//! Positions of task events, as they are saved: of which allocations, and for how long.

use std::collections::BTreeSet;

use bytes::Bytes;
use nomad_firehose::{
    cursor::{Cursor, Saved, Start, Task},
    standin::Fault,
    streams::{Allocations, Resource},
};
use serde_json::json;

use crate::support::{Table, Version, World, allocation, checkpoint, pass, times, uuid};

/// The position that is saved.
fn saved(world: &World) -> Cursor {
    match checkpoint(&world.consul, Allocations::LOCK) {
        (Saved::Ours(cursor), 0) => *cursor,
        other => panic!("{other:?}"),
    }
}

fn task(id: &str) -> Task {
    Task::new(&uuid(id), "main")
}

/// Which of these have a tail that is saved.
fn remembered<'a>(world: &World, ids: &[&'a str]) -> Vec<&'a str> {
    let cursor = saved(world);
    let ids: Vec<_> = ids.iter().filter(|it| cursor.tail(task(it)).is_some()).copied().collect();
    assert_eq!(cursor.tails(), ids.len());
    ids
}

/// A list of allocations, each with its index and an event of that time.
fn serve(world: &World, index: u64, allocations: &[(&str, u64)]) {
    let elements = allocations.iter().map(|(id, index)| {
        let mut element = allocation(id, &[i64::try_from(*index).unwrap()]);
        element.insert("ModifyIndex".to_owned(), json!(index));
        serde_json::Value::Object(element)
    });
    let list = serde_json::Value::Array(elements.collect()).to_string();
    world.nomad.serve_recorded(Table::Allocations, Bytes::from(list), index);
}

#[tokio::test(start_paused = true)]
async fn an_allocation_that_is_garbage_collected_is_forgotten() {
    let world = World::new(Version::V2_0);
    for id in ["a", "b", "c"] {
        world.nomad.upsert(Table::Allocations, allocation(id, &[1]));
    }
    let running = world.start::<Allocations>();
    world.published(3).await;
    pass(30).await;
    assert_eq!(remembered(&world, &["a", "b", "c"]), ["a", "b", "c"]);
    world.nomad.delete(Table::Allocations, "default", &uuid("b"));
    pass(30).await;
    assert_eq!(remembered(&world, &["a", "b", "c"]), ["a", "c"]);
    // Those that are left have their events once, and only once.
    world.nomad.upsert(Table::Allocations, allocation("c", &[1, 2]));
    world.published(4).await;
    pass(30).await;
    running.stop().await;
    assert_eq!(times(&world.sink), [1, 1, 1, 2]);
    assert_eq!(remembered(&world, &["a", "b", "c"]), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_allocation_that_is_newer_than_the_list_is_remembered_until_a_list_should_have_it() {
    let world = World::new(Version::V2_0);
    serve(&world, 20, &[("a", 10), ("b", 12), ("c", 25)]);
    let running = world.start::<Allocations>();
    world.published(3).await;
    pass(30).await;
    serve(&world, 22, &[("a", 10)]);
    pass(30).await;
    assert_eq!(remembered(&world, &["a", "b", "c"]), ["a", "c"]);
    serve(&world, 24, &[("a", 10), ("c", 25)]);
    pass(30).await;
    assert_eq!(world.sink.count(), 3);
    serve(&world, 25, &[("a", 10)]);
    pass(30).await;
    assert_eq!(remembered(&world, &["a", "b", "c"]), ["a"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_cut_short_forgets_nothing() {
    let world = World::new(Version::V2_0);
    serve(&world, 20, &[("a", 10), ("b", 12)]);
    let running = world.start::<Allocations>();
    world.published(2).await;
    pass(30).await;
    world.nomad.script("/v1/allocations", Fault::CutBody { after_bytes: 700 });
    // The first answers a query that was waiting already.
    for index in [21, 22] {
        serve(&world, index, &[("a", 10), ("b", 12)]);
        pass(30).await;
    }
    assert!(running.metrics.nomad_errors.get() > 0);
    assert_eq!(remembered(&world, &["a", "b"]), ["a", "b"]);
    running.stop().await;
    assert_eq!(world.sink.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_from_the_latest_remembers_every_task_that_there_is() {
    let mut world = World::new(Version::V2_0);
    world.start = Start::Latest;
    let ids: Vec<String> = (0..5_000).map(|it| format!("{it:x}")).collect();
    let all = |times: &[i64]| {
        let rows = ids.iter().map(|it| (Table::Allocations, allocation(it, times)));
        rows.collect::<Vec<_>>()
    };
    world.nomad.upsert_many(all(&[1]));
    let running = world.start::<Allocations>();
    pass(30).await;
    assert_eq!((world.sink.count(), saved(&world).tails()), (0, ids.len()));
    world.nomad.upsert_many(all(&[1, 2]));
    world.published(ids.len()).await;
    pass(30).await;
    running.stop().await;
    assert_eq!(times(&world.sink), vec![2; ids.len()]);
    let subjects: BTreeSet<_> = world.sink.subjects().into_iter().collect();
    assert_eq!(subjects.len(), ids.len());
}

#[tokio::test(start_paused = true)]
async fn it_is_remembered_which_allocations_have_ended() {
    let world = World::new(Version::V2_0);
    let ended = [("ClientStatus", "complete"), ("ClientStatus", "lost"), ("DesiredStatus", "stop")];
    for (id, (key, status)) in ["a", "b", "c"].into_iter().zip(ended) {
        let mut row = allocation(id, &[1]);
        row.insert(key.to_owned(), json!(status));
        world.nomad.upsert(Table::Allocations, row);
    }
    world.nomad.upsert(Table::Allocations, allocation("d", &[1]));
    let running = world.start::<Allocations>();
    world.published(4).await;
    running.stop().await;
    let cursor = saved(&world);
    let ended = |id| cursor.tail(task(id)).unwrap().terminal;
    assert_eq!(["a", "b", "c", "d"].map(ended), [true, true, true, false]);
}
