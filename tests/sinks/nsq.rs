//! A receiver that speaks the protocol of nsqd as far as publishing goes, and fails on request. It
//! is written from the description of the protocol, since there is no nsqd for the tests.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet, yield_now},
};
use tokio_rustls::TlsAcceptor;

use super::contract::{LARGE, Receiver};
use crate::firehose::{Program, wait};

pub const SECRET: &str = "right-planted";

/// What it does besides.
#[derive(Default)]
pub struct Inner {
    pub received: Vec<Value>,
    /// How many messages each call had that was taken.
    pub calls: Vec<usize>,
    /// The errors that the next calls get.
    pub says: VecDeque<&'static str>,
    /// Who may publish; everybody where it is not said.
    pub secret: Option<&'static str>,
    /// It wants to hear that we are there before it answers a call.
    pub beats: bool,
    pub heard: usize,
    pub connections: usize,
    pub topics: Vec<String>,
    pub identified: Value,
    /// What it answers whatever it is asked.
    pub babbles: Option<&'static str>,
}

pub struct Nsqd {
    port: u16,
    inner: Arc<Mutex<Inner>>,
    tls: Option<TlsAcceptor>,
    task: Option<JoinHandle<()>>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of a client.
struct Client {
    io: Box<dyn Io>,
    inner: Arc<Mutex<Inner>>,
    is_known: bool,
}

impl Nsqd {
    pub async fn with(tls: Option<TlsAcceptor>) -> Self {
        let mut nsqd = Self { port: 0, inner: Arc::default(), tls, task: None };
        nsqd.listen().await;
        nsqd
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], self.port))).await;
        let listener = listener.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (inner, tls) = (self.inner.clone(), self.tls.clone());
        self.task = Some(tokio::spawn(async move {
            // They end with it.
            let mut clients = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                inner.lock().unwrap().connections += 1;
                clients.spawn(serve(tcp, tls.clone(), inner.clone()));
            }
        }));
    }

    /// Closes every connection, and listens again at once.
    pub async fn restart(&mut self) {
        self.crash().await;
        self.listen().await;
    }

    /// Waits until it has so many records; all that it has.
    pub async fn took(&mut self, count: usize) -> Vec<(String, Value)> {
        wait(&format!("{count} records come"), async || {
            Some(self.received().await).filter(|it| it.len() >= count)
        })
        .await
    }

    pub fn sink(&self, program: Program) -> Program {
        program
            .set("SINK_TYPE", "nsq")
            .set("SINK_NSQ_ADDR", format!("127.0.0.1:{}", self.port))
            .set("SINK_NSQ_TOPIC_NAME", "events")
            .set("SINK_NSQ_MAX_MESSAGE_BYTES", LARGE.to_string())
            .set("NOMAD_FIREHOSE_FORMAT", "cloudevents")
    }
}

async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, inner: Arc<Mutex<Inner>>) {
    // It fails where the client goes away or the test wants it to.
    let _ = talk(tcp, tls, inner).await;
}

async fn talk(
    mut tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    inner: Arc<Mutex<Inner>>,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let babbles = inner.lock().unwrap().babbles;
    if let Some(text) = babbles {
        return tcp.write_all(text.as_bytes()).await;
    }
    let mut magic = [0; 4];
    tcp.read_exact(&mut magic).await?;
    assert_eq!(&magic, b"  V2");
    let mut client = Client { io: Box::new(tcp), inner, is_known: false };
    assert_eq!(client.line().await?, "IDENTIFY");
    let identified: Value = serde_json::from_slice(&client.sized().await?).unwrap();
    let secret = client.inner.lock().unwrap().secret;
    let features = json!({
        "max_rdy_count": 2500, "version": "1.3.0", "tls_v1": tls.is_some(), "snappy": false,
        "auth_required": secret.is_some(), "msg_timeout": 60000,
    });
    client.inner.lock().unwrap().identified = identified.clone();
    client.say(0, &features.to_string()).await?;
    if let Some(tls) = tls.filter(|_| identified["tls_v1"] == true) {
        client.io = Box::new(tls.accept(client.io).await?);
        client.say(0, "OK").await?;
    }
    client.is_known = secret.is_none();
    loop {
        let line = client.line().await?;
        let error = match line.split(' ').collect::<Vec<_>>()[..] {
            ["NOP"] => {
                client.inner.lock().unwrap().heard += 1;
                continue;
            }
            ["AUTH"] => {
                let given = client.sized().await?;
                client.is_known = secret.is_some_and(|it| it.as_bytes() == given);
                let answer = json!({"identity": "test", "identity_url": "", "permission_count": 1});
                match client.is_known {
                    true => client.say(0, &answer.to_string()).await.map(|()| None)?,
                    false => Some("E_AUTH_FAILED AUTH failed"),
                }
            }
            ["MPUB", topic] => client.publish(topic).await?,
            _ => panic!("{line:?} is no command"),
        };
        if let Some(error) = error {
            // After an error the connection is closed.
            return client.say(1, error).await;
        }
    }
}

impl Client {
    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            match self.io.read_u8().await? {
                b'\n' => return Ok(String::from_utf8(line).unwrap()),
                byte => line.push(byte),
            }
        }
    }

    async fn sized(&mut self) -> io::Result<Vec<u8>> {
        let mut body = vec![0; self.io.read_u32().await? as usize];
        self.io.read_exact(&mut body).await?;
        Ok(body)
    }

    /// In pieces, as a network may carry it.
    async fn say(&mut self, kind: u32, text: &str) -> io::Result<()> {
        let size = u32::try_from(text.len()).unwrap() + 4;
        let frame = [&size.to_be_bytes()[..], &kind.to_be_bytes(), text.as_bytes()].concat();
        for piece in frame.chunks(5) {
            self.io.write_all(piece).await?;
            self.io.flush().await?;
            yield_now().await;
        }
        Ok(())
    }

    async fn publish(&mut self, topic: &str) -> io::Result<Option<&'static str>> {
        let body = self.sized().await?;
        assert!(body.len() <= 5 << 20, "{} bytes are too much for a call", body.len());
        let (count, mut rest) = body.split_first_chunk().unwrap();
        let mut events: Vec<Value> = Vec::new();
        while let Some((size, after)) = rest.split_first_chunk() {
            let (message, after) = after.split_at(u32::from_be_bytes(*size) as usize);
            events.push(serde_json::from_slice(message).unwrap());
            rest = after;
        }
        assert_eq!(events.len(), u32::from_be_bytes(*count) as usize);
        // One of a call does, since this takes longer than all the rest.
        events.iter().take(1).for_each(crate::cloudevents::assert_event);
        let (error, beats) = {
            let mut inner = self.inner.lock().unwrap();
            (inner.says.pop_front(), inner.beats)
        };
        if error.is_some() {
            return Ok(error);
        }
        if !self.is_known {
            return Ok(Some("E_AUTH_FIRST AUTH required before MPUB"));
        }
        if events.iter().any(|it| it["data"]["JobID"] == "bad") {
            return Ok(Some("E_BAD_MESSAGE MPUB invalid message(0) body size 0"));
        }
        if beats {
            self.say(0, "_heartbeat_").await?;
            assert_eq!(self.line().await?, "NOP");
            self.inner.lock().unwrap().heard += 1;
        }
        {
            let mut inner = self.inner.lock().unwrap();
            inner.topics.push(topic.to_owned());
            inner.calls.push(events.len());
            inner.received.extend(events);
        }
        self.say(0, "OK").await?;
        if beats {
            self.say(0, "_heartbeat_").await?;
        }
        Ok(None)
    }
}

impl Receiver for Nsqd {
    const UNREACHABLE: &'static str = "nsqd at 127.0.0.1";
    const DENIED: &'static str = "check SINK_NSQ_AUTH_SECRET";

    async fn start() -> Self {
        let nsqd = Self::with(None).await;
        nsqd.inner().secret = Some(SECRET);
        nsqd
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        self.sink(program)
            .set("SINK_NSQ_ADDR", format!("127.0.0.1:{port}"))
            .set("SINK_NSQ_AUTH_SECRET", SECRET)
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port).set("SINK_NSQ_AUTH_SECRET", "wrong")
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        let inner = self.inner();
        let id = |it: &Value| it["id"].as_str().unwrap().to_owned();
        inner.received.iter().map(|it| (id(it), it["data"].clone())).collect()
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    async fn come_back(&mut self) {
        self.listen().await;
    }
}

impl Drop for Nsqd {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
