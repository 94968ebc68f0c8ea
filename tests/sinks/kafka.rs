//! A broker that speaks Kafka's protocol as far as producing goes, numbers messages as brokers do,
//! and fails on request, for one partition or for all.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use super::contract::{LARGE, Receiver};
use crate::firehose::{Program, wait};

pub mod login;
pub mod script;
pub mod wire;

use login::{Login, Step};
use script::*;
use wire::{Batch, Message, Reader, Writer};

pub const TOPIC: &str = "events";
/// So many that, of the objects of the tests, hardly two are in one.
const PARTITIONS: i32 = 997;
/// What the sink waits for an answer at most, and where it is held up for a while.
const TIMEOUT: &str = "2s";
const PATIENT: &str = "5s";
/// How often it is looked whether the test goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Inner {
    script: Script,
    stored: Vec<Message>,
    /// The ids and payloads of these.
    records: Vec<(String, Value)>,
    offsets: HashMap<i32, i64>,
    /// What each producer has stored in a partition: the next number, and the last batch.
    numbers: HashMap<(i64, i16, i32), (i32, i32, i64)>,
    producers: i64,
    /// Connections that are there.
    open: usize,
    /// Names of clients, and what each has asked for.
    asked: Vec<(String, i16)>,
    /// Bytes and messages of each batch.
    batches: Vec<(usize, usize)>,
}

/// A cluster of one broker with one topic.
pub struct Kafka {
    port: u16,
    /// Where it says that it is.
    advertised: Arc<AtomicU16>,
    inner: Arc<Mutex<Inner>>,
    tls: Option<TlsAcceptor>,
    task: Option<JoinSet<()>>,
}

impl Kafka {
    pub async fn new(tls: Option<TlsAcceptor>) -> Self {
        let (advertised, inner) = Default::default();
        let mut kafka = Self { port: 0, advertised, inner, tls, task: None };
        kafka.listen().await;
        kafka.advertise(kafka.port);
        kafka
    }

    async fn listen(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        // What was connected before a crash may hold the port for a moment.
        let listener = wait("the port", async || TcpListener::bind(address).await.ok()).await;
        self.port = listener.local_addr().unwrap().port();
        let (inner, advertised) = (self.inner.clone(), self.advertised.clone());
        let tls = self.tls.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // With it, they end as well.
            let mut clients = JoinSet::new();
            loop {
                let Ok((io, _)) = listener.accept().await else { continue };
                io.set_nodelay(true).unwrap();
                let client = Client {
                    inner: inner.clone(),
                    advertised: advertised.clone(),
                    step: Step::default(),
                };
                match tls.clone() {
                    None => clients.spawn(client.serve(io)),
                    Some(tls) => clients.spawn(async move {
                        // A handshake fails where the test wants it to.
                        if let Ok(io) = tls.accept(io).await {
                            client.serve(io).await;
                        }
                    }),
                };
            }
        });
        self.task = Some(tasks);
    }

    pub fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.inner.lock().unwrap().script)
    }

    /// What it has stored, in the order in which it came.
    pub fn messages(&self) -> Vec<Message> {
        self.inner.lock().unwrap().stored.clone()
    }

    /// The ids and payloads of these.
    pub fn records(&self) -> Vec<(String, Value)> {
        self.inner.lock().unwrap().records.clone()
    }

    /// Says that it is at a port, where clients then go.
    pub fn advertise(&self, port: u16) {
        self.advertised.store(port, Ordering::Relaxed);
    }

    /// Bytes and messages of each batch that it was sent.
    pub fn batches(&self) -> Vec<(usize, usize)> {
        self.inner.lock().unwrap().batches.clone()
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.inner.lock().unwrap().open
    }

    /// How often it was asked for something.
    pub fn asked(&self, what: i16) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.asked.iter().filter(|(_, it)| *it == what).count()
    }

    /// By what names clients call themselves.
    pub fn clients(&self) -> Vec<String> {
        let mut clients: Vec<_> =
            self.inner.lock().unwrap().asked.iter().map(|it| it.0.clone()).collect();
        clients.sort();
        clients.dedup();
        clients
    }

    /// Waits until it has so many messages; all that it has.
    pub async fn took(&self, count: usize) -> Vec<Message> {
        wait(&format!("{count} messages come"), async || {
            Some(self.messages()).filter(|it| it.len() >= count)
        })
        .await
    }

    /// A sink that leads to a port.
    pub fn sink(program: Program, port: u16) -> Program {
        program
            .set("SINK_TYPE", "kafka")
            .set("SINK_KAFKA_BROKERS", format!("127.0.0.1:{port}"))
            .set("SINK_KAFKA_TOPIC", TOPIC)
            .set("SINK_KAFKA_TIMEOUT", TIMEOUT)
            .set("SINK_KAFKA_MAX_MESSAGE_BYTES", LARGE.to_string())
    }
}

/// A connection.
struct Client {
    inner: Arc<Mutex<Inner>>,
    advertised: Arc<AtomicU16>,
    step: Step,
}

impl Client {
    async fn serve(mut self, io: impl AsyncRead + AsyncWrite + Unpin) {
        self.inner.lock().unwrap().open += 1;
        self.answer_all(io).await;
        self.inner.lock().unwrap().open -= 1;
    }

    async fn answer_all(&mut self, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        loop {
            let Ok(length) = io.read_u32().await else { return };
            if length > 100 << 20 {
                return;
            }
            let mut request = vec![0; length as usize];
            if io.read_exact(&mut request).await.is_err() {
                return;
            }
            let mut request = Reader(Bytes::from(request));
            let (what, version, number) = (request.i16(), request.i16(), request.i32());
            let name = request.text().unwrap_or_default();
            self.inner.lock().unwrap().asked.push((name, what));
            if what == PRODUCE {
                let inner = self.inner.clone();
                while inner.lock().unwrap().script.is_held {
                    sleep(LOOK_AGAIN).await;
                }
            }
            let Some(answer) = self.answer(what, version, request) else { return };
            let answer = [&number.to_be_bytes()[..], &answer.0].concat();
            let length = (answer.len() as u32).to_be_bytes();
            if io.write_all(&[&length[..], &answer].concat()).await.is_err() {
                return;
            }
        }
    }

    /// `None` where the connection is closed instead.
    fn answer(&mut self, what: i16, version: i16, mut request: Reader) -> Option<Writer> {
        let out = Writer::default();
        let login = self.inner.lock().unwrap().script.login.clone();
        let is_in = login.is_none() || matches!(self.step, Step::In);
        match what {
            API_VERSIONS => {
                // Whoever asks in a newer version is to ask again.
                let code = if version > 2 { 35 } else { 0 };
                let out = out.i16(code);
                let each = |out: Writer, (what, most)| out.i16(what).i16(0).i16(most);
                let out = out.each(ASKED.into_iter(), each);
                Some(if version > 0 && code == 0 { out.i32(0) } else { out })
            }
            SASL_HANDSHAKE => {
                let wanted = request.text().unwrap();
                let known = login.map_or("none", |it| it.mechanism);
                let code = if wanted == known { 0 } else { UNSUPPORTED_MECHANISM };
                Some(out.i16(code).each([known].into_iter(), Writer::text))
            }
            LOGIN => Some(match self.step.next(&login?, &request.bytes().0) {
                Some(answer) => out.i16(0).i16(-1).bytes(&answer).i64(0),
                None => out.i16(SASL_FAILED).text("invalid credentials").bytes(&[]).i64(0),
            }),
            _ if !is_in => None,
            METADATA => Some(self.metadata(request)),
            IDENTITY => {
                let mut inner = self.inner.lock().unwrap();
                inner.producers += 1;
                let code = inner.script.identity.unwrap_or_default();
                Some(out.i32(0).i16(code).i64(inner.producers).i16(0))
            }
            PRODUCE => Some(self.produce(request)),
            _ => None,
        }
    }

    fn metadata(&self, mut request: Reader) -> Writer {
        let topics = match request.count() {
            Some(count) => (0..count).map(|_| request.text().unwrap()).collect(),
            None => vec![TOPIC.to_owned()],
        };
        let port = i32::from(self.advertised.load(Ordering::Relaxed));
        let broker = |out: Writer, id| out.i32(id).text("127.0.0.1").i32(port).i16(-1);
        let out = Writer::default().i32(0).each([1].into_iter(), broker).text("cluster").i32(1);
        let one = |out: Writer| out.each([1].into_iter(), Writer::i32);
        let partition = |out: Writer, it| one(one(out.i16(0).i32(it).i32(1)));
        out.each(topics.iter(), |out, topic| {
            let there = topic == TOPIC;
            let out = out.i16(if there { 0 } else { UNKNOWN_TOPIC }).text(topic).i8(0);
            out.each(0..if there { PARTITIONS } else { 0 }, partition)
        })
    }

    fn produce(&self, mut request: Reader) -> Writer {
        let transaction = request.text();
        assert_eq!((transaction, request.i16()), (None, -1), "all replicas are to have it");
        let _timeout = request.i32();
        let mut inner = self.inner.lock().unwrap();
        let topics = request.count().unwrap();
        let mut answers = Vec::new();
        for _ in 0..topics {
            assert_eq!(request.text().unwrap(), TOPIC);
            for _ in 0..request.count().unwrap() {
                let partition = request.i32();
                let batch = Batch::read(request.bytes());
                answers.push((partition, inner.take(partition, batch)));
            }
        }
        let answer = |out: Writer, (partition, taken): (i32, Result<i64, i16>)| {
            let (code, offset) = taken.map_or_else(|code| (code, -1), |offset| (0, offset));
            out.i32(partition).i16(code).i64(offset).i64(-1).i64(0)
        };
        let out = Writer::default().i32(1).text(TOPIC);
        out.each(answers.into_iter(), answer).i32(0)
    }
}

impl Inner {
    /// Stores a batch; its offset, or the code with which it is refused.
    fn take(&mut self, partition: i32, batch: Batch) -> Result<i64, i16> {
        let Batch { size, producer, epoch, sequence, messages } = batch;
        self.batches.push((size, messages.len()));
        let record = |it: &Message| {
            let mut body: Value = serde_json::from_slice(&it.body).unwrap();
            let id = it.header("ce_id").or(body["id"].as_str()).unwrap().to_owned();
            (id, body.get_mut("data").map(Value::take).unwrap_or(body))
        };
        let records: Vec<_> = messages.iter().map(record).collect();
        let has = |job: &str| records.iter().any(|(_, it)| it["JobID"] == job);
        if let Some(code) = self.script.produce {
            return Err(code);
        }
        if self.script.most.is_some_and(|it| size > it) {
            return Err(MESSAGE_TOO_LARGE);
        }
        if has("bad") {
            return Err(INVALID_RECORD);
        }
        if has("full") && !self.script.takes_full {
            return Err(UNKNOWN_SERVER_ERROR);
        }
        let offset = self.offsets.entry(partition).or_default();
        if producer >= 0 {
            let key = (producer, epoch, partition);
            let (next, last, stored_at) = self.numbers.entry(key).or_insert((0, -1, 0));
            if sequence == *last {
                return Ok(*stored_at);
            }
            if sequence != *next {
                return Err(OUT_OF_ORDER_SEQUENCE);
            }
            (*next, *last, *stored_at) = (sequence + messages.len() as i32, sequence, *offset);
        }
        let stored_at = *offset;
        *offset += messages.len() as i64;
        self.stored.extend(messages);
        self.records.extend(records);
        if self.script.without_offset > 0 {
            self.script.without_offset -= 1;
            return Ok(-1);
        }
        Ok(stored_at)
    }
}

impl Receiver for Kafka {
    const UNREACHABLE: &'static str = "check SINK_KAFKA_BROKERS";
    const DENIED: &'static str = "check SINK_KAFKA_USER and SINK_KAFKA_PASSWORD";

    async fn start() -> Self {
        let kafka = Self::new(None).await;
        let login = Login { mechanism: "PLAIN", user: "me", password: "right".into() };
        kafka.script(|it| it.login = Some(login));
        kafka
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        self.advertise(port);
        let program = Self::sink(program, port).set("SINK_KAFKA_TIMEOUT", PATIENT);
        program.set("SINK_KAFKA_USER", "me").set("SINK_KAFKA_PASSWORD", "right")
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port).set("SINK_KAFKA_PASSWORD", "wrong")
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        self.records()
    }

    async fn take_full(&mut self, takes: bool) {
        self.script(|it| it.takes_full = takes);
    }

    async fn crash(&mut self) {
        if let Some(mut tasks) = self.task.take() {
            tasks.shutdown().await;
        }
    }

    async fn come_back(&mut self) {
        self.listen().await;
    }
}
