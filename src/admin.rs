//! `/metrics`, `/live` and `/ready` on one address. Nothing that a client does here holds anything
//! up: it has tasks of its own, and each thing that it waits for has a limit.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    env::{Env, Noted},
    metrics::{Identity, Metrics},
};

mod ask;

pub use ask::{Answered, ask};

/// The variable with the address.
const LISTEN: &str = "NOMAD_FIREHOSE_LISTEN";

/// Connections at once; further ones wait until one of these is over.
const MOST_CONNECTIONS: usize = 32;
/// A request has so long to come, the first one and each that follows it.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// A connection has so long, whatever its client reads or writes; a collector makes a new one.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// And then so long for the answer that is on its way.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes and lines of a request's head. A body is not read.
const MOST_BYTES: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// Before the next connection, where one could not be accepted: there are too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What the text format of Prometheus is called.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

/// An address to listen on: `0.0.0.0:9464`, `[::]:9464`, or `:9464` for every address of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(SocketAddr);

/// Text that is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address with a port, such as 0.0.0.0:9464, :9464 or [::1]:9464")]
pub struct AddressError;

/// Where to listen, and what to say of this process.
#[derive(Clone, Debug)]
pub struct Listen {
    address: Address,
    identity: Identity,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; check {LISTEN}, and whether something else listens there")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// What is served; it ends when this is dropped.
pub struct Served(#[expect(dead_code, reason = "its tasks end with it")] JoinSet<()>);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match text.strip_prefix(':') {
            Some(port) if port.bytes().all(|it| it.is_ascii_digit()) => {
                let port = port.parse().map_err(|_| AddressError)?;
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
            }
            _ => text.parse().map_err(|_| AddressError)?,
        };
        Ok(Self(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where to listen, if anywhere.
pub fn from_env(env: &Env, stream: &'static str) -> Result<Option<Listen>, Noted> {
    let address = env.optional::<Address>(LISTEN);
    // Whether these are known is for those to say that they are for.
    let sink = env.or("SINK_TYPE", String::new());
    let leader = env.or("NOMAD_FIREHOSE_LEADER", "consul".to_owned());
    let identity = Identity { stream, sink: sink?, leader: leader? };
    Ok(address?.map(|address| Listen { address, identity }))
}

/// The address that a process of this environment listens on.
pub fn address_from_env(env: &Env) -> Result<Address, Noted> {
    env.required(LISTEN, "where to ask, such as 127.0.0.1:9464")
}

/// Listens, and serves from then on.
pub async fn serve(listen: &Listen, metrics: &Arc<Metrics>) -> Result<Served, BindError> {
    let Address(address) = listen.address;
    let failed = |source| BindError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "serving metrics and health");
    let pages = Arc::new(Pages { metrics: metrics.clone(), identity: listen.identity.clone() });
    // Not in the main future: whether that goes on is one of the questions.
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, pages));
    Ok(Served(tasks))
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, pages.clone()));
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = connections.join_next() => (),
        }
    }
}

/// One connection. What goes wrong with it is its client's to notice.
async fn connection(stream: TcpStream, pages: Arc<Pages>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .max_buf_size(MOST_BYTES)
        .max_headers(MOST_HEADERS);
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let answer = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut serving => return,
        () = sleep(CONNECTION_LIMIT) => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = &mut serving => (),
        () = sleep(ANSWER_LIMIT) => (),
    }
}

/// What there is to be read.
struct Pages {
    metrics: Arc<Metrics>,
    identity: Identity,
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        if !["/metrics", "/live", "/ready"].contains(&path) {
            let text = "there are /metrics, /live and /ready\n".to_owned();
            return response(StatusCode::NOT_FOUND, PLAIN, text);
        }
        if method != Method::GET && method != Method::HEAD {
            let text = "only GET and HEAD\n".to_owned();
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/live" => {
                let found = self.metrics.health.liveness(Instant::now());
                response(status(found.live), JSON, json(&found))
            }
            "/ready" => {
                let found = self.metrics.readiness();
                response(status(found.ready), JSON, json(&found))
            }
            _ => response(StatusCode::OK, PROMETHEUS, self.metrics.text(&self.identity)),
        }
    }
}

fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// One line.
fn json(found: &impl Serialize) -> String {
    // There is nothing in it that is no JSON.
    serde_json::to_string(found).unwrap_or_default() + "\n"
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
