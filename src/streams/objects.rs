//! Whole objects: each is published whenever it changes.

use bytes::Bytes;

use super::{BadElement, Change, Envelope, Found, Mode};
use crate::{
    cursor::{Form, Index, Mark},
    dedupe::{Seen, Verdict},
    record::json,
};

/// The list has the whole object, and so does an event.
pub(super) fn full(
    element: &[u8],
    seen: &Seen,
    mode: Mode,
    except: &[&str],
) -> Result<Found, BadElement> {
    let form = if mode == Mode::Event { Form::Event } else { Form::Listed };
    let mut found = object(element, seen, mode, form, except)?;
    for change in &mut found.changes {
        change.body = Some(Bytes::copy_from_slice(element));
    }
    Ok(found)
}

/// The list has a short form of the object, and an event the whole one.
pub(super) fn stub(
    element: &[u8],
    seen: &Seen,
    mode: Mode,
    except: &[&str],
) -> Result<Found, BadElement> {
    if mode != Mode::Event {
        return object(element, seen, mode, Form::Stub, except);
    }
    let mut found = object(element, seen, mode, Form::Event, except)?;
    for change in &mut found.changes {
        // The stream has the payload of a dispatched job as it is stored, which is compressed.
        change.body = (!has_payload(element)).then(|| Bytes::copy_from_slice(element));
    }
    Ok(found)
}

fn object(
    element: &[u8],
    seen: &Seen,
    mode: Mode,
    form: Form,
    except: &[&str],
) -> Result<Found, BadElement> {
    let envelope = Envelope::read(element)?;
    // Job ids are unique within their namespace only; the others are UUIDs.
    let key = json::name(&format!("{}/{}", envelope.namespace(), envelope.id));
    let index = Index(envelope.modify_index);
    let hash = || form.mark(json::hash(element, except));
    let verdict = match mode {
        Mode::Usual | Mode::Event => seen.object(key, index, hash),
        Mode::Regressed => seen.object_after_regression(key, index, hash),
    };
    let mut silent = Vec::new();
    if mode == Mode::Regressed && verdict == Verdict::Old {
        // The position is at the beginning: what is not published again must be remembered.
        silent.push(Mark::Object { key, index, hash: hash() });
    }
    let changes = match verdict {
        Verdict::Old | Verdict::Reverted => Vec::new(),
        Verdict::New { hash } | Verdict::Recheck { hash } => vec![Change {
            index,
            namespace: envelope.namespace().into(),
            mark: Mark::Object { key, index, hash },
            body: None,
            event: None,
            time: envelope.modify_time,
            id: envelope.id.into(),
            recheck: matches!(verdict, Verdict::Recheck { .. }),
        }],
    };
    let reverted = verdict == Verdict::Reverted;
    Ok(Found { object: key.into(), index, changes, silent, reverted, ..Found::default() })
}

/// Whether a job has a payload, as dispatched ones have.
fn has_payload(job: &[u8]) -> bool {
    let mut has = false;
    json::members(job, |key, value| {
        has |= key == b"Payload" && !matches!(value, b"null" | br#""""#);
    });
    has
}
