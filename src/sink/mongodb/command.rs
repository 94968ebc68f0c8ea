//! The commands that are sent, with the write concern of each.

use std::time::Duration;

use ::mongodb::bson::{RawArrayBuf, RawDocumentBuf, raw::cstr, rawdoc};

use super::DOCUMENT_BYTES;

/// How long the server waits for a majority before it says that there is none.
const MAJORITY_LIMIT: Duration = Duration::from_secs(10);

/// The most that a document needs in a command beside itself: a type and its number in the array.
const BESIDE: usize = 16;

/// What one record becomes.
pub(super) struct Entry {
    pub(super) position: usize,
    pub(super) id: String,
    pub(super) document: RawDocumentBuf,
}

/// What goes into one command each.
pub(super) fn parts(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut parts: Vec<Vec<Entry>> = Vec::new();
    let mut size = 0;
    for entry in entries {
        let own = entry.document.as_bytes().len() + BESIDE;
        match parts.last_mut() {
            Some(part) if size + own <= DOCUMENT_BYTES => {
                size += own;
                part.push(entry);
            }
            _ => {
                size = own;
                parts.push(vec![entry]);
            }
        }
    }
    parts
}

/// Inserts documents, each for itself: one that is refused holds up no other.
pub(super) fn insert<'a>(
    collection: &str,
    documents: impl Iterator<Item = &'a RawDocumentBuf>,
) -> RawDocumentBuf {
    let mut array = RawArrayBuf::new();
    documents.for_each(|it| array.push(&**it));
    let mut command = rawdoc! { "insert": collection, "ordered": false };
    command.append(cstr!("writeConcern"), write_concern());
    command.append(cstr!("documents"), array);
    command
}

/// Changes nothing in documents that are there.
pub(super) fn confirm<'a>(collection: &str, ids: impl Iterator<Item = &'a str>) -> RawDocumentBuf {
    let mut array = RawArrayBuf::new();
    for id in ids {
        // What is only set in a new document is not set in one that is there.
        array.push(rawdoc! {
            "q": { "_id": id },
            "u": { "$setOnInsert": { "confirmed": true } },
            "upsert": false,
            "multi": false,
        });
    }
    let mut command = rawdoc! { "update": collection, "ordered": false };
    command.append(cstr!("writeConcern"), write_concern());
    command.append(cstr!("updates"), array);
    command
}

/// A majority has it, and has it in its journal.
fn write_concern() -> RawDocumentBuf {
    let limit = i64::try_from(MAJORITY_LIMIT.as_millis()).unwrap_or(i64::MAX);
    rawdoc! { "w": "majority", "j": true, "wtimeout": limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_are_more_than_a_command_may_have_go_into_several() {
        let sizes = [7, 7, 7, 15, 1, 1].map(|it| it << 20);
        let entry = |(position, size): (usize, usize)| {
            let document = rawdoc! { "text": "x".repeat(size - (16 << 10)) };
            Entry { position, id: position.to_string(), document }
        };
        let parts = parts(sizes.into_iter().enumerate().map(entry).collect());
        let positions: Vec<Vec<usize>> =
            parts.iter().map(|it| it.iter().map(|it| it.position).collect()).collect();
        assert_eq!(positions, [vec![0, 1], vec![2], vec![3, 4], vec![5]]);
    }
}
