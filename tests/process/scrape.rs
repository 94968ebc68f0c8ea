//! What a process serves, asked for by hand: a client that is well behaved could not misbehave.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::firehose::{Process, wait};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Process {
    /// Where it serves, which it has to have been asked to do.
    pub async fn serves(&self) -> SocketAddr {
        let named = |line: &str| {
            let (_, rest) = line.split_once("serving metrics and health")?;
            let at = rest.find("127.0.0.1:")?;
            let address = rest[at..].split(|it: char| it.is_whitespace() || it == '"').next()?;
            address.parse().ok()
        };
        wait("an address", async || {
            // Structured logs have the address before the message, or after it.
            self.log.text().lines().find_map(|line| {
                let json = serde_json::from_str::<Value>(line).ok();
                let address = json.as_ref().and_then(|it| it["address"].as_str()?.parse().ok());
                address.or_else(|| named(line))
            })
        })
        .await
    }

    pub async fn ask(&self, method: &str, path: &str) -> Answer {
        ask(self.serves().await, method, path).await
    }

    /// All that it serves.
    pub async fn pages(&self) -> String {
        let mut pages = String::new();
        for path in ["/metrics", "/live", "/ready", "/"] {
            pages += &self.ask("GET", path).await.body;
        }
        pages
    }

    /// The value of a metric, by its name and the labels beside the stream.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        value(&self.ask("GET", "/metrics").await.body, series)
    }

    /// Waits until a metric has a value.
    pub async fn shows(&self, series: &str, wanted: f64) {
        let what = format!("{series} is {wanted}");
        wait(&what, async || (self.metric(series).await == Some(wanted)).then_some(())).await;
    }

    /// Waits until `/ready` answers so, and gives what it says.
    pub async fn is_ready(&self, wanted: bool) -> Value {
        let status = if wanted { 200 } else { 503 };
        wait(&format!("/ready answers {status}"), async || {
            let answer = self.ask("GET", "/ready").await;
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body["ready"], answer.status == 200);
            (answer.status == status).then_some(body)
        })
        .await
    }
}

/// The value of one series in a text: `leader`, or `missed_total{cause="in_stream"}`.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    let begins = format!("nomad_firehose_{name}{{stream=\"nodes\"{comma}{labels} ");
    text.lines().find_map(|it| it.strip_prefix(&begins)).map(|it| it.parse().unwrap())
}

/// Sends a request, and reads what comes back to its end.
pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(Duration::from_secs(30), stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Waits until nothing is left to be read of a connection, whatever came.
pub async fn is_ended(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 1024];
    loop {
        match stream.read(&mut rest).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => (),
        }
    }
}
