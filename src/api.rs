//! Nomad and Consul: the clients generated from `openapi/`, and what an OpenAPI document cannot
//! say: addresses, TLS, tokens, time limits, and what an operator can do about an error.

use std::{fmt, time::Duration};

use progenitor_client::{ClientHooks, ClientInfo, OperationInfo};
use reqwest::{Method, Request, Response, StatusCode, Url};

mod address;
mod answer;
mod certificates;
pub mod connect;
pub(crate) mod credentials;
mod kv;
mod limit;
mod lists;
#[cfg(feature = "nats")]
mod named;
pub(crate) mod reload;
mod rights;
#[cfg(any(feature = "nsq", feature = "syslog"))]
pub(crate) mod socket;
pub(crate) mod tls;
mod variables;

pub use answer::{ApiError, Result};
pub use kv::{Consul, Entry, LOCK_FLAGS, Lock, TxnRefused, Write};
pub use lists::{Nomad, Page, Query};
pub use progenitor_client::ByteStream;
pub use rights::{Access, Agent, Holder, Token};
pub use variables::{Acquired, Found, Items, Member, Variable, Variables, Written};

use connect::Endpoint;
use credentials::Credentials;
use reload::Reloaded;

pub use generated::{consul, nomad};

/// What `build.rs` makes of the documents.
#[allow(
    clippy::all,
    clippy::expect_used,
    clippy::unwrap_used,
    mismatched_lifetime_syntaxes,
    missing_docs,
    unreachable_pub,
    unused,
    reason = "generated"
)]
mod generated {
    /// The client of Nomad that `openapi/nomad.yaml` generates.
    pub mod nomad {
        include!(concat!(env!("OUT_DIR"), "/nomad.rs"));
    }

    /// The client of Consul that `openapi/consul.yaml` generates.
    pub mod consul {
        include!(concat!(env!("OUT_DIR"), "/consul.rs"));
    }
}

/// A request that does not block, and the time on top of the wait of one that does.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// A request is sent with so many tokens, where each is replaced while it is under way.
const MAX_TOKENS: u32 = 3;

/// What a generated client needs beyond its document.
#[derive(Clone)]
pub struct State {
    credentials: Option<Credentials>,
    transport: Transport,
}

/// How requests travel.
#[derive(Clone)]
enum Transport {
    Network(Reloaded<reqwest::Client>),
    /// To a stand-in in this process, without sockets, so that a test can pause the clock.
    #[cfg(feature = "demo")]
    Router(axum::Router),
}

impl State {
    fn network(endpoint: &Endpoint) -> Self {
        let credentials = Some(endpoint.credentials.clone());
        Self { credentials, transport: Transport::Network(endpoint.clients.clone()) }
    }

    #[cfg(feature = "demo")]
    fn router(router: axum::Router) -> Self {
        Self { credentials: None, transport: Transport::Router(router) }
    }

    fn prepare(&self, request: &mut Request) {
        // The generated client names the version of its document, which no server asks for.
        request.headers_mut().remove("api-version");
        if let Some(credentials) = &self.credentials {
            credentials.apply(request.headers_mut());
        }
    }

    /// Sends a request. Where it is denied and its token was replaced meanwhile, or that is so
    /// while the server holds it back, it is sent again with the new one at once.
    async fn send(
        &self,
        mut request: Request,
        operation: &OperationInfo,
    ) -> reqwest::Result<Response> {
        let replaceable = self.credentials.as_ref().filter(|it| it.may_change());
        if let Some(credentials) = replaceable {
            for _ in 1..MAX_TOKENS {
                let Some(copy) = request.try_clone() else { break };
                let reads = request.method() == Method::GET;
                let answer = tokio::select! {
                    answer = self.pass(copy) => Some(answer?),
                    () = credentials.replaced(request.headers()), if reads => None,
                };
                let replaced = credentials.apply(request.headers_mut());
                match answer {
                    Some(answer) if !(replaced && may_be_denial(reads, answer.status())) => {
                        return Ok(limit::limited(answer, operation));
                    }
                    Some(_) => (),
                    None => answer_at_once(request.url_mut()),
                }
            }
        }
        Ok(limit::limited(self.pass(request).await?, operation))
    }

    async fn pass(&self, request: Request) -> reqwest::Result<Response> {
        match &self.transport {
            // Not the generated client's own, whose certificates are those of the start.
            Transport::Network(clients) => clients.current().execute(request).await,
            #[cfg(feature = "demo")]
            Transport::Router(router) => {
                use tower::ServiceExt;
                let request = http::Request::try_from(request)?.map(axum::body::Body::new);
                let Ok(response) = router.clone().oneshot(request).await;
                let stream =
                    |body: axum::body::Body| reqwest::Body::wrap_stream(body.into_data_stream());
                Ok(response.map(stream).into())
            }
        }
    }
}

/// Whether an answer may mean that the token is not accepted. Nomad 1.0 denies with 500; what was
/// to change something may have been carried out then.
fn may_be_denial(reads: bool, status: StatusCode) -> bool {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        StatusCode::INTERNAL_SERVER_ERROR => reads,
        _ => false,
    }
}

/// Takes the wait out of a query: a part of it is over, and whoever asked reckons with the whole.
fn answer_at_once(url: &mut Url) {
    if url.query_pairs().all(|(name, _)| name != "wait") {
        return;
    }
    let is_kept = |(name, _): &(String, String)| name != "wait" && name != "index";
    let rest: Vec<_> = url.query_pairs().into_owned().filter(is_kept).collect();
    url.query_pairs_mut().clear().extend_pairs(rest);
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Both generated clients send their requests alike.
macro_rules! hooks {
    ($($client:ty),+) => {$(
        impl ClientHooks<State> for $client {
            async fn pre<E>(
                &self,
                request: &mut reqwest::Request,
                _: &OperationInfo,
            ) -> std::result::Result<(), progenitor_client::Error<E>> {
                self.inner().prepare(request);
                Ok(())
            }

            async fn exec(
                &self,
                request: reqwest::Request,
                operation: &OperationInfo,
            ) -> reqwest::Result<reqwest::Response> {
                self.inner().send(request, operation).await
            }
        }
    )+};
}

hooks!(nomad::Client, consul::Client);
