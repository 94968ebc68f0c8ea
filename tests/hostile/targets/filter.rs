//! An expression, and a payload to evaluate it for.

use bytes::Bytes;
use nomad_firehose::{
    cursor::{Index, Mark},
    filter::Filter,
    record::{Meta, Record},
};

use super::is_brief;

/// So much is looked at for one record, and what a single step can add to it.
const MOST_WORK: u64 = 1_000_000 + 100_000;

/// The first zero byte is between the two. Any text is an expression, or says what is wrong with it;
/// and any payload has a verdict, or a reason why it has none, with bounded work.
pub fn filter(input: &[u8]) {
    let mut parts = input.splitn(2, |it| *it == 0);
    let expression = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let filter = match Filter::parse(&expression) {
        Ok(filter) => filter,
        Err(wrong) => return is_brief(&wrong.to_string()),
    };
    let judged = filter.judge(&record(body));
    assert!(judged.work <= MOST_WORK, "{}", judged.work);
    if let Err(reason) = judged.verdict {
        is_brief(&reason);
    }
}

fn record(body: Bytes) -> Record {
    Record {
        stream: "jobs",
        key: "default/web".into(),
        mark: Mark::Object { key: 1, index: Index(7), hash: 1 },
        below: Index(6),
        body,
        meta: Meta {
            id: "jobs/default/web/7/00".to_owned(),
            source: "/nomad/global".into(),
            kind: "nomad.job.changed",
            subject: "web".to_owned(),
            time: Some("2026-11-23T15:23:06Z".to_owned()),
            index: Index(7),
            namespace: "default".into(),
        },
    }
}
