//! What is said and done where Nomad is too old, denies or is in trouble.

use std::time::Duration;

use nomad_firehose::{
    api,
    env::Env,
    finding::Outcome,
    leader::{Leader, LeaderError, from_env, nomad},
    standin::Fault,
};

use super::{
    backends::Nomad,
    contract::{Backend, LOCK_DELAY, TTL},
    steps::{Link, elected, moved, standby},
};
use crate::support::{client, pass};

const CURSOR: &str = "nomad-firehose/nodes/cursor";

/// An error with its causes.
fn told(err: &LeaderError) -> String {
    nomad_firehose::error::Chain(err).to_string()
}

/// What the first row says that failed.
async fn fails(leader: &dyn Leader) -> String {
    let found = leader.check().await;
    found.into_iter().find(|it| it.outcome == Outcome::Fails).unwrap().detail
}

/// What a row says that did not fail.
async fn says(leader: &dyn Leader, what: &str) -> String {
    let found = leader.check().await;
    let found = found.into_iter().find(|it| it.what == what).unwrap();
    assert_ne!(found.outcome, Outcome::Fails, "{found:?}");
    found.detail
}

#[tokio::test(start_paused = true)]
async fn a_nomad_without_locks_is_refused_before_anything_is_written() {
    let backend = Nomad::new().await;
    for build in ["1.6.10", "1.3.0"] {
        backend.0.set_build(build);
        let leader = backend.leader(&Link::default());
        let error = fails(&*leader).await;
        assert!(error.contains("1.7") && error.contains(build), "{error}");
        let waiting = standby(leader);
        pass(120).await;
        assert!(!waiting.is_finished() && backend.0.variables().is_empty());
        // The servers are upgraded meanwhile.
        backend.0.set_build("1.7.0");
        waiting.await.unwrap().resign().await;
        backend.0.delete_variable("default", CURSOR);
        backend.0.delete_variable("default", "nomad-firehose/nodes/lock");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nomad_without_locks_is_noticed_by_a_token_that_may_not_ask_for_versions() {
    let backend = Nomad::new().await;
    backend.0.set_build("1.6.10");
    for _ in 0..200 {
        backend.0.script("/v1/agent/members", Fault::status(403, "Permission denied"));
    }
    let waiting = standby(backend.leader(&Link::default()));
    pass(300).await;
    assert!(!waiting.is_finished());
    // It has written the lock's variable, and nothing else.
    assert_eq!(backend.0.variables(), ["nomad-firehose/nodes/lock"]);
    backend.0.set_build("2.0.5");
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_named_as_the_rule_that_gives_it() {
    let backend = Nomad::new().await;
    backend.0.deny_variables(Some("nomad-firehose/".to_owned()));
    let leader = backend.leader(&Link::default());
    let error = fails(&*leader).await;
    let rule = "namespace \"default\" { variables { path \"nomad-firehose/*\" { capabilities = \
                [\"read\", \"write\"] } } }";
    assert!(error.contains(rule) && error.contains("NOMAD_TOKEN"), "{error}");
    let waiting = standby(leader);
    pass(600).await;
    let requests = backend.0.requests().len();
    assert!(!waiting.is_finished() && requests < 300, "{requests} requests");
    backend.0.deny_variables(None);
    let term = waiting.await.unwrap();
    backend.0.deny_variable_writes(Some(CURSOR.to_owned()));
    let error = told(&term.save(&mut moved(5)).await.unwrap_err());
    assert!(error.contains(rule), "{error}");
    backend.0.deny_variable_writes(None);
    term.save(&mut moved(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_may_lock_and_not_save_lets_others_try() {
    let backend = Nomad::new().await;
    backend.0.deny_variable_writes(Some(CURSOR.to_owned()));
    let waiting = standby(backend.leader(&Link::default()));
    pass(120).await;
    assert!(!waiting.is_finished());
    let mut free = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        free += usize::from(backend.is_free());
    }
    assert!(free > 50, "the lock was free {free} times of 100");
    backend.0.deny_variable_writes(None);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_servers_are_waited_for() {
    let backend = Nomad::new().await;
    let texts =
        ["No cluster leader", "quota exceeded", "keyring not initialized", "rpc error: EOF"];
    for text in texts.repeat(5) {
        backend.0.script("/v1/var/", Fault::status(500, text));
    }
    let term = elected(&*backend.leader(&Link::default())).await;
    for text in texts {
        backend.0.script("PUT /v1/var/", Fault::status(500, text));
        let failed = term.save(&mut moved(5)).await;
        assert!(matches!(failed, Err(LeaderError::Unavailable { .. })), "{failed:?}");
    }
    term.save(&mut moved(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_shuts_down_does_not_pass_for_one_without_a_checkpoint() {
    let backend = Nomad::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    term.save(&mut moved(5)).await.unwrap();
    let dying = || Fault::Status {
        code: 404,
        body: "variable not found".to_owned(),
        headers: vec![
            ("x-nomad-index", "0".to_owned()),
            ("x-nomad-knownleader", "false".to_owned()),
        ],
    };
    backend.0.script("GET /v1/var/nomad-firehose%2Fnodes%2Fcursor", dying());
    assert!(matches!(term.load().await, Err(LeaderError::Unavailable { .. })));
    // A take-over meets it too.
    term.resign().await;
    for _ in 0..3 {
        backend.0.script("GET /v1/var/nomad-firehose%2Fnodes%2Fcursor", dying());
    }
    let term = elected(&*backend.leader(&Link::default())).await;
    assert!(matches!(term.load().await, Ok(nomad_firehose::cursor::Saved::Ours(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_told_from_a_path_that_is_not_nomads() {
    let backend = Nomad::new().await;
    let api = api::Nomad::stand_in(backend.0.router(), client()).variables("default");
    let absent = Some(api::Found::default());
    backend.0.script("GET /v1/var/", Fault::status(404, "variable not found"));
    assert_eq!(api.read("a", None).await.ok(), absent);
    backend.0.script("GET /v1/var/", Fault::status(404, ""));
    let error = api.read("a", None).await.unwrap_err().to_string();
    assert!(error.contains("1.4"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_check_changes_nothing_and_says_what_is_there() {
    let backend = Nomad::new().await;
    let leader = backend.leader(&Link::default());
    assert_eq!(says(&*leader, "lock").await, "nobody holds it");
    assert_eq!(says(&*leader, "checkpoint").await, "none yet");
    assert!(backend.0.variables().is_empty());
    let term = elected(&*backend.leader(&Link::default())).await;
    assert_eq!(says(&*leader, "lock").await, "held");
    assert_eq!(says(&*leader, "checkpoint").await, "none yet");
    term.save(&mut moved(5)).await.unwrap();
    let said = says(&*leader, "checkpoint").await;
    assert_eq!(said, "everything up to index 5 is published");
    drop(term);
}

#[tokio::test(start_paused = true)]
async fn variables_are_in_the_namespace_that_is_configured() {
    let backend = Nomad::new().await;
    let api = api::Nomad::stand_in(backend.0.router(), client()).variables("team");
    let leader = nomad(api, "/nomad/jobs/firehose/", "nodes", TTL, LOCK_DELAY).unwrap();
    let term = elected(&*leader).await;
    term.save(&mut moved(5)).await.unwrap();
    let variable = |name| backend.0.variable(name, "nomad/jobs/firehose/nodes/cursor");
    assert!(variable("team").is_some() && variable("default").is_none());
}

#[test]
fn what_nomad_would_not_take_is_a_mistake_in_the_configuration() {
    for (name, value, what) in [
        ("NOMAD_FIREHOSE_VARIABLE_PREFIX", "a b", "letters, digits"),
        ("NOMAD_FIREHOSE_VARIABLE_PREFIX", "nomad/firehose", "nomad/jobs"),
        ("NOMAD_FIREHOSE_VARIABLE_NAMESPACE", "*", "one namespace"),
        ("NOMAD_FIREHOSE_SESSION_TTL", "9s", "Nomad allows"),
        ("NOMAD_FIREHOSE_LOCK_DELAY", "61s", "from 0 s to 60 s"),
    ] {
        let env = Env::from([("NOMAD_FIREHOSE_LEADER", "nomad"), (name, value)]);
        let config = from_env(&env, "nodes");
        let problems = env.check(config.map(|_| ())).unwrap_err();
        let text = format!("{problems:?}");
        assert!(problems.len() == 1 && text.contains(name) && text.contains(what), "{text}");
    }
    let env = Env::from([
        ("NOMAD_FIREHOSE_LEADER", "nomad"),
        ("NOMAD_FIREHOSE_VARIABLE_PREFIX", "nomad/jobs/firehose"),
    ]);
    let config = from_env(&env, "nodes").map(|_| ());
    assert!(env.check(config).is_ok());
}
