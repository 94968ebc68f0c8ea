//! A receiver of HTTP requests.

use std::{
    collections::{HashSet, VecDeque},
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header::RETRY_AFTER},
};
use flate2::read::GzDecoder;
use nomad_firehose::standin::serve;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::contract::{LARGE, Receiver};
use crate::firehose::{Program, wait};

pub const TOKEN: &str = "let-me-in";

/// What came with one request.
#[derive(Clone, Debug)]
pub struct Posted {
    pub at: Instant,
    pub method: Method,
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Posted {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }

    /// The body as it was before it was compressed.
    pub fn plain(&self) -> Vec<u8> {
        if self.header("content-encoding") != "gzip" {
            return self.body.to_vec();
        }
        let mut plain = Vec::new();
        GzDecoder::new(&self.body[..]).read_to_end(&mut plain).unwrap();
        plain
    }

    /// The events in the body, whatever form they have.
    pub fn events(&self) -> Vec<Value> {
        let body = self.plain();
        let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        if self.header("content-type") == "application/x-ndjson" {
            assert_eq!(body.last(), Some(&b'\n'), "the last line ends as well");
            return body[..body.len() - 1].split(|it| *it == b'\n').map(parse).collect();
        }
        match parse(&body) {
            Value::Array(events) => events,
            event => vec![event],
        }
    }
}

/// The payload of an event.
fn payload(event: &Value) -> &Value {
    event.get("data").unwrap_or(event)
}

struct Inner {
    posted: Vec<Posted>,
    received: Vec<(String, Value)>,
    takes_full: bool,
    latency: Duration,
    later: Option<&'static str>,
    authorization: String,
    /// Answers that are given before the record is looked at.
    answers: VecDeque<(StatusCode, HeaderMap)>,
    /// The answer to everything else.
    always: Option<StatusCode>,
}

/// A server that takes single events and batches of them.
pub struct Web {
    port: u16,
    inner: Arc<Mutex<Inner>>,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Web {
    pub async fn start() -> Self {
        let inner = Inner {
            posted: Vec::new(),
            received: Vec::new(),
            takes_full: false,
            latency: Duration::ZERO,
            later: None,
            authorization: format!("Bearer {TOKEN}"),
            answers: VecDeque::new(),
            always: None,
        };
        let mut web = Self { port: 0, inner: Arc::new(Mutex::new(inner)), task: None };
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

    /// What the next request is answered with that has no answer yet.
    pub fn answer_with(&self, status: u16, headers: &[(&str, &str)]) {
        let status = StatusCode::from_u16(status).unwrap();
        let header = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        let headers = headers.iter().map(header).collect();
        self.inner.lock().unwrap().answers.push_back((status, headers));
    }

    /// What everything is answered with from now on; `None` to look at the records again.
    pub fn always(&self, status: Option<u16>) {
        let status = status.map(|it| StatusCode::from_u16(it).unwrap());
        self.inner.lock().unwrap().always = status;
    }

    /// What `Authorization` has to say from now on.
    pub fn demand(&self, authorization: &str) {
        self.inner.lock().unwrap().authorization = authorization.to_owned();
    }

    /// What those of the job `full` are told along with 503: when to come back.
    pub fn full_says(&self, later: &'static str) {
        self.inner.lock().unwrap().later = Some(later);
    }

    /// Takes those of the job `full` from now on.
    pub fn take_full(&self) {
        self.inner.lock().unwrap().takes_full = true;
    }

    /// Every answer takes this long from now on.
    pub fn take_time(&self, latency: Duration) {
        self.inner.lock().unwrap().latency = latency;
    }

    /// All requests that came.
    pub fn posted(&self) -> Vec<Posted> {
        self.inner.lock().unwrap().posted.clone()
    }

    /// Waits for so many requests; all that came.
    pub async fn asked(&self, count: usize) -> Vec<Posted> {
        let enough = async || Some(self.posted()).filter(|it| it.len() >= count);
        wait(&format!("{count} requests come"), enough).await
    }

    pub fn all(&self) -> Vec<(String, Value)> {
        self.inner.lock().unwrap().received.clone()
    }

    /// Waits until it has taken so many records; all that it has taken.
    pub async fn took(&self, count: usize) -> Vec<(String, Value)> {
        let enough = async || Some(self.all()).filter(|it| it.len() >= count);
        wait(&format!("{count} records come"), enough).await
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    request: Request,
) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap_or_default();
    let (method, uri, headers) = (parts.method, parts.uri.to_string(), parts.headers);
    let posted = Posted { at: Instant::now(), method, uri, headers, body };
    let latency = {
        let mut inner = inner.lock().unwrap();
        inner.posted.push(posted.clone());
        inner.latency
    };
    if !latency.is_zero() {
        sleep(latency).await;
    }
    let mut inner = inner.lock().unwrap();
    // Receivers like to quote what they refuse.
    let quoted = || format!("{posted:?}");
    if let Some((status, headers)) = inner.answers.pop_front() {
        return (status, headers, quoted());
    }
    match inner.always {
        Some(status) => (status, HeaderMap::new(), quoted()),
        None => {
            let status = take(&mut inner, &posted);
            let full = status == StatusCode::SERVICE_UNAVAILABLE;
            let later = inner.later.filter(|_| full).map(|it| (RETRY_AFTER, it.parse().unwrap()));
            (status, later.into_iter().collect(), String::new())
        }
    }
}

fn take(inner: &mut Inner, posted: &Posted) -> StatusCode {
    if posted.header("authorization") != inner.authorization {
        return StatusCode::UNAUTHORIZED;
    }
    if posted.plain().len() > LARGE {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    let events = posted.events();
    // A payload alone does not say which record it is: the header does, or its own members.
    let id = |event: &Value| match (event["id"].as_str(), posted.header("ce-id")) {
        (Some(id), _) => id.to_owned(),
        (None, "") => format!("{}/{}", event["AllocationID"], event["TaskEvent"]["Time"]),
        (None, id) => id.to_owned(),
    };
    let jobs: HashSet<&str> =
        events.iter().filter_map(|it| payload(it)["JobID"].as_str()).collect();
    if jobs.contains("bad") {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    if jobs.contains("full") && !inner.takes_full {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    inner.received.extend(events.iter().map(|it| (id(it), payload(it).clone())));
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
        self.0.port()
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
