//! A record as a message: its headers.

use async_nats::HeaderMap;

use crate::record::{Format, Record, percent_encoded};

/// By this one a stream knows duplicates.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The stream that a message is for.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
const CONTENT_TYPE: &str = "Content-Type";

/// What is said about the payload beside it: in the binary mode of CloudEvents where the format
/// leaves room for it.
pub(super) fn headers(record: &Record, format: Format, stream: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = record.meta.attributes().find(|(name, _)| *name == "id");
    headers.insert(MESSAGE_ID, id.map_or_else(String::new, |(_, id)| printable(&id)));
    headers.insert(CONTENT_TYPE, format.media_type());
    if let Some(stream) = stream {
        headers.insert(EXPECTED_STREAM, stream);
    }
    if format == Format::Payload {
        for (name, value) in record.meta.attributes() {
            headers.insert(format!("ce-{name}"), printable(&value));
        }
        headers.insert("ce-datacontenttype", format.media_type());
    }
    headers
}

/// As the NATS binding of CloudEvents wants it, which is also what every client can read.
fn printable(text: &str) -> String {
    percent_encoded(text, |it| !matches!(it, '!'..='~') || matches!(it, '"' | '%'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn shown(format: Format, stream: Option<&str>) -> Vec<String> {
        let mut record = record("k", 1);
        record.meta.id = "jobs/gr\u{fc}n \"%\n/7/00".into();
        let headers = headers(&record, format, stream);
        let line = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
            let name: &str = name.as_ref();
            format!("{name}: {}", values[0].as_str())
        };
        let mut lines: Vec<String> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn headers_are_the_attributes_in_the_binary_mode_of_cloud_events() {
        let wanted = [
            "Content-Type: application/json",
            "Nats-Expected-Stream: EVENTS",
            "Nats-Msg-Id: jobs/gr%C3%BCn%20%22%2525%250A/7/00",
            "ce-datacontenttype: application/json",
            "ce-id: jobs/gr%C3%BCn%20%22%2525%250A/7/00",
            "ce-nomadindex: 7",
            "ce-source: /nomad/global",
            "ce-specversion: 1.0",
            "ce-subject: n1",
            "ce-type: nomad.node.changed",
        ];
        assert_eq!(shown(Format::Payload, Some("EVENTS")), wanted);
    }

    #[test]
    fn an_envelope_has_its_attributes_inside() {
        let wanted = [
            "Content-Type: application/cloudevents+json",
            "Nats-Msg-Id: jobs/gr%C3%BCn%20%22%2525%250A/7/00",
        ];
        assert_eq!(shown(Format::CloudEvents, None), wanted);
    }
}
