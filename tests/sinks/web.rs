//! A receiver of HTTP requests.

use std::{
    collections::HashSet,
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
};
use flate2::read::GzDecoder;
use nomad_firehose::standin::serve;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::contract::{LARGE, Receiver};
use crate::firehose::Program;

pub const TOKEN: &str = "let-me-in";

/// What came with one request.
#[derive(Clone, Debug)]
pub struct Posted {
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
struct Inner {
    posted: Vec<Posted>,
    received: Vec<(String, Value)>,
    takes_full: bool,
    /// Answers that are given before the record is looked at.
    answers: Vec<(StatusCode, Option<&'static str>)>,
}

/// A server that takes single events and batches of them.
pub struct Web {
    port: u16,
    inner: Arc<Mutex<Inner>>,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Web {
    pub async fn start() -> Self {
        let mut web = Self { port: 0, inner: Arc::default(), task: None };
        web.listen().await;
        web
    }

    async fn listen(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = TcpListener::bind(address).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(self.inner.clone());
        let served = serve::serve(router, listener, std::future::pending());
        self.task = Some(tokio::spawn(served));
    }

    /// What the next requests are answered with.
    pub fn answer_with(&self, status: u16, later: Option<&'static str>) {
        let status = StatusCode::from_u16(status).unwrap();
        self.inner.lock().unwrap().answers.push((status, later));
    }

    /// All requests that came.
    pub fn posted(&self) -> Vec<Posted> {
        self.inner.lock().unwrap().posted.clone()
    }

    pub fn all(&self) -> Vec<(String, Value)> {
        self.inner.lock().unwrap().received.clone()
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    request: Request,
) -> (StatusCode, HeaderMap) {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap_or_default();
    let mut inner = inner.lock().unwrap();
    let (uri, headers) = (parts.uri.to_string(), parts.headers);
    inner.posted.push(Posted { uri, headers: headers.clone(), body: body.clone() });
    let mut back = HeaderMap::new();
    if !inner.answers.is_empty() {
        let (status, later) = inner.answers.remove(0);
        if let Some(later) = later {
            back.insert("retry-after", later.parse().unwrap());
        }
        return (status, back);
    }
    (take(&mut inner, &headers, &body), back)
}

fn take(inner: &mut Inner, headers: &HeaderMap, body: &[u8]) -> StatusCode {
    if headers.get("authorization").is_none_or(|it| it != &format!("Bearer {TOKEN}")) {
        return StatusCode::UNAUTHORIZED;
    }
    let mut plain = Vec::new();
    let body = if headers.get("content-encoding").is_some_and(|it| it == "gzip") {
        GzDecoder::new(body).read_to_end(&mut plain).unwrap();
        &plain[..]
    } else {
        body
    };
    if body.len() > LARGE {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    let events: Vec<Value> = match headers["content-type"].to_str().unwrap() {
        "application/x-ndjson" => {
            body.split(|it| *it == b'\n').filter(|it| !it.is_empty()).map(parse).collect()
        }
        "application/cloudevents-batch+json" => parse(body).as_array().unwrap().clone(),
        _ => match parse(body) {
            Value::Array(events) => events,
            event => vec![event],
        },
    };
    // A payload alone does not say which record it is: the header does, or its own members.
    let id = |event: &Value| match (event["id"].as_str(), headers.get("ce-id")) {
        (Some(id), _) => id.to_owned(),
        (None, Some(id)) => id.to_str().unwrap().to_owned(),
        (None, None) => format!("{}/{}", event["AllocationID"], event["TaskEvent"]["Time"]),
    };
    let payload = |event: &Value| match event.get("data") {
        Some(data) => data.clone(),
        None => event.clone(),
    };
    let jobs: HashSet<String> =
        events.iter().map(|it| payload(it)["JobID"].as_str().unwrap().to_owned()).collect();
    if jobs.contains("bad") {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    if jobs.contains("full") && !inner.takes_full {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    inner.received.extend(events.iter().map(|it| (id(it), payload(it))));
    StatusCode::ACCEPTED
}

/// A receiver that gets a request for each record, or batches of CloudEvents.
pub struct Posts<const BATCHES: bool>(Web);

impl<const BATCHES: bool> Receiver for Posts<BATCHES> {
    const UNREACHABLE: &'static str = "no answer; check SINK_HTTP_ADDRESS";
    const DENIED: &'static str = "401 Unauthorized; check SINK_HTTP_TOKEN";

    async fn start() -> Self {
        Self(Web::start().await)
    }

    fn port(&self) -> u16 {
        self.0.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        let program = program
            .set("SINK_TYPE", "http")
            .set("SINK_HTTP_ADDRESS", format!("http://127.0.0.1:{port}/events"))
            .set("SINK_HTTP_TOKEN", TOKEN)
            .set("SINK_HTTP_TIMEOUT", "20s")
            .set("SINK_WORKER_COUNT", "4");
        if !BATCHES {
            return program;
        }
        program
            .set("SINK_HTTP_BATCH", "cloudevents")
            .set("SINK_HTTP_BATCH_RECORDS", "50")
            .set("SINK_HTTP_BATCH_BYTES", "50000")
            .set("SINK_HTTP_GZIP", "true")
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port).set("SINK_HTTP_TOKEN", "wrong")
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        self.0.all()
    }

    async fn take_full(&mut self, takes: bool) {
        self.0.inner.lock().unwrap().takes_full = takes;
    }

    async fn crash(&mut self) {
        if let Some(task) = self.0.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    async fn come_back(&mut self) {
        self.0.listen().await;
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
