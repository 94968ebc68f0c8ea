//! What an error of the service means.

use aws_sdk_kinesis::{
    error::{ProvideErrorMetadata, SdkError},
    operation::put_records::PutRecordsError,
};

use crate::sink::Again;

/// Nothing says where the stream is.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is known; set AWS_REGION, or the region of the profile")]
pub(super) struct NoRegion;

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

/// What an error of a whole request means.
pub(super) enum Meaning {
    /// The records, and no other time will do.
    Refused,
    /// The stream, or the way to it.
    Unavailable(Again),
}

/// What an error of a whole request means, and what the operator can do.
pub(super) fn meaning(err: &SdkError<PutRecordsError>) -> (Meaning, &'static str) {
    let code = match err {
        SdkError::ServiceError(_) => err.code().unwrap_or_default(),
        SdkError::ConstructionFailure(_) => {
            let hint = "; check the region and the credentials in AWS_*";
            return (Meaning::Unavailable(Again::Seldom), hint);
        }
        _ => {
            let hint =
                "; check AWS_ENDPOINT_URL, AWS_REGION, the network and the credentials in AWS_*";
            return (Meaning::Unavailable(Again::Soon), hint);
        }
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
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException" => {
            (Meaning::Unavailable(Again::Seldom), "; check the credentials in AWS_*, and the clock")
        }
        code if code.starts_with("KMS") && code != "KMSThrottlingException" => (
            Meaning::Unavailable(Again::Seldom),
            "; check the key that the stream is encrypted with",
        ),
        _ => (Meaning::Unavailable(Again::Soon), ""),
    }
}
