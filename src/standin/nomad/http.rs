//! Requests and their answers.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{Request, State as Shared},
    http::{Method, StatusCode, request::Parts},
    response::Response,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    Nomad, Snapshot, Table, Version, events, lock,
    state::{DEFAULT_NAMESPACE, Key, State, Verbatim},
    stub,
};
use crate::standin::{
    answer::{self, Dialect},
    fault::Fault,
    query::{self, Blocking, Params},
};

/// The default and the longest time that a blocking query waits.
const WAIT: Duration = Duration::from_secs(300);
/// The part of a wait that jitter may add.
const JITTER_PART: u32 = 16;
/// The length of a UUID, which is all that Nomad checks of an id before it looks it up.
const UUID_LENGTH: usize = 36;
/// The namespace that means all of them.
const WILDCARD: &str = "*";

/// What a path names.
#[derive(Debug, PartialEq)]
enum Route {
    List(Table),
    Node(String),
    Job(String),
    Namespaces,
    Leader,
    Agent,
    Token,
    Members,
    Variable(String),
    Events,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/allocations" => Self::List(Table::Allocations),
            "/v1/nodes" => Self::List(Table::Nodes),
            "/v1/evaluations" => Self::List(Table::Evaluations),
            "/v1/jobs" => Self::List(Table::Jobs),
            "/v1/deployments" => Self::List(Table::Deployments),
            "/v1/namespaces" => Self::Namespaces,
            "/v1/status/leader" => Self::Leader,
            "/v1/agent/self" => Self::Agent,
            "/v1/acl/token/self" => Self::Token,
            "/v1/agent/members" => Self::Members,
            events::PATH => Self::Events,
            _ => {
                let (kind, id) = path.strip_prefix("/v1/")?.split_once('/')?;
                match kind {
                    "node" => Self::Node(query::percent_decode(id)),
                    "job" => Self::Job(query::percent_decode(id)),
                    "var" => Self::Variable(query::percent_decode(id)),
                    _ => return None,
                }
            }
        })
    }
}

/// What the token of a request permits.
enum Access {
    Full,
    /// No token: the rights of the anonymous policy, which has none.
    Anonymous,
    /// A token that the server does not have.
    Unknown {
        uuid: bool,
    },
}

/// How a read is answered.
#[derive(Clone, Copy)]
struct Read<'a> {
    /// Answer at once, from this state.
    older: Option<&'a Snapshot>,
    /// A follower may answer.
    stale: bool,
    blocking: Blocking,
}

pub(super) async fn handle(Shared(nomad): Shared<Nomad>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let script = &nomad.0.script;
    let fault = match script.admit(Dialect::Nomad, &request).await {
        Ok(fault) => fault,
        Err(instead) => return *instead,
    };
    let older = match &fault {
        Some(Fault::Lagging(snapshot)) => Some(snapshot),
        _ => None,
    };
    let response = nomad.respond(&request, body, older).await.unwrap_or_else(|refused| *refused);
    script.release(Dialect::Nomad, fault, response).await
}

impl Nomad {
    async fn respond(
        &self,
        request: &Parts,
        body: Body,
        older: Option<&Snapshot>,
    ) -> Result<Response, Box<Response>> {
        let Parts { method, uri, .. } = request;
        let route = Route::of(uri.path()).ok_or_else(|| answer::empty(StatusCode::NOT_FOUND))?;
        if let Route::Variable(path) = &route {
            return match self.refused(request, &route, DEFAULT_NAMESPACE) {
                Some(refused) => Ok(refused),
                None => self.variable_request(request, path, body).await,
            };
        }
        if method != Method::GET {
            return Err(Box::new(answer::invalid_method()));
        }
        let params = Params::of(uri);
        if route == Route::Events {
            return self.stream(&params, self.token_of(request), older);
        }
        let namespace = params.get("namespace").unwrap_or(DEFAULT_NAMESPACE);
        let blocking = Blocking::of(&params, WAIT, WAIT)?;
        let read = Read { older, stale: self.allows_stale(&params), blocking };
        if let Some(refused) = self.refused(request, &route, namespace) {
            return Ok(refused);
        }
        match route {
            Route::List(table) => {
                let prefix = params.get("prefix").unwrap_or_default();
                let respond = |state: &State| self.list(state, table, namespace, prefix);
                Ok(self.read(read, |state| state.list_index(table), respond).await)
            }
            Route::Node(id) => self.object(read, Table::Nodes, Key::new("", &id)).await,
            Route::Job(id) => self.object(read, Table::Jobs, Key::new(namespace, &id)).await,
            Route::Namespaces => {
                let respond = |state: &State| answer::json(state.namespaces(self.0.version));
                Ok(self.read(read, |state| state.namespaces_index, respond).await)
            }
            Route::Leader => Ok(answer::json("\"127.0.0.1:4647\"")),
            Route::Agent => Ok(answer::json(agent(&self.build()).to_string())),
            Route::Token => Ok(self.token()),
            Route::Members => Ok(answer::json(members(&self.build()).to_string())),
            Route::Events | Route::Variable(_) => {
                Err(Box::new(answer::empty(StatusCode::NOT_FOUND)))
            }
        }
    }

    async fn object(
        &self,
        read: Read<'_>,
        table: Table,
        key: Key,
    ) -> Result<Response, Box<Response>> {
        // An id that no node can have is a failed look-up and not a missing node.
        if table == Table::Nodes
            && key.id.len() != UUID_LENGTH
            && self.state().object(table, &key).is_none()
        {
            let text = "node lookup failed: index error: UUID must be 36 characters";
            return Err(Box::new(answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)));
        }
        let missing = if table == Table::Nodes { "node not found" } else { "job not found" };
        let respond = |state: &State| match state.object(table, &key) {
            Some(object) => answer::json(object.body.clone()),
            None => answer::text(StatusCode::NOT_FOUND, missing),
        };
        Ok(self.read(read, |state| state.object_index(table, &key), respond).await)
    }

    /// Blocks, then answers with the state of that moment.
    async fn read(
        &self,
        read: Read<'_>,
        index: impl Fn(&State) -> u64,
        respond: impl Fn(&State) -> Response,
    ) -> Response {
        let answer = |state: &State| Dialect::Nomad.read(respond(state), index(state), true);
        if let Some(Snapshot(state)) = read.older {
            return answer(state);
        }
        let Blocking { index: beyond, wait } = read.blocking;
        let jitter = (*lock(&self.0.jitter)).min(wait / JITTER_PART);
        let deadline = Instant::now() + wait + jitter;
        let mut changed = self.0.changed.subscribe();
        while beyond > 0 && self.look(read.stale, &index) <= beyond {
            if timeout_at(deadline, changed.changed()).await.is_err() {
                break;
            }
        }
        self.look(read.stale, answer)
    }

    /// The state as the leader has it, or as the follower that may answer a stale read.
    fn look<T>(&self, stale: bool, at: impl FnOnce(&State) -> T) -> T {
        let follower = lock(&self.0.follower).clone().filter(|_| stale);
        match follower {
            Some(Snapshot(state)) => at(&state),
            None => at(&self.state()),
        }
    }

    /// Whether a request allows stale answers: for the old server by naming the parameter, whatever its value.
    fn allows_stale(&self, params: &Params) -> bool {
        match params.get("stale") {
            None => false,
            Some(value) => {
                self.0.version == Version::V1_0
                    || value.is_empty()
                    || value == "true"
                    || value == "1"
            }
        }
    }

    fn list(&self, state: &State, table: Table, namespace: &str, prefix: &str) -> Response {
        let version = self.0.version;
        let wildcard = namespace == WILDCARD && version.knows_wildcard(table);
        let rows = state.table(table);
        match &rows.verbatim {
            Some(_) if !(wildcard || namespace == DEFAULT_NAMESPACE || table == Table::Nodes) => {}
            Some(Verbatim::Recorded(list)) => return answer::json(list.clone()),
            Some(Verbatim::Generated(elements)) => {
                return answer::json(answer::generated(elements()));
            }
            None => {
                let shown =
                    |key: &Key| wildcard || table == Table::Nodes || key.namespace == namespace;
                let elements =
                    rows.objects.iter().filter(|(key, _)| shown(key) && key.id.starts_with(prefix));
                let elements = elements.map(|(key, object)| match table {
                    Table::Nodes => bytes(stub::node(version, object)),
                    Table::Jobs => {
                        let summary = state.summary(key, object);
                        bytes(stub::job(version, object, &key.namespace, wildcard, summary))
                    }
                    Table::Allocations | Table::Evaluations | Table::Deployments => {
                        object.body.clone()
                    }
                });
                return answer::json(answer::list(elements.collect()));
            }
        }
        answer::json("[]")
    }

    /// The answer to a request whose token does not permit it, if so.
    fn refused(&self, request: &Parts, route: &Route, namespace: &str) -> Option<Response> {
        let denied = |text| Some(answer::text(StatusCode::FORBIDDEN, text));
        let version = self.0.version;
        match (self.access(request), version) {
            (Access::Full, _) => None,
            (_, _) if *route == Route::Leader => None,
            (Access::Unknown { .. }, Version::V2_0) => denied("Permission denied"),
            (Access::Unknown { uuid: true }, Version::V1_0) => denied("ACL token not found"),
            (Access::Unknown { uuid: false }, Version::V1_0) => {
                let text = "acl token lookup failed: index error: UUID must be 36 characters";
                Some(answer::text(StatusCode::INTERNAL_SERVER_ERROR, text))
            }
            (Access::Anonymous, _) => match route {
                Route::Namespaces => Some(Dialect::Nomad.read(
                    answer::json("[]"),
                    self.state().namespaces_index,
                    true,
                )),
                // A trap: here a missing token looks like an empty cluster.
                Route::List(table @ (Table::Allocations | Table::Jobs))
                    if version == Version::V1_0 && namespace == WILDCARD =>
                {
                    let index =
                        if *table == Table::Jobs { 0 } else { self.state().list_index(*table) };
                    Some(Dialect::Nomad.read(answer::json("[]"), index, true))
                }
                _ => denied("Permission denied"),
            },
        }
    }

    /// The one token that there is, or that there are none.
    fn token(&self) -> Response {
        if lock(&self.0.token).is_none() {
            let code = match self.0.version {
                Version::V1_0 => StatusCode::INTERNAL_SERVER_ERROR,
                Version::V2_0 => StatusCode::BAD_REQUEST,
            };
            return answer::text(code, "ACL support disabled");
        }
        let token = json!({
            "AccessorID": "6a1253d2-1785-24fd-91c2-f8e78c745511",
            "Name": "Bootstrap Token",
            "Type": "management",
            "Policies": null,
            "Roles": null,
            "Global": true,
            "ExpirationTime": null,
            "CreateIndex": 7,
            "ModifyIndex": 7,
        });
        answer::json(token.to_string())
    }

    fn access(&self, request: &Parts) -> Access {
        let required = lock(&self.0.token);
        match (required.as_deref(), self.token_of(request)) {
            (None, _) => Access::Full,
            (Some(_), None) => Access::Anonymous,
            (Some(required), Some(given)) if required == given => Access::Full,
            (Some(_), Some(given)) => Access::Unknown { uuid: given.len() == UUID_LENGTH },
        }
    }

    fn token_of<'a>(&self, request: &'a Parts) -> Option<&'a str> {
        query::token(&request.headers, "x-nomad-token", self.0.version == Version::V2_0)
    }
}

impl Version {
    /// What an agent says that its version is.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0.18",
            Self::V2_0 => "2.0.5",
        }
    }

    /// Whether `*` means all namespaces for this list, and is not taken as a name.
    fn knows_wildcard(self, table: Table) -> bool {
        match table {
            Table::Allocations | Table::Jobs | Table::Nodes => true,
            Table::Evaluations | Table::Deployments => self == Self::V2_0,
        }
    }
}

/// What an agent says of itself, as far as it matters.
fn agent(build: &str) -> Value {
    let version = json!({
        "Revision": "",
        "Version": build,
        "VersionMetadata": "",
        "VersionPrerelease": "",
    });
    json!({
        "config": { "Version": version },
        "member": { "Status": "alive", "Tags": { "build": build, "role": "nomad" } },
        "stats": {},
    })
}

/// The servers: one, and one of another region.
fn members(build: &str) -> Value {
    let member = |name: &str, region: &str, build: &str| {
        json!({
            "Name": name,
            "Status": "alive",
            "Tags": { "build": build, "region": region, "role": "nomad" },
        })
    };
    json!({
        "ServerName": "standin",
        "ServerRegion": "global",
        "ServerDC": "dc1",
        "Members": [member("standin.global", "global", build), member("far.away", "away", "1.0.0")],
    })
}

fn bytes(value: Value) -> Bytes {
    Bytes::from(value.to_string())
}
