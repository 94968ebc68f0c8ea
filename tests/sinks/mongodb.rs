//! A receiver that speaks the wire protocol of MongoDB as far as this program does, with users,
//! replica sets and TLS, and fails on request as members of a replica set do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use ::mongodb::bson::{Bson, Document};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::contract::Receiver;
use crate::firehose::{Program, wait};

pub mod login;
pub mod member;
mod wire;

use login::{Login, PASSWORD, USER};
use member::{COLLECTION, DATABASE, Member};

/// Waits of the library that would only make tests long.
const SHORT: &str = "connectTimeoutMS=1500&serverSelectionTimeoutMS=1500";

/// One member, which has one collection.
pub struct MongoDb {
    port: u16,
    member: Arc<Mutex<Member>>,
    tls: Option<TlsAcceptor>,
    task: Option<JoinHandle<()>>,
}

impl MongoDb {
    /// One that speaks TLS.
    pub async fn secure(config: ServerConfig) -> Self {
        let mut member = Self::down();
        member.tls = Some(TlsAcceptor::from(Arc::new(config)));
        member.listen().await;
        member
    }

    fn down() -> Self {
        Self { port: 0, member: Arc::default(), tls: None, task: None }
    }

    async fn listen(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = TcpListener::bind(address).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (member, tls) = (self.member.clone(), self.tls.clone());
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (io, _) = listener.accept().await.unwrap();
                let (member, tls) = (member.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(io, member).await,
                        Some(tls) => {
                            // A handshake fails where the test wants it to.
                            if let Ok(io) = tls.accept(io).await {
                                serve(io, member).await;
                            }
                        }
                    }
                });
            }
        }));
    }

    pub fn member(&self) -> MutexGuard<'_, Member> {
        self.member.lock().unwrap()
    }

    /// Waits until the collection has so many documents; all that it has.
    pub async fn took(&self, count: usize) -> Vec<Document> {
        wait(&format!("{count} documents come"), async || {
            let stored: Vec<_> = self.member().stored.values().cloned().collect();
            Some(stored).filter(|it| it.len() >= count)
        })
        .await
    }

    /// The address of its port, or of another that leads to it.
    pub fn connection(port: u16) -> String {
        format!("mongodb://{USER}:{PASSWORD}@127.0.0.1:{port}/?directConnection=true&{SHORT}")
    }

    /// A sink that leads to this address.
    pub fn sink(program: Program, connection: &str) -> Program {
        program
            .set("SINK_TYPE", "mongodb")
            .set("SINK_MONGODB_CONNECTION", connection)
            .set("SINK_MONGODB_DATABASE", DATABASE)
            .set("SINK_MONGODB_COLLECTION", COLLECTION)
    }

    /// The address of a replica set of these members.
    pub fn connection_to(members: &[&Self]) -> String {
        let hosts: Vec<_> = members.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        for member in members {
            member.member().hosts.clone_from(&hosts);
        }
        let hosts = hosts.join(",");
        format!("mongodb://{USER}:{PASSWORD}@{hosts}/?replicaSet=rs0&{SHORT}")
    }
}

async fn serve(mut io: impl AsyncRead + AsyncWrite + Unpin, member: Arc<Mutex<Member>>) {
    let mut login = Login::default();
    while let Some(request) = wire::read(&mut io).await {
        let answer = member.lock().unwrap().answer(&request.command, &mut login);
        if !wire::write(&mut io, request.number, &answer).await {
            return;
        }
    }
}

/// A value as the JSON that it was made of, where that can be told.
pub fn json(value: &Bson) -> Value {
    match value {
        Bson::Document(it) => it.iter().map(|(name, it)| (name.clone(), json(it))).collect(),
        Bson::Array(it) => it.iter().map(json).collect(),
        Bson::String(it) => it.as_str().into(),
        Bson::Boolean(it) => (*it).into(),
        Bson::Int64(it) => (*it).into(),
        Bson::Double(it) => (*it).into(),
        Bson::Null => Value::Null,
        // Nothing that a test compares.
        other => other.to_string().into(),
    }
}

/// The id of a document, and the rest of it.
pub fn record(document: &Document) -> (String, Value) {
    let mut document = document.clone();
    let id = document.remove("_id").unwrap();
    (id.as_str().unwrap().to_owned(), json(&Bson::Document(document)))
}

impl Receiver for MongoDb {
    const UNREACHABLE: &'static str = "check SINK_MONGODB_CONNECTION, the network, TLS";
    const DENIED: &'static str = "check the user, the password and authSource";

    async fn start() -> Self {
        let mut member = Self::down();
        member.listen().await;
        member
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        Self::sink(program, &Self::connection(port)).set("SINK_MONGODB_WORKERS", "4")
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        let wrong = Self::connection(port).replace(PASSWORD, "wrong");
        Self::sink(program, &wrong).set("SINK_MONGODB_WORKERS", "4")
    }

    /// Also what came again, and was there already: the collection would not show it.
    async fn received(&mut self) -> Vec<(String, Value)> {
        self.member().attempts.clone()
    }

    async fn take_full(&mut self, takes: bool) {
        self.member().takes_full = takes;
    }

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

impl Drop for MongoDb {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
