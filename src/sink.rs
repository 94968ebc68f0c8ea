//! Where records go. To add a sink: a file here, its `mod` line, its row in `SINKS`, and its
//! feature in `Cargo.toml`. It neither retries nor batches nor counts: `deliver` does.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record},
};

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "eventbridge")]
mod eventbridge;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kinesis")]
mod kinesis;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "nsq")]
mod nsq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqs")]
mod sqs;
mod stdout;
#[cfg(feature = "syslog")]
mod syslog;
#[cfg(any(feature = "amqp", feature = "nats"))]
mod template;

/// Publishes records.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Publishes `records`, which are within [`Sink::limits`], in order per key.
    ///
    /// `Ok` means that the receiver has them for good: the checkpoint moves past them.
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError>;

    /// The most that one call takes.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// How many connections it has made to publish through, where it keeps one.
    fn connections(&self) -> Option<u64> {
        None
    }

    /// Connects without publishing anything, to tell whether publishing could work.
    async fn check(&self) -> Result<(), DeliverError> {
        Ok(())
    }

    /// What it is, and what its check cannot tell.
    fn about(&self) -> About {
        About::default()
    }

    /// Flushes and disconnects.
    async fn close(&self) {}
}

/// What a sink is, for the table of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Where records go: an address or a name, without secrets.
    pub at: String,
    /// What only publishing would tell; empty where there is nothing.
    pub untested: &'static str,
}

/// A sink that can be set up from the environment.
pub trait Connect: Sink + Sized + 'static {
    /// What whoever chooses it has to know.
    const SUMMARY: Summary;

    /// Reads the configuration, without connecting.
    fn from_env(env: &Env, format: Format) -> Result<Self, Noted>;
}

/// Some records were not published.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// These were not; the others were. Never empty; each position is once in it, and below the
    /// number of records.
    #[error("{} of the records were not delivered", .0.len())]
    Failed(Vec<Failure>),
    /// None is known to have been, and it is the receiver, not a record: unreachable, throttled,
    /// no permission, no such queue.
    #[error("the receiver is not available")]
    Unavailable {
        /// Why.
        #[source]
        source: BoxError,
        /// When to ask it again.
        again: Again,
    },
    /// None was, and none will ever be: standard output is gone.
    #[error("the receiver is gone for good")]
    Fatal(#[source] BoxError),
}

/// When to ask a receiver again that is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Soon, and then less and less often: it may be back at any moment.
    Soon,
    /// Seldom: somebody has to mend something first.
    Seldom,
    /// After this time: the receiver said so.
    After(Duration),
}

impl DeliverError {
    /// The receiver is not available at the moment.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable { source: source.into(), again: Again::Soon }
    }

    /// The receiver will not be available before somebody mends something.
    pub fn unusable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable { source: source.into(), again: Again::Seldom }
    }
}

#[cfg(feature = "demo")]
impl From<crate::failpoint::Lost> for DeliverError {
    fn from(lost: crate::failpoint::Lost) -> Self {
        Self::unavailable(lost)
    }
}

/// A record that was not published.
#[derive(Debug)]
pub struct Failure {
    /// Its position among the records of the call.
    pub position: usize,
    /// Whether trying again can help.
    pub kind: FailureKind,
    /// Why.
    pub source: BoxError,
}

/// Whether trying again can help a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It can.
    Transient,
    /// It cannot: the record is too large, or malformed.
    Rejected,
    /// It was refused together with others, and the receiver does not say which of them is at
    /// fault: they are sent again in ever smaller calls until it is alone.
    Suspect,
}

/// What whoever chooses a sink has to know of it; the documentation has it from here.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// When a record counts as delivered.
    pub delivered: &'static str,
    /// How a duplicate is recognised.
    pub duplicate: &'static str,
    /// The variables that set what a call takes, and how many there are at once.
    pub set_by: &'static [&'static str],
}

/// Every sink compiled in, by its `SINK_TYPE`.
const SINKS: &[Entry] = &[
    Entry::of::<stdout::Stdout>("stdout"),
    #[cfg(feature = "amqp")]
    Entry::of::<amqp::Amqp>("amqp"),
    #[cfg(feature = "amqp")]
    Entry::of::<amqp::Amqp>("rabbitmq"),
    #[cfg(feature = "eventbridge")]
    Entry::of::<eventbridge::EventBridge>("eventbridge"),
    #[cfg(feature = "http")]
    Entry::of::<http::Http>("http"),
    #[cfg(feature = "kafka")]
    Entry::of::<kafka::Kafka>("kafka"),
    #[cfg(feature = "kinesis")]
    Entry::of::<kinesis::Kinesis>("kinesis"),
    #[cfg(feature = "mongodb")]
    Entry::of::<mongodb::MongoDb>("mongodb"),
    #[cfg(feature = "mongodb")]
    Entry::of::<mongodb::MongoDb>("mongo"),
    #[cfg(feature = "nats")]
    Entry::of::<nats::Nats>("nats"),
    #[cfg(feature = "nsq")]
    Entry::of::<nsq::Nsq>("nsq"),
    #[cfg(feature = "redis")]
    Entry::of::<redis::Redis>("redis"),
    #[cfg(feature = "sqs")]
    Entry::of::<sqs::Sqs>("sqs"),
    #[cfg(feature = "syslog")]
    Entry::of::<syslog::Syslog>("syslog"),
];

/// Sinks that a build may lack, and the feature that brings each.
const OPTIONAL: [(&str, &str); 13] = [
    ("amqp", "amqp"),
    ("eventbridge", "eventbridge"),
    ("http", "http"),
    ("kafka", "kafka"),
    ("kinesis", "kinesis"),
    ("mongo", "mongodb"),
    ("mongodb", "mongodb"),
    ("nats", "nats"),
    ("nsq", "nsq"),
    ("rabbitmq", "amqp"),
    ("redis", "redis"),
    ("sqs", "sqs"),
    ("syslog", "syslog"),
];

/// Sets a sink up from the environment.
type FromEnv = fn(&Env, Format) -> Result<Box<dyn Sink>, Noted>;

struct Entry {
    name: &'static str,
    summary: Summary,
    from_env: FromEnv,
}

impl Entry {
    const fn of<S: Connect>(name: &'static str) -> Self {
        let from_env: FromEnv = |env, format| Ok(Box::new(S::from_env(env, format)?));
        Self { name, summary: S::SUMMARY, from_env }
    }
}

/// Every sink of this build, by its `SINK_TYPE`.
pub fn documented() -> impl Iterator<Item = (&'static str, Summary)> {
    SINKS.iter().map(|it| (it.name, it.summary))
}

/// Every sink that a build can lack, by its `SINK_TYPE`, and the feature that brings it.
pub fn optional() -> impl Iterator<Item = (&'static str, &'static str)> {
    OPTIONAL.iter().copied()
}

/// The sink that `SINK_TYPE` names.
pub fn from_env(env: &Env) -> Result<Box<dyn Sink>, Noted> {
    let here = SINKS.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
    let format = format_from_env(env);
    let name: String = env.required("SINK_TYPE", &format!("one of: {here}"))?;
    if let Some(entry) = SINKS.iter().find(|it| it.name == name) {
        // What else is wrong is found whatever the format is.
        let sink = (entry.from_env)(env, format.unwrap_or_default());
        return format.and(sink);
    }
    let what = match OPTIONAL.iter().find(|(known, _)| *known == name) {
        Some((_, feature)) => format!(
            "`{name}` is not in this build, which has: {here}; build it with the feature `{feature}`"
        ),
        None => format!("`{name}` is not one of: {here}"),
    };
    Err(env.note("SINK_TYPE", what))
}

/// Standard output, whatever `SINK_TYPE` names. Where it names a sink, the settings of that are
/// looked at, and nothing is done with it.
pub fn stdout_in_place(env: &Env) -> Result<Box<dyn Sink>, Noted> {
    let named = env.optional::<String>("SINK_TYPE");
    let named = named.and_then(|name| name.map(|_| from_env(env)).transpose());
    let sink = stdout::Stdout::from_env(env, format_from_env(env)?)?;
    named?;
    Ok(Box::new(sink))
}

fn format_from_env(env: &Env) -> Result<Format, Noted> {
    let name = "NOMAD_FIREHOSE_FORMAT";
    match env.or(name, "payload".to_owned())?.as_str() {
        "payload" => Ok(Format::Payload),
        "cloudevents" => Ok(Format::CloudEvents),
        other => Err(env.note(name, format!("`{other}` is not one of: payload, cloudevents"))),
    }
}
