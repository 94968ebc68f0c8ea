//! Publishes to a topic of nsqd, the daemon of NSQ.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{About, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    api::{
        credentials::Token,
        socket::Place,
        tls::{Tls, Variables},
    },
    env::{Env, Noted, redacted},
    error::{BoxError, Chain},
    record::{Format, Limits, Record},
};

mod error;
mod frame;
mod link;

use error::{LinkError, Meaning};
use link::{Link, Nsqd};

/// A message, unless it is set otherwise: what nsqd takes unless that is.
const MESSAGE_BYTES: usize = 1 << 20;
/// The most that it can be set to.
const MOST_BYTES: usize = 64 << 20;
/// Records and bytes of a call, of which nsqd takes 5 MiB unless it is set otherwise.
const MAX_RECORDS: usize = 500;
const MAX_BYTES: usize = 4 << 20;
/// What the name of a topic has at most, without what it may end in.
const MAX_TOPIC: usize = 64;
const EPHEMERAL: &str = "#ephemeral";

const TLS: Variables = Variables {
    ca_cert: "SINK_NSQ_CACERT",
    ca_path: "SINK_NSQ_CAPATH",
    client_cert: "SINK_NSQ_CLIENT_CERT",
    client_key: "SINK_NSQ_CLIENT_KEY",
    server_name: "SINK_NSQ_TLS_SERVER_NAME",
};

/// A topic.
///
/// Delivered means that nsqd has answered `OK`: the message is in its queue, in memory or on its
/// disk.
pub(super) struct Nsq {
    nsqd: Nsqd,
    topic: String,
    message_bytes: usize,
    format: Format,
    /// A connection on which nothing is under way.
    link: Mutex<Option<Link>>,
    /// How many connections there have been to publish through.
    connected: AtomicU64,
}

/// A record that is larger than nsqd takes.
#[derive(Debug, thiserror::Error)]
#[error(
    "the message has {size} bytes, and SINK_NSQ_MAX_MESSAGE_BYTES allows {most}; raise it together \
     with --max-msg-size and --max-body-size of nsqd"
)]
struct TooLarge {
    size: usize,
    most: usize,
}

impl Connect for Nsq {
    const SUMMARY: Summary = Summary {
        delivered: "answered with `OK`: nsqd has it in its queue, in memory or on its disk",
        duplicate: "the CloudEvents `id`",
        set_by: &[],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let place = place(env);
        let topic = topic(env);
        let tls = Tls::read(env, &TLS, Ok(true));
        let with_tls = env.switch("SINK_NSQ_TLS", false);
        let secret = Token::read(env, "SINK_NSQ_AUTH_SECRET", "SINK_NSQ_AUTH_SECRET_FILE");
        let message_bytes = env.within("SINK_NSQ_MAX_MESSAGE_BYTES", MESSAGE_BYTES, MOST_BYTES);
        let (place, tls) = (place?, tls?);
        let tls = if with_tls? {
            let name = tls.server_name().unwrap_or(place.host()).to_owned();
            let wrong = |err: BoxError| env.note(TLS.ca_cert, Chain(&*err).to_string());
            Some((tls.config().map_err(wrong)?, name))
        } else {
            None
        };
        let nsqd = Nsqd { place, tls, secret: secret? };
        let (link, connected) = (Mutex::new(None), AtomicU64::new(0));
        let (topic, message_bytes) = (topic?, message_bytes?);
        Ok(Self { nsqd, topic, message_bytes, format, link, connected })
    }
}

fn place(env: &Env) -> Result<Place, Noted> {
    let name = "SINK_NSQ_ADDR";
    let text: String = env.required(name, "the address of nsqd, such as 127.0.0.1:4150")?;
    Place::parse(&text).map_err(|what| env.note(name, format!("`{}` {what}", redacted(&text))))
}

fn topic(env: &Env) -> Result<String, Noted> {
    let name = "SINK_NSQ_TOPIC_NAME";
    let topic: String = env.required(name, "the name of a topic")?;
    let own = topic.strip_suffix(EPHEMERAL).unwrap_or(&topic);
    let known = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
    if (1..=MAX_TOPIC).contains(&topic.len()) && !own.is_empty() && own.bytes().all(known) {
        return Ok(topic);
    }
    let what = format!(
        "`{topic}` is not the name of a topic, which has at most {MAX_TOPIC} letters, digits, `.`, \
         `_` or `-`"
    );
    Err(env.note(name, what))
}

#[async_trait]
impl Sink for Nsq {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (positions, messages, mut failures) = self.messages(records);
        if !messages.is_empty() {
            failures.extend(self.publish(&positions, &messages).await?);
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        Limits {
            calls: 1,
            records: MAX_RECORDS,
            bytes: MAX_BYTES,
            beside: frame::BESIDE + self.format.beside(),
            // All of a call are published, or none.
            one_per_key: false,
        }
    }

    fn connections(&self) -> Option<u64> {
        Some(self.connected.load(Ordering::Relaxed))
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let link = self.nsqd.connect().await.map_err(unavailable)?;
        link.close().await;
        Ok(())
    }

    fn about(&self) -> About {
        let at = format!("{}, topic {}", self.nsqd.place, self.topic);
        About { at, untested: "not tested: whether we may publish to the topic" }
    }

    async fn close(&self) {
        if let Some(link) = self.link.lock().await.take() {
            link.close().await;
        }
    }
}

impl Nsq {
    /// What to publish, the positions of its records, and those that are too large.
    fn messages(&self, records: &[Record]) -> (Vec<usize>, Vec<Bytes>, Vec<Failure>) {
        let (mut positions, mut messages, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            let message = record.encoded(self.format);
            if message.len() > self.message_bytes {
                let source = TooLarge { size: message.len(), most: self.message_bytes }.into();
                failures.push(Failure { position, kind: FailureKind::Rejected, source });
            } else {
                positions.push(position);
                messages.push(message);
            }
        }
        (positions, messages, failures)
    }

    /// Publishes the records at these positions; which of them are refused.
    async fn publish(
        &self,
        positions: &[usize],
        messages: &[Bytes],
    ) -> Result<Vec<Failure>, DeliverError> {
        let mut kept = self.link.lock().await;
        let usable = match kept.take() {
            Some(link) => link.if_usable().await,
            None => None,
        };
        let mut link = match usable {
            Some(link) => link,
            None => {
                let link = self.nsqd.connect().await.map_err(unavailable)?;
                self.connected.fetch_add(1, Ordering::Relaxed);
                link
            }
        };
        let err = match link.publish(&self.topic, messages).await {
            Ok(()) => {
                *kept = Some(link);
                return Ok(Vec::new());
            }
            Err(err) => err,
        };
        // After an error nsqd closes the connection.
        let kind = match err.meaning() {
            Meaning::Unavailable(_) => return Err(unavailable(err)),
            Meaning::Refused if positions.len() == 1 => FailureKind::Rejected,
            Meaning::Refused => FailureKind::Suspect,
        };
        let source = Arc::new(err);
        let failure =
            |position: &usize| Failure { position: *position, kind, source: source.clone().into() };
        Ok(positions.iter().map(failure).collect())
    }
}

fn unavailable(err: LinkError) -> DeliverError {
    match err.meaning() {
        Meaning::Unavailable(again) => DeliverError::Unavailable { source: err.into(), again },
        // Nothing was sent that could be refused.
        Meaning::Refused => DeliverError::unusable(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn nsq(set: &[(&str, &str)]) -> Result<Nsq, Vec<String>> {
        let needed = [("SINK_NSQ_ADDR", "nsqd:4150"), ("SINK_NSQ_TOPIC_NAME", "nomad")];
        let env: Env = needed.iter().chain(set).map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let nsq = Nsq::from_env(&env, Format::Payload);
        env.check(nsq).map_err(|it| it.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_record_that_is_too_large_is_not_sent() {
        let nsq = nsq(&[("SINK_NSQ_MAX_MESSAGE_BYTES", "10")]).unwrap();
        let records = [record("k", 1), record("k", 11), record("k", 10)];
        let (positions, messages, failures) = nsq.messages(&records);
        assert_eq!((positions, messages.len()), (vec![0, 2], 2));
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    #[test]
    fn a_topic_has_a_name_that_nsqd_takes() {
        for name in ["nomad", "nomad_events.v1-a", "nomad#ephemeral", &"t".repeat(64)] {
            assert!(nsq(&[("SINK_NSQ_TOPIC_NAME", name)]).is_ok(), "{name}");
        }
        for name in
            ["no mad", "#ephemeral", "nomad#other", "a#ephemeral#ephemeral", &"t".repeat(65)]
        {
            let problems = nsq(&[("SINK_NSQ_TOPIC_NAME", name)]).err().unwrap();
            assert!(problems[0].contains("not the name of a topic"), "{problems:?}");
        }
    }

    #[test]
    fn every_mistake_is_said_at_once() {
        let problems = nsq(&[
            ("SINK_NSQ_ADDR", "tcp://me:planted@nsqd"),
            ("SINK_NSQ_TOPIC_NAME", "a b"),
            ("SINK_NSQ_TLS", "perhaps"),
            ("SINK_NSQ_CACERT", "/nowhere"),
            ("SINK_NSQ_AUTH_SECRET_FILE", "/nowhere"),
            ("SINK_NSQ_MAX_MESSAGE_BYTES", "0"),
        ])
        .err()
        .unwrap();
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(!problems.join("\n").contains("planted"), "{problems:?}");
    }
}
