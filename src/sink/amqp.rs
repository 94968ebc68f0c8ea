//! Publishes to an exchange of RabbitMQ, or of any broker of AMQP 0-9-1 with publisher confirms.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as Quick, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use lapin::{Channel, Confirmation, options::BasicPublishOptions, types::ShortString};
use rustls::ClientConfig;
use tokio::{sync::Mutex, time::timeout};

use super::{About, Again, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    api::{
        reload::Reloaded,
        tls::{Tls, Variables},
    },
    env::{Env, Noted},
    error::{BoxError, Chain},
    record::{Format, Limits, Record},
};

mod address;
mod error;
mod link;
mod message;

use address::Broker;
use error::{Nacked, NoRoute, PublishError};
use link::{Link, LinkError, Turn, telling};
use message::{KeyTooLong, RoutingKey};

/// Records of one call: confirms are cheap where many are under way.
const MAX_RECORDS: usize = 1024;
const MAX_BYTES: usize = 4 << 20;
/// Calls under way at least: while the last confirms of one come, another is being published.
const LEAST_CALLS: usize = 4;
/// Messages handed to the connection at once; beyond this, more of them gain nothing.
const PUBLISH_AHEAD: usize = 256;
/// How long a connection that was cut may take to give everything up that waits in it.
const CUT_LIMIT: Duration = Duration::from_secs(5);
/// More channels than this are a mistake: RabbitMQ allows a connection 2,047.
const MAX_WORKERS: usize = 256;

const TLS: Variables = Variables {
    ca_cert: "SINK_AMQP_CACERT",
    ca_path: "SINK_AMQP_CAPATH",
    client_cert: "SINK_AMQP_CLIENT_CERT",
    client_key: "SINK_AMQP_CLIENT_KEY",
    server_name: "SINK_AMQP_TLS_SERVER_NAME",
};

/// An exchange.
///
/// Delivered means confirmed: the broker has routed the message to at least one queue, and every
/// durable one has written or replicated it.
pub(super) struct Amqp {
    brokers: Vec<Broker>,
    /// The certificates and keys of the moment, and the name in the broker's.
    tls: Option<(Reloaded<Arc<ClientConfig>>, Option<String>)>,
    exchange: ShortString,
    key: RoutingKey,
    unroutable: Unroutable,
    workers: usize,
    format: Format,
    link: Mutex<Option<Arc<Link>>>,
    /// How many connections there have been to publish through.
    connected: AtomicU64,
}

/// What becomes of a message that no queue is bound for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unroutable {
    Retry,
    Reject,
    Ignore,
}

/// What became of a message.
enum Settled {
    Confirmed,
    Refused,
    TooLong(KeyTooLong),
}

/// The messages of a call.
struct Call<'a> {
    records: &'a [Record],
    settled: Vec<OnceLock<Settled>>,
    /// The ids of messages that came back, and why. The library tells of each together with some
    /// confirm, and not always with its own.
    returned: Quick<HashMap<String, String>>,
    /// Messages that were handed over, and those that were settled.
    steps: AtomicUsize,
}

impl Connect for Amqp {
    const SUMMARY: Summary = Summary {
        delivered: "confirmed: at least one queue has the message, and each durable one has \
                    written or replicated it",
        duplicate: "`message_id`",
        set_by: &["SINK_AMQP_WORKERS"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let brokers = address::from_env(env);
        let tls = Tls::read(env, &TLS, Ok(true));
        let exchange = env.required::<String>("SINK_AMQP_EXCHANGE", "the name of an exchange");
        let exchange = exchange.and_then(|name| match name.len() {
            ..=message::SHORT => Ok(ShortString::from(name)),
            _ => Err(env.note("SINK_AMQP_EXCHANGE", "is longer than 255 bytes")),
        });
        let key = RoutingKey::from_env(env);
        let workers = env.within("SINK_AMQP_WORKERS", 1, MAX_WORKERS);
        let unroutable = Unroutable::from_env(env);
        let (brokers, tls, key) = (brokers?, tls?, key?);
        let tls = if brokers.iter().any(Broker::is_secure) {
            let name = tls.server_name().map(str::to_owned);
            let config =
                tls.config().map_err(|err| env.note(TLS.ca_cert, Chain(&*err).to_string()))?;
            Some((config, name))
        } else {
            None
        };
        let otherwise = if key.is_constant() { Unroutable::Retry } else { Unroutable::Reject };
        Ok(Self {
            brokers,
            tls,
            exchange: exchange?,
            key,
            unroutable: unroutable?.unwrap_or(otherwise),
            workers: workers?,
            format,
            link: Mutex::new(None),
            connected: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Sink for Amqp {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let turn = self.turn().await.map_err(|err| self.unavailable(err))?;
        let call = Call::new(records);
        let lost = self.publish_within(&turn, &call).await?;
        if lost.is_none() {
            turn.link().is_heard_of();
            turn.end();
        }
        self.outcome(call, lost)
    }

    fn limits(&self) -> Limits {
        // A broker can refuse a message and take the next one.
        let calls = self.workers.max(LEAST_CALLS);
        Limits { calls, records: MAX_RECORDS, bytes: MAX_BYTES, beside: 0, one_per_key: true }
    }

    fn connections(&self) -> Option<u64> {
        Some(self.connected.load(Ordering::Relaxed))
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let link = self.connect().await.map_err(|err| self.unavailable(err))?;
        let found = link.find(self.exchange.as_str()).await;
        found.map_err(|err| self.unavailable(err))?;
        link.close().await;
        Ok(())
    }

    fn about(&self) -> About {
        let brokers: Vec<&str> = self.brokers.iter().map(|it| it.shown.as_str()).collect();
        let at = format!("{}, exchange {}", brokers.join(","), self.exchange.as_str());
        let untested = "not tested: whether the user may write to the exchange, and whether a \
                        queue is bound for the routing key";
        About { at, untested }
    }

    async fn close(&self) {
        if let Some(link) = self.link.lock().await.take() {
            link.close().await;
        }
    }
}

impl Amqp {
    /// A channel of the connection that there is, or of a new one.
    async fn turn(&self) -> Result<Turn, LinkError> {
        let mut place = self.link.lock().await;
        let link = match place.take().filter(|it| it.is_usable()) {
            Some(link) => link,
            None => {
                let link = Arc::new(self.connect().await?);
                self.connected.fetch_add(1, Ordering::Relaxed);
                link
            }
        };
        let turn = link.turn();
        *place = Some(link);
        // There are as many channels as calls.
        turn.ok_or(LinkError::Busy)
    }

    /// Connects to the first broker that lets us in.
    async fn connect(&self) -> Result<Link, LinkError> {
        let mut first = None;
        for broker in &self.brokers {
            let tls = self.tls.as_ref().filter(|_| broker.is_secure());
            let tls = tls.map(|(config, name)| (config.current(), name.clone()));
            match Link::connect(broker, tls, self.limits().calls).await {
                Ok(link) => return Ok(link),
                Err(err) => {
                    first.get_or_insert(err);
                }
            }
        }
        // There is at least one broker.
        Err(first.unwrap_or(LinkError::Busy))
    }

    /// Publishes the messages of a call; what became of the connection, where it is lost.
    async fn publish_within(
        &self,
        turn: &Turn,
        call: &Call<'_>,
    ) -> Result<Option<LinkError>, DeliverError> {
        let publishing = self.publish(turn.channel(), call);
        tokio::pin!(publishing);
        tokio::select! {
            ended = &mut publishing => Ok(ended.err().map(|err| turn.link().closed(err))),
            silent = turn.link().silent(|| call.steps.load(Ordering::Relaxed)) => {
                // What is confirmed and what came back is known once all of the call has ended.
                turn.link().cut();
                match timeout(CUT_LIMIT, &mut publishing).await {
                    Ok(_) => Ok(Some(silent)),
                    Err(_) => Err(self.unavailable(silent)),
                }
            }
        }
    }

    /// Publishes the messages of a call in order, and waits until all are confirmed.
    async fn publish(&self, channel: &Channel, call: &Call<'_>) -> lapin::Result<()> {
        let mandatory = self.unroutable != Unroutable::Ignore;
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let sends = stream::iter(0..call.records.len()).map(|at| async move {
            let record = &call.records[at];
            let key = match self.key.of(record) {
                Ok(key) => key,
                Err(err) => {
                    call.settle(at, Settled::TooLong(err));
                    return Ok::<_, lapin::Error>(None);
                }
            };
            let body = record.encoded(self.format);
            let properties = message::properties(record, self.format);
            let exchange = self.exchange.clone();
            let sent = channel.basic_publish(exchange, key, options, &body, properties).await?;
            call.steps.fetch_add(1, Ordering::Relaxed);
            Ok(Some((at, sent)))
        });
        let mut sends = sends.buffered(PUBLISH_AHEAD);
        let mut confirms = Vec::with_capacity(call.records.len());
        let mut failed: Option<lapin::Error> = None;
        while let Some(sent) = sends.next().await {
            match sent {
                Ok(sent) => confirms.extend(sent),
                // The others are handed over all the same, and fail as well: any confirm can tell
                // of a message that came back.
                Err(err) => failed = Some(failed.map_or(err.clone(), |it| telling(it, err))),
            }
        }
        for (at, confirm) in confirms {
            match confirm.await {
                Ok(confirmation) => call.confirmed(at, confirmation),
                Err(err) => failed = Some(failed.map_or(err.clone(), |it| telling(it, err))),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// What became of a call, after which the connection is lost or not.
    fn outcome(&self, call: Call<'_>, lost: Option<LinkError>) -> Result<(), DeliverError> {
        let returned = call.returned.into_inner().unwrap_or_else(PoisonError::into_inner);
        let too_large = lost.as_ref().and_then(LinkError::too_large);
        let mut failures = Vec::new();
        let mut unroutable = 0;
        let settled = call.settled.into_iter().map(OnceLock::into_inner);
        for (position, (record, settled)) in call.records.iter().zip(settled).enumerate() {
            let (kind, source): (_, BoxError) = match settled {
                Some(Settled::Confirmed) => match self.no_route(record, &returned) {
                    None => continue,
                    Some(why) if self.unroutable == Unroutable::Reject => {
                        (FailureKind::Rejected, why.into())
                    }
                    Some(why) => {
                        unroutable += 1;
                        (FailureKind::Transient, why.into())
                    }
                },
                Some(Settled::Refused) => (FailureKind::Transient, Nacked.into()),
                Some(Settled::TooLong(err)) => (FailureKind::Rejected, err.into()),
                None => {
                    let kind = match too_large {
                        Some(Some(size)) if record.encoded(self.format).len() == size => {
                            FailureKind::Rejected
                        }
                        Some(None) => FailureKind::Suspect,
                        Some(Some(_)) | None => FailureKind::Transient,
                    };
                    let source: BoxError = match &lost {
                        Some(err) => self.failed(err.clone()).into(),
                        None => Nacked.into(),
                    };
                    (kind, source)
                }
            };
            failures.push(Failure { position, kind, source });
        }
        let all = failures.len() == call.records.len();
        let transient = all && failures.iter().all(|it| it.kind == FailureKind::Transient);
        match (lost, failures.pop()) {
            (_, None) => Ok(()),
            (Some(err), Some(_)) if transient => Err(self.unavailable(err)),
            // With a constant key, all others would come back as well.
            (_, Some(last)) if unroutable == call.records.len() && self.key.is_constant() => {
                Err(DeliverError::Unavailable { source: last.source, again: Again::Seldom })
            }
            (_, Some(last)) => {
                failures.push(last);
                Err(DeliverError::Failed(failures))
            }
        }
    }

    fn no_route(&self, record: &Record, returned: &HashMap<String, String>) -> Option<NoRoute> {
        if returned.is_empty() {
            return None;
        }
        let why = returned.get(&message::message_id(record))?;
        let key = self.key.of(record).map_or_else(|_| String::new(), |key| key.to_string());
        Some(NoRoute { exchange: self.exchange.to_string(), key, why: why.clone() })
    }

    fn failed(&self, source: LinkError) -> PublishError {
        PublishError { exchange: self.exchange.to_string(), source }
    }

    fn unavailable(&self, err: LinkError) -> DeliverError {
        let again = err.again();
        DeliverError::Unavailable { source: self.failed(err).into(), again }
    }
}

impl<'a> Call<'a> {
    fn new(records: &'a [Record]) -> Self {
        let settled = records.iter().map(|_| OnceLock::new()).collect();
        Self { records, settled, returned: Quick::default(), steps: AtomicUsize::new(0) }
    }

    fn settle(&self, at: usize, settled: Settled) {
        // Each message is settled once.
        let _ = self.settled[at].set(settled);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn confirmed(&self, at: usize, confirmation: Confirmation) {
        let settled = match confirmation {
            Confirmation::Ack(_) => Settled::Confirmed,
            Confirmation::Nack(_) => Settled::Refused,
            // Every channel asks for confirms.
            Confirmation::NotRequested => return,
        };
        if let Some(message) = confirmation.take_message() {
            let why = message.reply_text.to_string();
            if let Some(id) = message.delivery.properties.message_id() {
                let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
                returned.insert(id.to_string(), why);
            }
        }
        self.settle(at, settled);
    }
}
