//! The sink `redis` against a real Redis: a server alone.

use std::fs;

use nomad_firehose::standin::nomad::{Nomad, Table, Version};
use serde_json::{Value, json};

use super::redis_server::{KEY, Reply, Server};
use crate::{
    firehose::{CONFIGURATION, FAILED, Process, Program, Served, wait},
    sinks::contract::{LARGE, Receiver},
    support::{allocation, node},
};

/// A list, or a stream.
pub struct Redis<const STREAM: bool> {
    server: Server,
    received: Vec<(String, Value)>,
    /// The entry of the stream that was read last.
    last: String,
}

impl<const STREAM: bool> Receiver for Redis<STREAM> {
    const UNREACHABLE: &'static str = "cannot connect to Redis";
    const DENIED: &'static str = "WRONGPASS";

    async fn start() -> Self {
        let server = Server::start_with(Some("right"), &[]).await;
        Self { server, received: Vec::new(), last: "-".to_owned() }
    }

    fn port(&self) -> u16 {
        self.server.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        let program = program
            .set("SINK_TYPE", "redis")
            .set("SINK_REDIS_URL", format!("redis://:right@127.0.0.1:{port}/0"))
            .set("SINK_REDIS_KEY", KEY)
            .set("SINK_REDIS_MAX_RECORD_BYTES", LARGE.to_string());
        match STREAM {
            true => program.set("SINK_REDIS_MODE", "stream"),
            false => program.set("NOMAD_FIREHOSE_FORMAT", "cloudevents"),
        }
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        let address = format!("redis://:planted@127.0.0.1:{port}/0");
        self.configure(program, port).set("SINK_REDIS_URL", address)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        if STREAM {
            let entries = self.server.try_ask(&["XRANGE", KEY, &self.last, "+"]);
            for entry in entries.iter().flat_map(Reply::list) {
                let [id, fields] = entry.list() else { panic!("{entry:?}") };
                let field = |name| {
                    let pair = fields.list().chunks(2).find(|it| it[0].text() == name);
                    pair.unwrap()[1].text()
                };
                let body = serde_json::from_str(field("data")).unwrap();
                self.received.push((field("id").to_owned(), body));
                self.last = format!("({}", id.text());
            }
        } else {
            for event in self.server.elements(self.received.len()) {
                let id = event["id"].as_str().unwrap().to_owned();
                self.received.push((id, event["data"].clone()));
            }
        }
        self.received.clone()
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        self.server.crash();
    }

    async fn come_back(&mut self) {
        self.server.resume().await;
    }
}

// It can refuse no record for what is in it, and no record but all of a call. To read all that a
// slow receiver gets takes the test longer than that is worth.
mod lists {
    crate::sink_contract!(super::Redis<false>:
        records_of_one_key_stay_in_order
        a_lost_answer_means_a_duplicate_and_never_a_loss
        a_record_that_is_too_large_is_kept_and_the_others_go_on
        a_receiver_that_is_down_at_the_start_is_waited_for
        a_receiver_that_crashes_while_it_receives_loses_nothing
        a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
        wrong_credentials_stop_everything_and_lose_nothing
    );
}

mod streams {
    crate::sink_contract!(super::Redis<true>:
        records_of_one_key_stay_in_order
        a_lost_answer_means_a_duplicate_and_never_a_loss
        a_record_that_is_too_large_is_kept_and_the_others_go_on
        a_receiver_that_crashes_while_it_receives_loses_nothing
    );
}

/// A Nomad, to publish from.
pub struct World {
    nomad: Nomad,
    nomad_port: Served,
}

impl World {
    pub async fn new() -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        Self { nomad, nomad_port }
    }

    pub fn stream(&self, name: &str, url: impl AsRef<str>) -> Program {
        Program::stream(name)
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("SINK_TYPE", "redis")
            .set("SINK_REDIS_URL", url)
            .set("SINK_REDIS_KEY", KEY)
    }

    /// Publishes nodes to a server.
    pub fn to(&self, server: &Server) -> Program {
        self.stream("nodes", format!("redis://127.0.0.1:{}", server.port))
    }

    pub fn nodes(&self, names: &[&str]) {
        names.iter().for_each(|it| {
            self.nomad.upsert(Table::Nodes, node(it, "ready"));
        });
    }

    /// An allocation whose payload has at least this size.
    fn large(&self, name: &str, size: usize) {
        let mut allocation = allocation(name, &[1]);
        allocation.insert("ClientDescription".into(), "x".repeat(size).into());
        self.nomad.upsert(Table::Allocations, allocation);
    }
}

#[tokio::test]
async fn an_element_of_a_list_is_the_payload_as_the_go_tool_pushes_it() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    world.nodes(&["a", "b"]);
    let running =
        world.to(&server).set("SINK_REDIS_URL", format!("redis://127.0.0.1:{}/3", server.port));
    let running = running.start();
    wait("they are in the database", async || {
        server.ask(&["INFO", "keyspace"]).text().contains("db3:keys=1").then_some(())
    })
    .await;
    running.stop().await;
    assert!(server.names().is_empty(), "they are in database 0");
    server.tell(&["SWAPDB", "0", "3"]);
    assert_eq!(server.named(2).await, ["a", "b"]);
    assert_eq!(server.ask(&["TYPE", KEY]).text(), "list");
}

#[tokio::test]
async fn a_connection_that_redis_has_closed_meanwhile_is_replaced_and_nothing_fails() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    world.nodes(&["a"]);
    let running = world.to(&server).start();
    server.named(1).await;
    // As it does with those that are idle, where it is set up so.
    server.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    world.nodes(&["b"]);
    assert_eq!(server.named(2).await, ["a", "b"]);
    let log = running.stop().await.log;
    assert!(!log.contains("is not available"), "{log}");
}

#[tokio::test]
async fn an_entry_of_a_stream_says_what_it_is_and_old_ones_go() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    // Redis trims whole nodes of a stream.
    server.tell(&["CONFIG", "SET", "stream-node-max-entries", "1"]);
    world.nodes(&["a", "b", "c", "d"]);
    let stream =
        || world.to(&server).set("SINK_REDIS_MODE", "stream").set("SINK_REDIS_MAXLEN", "2");
    let last = || {
        let entries = server.ask(&["XREVRANGE", KEY, "+", "-", "COUNT", "1"]);
        let fields = entries.list().first().map(|it| it.list()[1].list().to_vec());
        let pairs = fields.unwrap_or_default();
        let pairs = pairs.chunks(2).map(|it| (it[0].text().to_owned(), json!(it[1].text())));
        Value::Object(pairs.collect())
    };
    let running = stream().start();
    let fields = wait("the last one is there", async || {
        Some(last()).filter(|it| it["data"].as_str().is_some_and(|it| it.contains(r#""d""#)))
    })
    .await;
    running.stop().await;
    assert_eq!(server.ask(&["XLEN", KEY]).number(), 2);
    assert_eq!(fields["specversion"], "1.0");
    assert_eq!(fields["type"], "nomad.node.changed");
    assert_eq!(fields["datacontenttype"], "application/json");
    assert!(fields["id"].as_str().unwrap().starts_with("nodes/"), "{fields}");
    let id = fields["id"].clone();

    let running = stream().set("NOMAD_FIREHOSE_FORMAT", "cloudevents").start();
    let fields = wait("the last one is there", async || {
        Some(last()).filter(|it| it["datacontenttype"] == "application/cloudevents+json")
    });
    let fields = fields.await;
    running.stop().await;
    assert_eq!(fields.as_object().unwrap().len(), 3, "{fields}");
    let envelope: Value = serde_json::from_str(fields["data"].as_str().unwrap()).unwrap();
    assert_eq!(envelope["id"], fields["id"]);
    assert_eq!(id.as_str().unwrap().split('/').next(), Some("nodes"));
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_waited_for() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    server.tell(&["SET", KEY, "x"]);
    world.nodes(&["a"]);
    for mode in ["list", "stream"] {
        let running = world.to(&server).set("SINK_REDIS_MODE", mode).start();
        running.logs("the key holds another type: check SINK_REDIS_KEY").await;
        running.stop().await;
    }
    let checked = world.to(&server).arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(FAILED));
    assert!(
        checked.out.contains("the key `events` holds a string, and no list"),
        "{}",
        checked.out
    );
    let running = world.to(&server).start();
    running.logs("WRONGTYPE").await;
    server.tell(&["DEL", KEY]);
    assert_eq!(server.named(1).await, ["a"]);
    running.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_full_is_waited_for() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    world.nodes(&["a"]);
    let list = world.to(&server).start();
    let stream = world.to(&server).set("SINK_REDIS_KEY", "stream").set("SINK_REDIS_MODE", "stream");
    let stream = stream.start();
    server.named(1).await;
    wait("an entry", async || (server.ask(&["XLEN", "stream"]).number() == 1).then_some(())).await;
    server.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    world.nodes(&["b", "c"]);
    for process in [&list, &stream] {
        process.logs("raise Redis's maxmemory").await;
    }
    server.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(server.named(3).await, ["a", "b", "c"]);
    wait("the rest", async || (server.ask(&["XLEN", "stream"]).number() == 3).then_some(())).await;
    for process in [list, stream] {
        process.logs("takes records again").await;
        process.stop().await;
    }
}

#[tokio::test]
async fn a_record_that_only_redis_finds_too_large_is_kept_and_the_others_go_on() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    server.tell(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    world.large("a", 10);
    world.large("b", 3 << 20);
    world.large("c", 10);
    let url = format!("redis://127.0.0.1:{}", server.port);
    for (mode, key) in [("list", KEY), ("stream", "stream")] {
        let running = world.stream("allocations", &url);
        let running = running.set("SINK_REDIS_MODE", mode).set("SINK_REDIS_KEY", key).start();
        running.logs("rejected a record for good").await;
        running
            .logs("lower SINK_REDIS_MAX_RECORD_BYTES, or raise Redis's proto-max-bulk-len")
            .await;
        let length = if mode == "list" { "LLEN" } else { "XLEN" };
        wait("the others", async || (server.ask(&[length, key]).number() == 2).then_some(())).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_replica_is_named_and_left_for_the_master() {
    let (world, master) = (World::new().await, Server::start(&[]).await);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    world.nodes(&["a"]);
    let running = world.to(&replica).start();
    running.logs("this is a replica: name the master in SINK_REDIS_URL").await;
    let checked = world.to(&replica).arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(FAILED));
    assert!(checked.out.contains("is a replica; name the master"), "{}", checked.out);
    replica.tell(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(replica.named(1).await, ["a"]);
    running.stop().await;
}

#[tokio::test]
async fn a_user_with_the_rights_that_the_page_names_can_publish_and_one_without_is_told() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    for (user, rights) in [("pusher", "+rpush"), ("adder", "+xadd +multi +exec")] {
        let rights: Vec<&str> = rights.split(' ').collect();
        let rule = ["ACL", "SETUSER", user, "on", ">right", "~events", "~stream"];
        server.tell(&[&rule[..], &rights].concat());
    }
    let url = |user| format!("redis://{user}:right@127.0.0.1:{}", server.port);
    world.nodes(&["a"]);
    let list = world.stream("nodes", url("pusher")).start();
    assert_eq!(server.named(1).await, ["a"]);
    let checked = world.stream("nodes", url("pusher")).arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    let stream = world.stream("nodes", url("adder")).set("SINK_REDIS_MODE", "stream");
    let stream = stream.set("SINK_REDIS_KEY", "stream").start();
    wait("an entry", async || (server.ask(&["XLEN", "stream"]).number() == 1).then_some(())).await;
    let other = world.stream("nodes", url("pusher")).set("SINK_REDIS_KEY", "other").start();
    let command = world.stream("nodes", url("adder")).start();
    for process in [&other, &command] {
        process.logs("grant the user this command on SINK_REDIS_KEY").await;
    }
    // Without transactions, each attempt would append the records once more.
    server.tell(&["ACL", "SETUSER", "single", "on", ">right", "~single", "+xadd", "+exec"]);
    let single = || {
        let program = world.stream("nodes", url("single"));
        program.set("SINK_REDIS_MODE", "stream").set("SINK_REDIS_KEY", "single")
    };
    let checked = single().arguments(&["--check"]).run().await;
    assert!(checked.out.contains("refused a transaction: NOPERM"), "{}", checked.out);
    let single = single().start();
    single.logs("refused a transaction: NOPERM").await;
    assert_eq!(server.ask(&["EXISTS", "single"]).number(), 0);
    for process in [list, stream, other, command, single] {
        process.stop().await;
    }
}

#[tokio::test]
async fn a_password_that_is_replaced_in_its_file_is_used_for_the_next_connection() {
    let (world, server) = (World::new().await, Server::start_with(Some("right"), &[]).await);
    world.nodes(&["a"]);
    let file = server.dir.path().join("password");
    fs::write(&file, "planted\n").unwrap();
    let program = world.to(&server).set("SINK_REDIS_PASSWORD_FILE", file.to_str().unwrap());
    let running = program.set("LOG_LEVEL", "trace").start();
    running.logs("WRONGPASS").await;
    fs::write(&file, "right\n").unwrap();
    assert_eq!(server.named(1).await, ["a"]);
    assert!(!running.stop().await.log.contains("planted"));
    // Without any, whatever is sent is refused.
    let running = world.to(&server).start();
    running.logs("NOAUTH").await;
    running.stop().await;
}

#[tokio::test]
async fn no_password_and_no_payload_is_in_the_log_whatever_happens() {
    let (world, server) = (World::new().await, Server::start_with(Some("right"), &[]).await);
    // Redis repeats what it was sent.
    let renamed = Server::start(&["--rename-command", "RPUSH", "PUSH"]).await;
    world.nodes(&["planted-payload"]);
    let denied = format!("redis://me:planted-password@127.0.0.1:{}", server.port);
    let denied = || world.stream("nodes", &denied).set("LOG_LEVEL", "trace");
    let (running, other): (Process, Process) =
        (denied().start(), world.to(&renamed).set("LOG_LEVEL", "trace").start());
    running.logs("WRONGPASS").await;
    other.logs("unknown command").await;
    let checked = denied().arguments(&["--check"]).run().await;
    let row = checked.out.lines().find(|it| it.starts_with("sink ")).unwrap();
    assert!(row.contains("FAILED") && row.contains("WRONGPASS"), "{row}");
    for text in [running.stop().await.log, other.stop().await.log, checked.out, checked.log] {
        assert!(!text.contains("planted"), "{text}");
    }
}

#[tokio::test]
async fn a_check_says_whether_the_key_can_be_appended_to_and_appends_nothing() {
    let (world, server) = (World::new().await, Server::start(&[]).await);
    world.nodes(&["a"]);
    let good = world.to(&server).arguments(&["--check"]).run().await;
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.log);
    assert!(good.out.contains(&format!("127.0.0.1:{}, list events", server.port)), "{}", good.out);
    let lonely = world.to(&server).set("SINK_REDIS_WAIT", "1").arguments(&["--check"]).run().await;
    assert_eq!(lonely.code, Some(FAILED));
    assert!(lonely.out.contains("0 of 1 replicas"), "{}", lonely.out);
    let wrong = world.to(&server).set("SINK_REDIS_MAXLEN", "5").run().await;
    assert_eq!(wrong.code, Some(CONFIGURATION));
    assert_eq!(server.ask(&["EXISTS", KEY]).number(), 0);
}
