//! Answers without an end, and those that unpack to one: memory stays bounded, the log says what
//! it was, and the rest goes on.

use std::io::Write;

use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt;
use nomad_firehose::{
    api::{Consul, Nomad, connect, connect::ConsulScope},
    env::Env,
    error::Chain,
    standin::nomad::{Nomad as StandIn, Table, Version},
};

use crate::firehose::{Program, Served};

/// What a bomb unpacks to, beside what is around it.
const UNPACKED: usize = 192 << 20;
/// The most that a process may have resident meanwhile. An element of a list or an answer has 16
/// MiB at most, and is there twice for a moment.
const MOST_KIB: u64 = 96 << 10;
const TOO_LARGE: &str = "more than 16777216 bytes; is it what the address should lead to?";

/// Much of nothing between two texts, packed.
fn bomb(before: &str, after: &str) -> Bytes {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(before.as_bytes()).unwrap();
    let piece = vec![b'0'; 1 << 20];
    for _ in 0..UNPACKED >> 20 {
        packed.write_all(&piece).unwrap();
    }
    packed.write_all(after.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 2 << 20);
    packed.into()
}

fn packed(bytes: Bytes) -> Response {
    let answer = Response::builder().header("Content-Encoding", "gzip");
    answer
        .header("X-Nomad-Index", "7")
        .header("X-Consul-Index", "7")
        .body(Body::from(bytes))
        .unwrap()
}

/// A server that answers everything with a bomb.
async fn everything() -> Served {
    let bomb = bomb("{\"ID\":\"", "\"}");
    Served::new(Router::new().fallback(move || std::future::ready(packed(bomb.clone())))).await
}

#[tokio::test]
async fn an_answer_that_is_larger_than_any_is_an_error_that_says_so() {
    let served = everything().await;
    let address = &*served.address;
    let env = Env::from([("NOMAD_ADDR", address), ("CONSUL_HTTP_ADDR", address)]);
    let nomad = Nomad::new(connect::nomad(&env).unwrap(), None);
    let consul = Consul::new(connect::consul(&env).unwrap(), ConsulScope::default());
    let second = std::time::Duration::from_secs(60);
    let errors = [
        nomad.version().await.err(),
        nomad.namespaces().await.err(),
        nomad.node("a", false).await.err(),
        nomad.job("a", "default", false).await.err(),
        consul.create_session("a", second, second).await.err(),
        consul.session_checks("a").await.err(),
        consul.read("a", None).await.err(),
        consul.acquire("a", "b").await.err(),
    ];
    for err in errors {
        let said = Chain(&err.unwrap()).to_string();
        assert!(said.ends_with(TOO_LARGE), "{said}");
    }
}

#[tokio::test]
async fn a_process_that_is_answered_with_bombs_stays_small_and_publishes_what_it_can() {
    let stand_in = StandIn::new(Version::V2_0);
    stand_in.upsert(Table::Nodes, crate::support::node("a", "ready"));
    let list = r#"[{"ID":"aaaaaaaa-0000-0000-0000-000000000000","ModifyIndex":7},{"ID":""#;
    let list = bomb(list, r#"","ModifyIndex":7}]"#);
    let other = bomb("", "");
    let served = Served::new(Router::new().fallback(move |request: Request| {
        std::future::ready(match request.uri().path() {
            "/v1/evaluations" => packed(list.clone()),
            _ => packed(other.clone()),
        })
    }))
    .await;
    let running = Program::stream("evaluations")
        .set("SINK_TYPE", "stdout")
        .set("NOMAD_FIREHOSE_LEADER", "solo")
        .set("NOMAD_ADDR", &served.address)
        .start();
    running.logs("element 2 of the list cannot be read: it has 201").await;
    running.publishes(1).await;
    let peak = running.peak_kib();
    running.stop().await;
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test]
async fn a_process_whose_consul_answers_with_bombs_stays_small_and_says_so() {
    let served = everything().await;
    let running = Program::stream("evaluations")
        .set("SINK_TYPE", "stdout")
        .set("CONSUL_HTTP_ADDR", &served.address)
        .start();
    running.logs(TOO_LARGE).await;
    let peak = running.peak_kib();
    let log = running.stop().await.log;
    assert!(log.contains("cannot be elected; it is tried again"), "{log}");
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test]
async fn a_line_of_the_event_stream_without_an_end_takes_no_more_memory_than_one_of_16_mib() {
    let stand_in = StandIn::new(Version::V2_0);
    stand_in.upsert(Table::Evaluations, crate::support::evaluation("a", "default", "pending"));
    let body = || {
        let first = futures::stream::iter([b"{}\n{\"Index\":9,\"Events\":[".to_vec()]);
        let endless = futures::stream::iter(0..UNPACKED >> 20).map(|_| vec![b'0'; 1 << 20]);
        Body::from_stream(first.chain(endless).map(Ok::<_, std::io::Error>))
    };
    let router = Router::new()
        .route("/v1/event/stream", axum::routing::get(move || std::future::ready(body())))
        .fallback_service(stand_in.router());
    let served = Served::new(router).await;
    let running = Program::stream("evaluations")
        .set("SINK_TYPE", "stdout")
        .set("NOMAD_FIREHOSE_LEADER", "solo")
        .set("NOMAD_ADDR", &served.address)
        .start();
    running.publishes(1).await;
    running.logs("the event stream is not there").await;
    let peak = running.peak_kib();
    running.stop().await;
    assert!(peak < MOST_KIB, "{peak} KiB");
}
