//! What a record becomes (pure).

use bytes::Bytes;

use crate::record::{Format, Record};

/// The message of a record: CloudEvents 1.0, in binary mode or in structured mode.
pub(super) fn of(topic: &str, record: &Record, format: Format) -> krafka::Record {
    let key = Bytes::copy_from_slice(record.key.as_bytes());
    let message = krafka::Record::new(topic, record.encoded(format)).key(key);
    let message = message.header("content-type", format.media_type());
    match format {
        Format::Payload => {
            let attributes = record.meta.attributes();
            attributes.fold(message, |message, (name, value)| {
                message.header(format!("ce_{name}"), value.into_owned())
            })
        }
        // They are in the envelope.
        Format::CloudEvents => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn headers(message: &krafka::Record) -> Vec<(&str, &str)> {
        let text = |it: &Option<Bytes>| String::from_utf8(it.clone().unwrap().to_vec()).unwrap();
        let headers = message.headers.iter();
        headers.map(|(name, value)| (name.as_str(), &*text(value).leak())).collect()
    }

    #[test]
    fn the_attributes_are_headers_and_the_key_is_that_of_the_record() {
        let message = of("events", &record("nodes//n1", 3), Format::Payload);
        assert_eq!(message.key_str(), Some("nodes//n1"));
        assert_eq!(message.value_str(), Some("111"));
        assert_eq!(
            headers(&message),
            [
                ("content-type", "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_id", "nodes//n\"1/7/00"),
                ("ce_source", "/nomad/global"),
                ("ce_type", "nomad.node.changed"),
                ("ce_subject", "n1"),
                ("ce_nomadindex", "7"),
            ]
        );
    }

    #[test]
    fn with_the_envelope_the_only_header_says_what_it_is() {
        let message = of("events", &record("k", 3), Format::CloudEvents);
        assert_eq!(headers(&message), [("content-type", "application/cloudevents+json")]);
        assert!(message.value_str().unwrap().contains(r#""data":111"#));
    }
}
