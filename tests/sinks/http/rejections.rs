//! What becomes of records that the receiver will never take.

use std::collections::HashSet;

use super::{World, each_once, id};
use crate::firehose::FAILED;

#[tokio::test]
async fn a_record_that_is_not_as_the_receiver_wants_it_is_given_up() {
    for status in [400, 413, 422] {
        let world = World::new().await;
        world.source.evaluations("web", 0..1);
        world.web.answer_with(status, &[]);
        let running = world.program("evaluations").start();
        running.logs("rejected a record for good").await;
        world.source.evaluations("web", 1..2);
        each_once(&world.web.took(1).await, 1..2);
        running.stop().await;
        assert_eq!(world.web.posted().len(), 2, "{status}: it was not sent again");
        let kept = world.source.dead_letters();
        let [kept] = &kept[..] else { panic!("{status}: {} were kept", kept.len()) };
        assert_eq!(kept["body"]["ID"], id(0));
        assert!(kept["reason"].as_str().unwrap().contains(&status.to_string()), "{kept}");
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_gives_up_the_culprit_alone() {
    let world = World::new().await;
    world.source.evaluations("web", 0..20);
    world.source.evaluations("bad", 20..21);
    world.source.evaluations("web", 21..40);
    let running = world.program("evaluations").set("SINK_HTTP_BATCH", "ndjson").start();
    let received = world.web.took(39).await;
    running.logs("rejected a record for good").await;
    running.stop().await;
    let others: Vec<_> = received.into_iter().filter(|(_, body)| body["ID"] != id(20)).collect();
    each_once(&others[..20], 0..20);
    each_once(&others[20..], 21..40);
    let kept = world.source.dead_letters();
    assert_eq!((kept.len(), &kept[0]["body"]["ID"]), (1, &id(20)));
}

#[tokio::test]
async fn a_rejection_can_stop_the_process_which_names_the_record() {
    let world = World::new().await;
    world.source.evaluations("web", 0..1);
    let running = world.program("evaluations").set("NOMAD_FIREHOSE_REJECTED", "halt").start();
    world.web.took(1).await;
    world.source.evaluations("bad", 1..2);
    let finished = running.finished().await;
    assert_eq!(finished.code, Some(FAILED), "{}", finished.log);
    let id = format!("evaluations/default/{}/", id(1).as_str().unwrap());
    let last = finished.log.lines().last().unwrap();
    assert!(last.contains(&format!("rejected record {id}")), "{last}");
    assert!(last.contains("422"), "{last}");
    assert_eq!(world.source.dead_letters().len(), 0);
    // Whoever mends the receiver and starts again has lost nothing.
    world.web.demand("Bearer let-me-in");
    world.source.evaluations("web", 1..2);
    let running = world.program("evaluations").start();
    each_once(&world.web.took(2).await, 0..2);
    running.stop().await;
}

#[tokio::test]
async fn a_receiver_that_refuses_everything_is_taken_to_be_at_fault() {
    for batch in ["off", "array"] {
        let world = World::new().await;
        world.web.always(Some(400));
        world.source.evaluations("web", 0..150);
        // With more workers some are given up while the first is taken.
        let running = world.program("evaluations").set("SINK_HTTP_BATCH", batch).start();
        running.logs("the receiver is taken to be at fault").await;
        let asked = world.web.posted().len();
        world.web.asked(asked + 3).await;
        assert_eq!(world.source.dead_letters().len(), 100, "{batch}");
        world.web.always(None);
        let received = world.web.took(50).await;
        running.logs("takes records again").await;
        let log = running.stop().await.log;
        assert_eq!(log.matches("is taken to be at fault").count(), 1, "{batch}: {log}");
        let kept = world.source.dead_letters();
        let kept = kept.into_iter().map(|it| (String::new(), it["body"].clone()));
        each_once(&received.into_iter().chain(kept).collect::<Vec<_>>(), 0..150);
    }
}

#[tokio::test]
async fn every_record_that_is_given_up_is_named_in_the_log_however_many_there_are() {
    let world = World::new().await;
    world.source.evaluations("bad", 0..50);
    let running = world.program("evaluations").start();
    running.logs_times(50, "rejected a record for good").await;
    let log = running.stop().await.log;
    let lines = log.lines().filter(|it| it.contains("rejected a record for good"));
    let named: HashSet<&str> =
        lines.filter_map(|it| it.split("record=").nth(1)?.split(' ').next()).collect();
    assert_eq!(named.len(), 50, "{log}");
    assert!(!log.contains("left out"), "{log}");
}
