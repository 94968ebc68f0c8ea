//! What the service's answers mean.

use aws_sdk_eventbridge::types::PutEventsResultEntry;

use crate::sink::{
    Again, DeliverError, FailureKind,
    aws::{Answer, Hint, Meaning},
};

const SELDOM: Meaning = Meaning::Unavailable(Again::Seldom);

/// The service took none of a request, and it is not the records.
#[derive(Debug, thiserror::Error)]
#[error(
    "put records into {receiver}: {code}; the credentials need events:PutEvents on it, with \
     SINK_EVENT_BUS_SOURCE and SINK_EVENT_BUS_DETAIL_TYPE"
)]
struct Denied {
    receiver: String,
    code: String,
}

/// What is answered about each record of a request.
pub(super) fn about(
    entries: &[PutEventsResultEntry],
    receiver: &str,
) -> Result<Vec<Answer>, DeliverError> {
    let is_denied = |it: &PutEventsResultEntry| it.error_code().is_some_and(denies);
    if let Some(code) = entries.first().and_then(|it| it.error_code())
        && entries.iter().all(is_denied)
    {
        let (receiver, code) = (receiver.to_owned(), code.to_owned());
        return Err(DeliverError::unusable(Denied { receiver, code }));
    }
    Ok(entries.iter().map(answer).collect())
}

fn answer(entry: &PutEventsResultEntry) -> Answer {
    let stored = entry.event_id().is_some_and(|it| !it.is_empty());
    match entry.error_code() {
        None if stored => Answer::Stored,
        None => Answer::Failed(FailureKind::Transient, "no event id".to_owned()),
        Some(code) => {
            let kind = match code {
                "InvalidArgument" | "MalformedDetail" | "RedactionFailure" => FailureKind::Rejected,
                _ => FailureKind::Transient,
            };
            Answer::Failed(kind, code.to_owned())
        }
    }
}

/// Whether it is a right that is missing: all events have the same source and type.
fn denies(code: &str) -> bool {
    code.starts_with("NotAuthorizedFor")
        || matches!(code, "AccessDenied" | "AccessDeniedException" | "InvalidAccountIdException")
}

/// What the codes of this service mean.
pub(super) fn meaning(code: &str) -> Option<Hint> {
    match code {
        "ResourceNotFoundException" => {
            Some((SELDOM, "; create it, or check SINK_EVENT_BUS_NAME and the region"))
        }
        "AccessDenied" | "AccessDeniedException" => {
            Some((SELDOM, "; the credentials need events:PutEvents"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: Option<&str>, code: Option<&str>) -> PutEventsResultEntry {
        let entry = PutEventsResultEntry::builder();
        let entry = entry.set_event_id(id.map(Into::into));
        entry.set_error_code(code.map(Into::into)).build()
    }

    #[test]
    fn the_code_of_an_entry_decides() {
        for (code, kind) in [
            ("InternalFailure", FailureKind::Transient),
            ("ThrottlingException", FailureKind::Transient),
            ("NotAuthorizedForSourceException", FailureKind::Transient),
            ("InvalidArgument", FailureKind::Rejected),
            ("MalformedDetail", FailureKind::Rejected),
        ] {
            let entries = [entry(Some("e"), None), entry(None, Some(code))];
            let answers = about(&entries, "bus").unwrap();
            assert_eq!(answers, [Answer::Stored, Answer::Failed(kind, code.into())]);
        }
        let answers = about(&[entry(None, None), entry(Some(""), None)], "bus").unwrap();
        let nothing = Answer::Failed(FailureKind::Transient, "no event id".into());
        assert_eq!(answers, [nothing.clone(), nothing]);
    }

    #[test]
    fn a_right_that_is_missing_for_all_is_no_fault_of_a_record() {
        let entries = [
            entry(None, Some("NotAuthorizedForSourceException")),
            entry(None, Some("AccessDeniedException")),
        ];
        let Err(DeliverError::Unavailable { source, again }) = about(&entries, "bus `x`") else {
            panic!("it was taken");
        };
        assert_eq!(again, Again::Seldom);
        let text = source.to_string();
        assert!(text.starts_with("put records into bus `x`: NotAuthorizedForSourceException; "));
    }

    #[test]
    fn an_answer_for_nothing_says_nothing() {
        assert_eq!(about(&[], "bus").unwrap(), []);
    }
}
