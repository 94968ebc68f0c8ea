//! Nomad and Consul: the clients generated from `openapi/`, and what an OpenAPI document cannot
//! say: addresses, TLS, tokens, time limits, and what an operator can do about an error.

use std::{fmt, time::Duration};

use progenitor_client::{ClientHooks, ClientInfo, OperationInfo};

mod address;
mod answer;
pub mod connect;
pub(crate) mod credentials;
mod kv;
mod lists;
pub(crate) mod tls;
mod variables;

pub use answer::{ApiError, Result};
pub use kv::{Consul, Entry, LOCK_FLAGS, Lock, TxnRefused, Write};
pub use lists::{Nomad, Page, Query};
pub use progenitor_client::ByteStream;
pub use variables::{Acquired, Found, Items, Member, Variable, Variables, Written};

use connect::Endpoint;
use credentials::Credentials;

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

/// What a generated client needs beyond its document.
#[derive(Clone)]
pub struct State {
    credentials: Option<Credentials>,
    transport: Transport,
}

/// How requests travel.
#[derive(Clone)]
enum Transport {
    Network,
    /// To a stand-in in this process, without sockets, so that a test can pause the clock.
    #[cfg(feature = "demo")]
    Router(axum::Router),
}

impl State {
    fn network(endpoint: &Endpoint) -> Self {
        Self { credentials: Some(endpoint.credentials.clone()), transport: Transport::Network }
    }

    #[cfg(feature = "demo")]
    fn router(router: axum::Router) -> Self {
        Self { credentials: None, transport: Transport::Router(router) }
    }

    fn prepare(&self, request: &mut reqwest::Request) {
        // The generated client names the version of its document, which no server asks for.
        request.headers_mut().remove("api-version");
        if let Some(credentials) = &self.credentials {
            credentials.apply(request.headers_mut());
        }
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
    ) -> reqwest::Result<reqwest::Response> {
        match &self.transport {
            Transport::Network => client.execute(request).await,
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
                _: &OperationInfo,
            ) -> reqwest::Result<reqwest::Response> {
                self.inner().send(self.client(), request).await
            }
        }
    )+};
}

hooks!(nomad::Client, consul::Client);
