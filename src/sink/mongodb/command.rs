//! The commands that are sent, with the write concern of each.

use std::time::Duration;

use ::mongodb::bson::{RawArrayBuf, RawDocumentBuf, raw::cstr, rawdoc};

/// How long the server waits for a majority before it says that there is none.
const MAJORITY_LIMIT: Duration = Duration::from_secs(10);

/// The most that a document needs in a command beside itself: a type and its number in the array.
pub(super) const BESIDE: usize = 16;

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
