//! What the service's answers mean.

use aws_sdk_kinesis::types::PutRecordsResultEntry;

use crate::sink::{
    Again, FailureKind,
    aws::{Answer, Hint, Meaning},
};

/// What is answered about one record.
pub(super) fn about(result: &PutRecordsResultEntry) -> Answer {
    let stored = result.sequence_number().is_some_and(|it| !it.is_empty());
    match result.error_code() {
        None if stored => Answer::Stored,
        code => {
            let code = code.unwrap_or("no sequence number").to_owned();
            Answer::Failed(FailureKind::Transient, code)
        }
    }
}

/// What the codes of this service mean.
pub(super) fn meaning(code: &str) -> Option<Hint> {
    let seldom = Meaning::Unavailable(Again::Seldom);
    match code {
        "InvalidArgumentException" => {
            Some((Meaning::Refused, "; the records are not as the stream wants them"))
        }
        "ResourceNotFoundException" => {
            Some((seldom, "; create it, or check SINK_KINESIS_STREAM_NAME and the region"))
        }
        "AccessDeniedException" => Some((seldom, "; the credentials need kinesis:PutRecords")),
        _ => None,
    }
}
