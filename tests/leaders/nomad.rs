//! What can happen with Nomad's variables only.

use std::time::Duration;

use nomad_firehose::{
    api::{self, Items, Variables, Written},
    cursor::{Index, Mark, Saved},
    leader::LeaderError,
    standin::{Fault, nomad::Table},
    streams::{Allocations, Nodes},
};
use tokio::time::{Instant, timeout};

use super::{
    backends::Nomad,
    contract::{Backend, LOCK_DELAY, TTL, renewed},
    steps::{Link, above, elected, moved, standby, tail, tails, task},
};
use crate::support::{Version, World, allocation, client, node, pass, until};

const LOCK: &str = "nomad-firehose/nodes/lock";
const CURSOR: &str = "nomad-firehose/nodes/cursor";

/// Nomad's variables, as any client may use them.
fn variables(backend: &Nomad) -> Variables {
    api::Nomad::stand_in(backend.0.router(), client()).variables("default")
}

fn items(backend: &Nomad, path: &str) -> Items {
    backend.0.variable("default", path).unwrap().items
}

fn index(backend: &Nomad, path: &str) -> u64 {
    backend.0.variable("default", path).unwrap().modify_index
}

/// How many requests of a method there were for paths that begin so, with this in the query.
fn asked(nomad: &nomad_firehose::standin::nomad::Nomad, method: &str, what: &str) -> usize {
    let requests = nomad.requests();
    requests.iter().filter(|it| it.method == *method && it.query.contains(what)).count()
}

#[tokio::test(start_paused = true)]
async fn each_term_counts_on_from_the_last_before_it_publishes_anything() {
    let backend = Nomad::new().await;
    for epoch in 1..=3 {
        let term = elected(&*backend.leader(&Link::default())).await;
        assert_eq!(items(&backend, CURSOR)["epoch"], epoch.to_string());
        term.resign().await;
    }
    let term = elected(&*backend.leader(&Link::default())).await;
    term.save(&mut tails(10)).await.unwrap();
    assert_eq!(items(&backend, "nomad-firehose/nodes/tails/0")["epoch"], "4");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_an_old_term_writes_late_is_replaced_by_the_new_one() {
    let backend = Nomad::new().await;
    let path = "nomad-firehose/nodes/tails/0";
    let old = elected(&*backend.leader(&Link::default())).await;
    old.save(&mut tails(10)).await.unwrap();
    let (written, at) = (items(&backend, path), index(&backend, path));
    drop(old);
    let new = elected(&*backend.leader(&Link::default())).await;
    let Saved::Ours(mut cursor) = new.load().await.unwrap() else { panic!("not ours") };
    // The request of the old term was under way all the time, and gets there now.
    let late = variables(&backend).write(path, &written, at).await.unwrap();
    assert!(matches!(late, Written::At(_)));
    cursor.apply(Mark::Task(task(3), tail(6)));
    new.save(&mut cursor).await.unwrap();
    assert!(new.holds());
    // Another one that gets there after that is refused, at whatever index the old term knew.
    let Written::At(known) = late else { panic!("it was refused") };
    for known in [at, known, 0] {
        let later = variables(&backend).write(path, &written, known).await.unwrap();
        assert_eq!(later, Written::Conflict);
    }
    new.resign().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let Saved::Ours(cursor) = term.load().await.unwrap() else { panic!("not ours") };
    assert_eq!((cursor.tail(task(3)), cursor.tail(task(4))), (Some(tail(6)), Some(tail(5))));
}

#[tokio::test(start_paused = true)]
async fn an_old_term_that_still_believes_in_its_lock_cannot_save_once_another_has_begun() {
    let backend = Nomad::new().await;
    let old = elected(&*backend.leader(&Link::default())).await;
    old.save(&mut moved(5)).await.unwrap();
    // The lock fails to do what it is for: somebody who knows its id releases it.
    let id = backend.0.variable("default", LOCK).unwrap().lock.unwrap().id;
    let new = standby(backend.leader(&Link::default()));
    backend.0.script("GET /v1/var/nomad-firehose%2Fnodes%2Flock", Fault::Hang);
    assert!(variables(&backend).release(LOCK, &id).await.unwrap());
    let new = new.await.unwrap();
    assert!(matches!(old.save(&mut tails(10)).await, Err(LeaderError::Over)));
    assert!(!old.holds());
    new.save(&mut moved(6)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_fit_is_replaced_as_a_whole_or_not_at_all() {
    let backend = Nomad::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let mut cursor = above(3_000);
    term.save(&mut cursor).await.unwrap();
    for floor in [10, 11, 12] {
        renewed().await;
        cursor.apply(Mark::Object { key: 2, index: Index(u64::MAX / 2), hash: 4 * floor });
        cursor.reach(Index(floor));
        // Everything is written but the variable that says where it is.
        (0..3).for_each(|_| backend.0.script("PUT", Fault::Delay(Duration::ZERO)));
        backend.0.script("PUT", Fault::status(500, "rpc error"));
        assert!(matches!(term.save(&mut cursor).await, Err(LeaderError::Unavailable { .. })));
        assert_eq!(backend.0.faults_left(), 0);
        let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
        assert!(back.floor() < Index(floor));
        assert_eq!(back.object(u64::MAX - 2_999), cursor.object(u64::MAX - 2_999));
        term.save(&mut cursor).await.unwrap();
        let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
        assert_eq!((back.floor(), back.object(2)), (Index(floor), cursor.object(2)));
    }
    // Two places, of which one is read and the other written.
    let beside =
        backend.0.variables().into_iter().filter(|it| it.starts_with(&format!("{CURSOR}/")));
    assert_eq!(beside.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_head_in_parts_is_whole_after_an_answer_was_lost_and_the_next_save_broke_off() {
    let backend = Nomad::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let mut cursor = above(3_000);
    for floor in [10, 11, 12, 13] {
        renewed().await;
        term.save(&mut cursor).await.unwrap();
        cursor.reach(Index(floor));
        (0..3).for_each(|_| backend.0.script("PUT", Fault::Delay(Duration::ZERO)));
        backend.0.script("PUT", Fault::LoseAnswer);
        term.save(&mut cursor).await.unwrap_err();
        // Of the next one only the first part is written.
        cursor.apply(Mark::Object { key: 2, index: Index(u64::MAX / 2), hash: 4 * floor });
        backend.0.script("PUT", Fault::Delay(Duration::ZERO));
        backend.0.script("PUT", Fault::status(500, "rpc error"));
        term.save(&mut cursor).await.unwrap_err();
        assert_eq!(backend.0.faults_left(), 0);
        let Saved::Ours(back) = term.load().await.unwrap() else { panic!("it is torn") };
        assert_eq!(back.floor(), Index(floor));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_lost_is_never_released() {
    let backend = Nomad::new().await;
    let leader = backend.leader(&Link::default());
    let term = elected(&*leader).await;
    pass(20).await;
    backend.0.expire_lock("default", LOCK);
    timeout(TTL, term.over()).await.unwrap();
    term.resign().await;
    assert_eq!(asked(&backend.0, "PUT", "lock-release"), 0);
    // It is elected again, under another name, once the lock is gone.
    let begun = Instant::now();
    let term = elected(&*leader).await;
    assert!(begun.elapsed() <= LOCK_DELAY + Duration::from_secs(1), "{:?}", begun.elapsed());
    pass(60).await;
    assert!(term.holds());
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_that_hits_the_wrong_lock_ends_the_term_within_a_second() {
    let backend = Nomad::new().await;
    // Another program expires, and releases its lock within the delay.
    let (ttl, delay) = (Duration::from_secs(10), Duration::from_millis(31_600));
    variables(&backend).acquire(LOCK, "other", &Items::new(), ttl, delay).await.unwrap();
    backend.0.expire_lock("default", LOCK);
    let expired = Instant::now();
    assert!(variables(&backend).release(LOCK, "other").await.unwrap());
    let leader = backend.leader(&Link::default());
    let term = elected(&*leader).await;
    term.over().await;
    assert!(expired.elapsed() < delay + Duration::from_secs(1), "{:?}", expired.elapsed());
    let term = elected(&*leader).await;
    pass(120).await;
    assert!(term.holds());
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_deleted_ends_the_term() {
    let backend = Nomad::new().await;
    let leader = backend.leader(&Link::default());
    let term = elected(&*leader).await;
    backend.0.delete_variable("default", LOCK);
    timeout(Duration::from_secs(1), term.over()).await.unwrap();
    elected(&*leader).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_deleted_before_it_is_read_starts_a_new_term() {
    let backend = Nomad::new().await;
    let leader = backend.leader(&Link::default());
    let term = elected(&*leader).await;
    backend.0.delete_variable("default", CURSOR);
    assert!(matches!(term.load().await, Err(LeaderError::Over)));
}

#[tokio::test(start_paused = true)]
async fn another_leader_among_the_servers_ends_no_term() {
    let backend = Nomad::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let next = standby(backend.leader(&Link::default()));
    for _ in 0..10 {
        pass(13).await;
        backend.0.change_leader();
    }
    assert!(term.holds() && !next.is_finished());
    next.abort();
}

#[tokio::test(start_paused = true)]
async fn a_standby_asks_seldom_whatever_others_do_to_the_lock() {
    let backend = Nomad::new().await;
    backend.0.hide_locks(true);
    let term = elected(&*backend.leader(&Link::default())).await;
    let next = standby(backend.leader(&Link::default()));
    pass(60).await;
    let before = asked(&backend.0, "PUT", "lock-acquire");
    pass(600).await;
    let attempts = asked(&backend.0, "PUT", "lock-acquire") - before;
    assert!(attempts <= 45, "{attempts} attempts to lock within ten minutes");
    // Somebody writes the variable all the time.
    for _ in 0..200 {
        backend.0.put_variable("default", LOCK, Items::from([("a".into(), "b".into())]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let attempts = asked(&backend.0, "PUT", "lock-acquire") - before - attempts;
    assert!(attempts <= 21, "{attempts} attempts to lock within ten seconds");
    assert!(term.holds());
    next.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_firehose_writes_nothing_and_its_own_writes_wake_no_list() {
    let world = World::new(Version::V2_0);
    world.nomad.upsert(Table::Nodes, node("a", "ready"));
    let api = api::Nomad::stand_in(world.nomad.router(), client()).variables("default");
    let leader = nomad_firehose::leader::nomad(api, "fire", "nodes", TTL, LOCK_DELAY).unwrap();
    let running = world.start_with::<Nodes>(leader);
    world.published(1).await;
    pass(60).await;
    let lists = || world.nomad.requests().iter().filter(|it| it.path == "/v1/nodes").count();
    let (index, writes, read) = (world.nomad.index(), asked(&world.nomad, "PUT", "cas"), lists());
    pass(3_600).await;
    assert_eq!((world.nomad.index(), asked(&world.nomad, "PUT", "cas")), (index, writes));
    // One list in five minutes, which blocks as long as nothing changes.
    assert!(lists() - read <= 13, "{} lists", lists() - read);
    assert!(world.consul.requests().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn copies_take_over_from_one_another_and_publish_each_event_once() {
    let world = World::new(Version::V2_0);
    let leader = || {
        let api = api::Nomad::stand_in(world.nomad.router(), client()).variables("default");
        nomad_firehose::leader::nomad(api, "fire", "allocations", TTL, LOCK_DELAY).unwrap()
    };
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let mut running = world.start_with::<Allocations>(leader());
    for number in 1..=5 {
        let next = world.start_with::<Allocations>(leader());
        pass(20).await;
        world.published(number).await;
        if number % 2 == 0 {
            running.stop().await;
        } else {
            running.kill().await;
        }
        running = next;
        let times: Vec<i64> = (1..=i64::try_from(number).unwrap() + 1).collect();
        world.nomad.upsert(Table::Allocations, allocation("a", &times));
        world.published(number + 1).await;
    }
    pass(60).await;
    assert_eq!(world.sink.count(), 6);
    until("one term", || running.metrics.terms.get() == 1).await;
    running.stop().await;
}
