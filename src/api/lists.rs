//! Nomad, as the streams see it.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::HeaderMap;
use progenitor_client::{ByteStream, ResponseValue};
use tokio::time::timeout;

use super::{
    REQUEST_LIMIT, State,
    answer::{ApiError, Result, Server, shown},
    connect::{Credentials, Endpoint},
    credentials, nomad,
    variables::Variables,
};
use crate::cursor::Index;

/// An object read by id that stops arriving for so long is given up.
const BODY_LIMIT: Duration = Duration::from_secs(60);

/// A list query.
#[derive(Clone, Debug)]
pub struct Query {
    /// Answer once the list is past this index, or when `wait` is over; at once where unset.
    pub past: Option<Index>,
    /// The longest wait. The server adds up to a sixteenth.
    pub wait: Duration,
    /// Whether any server may answer, from a state that may lag behind the leader's.
    pub stale: bool,
    /// A namespace, or `*`.
    pub namespace: String,
    /// Only objects whose id begins so.
    pub prefix: Option<String>,
}

/// A list, as it arrives.
pub struct Page {
    /// `X-Nomad-Index`: the index of the last write to the table.
    pub index: Index,
    /// `X-Nomad-KnownLeader`: whether the server that answered knows a leader.
    pub known_leader: bool,
    /// The list.
    pub body: ByteStream,
}

/// A handle to Nomad. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nomad {
    pub(super) client: nomad::Client,
    pub(super) server: Server,
    region: Option<String>,
    credentials: Option<Credentials>,
}

/// The five lists have the same parameters.
macro_rules! lists {
    ($($(#[doc = $about:literal])+ $name:ident, $doing:literal;)+) => {
        impl Nomad {$(
            $(#[doc = $about])+
            pub async fn $name(&self, query: &Query) -> Result<Page> {
                let mut request = self.client.$name().namespace(&query.namespace);
                if let Some(Index(past)) = query.past {
                    request = request.index(past).wait(format!("{}ms", query.wait.as_millis()));
                }
                if query.stale {
                    request = request.stale(true);
                }
                if let Some(region) = &self.region {
                    request = request.region(region);
                }
                if let Some(prefix) = &query.prefix {
                    request = request.prefix(prefix);
                }
                let limit = limit(query.past, query.wait);
                let answer = self.server.ask($doing, limit, request.send()).await?;
                self.page($doing, answer)
            }
        )+}
    };
}

lists! {
    /// Lists the allocations, with the states of their tasks.
    list_allocations, "list allocations";
    /// Lists the nodes in short form.
    list_nodes, "list nodes";
    /// Lists the evaluations.
    list_evaluations, "list evaluations";
    /// Lists the jobs in short form.
    list_jobs, "list jobs";
    /// Lists the deployments.
    list_deployments, "list deployments";
}

/// When to give up: the server may hold the query for the wait and a sixteenth of it.
fn limit(past: Option<Index>, wait: Duration) -> Duration {
    let wait = if past.is_some() { wait } else { Duration::ZERO };
    wait + wait / 16 + REQUEST_LIMIT
}

/// A header, where it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|it| it.to_str().ok())
}

impl Nomad {
    /// Nomad at an endpoint; in a region other than the agent's own where one is given.
    #[must_use]
    pub fn new(endpoint: Endpoint, region: Option<String>) -> Self {
        let server = Server {
            name: format!("Nomad at {}", endpoint.shown),
            variable: "NOMAD_ADDR",
            token: "NOMAD_TOKEN (or NOMAD_FIREHOSE_TOKEN_FILE)",
        };
        let state = State::network(&endpoint);
        let credentials = Some(endpoint.credentials.clone());
        let client = nomad::Client::new_with_client(&endpoint.base, endpoint.client(), state);
        Self { client, server, region, credentials }
    }

    /// A stand-in in this process.
    #[cfg(feature = "demo")]
    #[must_use]
    pub fn stand_in(router: axum::Router, client: reqwest::Client) -> Self {
        let client =
            nomad::Client::new_with_client("http://nomad.test", client, State::router(router));
        let server = Server {
            name: "the stand-in Nomad".into(),
            variable: "NOMAD_ADDR",
            token: "NOMAD_TOKEN (or NOMAD_FIREHOSE_TOKEN_FILE)",
        };
        Self { client, server, region: None, credentials: None }
    }

    /// The server, as errors name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// Where its token comes from.
    #[must_use]
    pub fn token(&self) -> String {
        let token = self.credentials.as_ref().map(|it| it.source("NOMAD_TOKEN"));
        token.unwrap_or_else(|| "none".to_owned())
    }

    /// How often the token was replaced.
    #[must_use]
    pub fn token_changes(&self) -> u64 {
        self.credentials.as_ref().map_or(0, Credentials::changes)
    }

    /// Resolves once there is another token than now.
    pub async fn token_changed(&self) {
        credentials::changed(self.credentials.as_ref()).await;
    }

    /// Its variables in a namespace.
    #[must_use]
    pub fn variables(&self, namespace: &str) -> Variables {
        let Self { client, server, region, credentials } = self.clone();
        Variables::new((client, credentials), server, region, namespace)
    }

    /// Reads a node; `None` where there is none. `fresh` asks the leader.
    pub async fn node(&self, id: &str, fresh: bool) -> Result<Option<Bytes>> {
        let mut request = self.client.get_node().node_id(id);
        if !fresh {
            request = request.stale(true);
        }
        if let Some(region) = &self.region {
            request = request.region(region);
        }
        let doing = format!("read node {id}");
        self.object(&doing, self.server.ask(&doing, REQUEST_LIMIT, request.send()).await).await
    }

    /// Reads a job; `None` where there is none. `fresh` asks the leader.
    pub async fn job(&self, id: &str, namespace: &str, fresh: bool) -> Result<Option<Bytes>> {
        let mut request = self.client.get_job().job_id(id);
        if !namespace.is_empty() {
            request = request.namespace(namespace);
        }
        if !fresh {
            request = request.stale(true);
        }
        if let Some(region) = &self.region {
            request = request.region(region);
        }
        let doing = format!("read job {id} of namespace {namespace}");
        self.object(&doing, self.server.ask(&doing, REQUEST_LIMIT, request.send()).await).await
    }

    /// Names of the namespaces that the token may see.
    pub async fn namespaces(&self) -> Result<Vec<String>> {
        Ok(self.namespaces_past(None, Duration::ZERO).await?.1)
    }

    /// The same, once their index is past this one or `wait` is over; at once where it is unset.
    /// The index comes first.
    pub async fn namespaces_past(
        &self,
        past: Option<Index>,
        wait: Duration,
    ) -> Result<(Index, Vec<String>)> {
        let mut request = self.client.list_namespaces();
        if let Some(Index(past)) = past {
            request = request.index(past).wait(format!("{}ms", wait.as_millis()));
        }
        if let Some(region) = &self.region {
            request = request.region(region);
        }
        let doing = "list namespaces";
        let answer = self.server.ask(doing, limit(past, wait), request.send()).await?;
        let index = self.index(doing, answer.headers())?;
        Ok((index, answer.into_inner().into_iter().map(|it| it.name).collect()))
    }

    /// Subscribes to the events of a topic, from an index on, as one object per line. The first
    /// line comes at once from a server that lets the token read them.
    pub async fn subscribe(
        &self,
        topic: &str,
        namespace: &str,
        Index(index): Index,
    ) -> Result<ByteStream> {
        let mut request = self.client.stream_events().topic(topic).namespace(namespace);
        request = request.index(index).accept_encoding("identity");
        if let Some(region) = &self.region {
            request = request.region(region);
        }
        let doing = "subscribe to events";
        Ok(self.server.ask(doing, REQUEST_LIMIT, request.send()).await?.into_inner())
    }

    /// The version of the agent, as it gives it.
    pub async fn version(&self) -> Result<String> {
        let request = self.client.get_agent().send();
        let answer = self.server.ask("ask for the version", REQUEST_LIMIT, request).await?;
        Ok(answer.into_inner().config.version.version)
    }

    /// The error for a body that broke off.
    #[must_use]
    pub fn body_failed(&self, doing: &str, err: reqwest::Error) -> ApiError {
        self.server.unreachable(format!("read the list of {doing} to its end"), err.without_url())
    }

    fn page(&self, doing: &str, answer: ResponseValue<ByteStream>) -> Result<Page> {
        let index = self.index(doing, answer.headers())?;
        let known_leader = text(answer.headers(), "X-Nomad-KnownLeader") != Some("false");
        Ok(Page { index, known_leader, body: answer.into_inner() })
    }

    fn index(&self, doing: &str, headers: &HeaderMap) -> Result<Index> {
        let index = text(headers, "X-Nomad-Index");
        let Some(Ok(index)) = index.map(str::parse) else {
            let what = match index {
                Some(text) => format!("X-Nomad-Index `{}`", shown(text.as_bytes())),
                None => "no X-Nomad-Index".to_owned(),
            };
            return Err(self.server.unexpected(doing, what));
        };
        Ok(Index(index))
    }

    async fn object(
        &self,
        doing: &str,
        answer: Result<ResponseValue<ByteStream>>,
    ) -> Result<Option<Bytes>> {
        let mut chunks = match answer {
            Ok(answer) => answer.into_inner_stream(),
            Err(err) if err.is_not_found() => return Ok(None),
            Err(err) => return Err(err),
        };
        let mut body = Vec::new();
        loop {
            let chunk = timeout(BODY_LIMIT, chunks.try_next()).await.map_err(|_| {
                self.server.unreachable(doing.to_owned(), "the answer stopped arriving")
            })?;
            let chunk = chunk.map_err(|err| self.server.broken(doing.to_owned(), err))?;
            let Some(chunk) = chunk else { return Ok(Some(Bytes::from(body))) };
            body.extend_from_slice(&chunk);
        }
    }
}
