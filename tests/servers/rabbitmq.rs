//! A RabbitMQ of the test's own: one node on ports of its own, whose data outlives a crash.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tempfile::TempDir;

use super::consul::free_port;
use crate::firehose::wait;

/// How often a node is started anew that found one of its ports taken.
const MAX_STARTS: u32 = 5;
/// A node is ready once it says hello.
const HELLO: &[u8] = b"AMQP\0\0\x09\x01";
const ANSWER: Duration = Duration::from_secs(2);

pub const EXCHANGE: &str = "nomad";

/// A node, running or not; it is killed when this is dropped.
pub struct Node {
    dir: TempDir,
    port: u16,
    /// Of the node's own protocol: with it, nodes may all have one name.
    own_port: u16,
    /// Of what the settings are about.
    other_port: u16,
    settings: String,
    server: Option<Child>,
    channel: Option<(Connection, Channel)>,
}

/// A message that a queue had.
pub struct Message {
    pub id: String,
    pub properties: lapin::BasicProperties,
    pub routing_key: String,
    pub body: Vec<u8>,
}

impl Node {
    /// Starts a node with nothing in it.
    pub async fn start() -> Self {
        Self::start_with(|_| String::new()).await
    }

    /// The same, with more settings, which may need a port of their own.
    pub async fn start_with(settings: impl Fn(u16) -> String) -> Self {
        for _ in 0..MAX_STARTS {
            let dir = tempfile::tempdir().unwrap();
            let (port, own_port, other_port) = (free_port(), free_port(), free_port());
            let settings = settings(other_port);
            let (server, channel) = (None, None);
            let mut node = Self { dir, port, own_port, other_port, settings, server, channel };
            if node.resume().await {
                return node;
            }
        }
        panic!("RabbitMQ did not start {MAX_STARTS} times in a row");
    }

    /// Starts the node on the data of the last time; false where it ended by itself instead.
    pub async fn resume(&mut self) -> bool {
        let home = self.dir.path().join("home");
        fs::create_dir_all(&home).unwrap();
        let cookie = home.join(".erlang.cookie");
        if !cookie.exists() {
            fs::write(&cookie, "secret").unwrap();
            fs::set_permissions(&cookie, std::os::unix::fs::PermissionsExt::from_mode(0o400))
                .unwrap();
        }
        fs::write(self.dir.path().join("plugins"), "[].\n").unwrap();
        let config = format!("listeners.tcp.1 = 127.0.0.1:{}\n{}", self.port, self.settings);
        fs::write(self.path("rabbitmq.conf"), config).unwrap();
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let arguments = format!(
            "-sname rabbit@localhost -start_epmd false -erl_epmd_port {} \
             -kernel inet_dist_use_interface {{127,0,0,1}} +S 1:1",
            self.own_port
        );
        let mut command = self.command(&binary("RABBITMQ_BIN"));
        command
            // With it, the scripts become the node, so that a kill hits it.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", self.path("data"))
            .env("RABBITMQ_LOG_BASE", self.path("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("plugins"))
            .env("RABBITMQ_DIST_PORT", self.own_port.to_string())
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.server = Some(command.spawn().unwrap());
        wait("RabbitMQ is ready, or ended", async || {
            if self.server.as_mut().unwrap().try_wait().unwrap().is_some() {
                return Some(false);
            }
            says_hello(self.port).then_some(true)
        })
        .await
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("LANG", "C.UTF-8")
            .env("RABBITMQ_NODENAME", "rabbit@localhost")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of `rabbitmqctl`.
    pub fn ctl(&self, arguments: &[&str]) {
        let flags =
            format!("-start_epmd false -erl_epmd_port {} -dist_listen false", self.own_port);
        let mut command = self.command(&binary("RABBITMQCTL_BIN"));
        let output = command.env("ERL_AFLAGS", flags).arg("-q").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// A script that is `rabbitmqctl` for this node.
    pub fn ctl_script(&self) -> String {
        let flags =
            format!("-start_epmd false -erl_epmd_port {} -dist_listen false", self.own_port);
        format!(
            "#!/bin/bash\nexport HOME={:?} RABBITMQ_NODENAME=rabbit@localhost \
             RABBITMQ_CONF_ENV_FILE=/dev/null ERL_AFLAGS={flags:?}\nexec {:?} -q \"$@\"\n",
            self.path("home"),
            binary("RABBITMQCTL_BIN")
        )
    }

    /// As a crash does.
    pub fn kill(&mut self) {
        self.channel = None;
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn other_port(&self) -> u16 {
        self.other_port
    }

    /// A channel of the test's own.
    pub async fn channel(&mut self) -> Channel {
        match &self.channel {
            Some((connection, channel))
                if connection.status().connected() && channel.status().connected() =>
            {
                channel.clone()
            }
            _ => {
                let address = format!("amqp://127.0.0.1:{}", self.port);
                let connection =
                    Connection::connect(&address, ConnectionProperties::default()).await.unwrap();
                let channel = connection.create_channel().await.unwrap();
                self.channel = Some((connection, channel.clone()));
                channel
            }
        }
    }

    pub async fn declare_exchange(&mut self) {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let channel = self.channel().await;
        channel
            .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default())
            .await
            .unwrap();
    }

    /// A durable queue, bound for a routing key.
    pub async fn bind(&mut self, queue: &str, key: &str) {
        let channel = self.channel().await;
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        let (none, options) = (FieldTable::default(), QueueBindOptions::default());
        channel.queue_bind(queue.into(), EXCHANGE.into(), key.into(), options, none).await.unwrap();
    }

    /// How many messages are in a queue.
    pub async fn count(&mut self, queue: &str) -> usize {
        let channel = self.channel().await;
        let asking = QueueDeclareOptions { passive: true, ..Default::default() };
        let found = channel.queue_declare(queue.into(), asking, FieldTable::default()).await;
        found.unwrap().message_count() as usize
    }

    /// Takes the messages out of a queue that are there now.
    pub async fn take(&mut self, queue: &str) -> Vec<Message> {
        let count = self.count(queue).await;
        let channel = self.channel().await;
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        for _ in 0..count {
            let Some(message) = channel.basic_get(queue.into(), options).await.unwrap() else {
                break;
            };
            let properties = message.delivery.properties;
            let id = properties.message_id().as_ref().unwrap().to_string();
            let routing_key = message.delivery.routing_key.to_string();
            taken.push(Message { id, properties, routing_key, body: message.delivery.data });
        }
        taken
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            crate::print(&format!("RabbitMQ's log, since a test failed:\n{}", tail.join("\n")));
        }
    }
}

fn says_hello(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut first = [0];
    let _ = stream.set_read_timeout(Some(ANSWER));
    stream.write_all(HELLO).is_ok() && stream.read_exact(&mut first).is_ok() && first == [1]
}

fn binary(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: these tests need a real RabbitMQ. Run tools/test, or set it \
             to what tools/rabbitmq prints (with --ctl for RABBITMQCTL_BIN)"
        )
    })
}
