//! Who publishes, and from where, when processes and Consul come and go.

use std::time::Duration;

use nomad_firehose::{
    api::LOCK_FLAGS,
    cursor::{Cursor, Index, Kind, Mark, Saved},
    leader::{Leader, LeaderError, Term, solo},
    shutdown,
    standin::{Fault as ServerFault, nomad::Table},
    streams::{Allocations, Nodes, Resource},
};
use tokio::time::Instant;

use crate::support::{Fault, Version, World, allocation, node, one_node, pass, until, uuid};

const LOCK: &str = "nomad-firehose/nodes.lock";
const CURSOR: &str = "nomad-firehose/nodes.cursor";
const VALUE: &str = "nomad-firehose/nodes.value";

fn holder(world: &World) -> Option<String> {
    world.consul.entry(LOCK).and_then(|it| it.session)
}

async fn elected(leader: &dyn Leader) -> Box<dyn Term> {
    let (_trigger, stop) = shutdown::channel();
    leader.elect(&stop).await.unwrap().unwrap()
}

fn moved(floor: u64) -> Cursor {
    let mut cursor = Cursor::new(Kind::Objects);
    cursor.apply(Mark::Object { key: 1, index: Index(floor), hash: 1 });
    cursor.reach(Index(floor));
    cursor
}

#[tokio::test(start_paused = true)]
async fn a_second_copy_stands_by_and_takes_over_within_a_second_of_a_clean_stop() {
    let world = one_node();
    let first = world.start::<Nodes>();
    world.published(1).await;
    let second = world.start::<Nodes>();
    pass(30).await;
    assert_eq!((first.metrics.terms.get(), second.metrics.terms.get()), (1, 0));
    let asked = Instant::now();
    first.stop().await;
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.published(2).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    pass(600).await;
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_copy_takes_over_within_25_seconds_of_a_crash() {
    let world = one_node();
    let first = world.start::<Nodes>();
    world.published(1).await;
    let second = world.start::<Nodes>();
    pass(30).await;
    first.kill().await;
    let crashed = Instant::now();
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.published(2).await;
    assert!(crashed.elapsed() < Duration::from_secs(25), "{:?}", crashed.elapsed());
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_standby_stops_at_once_and_leaves_no_session_behind() {
    let world = one_node();
    let first = world.start::<Nodes>();
    world.published(1).await;
    let second = world.start::<Nodes>();
    pass(10).await;
    assert_eq!(world.consul.sessions().len(), 2);
    let asked = Instant::now();
    second.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(world.consul.sessions().len(), 1);
    first.stop().await;
    assert!(world.consul.sessions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_session_is_gone_stops_and_competes_again_without_exiting() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(20).await;
    world.consul.expire(&holder(&world).unwrap());
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.published(2).await;
    assert_eq!(running.metrics.terms.get(), 2);
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_deleted_or_overwritten_ends_the_term_and_is_taken_again() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(20).await;
    world.consul.delete(LOCK);
    until("a second term", || running.metrics.terms.get() == 2).await;
    // A plain write resets the flags, and leaves the lock to the session: releasing it mends it.
    world.consul.put(LOCK, "somebody's value");
    until("a third term", || running.metrics.terms.get() == 3).await;
    assert_eq!(world.consul.entry(LOCK).unwrap().flags, LOCK_FLAGS);
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.published(2).await;
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_in_use_for_something_else_is_left_alone() {
    let world = one_node();
    world.consul.put(LOCK, "somebody's value");
    let running = world.start::<Nodes>();
    pass(600).await;
    assert_eq!((running.metrics.terms.get(), world.sink.count()), (0, 0));
    assert_eq!(&world.consul.entry(LOCK).unwrap().value[..], b"somebody's value");
    assert!(world.consul.sessions().len() <= 1, "sessions pile up");
    let asked = world.consul.requests().len();
    assert!(asked < 600, "asked {asked} times");
    world.consul.delete(LOCK);
    world.published(1).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_once_consul_has_been_away_for_the_ttl_and_nothing_is_lost() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(20).await;
    world.consul.partition(true);
    pass(11).await;
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    pass(300).await;
    assert_eq!(world.sink.count(), 1);
    world.consul.partition(false);
    world.published(2).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn publishing_goes_on_while_consul_is_away_for_less_than_the_ttl() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(20).await;
    world.consul.partition(true);
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    pass(3).await;
    assert_eq!(world.sink.count(), 2);
    world.consul.partition(false);
    pass(60).await;
    assert_eq!(running.metrics.terms.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_copies_never_hold_at_once_whatever_becomes_of_consul() {
    let world = one_node();
    let leaders = [world.leader::<Nodes>(), world.leader::<Nodes>()];
    let first = elected(&*leaders[0]).await;
    let session = holder(&world).unwrap();
    // Only the holder is cut off: Consul goes on, ends its session, and lets the other in.
    world.consul.script("/v1/session/renew", ServerFault::status(500, "rpc error"));
    for _ in 0..60 {
        world.consul.script("/v1/session/renew", ServerFault::status(500, "rpc error"));
    }
    let second = tokio::spawn(async move { elected(&*leaders[1]).await });
    let mut waited = 0;
    while !second.is_finished() && waited < 600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        waited += 1;
    }
    let second = second.await.unwrap();
    assert!(!first.holds(), "the first still believes in its term");
    assert_ne!(holder(&world).unwrap(), session);
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_cannot_move_the_checkpoint() {
    let world = one_node();
    let leader = world.leader::<Nodes>();
    let first = elected(&*leader).await;
    first.load().await.unwrap();
    first.save(&mut moved(5)).await.unwrap();
    world.consul.expire(&holder(&world).unwrap());
    let second = elected(&*leader).await;
    second.load().await.unwrap();
    second.save(&mut moved(9)).await.unwrap();
    let (cursor, value) = (world.consul.value(CURSOR), world.consul.value(VALUE));
    assert!(matches!(first.save(&mut moved(7)).await, Err(LeaderError::Over)));
    assert!(!first.holds());
    assert_eq!((world.consul.value(CURSOR), world.consul.value(VALUE)), (cursor, value));
    second.resign().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_whose_answer_was_lost_is_saved_by_the_next_attempt() {
    let world = one_node();
    let leader = world.leader::<Nodes>();
    let term = elected(&*leader).await;
    term.load().await.unwrap();
    term.save(&mut moved(5)).await.unwrap();
    world.consul.script("/v1/txn", ServerFault::LoseAnswer);
    assert!(matches!(term.save(&mut moved(7)).await, Err(LeaderError::Unavailable { .. })));
    assert_eq!(world.consul.value(VALUE).as_deref(), Some(&b"7"[..]));
    term.save(&mut moved(9)).await.unwrap();
    assert_eq!(world.consul.value(VALUE).as_deref(), Some(&b"9"[..]));
    term.resign().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_overwritten_by_hand_is_saved_again() {
    let world = one_node();
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(20).await;
    world.consul.put(CURSOR, "by hand");
    world.nomad.upsert(Table::Nodes, node("b", "ready"));
    world.published(2).await;
    running.stop().await;
    assert!(world.consul.value(CURSOR).unwrap().starts_with(b"nomad-firehose-cursor-1 "));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_not_write_is_reported_and_publishing_stays_within_its_bound() {
    let world = one_node();
    world.consul.deny_writes(Some("nomad-firehose/nodes.cursor".into()));
    let running = world.start::<Nodes>();
    world.published(1).await;
    pass(60).await;
    assert!(running.metrics.checkpoint_errors.get() > 0);
    assert!(running.metrics.checkpoint_errors.get() < 20, "tried too often");
    assert_eq!(running.metrics.terms.get(), 1);
    world.consul.deny_writes(None);
    until("a checkpoint", || world.value::<Nodes>().is_some()).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_call_to_the_sink_begins_after_the_term_is_over() {
    let world = one_node();
    world.sink.fault(Fault::Away);
    let running = world.start::<Nodes>();
    until("the first call", || world.sink.calls().len() == 1).await;
    world.consul.partition(true);
    // The receiver is back, but nobody may publish now.
    pass(10).await;
    let calls = world.sink.calls().len();
    pass(300).await;
    assert_eq!(world.sink.calls().len(), calls);
    world.consul.partition(false);
    world.published(1).await;
    running.stop().await;
}

async fn contract(leader: &dyn Leader) {
    let term = elected(leader).await;
    assert!(matches!(term.load().await.unwrap(), Saved::Nothing));
    assert!(term.holds());
    let mut cursor = moved(5);
    term.save(&mut cursor).await.unwrap();
    cursor.reach(Index(8));
    term.save(&mut cursor).await.unwrap();
    term.resign().await;
    let term = elected(leader).await;
    let Saved::Ours(cursor) = term.load().await.unwrap() else { panic!("not ours") };
    assert_eq!(cursor.floor(), Index(8));
    term.resign().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_outlives_its_term_in_consul() {
    let world = one_node();
    contract(&*world.leader::<Nodes>()).await;
}

#[tokio::test]
async fn a_checkpoint_outlives_its_term_in_memory_and_in_a_directory() {
    contract(&*solo(None, "nodes")).await;
    let dir = tempfile::tempdir().unwrap();
    contract(&*solo(Some(dir.path().to_owned()), "nodes")).await;
    // Another process, so to say.
    let again = solo(Some(dir.path().to_owned()), "nodes");
    let Saved::Ours(cursor) = elected(&*again).await.load().await.unwrap() else { panic!() };
    assert_eq!(cursor.floor(), Index(8));
}

#[tokio::test(start_paused = true)]
async fn a_solo_process_publishes_without_consul() {
    let world = World::new(Version::V1_0);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start_with::<Allocations>(solo(None, Allocations::LOCK));
    world.published(1).await;
    running.stop().await;
    assert!(world.consul.requests().is_empty());
}
