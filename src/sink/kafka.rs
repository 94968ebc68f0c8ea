//! Produces to a topic of Apache Kafka, or of anything that speaks its protocol.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{About, Again, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    env::{Env, Noted},
    record::{Format, Limits, Record},
};

mod answer;
mod link;
mod message;
mod settings;

use answer::{Doing, KafkaError, Meaning, TooLarge, Unconfirmed};
use link::{Link, LinkError};
use settings::Settings;

/// Records of one call, and what they may have together.
const MAX_RECORDS: usize = 500;
const CALL_BYTES: usize = 4 << 20;
/// What counts for a record beside its body: its key and its headers.
const BESIDE: usize = 512;

/// A topic.
///
/// Delivered means that the leader of the partition has answered with an offset, and so that every
/// replica that is in sync has the message.
pub(super) struct Kafka {
    settings: Arc<Settings>,
    format: Format,
    /// Those that no call has. A call has one alone: where it does not end well, the link is cut,
    /// and no other call is disturbed.
    free: Mutex<Vec<Link>>,
}

impl Connect for Kafka {
    const SUMMARY: Summary = Summary {
        delivered: "answered with an offset: every replica in sync has it",
        duplicate: "the header `ce_id`, or the CloudEvents `id`",
        set_by: &["SINK_KAFKA_WORKERS"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let settings = Arc::new(Settings::from_env(env)?);
        Ok(Self { settings, format, free: Mutex::default() })
    }
}

#[async_trait]
impl Sink for Kafka {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (positions, messages, mut failures) = self.messages(records);
        if !messages.is_empty() {
            failures.extend(self.produce(&positions, messages).await?);
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        Limits {
            calls: self.settings.workers,
            records: MAX_RECORDS,
            bytes: CALL_BYTES,
            beside: BESIDE + self.format.beside(),
            // Those of one partition can fail while those of another do not.
            one_per_key: true,
        }
    }

    fn about(&self) -> About {
        let Settings { brokers, topic, .. } = &*self.settings;
        let untested = "not tested: whether the user may write to the topic, and whether enough \
                        replicas are in sync";
        About { at: format!("{brokers}, topic {topic}"), untested }
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let link = Link::connect(&self.settings).await.map_err(|err| self.unavailable(err))?;
        link.find().await.map_err(|err| self.unavailable(err))
    }

    async fn close(&self) {
        // Whatever was produced on them was answered.
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Kafka {
    /// What to produce, the positions of its records, and those that are too large.
    fn messages(&self, records: &[Record]) -> (Vec<usize>, Vec<krafka::Record>, Vec<Failure>) {
        let Settings { topic, message_bytes, .. } = &*self.settings;
        let (mut positions, mut messages, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            let message = message::of(topic, record, self.format);
            let size = message.estimated_size();
            if size > *message_bytes {
                let source = TooLarge { size, most: *message_bytes }.into();
                failures.push(Failure { position, kind: FailureKind::Rejected, source });
            } else {
                positions.push(position);
                messages.push(message);
            }
        }
        (positions, messages, failures)
    }

    /// Produces the messages of the records at these positions; which of them failed.
    ///
    /// The link is used again only where every one is confirmed. Else it is cut, so that nothing
    /// of what is tried again can still be sent by it, and no numbering of messages goes on from
    /// one whose fate is not known.
    async fn produce(
        &self,
        positions: &[usize],
        messages: Vec<krafka::Record>,
    ) -> Result<Vec<Failure>, DeliverError> {
        let link = self.link().await.map_err(|err| self.unavailable(err))?;
        let answers = link.produce(messages).await.map_err(|err| self.unavailable(err))?;
        let mut failed = Vec::new();
        for (position, answer) in positions.iter().zip(answers) {
            match answer {
                Ok(stored) if Unconfirmed::is_confirmed(&stored, &self.settings.topic) => (),
                Ok(_) => failed.push((*position, Unconfirmed.error())),
                Err(err) => failed.push((*position, err)),
            }
        }
        if failed.is_empty() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(link);
            return Ok(Vec::new());
        }
        drop(link);
        let errors: Vec<_> = failed.into_iter().map(|(at, err)| (at, self.failed(err))).collect();
        let all = errors.len() == positions.len();
        if let (true, Some(again)) = (all, again(errors.iter().map(|(_, it)| it.meaning))) {
            // There is at least one.
            if let Some((_, source)) = errors.into_iter().next() {
                return Err(DeliverError::Unavailable { source: source.into(), again });
            }
            return Ok(Vec::new());
        }
        let alone = positions.len() == 1;
        let failure = |(position, source): (usize, KafkaError)| {
            let kind = match source.meaning {
                Meaning::Refused if alone => FailureKind::Rejected,
                Meaning::Refused => FailureKind::Suspect,
                Meaning::Unavailable(_) => FailureKind::Transient,
            };
            Failure { position, kind, source: source.into() }
        };
        Ok(errors.into_iter().map(failure).collect())
    }

    /// A link that no other call has.
    async fn link(&self) -> Result<Link, LinkError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(link) => Ok(link),
            None => Link::connect(&self.settings).await,
        }
    }

    fn failed(&self, source: krafka::KrafkaError) -> KafkaError {
        KafkaError::new(Doing::Produce, &self.settings, &source)
    }

    fn unavailable(&self, err: LinkError) -> DeliverError {
        let (doing, source) = match err {
            LinkError::Kafka(doing, source) => (doing, source),
            LinkError::Password(err) => return DeliverError::unusable(err),
            LinkError::Runtime(_) | LinkError::Slow(_) | LinkError::Ended => {
                let Settings { brokers, .. } = &*self.settings;
                return DeliverError::unavailable(err.at(brokers.clone()));
            }
        };
        let source = KafkaError::new(doing, &self.settings, &source);
        match source.meaning {
            Meaning::Unavailable(again) => {
                DeliverError::Unavailable { source: source.into(), again }
            }
            Meaning::Refused => DeliverError::unusable(source),
        }
    }
}

/// When to ask the brokers again, where none of these failed because of a record.
fn again(meanings: impl Iterator<Item = Meaning>) -> Option<Again> {
    let mut seldom = true;
    for meaning in meanings {
        match meaning {
            Meaning::Refused => return None,
            Meaning::Unavailable(again) => seldom &= again == Again::Seldom,
        }
    }
    Some(if seldom { Again::Seldom } else { Again::Soon })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    pub(super) fn kafka(vars: &[(&str, &str)]) -> Result<Kafka, Vec<String>> {
        let least = [("SINK_KAFKA_BROKERS", "b:9092"), ("SINK_KAFKA_TOPIC", "events")];
        let vars = least.iter().chain(vars).map(|(k, v)| ((*k).into(), (*v).into()));
        let env: Env = vars.collect();
        let kafka = Kafka::from_env(&env, Format::Payload);
        env.check(kafka).map_err(|it| it.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_record_that_is_too_large_is_not_sent() {
        let kafka = kafka(&[("SINK_KAFKA_MAX_MESSAGE_BYTES", "2000")]).unwrap();
        let records = [record("k", 1), record("k", 2000), record("k", 1500)];
        let (positions, messages, failures) = kafka.messages(&records);
        assert_eq!((positions, messages.len()), (vec![0, 2], 2));
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    #[test]
    fn brokers_are_asked_seldom_only_where_nothing_else_would_help() {
        let (soon, seldom) =
            (Meaning::Unavailable(Again::Soon), Meaning::Unavailable(Again::Seldom));
        assert_eq!(again([seldom, seldom].into_iter()), Some(Again::Seldom));
        assert_eq!(again([seldom, soon].into_iter()), Some(Again::Soon));
        assert_eq!(again([seldom, Meaning::Refused].into_iter()), None);
    }

    #[test]
    fn where_records_go_is_said_without_a_password() {
        let set = [("SINK_KAFKA_USER", "me"), ("SINK_KAFKA_PASSWORD", "planted")];
        assert_eq!(kafka(&set).unwrap().about().at, "b:9092, topic events");
    }
}
