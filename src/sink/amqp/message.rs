//! A record as a message: where it is routed, and its properties.

use std::time::SystemTime;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    env::{Env, Noted},
    record::{Format, Record, shortened},
    sink::template::Template,
};

const NAME: &str = "SINK_AMQP_ROUTING_KEY";
const APP_ID: &str = "nomad-firehose";
/// Delivery mode 2: the broker writes the message to its disk where the queue is durable.
const PERSISTENT: u8 = 2;
/// What AMQP calls a short string has this many bytes at most.
pub(super) const SHORT: usize = u8::MAX as usize;

/// How a routing key is made.
#[derive(Clone, Debug)]
pub(super) struct RoutingKey(Template);

/// A routing key that is too long for AMQP.
#[derive(Debug, thiserror::Error)]
#[error(
    "the routing key made by SINK_AMQP_ROUTING_KEY has {0} bytes, and AMQP allows {SHORT}; use a \
     shorter one"
)]
pub(super) struct KeyTooLong(usize);

impl RoutingKey {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let text: String = env.required(NAME, "a routing key")?;
        Self::parse(&text).map_err(|why| env.note(NAME, why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let key = Self(Template::parse(text)?);
        if key.is_constant() && text.len() > SHORT {
            return Err(KeyTooLong(text.len()).to_string());
        }
        Ok(key)
    }

    /// Whether all records have the same one.
    pub(super) fn is_constant(&self) -> bool {
        self.0.is_constant()
    }

    /// The routing key of a record. What a record does not have is empty.
    pub(super) fn of(&self, record: &Record) -> Result<ShortString, KeyTooLong> {
        let key = self.0.of(record, |it| it.into());
        if key.len() > SHORT {
            return Err(KeyTooLong(key.len()));
        }
        Ok(key.into())
    }
}

/// The record's id, shortened where AMQP has no room for it: the same record always has the same.
pub(super) fn message_id(record: &Record) -> String {
    shortened(&record.meta.id, SHORT).into_owned()
}

/// What is said about the payload beside it: in the binary mode of CloudEvents where the format
/// leaves room for it.
pub(super) fn properties(record: &Record, format: Format) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(format.media_type().into())
        .with_message_id(message_id(record).into())
        .with_type(record.meta.kind.into())
        .with_app_id(APP_ID.into());
    let properties = match record.meta.time.as_deref().and_then(seconds) {
        Some(seconds) => properties.with_timestamp(seconds),
        None => properties,
    };
    if format == Format::CloudEvents {
        return properties;
    }
    let mut headers = FieldTable::default();
    for (name, value) in record.meta.attributes() {
        let value = AMQPValue::LongString(value.as_bytes().into());
        headers.insert(format!("cloudEvents:{name}").into(), value);
    }
    properties.with_headers(headers)
}

/// Whole seconds since 1970, as AMQP has them.
fn seconds(time: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

impl super::Unroutable {
    pub(super) fn from_env(env: &Env) -> Result<Option<Self>, Noted> {
        let name = "SINK_AMQP_UNROUTABLE";
        match env.optional::<String>(name)?.as_deref() {
            None => Ok(None),
            Some("retry") => Ok(Some(Self::Retry)),
            Some("reject") => Ok(Some(Self::Reject)),
            Some("ignore") => Ok(Some(Self::Ignore)),
            Some(other) => {
                Err(env.note(name, format!("`{other}` is not one of: retry, reject, ignore")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::tests::record;

    fn key(text: &str) -> Result<String, String> {
        let mut record = Record {
            stream: "allocations",
            body: Bytes::from_static(br#"{"JobID":"web","NodeID":"n1"}"#),
            ..record("k", 1)
        };
        record.meta.namespace = "prod".into();
        let key = RoutingKey::parse(text)?.of(&record).map_err(|err| err.to_string())?;
        Ok(key.to_string())
    }

    #[test]
    fn headers_are_the_attributes_in_the_binary_mode_of_cloud_events() {
        let schema = include_str!("../../../tests/fixtures/cloudevents.schema.json");
        let schema = serde_json::from_str(schema).unwrap();
        let mut record = Record { body: Bytes::from_static(b"{}"), ..record("k", 1) };
        record.meta.time = Some("2026-11-23T15:23:06.339470430Z".to_owned());
        for name in ["web", "gr\u{fc}n \"%\n\u{85}", &"\u{fc}".repeat(300)] {
            record.meta.id = format!("jobs/{name}/7/00");
            record.meta.subject = name.to_owned();
            record.meta.namespace = name.into();
            let properties = properties(&record, Format::Payload);
            let content_type = properties.content_type().as_ref().unwrap().to_string();
            let mut event = serde_json::json!({"data": {}, "datacontenttype": content_type});
            for (name, value) in properties.headers().as_ref().unwrap().inner() {
                let AMQPValue::LongString(value) = value else { panic!("{name}: {value:?}") };
                let name = name.as_str().strip_prefix("cloudEvents:").unwrap();
                event[name] = value.to_string().into();
            }
            let errors: Vec<String> = jsonschema::draft202012::new(&schema)
                .unwrap()
                .iter_errors(&event)
                .map(|it| it.to_string())
                .collect();
            assert_eq!(errors, [""; 0], "{event}");
            let envelope = record.encoded(Format::CloudEvents);
            assert_eq!(event, serde_json::from_slice::<serde_json::Value>(&envelope).unwrap());
        }
        let structured = properties(&record, Format::CloudEvents);
        let content_type = structured.content_type().as_ref().unwrap().to_string();
        assert_eq!(content_type, "application/cloudevents+json");
        assert!(structured.headers().is_none());
    }

    #[test]
    fn a_routing_key_without_braces_is_used_as_it_is() {
        assert_eq!(key("nomad.#.$").unwrap(), "nomad.#.$");
        assert!(RoutingKey::parse("nomad").unwrap().is_constant());
    }

    #[test]
    fn braces_are_replaced_by_what_the_record_has() {
        let made = key("{stream}.{type}.{namespace}.{job}.{node}!").unwrap();
        assert_eq!(made, "allocations.nomad.node.changed.prod.web.n1!");
        assert!(!RoutingKey::parse("{stream}").unwrap().is_constant());
    }

    #[test]
    fn a_wrong_routing_key_is_refused() {
        assert!(key("a.{pod}").unwrap_err().contains("`{pod}` is not one of"));
        assert!(key("a.{stream").unwrap_err().contains("without"));
        assert!(key(&"x".repeat(256)).unwrap_err().contains("256 bytes"));
        assert!(key(&format!("{}{{job}}", "x".repeat(253))).unwrap_err().contains("256 bytes"));
    }

    #[test]
    fn the_timestamp_is_that_of_the_event_in_whole_seconds() {
        assert_eq!(seconds("2026-11-23T15:23:06.339470430Z"), Some(1_795_447_386));
        assert_eq!(seconds("yesterday"), None);
    }
}
