//! Looks for a stream, through JetStream's own API.

use async_nats::{Request, RequestErrorKind};

use super::{
    answer::{Answer, PublishError},
    link::Link,
    subject::Subject,
    unavailable,
};
use crate::sink::DeliverError;

/// The error for a stream that is not there.
const NO_SUCH_STREAM: u32 = 10059;

/// Whether there is JetStream, and this stream, or one that has the subject.
pub(super) async fn stream(
    link: &Link,
    stream: Option<&str>,
    subject: &Subject,
) -> Result<(), DeliverError> {
    let constant = subject.is_constant();
    let (api, question) = match stream {
        Some(stream) => (format!("STREAM.INFO.{stream}"), String::new()),
        None if constant => {
            let question = serde_json::json!({"subject": subject.text()});
            ("STREAM.NAMES".to_owned(), question.to_string())
        }
        None => ("INFO".to_owned(), String::new()),
    };
    let api = format!("$JS.API.{api}");
    let question = Request::new().payload(question.into()).timeout(None);
    let answer = tokio::select! {
        answer = link.client().send_request(api.clone(), question) => answer,
        // Who may publish need not have this right.
        denied = link.denied(&api) => return denied.map_err(unavailable),
    };
    let answer = match answer {
        Ok(message) => serde_json::from_slice::<Answer>(&message.payload),
        Err(err) if err.kind() == RequestErrorKind::NoResponders => {
            return Err(DeliverError::unusable(PublishError::NoJetStream));
        }
        Err(err) => return Err(DeliverError::unavailable(err)),
    };
    let Answer { error, streams, .. } = answer.map_err(DeliverError::unavailable)?;
    let wrong = match (error, stream) {
        (Some(error), Some(stream)) if error.err_code == NO_SUCH_STREAM => {
            PublishError::NoSuchStream(stream.to_owned())
        }
        (Some(error), _) => PublishError::Api(error.meaning().1, error),
        (None, None) if constant && streams.as_array().is_none_or(Vec::is_empty) => {
            PublishError::NoStream(subject.text().to_owned())
        }
        (None, _) => return Ok(()),
    };
    Err(DeliverError::unusable(wrong))
}
