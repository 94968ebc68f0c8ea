use super::*;

const MOMENT: Duration = Duration::from_millis(1);

fn publishing() -> Health {
    let health = Health::default();
    health.leader.works();
    health.enter(Role::Publishing);
    health.nomad.works();
    health
}

/// Whether it is ready, and what is not as it should be.
fn look(health: &Health, queued: bool) -> (bool, Vec<&'static str>) {
    let found = health.readiness(Instant::now(), queued);
    let bad = found.checks.iter().filter(|(_, check)| !check.ok).map(|(name, _)| *name);
    (found.ready, bad.collect())
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_heard_of_nothing_is_not_ready() {
    let health = Health::default();
    assert_eq!(look(&health, false), (false, vec!["leader"]));
    health.leader.works();
    assert_eq!(look(&health, false), (false, vec![]), "it is not known who is elected");
    health.enter(Role::Publishing);
    assert_eq!(look(&health, false), (false, vec!["nomad"]));
    health.nomad.works();
    assert_eq!(look(&health, false), (true, vec![]));
}

#[tokio::test(start_paused = true)]
async fn who_stands_by_needs_the_leader_alone() {
    let health = Health::default();
    health.sink.fails("away");
    health.leader.works();
    health.enter(Role::Standby);
    assert_eq!(look(&health, false), (true, vec![]));
    pass(LEADER_SILENT - MOMENT).await;
    assert!(look(&health, false).0);
    pass(MOMENT).await;
    assert_eq!(look(&health, false), (false, vec!["leader"]));
    health.leader.works();
    assert!(look(&health, false).0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_with_a_quiet_sink_stays_ready() {
    let health = publishing();
    // The longest that a list is held, and how long its answer may take on top of that.
    let longest = Duration::from_secs(300 + 300 / 16 + 20);
    assert!(longest < NOMAD_SILENT);
    for _ in 0..10 {
        pass(longest).await;
        health.leader.works();
        assert_eq!(look(&health, false), (true, vec![]));
        health.nomad.heard();
    }
    pass(NOMAD_SILENT).await;
    health.leader.works();
    assert_eq!(look(&health, false), (false, vec!["nomad"]));
    assert_eq!(look(&health, true), (true, vec![]), "nobody asks Nomad while records wait");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_given_time_and_counts_again_once_it_works() {
    let health = publishing();
    for contact in [&health.nomad, &health.leader] {
        contact.fails("one");
        pass(FAILING - MOMENT).await;
        // That it answers does not mean that it does what it is asked.
        contact.heard();
        contact.fails("another");
        assert!(look(&health, false).0);
        pass(MOMENT).await;
        let found = health.readiness(Instant::now(), false);
        assert!(!found.ready);
        assert!(found.checks.values().any(|it| !it.ok && it.error.as_deref() == Some("another")));
        contact.works();
        assert_eq!(look(&health, false), (true, vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_of_the_sink_counts_and_a_call_without_one_fails_in_the_end() {
    let health = publishing();
    health.sink.is_waited_for();
    health.sink.fails("no route");
    assert_eq!(look(&health, false), (false, vec!["sink"]));
    health.sink.works();
    assert_eq!(look(&health, false), (true, vec![]));
    health.sink.is_waited_for();
    pass(SINK_SILENT - MOMENT).await;
    health.sink.is_waited_for();
    health.nomad.works();
    health.leader.works();
    assert!(look(&health, false).0);
    pass(MOMENT).await;
    assert_eq!(look(&health, false), (false, vec!["sink"]));
    health.sink.waits_on(false);
    assert!(look(&health, false).0);
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_of_nomad_in_another_term_does_not_count() {
    let health = publishing();
    health.nomad.fails("away");
    health.enter(Role::Standby);
    health.enter(Role::Publishing);
    let nomad = health.readiness(Instant::now(), false).checks["nomad"].clone();
    assert_eq!(nomad.error.as_deref(), Some("nothing has been heard of it yet"));
}

#[tokio::test(start_paused = true)]
async fn what_failed_in_another_term_does_not_count_where_nothing_was_asked_since() {
    let health = publishing();
    health.sink.fails("away");
    health.checkpoint.fails("denied");
    health.enter(Role::Standby);
    health.enter(Role::Publishing);
    health.nomad.works();
    assert_eq!(look(&health, false), (true, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_saved_for_long_is_not_ready_although_the_lock_is_renewed() {
    let health = publishing();
    health.checkpoint.fails("denied");
    pass(FAILING - MOMENT).await;
    health.leader.works();
    health.checkpoint.fails("denied");
    assert_eq!(look(&health, true), (true, vec![]));
    pass(MOMENT).await;
    assert_eq!(look(&health, true), (false, vec!["checkpoint"]));
    health.checkpoint.works();
    assert_eq!(look(&health, true), (true, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_leader_in_this_process_is_always_there() {
    let health = publishing();
    health.leader.is_own();
    pass(10 * LEADER_SILENT).await;
    health.nomad.works();
    assert!(look(&health, false).0);
}

#[tokio::test(start_paused = true)]
async fn who_was_asked_to_stop_is_alive_and_not_ready_whatever_comes() {
    let health = publishing();
    health.enter(Role::Stopping);
    health.enter(Role::Standby);
    assert_eq!(health.role(), Role::Stopping);
    assert!(!look(&health, false).0);
    assert!(health.liveness(Instant::now()).live);
}

#[tokio::test(start_paused = true)]
async fn a_main_loop_that_is_stuck_is_not_alive_and_an_outage_is_no_reason() {
    let health = publishing();
    for contact in [&health.nomad, &health.leader, &health.sink] {
        contact.fails("away");
    }
    pass(STUCK - MOMENT).await;
    assert!(health.liveness(Instant::now()).live);
    pass(MOMENT).await;
    let found = health.liveness(Instant::now());
    assert!(!found.live && found.checks["loop"].error.is_some());
    health.beat();
    assert!(health.liveness(Instant::now()).live);
}

#[tokio::test(start_paused = true)]
async fn reasons_are_short_and_on_one_line() {
    let health = publishing();
    health.sink.fails(&format!("a\nb{}", "x".repeat(1 << 16)));
    let error = health.readiness(Instant::now(), false).checks["sink"].error.clone().unwrap();
    assert!(error.starts_with("a\\nb") && error.len() < 600);
}
