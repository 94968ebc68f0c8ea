//! What each sink takes: events a second and CPU time per event, against receivers of their own,
//! and for AMQP the ratio to a bare client that pipelines the same confirms in the same run.
//!
//! `cargo bench --bench sinks`; Linux only, since it reads `/proc`. AMQP is measured where
//! `RABBITMQ_BIN` names a server (`tools/rabbitmq` prints one).

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it prints, and measures")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark has nobody to tell")]

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use nomad_firehose::{
    api::connect,
    cursor::{Cursor, Index, Kind, Mark},
    deliver::{Delivery, Outbox},
    env::Env,
    leader::{self, Term},
    metrics::Metrics,
    record::{Meta, Record},
    shutdown, sink,
};

#[path = "sinks/receivers.rs"]
mod receivers;

/// As many rounds, of which the median counts: this may be a machine with other work.
const ROUNDS: usize = 5;
const MESSAGES: usize = 40_000;
const SLOW_MESSAGES: usize = 20_000;
const BODY_BYTES: usize = 1_024;
/// What a bare client has under way.
const WINDOW: usize = 1_000;
const EXCHANGE: &str = "bench";
const KEY: &str = "events";
/// A batch as a watcher hands it over.
const BATCH: usize = 1_000;
/// Linux counts the CPU time of a process in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What a run cost.
#[derive(Clone, Copy)]
struct Cost {
    events: usize,
    wall: Duration,
    cpu: Duration,
}

impl Cost {
    fn rate(self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    fn cpu_us(self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--receive", kind, latency_ms] => receivers::serve(kind, latency_ms.parse().unwrap()),
        ["--kinesis", latency, count] => kinesis_after(latency, count.parse().unwrap()),
        _ => measure(),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn measure() {
    connect::install_crypto();
    println!("{MESSAGES} records of {BODY_BYTES} bytes, median of {ROUNDS} rounds\n");
    println!("{:<44}{:>12}{:>14}", "", "events/s", "CPU us/event");
    if std::env::var_os("RABBITMQ_BIN").is_some() {
        amqp().await;
    } else {
        println!("amqp: NOT MEASURED, as RABBITMQ_BIN is not set");
    }
    kinesis();
    http().await;
}

fn show(name: &str, cost: Cost) {
    println!("{name:<44}{:>12.0}{:>14.1}", cost.rate(), cost.cpu_us());
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    costs[costs.len() / 2]
}

/// Records of as many objects.
fn records(count: usize) -> Vec<Record> {
    let body = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(BODY_BYTES - 8)));
    let source: Arc<str> = "/nomad/global".into();
    let namespace: Arc<str> = "default".into();
    (0..count)
        .map(|number| {
            let subject = format!("737d4f49-0bab-62de-dc2f-{number:012x}");
            let index = Index(number as u64 + 1);
            Record {
                stream: "evaluations",
                key: subject.as_str().into(),
                mark: Mark::Object { key: number as u64, index, hash: 1 },
                below: index,
                body: body.clone(),
                meta: Meta {
                    id: format!("evaluations/default/{subject}/{number}/0123456789abcdef"),
                    source: source.clone(),
                    kind: "nomad.evaluation.changed",
                    subject,
                    time: Some("2026-11-23T15:23:06.339470430Z".to_owned()),
                    index,
                    namespace: namespace.clone(),
                },
            }
        })
        .collect()
}

/// Publishes through a sink as the pipeline does.
async fn publish(delivery: &Delivery, count: usize) -> Cost {
    let (_trigger, stop) = shutdown::channel();
    let env = Env::from([("NOMAD_FIREHOSE_LEADER", "solo")]);
    let leader = leader::from_env(&env, "bench");
    let leader = env.check(leader).unwrap();
    let term: Box<dyn Term> = leader.elect(&stop).await.unwrap().unwrap();
    let mut batches = records(count).into_iter();
    let (since, cpu) = (Instant::now(), cpu());
    let mut outbox = Outbox::new(delivery);
    let mut cursor = Cursor::new(Kind::Objects);
    loop {
        while outbox.has_room() {
            let batch: Vec<Record> = batches.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            outbox.add(Vec::new(), batch, None, &mut cursor);
        }
        match outbox.next_at() {
            Some(at) => {
                if at > tokio::time::Instant::now() {
                    tokio::time::sleep_until(at).await;
                }
                assert!(term.holds());
                outbox.next_call().into_iter().for_each(|call| outbox.start(call));
            }
            None if outbox.calling() == 0 => break,
            None => {
                let done = outbox.done().await;
                outbox.settle(done, &mut cursor).await.unwrap();
            }
        }
    }
    Cost { events: count, wall: since.elapsed(), cpu: self::cpu() - cpu }
}

fn delivery<const N: usize>(vars: [(&str, &str); N]) -> Delivery {
    let env = Env::from(vars);
    let sink = sink::from_env(&env);
    let sink = env.check(sink).unwrap();
    Delivery::new(sink, Duration::from_secs(3), Arc::new(Metrics::default()))
}

async fn rounds(delivery: &Delivery, count: usize) -> Cost {
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        costs.push(publish(delivery, count).await);
    }
    median(costs)
}

async fn amqp() {
    let node = receivers::Rabbit::start();
    let address = format!("amqp://127.0.0.1:{}", node.port);
    let connection = Connection::connect(&address, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let (none, kind) = (FieldTable::default, lapin::ExchangeKind::Topic);
    channel.exchange_declare(EXCHANGE.into(), kind, durable, none()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("events".into(), durable, none()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("events".into(), EXCHANGE.into(), KEY.into(), bind, none()).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    show("amqp: bare client, and nothing but a body", {
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            costs.push(bare(&channel, BasicProperties::default().with_delivery_mode(2)).await);
            purge(&channel).await;
        }
        median(costs)
    });
    for workers in ["1", "8"] {
        let delivery = delivery([
            ("SINK_TYPE", "amqp"),
            ("SINK_AMQP_CONNECTION", &address),
            ("SINK_AMQP_EXCHANGE", EXCHANGE),
            ("SINK_AMQP_ROUTING_KEY", KEY),
            ("SINK_AMQP_WORKERS", workers),
        ]);
        let (mut bare_costs, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let bare = bare(&channel, properties()).await;
            purge(&channel).await;
            let ours = publish(&delivery, MESSAGES).await;
            purge(&channel).await;
            ratios.push(ours.rate() / bare.rate());
            bare_costs.push(bare);
            costs.push(ours);
        }
        ratios.sort_by(f64::total_cmp);
        show("amqp: bare client, the same messages", median(bare_costs));
        show(&format!("amqp: the sink, {workers} worker(s)"), median(costs));
        println!("amqp: ratio of the two: {:.2}\n", ratios[ratios.len() / 2]);
    }
}

/// As many and as long as those of the sink: the broker reads and writes them as well.
fn properties() -> BasicProperties {
    let id = "evaluations/default/737d4f49-0bab-62de-dc2f-000000000001/1/0123456789abcdef";
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", id),
        ("source", "/nomad/global"),
        ("type", "nomad.evaluation.changed"),
        ("subject", "737d4f49-0bab-62de-dc2f-000000000001"),
        ("time", "2026-11-23T15:23:06.339470430Z"),
        ("nomadindex", "1"),
        ("nomadnamespace", "default"),
    ] {
        headers.insert(
            format!("cloudEvents:{name}").into(),
            lapin::types::AMQPValue::LongString(value.into()),
        );
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.into())
        .with_type("nomad.evaluation.changed".into())
        .with_app_id("nomad-firehose".into())
        .with_timestamp(1_795_447_386)
        .with_headers(headers)
}

async fn purge(channel: &Channel) {
    channel.queue_purge("events".into(), QueuePurgeOptions::default()).await.unwrap();
}

/// What can be had of the same library with the same durability and nothing else.
async fn bare(channel: &Channel, properties: BasicProperties) -> Cost {
    let body = vec![b'x'; BODY_BYTES];
    let (since, cpu) = (Instant::now(), cpu());
    let mut confirms = FuturesOrdered::<PublisherConfirm>::new();
    for _ in 0..MESSAGES {
        if confirms.len() == WINDOW {
            confirms.next().await.unwrap().unwrap();
        }
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = properties.clone();
        let sent = channel.basic_publish(EXCHANGE.into(), KEY.into(), options, &body, properties);
        confirms.push_back(sent.await.unwrap());
    }
    while let Some(confirm) = confirms.next().await {
        confirm.unwrap();
    }
    Cost { events: MESSAGES, wall: since.elapsed(), cpu: self::cpu() - cpu }
}

/// In processes of their own, since the library reads the environment by itself.
fn kinesis() {
    for (latency, count) in [("0", MESSAGES), ("5", SLOW_MESSAGES)] {
        let receiver = Receiver::start("kinesis", latency);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let status = command
            .args(["--kinesis", latency, &count.to_string()])
            .env("AWS_ENDPOINT_URL", &receiver.address)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .status();
        assert!(status.unwrap().success());
    }
    println!();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn kinesis_after(latency: &str, count: usize) {
    connect::install_crypto();
    let delivery = delivery([("SINK_TYPE", "kinesis"), ("SINK_KINESIS_STREAM_NAME", "events")]);
    let name = format!("kinesis: answers after {latency} ms");
    show(&name, rounds(&delivery, count).await);
}

async fn http() {
    let receiver = Receiver::start("http", "0");
    for (workers, batch) in [("1", "off"), ("16", "off"), ("1", "ndjson"), ("4", "ndjson")] {
        let delivery = delivery([
            ("SINK_TYPE", "http"),
            ("SINK_HTTP_ADDRESS", &receiver.address),
            ("SINK_WORKER_COUNT", workers),
            ("SINK_HTTP_BATCH", batch),
        ]);
        let count = if batch == "off" { SLOW_MESSAGES } else { MESSAGES };
        let name = format!("http: {workers} worker(s), batches {batch}");
        show(&name, rounds(&delivery, count).await);
    }
}

/// A receiver in a process of its own, so that its CPU time is not ours.
struct Receiver {
    address: String,
    process: Child,
}

impl Receiver {
    fn start(kind: &str, latency_ms: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--receive", kind, latency_ms]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(process.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        Self { address: line.trim().to_owned(), process }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<u32> =
        after_name.split_whitespace().map(|it| it.parse().unwrap_or(0)).collect();
    TICK * (fields[11] + fields[12])
}
