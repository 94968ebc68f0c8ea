//! The event stream as it arrives: one JSON object per line. Pure.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{cursor::Index, record::json, streams::Topic};

/// A longer line is passed over and reported. A plan for hundreds of allocations, each with its
/// metrics, has megabytes.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Cuts what arrives into lines, wherever it is split.
#[derive(Debug)]
pub struct Lines {
    held: BytesMut,
    /// So much of it has no line break.
    looked: usize,
    /// How much of a line that is too long was passed over.
    dropped: usize,
    limit: usize,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Its text.
    Whole(Bytes),
    /// It has so many bytes, and was passed over.
    TooLong(usize),
}

impl Default for Lines {
    fn default() -> Self {
        Self { held: BytesMut::new(), looked: 0, dropped: 0, limit: MAX_LINE_BYTES }
    }
}

impl Lines {
    /// Keeps lines of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// More has arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
    }

    /// The next line that is whole.
    pub fn next_line(&mut self) -> Option<Line> {
        let Some(end) = memchr::memchr(b'\n', &self.held[self.looked..]) else {
            self.looked = self.held.len();
            if self.dropped + self.held.len() > self.limit {
                self.dropped += self.held.len();
                (self.held, self.looked) = (BytesMut::new(), 0);
            }
            return None;
        };
        let line = self.held.split_to(self.looked + end + 1).freeze();
        self.looked = 0;
        let size = std::mem::take(&mut self.dropped) + line.len() - 1;
        Some(match size > self.limit {
            true => Line::TooLong(size),
            false => Line::Whole(line.slice(..line.len() - 1)),
        })
    }

    /// What came after the last line break.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.held
    }
}

/// The changes of one commit. A commit can be on several lines.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Commit<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    events: Option<Vec<Event<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl<'a> Commit<'a> {
    /// Reads a line.
    pub fn read(line: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> Index {
        Index(self.index)
    }

    /// The objects of a topic, as written; `None` for one that an event does not have.
    pub fn objects(&self, topic: Topic) -> impl Iterator<Item = Option<&'a [u8]>> {
        let name = topic.name();
        let events = self.events.iter().flatten().filter(move |it| it.topic == name);
        events.map(move |event| {
            let mut object = None;
            json::members(event.payload.get().as_bytes(), |key, value| {
                if key == name.as_bytes() {
                    object = Some(value);
                }
            });
            object
        })
    }
}

/// Whether an object is encoded as Nomad 1.0 does it in its stream: with members that are left out
/// elsewhere and in later versions. It shows in allocations and evaluations.
#[must_use]
pub fn is_of_1_0(topic: Topic, object: &[u8]) -> bool {
    let telling: &[u8] = match topic.name() {
        "Allocation" => b"Job",
        "Evaluation" => b"LeaderACL",
        _ => return false,
    };
    let mut found = false;
    json::members(object, |key, value| {
        found |= key == telling && matches!(value, b"null" | br#""""#)
    });
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(body: &[u8], size: usize, limit: usize) -> (Vec<String>, String) {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for chunk in body.chunks(size) {
            lines.push(chunk);
            while let Some(line) = lines.next_line() {
                found.push(match line {
                    Line::Whole(text) => String::from_utf8_lossy(&text).into_owned(),
                    Line::TooLong(size) => format!("too long: {size}"),
                });
            }
        }
        (found, String::from_utf8_lossy(lines.rest()).into_owned())
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_others_are_not() {
        for size in 1..20 {
            let (found, rest) = cut(b"{}\n0123456789abc\n{}\nx", size, 10);
            assert_eq!(found, ["{}", "too long: 13", "{}"], "chunks of {size}");
            assert_eq!(rest, "x");
        }
    }

    #[test]
    fn the_objects_of_a_topic_are_those_that_its_events_have() {
        let line = br#"{"Index":7,"Events":[
            {"Topic":"Job","Key":"a","Payload":{"Job":{"ID":"a"},"Deleted":false}},
            {"Topic":"Evaluation","Payload":{"Evaluation":{"ID":"e"}}},
            {"Topic":"Job","Payload":{}}]}"#;
        let commit = Commit::read(line).unwrap();
        assert_eq!(commit.index(), Index(7));
        let objects: Vec<_> = commit.objects(Topic::Carries("Job")).collect();
        assert_eq!(objects, [Some(&br#"{"ID":"a"}"#[..]), None]);
        assert_eq!(Commit::read(b"{}").unwrap().objects(Topic::Carries("Job")).count(), 0);
        assert!(Commit::read(b"{").is_err());
    }

    #[test]
    fn the_encoding_of_1_0_is_told_by_what_it_does_not_leave_out() {
        let allocation = Topic::Carries("Allocation");
        assert!(is_of_1_0(allocation, br#"{"ID":"a","Job":null}"#));
        assert!(!is_of_1_0(allocation, br#"{"ID":"a","JobID":"j"}"#));
        assert!(is_of_1_0(Topic::Carries("Evaluation"), br#"{"LeaderACL":""}"#));
        assert!(!is_of_1_0(Topic::Carries("Node"), br#"{"Job":null}"#));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_wherever_they_are_split(
            lines in proptest::collection::vec("[a-z{}]{0,12}", 0..8), size in 1usize..9,
        ) {
            let body: String = lines.iter().map(|it| format!("{it}\n")).collect();
            let (found, rest) = cut(body.as_bytes(), size, 1 << 10);
            prop_assert_eq!((found, rest), (lines, String::new()));
        }
    }
}
