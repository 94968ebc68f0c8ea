//! A receiver that speaks the API of Kinesis as far as PutRecords goes, and fails on request as
//! the service does and its stand-ins do not.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use nomad_firehose::standin::serve;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::contract::{LARGE, Receiver};
use crate::firehose::{Program, wait};

pub const KEY: &str = "AKIDRIGHT";

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub struct Put {
    pub at: Instant,
    pub keys: Vec<String>,
    pub failed: usize,
    /// What comes with credentials that are for a time.
    pub session: Option<String>,
}

#[derive(Default)]
struct Inner {
    received: Vec<Value>,
    puts: Vec<Put>,
    takes_full: bool,
    latency: Duration,
}

/// A service with one stream, `events`.
pub struct Kinesis {
    port: u16,
    inner: Arc<Mutex<Inner>>,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Kinesis {
    async fn listen(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = TcpListener::bind(address).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(self.inner.clone());
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

    /// A sink that leads to a port, with what AWS needs.
    pub fn sink(program: Program, port: u16) -> Program {
        program
            .set("SINK_TYPE", "kinesis")
            .set("SINK_KINESIS_STREAM_NAME", "events")
            .set("SINK_KINESIS_MAX_RECORD_BYTES", LARGE.to_string())
            .set("NOMAD_FIREHOSE_FORMAT", "cloudevents")
            .set("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .set("AWS_REGION", "eu-west-1")
            .set("AWS_ACCESS_KEY_ID", KEY)
            .set("AWS_SECRET_ACCESS_KEY", "secret-planted")
            .set("AWS_EC2_METADATA_DISABLED", "true")
    }
}

async fn answer(
    State(inner): State<Arc<Mutex<Inner>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let at = Instant::now();
    let latency = inner.lock().unwrap().latency;
    if !latency.is_zero() {
        sleep(latency).await;
    }
    assert_eq!(headers["x-amz-target"], "Kinesis_20131202.PutRecords");
    let refusal = |kind: &str| (StatusCode::BAD_REQUEST, json!({"__type": kind}).to_string());
    let authorization = headers["authorization"].to_str().unwrap();
    if !authorization.contains(&format!("Credential={KEY}/")) {
        return refusal("UnrecognizedClientException");
    }
    let request: Value = serde_json::from_slice(&body).unwrap();
    if request["StreamName"] != "events" {
        return refusal("ResourceNotFoundException");
    }
    let records = request["Records"].as_array().unwrap();
    let data = |it: &Value| STANDARD.decode(it["Data"].as_str().unwrap()).unwrap();
    let sizes: Vec<usize> = records
        .iter()
        .map(|it| data(it).len() + it["PartitionKey"].as_str().unwrap().len())
        .collect();
    assert!(records.len() <= 500 && sizes.iter().sum::<usize>() <= 5 << 20, "too much for a call");
    let events: Vec<Value> =
        records.iter().map(|it| serde_json::from_slice(&data(it)).unwrap()).collect();
    events.iter().for_each(crate::cloudevents::assert_event);
    let job = |it: &Value| it["data"]["JobID"].as_str().unwrap().to_owned();
    if events.iter().any(|it| job(it) == "bad") {
        return refusal("InvalidArgumentException");
    }
    let mut inner = inner.lock().unwrap();
    let mut failed = 0;
    let mut results = Vec::new();
    for event in events {
        if job(&event) == "full" && !inner.takes_full {
            failed += 1;
            results.push(json!({
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": "Rate exceeded for shard shardId-000000000001",
            }));
        } else {
            let number = inner.received.len().to_string();
            results.push(json!({"SequenceNumber": number, "ShardId": "shardId-000000000000"}));
            inner.received.push(event);
        }
    }
    let key = |it: &Value| it["PartitionKey"].as_str().unwrap().to_owned();
    let keys = records.iter().map(key).collect();
    let session = headers.get("x-amz-security-token").map(|it| it.to_str().unwrap().to_owned());
    inner.puts.push(Put { at, keys, failed, session });
    (StatusCode::OK, json!({"FailedRecordCount": failed, "Records": results}).to_string())
}

impl Receiver for Kinesis {
    const UNREACHABLE: &'static str = "check AWS_ENDPOINT_URL";
    const DENIED: &'static str = "check the credentials in AWS_*, and the clock";

    async fn start() -> Self {
        let mut kinesis = Self { port: 0, inner: Arc::default(), task: None };
        kinesis.listen().await;
        kinesis
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
        let inner = self.inner.lock().unwrap();
        let id = |it: &Value| it["id"].as_str().unwrap().to_owned();
        inner.received.iter().map(|it| (id(it), it["data"].clone())).collect()
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

impl Drop for Kinesis {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// How many records of each partition key a request had.
pub fn most_of_one_key(put: &Put) -> usize {
    let mut counts = HashMap::new();
    put.keys.iter().for_each(|it| *counts.entry(it).or_insert(0) += 1);
    counts.values().copied().max().unwrap_or_default()
}
