//! The sink `nats` against a server of the test's own, which goes silent, breaks off and refuses
//! as it is told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use nomad_firehose::{
    cursor::{Index, Mark},
    env::Env,
    record::{Meta, Record},
    sink::{self, Again, DeliverError, Sink},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::firehose::when;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// It is answered like this.
    Answers(String),
    /// It is read, and not answered.
    Silent,
    /// It is not even read.
    Busy,
    /// The server says this, and goes on.
    Says(&'static str),
    /// The server says this, and breaks off.
    BreaksOff(&'static str),
}

fn stored(number: u64) -> Way {
    Way::Answers(format!(r#"{{"stream":"S","seq":{number}}}"#))
}

/// Speaks as much NATS as the sink needs.
struct Peer {
    port: u16,
    way: watch::Sender<Way>,
    connections: Arc<AtomicUsize>,
    /// The ids of the messages that were read.
    read: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Peer {
    async fn new(way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, watched) = watch::channel(way);
        let connections = Arc::new(AtomicUsize::new(0));
        let read = Arc::new(Mutex::default());
        let (counted, ids) = (connections.clone(), read.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, watched.clone(), ids.clone()));
            }
        });
        Self { port, way, connections, read, task }
    }

    fn sink(&self) -> Box<dyn Sink> {
        let address = format!("127.0.0.1:{}", self.port);
        let env = Env::from([
            ("SINK_TYPE", "nats"),
            ("SINK_NATS_URL", address.as_str()),
            ("SINK_NATS_SUBJECT", "events"),
        ]);
        let sink = sink::from_env(&env);
        env.check(sink).unwrap()
    }

    fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn read(&self) -> Vec<String> {
        self.read.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, mut way: watch::Receiver<Way>, ids: Arc<Mutex<Vec<String>>>) {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let info = "INFO {\"max_payload\":1048576,\"headers\":true,\"proto\":1}\r\n";
    to.write_all(info.as_bytes()).await.unwrap();
    let mut inbox = String::new();
    loop {
        let mut line = String::new();
        if !matches!(from.read_line(&mut line).await, Ok(1..)) {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => to.write_all(b"PONG\r\n").await.unwrap(),
            ["SUB", _, id] => id.clone_into(&mut inbox),
            ["HPUB", _, reply, head, all] => {
                let sizes = (head.parse().unwrap(), all.parse().unwrap());
                let Some(id) = message(&mut from, sizes).await else { return };
                ids.lock().unwrap().push(id);
                if !answer(&mut to, &mut way, reply, &inbox).await {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Reads a message; its id.
async fn message(
    from: &mut BufReader<OwnedReadHalf>,
    (head, all): (usize, usize),
) -> Option<String> {
    let mut bytes = vec![0; all + "\r\n".len()];
    from.read_exact(&mut bytes).await.ok()?;
    let head = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let id = head.lines().find_map(|it| it.strip_prefix("Nats-Msg-Id: "));
    Some(id.unwrap_or_default().to_owned())
}

/// Whether the connection goes on.
async fn answer(
    to: &mut OwnedWriteHalf,
    way: &mut watch::Receiver<Way>,
    reply: &str,
    inbox: &str,
) -> bool {
    let now = way.borrow_and_update().clone();
    let said = match &now {
        Way::Answers(body) => format!("MSG {reply} {inbox} {}\r\n{body}\r\n", body.len()),
        Way::Silent => return true,
        Way::Busy => return way.wait_for(|it| *it != Way::Busy).await.is_ok(),
        Way::Says(what) | Way::BreaksOff(what) => format!("-ERR '{what}'\r\n"),
    };
    let written = to.write_all(said.as_bytes()).await.is_ok();
    written && !matches!(now, Way::BreaksOff(_))
}

fn record(id: &str, size: usize) -> Record {
    Record {
        stream: "nodes",
        key: id.into(),
        mark: Mark::Object { key: 1, index: Index(7), hash: 1 },
        below: Index(6),
        body: Bytes::from(vec![b'1'; size]),
        meta: Meta {
            id: id.into(),
            source: "/nomad/global".into(),
            kind: "nomad.node.changed",
            subject: "n1".into(),
            time: None,
            index: Index(7),
            namespace: "".into(),
        },
    }
}

/// When to ask again, and why.
fn unavailable(result: Result<(), DeliverError>) -> (Again, String) {
    match result {
        Err(DeliverError::Unavailable { source, again }) => (again, source.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_given_up_is_not_sent_later() {
    const MESSAGES: usize = 400;
    let peer = Peer::new(stored(1)).await;
    let sink = peer.sink();
    sink.deliver(&[record("first", 1)]).await.unwrap();
    peer.set(Way::Busy);
    // Far more than the buffers of two sockets have room for.
    let records: Vec<_> =
        (0..MESSAGES).map(|it| record(&format!("given-up-{it}"), 64 << 10)).collect();
    {
        let call = sink.deliver(&records);
        tokio::pin!(call);
        tokio::select! {
            done = &mut call => panic!("{done:?}"),
            () = when("the server has read one", || peer.read().len() > 1) => {}
            // Whoever gives up has waited a while.
        }
        let waited = tokio::time::timeout(Duration::from_millis(300), call).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    peer.set(stored(2));
    sink.deliver(&[record("last", 1)]).await.unwrap();
    let read = peer.read();
    let came = read.iter().filter(|it| it.starts_with("given-up")).count();
    assert!(came < MESSAGES / 2, "{came} came although they were given up");
    assert_eq!((read.last().map(String::as_str), peer.connections()), (Some("last"), 2));
    assert_eq!(sink.connections(), Some(2));
}

#[tokio::test]
async fn a_lost_connection_is_told_at_once_and_made_again_by_the_next_call_only() {
    let peer = Peer::new(stored(1)).await;
    let sink = peer.sink();
    for (said, wanted) in [
        ("Stale Connection", Again::Soon),
        ("User Authentication Expired", Again::Seldom),
        ("Authorization Violation", Again::Seldom),
    ] {
        peer.set(stored(1));
        sink.deliver(&[record("a", 1)]).await.unwrap();
        let connections = peer.connections();
        peer.set(Way::BreaksOff(said));
        let (again, why) = unavailable(sink.deliver(&[record("b", 1), record("c", 1)]).await);
        assert_eq!(again, wanted, "{said}");
        assert!(why.to_lowercase().contains(&said.to_lowercase()), "{why}");
        assert_eq!(peer.connections(), connections, "the library connects by itself");
    }
    let read = peer.read();
    peer.set(stored(2));
    sink.deliver(&[record("d", 1)]).await.unwrap();
    assert_eq!(peer.read(), [&read[..], &["d".to_owned()]].concat());
    assert_eq!((peer.connections(), sink.connections()), (4, Some(4)));
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_given_up() {
    let peer = Peer::new(stored(1)).await;
    let sink = peer.sink();
    sink.deliver(&[record("a", 1)]).await.unwrap();
    peer.set(Way::Silent);
    tokio::time::pause();
    let (again, why) = unavailable(sink.deliver(&[record("b", 1)]).await);
    assert_eq!(again, Again::Soon);
    assert!(why.contains("has answered nothing for 20s"), "{why}");
    tokio::time::resume();
    peer.set(stored(2));
    sink.deliver(&[record("b", 1)]).await.unwrap();
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn what_must_not_be_published_is_told_and_the_connection_is_not_used_again() {
    let peer = Peer::new(Way::Says("Permissions Violation for Publish to \"events\"")).await;
    let sink = peer.sink();
    let (again, why) = unavailable(sink.deliver(&[record("a", 1), record("b", 1)]).await);
    assert_eq!(again, Again::Seldom);
    assert!(why.contains("must not publish to the subject `events`"), "{why}");
    peer.set(stored(1));
    sink.deliver(&[record("a", 1), record("b", 1)]).await.unwrap();
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn errors_of_jetstream_tell_when_to_ask_again_and_what_to_do() {
    let peer = Peer::new(stored(1)).await;
    let sink = peer.sink();
    for (code, err_code, wanted, hint) in [
        (503, 10077, Again::Seldom, "make room in the stream"),
        (400, 10060, Again::Seldom, "not that of SINK_NATS_STREAM"),
        (503, 10047, Again::Seldom, "the limits of the account"),
        (503, 10076, Again::Seldom, "enable JetStream"),
        (503, 10008, Again::Soon, "error 10008"),
    ] {
        let error = format!(r#"{{"code":{code},"err_code":{err_code},"description":"it says"}}"#);
        peer.set(Way::Answers(format!(r#"{{"error":{error},"stream":"S","seq":0}}"#)));
        let (again, why) = unavailable(sink.deliver(&[record("a", 1)]).await);
        assert_eq!(again, wanted, "{err_code}");
        assert!(why.contains(hint) && why.contains("it says"), "{why}");
    }
    assert_eq!(peer.connections(), 1);
}
