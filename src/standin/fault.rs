//! Scripted faults: what goes wrong, in which request, and what was asked at all.

use std::{
    collections::VecDeque,
    future, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::{
    answer::{self, Dialect},
    nomad::Snapshot,
};

/// How many requests the log remembers; the demo runs for ever.
const REQUESTS_KEPT: usize = 100_000;

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer this instead.
    Status {
        /// The status code.
        code: u16,
        /// The body, as plain text unless `headers` say something else.
        body: String,
        /// Headers to add or replace.
        headers: Vec<(&'static str, String)>,
    },
    /// Carry the request out, then cut the connection within the body (at 0: right after the headers).
    CutBody {
        /// How much of the body still arrives.
        after_bytes: usize,
    },
    /// Answer 200 with this body, say of a proxy in between.
    GarbageBody {
        /// The body.
        body: Bytes,
        /// Its type.
        content_type: &'static str,
    },
    /// Never answer.
    Hang,
    /// Begin only after this time.
    Delay(Duration),
    /// Leave the index header out.
    NoIndex,
    /// Send this text as the index.
    GarbledIndex(String),
    /// Send this index.
    Index(u64),
    /// Answer at once from an older state, as a server that lags does (Nomad only); an event stream never gets beyond it.
    Lagging(Snapshot),
    /// Say whether a leader is known.
    KnownLeader(bool),
    /// Answer as a Nomad client agent that is shutting down: 200, `[]`, index 0, no leader.
    EmptyDying,
    /// Send the client elsewhere.
    Redirect(String),
    /// Carry the request out, then answer 500 as if the answer was lost on its way.
    LoseAnswer,
}

impl Fault {
    /// An error answer with this text.
    pub fn status(code: u16, body: impl Into<String>) -> Self {
        Self::Status { code, body: body.into(), headers: Vec::new() }
    }

    /// What happens before the request is carried out; an answer if it never is.
    pub(super) async fn before(&self, dialect: Dialect) -> Option<Response> {
        match self {
            Self::Status { code, body, headers } => Some(status(*code, body, headers)),
            Self::GarbageBody { body, content_type } => {
                Some(answer::with_type(StatusCode::OK, content_type, Body::from(body.clone())))
            }
            Self::EmptyDying => Some(dialect.read(answer::json("[]"), 0, false)),
            Self::Redirect(url) => Some(status(
                StatusCode::TEMPORARY_REDIRECT.as_u16(),
                "",
                &[("location", url.clone())],
            )),
            Self::Hang => future::pending().await,
            Self::Delay(time) => {
                sleep(*time).await;
                None
            }
            Self::CutBody { .. }
            | Self::NoIndex
            | Self::GarbledIndex(_)
            | Self::Index(_)
            | Self::Lagging(_)
            | Self::KnownLeader(_)
            | Self::LoseAnswer => None,
        }
    }

    /// What happens to the answer of a request that was carried out.
    pub(super) fn after(self, dialect: Dialect, mut response: Response) -> Response {
        match self {
            Self::CutBody { after_bytes } => return response.map(|body| cut(body, after_bytes)),
            Self::LoseAnswer => {
                let text = "rpc error making call: EOF";
                return answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
            }
            Self::NoIndex => {
                response.headers_mut().remove(dialect.index());
            }
            Self::GarbledIndex(text) => set(&mut response, dialect.index(), &text),
            Self::Index(index) => set(&mut response, dialect.index(), &index.to_string()),
            Self::KnownLeader(known) => {
                set(&mut response, dialect.known_leader(), &known.to_string())
            }
            Self::Status { .. }
            | Self::GarbageBody { .. }
            | Self::Hang
            | Self::Delay(_)
            | Self::Lagging(_)
            | Self::EmptyDying
            | Self::Redirect(_) => {}
        }
        response
    }
}

fn status(code: u16, body: &str, headers: &[(&'static str, String)]) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer::text(code, body.to_owned());
    for (name, value) in headers {
        set(&mut response, name, value);
    }
    response
}

/// Sets a header; a name or value that HTTP cannot carry is left out.
fn set(response: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}

fn cut(body: Body, after_bytes: usize) -> Body {
    let chunks = body.into_data_stream();
    Body::from_stream(stream::unfold(Some((chunks, after_bytes)), async |left| {
        let (mut chunks, left) = left?;
        if left > 0
            && let Some(Ok(mut chunk)) = chunks.next().await
        {
            chunk.truncate(left);
            let left = left - chunk.len();
            return Some((Ok(chunk), Some((chunks, left))));
        }
        // The HTTP server writes what it has when the body makes it wait, and throws it away when the body fails.
        tokio::task::yield_now().await;
        Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
    }))
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as sent, with its escapes.
    pub path: String,
    /// The query as sent, without the question mark.
    pub query: String,
    /// The encodings that the client understands.
    pub accept_encoding: String,
    /// When it arrived.
    pub at: Instant,
}

impl Request {
    /// Whether the query has this parameter with this value.
    pub fn asks(&self, parameter: &str) -> bool {
        self.query.split('&').any(|pair| pair == parameter)
    }
}

/// Whether requests get through at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Reach {
    #[default]
    Connected,
    /// Requests vanish, and so do the answers to those under way.
    Silent,
    /// Every request is answered with an error for want of a leader.
    Leaderless,
}

/// The faults to come and the requests that were.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<Scripted>);

#[derive(Debug, Default)]
struct Scripted {
    faults: VecDeque<(String, Fault)>,
    requests: VecDeque<Request>,
    reach: Reach,
}

impl Script {
    /// The next request whose path, or method and path, begins so gets the fault; the first such entry is used up.
    pub(super) fn add(&self, prefix: &str, fault: Fault) {
        self.lock().faults.push_back((prefix.to_owned(), fault));
    }

    pub(super) fn set_reach(&self, reach: Reach) {
        self.lock().reach = reach;
    }

    pub(super) fn is_silent(&self) -> bool {
        self.lock().reach == Reach::Silent
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().faults.len()
    }

    /// Drops the faults that still wait for their request; how many these were.
    pub(super) fn forget(&self) -> usize {
        let mut scripted = self.lock();
        std::mem::take(&mut scripted.faults).len()
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.lock().requests.iter().cloned().collect()
    }

    /// Logs a request, and gives the answer to one that is not carried out or the fault that its answer will have.
    pub(super) async fn admit(
        &self,
        dialect: Dialect,
        request: &Parts,
    ) -> Result<Option<Fault>, Box<Response>> {
        let (reach, fault) = self.arrived(request);
        match reach {
            Reach::Connected => {}
            Reach::Silent => future::pending().await,
            Reach::Leaderless => {
                return Err(Box::new(answer::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "No cluster leader",
                )));
            }
        }
        match &fault {
            None => Ok(None),
            Some(fault_now) => match fault_now.before(dialect).await {
                Some(instead) => Err(Box::new(instead)),
                None => Ok(fault),
            },
        }
    }

    /// Lets an answer out, with its fault, unless nothing gets through by now.
    pub(super) async fn release(
        &self,
        dialect: Dialect,
        fault: Option<Fault>,
        response: Response,
    ) -> Response {
        if self.lock().reach == Reach::Silent {
            future::pending::<()>().await;
        }
        match fault {
            None => response,
            Some(fault) => fault.after(dialect, response),
        }
    }

    fn arrived(&self, request: &Parts) -> (Reach, Option<Fault>) {
        let Parts { method, uri, headers, .. } = request;
        let mut scripted = self.lock();
        if scripted.requests.len() == REQUESTS_KEPT {
            scripted.requests.pop_front();
        }
        let encodings = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        scripted.requests.push_back(Request {
            method: method.clone(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            accept_encoding: encodings.unwrap_or_default().to_owned(),
            at: Instant::now(),
        });
        let full = format!("{method} {}", uri.path());
        let matching = |(prefix, _): &(String, Fault)| {
            uri.path().starts_with(prefix.as_str()) || full.starts_with(prefix.as_str())
        };
        let found = scripted.faults.iter().position(matching);
        let fault = found.and_then(|position| scripted.faults.remove(position));
        (scripted.reach, fault.map(|(_, fault)| fault))
    }

    fn lock(&self) -> MutexGuard<'_, Scripted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
