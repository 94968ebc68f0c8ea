//! What an answer means.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{Response, StatusCode, header::RETRY_AFTER};

use crate::sink::Again;

/// So much of an answer is read, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;

/// What became of a request.
pub(super) enum Answer {
    Taken,
    /// The receiver will never take these records.
    Refused(HttpError),
    Unavailable(HttpError, Again),
}

/// Neither the receiver's text nor the query of the address are in it: either could hold what
/// nobody is to see.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("post to {address}: no answer; check SINK_HTTP_ADDRESS and that it is running")]
    NoAnswer {
        address: String,
        #[source]
        source: Arc<reqwest::Error>,
    },
    #[error("post to {address}: {status}; the records are not as the receiver wants them")]
    Refused { address: String, status: StatusCode },
    #[error("post to {address}: {status}; check SINK_HTTP_TOKEN and what it permits")]
    Denied { address: String, status: StatusCode },
    #[error(
        "post to {address}: {status}; redirects are not followed, since they would carry the \
         token elsewhere: set SINK_HTTP_ADDRESS to where it leads"
    )]
    Moved { address: String, status: StatusCode },
    #[error("post to {address}: {status}; check SINK_HTTP_ADDRESS, and the receiver's own log")]
    Unavailable { address: String, status: StatusCode },
}

impl HttpError {
    /// Whether the receiver is there.
    pub(super) fn is_an_answer(&self) -> bool {
        !matches!(self, Self::NoAnswer { .. })
    }
}

/// Reads an answer to its end.
pub(super) async fn read(answer: reqwest::Result<Response>, address: &str) -> Answer {
    let address = address.to_owned();
    let mut response = match answer {
        Ok(response) => response,
        Err(err) => {
            let source = Arc::new(err.without_url());
            return Answer::Unavailable(HttpError::NoAnswer { address, source }, Again::Soon);
        }
    };
    let mut read = 0;
    // What the receiver has to say beyond its status changes nothing, nor does it if that breaks.
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER {
            break;
        }
    }
    let status = response.status();
    let later = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
    meaning(status, later, address, SystemTime::now())
}

fn meaning(status: StatusCode, later: Option<&str>, address: String, now: SystemTime) -> Answer {
    let soon = later.and_then(|it| wait(it, now)).map_or(Again::Soon, Again::After);
    match status.as_u16() {
        200..=299 => Answer::Taken,
        // 431: the attributes of a record are in headers.
        400 | 413 | 422 | 431 => Answer::Refused(HttpError::Refused { address, status }),
        408 | 425 | 429 | 500.. => {
            Answer::Unavailable(HttpError::Unavailable { address, status }, soon)
        }
        300..=399 => Answer::Unavailable(HttpError::Moved { address, status }, Again::Seldom),
        401 | 403 => Answer::Unavailable(HttpError::Denied { address, status }, Again::Seldom),
        _ => Answer::Unavailable(HttpError::Unavailable { address, status }, Again::Seldom),
    }
}

/// `Retry-After`: seconds, or a date.
fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, later: Option<&str>) -> Answer {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:30 GMT").unwrap();
        meaning(StatusCode::from_u16(status).unwrap(), later, "x".into(), now)
    }

    #[test]
    fn the_status_decides() {
        for status in [200, 201, 202, 204, 299] {
            assert!(matches!(answer(status, None), Answer::Taken), "{status}");
        }
        for status in [400, 413, 422, 431] {
            assert!(matches!(answer(status, None), Answer::Refused(_)), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let soon = matches!(answer(status, None), Answer::Unavailable(_, Again::Soon));
            assert!(soon, "{status}");
        }
        for status in [301, 307, 401, 403, 404, 405, 409, 410, 415, 451] {
            let seldom = matches!(answer(status, None), Answer::Unavailable(_, Again::Seldom));
            assert!(seldom, "{status}");
        }
    }

    #[test]
    fn a_receiver_may_say_when_to_come_back() {
        for (later, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
        ] {
            let Answer::Unavailable(_, again) = answer(503, Some(later)) else { panic!() };
            let wanted = seconds.map_or(Again::Soon, |it| Again::After(Duration::from_secs(it)));
            assert_eq!(again, wanted, "{later}");
        }
    }
}
