//! Receivers that cost as little as they can, and a RabbitMQ.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use nomad_firehose::standin::serve as listen;

/// Serves one kind of receiver until it is killed, and prints its address first.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn serve(kind: &str, latency_ms: u64) {
    let listener = listen::bind().await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let latency = Duration::from_millis(latency_ms);
    let router = match kind {
        "kinesis" => Router::new().route("/", post(put_records)).with_state(latency),
        _ => Router::new().fallback(async || ""),
    };
    // A record of 1 KiB and its frame, 500 times.
    let router = router.layer(axum::extract::DefaultBodyLimit::max(16 << 20));
    listen::serve(router, listener, std::future::pending()).await.unwrap();
}

/// Stores nothing, and says that all is stored.
async fn put_records(State(latency): State<Duration>, body: Bytes) -> String {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let count = memchr::memmem::find_iter(&body, b"\"PartitionKey\"").count();
    let one = r#"{"SequenceNumber":"49543463076548007577105092703039560359975228518395012686","ShardId":"shardId-000000000000"}"#;
    let records = vec![one; count].join(",");
    format!(r#"{{"FailedRecordCount":0,"Records":[{records}]}}"#)
}

/// A node with nothing in it; it is killed when this is dropped.
pub(crate) struct Rabbit {
    pub(crate) port: u16,
    node: Child,
    _dir: tempfile::TempDir,
}

impl Rabbit {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, own_port) = (free(), free());
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("home")).unwrap();
        fs::write(path("plugins"), "[].\n").unwrap();
        fs::write(path("rabbitmq.conf"), format!("listeners.tcp.1 = 127.0.0.1:{port}\n")).unwrap();
        let arguments = format!(
            "-sname rabbit@localhost -start_epmd false -erl_epmd_port {own_port} \
             -kernel inet_dist_use_interface {{127,0,0,1}}"
        );
        let node = Command::new(std::env::var_os("RABBITMQ_BIN").unwrap())
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("HOME", path("home"))
            .env("RABBITMQ_NODENAME", "rabbit@localhost")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_DIST_PORT", own_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self { port, node, _dir: dir };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return started;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("RabbitMQ does not start");
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}
