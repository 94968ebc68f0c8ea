//! `--once`: everything that exists is published whatever happens, and then it ends.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use nomad_firehose::{
    api,
    cursor::Start,
    deliver::Delivery,
    metrics::Metrics,
    run::{self, Once},
    shutdown::{self, Trigger},
    standin::{Fault as ServerFault, nomad::Table},
    streams::{Allocations, Evaluations, Nodes, Resource},
    watch::Source,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::support::{
    Fault, GRACE, Version, World, allocation, client, evaluation, node, one_node, pass, times,
    two_nodes, until, uuid,
};

const LOCK: &str = "nomad-firehose/nodes.lock";
/// Far more than anything here takes, by the paused clock.
const LONG: Duration = Duration::from_secs(3_600);

/// A process with `--once`.
struct Process {
    trigger: Trigger,
    task: JoinHandle<Result<Once, String>>,
    metrics: Arc<Metrics>,
}

impl Process {
    fn start<R: Resource>(world: &World) -> Self {
        let metrics = Arc::new(Metrics::default());
        let nomad = api::Nomad::stand_in(world.nomad.router(), client());
        let delivery = Delivery::new(Box::new(world.sink.clone()), GRACE, metrics.clone());
        let config = world.config(nomad, world.leader::<R>(), delivery, &metrics);
        let (trigger, stop) = shutdown::channel();
        let task = tokio::spawn(async move {
            run::once::<R>(&config, &stop).await.map_err(|err| err.to_string())
        });
        Self { trigger, task, metrics }
    }

    async fn ended(self) -> Once {
        timeout(LONG, self.task).await.expect("it ends").unwrap().unwrap()
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn once<R: Resource>(world: &World) -> Once {
    Process::start::<R>(world).ended().await
}

fn uuids(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| uuid(it)).collect()
}

/// What a normal run publishes after all that was published before.
async fn published_next<R: Resource>(world: &World) -> Vec<String> {
    let before = world.sink.count();
    let running = world.start::<R>();
    pass(600).await;
    running.stop().await;
    world.sink.subjects().split_off(before)
}

/// Nobody holds the lock, and nobody could.
fn assert_left(world: &World) {
    assert_eq!(world.consul.entry(LOCK).and_then(|it| it.session), None);
    assert!(world.consul.sessions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_exists_is_published_and_a_normal_run_goes_on_from_there() {
    for source in [Source::Poll, Source::Auto, Source::Events] {
        let world = World { changes: source, ..two_nodes() };
        let began = Instant::now();
        assert_eq!(once::<Nodes>(&world).await, Once::Complete);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(world.sink.subjects(), uuids(&["a", "b"]));
        assert_left(&world);
        assert_eq!(world.value::<Nodes>(), Some(world.nomad.index().to_string()));
        assert!(world.nomad.requests().iter().all(|it| it.path != "/v1/event/stream"));
        world.nomad.upsert(Table::Nodes, node("c", "ready"));
        assert_eq!(published_next::<Nodes>(&world).await, uuids(&["c"]));
    }
}

#[tokio::test(start_paused = true)]
async fn task_events_are_published_once_by_it_and_the_run_after_it() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Allocations, allocation("x", &[1_001, 1_002]));
    world.nomad.upsert(Table::Allocations, allocation("y", &[2_001]));
    assert_eq!(once::<Allocations>(&world).await, Once::Complete);
    world.nomad.upsert(Table::Allocations, allocation("x", &[1_001, 1_002, 1_003]));
    published_next::<Allocations>(&world).await;
    assert_eq!(times(&world.sink), [1_001, 1_002, 2_001, 1_003]);
}

#[tokio::test(start_paused = true)]
async fn a_second_time_goes_on_from_the_checkpoint_and_may_find_nothing() {
    let world = one_node();
    once::<Nodes>(&world).await;
    assert_eq!(once::<Nodes>(&world).await, Once::Complete);
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    assert_eq!(once::<Nodes>(&world).await, Once::Complete);
    assert_eq!(world.sink.subjects(), uuids(&["a", "a"]));
}

#[tokio::test(start_paused = true)]
async fn an_empty_cluster_is_no_reason_to_wait() {
    for version in [Version::V1_0, Version::V2_0] {
        let world = World::new(version);
        let began = Instant::now();
        assert_eq!(once::<Nodes>(&world).await, Once::Complete);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        world.nomad.upsert(Table::Nodes, node("a", "ready"));
        assert_eq!(published_next::<Nodes>(&world).await, uuids(&["a"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_from_the_latest_saves_where_that_is() {
    let world = World { start: Start::Latest, ..one_node() };
    assert_eq!(once::<Nodes>(&world).await, Once::Complete);
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    assert_eq!(once::<Nodes>(&world).await, Once::Complete);
    assert_eq!(world.sink.subjects(), uuids(&["b"]));
}

#[tokio::test(start_paused = true)]
async fn each_namespace_is_read_where_nomad_takes_the_wildcard_for_a_name() {
    let world = World::new(Version::V1_0);
    world.nomad.add_namespace("team");
    for (name, namespace) in [("a", "default"), ("b", "team")] {
        world.nomad.upsert(Table::Evaluations, evaluation(name, namespace, "pending"));
    }
    let began = Instant::now();
    assert_eq!(once::<Evaluations>(&world).await, Once::Complete);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(world.sink.subjects(), uuids(&["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_lock_that_another_holds() {
    let world = one_node();
    let other = world.start::<Nodes>();
    world.published(1).await;
    let process = Process::start::<Nodes>(&world);
    pass(120).await;
    assert_eq!(process.metrics.terms.get(), 0);
    other.stop().await;
    assert_eq!(process.ended().await, Once::Complete);
    assert_eq!(world.sink.subjects(), uuids(&["a"]));
}

#[tokio::test(start_paused = true)]
async fn what_the_sink_does_not_take_is_sent_again_before_it_ends() {
    for fault in [Fault::Away, Fault::LoseFirst, Fault::FailAfter, Fault::Unclear] {
        let world = two_nodes();
        let after = matches!(fault, Fault::FailAfter);
        world.sink.fault(fault);
        assert_eq!(once::<Nodes>(&world).await, Once::Complete);
        let mut subjects = world.sink.subjects();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects, uuids(&["a", "b"]));
        assert!(after || world.sink.count() == 2);
        assert_eq!(published_next::<Nodes>(&world).await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_rejected_is_counted_and_told_in_the_end() {
    // Either the sink says which record it refuses, or the call is halved until it is known.
    for fault in [Fault::Refuse, Fault::Suspect] {
        let world = two_nodes();
        world.sink.fault(fault(vec![uuid("a")]));
        assert_eq!(once::<Nodes>(&world).await, Once::Short { rejected: 1, unread: 0 });
        assert_eq!(world.sink.subjects(), uuids(&["b"]));
        // As always, it was given up for good.
        assert_eq!(published_next::<Nodes>(&world).await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_are_away_for_a_while_are_waited_for() {
    let world = one_node();
    world.nomad.partition(true);
    let process = Process::start::<Nodes>(&world);
    pass(120).await;
    world.nomad.partition(false);
    world.nomad.script("/v1/nodes", ServerFault::CutBody { after_bytes: 20 });
    for _ in 0..3 {
        world.consul.script("PUT /v1/txn", ServerFault::status(500, "No cluster leader"));
    }
    assert_eq!(process.ended().await, Once::Complete);
    assert_eq!(world.sink.subjects(), uuids(&["a"]));
    assert_eq!(world.consul.faults_left(), 0);
    assert_eq!(world.value::<Nodes>(), Some(world.nomad.index().to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_term_that_is_lost_in_the_middle_is_followed_by_another_that_ends_it() {
    let world = two_nodes();
    world.sink.fault(Fault::LoseAndRefuse(1, 9));
    world.sink.fault(Fault::Hang);
    let process = Process::start::<Nodes>(&world);
    until("a call that hangs", || world.sink.calls().len() == 2).await;
    let session = world.consul.entry(LOCK).unwrap().session.unwrap();
    world.consul.expire(&session);
    let metrics = process.metrics.clone();
    assert_eq!(process.ended().await, Once::Complete);
    assert_eq!(metrics.terms.get(), 2);
    // What was confirmed and not saved comes again, and nothing is missing.
    let mut subjects = world.sink.subjects();
    assert_eq!(subjects.remove(0), uuid("a"));
    subjects.retain(|it| *it != uuid("a"));
    assert_eq!(subjects, uuids(&["b"]));
    assert_left(&world);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_loses_nothing_of_what_a_normal_run_publishes() {
    let world = two_nodes();
    world.sink.fault(Fault::LoseAndRefuse(1, 9));
    world.sink.fault(Fault::Hang);
    let process = Process::start::<Nodes>(&world);
    until("a call that hangs", || world.sink.calls().len() == 2).await;
    process.kill().await;
    assert!(published_next::<Nodes>(&world).await.contains(&uuid("b")));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_asked_to_stop_before_the_end_says_so_and_loses_nothing() {
    let world = two_nodes();
    world.sink.fault(Fault::Away);
    world.sink.fault(Fault::Hang);
    let process = Process::start::<Nodes>(&world);
    until("a call that hangs", || world.sink.calls().len() == 2).await;
    process.trigger.stop();
    assert_eq!(process.ended().await, Once::Stopped);
    assert_left(&world);
    assert_eq!(published_next::<Nodes>(&world).await, uuids(&["a", "b"]));

    let world = one_node();
    world.consul.partition(true);
    let process = Process::start::<Nodes>(&world);
    pass(60).await;
    process.trigger.stop();
    assert_eq!(process.ended().await, Once::Stopped);
}

/// The list of nodes as it is shown now.
async fn listed_nodes(world: &World) -> Vec<serde_json::Value> {
    let nomad = api::Nomad::stand_in(world.nomad.router(), client());
    let namespace = "*".to_owned();
    let query =
        api::Query { past: None, wait: Duration::ZERO, stale: false, namespace, prefix: None };
    let page = nomad.list_nodes(&query).await.unwrap();
    let chunks: Vec<_> = page.body.into_inner().try_collect().await.unwrap();
    serde_json::from_slice(&chunks.concat()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_element_that_stays_unreadable_is_told_in_the_end_and_comes_once_it_can_be_read() {
    let world = two_nodes();
    let index = world.nomad.index();
    let mut list = listed_nodes(&world).await;
    *list.last_mut().unwrap() = serde_json::json!({"ID": 5});
    let list = serde_json::Value::Array(list).to_string();
    world.nomad.serve_recorded(Table::Nodes, list.into(), index);
    let began = Instant::now();
    assert_eq!(once::<Nodes>(&world).await, Once::Short { rejected: 0, unread: 1 });
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(world.sink.subjects(), uuids(&["a"]));
    assert_left(&world);
    // Another write makes the list a good one again.
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    assert_eq!(published_next::<Nodes>(&world).await, uuids(&["b", "c"]));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_listed_and_not_to_be_had_is_told_unless_it_was_only_just_deleted() {
    let path = format!("/v1/node/{}", uuid("a"));
    // Each list asks for it twice: a server, and then the leader.
    for (answers, expected, subjects) in [
        (2, Once::Complete, uuids(&["b", "a"])),
        (100, Once::Short { rejected: 0, unread: 1 }, uuids(&["b"])),
    ] {
        let world = two_nodes();
        for _ in 0..answers {
            world.nomad.script(&path, ServerFault::status(404, "node not found"));
        }
        assert_eq!(once::<Nodes>(&world).await, expected);
        assert_eq!(world.sink.subjects(), subjects);
        world.nomad.forget_faults();
        let rest = uuids(&["a"]);
        let rest = rest.into_iter().filter(|it| !subjects.contains(it)).collect::<Vec<_>>();
        assert_eq!(published_next::<Nodes>(&world).await, rest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_nomad_that_was_set_back_is_published_as_it_is_now() {
    let world = one_node();
    let earlier = world.nomad.snapshot();
    world.nomad.upsert(Table::Nodes, node("a", "down"));
    once::<Nodes>(&world).await;
    world.nomad.restore(&earlier);
    assert_eq!(once::<Nodes>(&world).await, Once::Complete);
    let status = |it: &serde_json::Value| it["Status"].as_str().unwrap().to_owned();
    let states: Vec<String> = world.sink.bodies().iter().map(status).collect();
    assert_eq!(states, ["down", "ready"]);
}
