//! The event stream as the source: what it shows is published as it comes, whatever happens to it
//! is made up for by lists, and nothing is published twice.

mod cuts;
mod gaps;
mod hazards;
mod offers;
mod positions;
mod recorded;

use std::time::Duration;

use nomad_firehose::{
    standin::nomad::Nomad,
    streams::{Allocations, Deployments, Evaluations, JobListStubs, Jobs, Nodes},
    watch::Source,
};
use serde_json::json;

use crate::support::{
    Table, Version, World, allocation, evaluation, job, node, object, pass, times, until, uuid,
};

/// A world whose changes come from the event stream.
fn world() -> World {
    World { changes: Source::Events, ..World::new(Version::V2_0) }
}

/// How often the list at this path was read whole.
fn lists(nomad: &Nomad, path: &str) -> usize {
    let requests = nomad.requests();
    requests.iter().filter(|it| it.path == path && !it.query.contains("prefix=")).count()
}

async fn subscribed(world: &World, count: u64, running: &crate::support::Running) {
    let _ = world;
    until("a subscription", || running.metrics.subscriptions.get() >= count).await;
    // The list that follows.
    pass(1).await;
}

fn statuses(world: &World) -> Vec<String> {
    let text = |it: &serde_json::Value| it["Status"].as_str().unwrap().to_owned();
    world.sink.bodies().iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_published_from_its_event_and_costs_no_list() {
    let world = world();
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    let running = world.start::<Evaluations>();
    world.published(1).await;
    pass(5).await;
    let before = lists(&world.nomad, "/v1/evaluations");
    for (count, status) in (2..).zip(["blocked", "complete", "canceled"]) {
        world.nomad.upsert(Table::Evaluations, evaluation("a", "default", status));
        let since = tokio::time::Instant::now();
        world.published(count).await;
        assert!(since.elapsed() < Duration::from_millis(200));
    }
    assert_eq!(statuses(&world), ["pending", "blocked", "complete", "canceled"]);
    assert_eq!(lists(&world.nomad, "/v1/evaluations"), before);
    assert_eq!(running.metrics.streaming.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn states_in_between_that_no_list_would_show_are_published_too() {
    let world = world();
    world.nomad.upsert(Table::Nodes, node("a", "initializing"));
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(5).await;
    for status in ["ready", "down", "ready"] {
        world.nomad.upsert(Table::Nodes, node("a", status));
    }
    world.published(4).await;
    assert_eq!(statuses(&world), ["initializing", "ready", "down", "ready"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_and_nodes_of_events_are_not_read_by_id() {
    let world = world();
    let running = world.start::<Jobs>();
    subscribed(&world, 1, &running).await;
    world.nomad.upsert(Table::Jobs, job("web", "default", "running"));
    world.published(1).await;
    assert_eq!(world.sink.bodies()[0]["ID"], "web");
    assert!(!world.nomad.requests().iter().any(|it| it.path.starts_with("/v1/job/")));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dispatched_job_is_read_by_id_since_the_stream_has_its_payload_compressed() {
    let world = world();
    let running = world.start::<Jobs>();
    subscribed(&world, 1, &running).await;
    let mut dispatched = job("web", "default", "running");
    dispatched.insert("Payload".to_owned(), "c25hcHB5".into());
    world.nomad.upsert(Table::Jobs, dispatched);
    world.published(1).await;
    assert!(world.nomad.requests().iter().any(|it| it.path == "/v1/job/web"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_job_lets_the_list_of_stubs_be_read_at_most_once_a_second() {
    let world = world();
    let running = world.start::<JobListStubs>();
    subscribed(&world, 1, &running).await;
    let before = lists(&world.nomad, "/v1/jobs");
    for round in 0..10 {
        world.nomad.upsert(Table::Jobs, job("web", "default", &format!("state {round}")));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until("the last state", || statuses(&world).last().is_some_and(|it| it == "state 9")).await;
    let read = lists(&world.nomad, "/v1/jobs") - before;
    assert!((1..=3).contains(&read), "{read} lists");
    assert!(world.sink.bodies()[0].get("JobSummary").is_some());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deployments_and_task_events_come_from_the_stream() {
    let world = world();
    let running = world.start::<Deployments>();
    subscribed(&world, 1, &running).await;
    let deployment = object(
        json!({"ID": uuid("d"), "Namespace": "default", "JobID": "web", "Status": "running"}),
    );
    world.nomad.upsert(Table::Deployments, deployment);
    world.published(1).await;
    running.stop().await;

    let world = self::world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start::<Allocations>();
    world.published(1).await;
    pass(5).await;
    let before = lists(&world.nomad, "/v1/allocations");
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3]));
    world.published(3).await;
    assert_eq!(times(&world.sink), [1, 2, 3]);
    assert_eq!(lists(&world.nomad, "/v1/allocations"), before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_repeated_with_every_update_of_an_allocation_is_published_once() {
    let world = world();
    world.nomad.upsert(Table::Nodes, node("n", "ready"));
    let running = world.start::<Nodes>();
    world.published(1).await;
    for time in 1..20 {
        world.nomad.upsert(Table::Allocations, allocation("a", &(1..=time).collect::<Vec<_>>()));
    }
    pass(700).await;
    assert_eq!(world.sink.count(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_commit_at_one_index_is_published_and_the_first_is_not_repeated() {
    let world = world();
    let running = world.start::<Jobs>();
    subscribed(&world, 1, &running).await;
    let index = world.nomad.upsert(Table::Jobs, job("web", "default", "pending"));
    world.published(1).await;
    world.nomad.upsert_at(index, Table::Jobs, job("web", "default", "running"));
    world.published(2).await;
    pass(700).await;
    assert_eq!(statuses(&world), ["pending", "running"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_from_latest_publishes_only_what_comes() {
    let mut world = world();
    world.start = nomad_firehose::cursor::Start::Latest;
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "complete"));
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    world.nomad.upsert(Table::Evaluations, evaluation("b", "default", "pending"));
    world.published(1).await;
    pass(700).await;
    assert_eq!(world.sink.subjects(), [uuid("b")]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_restart_repeats_nothing_and_misses_nothing() {
    let world = world();
    let running = world.start::<Jobs>();
    subscribed(&world, 1, &running).await;
    world.nomad.upsert(Table::Jobs, job("a", "default", "running"));
    world.published(1).await;
    running.stop().await;
    world.nomad.upsert(Table::Jobs, job("b", "default", "running"));
    let running = world.start::<Jobs>();
    world.published(2).await;
    pass(700).await;
    assert_eq!(world.sink.subjects(), ["a", "b"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_polled_before_is_not_repeated_by_the_stream_nor_the_other_way_round() {
    let mut world = world();
    world.nomad.upsert(Table::Jobs, job("a", "default", "running"));
    for changes in [Source::Poll, Source::Events, Source::Poll, Source::Events] {
        world.changes = changes;
        let running = world.start::<Jobs>();
        pass(30).await;
        running.stop().await;
    }
    assert_eq!(world.sink.subjects(), ["a"]);
}
