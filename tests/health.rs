//! Whether a firehose is ready, while what it needs comes and goes, with a paused clock.

use nomad_firehose::{metrics::Role, streams::Nodes, watch::Source};

use crate::support::{Fault, Running, Table, World, node, one_node, pass, until};

const MINUTE: u64 = 60;

/// What is not as it should be, and why; nothing where it is ready.
fn missing(running: &Running) -> Vec<(&'static str, String)> {
    let found = running.metrics.readiness();
    let bad = found.checks.into_iter().filter(|(_, check)| !check.ok);
    let bad: Vec<_> = bad.map(|(name, it)| (name, it.error.unwrap_or_default())).collect();
    assert_eq!(found.ready, bad.is_empty() && found.role != Role::Starting, "{bad:?}");
    bad
}

async fn ready(running: &Running) {
    until("readiness", || running.metrics.readiness().ready).await;
}

/// Waits until it is not ready for want of this alone.
async fn lacks(running: &Running, wanted: &str) -> String {
    until(wanted, || !running.metrics.readiness().ready).await;
    let found = missing(running);
    assert!(found.len() == 1 && found[0].0 == wanted, "{wanted}: {found:?}");
    found[0].1.clone()
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_stays_ready_for_hours_wherever_changes_come_from() {
    for changes in [Source::Poll, Source::Events] {
        let world = World { changes, ..one_node() };
        let running = world.start::<Nodes>();
        world.published(1).await;
        ready(&running).await;
        for minute in 0..4 * 60 {
            pass(MINUTE).await;
            assert_eq!(missing(&running), [], "{changes:?}, minute {minute}");
        }
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_stands_by_stays_ready_and_is_no_leader() {
    let world = one_node();
    let first = world.start::<Nodes>();
    world.published(1).await;
    let second = world.start::<Nodes>();
    ready(&second).await;
    for _ in 0..60 {
        pass(MINUTE).await;
        assert_eq!(missing(&second), []);
    }
    assert_eq!((first.metrics.leader.get(), second.metrics.leader.get()), (1, 0));
    assert_eq!(second.metrics.elections_standby.get(), 1);
    first.stop().await;
    until("the second", || second.metrics.leader.get() == 1).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_nomad_that_is_away_is_named_until_it_is_back() {
    for changes in [Source::Poll, Source::Auto, Source::Events] {
        for leaderless in [false, true] {
            let away = |world: &World, on| match leaderless {
                true => world.nomad.leaderless(on),
                false => world.nomad.partition(on),
            };
            let world = World { changes, ..one_node() };
            let running = world.start::<Nodes>();
            world.published(1).await;
            ready(&running).await;
            away(&world, true);
            pass(20).await;
            assert_eq!(missing(&running), [], "{changes:?} is not given any time");
            let error = lacks(&running, "nomad").await;
            assert!(error.contains("Nomad"), "{changes:?}: {error}");
            pass(10 * MINUTE).await;
            lacks(&running, "nomad").await;
            away(&world, false);
            ready(&running).await;
            running.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_consul_that_is_away_is_named_until_it_is_back() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    ready(&running).await;
    world.consul.partition(true);
    let error = lacks(&running, "leader").await;
    assert!(error.contains("Consul"), "{error}");
    assert_eq!(running.metrics.leader.get(), 0);
    world.consul.partition(false);
    ready(&running).await;
    until("a term", || running.metrics.leader.get() == 1).await;
    assert!(running.metrics.elections_failed.get() > 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_is_named_until_a_call_gets_through() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    ready(&running).await;
    for _ in 0..200 {
        world.sink.fault(Fault::Away);
    }
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    let error = lacks(&running, "sink").await;
    assert!(error.contains("injected"), "{error}");
    // Nobody asks Nomad for more than has room, and that is not its fault.
    pass(20 * MINUTE).await;
    lacks(&running, "sink").await;
    assert_eq!(running.metrics.queue_records.get(), 1);
    world.published(2).await;
    ready(&running).await;
    assert_eq!(running.metrics.queue_records.get(), 0);
    assert_eq!(running.metrics.queue_bytes.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_some_of_a_call_or_refuses_a_record_is_reachable() {
    let world = one_node();
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.sink.fault(Fault::LoseFirst);
    let running = world.start::<Nodes>();
    world.published(1).await;
    assert_eq!(missing(&running), []);
    world.published(2).await;
    world.nomad.upsert(Table::Nodes, node("c", "ready"));
    world.published(3).await;
    let key = world.sink.records()[0].key.to_string();
    world.sink.fault(Fault::Refuse(vec![key]));
    let name = world.sink.bodies()[0]["Name"].as_str().unwrap().to_owned();
    world.nomad.upsert(Table::Nodes, node(&name, "down"));
    until("a refusal", || running.metrics.records_rejected.get() == 1).await;
    assert_eq!(missing(&running), []);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_is_noticed() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    ready(&running).await;
    world.sink.fault(Fault::Hang);
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    let error = lacks(&running, "sink").await;
    assert!(error.contains("no answer"), "{error}");
    running.kill().await;
}
