//! What an answer means.

use std::fmt;

use async_nats::{
    Message, PublishError as SendError, PublishErrorKind, RequestError, RequestErrorKind,
};
use serde::Deserialize;

use super::subject::SubjectTooLong;
use crate::{error::brief, sink::Again};

/// A message that was not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error("no stream has the subject `{0}`; create one that has it, or check SINK_NATS_SUBJECT")]
    NoStream(String),
    #[error(
        "the user must not publish to the subject `{0}`; allow it, or check SINK_NATS_SUBJECT and \
         the login"
    )]
    Denied(String),
    #[error("JetStream did not store a message for the subject `{subject}`{hint}: {error}")]
    Refused { subject: String, hint: &'static str, error: ApiError },
    #[error(
        "what answered for the subject `{0}` is not a stream; check SINK_NATS_SUBJECT, and who \
         else subscribes to it"
    )]
    NotAStream(String),
    #[error("a stream is still storing an earlier copy of the message for the subject `{0}`")]
    NotYet(String),
    #[error("there is no JetStream on the server; enable it, or set SINK_NATS_MODE=core")]
    NoJetStream,
    #[error("JetStream does not answer as it should{0}: {1}")]
    Api(&'static str, ApiError),
    #[error("there is no stream `{0}`; create it, or check SINK_NATS_STREAM")]
    NoSuchStream(String),
    #[error("the message is larger than the server's `max_payload`; raise that if it should fit")]
    TooLarge(#[source] async_nats::Error),
    #[error(transparent)]
    Subject(#[from] SubjectTooLong),
    #[error("cannot publish to the subject `{subject}`")]
    Unsent {
        subject: String,
        #[source]
        source: async_nats::Error,
    },
}

/// What that means for the message and for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It can never be published.
    Rejected,
    /// Somebody has to mend something first, and those for other subjects may go on.
    Subject,
    /// No message can be published at the moment.
    Server(Again),
}

/// An error of JetStream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiError {
    code: u16,
    pub(super) err_code: u32,
    description: String,
}

/// What a stream answers, and whoever else is asked through the API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) error: Option<ApiError>,
    stream: String,
    seq: u64,
    duplicate: bool,
    /// Names, where streams were looked for, and elsewhere something else.
    pub(super) streams: serde_json::Value,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", brief(&self.description), self.err_code)
    }
}

/// Nothing where the message is stored: what a stream has already counts as well.
pub(super) fn stored(
    subject: &str,
    answer: Result<Message, RequestError>,
) -> Result<(), (Meaning, PublishError)> {
    let subject = subject.to_owned();
    let message = match answer {
        Ok(message) => message,
        Err(err) => return Err(unsent(subject, err)),
    };
    let Ok(Answer { error, stream, seq, duplicate, .. }) = serde_json::from_slice(&message.payload)
    else {
        return Err((Meaning::Subject, PublishError::NotAStream(subject)));
    };
    match error {
        Some(error) => {
            let (meaning, hint) = error.meaning();
            Err((meaning, PublishError::Refused { subject, hint, error }))
        }
        // Only what is stored has a number.
        None if duplicate && seq == 0 => {
            Err((Meaning::Server(Again::Soon), PublishError::NotYet(subject)))
        }
        None if stream.is_empty() || seq == 0 => {
            Err((Meaning::Subject, PublishError::NotAStream(subject)))
        }
        None => Ok(()),
    }
}

fn unsent(subject: String, err: RequestError) -> (Meaning, PublishError) {
    match err.kind() {
        RequestErrorKind::NoResponders => (Meaning::Subject, PublishError::NoStream(subject)),
        RequestErrorKind::MaxPayloadExceeded => {
            (Meaning::Rejected, PublishError::TooLarge(err.into()))
        }
        RequestErrorKind::InvalidSubject => {
            (Meaning::Rejected, PublishError::Unsent { subject, source: err.into() })
        }
        _ => (Meaning::Server(Again::Soon), PublishError::Unsent { subject, source: err.into() }),
    }
}

/// The same for a message that needs no answer.
pub(super) fn unsendable(subject: String, err: SendError) -> (Meaning, PublishError) {
    match err.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            (Meaning::Rejected, PublishError::TooLarge(err.into()))
        }
        PublishErrorKind::InvalidSubject => {
            (Meaning::Rejected, PublishError::Unsent { subject, source: err.into() })
        }
        PublishErrorKind::Send => {
            (Meaning::Server(Again::Soon), PublishError::Unsent { subject, source: err.into() })
        }
    }
}

impl ApiError {
    /// What it means, and what the operator can do.
    pub(super) fn meaning(&self) -> (Meaning, &'static str) {
        let seldom = Meaning::Server(Again::Seldom);
        match (self.err_code, self.code) {
            (10054, _) => (Meaning::Rejected, "; raise the stream's max_msg_size if it should fit"),
            (10097, _) => (Meaning::Rejected, "; its headers are too large"),
            (10077, _) => (Meaning::Subject, "; make room in the stream, or raise its limits"),
            (10060, _) => (
                Meaning::Subject,
                "; the stream that has the subject is not that of SINK_NATS_STREAM",
            ),
            (10002 | 10023 | 10028 | 10047, _) => {
                (seldom, "; make room, or raise the limits of the account or of the server")
            }
            (10039 | 10076, _) => (seldom, "; enable JetStream for the account"),
            (_, 409) => {
                (Meaning::Server(Again::Soon), "; it is still storing an earlier copy of it")
            }
            (_, 400..=499) => (Meaning::Subject, "; check the stream"),
            _ => (Meaning::Server(Again::Soon), ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(payload: &str) -> Result<(), Meaning> {
        let message = Message {
            subject: "inbox".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        stored("s", Ok(message)).map_err(|(meaning, _)| meaning)
    }

    #[test]
    fn only_what_a_stream_has_stored_is_delivered() {
        assert_eq!(meaning(r#"{"stream":"S","seq":7}"#), Ok(()));
        assert_eq!(meaning(r#"{"stream":"S","seq":7,"duplicate":true,"domain":"d"}"#), Ok(()));
        let not_yet = r#"{"stream":"S","seq":0,"duplicate":true}"#;
        assert_eq!(meaning(not_yet), Err(Meaning::Server(Again::Soon)));
        for other in ["", "+OK", "{}", "[]", r#"{"stream":"S","seq":0}"#, r#"{"seq":7}"#] {
            assert_eq!(meaning(other), Err(Meaning::Subject), "{other}");
        }
    }

    #[test]
    fn an_error_says_whether_the_message_the_stream_or_the_server_is_at_fault() {
        let (soon, seldom) = (Meaning::Server(Again::Soon), Meaning::Server(Again::Seldom));
        for (code, err_code, wanted) in [
            (400, 10054, Meaning::Rejected),
            (400, 10097, Meaning::Rejected),
            (503, 10077, Meaning::Subject),
            (400, 10060, Meaning::Subject),
            (503, 10047, seldom),
            (400, 10002, seldom),
            (503, 10076, seldom),
            (503, 10008, soon),
            (400, 10071, Meaning::Subject),
            (409, 10158, soon),
            (500, 0, soon),
        ] {
            let error = format!(r#"{{"code":{code},"err_code":{err_code},"description":"d"}}"#);
            let answer = format!(r#"{{"type":"t","error":{error},"stream":"S","seq":0}}"#);
            assert_eq!(meaning(&answer), Err(wanted), "{err_code}");
        }
    }
}
