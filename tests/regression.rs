//! Servers that lag, shut down, or were set back to an older state.

use bytes::Bytes;
use nomad_firehose::{
    standin::Fault,
    streams::{Allocations, Evaluations, JobListStubs, Nodes},
};

use crate::support::{
    Table, Version, World, allocation, evaluation, job, node, pass, times, two_nodes, until, uuid,
};

#[tokio::test(start_paused = true)]
async fn an_agent_that_shuts_down_is_neither_an_empty_cluster_nor_a_regression() {
    let world = two_nodes();
    let running = world.start::<Nodes>();
    world.published(2).await;
    for _ in 0..3 {
        world.nomad.script("/v1/nodes", Fault::EmptyDying);
    }
    world.nomad.touch(Table::Nodes);
    until("the faults", || world.nomad.faults_left() == 0).await;
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.published(3).await;
    pass(600).await;
    assert_eq!(world.sink.count(), 3);
    assert_eq!(running.metrics.index_regressions.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lags_is_ignored() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    let running = world.start::<Nodes>();
    world.published(3).await;
    world.nomad.script("/v1/nodes", Fault::Lagging(old));
    world.nomad.upsert(Table::Nodes, node("d", "ready"));
    world.published(4).await;
    pass(600).await;
    assert_eq!(world.sink.subjects(), ["a", "b", "c", "d"].map(uuid));
    assert_eq!(running.metrics.index_regressions.get(), 0);
    assert_eq!(running.metrics.stale_lists.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_snapshot_is_noticed_and_what_differs_is_published() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    let running = world.start::<Nodes>();
    world.published(3).await;
    world.nomad.restore(&old);
    until("the regression", || running.metrics.index_regressions.get() == 1).await;
    world.published(4).await;
    world.nomad.upsert(Table::Nodes, node("e", "ready"));
    world.published(5).await;
    pass(900).await;
    // Node `a` is as it was before; `b` never changed; `c` is gone, which is not an event.
    assert_eq!(world.sink.subjects(), ["b", "a", "c", "a", "e"].map(uuid));
    assert_eq!(world.sink.bodies()[3]["Status"], "ready");
    running.stop().await;
    assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_restored_snapshot_is_noticed_although_a_write_has_hidden_the_lower_index() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    let running = world.start::<Nodes>();
    world.published(2).await;
    world.nomad.restore(&old);
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.published(4).await;
    pass(900).await;
    let mut found = world.sink.subjects()[2..].to_vec();
    found.sort();
    assert_eq!(found, ["a", "c"].map(uuid));
    assert_eq!(running.metrics.index_regressions.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_after_a_restored_snapshot_are_published_and_are_no_gap() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3]));
    let running = world.start::<Allocations>();
    world.published(3).await;
    world.nomad.restore(&old);
    until("the regression", || running.metrics.index_regressions.get() == 1).await;
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 4]));
    until("the new event", || times(&world.sink).contains(&4)).await;
    assert_eq!(running.metrics.gaps.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_of_another_cluster_behind_the_same_address_are_published() {
    let world = World::new(Version::V2_0);
    let fresh = world.nomad.snapshot();
    for id in ["a", "b", "c"] {
        world.nomad.upsert(Table::Allocations, allocation(id, &[1, 2]));
    }
    let running = world.start::<Allocations>();
    world.published(6).await;
    world.nomad.restore(&fresh);
    world.nomad.set_index(0);
    world.nomad.upsert(Table::Allocations, allocation("other", &[1, 3]));
    world.published(8).await;
    assert_eq!(running.metrics.index_regressions.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_a_regression_loses_nothing_of_it() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    let running = world.start::<Nodes>();
    world.published(2).await;
    world.nomad.restore(&old);
    world.nomad.script(&format!("/v1/node/{}", uuid("a")), Fault::Hang);
    until("the regression", || running.metrics.index_regressions.get() == 1).await;
    until("its checkpoint", || world.value::<Nodes>().as_deref() == Some("0")).await;
    running.kill().await;
    let running = world.start::<Nodes>();
    until("node a as it is again", || {
        let bodies = world.sink.bodies();
        bodies[2..].iter().any(|it| it["ID"] == uuid("a") && it["Status"] == "ready")
    })
    .await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_commit_at_one_index_is_published() {
    let world = two_nodes();
    let running = world.start::<Evaluations>();
    let index = world.nomad.upsert(Table::Evaluations, evaluation("e", "default", "pending"));
    world.published(1).await;
    world.nomad.upsert_at(index, Table::Evaluations, evaluation("e", "default", "complete"));
    // The index has not moved, so that no blocking query wakes up for it.
    world.published(2).await;
    assert_eq!(world.sink.bodies()[1]["Status"], "complete");
    pass(900).await;
    assert_eq!(world.sink.count(), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_of_a_token_that_lost_its_rights_moves_nothing() {
    let world = World::new(Version::V1_0);
    world.nomad.upsert(Table::Jobs, job("web", "default", "running"));
    let running = world.start::<JobListStubs>();
    world.published(1).await;
    world.nomad.upsert(Table::Jobs, job("db", "default", "running"));
    world.nomad.serve_recorded(Table::Jobs, Bytes::from_static(b"[]"), world.nomad.index());
    pass(400).await;
    world.nomad.upsert(Table::Jobs, job("web", "default", "dead"));
    world.published(3).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), ["web", "db", "web"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_older_than_its_change_is_read_again_from_the_leader() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    let running = world.start::<Nodes>();
    world.published(2).await;
    world.nomad.script(&format!("/v1/node/{}", uuid("a")), Fault::Lagging(old));
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    world.published(3).await;
    assert_eq!(world.sink.bodies()[2]["Status"], "down");
    let asked = world.nomad.requests();
    let last = asked.iter().rev().find(|it| it.path.contains(&uuid("a"))).unwrap();
    assert!(!last.asks("stale=true"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_during_a_regression_is_published_once_it_can() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    let running = world.start::<Nodes>();
    world.published(2).await;
    world.nomad.restore(&old);
    for _ in 0..6 {
        let refused = Fault::status(403, "Permission denied");
        world.nomad.script(&format!("/v1/node/{}", uuid("a")), refused);
    }
    world.published(3).await;
    pass(900).await;
    assert_eq!(world.sink.subjects(), ["b", "a", "a"].map(uuid));
    assert_eq!(world.sink.bodies()[2]["Status"], "ready");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn task_events_are_published_although_a_write_has_hidden_the_lower_index() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3]));
    world.nomad.upsert(Table::Allocations, allocation("b", &[1]));
    let running = world.start::<Allocations>();
    world.published(4).await;
    world.nomad.restore(&old);
    world.nomad.upsert(Table::Allocations, allocation("c", &[5]));
    until("the regression", || running.metrics.index_regressions.get() == 1).await;
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 4]));
    until("the new event", || times(&world.sink).contains(&4)).await;
    pass(900).await;
    assert!(times(&world.sink).contains(&5));
    assert_eq!(running.metrics.index_regressions.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_regression_to_an_empty_cluster_is_reported_once() {
    let world = World::new(Version::V2_0);
    let fresh = world.nomad.snapshot();
    world.nomad.upsert(Table::Jobs, job("web", "default", "running"));
    world.nomad.upsert(Table::Jobs, job("web", "default", "dead"));
    let running = world.start::<JobListStubs>();
    world.published(1).await;
    world.nomad.restore(&fresh);
    world.nomad.set_index(0);
    world.nomad.touch(Table::Jobs);
    until("the regression", || running.metrics.index_regressions.get() == 1).await;
    world.nomad.upsert(Table::Jobs, job("web", "default", "running"));
    world.published(2).await;
    pass(900).await;
    assert_eq!(running.metrics.index_regressions.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_server_that_was_not_set_back_yet_is_not_taken_for_the_restored_one() {
    let world = two_nodes();
    let old = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    let new = world.nomad.snapshot();
    let running = world.start::<Nodes>();
    world.published(2).await;
    world.nomad.restore(&old);
    until("the regression", || {
        if running.metrics.index_regressions.get() == 0 {
            return false;
        }
        // From now on a read that may be stale shows what was before.
        world.nomad.lag(Some(new.clone()));
        true
    })
    .await;
    world.published(3).await;
    world.nomad.lag(None);
    assert_eq!(world.sink.bodies()[2]["Status"], "ready");
    running.stop().await;
}
