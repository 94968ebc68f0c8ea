//! The sink `kafka` against the mock cluster of librdkafka: another's idea of what brokers are.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use nomad_firehose::standin::nomad::{Nomad, Table, Version};
use serde_json::Value;

use crate::{
    firehose::{Program, Served, wait},
    sinks::{
        contract::{LARGE, Receiver},
        kafka_wire::{Batch, Message, Reader, Writer},
    },
    support::evaluation,
};

const TOPIC: &str = "events";
const PARTITIONS: i32 = 7;
/// What the sink waits for an answer.
const TIMEOUT: &str = "2s";
const READ_BYTES: i32 = 64 << 20;
const READ_LIMIT: Duration = Duration::from_secs(10);

const PRODUCE: u16 = 0;
const FETCH: i16 = 1;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_LEADER: i16 = 6;

/// Brokers, numbered from 1, that keep what they have while they are down.
pub struct Cluster {
    process: Child,
    /// Commands go in one at a time.
    lines: Arc<Mutex<(ChildStdin, BufReader<ChildStdout>)>>,
    pub ports: Vec<u16>,
    /// What was read last of each partition.
    read: Vec<Vec<Message>>,
}

impl Cluster {
    pub fn of(brokers: usize) -> Self {
        let program = std::env::var("KAFKA_BIN").unwrap_or_else(|_| {
            panic!(
                "KAFKA_BIN is not set: these tests need a Kafka cluster. Run tools/test, or set \
                 it to what tools/kafka prints"
            )
        });
        let mut command = Command::new(program);
        command.arg(brokers.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let ports = serde_json::from_str(&line).unwrap();
        let lines = Arc::new(Mutex::new((input, output)));
        let read = vec![Vec::new(); PARTITIONS as usize];
        let cluster = Self { process, lines, ports, read };
        cluster.tell(&format!("topic {TOPIC} {PARTITIONS}"));
        cluster
    }

    /// Makes it do something.
    pub fn tell(&self, command: &str) {
        let mut lines = self.lines.lock().unwrap();
        writeln!(lines.0, "{command}").unwrap();
        let mut answer = String::new();
        lines.1.read_line(&mut answer).unwrap();
        assert!(answer.contains("done"), "{command}: {answer}");
    }

    fn sink(&self, program: Program, brokers: &[u16]) -> Program {
        let brokers: Vec<_> = brokers.iter().map(|it| format!("127.0.0.1:{it}")).collect();
        program
            .set("SINK_TYPE", "kafka")
            .set("SINK_KAFKA_BROKERS", brokers.join(","))
            .set("SINK_KAFKA_TOPIC", TOPIC)
            .set("SINK_KAFKA_TIMEOUT", TIMEOUT)
            .set("SINK_KAFKA_MAX_MESSAGE_BYTES", LARGE.to_string())
    }

    /// Everything that it has, in the order of each partition.
    fn messages(&mut self) -> Vec<Message> {
        for port in self.ports.clone() {
            for partition in 0..PARTITIONS {
                let from = self.read[partition as usize].len();
                // A broker that is down has the rest, or another broker has the partition.
                let Some(more) = fetch(port, partition, from as i64) else { continue };
                self.read[partition as usize].extend(more);
            }
        }
        self.read.concat()
    }
}

/// What a broker has of a partition from an offset on; `None` where it does not say.
fn fetch(port: u16, partition: i32, from: i64) -> Option<Vec<Message>> {
    let mut io = TcpStream::connect(("127.0.0.1", port)).ok()?;
    io.set_read_timeout(Some(READ_LIMIT)).unwrap();
    let request = Writer::default().i16(FETCH).i16(4).i32(1).text("reader");
    let request = request.i32(-1).i32(0).i32(0).i32(READ_BYTES).i8(0);
    let request = request.i32(1).text(TOPIC).i32(1).i32(partition).i64(from).i32(READ_BYTES);
    io.write_all(&Writer::default().bytes(&request.0).0).ok()?;
    let mut length = [0; 4];
    io.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    io.read_exact(&mut answer).ok()?;
    let mut answer = Reader(Bytes::from(answer));
    let (_number, _throttle, _topics, _topic) =
        (answer.i32(), answer.i32(), answer.i32(), answer.text());
    let (_partitions, _partition, code) = (answer.i32(), answer.i32(), answer.i16());
    let (_high, _stable) = (answer.i64(), answer.i64());
    for _ in 0..answer.count().unwrap_or_default() {
        let _aborted = (answer.i64(), answer.i64());
    }
    match code {
        0 => (),
        NOT_LEADER => return None,
        other => panic!("fetch: {other}"),
    }
    let mut batches = answer.bytes();
    let mut messages = Vec::new();
    while batches.0.len() > 12 {
        let length = i32::from_be_bytes(batches.0[8..12].try_into().unwrap()) as usize + 12;
        let mut batch = Batch::read(Reader(batches.0.split_to(length)));
        messages.append(&mut batch.messages);
    }
    Some(messages)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ids(messages: Vec<Message>) -> Vec<(String, Value)> {
    let record = |it: Message| {
        (it.header("ce_id").unwrap().to_owned(), serde_json::from_slice(&it.body).unwrap())
    };
    messages.into_iter().map(record).collect()
}

impl Receiver for Cluster {
    const UNREACHABLE: &'static str = "check SINK_KAFKA_BROKERS";
    /// It lets everybody in.
    const DENIED: &'static str = "never";

    async fn start() -> Self {
        Self::of(1)
    }

    fn port(&self) -> u16 {
        self.ports[0]
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        // Clients go to where the cluster says that its brokers are.
        self.tell(&format!("advertise 1 {port}"));
        self.sink(program, &[port])
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        ids(self.messages())
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        self.tell("down 1");
    }

    async fn come_back(&mut self) {
        self.tell("up 1");
    }
}

// It refuses nothing because of what is in it, lets everybody in, and keeps 5 MB of a partition;
// what then is to be done is tested with a broker of ours.
crate::sink_contract!(Cluster:
    records_of_one_key_stay_in_order
    a_record_that_is_too_large_is_kept_and_the_others_go_on
    a_receiver_that_is_down_at_the_start_is_waited_for
    a_receiver_that_crashes_while_it_receives_loses_nothing
    a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
);

/// A cluster of three, and a Nomad.
struct World {
    cluster: Cluster,
    nomad: Nomad,
    nomad_port: Served,
    next: usize,
}

impl World {
    async fn new() -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        Self { cluster: Cluster::of(3), nomad, nomad_port, next: 0 }
    }

    fn program(&self) -> Program {
        let program = Program::stream("evaluations")
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo");
        self.cluster.sink(program, &self.cluster.ports)
    }

    fn evaluations(&mut self, count: usize) {
        for _ in 0..count {
            self.nomad.upsert(
                Table::Evaluations,
                evaluation(&format!("{:05}", self.next), "default", "pending"),
            );
            self.next += 1;
        }
    }

    /// Waits until every evaluation came; how many came more than once.
    async fn all_came(&mut self) -> usize {
        let (cluster, made) = (&mut self.cluster, self.next);
        wait(&format!("{made} evaluations come"), async || {
            let all = ids(cluster.messages());
            let mut first: Vec<_> = all.iter().map(|it| &it.0).collect();
            first.sort();
            first.dedup();
            (first.len() == made).then(|| all.len() - made)
        })
        .await
    }
}

#[tokio::test]
async fn partitions_are_produced_to_where_their_leaders_are_and_follow_them() {
    let mut world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let running =
        world.program().set("NOMAD_FIREHOSE_STATE_DIR", dir.path().to_str().unwrap()).start();
    world.evaluations(50);
    assert_eq!(world.all_came().await, 0);
    for partition in 0..PARTITIONS {
        world.cluster.tell(&format!("lead {TOPIC} {partition} {}", partition % 2 + 1));
    }
    world.cluster.tell("down 3");
    world.evaluations(50);
    assert_eq!(world.all_came().await, 0, "a leader that says that it is none has stored nothing");
    running.stop().await;
}

#[tokio::test]
async fn what_brokers_refuse_for_a_while_is_said_and_sent_again() {
    let mut world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let running =
        world.program().set("NOMAD_FIREHOSE_STATE_DIR", dir.path().to_str().unwrap()).start();
    world.cluster.tell(&format!("fail {PRODUCE} {NOT_ENOUGH_REPLICAS} 10000"));
    world.evaluations(10);
    running.logs("NOT_ENOUGH_REPLICAS at last; fewer replicas are in sync").await;
    world.cluster.tell(&format!("clear {PRODUCE}"));
    assert_eq!(world.all_came().await, 0);
    running.stop().await;
}
