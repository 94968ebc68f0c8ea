//! Posts to an address: a request for each record, or batches of them.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, Request, Url, header::HeaderMap};

use super::{About, Again, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    api::{
        connect::{self, Endpoint},
        credentials::Secrets,
    },
    env::{Env, Noted},
    record::{Format, Limits, Record},
};

mod answer;
mod body;

use answer::{Answer, HttpError};
use body::{Batch, Encoding};

/// More requests at once than this are a mistake.
const MAX_WORKERS: usize = 256;
const MAX_BATCH_RECORDS: usize = 10_000;
const MAX_BATCH_BYTES: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A receiver of HTTP requests.
///
/// Delivered means that it has answered with a status of 2xx.
pub(super) struct Http {
    endpoint: Endpoint,
    url: Url,
    shown: String,
    headers: Secrets<HeaderMap>,
    encoding: Encoding,
    workers: usize,
    batch_records: usize,
    batch_bytes: usize,
    timeout: Duration,
}

impl Connect for Http {
    const SUMMARY: Summary = Summary {
        delivered: "answered with a status of 2xx",
        duplicate: "the header `ce-id`, or the CloudEvents `id`",
        set_by: &["SINK_WORKER_COUNT", "SINK_HTTP_BATCH_RECORDS", "SINK_HTTP_BATCH_BYTES"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let endpoint = connect::receiver(env);
        let headers = Secrets::read_headers(env, "SINK_HTTP_HEADERS", "SINK_HTTP_HEADERS_FILE");
        let encoding = Encoding::from_env(env, format);
        let workers = env.within("SINK_WORKER_COUNT", 1, MAX_WORKERS);
        let batch_records = env.within("SINK_HTTP_BATCH_RECORDS", 500, MAX_BATCH_RECORDS);
        let batch_bytes = env.within("SINK_HTTP_BATCH_BYTES", 1 << 20, MAX_BATCH_BYTES);
        let timeout = env.duration("SINK_HTTP_TIMEOUT", TIMEOUT);
        let timeout = timeout.and_then(|it| match it.is_zero() {
            true => Err(env.note("SINK_HTTP_TIMEOUT", "is zero: no request could be answered")),
            false => Ok(it),
        });
        let endpoint = endpoint?;
        let url = Url::parse(&endpoint.target);
        let url = url.map_err(|err| env.note("SINK_HTTP_ADDRESS", err.to_string()));
        // The path of a web address may be a secret as well.
        let shown = match Url::parse(&endpoint.shown) {
            Ok(web) if web.origin().is_tuple() => web.origin().ascii_serialization(),
            Ok(_) | Err(_) => endpoint.shown.clone(),
        };
        Ok(Self {
            url: url?,
            shown,
            endpoint,
            headers: headers?,
            encoding: encoding?,
            workers: workers?,
            batch_records: batch_records?,
            batch_bytes: batch_bytes?,
            timeout: timeout?,
        })
    }
}

#[async_trait]
impl Sink for Http {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (kind, err) = match self.post(records).await {
            Answer::Taken => return Ok(()),
            Answer::Refused(err) if records.len() == 1 => (FailureKind::Rejected, err),
            Answer::Refused(err) => (FailureKind::Suspect, err),
            // A receiver that is there may take others.
            Answer::Unavailable(err, Again::Soon) if err.is_an_answer() => {
                (FailureKind::Transient, err)
            }
            Answer::Unavailable(err, again) => {
                return Err(DeliverError::Unavailable { source: err.into(), again });
            }
        };
        let failure = |position| Failure { position, kind, source: err.clone().into() };
        Err(DeliverError::Failed((0..records.len()).map(failure).collect()))
    }

    fn limits(&self) -> Limits {
        let (records, bytes) = match self.encoding.batch {
            Batch::Off => (1, Limits::default().bytes),
            _ => (self.batch_records, self.batch_bytes),
        };
        let beside = self.encoding.beside();
        Limits { calls: self.workers, records, bytes, beside, one_per_key: false }
    }

    fn about(&self) -> About {
        let untested = "not tested: whether it takes records; it answers HEAD";
        About { at: self.shown.clone(), untested }
    }

    /// Only asks whether anybody is there: what a receiver takes is known once it has taken it.
    async fn check(&self) -> Result<(), DeliverError> {
        match self.ask(|| Request::new(Method::HEAD, self.url.clone())).await {
            Answer::Unavailable(
                err @ (HttpError::NoAnswer { .. } | HttpError::Denied { .. }),
                _,
            ) => Err(DeliverError::unavailable(err)),
            Answer::Taken | Answer::Refused(_) | Answer::Unavailable(..) => Ok(()),
        }
    }
}

impl Http {
    async fn post(&self, records: &[Record]) -> Answer {
        self.ask(|| {
            let mut request = Request::new(Method::POST, self.url.clone());
            self.encoding.write(records, &mut request);
            request
        })
        .await
    }

    /// Sends a request; once more where it is denied and its secrets were replaced meanwhile.
    async fn ask(&self, request: impl Fn() -> Request) -> Answer {
        let first = self.signed(request());
        let used = first.headers().clone();
        let answer = self.send(first).await;
        if !matches!(&answer, Answer::Unavailable(HttpError::Denied { .. }, _)) {
            return answer;
        }
        let again = self.signed(request());
        if *again.headers() == used { answer } else { self.send(again).await }
    }

    fn signed(&self, mut request: Request) -> Request {
        if let Some(headers) = self.headers.current() {
            request.headers_mut().extend(headers);
        }
        self.endpoint.credentials.apply(request.headers_mut());
        *request.timeout_mut() = Some(self.timeout);
        request
    }

    async fn send(&self, request: Request) -> Answer {
        answer::read(self.endpoint.client().execute(request).await, &self.shown).await
    }
}
