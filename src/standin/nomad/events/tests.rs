use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::{HeaderMap, StatusCode},
};
use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::super::{Fault, Nomad, Table, Version};

mod faults;
mod payloads;
mod positions;

const NODE: &str = "ccde500a-4cd3-6f7e-fae4-8e14ae2c138d";
const BOTH: [Version; 2] = [Version::V1_0, Version::V2_0];

/// An open stream.
struct Stream {
    status: StatusCode,
    headers: HeaderMap,
    body: BodyDataStream,
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
enum Ended {
    Open,
    Whole,
    Broken,
}

impl Stream {
    async fn open(nomad: &Nomad, query: &str) -> Self {
        Self::open_with(nomad, query, None).await
    }

    async fn open_with(nomad: &Nomad, query: &str, token: Option<&str>) -> Self {
        let request = Request::get(format!("/v1/event/stream{query}"));
        let request = request.header("x-nomad-token", token.unwrap_or_default());
        let response = nomad.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.into_data_stream();
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// The next piece, if one comes within the time.
    async fn piece(&mut self, within: Duration) -> Option<Bytes> {
        timeout(within, self.body.next()).await.ok().flatten().map(Result::unwrap)
    }

    /// All that comes without waiting, and whether that was all.
    async fn rest(&mut self) -> (String, Ended) {
        let mut text = Vec::new();
        let ended = loop {
            match timeout(Duration::from_millis(1), self.body.next()).await {
                Err(_) => break Ended::Open,
                Ok(None) => break Ended::Whole,
                Ok(Some(Err(_))) => break Ended::Broken,
                Ok(Some(Ok(piece))) => text.extend(piece),
            }
        };
        (String::from_utf8(text).unwrap(), ended)
    }

    /// The batches that come without waiting.
    async fn batches(&mut self) -> Vec<Value> {
        let (text, ended) = self.rest().await;
        assert_eq!(ended, Ended::Open, "{text}");
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line| *line != json!({})).collect()
    }

    async fn indexes(&mut self) -> Vec<u64> {
        self.batches().await.iter().map(|batch| batch["Index"].as_u64().unwrap()).collect()
    }

    /// Topic and type of every event, by line.
    async fn kinds(&mut self) -> Vec<Vec<String>> {
        let kind = |event: &Value| format!("{} {}", text(&event["Topic"]), text(&event["Type"]));
        let line = |batch: &Value| events(batch).iter().map(kind).collect();
        self.batches().await.iter().map(line).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn events(batch: &Value) -> &[Value] {
    batch["Events"].as_array().unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn allocation(id: &str) -> Map<String, Value> {
    object(json!({
        "ID": id,
        "Namespace": "default",
        "NodeID": NODE,
        "JobID": "job",
        "JobVersion": 3,
        "JobType": "service",
        "DesiredStatus": "run",
        "FollowupEvalID": "",
        "DesiredTransition": { "Migrate": null },
        "TaskStates": { "t": { "StartedAt": null, "Events": [{ "Message": "a<b" }] } },
    }))
}

fn of_namespace(namespace: &str, id: &str) -> Map<String, Value> {
    object(json!({ "ID": id, "Namespace": namespace, "JobID": "job", "DeploymentID": "d" }))
}

fn node(status: &str) -> Map<String, Value> {
    object(json!({ "ID": NODE, "Status": status, "LastAllocUpdateIndex": 0 }))
}

fn evaluation(id: &str) -> Map<String, Value> {
    of_namespace("default", id)
}

/// A cluster with this many batches, at the indexes from 2 on.
fn with_batches(version: Version, number: usize) -> Nomad {
    let nomad = Nomad::new(version);
    write(&nomad, number);
    nomad
}

fn write(nomad: &Nomad, batches: usize) {
    for _ in 0..batches {
        nomad.upsert(Table::Evaluations, evaluation("e"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_an_empty_object_and_repeats_it_every_30_seconds() {
    for version in BOTH {
        let nomad = Nomad::new(version);
        let begin = Instant::now();
        let mut stream = Stream::open(&nomad, "").await;
        for beat in 0..4 {
            let line = stream.piece(Duration::from_secs(31)).await.unwrap();
            assert_eq!((&line[..], begin.elapsed().as_secs()), (&b"{}"[..], beat * 30));
            assert_eq!(stream.piece(Duration::ZERO).await.unwrap(), "\n");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_and_its_break_are_pieces_of_their_own() {
    let nomad = with_batches(Version::V2_0, 1);
    let mut stream = Stream::open(&nomad, "").await;
    let mut pieces = Vec::new();
    while let Some(piece) = stream.piece(Duration::from_millis(1)).await {
        pieces.push(piece);
    }
    assert_eq!(pieces.len(), 4, "{pieces:?}");
    assert!(pieces[2].starts_with(b"{\"Index\":2,\"Events\":[{\"Topic\":\"Evaluation\","));
    assert!(pieces[2].ends_with(b"}}]}") && pieces[3] == "\n");
}

#[tokio::test(start_paused = true)]
async fn the_headers_are_those_of_the_version() {
    for version in BOTH {
        let stream = Stream::open(&Nomad::new(version), "").await;
        let header = |name: &str| stream.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(stream.status, StatusCode::OK);
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("cache-control"), Some("no-cache"));
        assert_eq!(header("vary"), Some("Accept-Encoding"));
        assert_eq!(header("x-nomad-index"), None);
        assert_eq!(header("connection"), (version == Version::V2_0).then_some("close"));
    }
}

#[tokio::test(start_paused = true)]
async fn bad_parameters_are_refused_in_the_words_of_the_server() {
    let bad = [
        ("?index=abc", "Unable to parse index: strconv.Atoi: parsing \"abc\": invalid syntax"),
        (
            "?topic=Nope:x:y",
            "Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: Nope:x:y",
        ),
    ];
    for version in BOTH {
        for (query, words) in bad {
            let mut stream = Stream::open(&Nomad::new(version), query).await;
            assert_eq!(stream.status, StatusCode::BAD_REQUEST);
            assert_eq!(stream.rest().await, (words.to_owned(), Ended::Whole));
        }
    }
    let request = Request::post("/v1/event/stream").body(Body::empty()).unwrap();
    let response = Nomad::new(Version::V2_0).router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(start_paused = true)]
async fn topics_and_their_keys_choose_what_is_sent() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Nodes, node("ready"));
    nomad.upsert(Table::Evaluations, evaluation("e"));
    nomad.upsert(Table::Deployments, evaluation("d"));
    for (query, indexes) in [
        ("?topic=*", vec![2, 3, 4]),
        ("?topic=*:*", vec![2, 3, 4]),
        ("?topic=Node", vec![2]),
        ("?topic=node", vec![]),
        ("?topic=Evaluation&topic=Node:*", vec![2, 3]),
        ("?topic=Evaluation:e", vec![3]),
        ("?topic=Evaluation:job", vec![3]),
        ("?topic=Evaluation:d", vec![3]),
        ("?topic=Deployment:job", vec![4]),
        ("?topic=Evaluation:other", vec![]),
        ("?topic=*:job", vec![3, 4]),
        ("?topic=Node:*&topic=Node:other", vec![]),
    ] {
        assert_eq!(Stream::open(&nomad, query).await.indexes().await, indexes, "{query}");
    }
    let twice =
        Stream::open(&nomad, "?topic=Evaluation:e&topic=Evaluation:job").await.batches().await;
    assert_eq!(events(&twice[0]).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_lets_through_its_own_and_all_nodes() {
    let nomad = Nomad::new(Version::V1_0);
    nomad.upsert(Table::Nodes, node("ready"));
    nomad.upsert(Table::Evaluations, evaluation("e"));
    nomad.upsert(Table::Evaluations, of_namespace("ops", "o"));
    for (query, indexes) in
        [("", vec![2, 3]), ("?namespace=ops", vec![2, 4]), ("?namespace=*", vec![2, 3, 4])]
    {
        assert_eq!(Stream::open(&nomad, query).await.indexes().await, indexes, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_newer_version_sends_no_namespace_that_came_after_the_request() {
    for version in BOTH {
        let nomad = Nomad::new(version);
        nomad.add_namespace("old");
        let mut stream = Stream::open(&nomad, "?namespace=*").await;
        nomad.add_namespace("new");
        let old = nomad.upsert(Table::Jobs, of_namespace("old", "j"));
        let new = nomad.upsert(Table::Jobs, of_namespace("new", "j"));
        let both = vec![old, new];
        let sent = stream.indexes().await;
        assert_eq!(sent, if version == Version::V1_0 { both.clone() } else { vec![old] });
        assert_eq!(Stream::open(&nomad, "?namespace=*").await.indexes().await, both);
    }
}
