//! A Consul of the test's own: one server on ports of its own, whose data outlives a restart.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nomad_firehose::{
    api::{self, Entry, Lock, connect},
    env::Env,
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{firehose::wait, support::client};

/// How often a server is started anew that found one of its ports taken.
const MAX_STARTS: u32 = 5;
/// Ports are taken from here on: below those that a system gives to connections by itself, so
/// that none is gone when the server is started again.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;
const ANSWER: Duration = Duration::from_secs(2);
/// May do everything in a server that has rights.
pub const MANAGEMENT: &str = "7d3a1e9c-0000-4000-8000-5f1b2c3d4e5f";

/// A server, running or not; it is killed when this is dropped.
pub struct Agent {
    dir: TempDir,
    ports: [u16; 3],
    server: Option<Child>,
    /// Whether nobody may do anything without a token.
    guarded: bool,
    /// As the firehose talks to it.
    pub api: api::Consul,
}

impl Agent {
    /// Starts a server with nothing in it, and waits until it is the leader.
    pub async fn start() -> Self {
        Self::begin(false).await
    }

    /// The same, of one that lets nobody do anything without a right. The test itself has all.
    pub async fn guarded() -> Self {
        Self::begin(true).await
    }

    async fn begin(guarded: bool) -> Self {
        for _ in 0..MAX_STARTS {
            let ports = [free_port(), free_port(), free_port()];
            let token = if guarded { MANAGEMENT } else { "" };
            let env = Env::from([
                ("CONSUL_HTTP_ADDR", format!("127.0.0.1:{}", ports[0]).as_str()),
                ("CONSUL_HTTP_TOKEN", token),
            ]);
            let endpoint = (connect::consul(&env).unwrap(), connect::consul_scope(&env).unwrap());
            let dir = tempfile::tempdir().unwrap();
            let api = api::Consul::new(endpoint.0, endpoint.1);
            let mut agent = Self { dir, ports, server: None, guarded, api };
            if agent.resume().await {
                return agent;
            }
        }
        panic!("Consul did not start {MAX_STARTS} times in a row");
    }

    /// Starts the server on the data of the last time; false where it ended by itself instead.
    pub async fn resume(&mut self) -> bool {
        let [http, serf, server] = self.ports;
        // In a version that has it, this port is open unless told otherwise.
        let newer = has_grpc_tls();
        let grpc = if newer { json!({"grpc_tls": -1}) } else { json!({}) };
        let mut ports = json!({
            "http": http, "serf_lan": serf, "server": server,
            "serf_wan": -1, "dns": -1, "grpc": -1,
        });
        ports.as_object_mut().unwrap().extend(grpc.as_object().unwrap().clone());
        let mut config = json!({
            "server": true,
            "bootstrap_expect": 1,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "node_name": "test",
            "data_dir": self.dir.path().join("data"),
            "ports": ports,
            "performance": {"raft_multiplier": 1},
            "disable_update_check": true,
            "log_level": "warn",
        });
        if self.guarded {
            // The token of whoever may do everything has been renamed.
            let name = if newer { "initial_management" } else { "master" };
            config["acl"] = json!({
                "enabled": true,
                "default_policy": "deny",
                "tokens": {name: MANAGEMENT, "agent": MANAGEMENT},
            });
        }
        let path = self.dir.path().join("consul.json");
        fs::write(&path, config.to_string()).unwrap();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(binary());
        command.arg("agent").arg("-config-file").arg(path).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        wait("Consul has a leader, or ended", async || {
            if self.server.as_mut().unwrap().try_wait().unwrap().is_some() {
                return Some(false);
            }
            // Sessions can be made once the server has also registered itself.
            let leader = self.ask(Method::GET, "/v1/status/leader", "").await?;
            let nodes = self.ask(Method::GET, "/v1/health/node/test", "").await?;
            (leader.as_str()?.contains(':') && !nodes.as_array()?.is_empty()).then_some(true)
        })
        .await
    }

    /// As a service manager stops it.
    pub async fn terminate(&mut self) {
        let mut server = self.server.take().unwrap();
        let command = format!("kill -s TERM {}", server.id());
        Command::new("sh").args(["-c", &command]).status().unwrap();
        wait("Consul ends", async || server.try_wait().unwrap()).await;
    }

    /// As a crash does.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// What a key holds.
    pub async fn entry(&self, key: &str) -> Option<Entry> {
        self.api.read(key, None).await.unwrap().entry
    }

    /// A key's value, as text.
    pub async fn value(&self, key: &str) -> Option<String> {
        self.entry(key).await.map(|it| String::from_utf8(it.value).unwrap())
    }

    /// Writes a key as anything may do that knows nothing of locks.
    pub async fn put(&self, key: &str, value: &str) {
        let written = self.ask(Method::PUT, &format!("/v1/kv/{key}"), value).await;
        assert_eq!(written, Some(json!(true)), "{key}");
    }

    /// The session that holds a lock; waits for one.
    pub async fn holder(&self, key: &str) -> String {
        wait(&format!("somebody holds {key}"), async || {
            match self.api.read(key, None).await.ok()?.lock() {
                Lock::Held(session) => Some(session),
                Lock::Free | Lock::Foreign { .. } => None,
            }
        })
        .await
    }

    /// A request in plain HTTP; `None` where there is no good answer.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> Option<Value> {
        let url = format!("http://{}{path}", self.address());
        let mut request = client().request(method, url).body(body.to_owned());
        if self.guarded {
            request = request.header("x-consul-token", MANAGEMENT);
        }
        let request = request.send();
        let answer = timeout(ANSWER, request).await.ok()?.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            crate::print(&format!("Consul's log, since a test failed:\n{log}"));
        }
    }
}

fn binary() -> String {
    std::env::var("CONSUL_BIN").unwrap_or_else(|_| {
        panic!(
            "CONSUL_BIN is not set: these tests need a real Consul. Run tools/test, or set it to \
             what tools/consul prints"
        )
    })
}

/// Whether this Consul is 1.14 or newer; older ones refuse to know the port.
fn has_grpc_tls() -> bool {
    let version = Command::new(binary()).arg("version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let numbers = version.trim_start_matches(|it: char| !it.is_ascii_digit());
    let mut numbers = numbers.split('.').map(|it| it.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (1, 14)
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Suites that run at the same time begin at different places.
    let start = u16::try_from(std::process::id() % u32::from(PORTS / 64)).unwrap() * 64;
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = FIRST_PORT + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
