//! What an error of nsqd means, and what the operator can do.

use std::{io, time::Duration};

use super::frame::{Error, Malformed};
use crate::sink::Again;

/// Why messages are not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to nsqd at {at}; check SINK_NSQ_ADDR, and whether nsqd runs")]
    Connect {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "nsqd at {at} and we do not agree on TLS; check SINK_NSQ_CACERT and \
         SINK_NSQ_TLS_SERVER_NAME, and SINK_NSQ_CLIENT_CERT and SINK_NSQ_CLIENT_KEY if it asks \
         for a certificate"
    )]
    Tls {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error("nsqd at {0} has no TLS; start it with a certificate, or set SINK_NSQ_TLS to false")]
    NoTls(String),
    #[error("nsqd at {0} asks who we are; set SINK_NSQ_AUTH_SECRET or SINK_NSQ_AUTH_SECRET_FILE")]
    NoSecret(String),
    #[error("nsqd at {at} did not answer within {limit:?}; see what keeps it busy")]
    Slow { at: String, limit: Duration },
    #[error("nsqd at {at} closed the connection; check whether it was restarted")]
    Closed {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "nobody at {at} speaks the protocol of nsqd; check that SINK_NSQ_ADDR has its port for \
         TCP, and not the one for HTTP"
    )]
    Malformed {
        at: String,
        #[source]
        source: Malformed,
    },
    #[error("nsqd at {at} says {}{}", .error.code, .error.hint())]
    Said { at: String, error: Error },
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The messages of the call.
    Refused,
    Unavailable(Again),
}

impl LinkError {
    pub(super) fn meaning(&self) -> Meaning {
        match self {
            Self::Said { error, .. } => error.meaning(),
            Self::Tls { .. } | Self::NoTls(_) | Self::NoSecret(_) | Self::Malformed { .. } => {
                Meaning::Unavailable(Again::Seldom)
            }
            Self::Connect { .. } | Self::Slow { .. } | Self::Closed { .. } => {
                Meaning::Unavailable(Again::Soon)
            }
        }
    }
}

impl Error {
    fn meaning(&self) -> Meaning {
        match self.code.as_str() {
            "E_BAD_MESSAGE" | "E_BAD_BODY" => Meaning::Refused,
            "E_BAD_TOPIC" | "E_AUTH_FAILED" | "E_AUTH_FIRST" | "E_AUTH_DISABLED"
            | "E_UNAUTHORIZED" | "E_INVALID" => Meaning::Unavailable(Again::Seldom),
            _ => Meaning::Unavailable(Again::Soon),
        }
    }

    fn hint(&self) -> &'static str {
        match self.code.as_str() {
            _ if self.wants_tls => ", since it wants TLS; set SINK_NSQ_TLS to true",
            "E_BAD_MESSAGE" | "E_BAD_BODY" => {
                "; raise its --max-msg-size and --max-body-size, or lower \
                 SINK_NSQ_MAX_MESSAGE_BYTES"
            }
            "E_BAD_TOPIC" => "; check SINK_NSQ_TOPIC_NAME",
            "E_AUTH_FAILED" | "E_AUTH_FIRST" => {
                "; check SINK_NSQ_AUTH_SECRET, and the server that nsqd asks about it"
            }
            "E_AUTH_DISABLED" => "; unset SINK_NSQ_AUTH_SECRET, or have nsqd ask about it",
            "E_UNAUTHORIZED" => {
                "; let the holder of SINK_NSQ_AUTH_SECRET publish to SINK_NSQ_TOPIC_NAME"
            }
            "E_INVALID" => "; check the version of nsqd",
            "E_PUB_FAILED" | "E_MPUB_FAILED" | "E_PUT_FAILED" => {
                "; it could not queue the messages: look at its disk and its log"
            }
            _ => "; look at its log",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_about_the_messages_or_about_nsqd() {
        let meaning = |code: &str| Error { code: code.into(), wants_tls: false }.meaning();
        for code in ["E_BAD_MESSAGE", "E_BAD_BODY"] {
            assert_eq!(meaning(code), Meaning::Refused, "{code}");
        }
        for code in ["E_BAD_TOPIC", "E_UNAUTHORIZED", "E_AUTH_FAILED", "E_INVALID"] {
            assert_eq!(meaning(code), Meaning::Unavailable(Again::Seldom), "{code}");
        }
        for code in ["E_MPUB_FAILED", "E_PUB_FAILED", "E_NEW"] {
            assert_eq!(meaning(code), Meaning::Unavailable(Again::Soon), "{code}");
        }
    }
}
