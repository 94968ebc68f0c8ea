//! What a sink is given: changes, encoded once.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Write as _,
    sync::Arc,
};

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

/// The most that one call to a sink takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes of all bodies. A single larger record is passed on alone, so that the sink gets to
    /// refuse it.
    pub bytes: usize,
    /// Whether a call holds at most one record per key. Needed where the receiver can fail
    /// records one by one: a later record of the same key must not overtake a failed one.
    pub one_per_key: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 500, bytes: 4 << 20, one_per_key: false }
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

    /// CloudEvents 1.0, JSON format, structured mode.
    fn cloud_event(&self) -> Vec<u8> {
        let Meta { id, source, kind, subject, time, index, namespace } = &self.meta;
        let mut out = String::with_capacity(self.body.len() + 512);
        out.push_str(r#"{"specversion":"1.0""#);
        let index = index.to_string();
        let attributes = [
            ("id", Some(id.as_str())),
            ("source", Some(source)),
            ("type", Some(kind)),
            ("subject", Some(subject)),
            ("time", time.as_deref()),
            ("nomadindex", Some(&index)),
            ("nomadnamespace", Some(&**namespace).filter(|it| !it.is_empty())),
            ("datacontenttype", Some("application/json")),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                let _ = write!(out, r#","{name}":{}"#, json::quoted(value));
            }
        }
        out.push_str(r#","data":"#);
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out.push(b'}');
        out
    }
}

/// Cuts records into calls that a sink takes, keeping the order of each key.
#[derive(Debug)]
pub struct Pieces {
    rest: VecDeque<Record>,
    limits: Limits,
}

impl Pieces {
    /// Starts cutting.
    #[must_use]
    pub fn new(records: Vec<Record>, limits: Limits) -> Self {
        Self { rest: records.into(), limits }
    }

    /// The first record that no piece has held so far: all before it have been handed out.
    #[must_use]
    pub fn front(&self) -> Option<&Record> {
        self.rest.front()
    }

    /// The records of the next call, at least one; `None` when there are no more.
    pub fn next_piece(&mut self) -> Option<Vec<Record>> {
        let mut piece = Vec::new();
        let mut bytes = 0;
        let mut keys = HashSet::new();
        let mut skipped = VecDeque::new();
        while let Some(next) = self.rest.front() {
            let fits =
                piece.len() < self.limits.records && bytes + next.body.len() <= self.limits.bytes;
            if !piece.is_empty() && !fits {
                break;
            }
            let Some(next) = self.rest.pop_front() else { break };
            if self.limits.one_per_key && !keys.insert(next.key.clone()) {
                skipped.push_back(next);
                continue;
            }
            bytes += next.body.len();
            piece.push(next);
        }
        while let Some(back) = skipped.pop_back() {
            self.rest.push_front(back);
        }
        (!piece.is_empty()).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, size: usize) -> Record {
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

    fn shapes(keys: &[&str], size: usize, limits: Limits) -> Vec<String> {
        let records = keys.iter().map(|it| record(it, size)).collect();
        let mut pieces = Pieces::new(records, limits);
        std::iter::from_fn(|| pieces.next_piece())
            .map(|it| it.iter().map(|it| &*it.key).collect::<String>())
            .collect()
    }

    #[test]
    fn a_piece_holds_no_more_records_and_bytes_than_the_sink_takes() {
        let limits = Limits { records: 2, bytes: 100, one_per_key: false };
        assert_eq!(shapes(&["a", "b", "c"], 10, limits), ["ab", "c"]);
        assert_eq!(shapes(&["a", "b", "c"], 60, limits), ["a", "b", "c"]);
    }

    #[test]
    fn a_record_that_is_too_large_is_a_piece_of_its_own() {
        let limits = Limits { records: 9, bytes: 5, one_per_key: false };
        assert_eq!(shapes(&["a", "b"], 10, limits), ["a", "b"]);
    }

    #[test]
    fn a_key_comes_once_in_a_piece_where_records_can_fail_one_by_one() {
        let limits = Limits { records: 3, bytes: 100, one_per_key: true };
        assert_eq!(shapes(&["a", "a", "b", "a", "c"], 1, limits), ["abc", "a", "a"]);
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
}
