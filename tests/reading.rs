//! How often Nomad is asked, for what, and in which namespace.

use std::time::Duration;

use bytes::Bytes;
use nomad_firehose::{
    cursor::Start,
    standin::Fault,
    streams::{Allocations, Deployments, Evaluations, JobListStubs, Jobs, Nodes},
};
use serde_json::json;

use crate::support::{
    Table, Version, World, allocation, evaluation, job, node, object, pass, stub, two_nodes, uuid,
};

#[tokio::test(start_paused = true)]
async fn fields_that_change_without_an_index_make_no_change() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Jobs, job("web", "default", "running"));
    let running = world.start::<JobListStubs>();
    world.published(1).await;
    for queued in 0..3 {
        let summary = object(json!({"JobID": "web", "Summary": {"web": {"Queued": queued}}}));
        world.nomad.set_summary("default", "web", summary);
        pass(5).await;
    }
    assert_eq!(world.sink.count(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_are_read_by_id_in_their_namespace_whatever_their_name() {
    for version in [Version::V1_0, Version::V2_0] {
        let world = World::new(version);
        world.nomad.add_namespace("ops");
        world.nomad.upsert(Table::Jobs, job("team/app-ümläut 100%", "ops", "running"));
        let running = world.start::<Jobs>();
        world.published(1).await;
        assert_eq!(world.sink.bodies()[0]["ID"], "team/app-ümläut 100%");
        assert_eq!(world.sink.bodies()[0]["Namespace"], "ops");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_before_it_is_read_is_counted_and_holds_nothing_up() {
    let world = two_nodes();
    let missing = || Fault::status(404, "node not found");
    for _ in 0..2 {
        world.nomad.script(&format!("/v1/node/{}", uuid("a")), missing());
    }
    let running = world.start::<Nodes>();
    world.published(1).await;
    world.nomad.delete(Table::Nodes, "", &uuid("a"));
    pass(60).await;
    assert_eq!(world.sink.subjects(), [uuid("b")]);
    assert_eq!(running.metrics.objects_missing.get(), 1);
    running.stop().await;
    assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string());
}

#[tokio::test(start_paused = true)]
async fn an_object_that_a_server_does_not_know_yet_is_published_all_the_same() {
    let world = two_nodes();
    // A follower that lags, then an agent that shuts down and says so of everything.
    for _ in 0..2 {
        let missing = Fault::status(404, "node not found");
        world.nomad.script(&format!("/v1/node/{}", uuid("a")), missing);
    }
    let running = world.start::<Nodes>();
    world.published(2).await;
    assert_eq!(world.sink.subjects(), ["b", "a"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_the_token_may_not_read_holds_up_no_other() {
    let world = two_nodes();
    let path = format!("/v1/node/{}", uuid("a"));
    for _ in 0..8 {
        world.nomad.script(&path, Fault::status(403, "Permission denied"));
    }
    let running = world.start::<Nodes>();
    world.published(1).await;
    assert_eq!(world.sink.subjects(), [uuid("b")]);
    // The permission is given in the end.
    world.published(2).await;
    running.stop().await;
    assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_start_from_now_passes_over_what_it_cannot_read() {
    let bad = r#"{"ID":"x","ModifyIndex":"7"}"#;
    let mut world = World::new(Version::V2_0);
    world.start = Start::Latest;
    let list = Bytes::from(format!("[{},{bad}]", stub("a", 5)));
    world.nomad.serve_recorded(Table::Nodes, list, 10);
    let running = world.start::<Nodes>();
    pass(60).await;
    let list = Bytes::from(format!("[{},{bad},{}]", stub("a", 5), stub("b", 11)));
    world.nomad.serve_object(Table::Nodes, "", &uuid("b"), Bytes::from(stub("b", 11)));
    world.nomad.serve_recorded(Table::Nodes, list, 11);
    world.published(1).await;
    assert_eq!(world.sink.subjects(), [uuid("b")]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_the_wildcard_is_asked_for_each_namespace() {
    let world = World::new(Version::V1_0);
    world.nomad.add_namespace("ops");
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    world.nomad.upsert(Table::Evaluations, evaluation("b", "ops", "pending"));
    let running = world.start::<Evaluations>();
    world.published(2).await;
    world.nomad.upsert(Table::Evaluations, evaluation("c", "ops", "pending"));
    world.published(3).await;
    world.nomad.add_namespace("late");
    world.nomad.upsert(Table::Evaluations, evaluation("d", "late", "pending"));
    world.published(4).await;
    pass(900).await;
    assert_eq!(world.sink.subjects(), ["a", "b", "c", "d"].map(uuid));
    running.stop().await;
    assert_eq!(world.value::<Evaluations>().unwrap(), world.nomad.index().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_deployments_is_asked_no_more_than_once_a_second() {
    let world = two_nodes();
    let running = world.start::<Deployments>();
    pass(120).await;
    // The table was never written: its index is 0, on which Nomad does not block.
    let asked = world.nomad.requests().iter().filter(|it| it.path == "/v1/deployments").count();
    assert!(asked <= 30, "{asked}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_at_most_once_a_second() {
    let world = two_nodes();
    let running = world.start::<Nodes>();
    world.published(2).await;
    let before = world.nomad.requests().len();
    for _ in 0..100 {
        world.nomad.touch(Table::Nodes);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = world.nomad.requests().len() - before;
    assert!((8..=12).contains(&asked), "{asked}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_from_now_publishes_only_what_comes() {
    let mut world = two_nodes();
    world.start = Start::Latest;
    world.nomad.upsert(Table::Allocations, allocation("old", &[1, 2]));
    let (nodes, allocations) = (world.start::<Nodes>(), world.start::<Allocations>());
    pass(20).await;
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.nomad.upsert(Table::Allocations, allocation("old", &[1, 2, 3]));
    world.nomad.upsert(Table::Allocations, allocation("new", &[1]));
    world.published(3).await;
    pass(600).await;
    let mut subjects = world.sink.subjects();
    subjects.sort();
    let task = |it| format!("{}/main", uuid(it));
    let mut expected = vec![uuid("c"), task("old"), task("new")];
    expected.sort();
    assert_eq!(subjects, expected);
    nodes.stop().await;
    allocations.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_beyond_the_budget_is_published_in_passes_in_order_of_index() {
    let world = World::new(Version::V2_0);
    let padding = "x".repeat(1 << 20);
    for i in 0..20 {
        let mut evaluation = evaluation(&format!("e{i}"), "default", "pending");
        evaluation.insert("StatusDescription".into(), padding.clone().into());
        world.nomad.upsert(Table::Evaluations, evaluation);
    }
    let running = world.start::<Evaluations>();
    world.published(20).await;
    pass(600).await;
    let expected: Vec<String> = (0..20).map(|i| uuid(&format!("e{i}"))).collect();
    assert_eq!(world.sink.subjects(), expected);
    assert!(running.metrics.lists_read.get() >= 3);
    running.stop().await;
    assert_eq!(world.value::<Evaluations>().unwrap(), world.nomad.index().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_body_newer_than_its_list_is_published_once() {
    let world = two_nodes();
    let running = world.start::<Nodes>();
    world.published(2).await;
    pass(5).await;
    let slow = Fault::Delay(Duration::from_secs(2));
    world.nomad.script(&format!("/v1/node/{}", uuid("a")), slow);
    world.nomad.upsert(Table::Nodes, node("a", "initializing"));
    pass(1).await;
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    world.published(3).await;
    pass(600).await;
    assert_eq!(world.sink.subjects(), ["a", "b", "a"].map(uuid));
    assert_eq!(world.sink.bodies()[2]["Status"], "down");
    running.stop().await;
    assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string());
}
