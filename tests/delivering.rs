//! How records get through a sink that takes some of them, or none for a time: with a paused clock.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use nomad_firehose::{
    record::Limits,
    sink::Again,
    streams::{Allocations, Evaluations},
};
use tokio::time::Instant;

use crate::support::{
    Fault, Table, Version, World, allocation, evaluation, pass, times, until, uuid,
};

/// More calls than there are in any of these tests.
const ALWAYS: u32 = u32::MAX;

/// A world with a sink that can fail records one by one.
fn one_by_one(records: usize) -> World {
    let mut world = World::new(Version::V2_0);
    world.sink.limits = Limits { records, one_per_key: true, ..Limits::default() };
    world
}

fn name(number: usize) -> String {
    format!("e{number:03}")
}

/// The key of the evaluation with this number.
fn key(number: usize) -> String {
    format!("default/{}", uuid(&name(number)))
}

fn subjects(numbers: Range<usize>) -> Vec<String> {
    numbers.map(|it| uuid(&name(it))).collect()
}

/// These evaluations, all at one index.
fn change(world: &World, numbers: Range<usize>, status: &str) {
    let row = |it| (Table::Evaluations, evaluation(&name(it), "default", status));
    world.nomad.upsert_many(numbers.map(row).collect::<Vec<_>>());
}

fn unique(ids: &[String]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_for_an_hour_holds_up_no_other() {
    let world = one_by_one(10);
    world.sink.fail(&key(0), ALWAYS);
    change(&world, 0..30, "pending");
    let running = world.start::<Evaluations>();
    world.published(29).await;
    for round in 0..60 {
        let since = Instant::now();
        let numbers = 30 + round * 20..50 + round * 20;
        let count = numbers.end - 1;
        change(&world, numbers, "pending");
        world.published(count).await;
        assert!(since.elapsed() < Duration::from_secs(10), "{round}: {:?}", since.elapsed());
        pass(60).await;
    }
    assert!(!world.sink.subjects().contains(&uuid(&name(0))));
    world.sink.fail(&key(0), 0);
    let since = Instant::now();
    let count = 30 + 60 * 20;
    world.published(count).await;
    assert!(since.elapsed() <= Duration::from_secs(31), "{:?}", since.elapsed());
    pass(60).await;
    let came: BTreeSet<_> = world.sink.subjects().into_iter().collect();
    assert_eq!(came, subjects(0..count).into_iter().collect());
    assert_eq!(world.sink.count(), count, "something was sent again");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_is_tried_less_and_less_often_however_much_else_gets_through() {
    let world = one_by_one(10);
    world.sink.fail(&key(0), ALWAYS);
    change(&world, 0..1, "pending");
    let running = world.start::<Evaluations>();
    for number in 1..600 {
        change(&world, number..number + 1, "pending");
        pass(1).await;
    }
    until("the others", || world.sink.count() == 599).await;
    // At most every 15 s once it has failed some times.
    let retries = running.metrics.retries_transient.get();
    assert!((600 / 30..60).contains(&retries), "{retries} retries");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_keeps_its_order_while_others_go_on() {
    let world = one_by_one(4);
    let failing = uuid("a");
    world.sink.fail(&failing, ALWAYS);
    let running = world.start::<Allocations>();
    for time in 1..=8 {
        world.nomad.upsert(Table::Allocations, allocation("a", &(1..=time).collect::<Vec<_>>()));
        world.nomad.upsert(Table::Allocations, allocation("b", &[100 + time]));
        pass(60).await;
    }
    let (a, b): (Vec<i64>, Vec<i64>) = times(&world.sink).into_iter().partition(|it| *it < 100);
    assert_eq!((a, b), (vec![], (101..=108).collect::<Vec<_>>()));
    world.sink.fail(&failing, 0);
    world.published(16).await;
    let a: Vec<i64> = times(&world.sink).into_iter().filter(|it| *it < 100).collect();
    assert_eq!(a, (1..=8).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn checkpoints_go_on_while_a_record_fails_and_never_pass_it() {
    let world = one_by_one(10);
    world.sink.fail(&key(5), ALWAYS);
    change(&world, 0..5, "pending");
    change(&world, 5..6, "pending");
    let failed_at = world.nomad.index();
    let running = world.start::<Evaluations>();
    world.published(5).await;
    let mut saved = running.metrics.checkpoints_saved.get();
    for round in 1..10 {
        change(&world, round * 10..round * 10 + 10, "pending");
        pass(30).await;
        assert!(running.metrics.checkpoints_saved.get() > saved, "{round}");
        saved = running.metrics.checkpoints_saved.get();
        let floor: u64 = world.value::<Evaluations>().unwrap().parse().unwrap();
        assert!(floor < failed_at, "{floor} is not below {failed_at}");
    }
    assert_eq!(world.sink.count(), 95);
    running.kill().await;
    world.sink.fail(&key(5), 0);
    let running = world.start::<Evaluations>();
    world.published(96).await;
    pass(60).await;
    // What was confirmed and saved does not come again, although the position is below it.
    assert!(unique(&world.sink.ids()));
    assert_eq!(world.sink.subjects().last(), Some(&uuid(&name(5))));
    running.stop().await;
    let floor: u64 = world.value::<Evaluations>().unwrap().parse().unwrap();
    assert_eq!(floor, world.nomad.index());
}

#[tokio::test(start_paused = true)]
async fn what_changes_again_while_it_fails_is_published_in_its_order_after_a_crash() {
    let world = one_by_one(10);
    world.sink.fail(&key(0), ALWAYS);
    let running = world.start::<Evaluations>();
    for status in ["pending", "blocked"] {
        change(&world, 0..3, status);
        pass(30).await;
    }
    running.kill().await;
    let running = world.start::<Evaluations>();
    change(&world, 0..3, "complete");
    pass(30).await;
    world.sink.fail(&key(0), 0);
    until("the last of it", || {
        let last = world.sink.bodies().into_iter().rfind(|it| it["ID"] == uuid(&name(0)).as_str());
        last.is_some_and(|it| it["Status"] == "complete")
    })
    .await;
    pass(60).await;
    running.stop().await;
    assert!(unique(&world.sink.ids()));
    let bodies = world.sink.bodies();
    for number in 1..3 {
        let of = bodies.iter().filter(|it| it["ID"] == uuid(&name(number)).as_str());
        let came: Vec<_> = of.map(|it| it["Status"].as_str().unwrap()).collect();
        assert_eq!(came, ["pending", "blocked", "complete"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_fills_its_calls() {
    let world = one_by_one(20);
    world.sink.fault(Fault::Away);
    change(&world, 0..100, "pending");
    let running = world.start::<Evaluations>();
    world.published(100).await;
    running.stop().await;
    assert_eq!(world.sink.calls(), [20; 6]);
    assert_eq!(world.sink.subjects(), subjects(0..100));
}

#[tokio::test(start_paused = true)]
async fn what_fails_together_comes_back_together() {
    let world = one_by_one(20);
    (0..20).for_each(|it| world.sink.fail(&key(it), 3));
    change(&world, 0..100, "pending");
    let running = world.start::<Evaluations>();
    world.published(100).await;
    running.stop().await;
    assert_eq!(world.sink.calls().len(), 3 + 100 / 20, "{:?}", world.sink.calls());
    assert!(unique(&world.sink.ids()));
}

/// What is waited between a call that fails like this and the next one.
async fn wait_after(again: Again) -> Duration {
    let world = one_by_one(10);
    world.sink.fault(Fault::AwayFor(again));
    change(&world, 0..3, "pending");
    let running = world.start::<Evaluations>();
    until("a call", || world.sink.calls().len() == 1).await;
    // What comes meanwhile does not make it more urgent.
    change(&world, 3..6, "pending");
    world.published(6).await;
    running.stop().await;
    let times = world.sink.call_times();
    times[1] - times[0]
}

#[tokio::test(start_paused = true)]
async fn the_receiver_says_how_long_it_is_left_alone() {
    let second = Duration::from_secs(1);
    for (asked, least, most) in [(0, 0, 1), (2, 2, 3), (90, 90, 91), (3_600, 300, 301)] {
        let waited = wait_after(Again::After(asked * second)).await;
        assert!(waited >= least * second && waited <= most * second, "{asked}: {waited:?}");
    }
    let soon = wait_after(Again::Soon).await;
    assert!(soon <= Duration::from_millis(300), "{soon:?}");
    let seldom = wait_after(Again::Seldom).await;
    assert!(seldom >= Duration::from_millis(2_500) && seldom <= 6 * second, "{seldom:?}");
}
