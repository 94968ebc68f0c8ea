//! `--check` against a real Consul with ACLs: each permission that a token lacks is named, and
//! nothing is written.

use nomad_firehose::standin::nomad::{Nomad, Table};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    consul::{Agent, MANAGEMENT},
    firehose::{Finished, Program, Served},
    support::{Version, node},
};

const KEYS: &str = "key_prefix \"nomad-firehose/\" { policy = \"write\" }";
const READ_KEYS: &str = "key_prefix \"nomad-firehose/\" { policy = \"read\" }";
const SESSIONS: &str = "session_prefix \"\" { policy = \"write\" }";
const OWN_SESSIONS: &str = "session \"test\" { policy = \"write\" }";
const AGENT: &str = "agent_prefix \"\" { policy = \"read\" }";

/// What the token of a row is given, and the rows that fail or are not testable for it.
type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const CASES: [Case; 7] = [
    (&[KEYS, SESSIONS, AGENT], &[], &[]),
    (&[KEYS, OWN_SESSIONS, AGENT], &[], &[]),
    (&[KEYS, SESSIONS], &[], &[]),
    (&[KEYS, OWN_SESSIONS], &[], &["consul session"]),
    (&[READ_KEYS, SESSIONS], &["consul write"], &[]),
    (&[KEYS, AGENT], &["consul session"], &[]),
    (&[SESSIONS], &["consul read", "consul write"], &[]),
];

/// The rows with this result.
fn rows(finished: &Finished, result: &str) -> Vec<String> {
    let cells = |line: &str| {
        let cells = line.split("  ").map(str::trim).filter(|it| !it.is_empty());
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    let rows = finished.out.lines().map(cells);
    rows.filter(|it| it.get(2).is_some_and(|it| it == result)).map(|it| it[0].clone()).collect()
}

/// A token with a policy of these rules.
async fn token(consul: &Agent, number: usize, rules: &[&str]) -> String {
    let policy = json!({"Name": format!("policy-{number}"), "Rules": rules.join("\n")});
    consul.ask(Method::PUT, "/v1/acl/policy", &policy.to_string()).await.unwrap();
    let token = json!({"Policies": [{"Name": format!("policy-{number}")}]});
    let made = consul.ask(Method::PUT, "/v1/acl/token", &token.to_string()).await.unwrap();
    made["SecretID"].as_str().unwrap().to_owned()
}

/// Everything that a check could have changed: keys with their indexes, and sessions.
async fn state(consul: &Agent) -> (Option<Value>, Option<Value>) {
    (
        consul.ask(Method::GET, "/v1/kv/?recurse=true", "").await,
        consul.ask(Method::GET, "/v1/session/list", "").await,
    )
}

#[tokio::test]
async fn each_permission_that_a_token_of_consul_lacks_is_named_and_nothing_is_written() {
    let consul = Agent::guarded().await;
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Nodes, node("a", "ready"));
    let nomad_port = Served::new(nomad.router()).await;
    let check = async |token: &str| {
        Program::stream("nodes")
            .set("SINK_TYPE", "stdout")
            .set("NOMAD_ADDR", &nomad_port.address)
            .set("CONSUL_HTTP_ADDR", consul.address())
            .set("CONSUL_HTTP_TOKEN", token)
            .arguments(&["--check"])
            .run()
            .await
    };
    consul.put("nomad-firehose/nodes.value", "7").await;
    let before = state(&consul).await;
    assert!(before.0.is_some() && before.1.is_some());
    for (number, (rules, failed, untestable)) in CASES.into_iter().enumerate() {
        let token = token(&consul, number, rules).await;
        let checked = check(&token).await;
        let table = &checked.out;
        assert_eq!(rows(&checked, "FAILED"), failed, "{rules:?}:\n{table}");
        assert_eq!(rows(&checked, "not testable"), untestable, "{rules:?}:\n{table}");
        assert_eq!(checked.code, Some(i32::from(!failed.is_empty())), "{table}");
        for what in failed.iter().chain(untestable) {
            let rule = if *what == "consul session" { "session_prefix \"\"" } else { KEYS };
            let row = table.lines().find(|it| it.starts_with(what)).unwrap();
            assert!(row.contains(rule), "{rules:?}: {row}");
        }
        let row = table.lines().find(|it| it.starts_with("consul token")).unwrap();
        assert!(row.contains(&format!("policy-{number}")), "{row}");
        assert!(!table.contains(&token), "{table}");
        assert_eq!(state(&consul).await, before, "{rules:?}");
    }
    let checked = check("22222222-2222-2222-2222-222222222222").await;
    assert!(rows(&checked, "FAILED").contains(&"consul token".to_owned()), "{}", checked.out);
    assert!(rows(&check(MANAGEMENT).await, "FAILED").is_empty());
    assert_eq!(state(&consul).await, before);
}

#[tokio::test]
async fn a_token_that_passes_the_check_is_enough_to_publish_once() {
    let consul = Agent::guarded().await;
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Nodes, node("a", "ready"));
    let nomad_port = Served::new(nomad.router()).await;
    let token = token(&consul, 0, &[KEYS, SESSIONS]).await;
    let program = || {
        Program::stream("nodes")
            .set("SINK_TYPE", "stdout")
            .set("NOMAD_ADDR", &nomad_port.address)
            .set("CONSUL_HTTP_ADDR", consul.address())
            .set("CONSUL_HTTP_TOKEN", &token)
    };
    let once = program().arguments(&["--once"]).run().await;
    assert_eq!((once.code, once.out.lines().count()), (Some(0), 1), "{}", once.log);
    let checked = program().arguments(&["--check"]).run().await;
    let row = checked.out.lines().find(|it| it.starts_with("checkpoint")).unwrap();
    assert!(row.contains("everything up to index"), "{row}");
    let again = program().arguments(&["--once"]).run().await;
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""), "{}", again.log);
}
