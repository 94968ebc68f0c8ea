//! What becomes of a request that fails: one kind of error for both servers, which says what was
//! being done, to what, and what the operator can do.

use std::{future::Future, time::Duration};

use futures::TryStreamExt;
use progenitor_client::{ByteStream, Error, ResponseValue};
use tokio::time::timeout;

use super::limit::is_too_large;
use crate::error::BoxError;
#[cfg(feature = "demo")]
use crate::failpoint;

/// So much of the text of a refusal is read, and so much of it is shown.
const MAX_TEXT_READ: usize = 64 << 10;
const MAX_TEXT_SHOWN: usize = 200;
const TEXT_LIMIT: Duration = Duration::from_secs(5);

/// Result of a request.
pub type Result<T> = std::result::Result<T, ApiError>;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There was no answer.
    #[error("cannot {doing}: {server} does not answer; check {variable} and that it is running")]
    Unreachable {
        /// What was being done.
        doing: String,
        /// The server and its address.
        server: String,
        /// The variable that holds the address.
        variable: &'static str,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The answer is a refusal.
    #[error("cannot {doing}: {server} answered {status} `{text}`{}", hint(*.status, .text, .token))]
    Refused {
        /// What was being done.
        doing: String,
        /// The server and its address.
        server: String,
        /// The status code.
        status: u16,
        /// The beginning of the text.
        text: String,
        /// The variable that holds the token.
        token: &'static str,
    },
    /// The answer is none that the server gives.
    #[error("cannot {doing}: {server} answered {what}; is it what the address should lead to?")]
    Unexpected {
        /// What was being done.
        doing: String,
        /// The server and its address.
        server: String,
        /// What is wrong with the answer.
        what: String,
    },
}

/// What an operator can do about a refusal.
fn hint(status: u16, text: &str, token: &str) -> String {
    let denied = is_denial(status, text);
    match status {
        301 | 302 | 303 | 307 | 308 => {
            "; redirects are not followed, since they would carry the token elsewhere: set the \
             address that it leads to"
                .to_owned()
        }
        401 | 403 => format!("; check {token} and the policies of that token"),
        _ if denied => format!("; check {token} and the policies of that token"),
        429 => "; it is asked too often or has too many connections: raise its limits".to_owned(),
        500..=599 => "; see its own log".to_owned(),
        _ => String::new(),
    }
}

/// Nomad 1.0 denies some requests with status 500.
fn is_denial(status: u16, text: &str) -> bool {
    let denials = ["Permission denied", "ACL token not found", "UUID must be"];
    status == 500 && denials.iter().any(|it| text.contains(it))
}

impl ApiError {
    /// The status, where there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::Unexpected { .. } => None,
        }
    }

    /// Whether the token lacks a permission.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.status() == Some(403)
    }

    /// Whether the server does not offer its event stream to this token, or to anybody.
    #[must_use]
    pub fn is_no_stream(&self) -> bool {
        match self {
            Self::Refused { status: 401 | 403 | 404 | 405, .. } => true,
            Self::Refused { status, text, .. } => {
                is_denial(*status, text) || text.contains("EventBroker not configured")
            }
            Self::Unreachable { .. } | Self::Unexpected { .. } => false,
        }
    }

    /// Whether it says more about what was asked for than about the state of the server.
    #[must_use]
    pub fn is_about_object(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Unexpected { .. } => true,
            Self::Refused { status, .. } => *status < 500 && *status != 429 && *status != 408,
        }
    }

    /// Whether it was refused with this text.
    #[must_use]
    pub fn says(&self, what: &str) -> bool {
        matches!(self, Self::Refused { text, .. } if text.contains(what))
    }

    /// Whether what was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}

#[cfg(feature = "demo")]
impl From<failpoint::Lost> for ApiError {
    fn from(lost: failpoint::Lost) -> Self {
        let (doing, server) = ("have an answer".to_owned(), "a test".to_owned());
        Self::Unreachable { doing, server, variable: "its plan", source: lost.into() }
    }
}

/// A server, as errors name it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `Nomad` or `Consul`, and the address without user info.
    pub(super) name: String,
    /// The variable that holds the address.
    pub(super) variable: &'static str,
    /// The variable that holds the token.
    pub(super) token: &'static str,
}

impl Server {
    /// Sends a request, which is to be answered within `limit`.
    pub(super) async fn ask<T>(
        &self,
        doing: impl Into<String>,
        limit: Duration,
        request: impl Future<Output = std::result::Result<ResponseValue<T>, Error<ByteStream>>>,
    ) -> Result<ResponseValue<T>> {
        match timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(err)) => Err(self.explain(doing.into(), err).await),
            Err(_) => Err(self.silent(doing.into(), limit)),
        }
    }

    pub(super) fn silent(&self, doing: String, limit: Duration) -> ApiError {
        let what = format!("there was no answer within {} s", limit.as_secs());
        self.unreachable(doing, what)
    }

    pub(super) fn unreachable(&self, doing: String, source: impl Into<BoxError>) -> ApiError {
        let (server, variable) = (self.name.clone(), self.variable);
        ApiError::Unreachable { doing, server, variable, source: source.into() }
    }

    pub(super) fn unexpected(&self, doing: impl Into<String>, what: String) -> ApiError {
        ApiError::Unexpected { doing: doing.into(), server: self.name.clone(), what }
    }

    /// The error for an answer that did not come, or not to its end.
    pub(super) fn broken(&self, doing: String, err: reqwest::Error) -> ApiError {
        match is_too_large(&err) {
            Some(size) => self.unexpected(doing, size.to_string()),
            // The address is in our own text already.
            None => self.unreachable(doing, err.without_url()),
        }
    }

    pub(super) async fn explain(&self, doing: String, err: Error<ByteStream>) -> ApiError {
        match err {
            Error::ErrorResponse(answer) => {
                let status = answer.status().as_u16();
                self.refused(doing, status, answer.into_inner_stream()).await
            }
            Error::UnexpectedResponse(answer) => {
                let status = answer.status().as_u16();
                let to = answer.headers().get("location").and_then(|it| it.to_str().ok());
                match to {
                    Some(to) => {
                        let text = format!("see {}", shown(to.as_bytes()));
                        self.refusal(doing, status, text)
                    }
                    None => self.refused(doing, status, answer.bytes_stream()).await,
                }
            }
            Error::InvalidResponsePayload(body, err) => {
                let err = crate::error::without_values(&err);
                let text = shown(before_json(&body));
                self.unexpected(doing, format!("what is not JSON of the kind ({err}): `{text}`"))
            }
            Error::CommunicationError(err)
            | Error::ResponseBodyError(err)
            | Error::InvalidUpgrade(err) => self.broken(doing, err),
            Error::InvalidRequest(what) | Error::Custom(what) => self.unexpected(doing, what),
        }
    }

    async fn refused(
        &self,
        doing: String,
        status: u16,
        body: impl futures::Stream<Item = reqwest::Result<bytes::Bytes>>,
    ) -> ApiError {
        let text = String::from_utf8_lossy(&drain(body).await).trim().to_owned();
        self.refusal(doing, status, shown(text.as_bytes()))
    }

    fn refusal(&self, doing: String, status: u16, text: String) -> ApiError {
        ApiError::Refused { doing, server: self.name.clone(), status, text, token: self.token }
    }
}

/// The beginning of a body, however it ends.
pub(super) async fn drain(
    body: impl futures::Stream<Item = reqwest::Result<bytes::Bytes>>,
) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        let mut body = std::pin::pin!(body);
        while let Ok(Some(chunk)) = body.try_next().await {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_TEXT_READ {
                break;
            }
        }
    };
    let _ = timeout(TEXT_LIMIT, read).await;
    text
}

/// What comes before anything that begins like JSON, which may be a payload.
pub(super) fn before_json(text: &[u8]) -> &[u8] {
    let begins = |it: &u8| matches!(it, b'{' | b'[' | b'"');
    &text[..text.iter().position(begins).unwrap_or(text.len())]
}

/// The beginning of a text, on one line.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown: String = text.chars().take(MAX_TEXT_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}
