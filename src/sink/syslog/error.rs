//! Why messages were not written, or not read.

use std::{fmt, io, time::Duration};

use crate::{api::socket::is_about_tls, sink::Again};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Connect,
    Write,
    Read,
}

/// Why a receiver does not have what it was to have.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(
        "cannot connect to the syslog receiver at {at}; check SINK_SYSLOG_PROTO and \
         SINK_SYSLOG_ADDR, and whether it runs"
    )]
    Connect {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the syslog receiver at {at} and we do not agree on TLS; check SINK_SYSLOG_CACERT and \
         SINK_SYSLOG_TLS_SERVER_NAME, and SINK_SYSLOG_CLIENT_CERT and SINK_SYSLOG_CLIENT_KEY if \
         it asks for a certificate"
    )]
    Tls {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "no permission to write to the syslog socket {at}; give the user of this process access"
    )]
    Denied {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the syslog receiver at {at} was lost {doing}; check whether it was restarted, and \
         whether it takes this kind of connection"
    )]
    Lost {
        at: String,
        doing: Doing,
        #[source]
        source: io::Error,
    },
    #[error(
        "the syslog receiver at {at} ended the connection without the end of TLS, as one that is \
         killed does; if it always does, set SINK_SYSLOG_CONFIRM to none, or with rsyslog take its \
         driver ossl, as gtls does not say it"
    )]
    NoGoodbye {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the message has {size} bytes, and a packet to the syslog receiver at {at} has no room for \
         it; set SINK_SYSLOG_PROTO to tcp or tls, or SINK_SYSLOG_ADDR to the socket of a stream"
    )]
    TooLarge {
        at: String,
        size: usize,
        #[source]
        source: io::Error,
    },
    #[error("the syslog receiver at {at} was too slow {doing}: {limit:?} have passed{}", .doing.hint())]
    Slow { at: String, doing: Doing, limit: Duration },
}

impl LinkError {
    pub(super) fn new(at: String, doing: Doing, source: io::Error) -> Self {
        match doing {
            _ if is_about_tls(&source) => Self::Tls { at, source },
            _ if source.kind() == io::ErrorKind::PermissionDenied => Self::Denied { at, source },
            Doing::Connect => Self::Connect { at, source },
            Doing::Read if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::NoGoodbye { at, source }
            }
            doing => Self::Lost { at, doing, source },
        }
    }

    /// When it makes sense to try again.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Tls { .. } | Self::Denied { .. } => Again::Seldom,
            Self::Connect { .. }
            | Self::Lost { .. }
            | Self::NoGoodbye { .. }
            | Self::TooLarge { .. }
            | Self::Slow { .. } => Again::Soon,
        }
    }
}

impl Doing {
    fn hint(self) -> &'static str {
        match self {
            Self::Connect => "; check SINK_SYSLOG_ADDR, and what is between",
            Self::Write => "; see what keeps it from reading",
            Self::Read => {
                "; it has to close the connection once it has read everything: where it never \
                 does, set SINK_SYSLOG_CONFIRM to none"
            }
        }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "as we connected",
            Self::Write => "as records were written",
            Self::Read => "before it had read everything",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_that_does_not_end_is_told_from_a_connection_that_is_lost() {
        let text = |doing, kind: io::ErrorKind| {
            LinkError::new("logs:6514".into(), doing, kind.into()).to_string()
        };
        let told = text(Doing::Read, io::ErrorKind::UnexpectedEof);
        assert!(told.contains("set SINK_SYSLOG_CONFIRM to none"), "{told}");
        let lost = text(Doing::Read, io::ErrorKind::ConnectionReset);
        assert!(lost.contains("was lost before it had read everything"), "{lost}");
    }
}
