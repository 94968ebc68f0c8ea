//! Posts to an address: a request for each record, or batches of them.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use reqwest::{Method, Request, Url, header::HeaderMap};
use tokio::time::Instant;

use super::{Again, Connect, DeliverError, Failure, FailureKind, Sink};
use crate::{
    api::{
        connect::{self, Endpoint},
        credentials::Secrets,
    },
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record, lanes},
};

mod answer;
mod body;

use answer::{Answer, HttpError};
use body::{Batch, Encoding};

/// Records of one call for each worker, where each has a request of its own: few, so that a call
/// can end within the grace period.
const RECORDS_PER_WORKER: usize = 4;
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
    headers: Secrets<HeaderMap>,
    encoding: Encoding,
    workers: usize,
    batch_records: usize,
    batch_bytes: usize,
    timeout: Duration,
    left_alone: Mutex<Option<LeftAlone>>,
}

/// The receiver asked not to be asked again for a time.
struct LeftAlone {
    until: Instant,
    why: HttpError,
}

impl Connect for Http {
    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let endpoint = connect::receiver(env);
        let headers = Secrets::read_headers(env, "SINK_HTTP_HEADERS", "SINK_HTTP_HEADERS_FILE");
        let encoding = Encoding::from_env(env, format);
        let workers = env.within("SINK_WORKER_COUNT", 1, MAX_WORKERS);
        let batch_records = env.within("SINK_HTTP_BATCH_RECORDS", 500, MAX_BATCH_RECORDS);
        let batch_bytes = env.within("SINK_HTTP_BATCH_BYTES", 1 << 20, MAX_BATCH_BYTES);
        let timeout = env.duration("SINK_HTTP_TIMEOUT", TIMEOUT);
        let endpoint = endpoint?;
        let url = Url::parse(&endpoint.target);
        let url = url.map_err(|err| env.note("SINK_HTTP_ADDRESS", err.to_string()));
        Ok(Self {
            url: url?,
            endpoint,
            headers: headers?,
            encoding: encoding?,
            workers: workers?,
            batch_records: batch_records?,
            batch_bytes: batch_bytes?,
            timeout: timeout?,
            left_alone: Mutex::default(),
        })
    }
}

#[async_trait]
impl Sink for Http {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        if let Some((left, why)) = self.left_alone() {
            return Err(DeliverError::Unavailable {
                source: why.into(),
                again: Again::After(left),
            });
        }
        let lanes = lanes(records, self.workers);
        let sent = join_all(lanes.iter().map(|lane| self.send(records, lane))).await;
        let mut failures = Vec::new();
        let mut unavailable = None;
        for (lane, again) in sent {
            failures.extend(lane);
            unavailable = unavailable.or(again);
        }
        // What a worker was told counts for all of them.
        let unavailable = self.left_alone().map(|(left, _)| Again::After(left)).or(unavailable);
        let transient = failures.iter().all(|it| it.kind == FailureKind::Transient);
        match (failures.first(), unavailable) {
            (None, _) => Ok(()),
            (Some(_), Some(again)) if transient && failures.len() == records.len() => {
                let first = failures.swap_remove(0);
                Err(DeliverError::Unavailable { source: first.source, again })
            }
            (Some(_), _) => Err(DeliverError::Failed(failures)),
        }
    }

    fn limits(&self) -> Limits {
        let (records, bytes) = match self.encoding.batch {
            Batch::Off => (RECORDS_PER_WORKER, Limits::default().bytes),
            _ => (self.batch_records, self.batch_bytes),
        };
        let (records, bytes) = (records * self.workers, bytes.saturating_mul(self.workers));
        Limits { records, bytes: bytes.min(MAX_BATCH_BYTES), ..Limits::default() }
    }

    /// Only asks whether anybody is there: what a receiver takes is known once it has taken it.
    async fn check(&self) -> Result<(), DeliverError> {
        let request = Request::new(Method::HEAD, self.url.clone());
        match self.ask(request).await {
            Answer::Unavailable(
                err @ (HttpError::NoAnswer { .. } | HttpError::Denied { .. }),
                _,
            ) => Err(DeliverError::unavailable(err)),
            Answer::Taken | Answer::Refused(_) | Answer::Unavailable(..) => Ok(()),
        }
    }
}

impl Http {
    /// For how long the receiver wants to be left alone, and what it said.
    fn left_alone(&self) -> Option<(Duration, HttpError)> {
        let left_alone = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        let LeftAlone { until, why } = left_alone.as_ref()?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| (left, why.clone()))
    }

    fn leave_alone(&self, wait: Duration, why: &HttpError) {
        let mut left_alone = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + wait;
        let until = left_alone.as_ref().map_or(until, |it| it.until.max(until));
        *left_alone = Some(LeftAlone { until, why: why.clone() });
    }

    /// Sends the records of a lane in order. A receiver that is there and does not take some of
    /// them may take the others; one that is not, or wants to be left alone, is.
    async fn send(&self, records: &[Record], lane: &[usize]) -> (Vec<Failure>, Option<Again>) {
        let mut failures = Vec::new();
        let mut skipped: HashSet<&str> = HashSet::new();
        let mut rest = lane;
        while !rest.is_empty() {
            let of = |at: &usize| records.get(*at);
            let mut fail = |positions: &[usize], kind, source: &HttpError| {
                failures.extend(positions.iter().map(|position| {
                    let source: BoxError = source.clone().into();
                    Failure { position: *position, kind, source }
                }));
            };
            if let Some((left, why)) = self.left_alone() {
                fail(rest, FailureKind::Transient, &why);
                return (failures, Some(Again::After(left)));
            }
            let (group, behind) = rest.split_at(self.group(records, rest));
            rest = behind;
            if group.iter().filter_map(of).any(|it| skipped.contains(&*it.key)) {
                fail(group, FailureKind::Transient, &self.later());
                continue;
            }
            match self.post(group.iter().filter_map(of)).await {
                Answer::Taken => (),
                Answer::Refused(err) if group.len() == 1 => {
                    fail(group, FailureKind::Rejected, &err);
                }
                Answer::Refused(err) => fail(group, FailureKind::Suspect, &err),
                Answer::Unavailable(err, again) => {
                    fail(group, FailureKind::Transient, &err);
                    if let Again::After(wait) = again {
                        self.leave_alone(wait, &err);
                    }
                    if again != Again::Soon || !err.is_an_answer() {
                        fail(rest, FailureKind::Transient, &err);
                        return (failures, Some(again));
                    }
                    skipped.extend(group.iter().filter_map(of).map(|it| &*it.key));
                }
            }
        }
        (failures, None)
    }

    fn later(&self) -> HttpError {
        HttpError::Later { address: self.endpoint.shown.clone() }
    }

    /// How many of these go into one request.
    fn group(&self, records: &[Record], lane: &[usize]) -> usize {
        if self.encoding.batch == Batch::Off {
            return 1;
        }
        let mut bytes = 1;
        let fits = |at: &&usize| {
            bytes += records.get(**at).map_or(0, |it| self.encoding.size(it));
            bytes <= self.batch_bytes
        };
        lane.iter().take(self.batch_records).take_while(fits).count().max(1)
    }

    async fn post<'a>(&self, records: impl Iterator<Item = &'a Record> + Clone) -> Answer {
        let mut request = Request::new(Method::POST, self.url.clone());
        self.encoding.write(records, &mut request);
        self.ask(request).await
    }

    async fn ask(&self, mut request: Request) -> Answer {
        if let Some(headers) = self.headers.current() {
            request.headers_mut().extend(headers);
        }
        self.endpoint.credentials.apply(request.headers_mut());
        *request.timeout_mut() = Some(self.timeout);
        answer::read(self.endpoint.client.execute(request).await, &self.endpoint.shown).await
    }
}
