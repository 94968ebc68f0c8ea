//! Beside the Go tool and after it, and with checkpoints that cannot be read.

use nomad_firehose::{
    api::LOCK_FLAGS,
    standin::{Fault as ServerFault, nomad::Table},
    streams::{Allocations, JobListStubs, Nodes},
};

use crate::support::{Version, World, allocation, node, one_node, pass, times, until, uuid};

const LOCK: &str = "nomad-firehose/nodes.lock";
const CURSOR: &str = "nomad-firehose/nodes.cursor";
const VALUE: &str = "nomad-firehose/nodes.value";

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_read_is_read_again_and_never_taken_for_none() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    running.stop().await;
    for _ in 0..3 {
        let denied = ServerFault::status(403, "Permission denied");
        world.consul.script("/v1/kv/nomad-firehose%2Fnodes.cursor", denied);
    }
    let running = world.start::<Nodes>();
    until("the denials", || world.consul.faults_left() == 0).await;
    pass(120).await;
    assert_eq!(world.sink.count(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_is_cut_short_takes_up_from_the_go_tools_value() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    running.stop().await;
    let cursor = world.consul.value(CURSOR).unwrap();
    world.consul.put(CURSOR, cursor[..cursor.len() / 2].to_vec());
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    let running = world.start::<Nodes>();
    world.published(2).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_are_all_published_again_where_the_cursor_cannot_be_read() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    let running = world.start::<Allocations>();
    world.published(2).await;
    running.stop().await;
    world.consul.put("nomad-firehose/allocations.cursor", "nomad-firehose-cursor-99 0 {}");
    let running = world.start::<Allocations>();
    world.published(4).await;
    let ids = world.sink.ids();
    assert_eq!(ids[..2], ids[2..]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_index_stream_goes_on_where_the_go_tool_left_off_and_the_go_tool_where_we_did() {
    let world = one_node();
    let index = world.nomad.index();
    world.consul.put(VALUE, index.to_string());
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    let running = world.start::<Nodes>();
    world.published(1).await;
    running.stop().await;
    assert_eq!(world.sink.subjects(), [uuid("b")]);
    assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string());
    // The Go tool runs, and writes its position as it does: with a plain write.
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.consul.put(VALUE, world.nomad.index().to_string());
    world.nomad.upsert(Table::Nodes, node("d", "ready"));
    let running = world.start::<Nodes>();
    world.published(2).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), ["b", "d"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_later_than_the_go_tools_time_are_published_and_the_earlier_ones_never() {
    let world = World::new(Version::V1_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3]));
    world.nomad.upsert(Table::Allocations, allocation("b", &[1, 2]));
    world.consul.put("nomad-firehose/allocations.value", "2");
    let running = world.start::<Allocations>();
    world.published(1).await;
    // Allocations of which nothing was published have a tail all the same.
    world.nomad.upsert(Table::Allocations, allocation("b", &[1, 2, 4]));
    world.published(2).await;
    pass(60).await;
    running.stop().await;
    assert_eq!(times(&world.sink), [3, 4]);
    assert_eq!(world.value::<Allocations>().as_deref(), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn a_go_tool_that_ran_in_between_costs_task_events_duplicates_at_worst() {
    let world = World::new(Version::V1_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    let running = world.start::<Allocations>();
    world.published(2).await;
    running.stop().await;
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 9, 3]));
    world.consul.put("nomad-firehose/allocations.value", "9");
    let running = world.start::<Allocations>();
    world.published(4).await;
    assert_eq!(times(&world.sink), [1, 2, 9, 3]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_keys_and_the_lock_are_those_of_the_go_tool() {
    let world = one_node();
    let (nodes, stubs) = (world.start::<Nodes>(), world.start::<JobListStubs>());
    world.published(1).await;
    pass(5).await;
    let lock = world.consul.entry(LOCK).unwrap();
    assert_eq!((lock.flags, &lock.value[..]), (LOCK_FLAGS, &b""[..]));
    let session =
        world.consul.sessions().into_iter().find(|it| Some(&it.id) == lock.session.as_ref());
    let session = session.unwrap();
    assert_eq!(session.name, "nomad-firehose-nodes");
    assert!(world.consul.entry("nomad-firehose/jobliststub.lock").is_some());
    nodes.stop().await;
    stubs.stop().await;
    let lock = world.consul.entry(LOCK).unwrap();
    assert_eq!((lock.flags, lock.session), (LOCK_FLAGS, None));
    assert_eq!(world.value::<Nodes>().unwrap().parse::<u64>().unwrap(), world.nomad.index());
}
