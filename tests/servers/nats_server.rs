//! A NATS of the test's own: one server on a port of its own, whose streams outlive a crash.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self, Context,
        consumer::{AckPolicy, DeliverPolicy, pull},
        stream,
    },
};
use futures::StreamExt;
use serde_json::Value;
use tempfile::TempDir;

use super::consul::free_port;
use crate::firehose::wait;

pub const STREAM: &str = "EVENTS";
/// Who may do everything, and who only publishes.
pub const USERS: &str = r#"authorization { users: [
    {user: admin, password: admin}
    {user: firehose, password: "let me in", permissions: {
        publish: ["events", "events.>", "nomad.>", "_INBOX.>"], subscribe: "_INBOX.>"
    }}
] }"#;
/// Between two looks at a server that is being started.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A server, running or not; it is killed when this is dropped.
pub struct Server {
    dir: TempDir,
    port: u16,
    settings: String,
    process: Option<Child>,
    admin: Option<Client>,
    /// The number of the next message that was not read yet.
    next: u64,
}

/// A message that a stream has.
#[derive(Clone, Debug)]
pub struct Message {
    pub subject: String,
    pub headers: async_nats::HeaderMap,
    pub body: Value,
}

impl Message {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.as_str())
    }

    pub fn name(&self) -> String {
        self.body["Name"].as_str().unwrap().to_owned()
    }
}

impl From<async_nats::Message> for Message {
    fn from(message: async_nats::Message) -> Self {
        Self {
            subject: message.subject.to_string(),
            headers: message.headers.unwrap_or_default(),
            body: serde_json::from_slice(&message.payload).unwrap(),
        }
    }
}

impl Server {
    /// Starts a server without streams, with the users above.
    pub async fn start() -> Self {
        Self::start_with(USERS).await
    }

    /// The same with these settings, where the first user may do everything.
    pub async fn start_with(settings: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let settings = settings.to_owned();
        let mut server = Self { dir, port, settings, process: None, admin: None, next: 1 };
        server.resume().await;
        server
    }

    /// Starts the server on the data of the last time.
    pub async fn resume(&mut self) {
        let program = std::env::var("NATS_BIN").unwrap_or_else(|_| {
            panic!(
                "NATS_BIN is not set: these tests need a NATS server. Run tools/test, or set it to \
                 what tools/nats prints"
            )
        });
        let (path, store) = (self.dir.path().join("nats.conf"), self.dir.path().join("store"));
        let mut config = format!("listen: \"127.0.0.1:{}\"\n{}\n", self.port, self.settings);
        // With operators it would need one more account.
        if !config.contains("operator:") {
            config += &format!("jetstream {{ store_dir: \"{}\" }}\n", store.display());
        }
        fs::write(&path, config).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(path).arg("-l").arg(self.dir.path().join("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let port = self.port;
        wait("the server listens", async || {
            tokio::time::sleep(LOOK_AGAIN).await;
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })
        .await;
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        self.admin = None;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for whoever publishes.
    pub fn address(&self) -> String {
        format!("nats://firehose:let%20me%20in@127.0.0.1:{}", self.port)
    }

    /// A connection that may do everything.
    pub async fn admin(&mut self) -> Client {
        if let Some(client) = &self.admin {
            return client.clone();
        }
        let port = self.port;
        let client = wait("the server lets us in", async || {
            let options = ConnectOptions::with_user_and_password("admin".into(), "admin".into());
            options.connect(format!("127.0.0.1:{port}")).await.ok()
        })
        .await;
        self.admin = Some(client.clone());
        client
    }

    pub async fn jetstream(&mut self) -> Context {
        jetstream::new(self.admin().await)
    }

    /// Creates the stream, or changes it.
    pub async fn stream(&mut self, config: stream::Config) {
        let config = stream::Config { name: STREAM.into(), ..config };
        let jetstream = self.jetstream().await;
        wait("the stream is there", async || {
            jetstream.create_or_update_stream(config.clone()).await.ok()
        })
        .await;
    }

    /// Creates the stream with this subject.
    pub async fn stream_of(&mut self, subject: &str) {
        let subjects = vec![subject.to_owned()];
        self.stream(stream::Config { subjects, ..Default::default() }).await;
    }

    /// The messages that the stream has and that were not read yet, oldest first.
    pub async fn take(&mut self) -> Vec<Message> {
        let jetstream = self.jetstream().await;
        let Ok(stream) = jetstream.get_stream(STREAM).await else { return Vec::new() };
        let last = stream.cached_info().state.last_sequence;
        if last < self.next {
            return Vec::new();
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: -1,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let most = usize::try_from(last + 1 - self.next).unwrap();
        let mut batch = consumer.fetch().max_messages(most).messages().await.unwrap();
        let mut taken = Vec::new();
        while let Some(message) = batch.next().await {
            let message = message.unwrap();
            self.next = message.info().unwrap().stream_sequence + 1;
            taken.push(Message::from(message.message.clone()));
        }
        let name = &consumer.cached_info().name;
        let _ = stream.delete_consumer(name).await;
        taken
    }

    /// Waits until so many messages have come.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut taken = Vec::new();
        wait(&format!("{count} messages"), async || {
            taken.extend(self.take().await);
            (taken.len() >= count).then_some(())
        })
        .await;
        taken
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
