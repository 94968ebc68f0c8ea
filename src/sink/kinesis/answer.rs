//! What an error of the service means.

use aws_sdk_kinesis::{error::SdkError, operation::put_records::PutRecordsError};

use crate::sink::{
    Again,
    aws::{self, Meaning},
};

/// A request that failed as a whole.
#[derive(Debug, thiserror::Error)]
#[error("put records into Kinesis stream `{stream}`{hint}")]
pub(super) struct PutError {
    pub(super) stream: String,
    pub(super) hint: &'static str,
    #[source]
    pub(super) source: SdkError<PutRecordsError>,
}

/// A record of a request that failed while others did not.
#[derive(Debug, thiserror::Error)]
#[error("Kinesis stream `{stream}` did not take a record: {code}")]
pub(super) struct EntryError {
    pub(super) stream: String,
    pub(super) code: String,
}

/// An answer that does not fit its request.
#[derive(Debug, thiserror::Error)]
#[error("Kinesis answered for {answered} of {sent} records")]
pub(super) struct Miscounted {
    pub(super) sent: usize,
    pub(super) answered: usize,
}

/// What an error of a whole request means, and what the operator can do.
pub(super) fn meaning(err: &SdkError<PutRecordsError>) -> (Meaning, &'static str) {
    let code = match aws::code(err) {
        Ok(code) => code,
        Err(known) => return known,
    };
    match code {
        "ValidationException" | "InvalidArgumentException" | "SerializationException" => {
            (Meaning::Refused, "; the records are not as the stream wants them")
        }
        "ResourceNotFoundException" => (
            Meaning::Unavailable(Again::Seldom),
            "; create it, or check SINK_KINESIS_STREAM_NAME and the region",
        ),
        "AccessDeniedException" => {
            (Meaning::Unavailable(Again::Seldom), "; the credentials need kinesis:PutRecords")
        }
        code if code.starts_with("KMS") && code != "KMSThrottlingException" => (
            Meaning::Unavailable(Again::Seldom),
            "; check the key that the stream is encrypted with",
        ),
        _ => (Meaning::Unavailable(Again::Soon), ""),
    }
}
