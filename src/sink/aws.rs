//! What the sinks of Amazon share: how the services are reached, what their errors mean, and what
//! becomes of the records of a request.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::sync::OnceCell;

use super::{Again, DeliverError};

mod batch;
mod service;

pub(super) use batch::{Answer, Batch, TooLarge};
pub(super) use service::Service;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Nothing says where the service is.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is known; set AWS_REGION, or the region of the profile")]
pub(super) struct NoRegion;

/// What an error of a whole request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The records, and no other time will do.
    Refused,
    /// The receiver, or the way to it.
    Unavailable(Again),
}

/// What an error means, and what the operator can do.
pub(super) type Hint = (Meaning, &'static str);

const SOON: Meaning = Meaning::Unavailable(Again::Soon);
const SELDOM: Meaning = Meaning::Unavailable(Again::Seldom);

/// A service's client, made once there is a region: the machine that tells it may not be there at
/// first.
pub(super) async fn client<C>(
    place: &OnceCell<C>,
    make: impl FnOnce(&SdkConfig) -> C,
) -> Result<&C, DeliverError> {
    let made = async { config().await.map(|it| make(&it)).map_err(DeliverError::unusable) };
    place.get_or_try_init(|| made).await
}

/// What clients are made of.
async fn config() -> Result<SdkConfig, NoRegion> {
    let http = Builder::new().build_with_connector_fn(|settings, runtime| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(runtime.and_then(|it| it.sleep_impl()));
        connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
    });
    let limits = TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_timeout(REQUEST_LIMIT)
        .build();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        // The delivery tries again, and only what failed.
        .retry_config(RetryConfig::disabled())
        .timeout_config(limits)
        .load()
        .await;
    if config.region().is_some() { Ok(config) } else { Err(NoRegion) }
}

/// Whether the service lets us in, and does not permit this.
pub(super) fn is_denied<E: ProvideErrorMetadata, R>(err: &SdkError<E, R>) -> bool {
    matches!(err.code(), Some("AccessDenied" | "AccessDeniedException"))
}

/// Whether the service says that there is no such thing.
#[cfg(feature = "eventbridge")]
pub(super) fn is_missing<E: ProvideErrorMetadata, R>(err: &SdkError<E, R>) -> bool {
    err.code() == Some("ResourceNotFoundException")
}

/// What an error means: `own` knows the codes that mean something to one service only.
fn meaning<E: ProvideErrorMetadata, R>(
    err: &SdkError<E, R>,
    own: fn(&str) -> Option<Hint>,
) -> Hint {
    match err {
        SdkError::ServiceError(err) => {
            let code = err.err().code().unwrap_or_default();
            own(code).unwrap_or_else(|| common(code))
        }
        SdkError::ConstructionFailure(_) => {
            (SELDOM, "; check the region and the credentials in AWS_*")
        }
        _ => {
            (SOON, "; check AWS_ENDPOINT_URL, AWS_REGION, the network and the credentials in AWS_*")
        }
    }
}

/// What a code means with every service.
fn common(code: &str) -> Hint {
    match code {
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired" => (SELDOM, "; check the credentials in AWS_*, and the clock"),
        "ValidationException" | "ValidationError" | "SerializationException" => {
            (Meaning::Refused, "; the records are not as the service wants them")
        }
        code if is_of_a_key(code) => (SELDOM, "; check the key of KMS that encrypts it"),
        _ => (SOON, ""),
    }
}

/// Whether it is a key of KMS that cannot be used, and not only now. Some codes of SQS have a dot,
/// and others are written in small letters.
fn is_of_a_key(code: &str) -> bool {
    (code.starts_with("KMS") || code.starts_with("Kms")) && !code.contains("Thrott")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_means_the_same_with_all_services() {
        for (code, meaning) in [
            ("InvalidClientTokenId", SELDOM),
            ("ExpiredTokenException", SELDOM),
            ("KMSDisabledException", SELDOM),
            ("KMS.AccessDeniedException", SELDOM),
            ("KmsInvalidState", SELDOM),
            ("ValidationException", Meaning::Refused),
            ("KMSThrottlingException", SOON),
            ("KMS.ThrottlingException", SOON),
            ("KmsThrottled", SOON),
            ("ThrottlingException", SOON),
            ("InternalFailure", SOON),
            ("", SOON),
        ] {
            assert_eq!(common(code).0, meaning, "{code}");
        }
    }
}
