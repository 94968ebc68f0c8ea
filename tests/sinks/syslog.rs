//! The sink `syslog` and receivers that behave badly: they close what they have not read. What a
//! real one makes of it all is tested in the suite `servers`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::source::{Source, each_once};
use crate::firehose::{CONFIGURATION, Program, wait};

/// What becomes of one connection after the other.
#[derive(Clone, Copy)]
enum Turn {
    /// It is closed at once, so that what comes is reset.
    Closed,
    /// Something is read, and the rest is not.
    Begun,
    /// All is read, and what was read counts.
    Read,
    /// The same, and the connection stays open.
    Kept,
}

/// A receiver of octet-counted messages.
struct Peer {
    port: u16,
    read: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Peer {
    async fn new(turn: impl Fn(usize) -> Turn + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (read, connections) =
            (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<usize>>::default());
        let (reading, counted) = (read.clone(), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let number = {
                    let mut count = counted.lock().unwrap();
                    *count += 1;
                    *count - 1
                };
                // It may be gone before it is read.
                let _ = take(&mut tcp, turn(number), &reading).await;
            }
        });
        Self { port, read, connections, task }
    }

    fn sink(&self, program: Program) -> Program {
        program
            .set("SINK_TYPE", "syslog")
            .set("SINK_SYSLOG_PROTO", "tcp")
            .set("SINK_SYSLOG_ADDR", format!("127.0.0.1:{}", self.port))
    }

    /// The payloads of whole messages.
    fn bodies(&self) -> Vec<(String, Value)> {
        let bytes = self.read.lock().unwrap().clone();
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while let Some(end) = rest.iter().position(|it| *it == b' ') {
            let size: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
            let Some(message) = rest.get(end + 1..end + 1 + size) else { break };
            let text = std::str::from_utf8(message).unwrap();
            let (head, body) = text.split_once("\"] ").unwrap();
            let id = head.split(" id=\"").nth(1).unwrap().split('"').next().unwrap();
            found.push((id.to_owned(), serde_json::from_str(body).unwrap()));
            rest = &rest[end + 1 + size..];
        }
        found
    }

    async fn took(&self, count: usize) -> Vec<(String, Value)> {
        wait(&format!("{count} records come"), async || {
            Some(self.bodies()).filter(|it| it.len() >= count)
        })
        .await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(tcp: &mut TcpStream, turn: Turn, read: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut all = Vec::new();
    match turn {
        Turn::Closed => Ok(()),
        Turn::Begun => tcp.read_exact(&mut [0; 10]).await.map(drop),
        Turn::Read => {
            tcp.read_to_end(&mut all).await?;
            read.lock().unwrap().extend(all);
            Ok(())
        }
        Turn::Kept => loop {
            let mut some = [0; 4096];
            match tcp.read(&mut some).await? {
                0 => return Ok(()),
                count => read.lock().unwrap().extend(&some[..count]),
            }
        },
    }
}

#[tokio::test]
async fn what_a_receiver_has_not_read_when_it_closes_is_sent_again() {
    let bad = [Turn::Closed, Turn::Begun, Turn::Closed, Turn::Begun];
    let peer = Peer::new(move |it| bad.get(it).copied().unwrap_or(Turn::Read)).await;
    let source = Source::new().await;
    source.evaluations("web", 0..40);
    let running = peer.sink(source.program("evaluations")).start();
    each_once(&peer.took(40).await, 0..40);
    running.logs("the syslog receiver at 127.0.0.1").await;
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_however_often_a_receiver_closes_first() {
    const COUNT: usize = 60;
    // Each second connection is closed before anything was read.
    let turn = |it: usize| if it.is_multiple_of(2) { Turn::Closed } else { Turn::Read };
    let peer = Peer::new(turn).await;
    let source = Source::new().await;
    let running = peer.sink(source.program("evaluations")).start();
    for number in 0..COUNT / 10 {
        source.evaluations("web", number * 10..number * 10 + 10);
        peer.took(number * 10 + 10).await;
    }
    each_once(&peer.bodies(), 0..COUNT);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_not_confirmed_is_kept() {
    let peer = Peer::new(|_| Turn::Kept).await;
    let source = Source::new().await;
    let program = peer.sink(source.program("evaluations")).set("SINK_SYSLOG_CONFIRM", "none");
    let running = program.start();
    for number in 0..3 {
        source.evaluations("web", number..number + 1);
        peer.took(number + 1).await;
    }
    assert_eq!(*peer.connections.lock().unwrap(), 1);
    running.stop().await;
    each_once(&peer.bodies(), 0..3);
}

#[tokio::test]
async fn calls_that_are_confirmed_do_not_use_up_the_ports_of_the_machine() {
    let peer = Peer::new(|_| Turn::Read).await;
    let source = Source::new().await;
    source.evaluations("web", 0..1);
    let running = peer.sink(source.program("evaluations")).start();
    peer.took(1).await;
    let since = std::time::Instant::now();
    for number in 1..100 {
        source.evaluations("web", number..number + 1);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    peer.took(100).await;
    let most = since.elapsed().as_millis() / 10 + 3;
    let made = *peer.connections.lock().unwrap();
    assert!(made as u128 <= most, "{made} connections, where {most} are the most");
    running.stop().await;
}

#[tokio::test]
async fn payloads_are_not_in_the_log() {
    let peer = Peer::new(|it| if it == 0 { Turn::Closed } else { Turn::Read }).await;
    let source = Source::new().await;
    source.evaluations("planted-payload", 0..2);
    let program = peer.sink(source.program("evaluations")).set("LOG_LEVEL", "trace");
    let running = program.start();
    each_once(&peer.took(2).await, 0..2);
    let log = running.stop().await.log;
    assert!(!log.contains("planted"), "{log}");
}

#[tokio::test]
async fn mistakes_are_told_before_anything_connects() {
    let program = Program::stream("nodes")
        .set("SINK_TYPE", "syslog")
        .set("SINK_SYSLOG_PROTO", "relp")
        .set("SINK_SYSLOG_TAG", "a tag")
        .set("SINK_SYSLOG_FACILITY", "local8")
        .set("SINK_SYSLOG_FRAMING", "lines")
        .set("SINK_SYSLOG_CLIENT_KEY", "/nowhere");
    let finished = program.run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    for name in ["PROTO", "TAG", "FACILITY", "FRAMING", "CLIENT_CERT"] {
        assert!(finished.log.contains(&format!("SINK_SYSLOG_{name}: ")), "{}", finished.log);
    }
}
