//! The checkpoint: fenced by the lock, and found again whatever was done to it.

use std::time::Duration;

use nomad_firehose::{
    cursor::{Cursor, Index, Kind, Mark},
    leader::{Leader, LeaderError, Term, consul},
    shutdown,
};
use reqwest::Method;

use super::{
    World,
    consul::Agent,
    firehose::{change, events, names, nodes, repeated, wait},
};

const LOCK: &str = "nomad-firehose/nodes.lock";
const VALUE: &str = "nomad-firehose/nodes.value";
const CURSOR: &str = "nomad-firehose/nodes.cursor";
const MAGIC: &str = "nomad-firehose-cursor-1 ";

fn leader(consul_agent: &Agent) -> Box<dyn Leader> {
    let (ttl, lock_delay) = (Duration::from_secs(10), Duration::from_secs(1));
    consul(consul_agent.api.clone(), "nomad-firehose", "nodes", ttl, lock_delay)
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

#[tokio::test]
async fn a_term_whose_lock_another_has_cannot_move_the_checkpoint() {
    let consul = Agent::start().await;
    let (first, second) = (leader(&consul), leader(&consul));
    let deposed = elected(&*first).await;
    deposed.load().await.unwrap();
    deposed.save(&mut moved(5)).await.unwrap();
    let session = consul.holder(LOCK).await;
    consul.ask(Method::PUT, &format!("/v1/session/destroy/{session}"), "").await.unwrap();
    let successor = elected(&*second).await;
    let before = (consul.entry(VALUE).await, consul.entry(CURSOR).await);
    assert!(matches!(deposed.save(&mut moved(7)).await, Err(LeaderError::Over)));
    assert!(!deposed.holds());
    assert_eq!((consul.entry(VALUE).await, consul.entry(CURSOR).await), before);
    successor.load().await.unwrap();
    successor.save(&mut moved(9)).await.unwrap();
    let after = (consul.entry(VALUE).await, consul.entry(CURSOR).await);
    assert!(matches!(deposed.save(&mut moved(8)).await, Err(LeaderError::Over)));
    assert_eq!((consul.entry(VALUE).await, consul.entry(CURSOR).await), after);
    assert_eq!(consul.value(VALUE).await.as_deref(), Some("9"));
    successor.resign().await;
}

#[tokio::test]
async fn a_session_that_is_gone_cannot_move_the_checkpoint_although_nobody_has_the_lock() {
    let consul = Agent::start().await;
    let term = elected(&*leader(&consul)).await;
    term.load().await.unwrap();
    let session = consul.holder(LOCK).await;
    consul.ask(Method::PUT, &format!("/v1/session/destroy/{session}"), "").await.unwrap();
    assert!(matches!(term.save(&mut moved(5)).await, Err(LeaderError::Over)));
    assert_eq!(consul.entry(CURSOR).await, None);
    term.over().await;
}

#[tokio::test]
async fn a_checkpoint_overwritten_by_hand_while_running_is_saved_again() {
    let world = World::new().await;
    change(&world.nomad, 0);
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    wait("a checkpoint", async || world.consul.entry(CURSOR).await).await;
    world.consul.put(CURSOR, "by hand").await;
    change(&world.nomad, 1);
    running.publishes(2).await;
    wait("another checkpoint", async || {
        world.consul.value(CURSOR).await.filter(|it| it.starts_with(MAGIC))
    })
    .await;
    assert_eq!(names(&running.stop().await.out), nodes(2));
    let next = world.stream("nodes").start();
    change(&world.nomad, 2);
    next.publishes(1).await;
    assert_eq!(names(&next.stop().await.out), nodes(3)[2..]);
}

#[tokio::test]
async fn a_checkpoint_cut_short_is_an_error_and_the_go_tools_position_is_taken_up_instead() {
    let world = World::new().await;
    change(&world.nomad, 0);
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    world.saved(VALUE, world.nomad.index() - 1).await;
    running.stop().await;
    let whole = world.consul.value(CURSOR).await.unwrap();
    world.consul.put(CURSOR, &whole[..whole.len() / 2]).await;
    change(&world.nomad, 1);
    let running = world.stream("nodes").start();
    running.publishes(1).await;
    let finished = running.stop().await;
    let error =
        finished.log.lines().find(|it| it.contains("our checkpoint cannot be read")).unwrap();
    assert!(error.contains("ERROR"), "{error}");
    assert_eq!(names(&finished.out), nodes(2)[1..]);
    assert!(world.consul.value(CURSOR).await.unwrap().starts_with(MAGIC));
}

#[tokio::test]
async fn a_checkpoint_of_task_events_cut_short_publishes_all_that_nomad_holds() {
    let world = World::new().await;
    change(&world.nomad, 0);
    let running = world.stream("allocations").start();
    running.publishes(2).await;
    running.stop().await;
    let key = "nomad-firehose/allocations.cursor";
    let whole = world.consul.value(key).await.unwrap();
    world.consul.put(key, &whole[..whole.len() / 2]).await;
    change(&world.nomad, 1);
    let running = world.stream("allocations").start();
    running.publishes(4).await;
    let finished = running.stop().await;
    assert!(finished.log.contains("ERROR"), "{}", finished.log);
    assert_eq!(repeated(&events(2), &names(&finished.out)), [""; 0]);
}
