//! What a process that ended badly leaves to the next one: a checkpoint that is never ahead of
//! what was written.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
};

use nomad_firehose::standin::nomad::Table;
use tokio::task::spawn_blocking;

use super::{
    World,
    firehose::{Changes, FAILED, change, events, names, nodes, repeated, wait, when},
    saved_floor,
};
use crate::support::node;

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_process_and_the_next_one_goes_on_with_what_it_missed() {
    let world = World::with(1).await;
    let dir = tempfile::tempdir().unwrap();
    let (process, out) = world.solo("nodes", dir.path()).start_unread();
    let mut out = BufReader::new(out);
    let read = spawn_blocking(move || out.read_line(&mut String::new()).map(|_| out));
    let out = read.await.unwrap().unwrap();
    wait("a checkpoint", async || saved_floor(dir.path())).await;
    drop(out);
    let missed = world.nomad.upsert(Table::Nodes, node("n00001", "ready"));
    let finished = process.finished().await;
    assert_eq!(finished.code, Some(FAILED), "{}", finished.log);
    assert!(
        finished.log.contains("ERROR") && finished.log.contains("Broken pipe"),
        "{}",
        finished.log
    );
    assert!(saved_floor(dir.path()).unwrap() < missed);
    let next = world.solo("nodes", dir.path()).start();
    next.publishes(1).await;
    assert_eq!(names(&next.stop().await.out), ["n00001"]);
}

#[tokio::test]
async fn a_full_disk_ends_the_process_and_leaves_no_checkpoint() {
    let world = World::with(3).await;
    let dir = tempfile::tempdir().unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let finished = world.solo("nodes", dir.path()).start_into(full).finished().await;
    assert_eq!(finished.code, Some(FAILED), "{}", finished.log);
    assert!(finished.log.contains("No space left"), "{}", finished.log);
    assert_eq!(saved_floor(dir.path()), None);
    let next = world.solo("nodes", dir.path()).start();
    next.publishes(3).await;
    assert_eq!(repeated(&nodes(3), &next.out.names()), [""; 0]);
    next.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_takes_over_from_one_that_is_killed() {
    let world = World::with(20).await;
    let dir = tempfile::tempdir().unwrap();
    let mut first = world.solo("nodes", dir.path()).start();
    first.publishes(20).await;
    let second = world.solo("nodes", dir.path()).start();
    second.logs("standing by").await;
    wait("a checkpoint", async || saved_floor(dir.path())).await;
    for number in 20..40 {
        change(&world.nomad, number);
    }
    first.publishes(40).await;
    first.kill();
    let saved = saved_floor(dir.path()).unwrap();
    change(&world.nomad, 40);
    when("the second takes over", || second.out.names().contains(&"n00040".into())).await;
    let published = [first.out.names(), second.out.names()].concat();
    let again = repeated(&nodes(41), &published);
    for body in second.out.bodies() {
        let index = body["ModifyIndex"].as_u64().unwrap();
        assert!(index > saved, "{} was saved, at {index}", body["Name"]);
    }
    assert!(again.len() <= 20, "{again:?}");
    second.stop().await;
}

#[tokio::test]
async fn a_process_that_is_killed_again_and_again_repeats_only_what_it_had_not_saved() {
    let world = World::with(0).await;
    let dir = tempfile::tempdir().unwrap();
    let changes = Changes::of(&world.nomad);
    let mut published = Vec::new();
    let mut saved = 0;
    for _ in 0..3 {
        let program = world.solo("nodes", dir.path()).set("NOMAD_FIREHOSE_CHECKPOINT", "1s");
        let mut process = program.start();
        when("a later checkpoint", || saved_floor(dir.path()) > Some(saved)).await;
        // In the middle of the batch after it.
        process.publishes(process.out.count() + 1).await;
        process.kill();
        for body in process.out.bodies() {
            assert!(body["ModifyIndex"].as_u64().unwrap() > saved, "{} was saved", body["Name"]);
        }
        saved = saved_floor(dir.path()).unwrap();
        published.extend(process.out.names());
    }
    let expected = nodes(changes.end().await);
    let last = world.solo("nodes", dir.path()).start();
    let end = expected.last().unwrap();
    when("the last change", || last.out.names().contains(end)).await;
    published.extend(names(&last.stop().await.out));
    repeated(&expected, &published);
}

#[tokio::test]
async fn a_clean_restart_publishes_nothing_twice_in_either_kind_of_stream() {
    for (stream, expected) in [("nodes", nodes(11)), ("allocations", events(11))] {
        let world = World::with(10).await;
        let dir = tempfile::tempdir().unwrap();
        let first = world.solo(stream, dir.path()).start();
        first.publishes(5).await;
        let mut published = names(&first.stop().await.out);
        change(&world.nomad, 10);
        let next = world.solo(stream, dir.path()).start();
        let end = expected.last().unwrap();
        when("the last change", || next.out.names().contains(end)).await;
        published.extend(names(&next.stop().await.out));
        assert_eq!(repeated(&expected, &published), [""; 0]);
    }
}
