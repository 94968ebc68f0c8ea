//! A receiver that speaks the API of a service of Amazon as far as one action goes, and fails on
//! request as the service does and its stand-ins do not.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
};
use nomad_firehose::standin::serve;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::contract::Receiver;
use crate::firehose::{Program, wait};

pub const KEY: &str = "AKIDRIGHT";

/// A service, as far as tests look at it.
pub trait Api: Send + Sync + 'static {
    /// The action that takes records.
    const ACTION: &'static str;
    /// The most that it takes.
    const MAX_RECORDS: usize;
    const MAX_BYTES: usize;
    /// What it refuses a request with that has a record of the job `bad`; without it that record
    /// fails alone.
    const REFUSES: Option<&'static str>;

    /// A sink that sends there.
    fn configure(program: Program) -> Program;
    /// The records of a request, or why it is refused.
    fn records(request: &Value) -> Result<Vec<Taken>, &'static str>;
    /// What is answered.
    fn answer(outcomes: &[Outcome]) -> Value;
    /// What is answered to any other action, or why that is refused.
    fn other(action: &str, _: &Value) -> Result<Value, &'static str> {
        panic!("nobody asks for {action}")
    }
}

/// A record of a request.
#[derive(Clone, Debug)]
pub struct Taken {
    pub id: String,
    pub payload: Value,
    /// What the service keeps it with.
    pub key: String,
    /// As the service counts it.
    pub size: usize,
    /// What is dropped when it comes again.
    pub token: Option<String>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    /// It is a record of the job `full`.
    Full,
    /// It is a record of the job `bad`.
    Bad,
}

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub struct Put {
    pub at: Instant,
    pub keys: Vec<String>,
    pub ids: Vec<String>,
    pub failed: usize,
    /// What comes with credentials that are for a time.
    pub session: Option<String>,
    pub request: Value,
}

/// What is answered to an action and its request in place of what would be; `None` for the latter.
type Script = Box<dyn FnMut(&str, &Value) -> Option<(u16, Value)> + Send>;

#[derive(Default)]
struct Inner {
    received: Vec<(String, Value)>,
    tokens: HashSet<String>,
    puts: Vec<Put>,
    takes_full: bool,
    latency: Duration,
    script: Option<Script>,
}

/// A service with one receiver, `events`.
pub struct Amazon<A> {
    port: u16,
    inner: Arc<Mutex<Inner>>,
    task: Option<JoinHandle<std::io::Result<()>>>,
    api: PhantomData<A>,
}

impl<A: Api> Amazon<A> {
    async fn listen(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = TcpListener::bind(address).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer::<A>).with_state(self.inner.clone());
        // A service has a limit of its own, which is larger.
        let router = router.layer(DefaultBodyLimit::disable());
        self.task = Some(tokio::spawn(serve::serve(router, listener, std::future::pending())));
    }

    /// What came so far.
    pub fn puts(&self) -> Vec<Put> {
        self.inner.lock().unwrap().puts.clone()
    }

    /// Waits until it has so many records; all that it has.
    pub async fn took(&mut self, count: usize) -> Vec<(String, Value)> {
        wait(&format!("{count} records come"), async || {
            Some(self.received().await).filter(|it| it.len() >= count)
        })
        .await
    }

    /// Every answer takes this long from now on.
    pub fn take_time(&self, latency: Duration) {
        self.inner.lock().unwrap().latency = latency;
    }

    /// What is answered from now on, where it is something.
    pub fn script(
        &self,
        script: impl FnMut(&str, &Value) -> Option<(u16, Value)> + Send + 'static,
    ) {
        self.inner.lock().unwrap().script = Some(Box::new(script));
    }

    /// A sink that leads to a port, with what AWS needs.
    pub fn sink(program: Program, port: u16) -> Program {
        A::configure(program)
            .set("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .set("AWS_REGION", "eu-west-1")
            .set("AWS_ACCESS_KEY_ID", KEY)
            .set("AWS_SECRET_ACCESS_KEY", "secret-planted")
            .set("AWS_EC2_METADATA_DISABLED", "true")
    }
}

/// What a service says that refuses a request.
pub fn refusal(code: &str) -> (u16, Value) {
    (400, json!({"__type": code, "message": "This is how it was said to be."}))
}

async fn answer<A: Api>(
    State(inner): State<Arc<Mutex<Inner>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let at = Instant::now();
    let latency = inner.lock().unwrap().latency;
    if !latency.is_zero() {
        sleep(latency).await;
    }
    let action = headers["x-amz-target"].to_str().unwrap();
    let request: Value = serde_json::from_slice(&body).unwrap();
    let authorization = headers["authorization"].to_str().unwrap();
    let session = headers.get("x-amz-security-token").map(|it| it.to_str().unwrap().to_owned());
    let (status, answer) = if !authorization.contains(&format!("Credential={KEY}/")) {
        refusal("UnrecognizedClientException")
    } else {
        let mut inner = inner.lock().unwrap();
        let scripted = inner.script.as_mut().and_then(|it| it(action, &request));
        scripted.unwrap_or_else(|| {
            let answer = match action {
                _ if action == A::ACTION => take::<A>(&mut inner, at, session, &request),
                other => A::other(other, &request),
            };
            answer.map_or_else(refusal, |it| (200, it))
        })
    };
    (StatusCode::from_u16(status).unwrap(), answer.to_string())
}

fn take<A: Api>(
    inner: &mut Inner,
    at: Instant,
    session: Option<String>,
    request: &Value,
) -> Result<Value, &'static str> {
    let records = A::records(request)?;
    let size: usize = records.iter().map(|it| it.size).sum();
    assert!(records.len() <= A::MAX_RECORDS && size <= A::MAX_BYTES, "too much for a call");
    let job = |it: &Taken| it.payload["JobID"].as_str().unwrap_or_default().to_owned();
    if let Some(code) = A::REFUSES.filter(|_| records.iter().any(|it| job(it) == "bad")) {
        return Err(code);
    }
    let outcome = |it: &Taken| match job(it).as_str() {
        "full" if !inner.takes_full => Outcome::Full,
        "bad" => Outcome::Bad,
        _ => Outcome::Stored,
    };
    let outcomes: Vec<Outcome> = records.iter().map(outcome).collect();
    let (keys, ids) = records.iter().map(|it| (it.key.clone(), it.id.clone())).unzip();
    for (record, outcome) in records.into_iter().zip(&outcomes) {
        let is_new =
            record.token.is_none_or(|it| *outcome != Outcome::Stored || inner.tokens.insert(it));
        if *outcome == Outcome::Stored && is_new {
            inner.received.push((record.id, record.payload));
        }
    }
    let failed = outcomes.iter().filter(|it| **it != Outcome::Stored).count();
    inner.puts.push(Put { at, keys, ids, failed, session, request: request.clone() });
    Ok(A::answer(&outcomes))
}

impl<A: Api> Receiver for Amazon<A> {
    const UNREACHABLE: &'static str = "check AWS_ENDPOINT_URL";
    const DENIED: &'static str = "check the credentials in AWS_*, and the clock";

    async fn start() -> Self {
        let mut service = Self { port: 0, inner: Arc::default(), task: None, api: PhantomData };
        service.listen().await;
        service
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        Self::sink(program, port)
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        Self::sink(program, port).set("AWS_ACCESS_KEY_ID", "AKIDWRONG")
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        self.inner.lock().unwrap().received.clone()
    }

    async fn take_full(&mut self, takes: bool) {
        self.inner.lock().unwrap().takes_full = takes;
    }

    async fn crash(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    async fn come_back(&mut self) {
        self.listen().await;
    }
}

impl<A> Drop for Amazon<A> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// How many records of each key a request had.
pub fn most_of_one_key(put: &Put) -> usize {
    let mut counts = HashMap::new();
    put.keys.iter().for_each(|it| *counts.entry(it).or_insert(0) += 1);
    counts.values().copied().max().unwrap_or_default()
}
