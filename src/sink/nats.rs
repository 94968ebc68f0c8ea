//! Publishes to subjects of NATS: to streams of JetStream, or to whoever listens.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_nats::Request;
use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use rustls::ClientConfig;
use tokio::{sync::Mutex, time::timeout};

use super::{About, Connect, DeliverError, Sink, Summary};
use crate::{
    api::{
        reload::Reloaded,
        tls::{Tls, Variables},
    },
    env::{Env, Noted},
    error::Chain,
    record::{Format, Limits, Record},
};

mod address;
mod answer;
mod find;
mod link;
mod login;
mod message;
mod outcome;
mod subject;

use address::Server;
use answer::{Meaning, PublishError};
use link::{ANSWER_LIMIT, Link, LinkError};
use login::Login;
use outcome::{Settled, outcome};
use subject::Subject;

/// Messages of one call, which are all under way at once.
const MAX_RECORDS: usize = 512;
/// Without JetStream: the library keeps no more than 128 errors that were not looked at, and each
/// message can lead to one.
const MAX_CORE_RECORDS: usize = 100;
const MAX_BYTES: usize = 4 << 20;
/// Calls under way at once: while the last answers to one come, another is being published.
const CALLS: usize = 4;
/// What the headers of a message have, as a rule.
const HEADER_BYTES: usize = 1 << 10;

const TLS: Variables = Variables {
    ca_cert: "SINK_NATS_CACERT",
    ca_path: "SINK_NATS_CAPATH",
    client_cert: "SINK_NATS_CLIENT_CERT",
    client_key: "SINK_NATS_CLIENT_KEY",
    server_name: "SINK_NATS_TLS_SERVER_NAME",
};

/// Subjects of NATS.
///
/// Delivered means that a stream of JetStream has acknowledged the message: it has stored it, or
/// had it already. In the core mode it means that the server has read it, and no more.
pub(super) struct Nats {
    servers: Vec<Server>,
    login: Login,
    /// `None` where the system has no authorities, and no address asks for TLS.
    tls: Option<Reloaded<Arc<ClientConfig>>>,
    subject: Subject,
    mode: Mode,
    format: Format,
    link: Mutex<Option<Arc<Link>>>,
    /// How many connections there have been to publish through.
    connected: AtomicU64,
}

/// Who has to have a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    /// A stream, which may have to be this one.
    JetStream(Option<String>),
    /// The server.
    Core,
}

/// A call that is under way. Dropping it before [`Turn::end`] cuts the connection, so that nothing
/// is sent any more that waits in it.
struct Turn(Option<Arc<Link>>);

impl Connect for Nats {
    const SUMMARY: Summary = Summary {
        delivered: "acknowledged: a stream of JetStream has stored it; with `SINK_NATS_MODE=core` \
                    only that the server has read it, whoever listens",
        duplicate: "the header `Nats-Msg-Id`, by which a stream drops those of its last minutes",
        set_by: &[],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let servers = address::from_env(env);
        let login = Login::from_env(env, servers.as_deref().unwrap_or_default());
        let tls = Tls::read(env, &TLS, Ok(true));
        let subject = Subject::from_env(env);
        let mode = Mode::from_env(env);
        let (servers, tls) = (servers?, tls?);
        let tls = match tls.config_for_its_name() {
            Ok(config) => Ok(Some(config)),
            // A server that asks for TLS all the same is then trusted by nobody.
            Err(_) if !servers.iter().any(Server::is_secure) => Ok(None),
            Err(err) => Err(env.note(TLS.ca_cert, Chain(&*err).to_string())),
        };
        Ok(Self {
            servers,
            login: login?,
            tls: tls?,
            subject: subject?,
            mode: mode?,
            format,
            link: Mutex::new(None),
            connected: AtomicU64::new(0),
        })
    }
}

impl Mode {
    fn from_env(env: &Env) -> Result<Self, Noted> {
        let (mode, name) = ("SINK_NATS_MODE", "SINK_NATS_STREAM");
        let stream = env.optional::<String>(name);
        let unfit = |it: char| it.is_whitespace() || it.is_control() || ".*>/\\".contains(it);
        let stream = stream.and_then(|it| match it {
            Some(stream) if stream.contains(unfit) => {
                Err(env.note(name, format!("`{stream}` is not the name of a stream")))
            }
            stream => Ok(stream),
        });
        match env.or(mode, "jetstream".to_owned())?.as_str() {
            "jetstream" => Ok(Self::JetStream(stream?)),
            "core" if stream?.is_some() => {
                Err(env.note(name, format!("is set, and {mode} is `core`, which knows no streams")))
            }
            "core" => Ok(Self::Core),
            other => Err(env.note(mode, format!("`{other}` is not one of: jetstream, core"))),
        }
    }
}

#[async_trait]
impl Sink for Nats {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let link = self.link().await.map_err(unavailable)?;
        let turn = Turn(Some(link.clone()));
        let mut settled = Vec::new();
        settled.resize_with(records.len(), || None);
        let done = match self.mode {
            Mode::JetStream(_) => self.store(&link, records, &mut settled).await,
            Mode::Core => self.send(&link, records, &mut settled).await,
        };
        if done.is_ok() {
            turn.end();
        }
        outcome(settled, done.err(), self.subject.is_constant())
    }

    fn limits(&self) -> Limits {
        let (calls, records) = match self.mode {
            Mode::JetStream(_) => (CALLS, MAX_RECORDS),
            Mode::Core => (1, MAX_CORE_RECORDS),
        };
        let beside = HEADER_BYTES + self.format.beside();
        // A stream can refuse a message and take the next one.
        Limits { calls, records, bytes: MAX_BYTES, beside, one_per_key: true }
    }

    fn connections(&self) -> Option<u64> {
        Some(self.connected.load(Ordering::Relaxed))
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let link = self.connect().await.map_err(unavailable)?;
        let finding = async {
            match &self.mode {
                Mode::JetStream(stream) => {
                    find::stream(&link, stream.as_deref(), &self.subject).await
                }
                Mode::Core => link.round_trip().await.map_err(unavailable),
            }
        };
        let found = timeout(ANSWER_LIMIT, finding).await;
        found.unwrap_or_else(|_| Err(unavailable(link.silent())))
    }

    fn about(&self) -> About {
        let servers: Vec<&str> = self.servers.iter().map(|it| it.shown.as_str()).collect();
        let at = format!("{}, subject {}", servers.join(","), self.subject.text());
        let untested = match self.mode {
            Mode::JetStream(_) if self.subject.is_constant() => {
                "not tested: whether the user may publish to the subject"
            }
            Mode::JetStream(_) => {
                "not tested: whether the user may publish to the subjects, and whether a stream \
                 has them"
            }
            Mode::Core => {
                "not tested: whether the user may publish to the subject, and whether anybody \
                 listens"
            }
        };
        About { at, untested }
    }

    /// Nothing waits to be sent when no call is under way.
    async fn close(&self) {
        self.link.lock().await.take();
    }
}

impl Nats {
    /// The connection that there is, or a new one.
    async fn link(&self) -> Result<Arc<Link>, LinkError> {
        let mut place = self.link.lock().await;
        if let Some(link) = place.take_if(|it| it.is_usable()) {
            return Ok(place.insert(link).clone());
        }
        *place = None;
        let link = self.connect().await?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        Ok(place.insert(Arc::new(link)).clone())
    }

    /// Connects to the first server that lets us in.
    async fn connect(&self) -> Result<Link, LinkError> {
        let mut first = None;
        for server in &self.servers {
            let tls = self.tls.as_ref().map(Reloaded::current);
            match Link::connect(server, &self.login, tls).await {
                Ok(link) => return Ok(link),
                Err(err) => {
                    first.get_or_insert(err);
                }
            }
        }
        // There is at least one server.
        Err(first.unwrap_or(LinkError::Nowhere))
    }

    /// Publishes the messages of a call, and waits for the acknowledgement of each.
    async fn store(
        &self,
        link: &Link,
        records: &[Record],
        settled: &mut [Option<Settled>],
    ) -> Result<(), LinkError> {
        let publish = |(at, record)| async move { (at, self.publish(link, record).await) };
        let mut waiting: FuturesUnordered<_> = records.iter().enumerate().map(publish).collect();
        let mut lost = Ok(());
        loop {
            match timeout(ANSWER_LIMIT, waiting.next()).await {
                Ok(Some((at, Ok(done)))) => settled[at] = Some(done),
                // What was acknowledged before is known once all have ended.
                Ok(Some((_, Err(err)))) => lost = Err(err),
                Ok(None) => return lost,
                Err(_) => return Err(link.silent()),
            }
        }
    }

    async fn publish(&self, link: &Link, record: &Record) -> Result<Settled, LinkError> {
        let subject = match self.subject.of(record) {
            Ok(subject) => subject,
            Err(err) => return Ok(Err((Meaning::Rejected, err.into()))),
        };
        let headers = message::headers(record, self.format, self.mode.stream());
        let message = Request::new().headers(headers).payload(record.encoded(self.format));
        tokio::select! {
            // What came before the connection broke counts.
            biased;
            answer = link.client().send_request(subject.clone(), message.timeout(None)) => {
                Ok(answer::stored(&subject, answer))
            }
            denied = link.denied(&subject) => {
                denied?;
                link.retire();
                Ok(Err((Meaning::Subject, PublishError::Denied(subject))))
            }
        }
    }

    /// Publishes the messages of a call, and waits until the server has read them.
    async fn send(
        &self,
        link: &Link,
        records: &[Record],
        settled: &mut [Option<Settled>],
    ) -> Result<(), LinkError> {
        let sending = async {
            let mut sent = Vec::with_capacity(records.len());
            for (at, record) in records.iter().enumerate() {
                match self.hand_over(link, record).await {
                    Ok(subject) => sent.push((at, subject)),
                    Err(err) => settled[at] = Some(Err(err)),
                }
            }
            link.round_trip().await?;
            for (at, subject) in sent {
                settled[at] = Some(if link.is_denied(&subject) {
                    link.retire();
                    Err((Meaning::Subject, PublishError::Denied(subject)))
                } else {
                    Ok(())
                });
            }
            Ok(())
        };
        timeout(ANSWER_LIMIT, sending).await.unwrap_or_else(|_| Err(link.silent()))
    }

    async fn hand_over(
        &self,
        link: &Link,
        record: &Record,
    ) -> Result<String, (Meaning, PublishError)> {
        let subject =
            self.subject.of(record).map_err(|err| (Meaning::Rejected, PublishError::from(err)))?;
        let headers = message::headers(record, self.format, None);
        let body = record.encoded(self.format);
        let sent = link.client().publish_with_headers(subject.clone(), headers, body).await;
        sent.map(|()| subject.clone()).map_err(|err| answer::unsendable(subject, err))
    }
}

impl Mode {
    fn stream(&self) -> Option<&str> {
        match self {
            Self::JetStream(stream) => stream.as_deref(),
            Self::Core => None,
        }
    }
}

impl Turn {
    /// Nothing of it waits any more.
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.cut();
        }
    }
}

fn unavailable(err: LinkError) -> DeliverError {
    let again = err.again();
    DeliverError::Unavailable { source: err.into(), again }
}
