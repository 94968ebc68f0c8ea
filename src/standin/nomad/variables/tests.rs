use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::standin::nomad::{Nomad, Version};

const PATH: &str = "firehose/lock";

struct Got {
    status: u16,
    index: u64,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn modify_index(&self) -> u64 {
        self.json()["ModifyIndex"].as_u64().unwrap()
    }
}

fn nomad() -> Nomad {
    Nomad::new(Version::V2_0)
}

async fn send(nomad: &Nomad, method: Method, path: &str, body: Value) -> Got {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let uri = format!("/v1/var/{path}");
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    let (parts, body) = nomad.router().oneshot(request).await.unwrap().into_parts();
    let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    let index = parts.headers.get("x-nomad-index").map_or("0", |it| it.to_str().unwrap());
    Got { status: parts.status.as_u16(), index: index.parse().unwrap(), body }
}

async fn get(nomad: &Nomad, path: &str) -> Got {
    send(nomad, Method::GET, path, Value::Null).await
}

async fn put(nomad: &Nomad, path: &str, body: Value) -> Got {
    send(nomad, Method::PUT, path, body).await
}

fn some_items() -> Value {
    json!({ "Items": { "k": "v" } })
}

async fn acquire(nomad: &Nomad, id: &str) -> Got {
    let lock = json!({ "ID": id, "TTL": "10s", "LockDelay": "5s" });
    let body = json!({ "Items": { "by": id }, "Lock": lock });
    put(nomad, &format!("{PATH}?lock-acquire"), body).await
}

async fn renew(nomad: &Nomad, id: &str) -> u16 {
    put(nomad, &format!("{PATH}?lock-renew"), json!({ "Lock": { "ID": id } })).await.status
}

async fn release(nomad: &Nomad, id: &str) -> u16 {
    put(nomad, &format!("{PATH}?lock-release"), json!({ "Lock": { "ID": id } })).await.status
}

async fn fenced(nomad: &Nomad, id: &str, query: &str) -> u16 {
    let body = json!({ "Items": { "k": "v" }, "Lock": { "ID": id } });
    put(nomad, &format!("{PATH}{query}"), body).await.status
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn a_write_that_compares_is_done_at_that_index_only() {
    let nomad = nomad();
    assert_eq!(get(&nomad, "a/b").await.status, 404);
    let first = put(&nomad, "a/b?cas=0", some_items()).await;
    assert_eq!((first.status, first.modify_index()), (200, first.index));
    let refused = put(&nomad, "a/b?cas=0", json!({ "Items": { "k": "w" } })).await;
    assert_eq!((refused.status, &refused.json()["Items"]), (409, &json!({ "k": "v" })));
    let second = put(&nomad, &format!("a/b?cas={}", first.index), some_items()).await;
    assert!(second.status == 200 && second.index > first.index);
    let got = get(&nomad, "a%2Fb").await;
    assert_eq!((got.status, got.index, &got.json()["Path"]), (200, second.index, &json!("a/b")));
    assert_eq!(get(&nomad, "a/b?namespace=other").await.status, 404);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let nomad = nomad();
    let lock = |lock: Value| json!({ "Items": { "k": "v" }, "Lock": lock });
    for (path, body) in [
        ("a%20b", some_items()),
        ("nomad", some_items()),
        ("nomad/other", some_items()),
        ("nomad/job-templates/a/b", some_items()),
        (&"p".repeat(129), some_items()),
        ("a?namespace=*", some_items()),
        ("a", json!({ "Items": {} })),
        ("a", json!({ "Path": "b", "Items": { "k": "v" } })),
        ("a", json!({ "Items": { "key": "x".repeat(64 * 1024 - 2) } })),
        ("a?cas=1&lock-acquire", some_items()),
        ("a?lock-renew&lock-acquire", some_items()),
        ("a?lock-acquire", lock(json!({ "TTL": "9s" }))),
        ("a?lock-acquire", lock(json!({ "TTL": "25h" }))),
        ("a?lock-release", lock(json!({ "ID": "x" }))),
        ("a?lock-release", json!({ "Lock": {} })),
        ("a?lock-renew", json!({ "Lock": {} })),
        ("a", lock(json!({ "ID": "x", "TTL": "10s" }))),
    ] {
        assert_eq!(put(&nomad, path, body.clone()).await.status, 400, "{path} {body}");
    }
    assert!(nomad.variables().is_empty());
    for path in ["nomad/jobs", "nomad/jobs/a/b", "nomad/sentinel", &"p".repeat(128)] {
        assert_eq!(put(&nomad, path, some_items()).await.status, 200, "{path}");
    }
    let largest = json!({ "Items": { "key": "x".repeat(64 * 1024 - 3) } });
    assert_eq!(put(&nomad, "a", largest).await.status, 200);
}

#[tokio::test]
async fn a_lock_is_held_by_one_under_the_id_that_it_chose() {
    let nomad = nomad();
    let won = acquire(&nomad, "one").await;
    assert_eq!((won.status, &won.json()["Lock"]["ID"]), (200, &json!("one")));
    let refused = acquire(&nomad, "two").await;
    assert_eq!((refused.status, refused.json().get("Items")), (409, None));
    assert_eq!((renew(&nomad, "two").await, release(&nomad, "two").await), (409, 409));
    assert_eq!(put(&nomad, PATH, some_items()).await.status, 409);
    assert_eq!(release(&nomad, "one").await, 200);
    let unnamed = put(&nomad, &format!("{PATH}?lock-acquire"), json!({})).await;
    assert_eq!(unnamed.json()["Lock"]["ID"].as_str().unwrap().len(), 36);
    assert_eq!(put(&nomad, "other?lock-renew", json!({ "Lock": { "ID": "x" } })).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_lock_expires_after_twice_its_ttl_and_its_delay_follows() {
    let nomad = nomad();
    acquire(&nomad, "one").await;
    seconds(15).await;
    assert_eq!(renew(&nomad, "one").await, 200);
    let begin = Instant::now();
    seconds(19).await;
    assert_eq!(fenced(&nomad, "one", "").await, 200);
    seconds(2).await;
    // In the delay the holder cannot renew, and nobody can acquire, but the holder's writes count.
    assert_eq!((renew(&nomad, "one").await, acquire(&nomad, "two").await.status), (409, 409));
    assert_eq!(fenced(&nomad, "one", "").await, 200);
    // The write at 19 s has set the delay to 15 s.
    let index = get(&nomad, PATH).await.index;
    let freed = get(&nomad, &format!("{PATH}?index={index}&wait=5m")).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(35));
    assert_eq!((freed.json().get("Lock"), freed.index > index), (None, true));
    assert_eq!(acquire(&nomad, "two").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_release_has_no_delay_and_moves_the_index_and_a_renewal_does_not() {
    let nomad = nomad();
    let index = acquire(&nomad, "one").await.modify_index();
    assert_eq!(renew(&nomad, "one").await, 200);
    assert_eq!(get(&nomad, PATH).await.index, index);
    let releases = async {
        seconds(3).await;
        release(&nomad, "one").await
    };
    let begin = Instant::now();
    let path = format!("{PATH}?index={index}");
    let (woken, released) = tokio::join!(get(&nomad, &path), releases);
    assert_eq!((begin.elapsed(), released), (Duration::from_secs(3), 200));
    assert!(woken.index > index && woken.json().get("Lock").is_none());
    assert_eq!(acquire(&nomad, "two").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_write_of_the_holder_sets_the_times_of_the_lock_back_to_the_defaults() {
    let nomad = nomad();
    acquire(&nomad, "one").await;
    assert_eq!(fenced(&nomad, "one", "").await, 200);
    let lock = nomad.variable("default", PATH).unwrap().lock.unwrap();
    assert_eq!((lock.ttl, lock.delay), (Duration::from_secs(15), Duration::from_secs(15)));
    renew(&nomad, "one").await;
    seconds(29).await;
    assert_eq!(renew(&nomad, "one").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_of_a_holder_makes_a_lock_that_nobody_owns_unless_it_compares() {
    let nomad = nomad();
    let index = acquire(&nomad, "one").await.modify_index();
    seconds(60).await;
    assert_eq!(fenced(&nomad, "one", &format!("?cas={index}")).await, 409);
    assert_eq!(fenced(&nomad, "one", "").await, 200);
    seconds(100_000).await;
    assert_eq!(acquire(&nomad, "two").await.status, 409);
    nomad.change_leader();
    seconds(45).await;
    assert_eq!(acquire(&nomad, "two").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_release_within_the_delay_lets_the_clean_up_hit_the_successor() {
    let nomad = nomad();
    acquire(&nomad, "one").await;
    seconds(21).await;
    assert_eq!(release(&nomad, "one").await, 200);
    let index = acquire(&nomad, "two").await.modify_index();
    assert_eq!(renew(&nomad, "two").await, 200);
    seconds(5).await;
    assert_eq!(renew(&nomad, "two").await, 409);
    let variable = nomad.variable("default", PATH).unwrap();
    assert!(variable.lock.is_none() && variable.modify_index > index);
}

#[tokio::test(start_paused = true)]
async fn an_acquire_under_the_own_id_sets_no_timer_anew() {
    let nomad = nomad();
    acquire(&nomad, "one").await;
    seconds(19).await;
    assert_eq!(acquire(&nomad, "one").await.status, 200);
    seconds(2).await;
    assert_eq!(renew(&nomad, "one").await, 409);
}

#[tokio::test(start_paused = true)]
async fn another_leader_gives_every_lock_its_whole_time_and_forgets_delays() {
    let nomad = nomad();
    acquire(&nomad, "one").await;
    seconds(21).await;
    nomad.change_leader();
    assert_eq!(renew(&nomad, "one").await, 200);
    seconds(19).await;
    nomad.change_leader();
    seconds(19).await;
    assert_eq!(renew(&nomad, "one").await, 200);
}

#[tokio::test]
async fn an_acquire_replaces_the_items_and_one_without_items_empties_the_variable() {
    let nomad = nomad();
    put(&nomad, PATH, some_items()).await;
    acquire(&nomad, "one").await;
    assert_eq!(get(&nomad, PATH).await.json()["Items"], json!({ "by": "one" }));
    release(&nomad, "one").await;
    put(&nomad, &format!("{PATH}?lock-acquire"), json!({})).await;
    assert_eq!(get(&nomad, PATH).await.json()["Items"], json!({}));
}

#[tokio::test]
async fn who_holds_a_lock_can_be_hidden_from_readers() {
    let nomad = nomad();
    acquire(&nomad, "one").await;
    assert_eq!(get(&nomad, PATH).await.json()["Lock"]["ID"], json!("one"));
    nomad.hide_locks(true);
    assert_eq!(get(&nomad, PATH).await.json().get("Lock"), None);
    assert_eq!(put(&nomad, PATH, some_items()).await.json().get("Lock"), None);
}

#[tokio::test]
async fn an_older_server_has_no_locks_or_no_variables() {
    let nomad = nomad();
    nomad.set_build("1.6.10");
    let got = acquire(&nomad, "one").await;
    assert_eq!((got.status, got.json().get("Lock")), (200, None));
    assert_eq!(acquire(&nomad, "two").await.status, 200);
    nomad.set_build("1.3.5");
    assert_eq!(get(&nomad, PATH).await.status, 404);
    assert_eq!(put(&nomad, PATH, some_items()).await.body, "");
}

#[tokio::test]
async fn without_rights_variables_are_denied() {
    let nomad = nomad();
    nomad.deny_variable_writes(Some("firehose/".to_owned()));
    assert_eq!(put(&nomad, PATH, some_items()).await.status, 403);
    assert_eq!(
        (put(&nomad, "x", some_items()).await.status, get(&nomad, PATH).await.status),
        (200, 404)
    );
    nomad.deny_variables(Some("firehose/".to_owned()));
    assert_eq!(get(&nomad, PATH).await.body, "Permission denied");
    nomad.deny_variables(None);
    nomad.require_token(Some("secret".to_owned()));
    assert_eq!(get(&nomad, "x").await.status, 403);
}
