//! What the sinks of Amazon share: how the services are reached, and what their errors mean.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::Again;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Nothing says where the service is.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is known; set AWS_REGION, or the region of the profile")]
pub(super) struct NoRegion;

/// What an error of a whole request means.
pub(super) enum Meaning {
    /// The records, and no other time will do.
    Refused,
    /// The receiver, or the way to it.
    Unavailable(Again),
}

/// What clients are made of, once there is a region: the machine that tells it may not be there at
/// first.
pub(super) async fn config() -> Result<SdkConfig, NoRegion> {
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

/// The code that a service has answered with; or what the error means, and what the operator can
/// do, where it means the same with all of them.
pub(super) fn code<E: ProvideErrorMetadata, R>(
    err: &SdkError<E, R>,
) -> Result<&str, (Meaning, &'static str)> {
    let code = match err {
        SdkError::ServiceError(err) => err.err().code().unwrap_or_default(),
        SdkError::ConstructionFailure(_) => {
            let hint = "; check the region and the credentials in AWS_*";
            return Err((Meaning::Unavailable(Again::Seldom), hint));
        }
        _ => {
            let hint =
                "; check AWS_ENDPOINT_URL, AWS_REGION, the network and the credentials in AWS_*";
            return Err((Meaning::Unavailable(Again::Soon), hint));
        }
    };
    match code {
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException" => Err((
            Meaning::Unavailable(Again::Seldom),
            "; check the credentials in AWS_*, and the clock",
        )),
        code => Ok(code),
    }
}
