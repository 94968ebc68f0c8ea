//! Writes to a receiver of syslog: over TCP, TLS or UDP, or to the socket of this machine.

use async_trait::async_trait;

use super::{About, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    env::{Env, Noted},
    record::{Format, Limits, Record},
};

mod address;
mod error;
mod link;
mod message;
mod packet;

use address::Receiver;
use error::LinkError;
use link::{Confirm, Link};
use message::{Form, Framing};

/// A message, unless it is set otherwise: rsyslog truncates those that are longer, unless it is.
/// It calls that 8k, and it is a little less.
const MESSAGE_BYTES: usize = 8_096;
/// The most that it can be set to.
const MOST_BYTES: usize = 16 << 20;
/// What a packet of UDP over IPv4 has room for.
const PACKET_BYTES: usize = 65_507;
/// Records and bytes of a call, which a receiver has to read in time.
const MAX_RECORDS: usize = 500;
const MAX_BYTES: usize = 1 << 20;
/// What a message has beside the payload, as a rule.
const BESIDE: usize = 512;

/// A receiver.
///
/// Delivered means that it has read the message and closed the connection. What does not confirm
/// anything, which are packets, is delivered once the system has taken it.
pub(super) struct Syslog {
    form: Form,
    message_bytes: usize,
    format: Format,
    link: Link,
}

/// A record whose message is larger than the receiver takes whole.
#[derive(Debug, thiserror::Error)]
#[error(
    "the message has {size} bytes, and SINK_SYSLOG_MAX_MESSAGE_BYTES allows {most}; raise it \
     together with the receiver's own limit, beyond which that truncates"
)]
struct TooLarge {
    size: usize,
    most: usize,
}

impl Connect for Syslog {
    const SUMMARY: Summary = Summary {
        delivered: "over TCP and TLS, read by the receiver, which has closed the connection \
                    then; else given to the system",
        duplicate: "the parameter `id` of the structured data, or the CloudEvents `id`",
        set_by: &[],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let receiver = Receiver::from_env(env);
        let is_local = receiver.as_ref().is_ok_and(Receiver::is_local);
        let has_packets = receiver.as_ref().is_ok_and(Receiver::has_packets);
        let form = Form::from_env(env, format, is_local);
        let framing = Framing::from_env(env, is_local);
        let confirm = confirm(env, matches!(receiver, Ok(Receiver::Udp(..))));
        let message_bytes = message_bytes(env, has_packets);
        let link = Link::new(receiver?, framing?, confirm?);
        Ok(Self { form: form?, message_bytes: message_bytes?, format, link })
    }
}

fn confirm(env: &Env, is_udp: bool) -> Result<Confirm, Noted> {
    let name = "SINK_SYSLOG_CONFIRM";
    match env.optional::<String>(name)?.as_deref() {
        Some("close") if is_udp => {
            Err(env.note(name, "is `close`, and nothing that is sent over UDP is confirmed"))
        }
        None | Some("close") => Ok(Confirm::Close),
        Some("none") => Ok(Confirm::Nothing),
        Some(other) => Err(env.note(name, format!("`{other}` is not one of: close, none"))),
    }
}

fn message_bytes(env: &Env, has_packets: bool) -> Result<usize, Noted> {
    let name = "SINK_SYSLOG_MAX_MESSAGE_BYTES";
    let most = if has_packets { PACKET_BYTES } else { MOST_BYTES };
    env.within(name, MESSAGE_BYTES, most)
}

#[async_trait]
impl Sink for Syslog {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (positions, messages, mut failures) = self.messages(records);
        if !messages.is_empty() {
            let unsent = self.link.send(&messages).await.map_err(unavailable)?;
            failures.extend(unsent.into_iter().filter_map(|it| {
                positions.get(it.position).map(|position| Failure { position: *position, ..it })
            }));
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        Limits {
            calls: 1,
            records: MAX_RECORDS,
            bytes: MAX_BYTES,
            beside: BESIDE + self.format.beside(),
            // What fails is all that was not refused for good.
            one_per_key: false,
        }
    }

    fn connections(&self) -> Option<u64> {
        // A call that is confirmed is a connection, and none of these is counted.
        Some(self.link.connected()).filter(|it| *it > 0)
    }

    async fn check(&self) -> Result<(), DeliverError> {
        self.link.check().await.map_err(unavailable)
    }

    fn about(&self) -> About {
        let untested = match self.link.receiver() {
            Receiver::Udp(..) => "not tested: whether anybody receives, which UDP does not tell",
            _ => "not tested: whether messages are kept, and whether they are truncated",
        };
        About { at: self.link.receiver().to_string(), untested }
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

impl Syslog {
    /// What to write and whose it is, and the records that are too large.
    fn messages(&self, records: &[Record]) -> (Vec<usize>, Vec<Vec<u8>>, Vec<Failure>) {
        let (mut positions, mut messages, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            let message = self.form.message(record);
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
}

fn unavailable(err: LinkError) -> DeliverError {
    let again = err.again();
    DeliverError::Unavailable { source: err.into(), again }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn syslog(set: &[(&str, &str)]) -> Result<Syslog, Vec<String>> {
        let env: Env = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let syslog = Syslog::from_env(&env, Format::Payload);
        env.check(syslog).map_err(|it| it.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_record_that_is_too_large_is_not_sent() {
        let syslog = syslog(&[]).unwrap();
        let beside = syslog.form.message(&record("k", 0)).len();
        let most = MESSAGE_BYTES - beside;
        let records = [record("k", 1), record("k", most + 1), record("k", most)];
        let (positions, messages, failures) = syslog.messages(&records);
        assert_eq!(positions, [0, 2]);
        let sizes: Vec<usize> = messages.iter().map(Vec::len).collect();
        assert_eq!(sizes, [beside + 1, MESSAGE_BYTES]);
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    #[test]
    fn a_packet_has_no_room_for_more_than_the_protocol_has() {
        let size = ("SINK_SYSLOG_MAX_MESSAGE_BYTES", "65508");
        let udp = [("SINK_SYSLOG_PROTO", "udp"), ("SINK_SYSLOG_ADDR", "logs:514"), size];
        assert!(syslog(&udp).err().unwrap()[0].contains("is not 1 to 65507"));
        let tcp = [("SINK_SYSLOG_PROTO", "tcp"), ("SINK_SYSLOG_ADDR", "logs:514"), size];
        assert_eq!(syslog(&tcp).unwrap().message_bytes, 65_508);
    }

    #[test]
    fn every_mistake_is_said_at_once() {
        let problems = syslog(&[
            ("SINK_SYSLOG_PROTO", "udp"),
            ("SINK_SYSLOG_CONFIRM", "close"),
            ("SINK_SYSLOG_ADDR", "logs:514"),
            ("SINK_SYSLOG_FRAMING", "x"),
            ("SINK_SYSLOG_FACILITY", "x"),
            ("SINK_SYSLOG_MAX_MESSAGE_BYTES", "0"),
            ("SINK_SYSLOG_CLIENT_CERT", "/nowhere"),
        ])
        .err()
        .unwrap();
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
