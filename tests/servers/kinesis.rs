//! The sink `kinesis` against a server that stores what it is given and checks what it is asked.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::consul::free_port;
use crate::{
    firehose::{Program, wait},
    sinks::contract::{LARGE, Receiver},
    support::client,
};

const STREAM: &str = "events";
const SHARDS: usize = 3;
const READ_AT_ONCE: usize = 1_000;

/// A server with one stream, whose data outlives a crash.
pub struct Server {
    dir: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Server {
    async fn resume(&mut self) {
        let program = std::env::var("KINESIS_BIN").unwrap_or_else(|_| {
            panic!(
                "KINESIS_BIN is not set: these tests need an API of Kinesis. Run tools/test, or \
                 set it to what tools/kinesis prints"
            )
        });
        let mut command = Command::new(program);
        command.arg(self.port.to_string()).arg(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let port = self.port;
        wait("the server listens", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
    }

    /// A request; the server looks at how it is signed, and not by whom.
    async fn ask(&self, action: &str, body: Value) -> Option<Value> {
        let scope = "Credential=test/20260101/eu-west-1/kinesis/aws4_request";
        let request = client()
            .post(format!("http://127.0.0.1:{}/", self.port))
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{action}"))
            .header("x-amz-date", "20260101T000000Z")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=00"),
            )
            .timeout(Duration::from_secs(10))
            .body(body.to_string());
        let answer = request.send().await.ok()?;
        let good = answer.status().is_success();
        let text = answer.text().await.ok()?;
        good.then(|| serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The records of a shard, oldest first.
    async fn shard(&self, number: usize) -> Vec<Value> {
        let iterator = json!({
            "StreamName": STREAM,
            "ShardId": format!("shardId-{number:012}"),
            "ShardIteratorType": "TRIM_HORIZON",
        });
        let answer = self.ask("GetShardIterator", iterator).await.unwrap();
        let mut iterator = answer["ShardIterator"].clone();
        let mut records = Vec::new();
        loop {
            let query = json!({"ShardIterator": iterator, "Limit": READ_AT_ONCE});
            let answer = self.ask("GetRecords", query).await.unwrap();
            let got = answer["Records"].as_array().unwrap();
            if got.is_empty() {
                return records;
            }
            let data = |it: &Value| STANDARD.decode(it["Data"].as_str().unwrap()).unwrap();
            records.extend(got.iter().map(|it| serde_json::from_slice(&data(it)).unwrap()));
            iterator = answer["NextShardIterator"].clone();
        }
    }
}

impl Receiver for Server {
    const UNREACHABLE: &'static str = "check AWS_ENDPOINT_URL";
    /// It lets everybody in.
    const DENIED: &'static str = "never";

    async fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut server = Self { dir, port, process: None };
        server.resume().await;
        let stream = json!({"StreamName": STREAM, "ShardCount": SHARDS});
        server.ask("CreateStream", stream).await.unwrap();
        wait("the stream is there", async || {
            let found = server.ask("DescribeStream", json!({"StreamName": STREAM})).await?;
            (found["StreamDescription"]["StreamStatus"] == "ACTIVE").then_some(())
        })
        .await;
        server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        program
            .set("SINK_TYPE", "kinesis")
            .set("SINK_KINESIS_STREAM_NAME", STREAM)
            .set("SINK_KINESIS_MAX_RECORD_BYTES", LARGE.to_string())
            .set("NOMAD_FIREHOSE_FORMAT", "cloudevents")
            .set("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .set("AWS_REGION", "eu-west-1")
            .set("AWS_ACCESS_KEY_ID", "test")
            .set("AWS_SECRET_ACCESS_KEY", "test")
            .set("AWS_EC2_METADATA_DISABLED", "true")
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        let mut received = Vec::new();
        for shard in 0..SHARDS {
            for event in self.shard(shard).await {
                received.push((event["id"].as_str().unwrap().to_owned(), event["data"].clone()));
            }
        }
        received
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    async fn come_back(&mut self) {
        self.resume().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

// It fails nothing, refuses nothing that is well-formed, and lets everybody in; what then is to be
// done is tested with a receiver that does.
crate::sink_contract!(Server:
    records_of_one_key_stay_in_order
    a_lost_answer_means_a_duplicate_and_never_a_loss
    a_record_that_is_too_large_is_kept_and_the_others_go_on
    a_receiver_that_is_down_at_the_start_is_waited_for
    a_receiver_that_crashes_while_it_receives_loses_nothing
    a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
);
