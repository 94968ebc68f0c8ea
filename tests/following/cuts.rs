//! The stream is cut: each way of it is noticed, made up for, and costs no duplicate.

use super::*;

/// A world that follows evaluations, of which one has been published.
async fn following() -> (World, crate::support::Running) {
    let world = world();
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "0"));
    let running = world.start::<Evaluations>();
    world.published(1).await;
    pass(5).await;
    (world, running)
}

fn change(world: &World, state: u32) {
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", &state.to_string()));
}

async fn shows(world: &World, states: &[&str]) {
    until("the states", || world.sink.count() >= states.len()).await;
    pass(20).await;
    assert_eq!(statuses(world), states);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_server_closes_is_taken_up_where_it_was() {
    let (world, running) = following().await;
    change(&world, 1);
    world.published(2).await;
    world.nomad.close_subscriptions();
    // The buffer still has these when the stream is there again.
    change(&world, 2);
    change(&world, 3);
    shows(&world, &["0", "1", "2", "3"]).await;
    assert_eq!(running.metrics.missed_in_stream.get(), 0);
    assert_eq!(running.metrics.missed_between_streams.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_text_of_an_error_ends_a_subscription_wherever_it_comes() {
    for text in [
        "subscription closed by server, client should resubscribe",
        "event dropped from buffer\n",
        "<html>\n",
    ] {
        let (world, running) = following().await;
        world.nomad.send_event_text(text);
        if !text.ends_with('\n') {
            world.nomad.close_subscriptions();
        }
        subscribed(&world, 2, &running).await;
        change(&world, 1);
        shows(&world, &["0", "1"]).await;
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_no_json_is_passed_over_and_a_list_makes_up_for_it() {
    let (world, running) = following().await;
    world.nomad.skip_events(1);
    change(&world, 1);
    world.nomad.send_event_text("{\"Index\":7,\"Events\":[{\"Topic\":}]}\n");
    let since = tokio::time::Instant::now();
    shows(&world, &["0", "1"]).await;
    assert!(since.elapsed() < Duration::from_secs(60));
    assert_eq!(running.metrics.subscriptions.get(), 2, "what was missed is no good sign");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_starts_anew_and_replays_old_entries_repeats_nothing() {
    let (world, running) = following().await;
    for state in 1..6 {
        change(&world, state);
    }
    world.published(6).await;
    world.nomad.restart_broker(3);
    change(&world, 6);
    shows(&world, &["0", "1", "2", "3", "4", "5", "6"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_buffer_after_a_restart_loses_nothing_that_a_list_has() {
    let (world, running) = following().await;
    world.nomad.stall_events(true);
    change(&world, 1);
    world.nomad.restart_broker(0);
    world.nomad.stall_events(false);
    shows(&world, &["0", "1"]).await;
    assert_eq!(running.metrics.missed_between_streams.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_buffer_no_longer_has_is_found_by_the_list_and_counted() {
    let (world, running) = following().await;
    world.nomad.set_event_buffer(2);
    change(&world, 1);
    world.published(2).await;
    world.nomad.stall_events(true);
    world.nomad.upsert(Table::Evaluations, evaluation("b", "default", "1"));
    for state in 2..6 {
        change(&world, state);
    }
    world.nomad.close_subscriptions();
    world.nomad.stall_events(false);
    until("all", || world.sink.subjects().contains(&uuid("b"))).await;
    pass(30).await;
    let of_a: Vec<_> =
        world.sink.bodies().iter().filter(|it| it["ID"] == uuid("a").as_str()).cloned().collect();
    assert_eq!(of_a.last().unwrap()["Status"], "5");
    assert_eq!(running.metrics.missed_between_streams.get(), 1, "b");
    assert_eq!(running.metrics.missed_in_stream.get(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_sent_again_because_nothing_is_newer_is_not_published_again() {
    let (world, running) = following().await;
    change(&world, 1);
    world.published(2).await;
    // Its newest entry is older than what is asked for.
    world.nomad.follow_events(Some(world.nomad.index() - 1));
    world.nomad.close_subscriptions();
    subscribed(&world, 2, &running).await;
    shows(&world, &["0", "1"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_behind_is_left_and_what_it_lacks_comes_from_the_leaders_list() {
    let (world, running) = following().await;
    world.nomad.follow_events(Some(world.nomad.index()));
    world.nomad.close_subscriptions();
    subscribed(&world, 2, &running).await;
    change(&world, 1);
    pass(10).await;
    assert_eq!(world.sink.count(), 1, "the stream cannot show it yet");
    world.published(2).await;
    subscribed(&world, 3, &running).await;
    world.nomad.follow_events(None);
    change(&world, 2);
    shows(&world, &["0", "1", "2"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_and_sends_heartbeats_only_is_noticed_by_the_next_list() {
    let (world, running) = following().await;
    world.nomad.mute_events(true);
    change(&world, 1);
    pass(200).await;
    assert_eq!(world.sink.count(), 1);
    pass(110).await;
    assert_eq!(statuses(&world), ["0", "1"]);
    world.nomad.mute_events(false);
    shows(&world, &["0", "1"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_quiet_subscription_and_their_absence_ends_it() {
    let (world, running) = following().await;
    pass(3_600).await;
    assert_eq!(running.metrics.subscriptions.get(), 1);
    world.nomad.stall_events(true);
    change(&world, 1);
    pass(60).await;
    assert_eq!(running.metrics.stream_errors.get(), 0);
    pass(20).await;
    assert!(running.metrics.stream_errors.get() > 0);
    world.nomad.stall_events(false);
    shows(&world, &["0", "1"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_read_too_slowly_is_dropped_and_nothing_is_lost() {
    let (world, running) = following().await;
    for _ in 0..12 {
        world.sink.fault(crate::support::Fault::Away);
    }
    world.nomad.set_event_buffer(5);
    for state in 1..400 {
        change(&world, state);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until("the last", || statuses(&world).last().is_some_and(|it| it == "399")).await;
    pass(60).await;
    let states: Vec<u32> = statuses(&world).iter().map(|it| it.parse().unwrap()).collect();
    assert!(states.is_sorted_by(|a, b| a < b), "{states:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lines_of_megabytes_are_read_wherever_they_are_split() {
    let (world, running) = following().await;
    world.nomad.split_events(60_000);
    let mut large = evaluation("b", "default", "complete");
    large.insert("FailedTGAllocs".to_owned(), json!({"web": "\u{fc}".repeat(3 << 20)}));
    world.nomad.upsert(Table::Evaluations, large);
    world.published(2).await;
    world.nomad.split_events(7);
    change(&world, 1);
    shows(&world, &["0", "complete", "1"]).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nomad_set_back_is_noticed_when_its_stream_closes() {
    let world = world();
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "0"));
    let snapshot = world.nomad.snapshot();
    let running = world.start::<Evaluations>();
    world.published(1).await;
    pass(5).await;
    world.nomad.upsert(Table::Evaluations, evaluation("a", "default", "1"));
    world.nomad.upsert(Table::Evaluations, evaluation("b", "default", "1"));
    world.published(3).await;
    pass(301).await;
    world.nomad.restore(&snapshot);
    world.nomad.set_index(snapshot_index(&world) + 1);
    world.published(4).await;
    assert_eq!(running.metrics.index_regressions.get(), 1);
    assert_eq!(statuses(&world), ["0", "1", "1", "0"]);
    subscribed(&world, 2, &running).await;
    world.nomad.upsert(Table::Evaluations, evaluation("c", "default", "2"));
    world.published(5).await;
    pass(700).await;
    assert_eq!(statuses(&world), ["0", "1", "1", "0", "2"]);
    running.stop().await;
}

fn snapshot_index(world: &World) -> u64 {
    // The first evaluation was the first change after the namespace.
    world.nomad.index().min(2)
}
