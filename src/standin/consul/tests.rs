use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use super::*;

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
const LOCK: &str = "/v1/kv/nomad-firehose/allocations.lock";

struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn index(&self) -> &str {
        self.headers.get("x-consul-index").map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(consul: &Consul, method: Method, path: &str, body: impl Into<Body>) -> Got {
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    let (parts, body) = consul.router().oneshot(request).await.unwrap().into_parts();
    let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    Got { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn get(consul: &Consul, path: &str) -> Got {
    send(consul, Method::GET, path, Body::empty()).await
}

async fn put(consul: &Consul, path: &str, body: impl Into<Body>) -> Got {
    send(consul, Method::PUT, path, body).await
}

async fn session(consul: &Consul, wanted: Value) -> String {
    let got = put(consul, "/v1/session/create", wanted.to_string()).await;
    got.json()["ID"].as_str().unwrap().to_owned()
}

fn lock(session: &str) -> String {
    format!("{LOCK}?acquire={session}&flags=3304740253564472344")
}

#[tokio::test]
async fn a_key_is_shown_as_an_agent_in_development_mode_shows_it() {
    let consul = Consul::new();
    let missing = get(&consul, LOCK).await;
    assert_eq!((missing.status, missing.body.as_str(), missing.index()), (404, "", "1"));
    let id = session(&consul, json!({ "Name": "n", "TTL": "15s" })).await;
    assert_eq!(put(&consul, &lock(&id), "").await.body, "true\n");
    let got = get(&consul, LOCK).await;
    let expected = format!(
        "[\n    {{\n        \"LockIndex\": 1,\n        \"Key\": \"nomad-firehose/allocations.lock\",\n        \
         \"Flags\": 3304740253564472344,\n        \"Value\": null,\n        \"Session\": \"{id}\",\n        \
         \"CreateIndex\": 3,\n        \"ModifyIndex\": 3\n    }}\n]\n"
    );
    assert_eq!(
        (got.body, got.headers["content-type"].to_str().unwrap()),
        (expected, "application/json")
    );
}

#[tokio::test]
async fn a_lock_is_held_by_one_session() {
    let consul = Consul::new();
    let first = session(&consul, json!({})).await;
    let second = session(&consul, json!({})).await;
    assert_eq!(put(&consul, &lock(&first), "").await.body, "true\n");
    assert_eq!(put(&consul, &lock(&second), "thief").await.body, "false\n");
    assert_eq!(put(&consul, &lock(&first), "again").await.body, "true\n");
    let entry = consul.entry("nomad-firehose/allocations.lock").unwrap();
    assert_eq!((entry.lock_index, entry.value.as_ref()), (1, b"again".as_slice()));
    let got = put(&consul, &lock(NOBODY), "").await;
    assert_eq!((got.status, got.body), (500, format!("invalid session \"{NOBODY}\"")));
    assert_eq!(put(&consul, &lock("zzz"), "").await.status, 500);
}

#[tokio::test]
async fn a_plain_put_on_a_locked_key_breaks_its_marks() {
    let consul = Consul::new();
    let id = session(&consul, json!({})).await;
    put(&consul, &lock(&id), "").await;
    assert_eq!(put(&consul, LOCK, "scribble").await.body, "true\n");
    let entry = consul.entry("nomad-firehose/allocations.lock").unwrap();
    assert_eq!((entry.lock_index, entry.flags, entry.session), (0, 0, Some(id)));
    put(&consul, LOCK, "scribble").await;
    let again = consul.entry("nomad-firehose/allocations.lock").unwrap();
    assert_eq!(again.modify_index, entry.modify_index);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_after_twice_its_ttl_and_the_lock_delay_follows() {
    let consul = Consul::new();
    let first = session(&consul, json!({ "TTL": "10s" })).await;
    let second = session(&consul, json!({})).await;
    put(&consul, &lock(&first), "").await;
    sleep(Duration::from_secs(15)).await;
    assert_eq!(put(&consul, &format!("/v1/session/renew/{first}"), "").await.status, 200);
    let begin = Instant::now();
    let index = get(&consul, LOCK).await.index().to_owned();
    let freed = get(&consul, &format!("{LOCK}?index={index}&wait=5m")).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(20));
    assert_eq!(freed.json()[0].get("Session"), None);
    assert_eq!(put(&consul, &format!("/v1/session/renew/{first}"), "").await.status, 404);
    sleep(Duration::from_millis(14_999)).await;
    assert_eq!(put(&consul, &lock(&second), "").await.body, "false\n");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(put(&consul, &lock(&second), "").await.body, "true\n");
}

#[tokio::test(start_paused = true)]
async fn a_release_wakes_the_next_one_and_has_no_delay() {
    let consul = Consul::new();
    let first = session(&consul, json!({})).await;
    let second = session(&consul, json!({})).await;
    put(&consul, &lock(&first), "").await;
    let index = get(&consul, LOCK).await.index().to_owned();
    let path = format!("{LOCK}?index={index}");
    let release = async {
        sleep(Duration::from_secs(1)).await;
        put(&consul, "/v1/kv/other", "unrelated").await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(put(&consul, &format!("{LOCK}?release={second}"), "").await.body, "false\n");
        assert_eq!(put(&consul, &format!("{LOCK}?release={first}"), "").await.body, "true\n");
    };
    let begin = Instant::now();
    let (woken, ()) = tokio::join!(get(&consul, &path), release);
    assert_eq!((begin.elapsed(), woken.json()[0].get("Session")), (Duration::from_secs(2), None));
    assert_eq!(put(&consul, &lock(&second), "").await.body, "true\n");
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let consul = Consul::new();
    let id = session(&consul, json!({})).await;
    put(&consul, &lock(&id), "").await;
    let fenced = |session: &str| {
        json!([
            { "KV": { "Verb": "set", "Key": "v", "Value": "NDI=" } },
            { "KV": { "Verb": "check-session", "Key": "nomad-firehose/allocations.lock", "Session": session } },
        ])
    };
    let refused = put(&consul, "/v1/txn", fenced(NOBODY).to_string()).await;
    let what = format!(
        "failed session check for key \"nomad-firehose/allocations.lock\", current session \"{id}\" != \"{NOBODY}\""
    );
    assert_eq!(refused.status, 409);
    assert_eq!(
        refused.json(),
        json!({ "Results": null, "Errors": [{ "OpIndex": 1, "What": what }] })
    );
    assert_eq!(consul.value("v"), None);
    let done = put(&consul, "/v1/txn", fenced(&id).to_string()).await;
    assert_eq!((done.status, &done.json()["Results"][0]["KV"]["Value"]), (200, &Value::Null));
    assert_eq!(consul.value("v").as_deref(), Some(b"42".as_slice()));
    let read =
        put(&consul, "/v1/txn", json!([{ "KV": { "Verb": "get", "Key": "v" } }]).to_string()).await;
    assert_eq!(read.json()["Results"][0]["KV"]["Value"], json!("NDI="));
    assert_eq!(read.json()["ConsistencyLevel"], json!(""));
    assert_eq!(read.headers["x-consul-knownleader"], "true");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let consul = Consul::new();
    let got = put(&consul, "/v1/kv/big", vec![b'x'; 513 * 1024]).await;
    assert_eq!(got.status, 413);
    assert!(
        got.body.starts_with("Request body(525312 bytes) too large, max size: 524288 bytes."),
        "{}",
        got.body
    );
    let op =
        |number| json!({ "KV": { "Verb": "set", "Key": format!("t{number}"), "Value": "OQ==" } });
    let got = put(&consul, "/v1/txn", Value::from_iter((0..65).map(op)).to_string()).await;
    assert_eq!(
        (got.status, got.body.as_str()),
        (413, "Transaction contains too many operations (65 > 64)")
    );
    assert_eq!(put(&consul, "/v1/txn", "{").await.status, 400);
}

#[tokio::test]
async fn sessions_are_refused_and_shown_in_the_words_of_the_server() {
    let consul = Consul::new();
    for (wanted, status, text) in [
        (
            r#"{"TTL": "1s"}"#,
            500,
            "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]",
        ),
        (r#"{"TTL": "abc"}"#, 500, "Session TTL 'abc' invalid: time: invalid duration \"abc\""),
        (r#"{"Behavior": "nope"}"#, 500, "Invalid Behavior setting 'nope'"),
        (r#"{"Checks": ["nosuchcheck"]}"#, 500, "Missing check 'nosuchcheck' registration"),
        (r#"{"TTL": 15}"#, 400, "Request decode failed: "),
    ] {
        let got = put(&consul, "/v1/session/create", wanted).await;
        assert!(
            got.status == status && got.body.starts_with(text),
            "{wanted}: {} {}",
            got.status,
            got.body
        );
    }
    let id = session(&consul, json!({ "LockDelay": "1ms", "Checks": [], "NodeChecks": [] })).await;
    let shown = get(&consul, &format!("/v1/session/info/{id}")).await.json();
    assert_eq!((&shown[0]["LockDelay"], &shown[0]["NodeChecks"]), (&json!(1_000_000), &json!([])));
    assert_eq!(get(&consul, &format!("/v1/session/info/{NOBODY}")).await.body, "[]\n");
    assert_eq!(put(&consul, &format!("/v1/session/destroy/{NOBODY}"), "").await.body, "true\n");
    let got = put(&consul, &format!("/v1/session/renew/{NOBODY}"), "").await;
    assert_eq!((got.status, got.body), (404, format!("Session id '{NOBODY}' not found")));
}

#[tokio::test]
async fn a_lost_answer_is_a_write_that_was_made() {
    let consul = Consul::new();
    consul.script("PUT /v1/kv/v", Fault::LoseAnswer);
    assert_eq!(get(&consul, "/v1/kv/v").await.status, 404);
    assert_eq!(put(&consul, "/v1/kv/v", "1").await.status, 500);
    assert_eq!(consul.value("v").as_deref(), Some(b"1".as_slice()));
}

#[tokio::test]
async fn without_rights_a_transaction_answers_409_and_a_key_403() {
    let consul = Consul::new();
    let id = session(&consul, json!({})).await;
    consul.deny_writes(Some("nomad-firehose/".to_owned()));
    let got = put(&consul, &lock(&id), "").await;
    assert_eq!((got.status, got.body.as_str()), (403, "Permission denied"));
    let txn =
        json!([{ "KV": { "Verb": "set", "Key": "nomad-firehose/v", "Value": "" } }]).to_string();
    let got = put(&consul, "/v1/txn", txn).await;
    assert_eq!((got.status, &got.json()["Errors"][0]["What"]), (409, &json!("Permission denied")));
    consul.require_token(Some(id.clone()));
    assert_eq!(get(&consul, LOCK).await.status, 403);
    assert_eq!(get(&consul, "/v1/kv/?recurse").await.status, 404);
    assert_eq!(get(&consul, &format!("/v1/session/info/{id}")).await.body, "[]\n");
    assert_eq!(get(&consul, &format!("{LOCK}?token=zzz")).await.body, "ACL not found");
}
