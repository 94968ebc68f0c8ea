//! Sequences in which the stream, lists and reads by id come close to each other.

use nomad_firehose::{
    cursor::{Cursor, Form, Index, Kind, Listed, Mark, Move},
    dedupe::{Seen, Verdict},
    standin::Fault as ServerFault,
};

use super::*;

#[tokio::test(start_paused = true)]
async fn old_states_in_the_stream_say_nothing_new_after_the_go_tool() {
    let world = world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2, 3]));
    world.consul.put("nomad-firehose/allocations.value", "3");
    let running = world.start::<Allocations>();
    pass(400).await;
    let found = times(&world.sink);
    running.stop().await;
    assert_eq!(found, Vec::<i64>::new());
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_takes_several_lists_is_not_taken_for_missed() {
    let world = world();
    world.nomad.set_event_buffer(2);
    for n in 0..20 {
        let mut it = evaluation(&format!("{n}"), "default", "complete");
        it.insert("FailedTGAllocs".to_owned(), json!({"web": "x".repeat(1 << 20)}));
        world.nomad.upsert(Table::Evaluations, it);
    }
    world.nomad.upsert(Table::Evaluations, evaluation("y", "default", "complete"));
    world.nomad.upsert(Table::Evaluations, evaluation("z", "default", "complete"));
    let running = world.start::<Evaluations>();
    world.published(22).await;
    pass(5).await;
    let found = (
        running.metrics.missed_in_stream.get(),
        running.metrics.subscriptions.get(),
        world.sink.count(),
    );
    running.stop().await;
    assert_eq!(found, (0, 1, 22));
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_are_read_one_by_one_are_not_taken_for_missed() {
    let world = World { changes: Source::Events, ..World::new(Version::V1_0) };
    world.nomad.set_event_buffer(1);
    for n in 0..5 {
        world.nomad.upsert(Table::Evaluations, evaluation(&format!("{n}"), "default", "complete"));
    }
    let running = world.start::<Evaluations>();
    world.published(5).await;
    pass(5).await;
    let found = (running.metrics.missed_in_stream.get(), running.metrics.subscriptions.get());
    running.stop().await;
    assert_eq!(found, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_not_asked_for_with_every_event() {
    let world = world();
    let running = world.start::<JobListStubs>();
    subscribed(&world, 1, &running).await;
    pass(10).await;
    for _ in 0..10_000 {
        world.nomad.script("/v1/jobs", ServerFault::status(500, "overloaded"));
    }
    let before = lists(&world.nomad, "/v1/jobs");
    for round in 0..600 {
        world.nomad.upsert(Table::Jobs, job("web", "default", &format!("state {round}")));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let read = lists(&world.nomad, "/v1/jobs") - before;
    running.stop().await;
    assert!(read < 30, "{read} lists in 60 s");
}

fn mark(key: u64, index: u64, form: Form, hash: u64) -> Mark {
    Mark::Object { key, index: Index(index), hash: form.mark(hash) }
}

#[test]
fn a_list_of_before_a_cut_does_not_make_up_for_it() {
    let mut seen = Seen::new(&Cursor::new(Kind::Objects));
    seen.note(mark(1, 60, Form::Event, 0x100));
    seen.list(1, Index(60));
    seen.cut(Index(60));
    // A list of a server that lags.
    seen.read_at(Index(55));
    seen.relist(Index(55), std::iter::empty());
    seen.go(&Move::Reach(Index(55)));
    seen.read_at(Index(61));
    let verdict = seen.object(1, Index(60), || Form::Stub.mark(0x900));
    assert!(matches!(verdict, Verdict::Recheck { .. }), "{verdict:?}");
}

#[test]
fn after_a_restart_every_index_above_the_floor_may_have_a_second_commit() {
    let mut cursor = Cursor::new(Kind::Objects);
    cursor.apply(mark(1, 50, Form::Event, 0x100));
    cursor.apply(mark(2, 60, Form::Event, 0x200));
    let seen = Seen::new(&cursor);
    let verdict = seen.object(1, Index(50), || Form::Stub.mark(0x900));
    assert!(matches!(verdict, Verdict::Recheck { .. }), "{verdict:?}");
}

#[test]
fn what_a_list_no_longer_has_is_forgotten_while_the_floor_is_held() {
    let mut cursor = Cursor::new(Kind::Objects);
    for key in 10..20 {
        cursor.apply(mark(key, key, Form::Listed, 0x100));
    }
    // The object at 5 cannot be read, so the floor stays at 4; a list at 30 shows 19 only.
    cursor.go(&Move::ReachListed {
        floor: Index(4),
        list: Index(30),
        listed: Listed::Objects([19].into()),
    });
    let left = (10..20).filter(|it| cursor.object(*it).is_some()).count();
    assert_eq!(left, 1);
}

#[tokio::test(start_paused = true)]
async fn lines_that_cannot_be_read_cost_few_lists() {
    let world = world();
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    pass(5).await;
    let before = lists(&world.nomad, "/v1/evaluations");
    for n in 0..60 {
        world.nomad.send_event_text(format!(
            "{{\"Index\":7,{}\"Events\":[{{\"Topic\":}}]}}\n",
            " ".repeat(n)
        ));
        pass(1).await;
    }
    let read = lists(&world.nomad, "/v1/evaluations") - before;
    let subs = running.metrics.subscriptions.get();
    let bad = running.metrics.bad_events.get();
    running.stop().await;
    // An empty list of evaluations is asked for in each namespace as well.
    assert!(read < 15, "{read} lists, {subs} subscriptions, {bad} bad");
}

#[tokio::test(start_paused = true)]
async fn what_was_held_of_a_list_that_breaks_off_is_published() {
    let world = world();
    world.nomad.upsert(Table::Allocations, allocation("a", &[1]));
    let running = world.start::<Allocations>();
    world.published(1).await;
    pass(5).await;
    world.nomad.skip_events(1);
    world.nomad.upsert(Table::Allocations, allocation("a", &[1, 2]));
    world.nomad.upsert(Table::Allocations, allocation("b", &[9]));
    for n in 0..2000 {
        let after_bytes = 400 + 100 * (n % 20);
        world.nomad.script("/v1/allocations", ServerFault::CutBody { after_bytes });
    }
    pass(900).await;
    let found = times(&world.sink);
    running.stop().await;
    assert_eq!(found.len(), 3, "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_to_stream_once_the_term_is_over() {
    let world = world();
    let running = world.start::<Evaluations>();
    subscribed(&world, 1, &running).await;
    let metrics = running.metrics.clone();
    running.stop().await;
    assert_eq!(metrics.streaming.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clean_restart_repeats_no_job_with_two_commits_at_the_floor() {
    let world = world();
    let names: Vec<String> = (0..12).map(|n| format!("j{n}")).collect();
    let all = |status: &str| names.iter().map(|it| job(it, "default", status)).collect::<Vec<_>>();
    let index = world.nomad.upsert_many(all("pending").into_iter().map(|it| (Table::Jobs, it)));
    let running = world.start::<Jobs>();
    world.published(12).await;
    pass(5).await;
    for it in all("running") {
        world.nomad.upsert_at(index, Table::Jobs, it);
    }
    world.published(24).await;
    pass(700).await;
    assert_eq!(world.sink.count(), 24);
    running.stop().await;
    let running = world.start::<Jobs>();
    pass(700).await;
    running.stop().await;
    assert_eq!(world.sink.count(), 24);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_at_first_holds_the_first_list_up_for_seconds_only() {
    let world = World { changes: Source::Auto, ..World::new(Version::V2_0) };
    world.nomad.disable_events();
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "pending"));
    let since = tokio::time::Instant::now();
    let running = world.start::<Evaluations>();
    world.published(1).await;
    let took = since.elapsed();
    running.stop().await;
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_the_stream_has_overtaken_is_not_published_after_it() {
    let world = world();
    let running = world.start::<Jobs>();
    subscribed(&world, 1, &running).await;
    pass(5).await;
    world.nomad.mute_events(true);
    world.nomad.upsert(Table::Jobs, job("i", "default", "running"));
    let index = world.nomad.upsert(Table::Jobs, job("j", "default", "pending"));
    world.nomad.script("/v1/job/i", ServerFault::Delay(Duration::from_secs(3)));
    world.nomad.close_subscriptions();
    until("reads", || world.nomad.requests().iter().any(|it| it.path == "/v1/job/j")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.nomad.upsert_at(index, Table::Jobs, job("j", "default", "running"));
    world.nomad.mute_events(false);
    pass(20).await;
    let of_j: Vec<String> = world
        .sink
        .bodies()
        .iter()
        .filter(|it| it["ID"] == "j")
        .map(|it| it["Status"].as_str().unwrap().to_owned())
        .collect();
    running.stop().await;
    assert_eq!(of_j, ["pending", "running"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_older_than_the_event_that_announced_it_is_read_again() {
    let world = world();
    let running = world.start::<JobListStubs>();
    subscribed(&world, 1, &running).await;
    world.nomad.upsert(Table::Jobs, job("web", "default", "a"));
    world.published(1).await;
    pass(20).await;
    let next = world.nomad.index() + 1;
    world.nomad.send_event_text(format!(
        "{{\"Index\":{next},\"Events\":[{{\"Topic\":\"Job\",\"Payload\":{{\"Job\":{{\"ID\":\"web\",\"Namespace\":\"default\",\"ModifyIndex\":{next}}}}}}}]}}\n"
    ));
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.nomad.skip_events(1);
    assert_eq!(world.nomad.upsert(Table::Jobs, job("web", "default", "b")), next);
    let since = tokio::time::Instant::now();
    world.published(2).await;
    let took = since.elapsed();
    running.stop().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_commit_that_the_stream_has_yet_to_show_is_not_passed_over_for_a_later_list() {
    let world = world();
    let running = world.start::<Jobs>();
    subscribed(&world, 1, &running).await;
    let index = world.nomad.upsert(Table::Jobs, job("j", "default", "pending"));
    world.published(1).await;
    pass(5).await;
    world.nomad.mute_events(true);
    world.nomad.upsert_at(index, Table::Jobs, job("j", "default", "running"));
    world.nomad.upsert(Table::Jobs, job("k", "default", "pending"));
    // A list comes to it that is past both.
    world.published(2).await;
    pass(20).await;
    world.nomad.mute_events(false);
    pass(700).await;
    let states: Vec<String> =
        world.sink.bodies().iter().map(|it| format!("{} {}", it["ID"], it["Status"])).collect();
    running.stop().await;
    let wanted = ["j pending", "j running", "k pending"].map(|it| {
        let (id, status) = it.split_once(' ').unwrap();
        format!("{id:?} {status:?}")
    });
    assert_eq!(states, wanted);
}
