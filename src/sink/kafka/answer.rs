//! What the brokers' answers mean (pure).

use krafka::{
    KrafkaError,
    error::ErrorCode,
    producer::{DeliveryConfirmation, RecordMetadata},
};

use super::settings::Settings;
use crate::{error::brief, sink::Again};

/// What an error means for the records of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is the brokers, and not the record.
    Unavailable(Again),
    /// It is the record, or one that was in the same batch.
    Refused,
}

use Meaning::{Refused, Unavailable};

const SOON: Meaning = Unavailable(Again::Soon);
const SELDOM: Meaning = Unavailable(Again::Seldom);

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Connect,
    Find,
    Produce,
}

/// Something that failed. The text of one cause is always the same, so that it is logged once.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} Kafka at {brokers}: {what}{hint}")]
pub(super) struct KafkaError {
    doing: String,
    brokers: String,
    what: String,
    hint: &'static str,
    pub(super) meaning: Meaning,
}

/// A record that no broker is given.
#[derive(Debug, thiserror::Error)]
#[error(
    "the message has {size} bytes with its key and headers, and SINK_KAFKA_MAX_MESSAGE_BYTES \
     allows {most}; raise it together with `max.message.bytes` of the topic"
)]
pub(super) struct TooLarge {
    pub(super) size: usize,
    pub(super) most: usize,
}

/// An answer without an error that does not say where the message is.
pub(super) struct Unconfirmed;

impl Unconfirmed {
    /// Whether an answer says that the message is stored, and where.
    pub(super) fn is_confirmed(stored: &RecordMetadata, topic: &str) -> bool {
        let RecordMetadata { offset, delivery, .. } = stored;
        *delivery == DeliveryConfirmation::Offset && *offset >= 0 && stored.topic == topic
    }

    /// The message is sent again: at worst it comes twice.
    pub(super) fn error(&self) -> KrafkaError {
        KrafkaError::illegal_state("the answer has no offset of the message")
    }
}

impl KafkaError {
    pub(super) fn new(doing: Doing, settings: &Settings, source: &KrafkaError) -> Self {
        let Settings { brokers, topic, .. } = settings;
        let doing = match doing {
            Doing::Connect => "connect a producer to".to_owned(),
            Doing::Find => format!("find the topic `{topic}` of"),
            Doing::Produce => format!("produce to the topic `{topic}` of"),
        };
        let (meaning, hint) = meaning(source);
        let what = brief(&said(source));
        Self { doing, brokers: brokers.clone(), what, hint, meaning }
    }
}

/// Codes that the library repeats until there is no time left, and then tells in a text only.
const REPEATED: [ErrorCode; 12] = [
    ErrorCode::CorruptMessage,
    ErrorCode::KafkaStorageException,
    ErrorCode::LeaderNotAvailable,
    ErrorCode::NotEnoughReplicas,
    ErrorCode::NotEnoughReplicasAfterAppend,
    ErrorCode::NotLeaderForPartition,
    ErrorCode::PreferredLeaderNotAvailable,
    ErrorCode::ReplicaNotAvailable,
    ErrorCode::RequestTimedOut,
    ErrorCode::ThrottlingQuotaExceeded,
    ErrorCode::UnknownTopicId,
    ErrorCode::UnknownTopicOrPartition,
];

/// The last that the library heard, in the text that it makes of it.
fn last(text: &str) -> &str {
    text.rsplit("last error: ").next().unwrap_or(text)
}

/// The code of a broker, where there is one.
fn code(err: &KrafkaError) -> Option<ErrorCode> {
    match err {
        KrafkaError::Broker { code, .. } => Some(*code),
        KrafkaError::DeliveryTimeout { message, .. } => {
            let name = last(message).strip_prefix("broker error: ")?.split(' ').next()?;
            REPEATED.into_iter().find(|it| format!("{it:?}") == name)
        }
        _ => None,
    }
}

/// The name that Kafka gives to a code: `NOT_ENOUGH_REPLICAS`.
fn name(code: ErrorCode) -> String {
    let mut out = String::new();
    for it in format!("{code:?}").chars() {
        if it.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(it.to_ascii_uppercase());
    }
    out
}

/// What is to be said of an error: nothing that changes from one attempt to the next, such as the
/// number of attempts, or the order in which brokers were asked.
fn said(err: &KrafkaError) -> String {
    match (err, code(err)) {
        (KrafkaError::DeliveryTimeout { .. }, Some(code)) => {
            format!("no offset within SINK_KAFKA_TIMEOUT, and {} at last", name(code))
        }
        (_, Some(code)) => name(code),
        (KrafkaError::DeliveryTimeout { message, .. }, None) => match last(message) {
            last if last.len() < message.len() => {
                format!("no offset within SINK_KAFKA_TIMEOUT, and at last: {last}")
            }
            _ => "no offset within SINK_KAFKA_TIMEOUT".to_owned(),
        },
        (KrafkaError::Auth { message, .. }, None) => match message.split_once("]: ") {
            Some((tried, why)) if tried.starts_with("could not connect") => why.to_owned(),
            _ => message.clone(),
        },
        (err, None) => last(&err.to_string()).to_owned(),
    }
}

/// What an error means, and what the operator can do.
fn meaning(err: &KrafkaError) -> (Meaning, &'static str) {
    if let Some(code) = code(err) {
        return of_code(code);
    }
    match err {
        KrafkaError::Auth { message, .. } if message.contains("TLS") => (
            SELDOM,
            "; check SINK_KAFKA_CA_CERT_PATH, SINK_KAFKA_TLS_SERVER_NAME and the certificates of \
             both sides",
        ),
        KrafkaError::Auth { message, .. } if message.contains("SASL handshake failed") => {
            (SELDOM, "; check SINK_KAFKA_SASL_MECHANISM")
        }
        KrafkaError::Auth { .. } => {
            (SELDOM, "; check SINK_KAFKA_USER and SINK_KAFKA_PASSWORD, and that the user is there")
        }
        KrafkaError::UnknownTopic { .. } => of_code(ErrorCode::UnknownTopicOrPartition),
        KrafkaError::Config { .. } => (SELDOM, "; check the SINK_KAFKA_* variables"),
        KrafkaError::Network(_) | KrafkaError::Protocol { .. } | KrafkaError::Timeout { .. } => (
            SOON,
            "; check SINK_KAFKA_BROKERS, SINK_KAFKA_TLS, the network, and the addresses that the \
             brokers advertise",
        ),
        _ => (SOON, ""),
    }
}

fn of_code(code: ErrorCode) -> (Meaning, &'static str) {
    use ErrorCode as E;
    match code {
        E::UnknownTopicOrPartition | E::UnknownTopicId | E::InvalidTopic => {
            (SELDOM, "; create the topic, or check SINK_KAFKA_TOPIC and that the user may see it")
        }
        E::TopicAuthorizationFailed => (SELDOM, "; grant the user Write and Describe on the topic"),
        E::ClusterAuthorizationFailed => (
            SELDOM,
            "; grant the user IdempotentWrite on the cluster, or set SINK_KAFKA_IDEMPOTENT to false",
        ),
        E::SaslAuthenticationFailed | E::IllegalSaslState => {
            (SELDOM, "; check SINK_KAFKA_USER and SINK_KAFKA_PASSWORD, and that the user is there")
        }
        E::UnsupportedSaslMechanism => (SELDOM, "; check SINK_KAFKA_SASL_MECHANISM"),
        E::UnsupportedVersion | E::UnsupportedForMessageFormat => (
            SELDOM,
            "; the brokers are too old for this, or no idempotent producer is known there: see \
             SINK_KAFKA_IDEMPOTENT",
        ),
        E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => (
            SOON,
            "; fewer replicas are in sync than `min.insync.replicas` asks for: bring their brokers \
             back",
        ),
        E::RequestTimedOut => {
            (SOON, "; replicas are slow: look at the brokers, or raise SINK_KAFKA_TIMEOUT")
        }
        E::LeaderNotAvailable | E::NotLeaderForPartition => {
            (SOON, "; a partition has no leader: look at the brokers")
        }
        E::KafkaStorageException => (SOON, "; a broker cannot write: look at its disk"),
        E::MessageTooLarge | E::RecordListTooLarge => (
            Refused,
            "; raise `max.message.bytes` of the topic, or lower SINK_KAFKA_MAX_MESSAGE_BYTES",
        ),
        // The time is that of our clock when it is produced, and not one of the record's.
        E::InvalidTimestamp => (
            SELDOM,
            "; the clock of this host or of the brokers is wrong, or see `message.timestamp.*` of \
             the topic",
        ),
        E::InvalidRecord | E::PolicyViolation => {
            (Refused, "; the topic does not take such messages: look at its settings")
        }
        _ => (SOON, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_named_as_kafka_names_it() {
        assert_eq!(name(ErrorCode::NotEnoughReplicas), "NOT_ENOUGH_REPLICAS");
        assert_eq!(name(ErrorCode::InvalidRecord), "INVALID_RECORD");
    }

    #[test]
    fn what_the_library_tells_after_many_attempts_is_understood() {
        for last in REPEATED {
            let last = KrafkaError::broker(last, "produce to events-0 failed");
            let text = format!("not acknowledged within 7 attempt(s); last error: {last}");
            let err = KrafkaError::delivery_timeout(true, text);
            assert_eq!(code(&err), code(&last));
            assert!(said(&err).starts_with("no offset within") && !said(&err).contains('7'));
        }
    }

    #[test]
    fn what_is_said_does_not_tell_the_order_in_which_brokers_were_asked() {
        let refused = "could not connect to any of [a:1, b:2]; last error: network error: refused";
        let network = KrafkaError::network(std::io::Error::other(refused));
        assert_eq!(said(&network), "network error: refused");
        let denied = KrafkaError::auth("could not connect to any of [a:1]: SASL failed: no [x]: y");
        assert_eq!(said(&denied), "SASL failed: no [x]: y");
    }

    #[test]
    fn only_what_a_record_can_be_at_fault_for_is_refused() {
        for code in [ErrorCode::MessageTooLarge, ErrorCode::InvalidRecord] {
            assert_eq!(of_code(code).0, Refused);
        }
        for code in [ErrorCode::OutOfOrderSequenceNumber, ErrorCode::UnknownServerError] {
            assert_eq!(of_code(code).0, SOON);
        }
        for code in [ErrorCode::TopicAuthorizationFailed, ErrorCode::InvalidTimestamp] {
            assert_eq!(of_code(code).0, SELDOM);
        }
    }
}
