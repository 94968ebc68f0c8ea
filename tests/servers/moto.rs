//! A server that has the APIs of SQS and EventBridge, and keeps everything in its memory.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::consul::free_port;
use crate::{
    firehose::{Program, wait},
    support::client,
};

pub const REGION: &str = "eu-west-1";
/// Whose everything is.
pub const ACCOUNT: &str = "123456789012";

/// A server, which has nothing at first.
pub struct Moto {
    pub port: u16,
    process: Child,
}

impl Moto {
    pub async fn start() -> Self {
        let program = std::env::var("MOTO_BIN").unwrap_or_else(|_| {
            panic!(
                "MOTO_BIN is not set: these tests need the APIs of SQS and EventBridge. Run \
                 tools/test, or set it to what tools/moto prints"
            )
        });
        let port = free_port();
        let mut command = Command::new(program);
        command.arg(port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let moto = Self { port, process };
        wait("the server listens", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        moto
    }

    /// A request; the server looks at how it is signed, and not by whom.
    pub async fn ask(&self, service: &str, action: &str, body: Value) -> Value {
        let scope = format!("Credential=test/20260101/{REGION}/{service}/aws4_request");
        let request = client()
            .post(format!("http://127.0.0.1:{}/", self.port))
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", action)
            .header("x-amz-date", "20260101T000000Z")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=00"),
            )
            .timeout(Duration::from_secs(10))
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        let good = answer.status().is_success();
        let text = answer.text().await.unwrap();
        assert!(good, "{action}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Makes a queue; its URL.
    pub async fn queue(&self, name: &str) -> String {
        let fifo = name.ends_with(".fifo");
        let attributes = if fifo { json!({"FifoQueue": "true"}) } else { json!({}) };
        let queue = json!({"QueueName": name, "Attributes": attributes});
        let answer = self.ask("sqs", "AmazonSQS.CreateQueue", queue).await;
        answer["QueueUrl"].as_str().unwrap().to_owned()
    }

    /// How many messages a queue holds.
    pub async fn count(&self, url: &str) -> usize {
        let names = ["ApproximateNumberOfMessages"];
        let asked = json!({"QueueUrl": url, "AttributeNames": names});
        let answer = self.ask("sqs", "AmazonSQS.GetQueueAttributes", asked).await;
        answer["Attributes"][names[0]].as_str().unwrap().parse().unwrap()
    }

    /// Takes all messages out of a queue, in its order.
    pub async fn drain(&self, url: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let query = json!({
                "QueueUrl": url,
                "MaxNumberOfMessages": 10,
                "WaitTimeSeconds": 0,
                "AttributeNames": ["All"],
                "MessageAttributeNames": ["All"],
            });
            let answer = self.ask("sqs", "AmazonSQS.ReceiveMessage", query).await;
            let Some(messages) = answer["Messages"].as_array().filter(|it| !it.is_empty()) else {
                return all;
            };
            let entry = |(number, it): (usize, &Value)| json!({"Id": number.to_string(), "ReceiptHandle": it["ReceiptHandle"]});
            let entries: Vec<Value> = messages.iter().enumerate().map(entry).collect();
            let done = json!({"QueueUrl": url, "Entries": entries});
            self.ask("sqs", "AmazonSQS.DeleteMessageBatch", done).await;
            all.extend(messages.iter().cloned());
        }
    }

    /// What AWS needs, where the server seems to be at this port.
    pub fn configure(program: Program, port: u16) -> Program {
        program
            .set("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .set("AWS_REGION", REGION)
            .set("AWS_ACCESS_KEY_ID", "test")
            .set("AWS_SECRET_ACCESS_KEY", "test")
            .set("AWS_EC2_METADATA_DISABLED", "true")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
