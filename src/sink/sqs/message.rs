//! What a record becomes.

use std::borrow::Cow;

use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};

use super::queue::Group;
use crate::{
    error::BoxError,
    record::{Format, Record, percent_encoded, shortened},
};

/// Characters of a deduplication id and of a group.
const MAX_TOKEN: usize = 128;
/// The type of all our attributes, which counts with each of them.
const TEXT: &str = "String";
/// Of all characters that text in JSON can hold as they are, the service takes all but these two.
const BANNED: [char; 2] = ['\u{fffe}', '\u{ffff}'];

/// A message that is not sent yet.
#[derive(Debug)]
pub(super) struct Message {
    body: String,
    attributes: Vec<(Cow<'static, str>, String)>,
    fifo: Option<Fifo>,
}

/// What a message of a FIFO queue has besides.
#[derive(Debug, PartialEq, Eq)]
struct Fifo {
    group: String,
    deduplication: String,
}

impl Message {
    /// What a record becomes; `group` is there where the queue is a FIFO queue.
    pub(super) fn of(
        record: &Record,
        format: Format,
        group: Option<Group>,
    ) -> Result<Self, BoxError> {
        let mut body = String::from_utf8(record.encoded(format).into())?;
        if body.contains(BANNED) {
            body = body.replace(BANNED[0], "\\ufffe").replace(BANNED[1], "\\uffff");
        }
        let mut attributes = vec![("content-type".into(), format.media_type().to_owned())];
        if format == Format::Payload {
            let named = record.meta.attributes().filter(|(_, value)| !value.is_empty());
            let named = named.map(|(name, it)| (format!("ce-{name}").into(), it.into_owned()));
            attributes.extend(named);
        }
        let fifo = group.map(|group| Fifo {
            group: match group {
                Group::Stream => stream_group(record.stream).to_owned(),
                Group::Key => token(&record.key),
            },
            deduplication: token(&record.meta.id),
        });
        Ok(Self { body, attributes, fifo })
    }

    /// Its size, as the service counts it.
    pub(super) fn size(&self) -> usize {
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| name.len() + TEXT.len() + value.len());
        self.body.len() + attributes.sum::<usize>()
    }

    /// The entry with this number of a request; `None` where a part is missing, which does not
    /// happen.
    pub(super) fn entry(self, number: usize) -> Option<SendMessageBatchRequestEntry> {
        let mut entry =
            SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(self.body);
        for (name, value) in self.attributes {
            let value = MessageAttributeValue::builder().data_type(TEXT).string_value(value);
            entry = entry.message_attributes(name, value.build().ok()?);
        }
        if let Some(Fifo { group, deduplication }) = self.fifo {
            entry = entry.message_group_id(group).message_deduplication_id(deduplication);
        }
        entry.build().ok()
    }
}

/// The group that the Go tool has for a stream.
fn stream_group(stream: &'static str) -> &'static str {
    match stream {
        "jobliststubs" => "jobs",
        stream => stream,
    }
}

/// The text with those characters only that are taken, and no more of them. Other texts become
/// others: the service drops what has the same deduplication id.
fn token(text: &str) -> String {
    let encoded = percent_encoded(text, |it| !it.is_ascii_graphic() || it == '%');
    shortened(&encoded, MAX_TOKEN).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::tests::record;

    fn payload(body: &str) -> Record {
        Record { body: Bytes::copy_from_slice(body.as_bytes()), ..record("jobs/a b", 0) }
    }

    #[test]
    fn a_payload_has_the_attributes_of_its_event_beside_it() {
        let message = Message::of(&payload("{}"), Format::Payload, None).unwrap();
        let attribute = |name: &str| {
            let found = message.attributes.iter().find(|it| it.0 == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(attribute("content-type"), Some("application/json"));
        assert_eq!(attribute("ce-specversion"), Some("1.0"));
        assert_eq!(attribute("ce-id"), Some("nodes//n\"1/7/00"));
        assert_eq!(attribute("ce-nomadindex"), Some("7"));
        // This record has neither, and none may be empty.
        assert_eq!((attribute("ce-time"), attribute("ce-nomadnamespace")), (None, None));
        let entry = message.entry(3).unwrap();
        assert_eq!((entry.id(), entry.message_body()), ("3", "{}"));
        assert_eq!((entry.message_group_id(), entry.message_deduplication_id()), (None, None));
    }

    #[test]
    fn there_are_never_more_attributes_than_the_service_takes() {
        let mut record = payload("{}");
        record.meta.time = Some("2026-01-01T00:00:00Z".into());
        record.meta.namespace = "default".into();
        let message = Message::of(&record, Format::Payload, None).unwrap();
        assert_eq!(message.attributes.len(), 9);
        let good = |it: char| it.is_ascii_lowercase() || it == '-';
        assert!(message.attributes.iter().all(|(name, _)| name.chars().all(good)));
    }

    #[test]
    fn an_envelope_has_its_content_type_beside_it_and_nothing_else() {
        let message = Message::of(&payload("{}"), Format::CloudEvents, None).unwrap();
        assert_eq!(
            message.attributes,
            [(Cow::from("content-type"), "application/cloudevents+json".to_owned())]
        );
        assert!(message.body.contains(r#""data":{}"#));
    }

    #[test]
    fn what_the_service_does_not_take_is_escaped_and_means_the_same() {
        let text = "a\u{7f}\u{85}\u{fffd}\u{fffe}\\\u{ffff}\u{1fffe}\u{10ffff}";
        let body = serde_json::Value::from(text).to_string();
        let message = Message::of(&payload(&body), Format::Payload, None).unwrap();
        assert!(!message.body.contains(BANNED));
        assert_eq!(serde_json::from_str::<String>(&message.body).unwrap(), text);
        assert_eq!(message.body.len(), body.len() + 2 * ("\\ufffe".len() - 3));
    }

    #[test]
    fn a_body_that_is_no_text_is_refused() {
        let record = Record { body: Bytes::from_static(b"\"\xff\""), ..record("k", 0) };
        assert!(Message::of(&record, Format::Payload, None).is_err());
    }

    #[test]
    fn a_token_has_printable_ascii_only_and_tells_texts_apart() {
        for (text, wanted) in [
            ("nodes//n\"1/7/00", "nodes//n\"1/7/00"),
            ("jobs/a b", "jobs/a%20b"),
            ("jobs/a%20b", "jobs/a%2520b"),
            ("jobs/\u{fc}\u{7f}", "jobs/%C3%BC%7F"),
        ] {
            assert_eq!(token(text), wanted);
        }
        let long = format!("jobs/{}/7/00", "\u{fc}".repeat(100));
        assert_eq!(token(&long).len(), MAX_TOKEN);
        assert_ne!(token(&long), token(&format!("{long}1")));
    }

    #[test]
    fn a_group_is_a_stream_or_an_object() {
        let group = |stream, group| {
            let record = Record { stream, ..payload("{}") };
            Message::of(&record, Format::Payload, Some(group)).unwrap().fifo.unwrap().group
        };
        assert_eq!(group("allocations", Group::Stream), "allocations");
        assert_eq!(group("jobliststubs", Group::Stream), "jobs");
        assert_eq!(group("allocations", Group::Key), "jobs/a%20b");
    }
}
