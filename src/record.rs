//! What a sink is given: changes, encoded once.

use std::{borrow::Cow, fmt::Write as _, sync::Arc};

use bytes::Bytes;

use crate::cursor::{Index, Mark};

pub mod json;

/// One change, encoded once, ready for any sink.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name of the stream it belongs to.
    pub stream: &'static str,
    /// Identity of the changed object. Records with the same key stay in order.
    pub key: Arc<str>,
    /// What becomes durable with it.
    pub mark: Mark,
    /// Every change up to this index is durable once all records before this one are.
    pub below: Index,
    /// The payload, as one JSON document without a line break.
    pub body: Bytes,
    /// What is said about the change beside the payload.
    pub meta: Meta,
}

/// What a record says about its change beside the payload: the attributes of CloudEvents 1.0.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Deterministic, so that a duplicate is recognisable: the same change has the same id in
    /// every run.
    pub id: String,
    /// Which Nomad it comes from, as a URI reference.
    pub source: Arc<str>,
    /// The type, such as `nomad.node.changed`.
    pub kind: &'static str,
    /// The changed object within its source.
    pub subject: String,
    /// When it happened, in RFC 3339, where Nomad says so.
    pub time: Option<String>,
    /// The Raft index of the change. Text on the wire, since it does not fit 32 bits.
    pub index: Index,
    /// The namespace of the object; empty for nodes.
    pub namespace: Arc<str>,
}

/// How a record is written to sinks that have no place for metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The payload alone.
    #[default]
    Payload,
    /// A CloudEvents 1.0 envelope in JSON with the payload as its `data`.
    CloudEvents,
}

/// The most that one call to a sink takes, and how calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls under way at once; no two of them have records of one key.
    pub calls: usize,
    /// Records.
    pub records: usize,
    /// Bytes, as [`Limits::size`] counts them. A single larger record is passed on alone, so that
    /// the sink gets to refuse it.
    pub bytes: usize,
    /// Bytes that count for each record beside its body.
    pub beside: usize,
    /// Whether a call holds at most one record per key. Needed where the receiver can fail
    /// records one by one: a later record of the same key must not overtake a failed one.
    pub one_per_key: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls: 1, records: 500, bytes: 4 << 20, beside: 0, one_per_key: false }
    }
}

impl Limits {
    /// What a record counts for.
    #[must_use]
    pub fn size(&self, record: &Record) -> usize {
        record.body.len() + self.beside
    }
}

impl Format {
    /// What the encoded bytes are.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Payload => "application/json",
            Self::CloudEvents => "application/cloudevents+json",
        }
    }

    /// What it adds to a payload, at most as a rule: names of jobs can be of any length.
    #[must_use]
    pub fn beside(self) -> usize {
        match self {
            Self::Payload => 0,
            Self::CloudEvents => 1 << 10,
        }
    }
}

impl Meta {
    /// The attributes of CloudEvents 1.0 with their names, but for `datacontenttype`.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let Self { id, source, kind, subject, time, index, namespace } = self;
        let all = [
            ("specversion", Some("1.0".into())),
            ("id", Some(attribute(id))),
            ("source", Some(Cow::from(&**source))),
            ("type", Some((*kind).into())),
            ("subject", Some(attribute(subject))),
            ("time", time.as_deref().map(Cow::from)),
            ("nomadindex", Some(index.to_string().into())),
            ("nomadnamespace", Some(attribute(namespace)).filter(|it| !it.is_empty())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Record {
    /// The bytes for a sink that has no place for metadata.
    #[must_use]
    pub fn encoded(&self, format: Format) -> Bytes {
        match format {
            Format::Payload => self.body.clone(),
            Format::CloudEvents => Bytes::from(self.cloud_event()),
        }
    }

    /// The job that the change is about, where it is about one.
    #[must_use]
    pub fn job(&self) -> Option<String> {
        self.member(if matches!(self.stream, "jobs" | "jobliststubs") { "ID" } else { "JobID" })
    }

    /// The id of the node that the change is about, where it is about one.
    #[must_use]
    pub fn node(&self) -> Option<String> {
        self.member(if self.stream == "nodes" { "ID" } else { "NodeID" })
    }

    /// A member of the payload that is text, and not empty.
    fn member(&self, name: &str) -> Option<String> {
        let mut found = None;
        json::members(&self.body, |key, value| {
            if key == name.as_bytes() {
                found = serde_json::from_slice::<String>(value).ok();
            }
        });
        found.filter(|it| !it.is_empty())
    }

    /// CloudEvents 1.0, JSON format, structured mode.
    fn cloud_event(&self) -> Vec<u8> {
        let mut out = String::with_capacity(self.body.len() + 512);
        out.push('{');
        for (name, value) in self.meta.attributes() {
            let _ = write!(out, r#""{name}":{},"#, json::quoted(&value));
        }
        let _ = write!(out, r#""datacontenttype":"{}","data":"#, Format::Payload.media_type());
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out.push(b'}');
        out
    }
}

/// The text as an attribute, which may have no control characters: where there are some, they are
/// percent-encoded, and so is the percent sign.
fn attribute(text: &str) -> Cow<'_, str> {
    let banned = |it: char| {
        it.is_control() || matches!(it, '\u{fdd0}'..='\u{fdef}') || u32::from(it) & 0xfffe == 0xfffe
    };
    if !text.contains(banned) {
        return text.into();
    }
    let encode = |it: char| banned(it) || it == '%';
    percent_encoded(text, encode).into()
}

/// The text, in which some characters are percent-encoded.
#[must_use]
pub fn percent_encoded(text: &str, which: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        if which(it) {
            for byte in it.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(it);
        }
    }
    out
}

/// The text, where a receiver has room for so many bytes only: its beginning and a hash of all of
/// it, so that the same text is always shortened to the same, and others to others.
#[must_use]
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let hash = format!("~{:016x}", json::name(text));
    let end = text.floor_char_boundary(most.saturating_sub(hash.len()));
    format!("{}{hash}", &text[..end]).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record of a node, whose body has this size.
    pub(crate) fn record(key: &str, size: usize) -> Record {
        Record {
            stream: "nodes",
            key: key.into(),
            mark: Mark::Object { key: 1, index: Index(7), hash: 1 },
            below: Index(6),
            body: Bytes::from(vec![b'1'; size]),
            meta: Meta {
                id: "nodes//n\"1/7/00".into(),
                source: "/nomad/global".into(),
                kind: "nomad.node.changed",
                subject: "n1".into(),
                time: None,
                index: Index(7),
                namespace: "".into(),
            },
        }
    }

    #[test]
    fn a_cloud_event_has_the_required_attributes_and_the_payload_as_data() {
        let event = record("k", 3).encoded(Format::CloudEvents);
        let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(
            event,
            serde_json::json!({
                "specversion": "1.0", "id": "nodes//n\"1/7/00", "source": "/nomad/global",
                "type": "nomad.node.changed", "subject": "n1", "nomadindex": "7",
                "datacontenttype": "application/json", "data": 111
            })
        );
    }
    #[test]
    fn an_id_that_is_too_long_is_shortened_and_still_tells_records_apart() {
        let long = format!("jobs/{}/7/00", "\u{fc}".repeat(200));
        let other = format!("{long}1");
        assert_eq!(shortened("jobs/a/7/00", 255), "jobs/a/7/00");
        assert!(shortened(&long, 255).len() <= 255);
        assert_eq!(shortened(&long, 255), shortened(&long, 255));
        assert_ne!(shortened(&long, 255), shortened(&other, 255));
    }

    #[test]
    fn the_job_and_the_node_are_those_of_the_payload() {
        let of = |stream, body: &'static str| Record {
            stream,
            body: Bytes::from_static(body.as_bytes()),
            ..record("k", 0)
        };
        let allocation = of("allocations", r#"{"JobID":"web\/\u00fc","NodeID":"n1","X":1}"#);
        assert_eq!(allocation.job().as_deref(), Some("web/\u{fc}"));
        assert_eq!(allocation.node().as_deref(), Some("n1"));
        let job = of("jobs", r#"{"ID":"web","NodeID":""}"#);
        assert_eq!((job.job().as_deref(), job.node()), (Some("web"), None));
        let node = of("nodes", r#"{"ID":"n2"}"#);
        assert_eq!((node.job(), node.node().as_deref()), (None, Some("n2")));
    }
}
