//! What Nomad may answer, and what becomes of it: nothing around it is lost, and no checkpoint
//! passes what was not published.

use std::time::Duration;

use bytes::Bytes;
use nomad_firehose::{
    api::{self, Query},
    error::Chain,
    standin::Fault,
    streams::{Nodes, Resource},
};
use serde_json::json;

use crate::support::{Table, Version, World, client, node, pass, stub, two_nodes, uuid};

fn faults() -> Vec<Fault> {
    let html = Bytes::from_static(b"<html><body>502 Bad Gateway");
    vec![
        Fault::CutBody { after_bytes: 30 },
        Fault::CutBody { after_bytes: 0 },
        Fault::GarbageBody { body: html, content_type: "text/html" },
        Fault::status(500, "No cluster leader"),
        Fault::status(429, "Too Many Requests"),
        Fault::status(403, "Permission denied"),
        Fault::Redirect("http://elsewhere.test/".to_owned()),
        Fault::Hang,
        Fault::NoIndex,
        Fault::GarbledIndex("-1x".to_owned()),
        Fault::EmptyDying,
        Fault::KnownLeader(false),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_bad_answer_is_tried_again_and_loses_nothing() {
    for fault in faults() {
        let said = format!("{fault:?}");
        let world = two_nodes();
        world.nomad.script("/v1/nodes", fault);
        let running = world.start::<Nodes>();
        world.published(2).await;
        world.nomad.upsert(Table::Nodes, node("c", "ready"));
        world.published(3).await;
        pass(700).await;
        assert_eq!(world.sink.subjects(), ["a", "b", "c"].map(uuid), "{said}");
        running.stop().await;
        assert_eq!(world.value::<Nodes>().unwrap(), world.nomad.index().to_string(), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_in_the_middle_of_a_run_loses_nothing_either() {
    for fault in faults() {
        let said = format!("{fault:?}");
        let world = two_nodes();
        let running = world.start::<Nodes>();
        world.published(2).await;
        world.nomad.script("/v1/nodes", fault);
        world.nomad.upsert(Table::Nodes, node("c", "ready"));
        world.nomad.upsert(Table::Nodes, node("d", "ready"));
        world.published(4).await;
        pass(700).await;
        assert_eq!(world.sink.subjects(), ["a", "b", "c", "d"].map(uuid), "{said}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_was_done_to_what_and_what_can_be_done_about_it() {
    let texts = [
        (
            Fault::status(500, "No cluster leader"),
            "cannot list nodes: the stand-in Nomad answered 500 `No cluster leader`; see its own log",
        ),
        (
            Fault::status(403, "Permission denied"),
            "answered 403 `Permission denied`; check NOMAD_TOKEN (or NOMAD_FIREHOSE_TOKEN_FILE) and the policies of that token",
        ),
        (Fault::status(429, "slow down"), "raise its limits"),
        (
            Fault::Redirect("http://other.test/".into()),
            "`see http://other.test/`; redirects are not followed",
        ),
        (Fault::NoIndex, "answered no X-Nomad-Index; is it what the address should lead to?"),
        (Fault::GarbledIndex("x".into()), "X-Nomad-Index `x`"),
        (
            Fault::Hang,
            "does not answer; check NOMAD_ADDR and that it is running: there was no answer within 20 s",
        ),
    ];
    for (fault, text) in texts {
        let world = two_nodes();
        world.nomad.script("/v1/nodes", fault);
        let nomad = api::Nomad::stand_in(world.nomad.router(), client());
        let Err(err) = Nodes::list(&nomad, &query()).await else { panic!("{text}: no error") };
        let said = Chain(&err).to_string();
        assert!(said.contains(text), "{said}\nlacks\n{text}");
    }
}

fn query() -> Query {
    Query { past: None, wait: Duration::ZERO, stale: true, namespace: "*".into(), prefix: None }
}

/// A world whose list of nodes is this body.
async fn listed(body: &str) -> (World, crate::support::Running) {
    let world = World::new(Version::V2_0);
    for id in ["a", "b"] {
        world.nomad.serve_object(Table::Nodes, "", &uuid(id), full(id));
    }
    world.nomad.serve_recorded(Table::Nodes, Bytes::from(body.to_owned()), 10);
    let running = world.start::<Nodes>();
    (world, running)
}

fn full(id: &str) -> Bytes {
    let index = if id == "a" { 5 } else { 9 };
    Bytes::from(json!({"ID": uuid(id), "ModifyIndex": index}).to_string())
}

#[tokio::test(start_paused = true)]
async fn a_bad_element_is_reported_and_the_checkpoint_stays_below_it_while_the_others_are_published()
 {
    let bad = [
        "17",
        "null",
        "\"text\"",
        "[]",
        r#"{"Name":"no id","ModifyIndex":7}"#,
        r#"{"ID":"","ModifyIndex":7}"#,
        r#"{"ID":"x","ModifyIndex":"7"}"#,
        r#"{"ID":"x","ModifyIndex":-7}"#,
        r#"{"ID":"x"}"#,
        r#"{"ID":17,"ModifyIndex":7}"#,
        r#"{"ID":"x","ModifyIndex":7,,}"#,
    ];
    for bad in bad {
        let body = format!("[{},{bad},{}]", stub("a", 5), stub("b", 9));
        let (world, running) = listed(&body).await;
        world.published(2).await;
        pass(120).await;
        assert_eq!(world.sink.subjects(), ["a", "b"].map(uuid), "{bad}");
        assert!(running.metrics.bad_elements.get() > 0, "{bad}");
        assert!(running.metrics.lists_read.get() < 20, "{bad}: asked too often");
        // Once it can be read, everything is past.
        let body = format!("[{},{}]", stub("a", 5), stub("b", 9));
        world.nomad.serve_recorded(Table::Nodes, Bytes::from(body), 11);
        pass(60).await;
        running.stop().await;
        assert_eq!(world.sink.count(), 2, "{bad}");
        assert_eq!(world.value::<Nodes>().as_deref(), Some("11"), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_below_a_bad_element_repeats_nothing_and_finds_it_after_a_restart() {
    let bad = r#"{"ID":"x","ModifyIndex":"7"}"#;
    let (world, running) = listed(&format!("[{},{bad},{}]", stub("a", 5), stub("b", 9))).await;
    world.published(2).await;
    pass(60).await;
    running.stop().await;
    assert_eq!(world.value::<Nodes>().as_deref(), Some("0"));
    let mended = json!({"ID": uuid("c"), "ModifyIndex": 7}).to_string();
    world.nomad.serve_object(Table::Nodes, "", &uuid("c"), Bytes::from(mended.clone()));
    let body = format!("[{},{mended},{}]", stub("a", 5), stub("b", 9));
    world.nomad.serve_recorded(Table::Nodes, Bytes::from(body), 10);
    let running = world.start::<Nodes>();
    world.published(3).await;
    pass(60).await;
    assert_eq!(world.sink.subjects(), ["a", "b", "c"].map(uuid));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn invalid_utf_8_in_one_element_harms_no_other() {
    let mut body = format!("[{},", stub("a", 5)).into_bytes();
    body.extend_from_slice(b"{\"ID\":\"x\xff\",\"ModifyIndex\":7},");
    body.extend_from_slice(format!("{}]", stub("b", 9)).as_bytes());
    let world = World::new(Version::V2_0);
    for id in ["a", "b"] {
        world.nomad.serve_object(Table::Nodes, "", &uuid(id), full(id));
    }
    world.nomad.serve_recorded(Table::Nodes, Bytes::from(body), 10);
    let running = world.start::<Nodes>();
    world.published(2).await;
    assert_eq!(running.metrics.bad_elements.get(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_element_of_200_megabytes_is_passed_over_and_reported() {
    let world = World::new(Version::V2_0);
    let huge = format!(r#"{{"ID":"x","ModifyIndex":7,"Name":"{}"}}"#, "x".repeat(200 << 20));
    let (a, huge, b) = (stub("a", 5), Bytes::from(huge), stub("b", 9));
    for id in ["a", "b"] {
        world.nomad.serve_object(Table::Nodes, "", &uuid(id), full(id));
    }
    world.nomad.serve_generated(Table::Nodes, 10, move || {
        [Bytes::from(a.clone()), huge.clone(), Bytes::from(b.clone())].into_iter()
    });
    let running = world.start::<Nodes>();
    world.published(2).await;
    assert!(running.metrics.bad_elements.get() > 0);
    running.stop().await;
    assert_eq!(world.value::<Nodes>().as_deref(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn null_for_a_list_is_an_error_and_not_an_empty_cluster() {
    let (world, running) = listed("null").await;
    pass(60).await;
    assert!(running.metrics.nomad_errors.get() > 0);
    assert!(running.metrics.nomad_errors.get() < 20, "asked too often");
    assert_eq!(world.value::<Nodes>(), None);
    running.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_an_error_that_names_the_address_and_its_variable() {
    api::connect::install_crypto();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("http://user:hunter2@{closed}");
    let env = nomad_firehose::env::Env::from([("NOMAD_ADDR", address.as_str())]);
    let endpoint = api::connect::nomad(&env);
    let nomad = api::Nomad::new(env.check(endpoint).unwrap(), None);
    let Err(err) = Nodes::list(&nomad, &query()).await else { panic!("no error") };
    let said = Chain(&err).to_string();
    assert!(said.contains(&closed.to_string()) && said.contains("NOMAD_ADDR"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(err.status(), None);
}
