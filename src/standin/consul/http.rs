//! Requests and their answers.

mod acl;

use std::time::Duration;

use axum::{
    body::{self, Body, Bytes},
    extract::{Request, State as Shared},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use tokio::time::{Instant, timeout_at};

use super::{
    Consul, Store,
    kv::Entry,
    lock,
    sessions::{Session, Wanted},
    txn::{Failed, Op, Outcome},
};
use crate::standin::{
    answer::{self, Dialect},
    query::{self, Blocking, Params},
};

const WAIT: Duration = Duration::from_secs(300);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The largest value, and the largest transaction, in bytes.
const LARGEST_VALUE: usize = 512 * 1024;
/// What is read of a body before it is refused for its size.
const LARGEST_BODY: usize = 8 * LARGEST_VALUE;
const MOST_OPERATIONS: usize = 64;
const UUID_LENGTH: usize = 36;
const INDENT: &[u8] = b"    ";

type Answer = Result<Response, Box<Response>>;

pub(super) async fn handle(Shared(consul): Shared<Consul>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let script = &consul.0.script;
    let fault = match script.admit(Dialect::Consul, &request).await {
        Ok(fault) => fault,
        Err(instead) => return *instead,
    };
    let response = consul.respond(&request, body).await.unwrap_or_else(|refused| *refused);
    script.release(Dialect::Consul, fault, response).await
}

/// What the token of a request permits.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    Full,
    Anonymous,
}

impl Consul {
    async fn respond(&self, request: &Parts, body: Body) -> Answer {
        let Parts { method, uri, .. } = request;
        let path = query::percent_decode(uri.path());
        let params = Params::of(uri);
        let access = self.access(request, &params)?;
        if let Some(key) = path.strip_prefix("/v1/kv/") {
            return match *method {
                Method::GET => self.read_key(key, &params, access).await,
                Method::PUT => {
                    self.permit_write(key, access)?;
                    self.write_key(key, &params, value(body, "kv_max_value_size").await?)
                }
                Method::DELETE => {
                    self.permit_write(key, access)?;
                    self.delete_key(key, &params)
                }
                _ => not_allowed(method, "DELETE,GET,OPTIONS,PUT"),
            };
        }
        let (path, argument) = match path.rsplit_once('/') {
            Some((
                path @ ("/v1/session/renew" | "/v1/session/destroy" | "/v1/session/info"),
                id,
            )) => (path, id),
            _ => (path.as_str(), ""),
        };
        match (path, method) {
            ("/v1/txn", &Method::PUT) => {
                self.transaction(&value(body, "txn_max_req_len").await?, access)
            }
            ("/v1/session/create", &Method::PUT) => {
                permit(access)?;
                self.create_session(&value(body, "kv_max_value_size").await?)
            }
            ("/v1/session/renew", &Method::PUT) => self.renew_session(argument, access),
            ("/v1/session/destroy", &Method::PUT) => self.destroy_session(argument, access),
            ("/v1/session/info", &Method::GET) => self.show_sessions(Some(argument), access),
            ("/v1/session/list", &Method::GET) => self.show_sessions(None, access),
            ("/v1/agent/self", &Method::GET) => self.agent(access),
            ("/v1/acl/token/self", &Method::GET) => self.token(access),
            ("/v1/internal/acl/authorize", &Method::POST) => self.authorize(body, access).await,
            ("/v1/status/leader", &Method::GET) => Ok(pretty(&"127.0.0.1:8300")),
            ("/v1/session/info" | "/v1/session/list" | "/v1/status/leader", _) => {
                not_allowed(method, "GET,OPTIONS")
            }
            ("/v1/txn" | "/v1/session/create" | "/v1/session/renew" | "/v1/session/destroy", _) => {
                not_allowed(method, "OPTIONS,PUT")
            }
            _ => Err(Box::new(answer::empty(StatusCode::NOT_FOUND))),
        }
    }

    async fn read_key(&self, key: &str, params: &Params, access: Access) -> Answer {
        let blocking = Blocking::of(params, WAIT, LONGEST_WAIT)?;
        let several = params.has("recurse") || params.has("keys");
        if !several {
            permit(access)?;
        }
        let index = |store: &Store| {
            if several { store.kv.index_under(key) } else { store.kv.index_of(key) }
        };
        self.block(blocking, index).await;
        let store = self.store();
        let entries: Vec<&Entry> = match (several, access) {
            // Who may not read is told that there is nothing.
            (true, Access::Anonymous) => Vec::new(),
            (true, Access::Full) => store.kv.under(key).collect(),
            (false, _) => store.kv.get(key).into_iter().collect(),
        };
        let response = match entries.as_slice() {
            [] => answer::empty(StatusCode::NOT_FOUND),
            [entry, ..] if params.has("raw") => {
                answer::with_type(StatusCode::OK, "text/plain", entry.value.clone().into())
            }
            entries if params.has("keys") => {
                pretty(&entries.iter().map(|entry| &entry.key).collect::<Vec<_>>())
            }
            entries => pretty(&entries.iter().map(|entry| entry.json()).collect::<Vec<_>>()),
        };
        Ok(Dialect::Consul.read(response, index(&store), true))
    }

    /// Waits until the index is above the one asked for; sessions that run out meanwhile count as changes.
    async fn block(&self, blocking: Blocking, index: impl Fn(&Store) -> u64) {
        if blocking.index == 0 {
            return;
        }
        let deadline = Instant::now() + blocking.wait;
        let mut changed = self.0.changed.subscribe();
        loop {
            let next = {
                let store = self.store();
                if index(&store) > blocking.index {
                    return;
                }
                store.sessions.next_expiry().map_or(deadline, |expiry| expiry.min(deadline))
            };
            if timeout_at(next, changed.changed()).await.is_err() && next == deadline {
                return;
            }
        }
    }

    fn write_key(&self, key: &str, params: &Params, value: Bytes) -> Answer {
        if key.is_empty() {
            return refuse(StatusCode::BAD_REQUEST, "Missing key name");
        }
        let number = |name: &str| {
            let invalid =
                || Box::new(answer::text(StatusCode::BAD_REQUEST, format!("Invalid {name}")));
            params.number(name).ok_or_else(invalid)
        };
        let flags = number("flags")?;
        let now = Instant::now();
        let write = match (params.get("acquire"), params.get("release"), params.has("cas")) {
            (None, None, false) => Write::Put,
            (None, None, true) => Write::Cas(number("cas")?),
            (Some(session), None, false) => Write::Acquire(session),
            (None, Some(session), false) => Write::Release(session),
            _ => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "Conflicting flags: cas, acquire and release",
                );
            }
        };
        let done = self.change(|store| {
            if let Write::Acquire(session) = write {
                known(store, session)?;
                if store.sessions.delayed(key, now) {
                    return Ok(false);
                }
            }
            let index = store.advance();
            Ok::<_, Box<Response>>(match write {
                Write::Put => {
                    store.kv.put(index, key, value, flags);
                    true
                }
                Write::Cas(expected) => store.kv.cas(index, key, value, flags, expected),
                Write::Acquire(session) => store.kv.lock(index, key, value, flags, session),
                Write::Release(session) => store.kv.unlock(index, key, value, flags, session),
            })
        })?;
        Ok(pretty(&done))
    }

    fn delete_key(&self, key: &str, params: &Params) -> Answer {
        let expected = params.get("cas").map(|_| params.number("cas").unwrap_or_default());
        let done = self.change(|store| {
            let index = store.advance();
            match expected {
                Some(expected) => return store.kv.delete_cas(index, key, expected),
                None if params.has("recurse") => store.kv.delete_under(index, key),
                None => store.kv.delete(index, key),
            }
            true
        });
        Ok(pretty(&done))
    }

    fn transaction(&self, body: &[u8], access: Access) -> Answer {
        let ops: Vec<Op> = match serde_json::from_slice(body) {
            Ok(ops) => ops,
            Err(error) => {
                return refuse(StatusCode::BAD_REQUEST, format!("Failed to parse body: {error}"));
            }
        };
        if ops.len() > MOST_OPERATIONS {
            let text = format!(
                "Transaction contains too many operations ({} > {MOST_OPERATIONS})",
                ops.len()
            );
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
        let denied =
            |op: &Op| access == Access::Anonymous || op.kv.writes() && !self.may_write(&op.kv.key);
        let denied = ops.iter().enumerate().filter(|(_, op)| denied(op));
        let denied: Vec<Failed> = denied
            .map(|(op_index, _)| Failed { op_index, what: "Permission denied".to_owned() })
            .collect();
        let outcome = match denied.is_empty() {
            true => self.change(|store| store.transact(&ops, Instant::now())),
            false => Outcome::failed(denied),
        };
        let mut response = pretty(&outcome);
        if outcome.only_reads() {
            Dialect::Consul.leader(response.headers_mut(), true);
        }
        if !outcome.succeeded() {
            *response.status_mut() = StatusCode::CONFLICT;
        }
        Ok(response)
    }

    fn create_session(&self, body: &[u8]) -> Answer {
        #[derive(Serialize)]
        struct Created<'a> {
            #[serde(rename = "ID")]
            id: &'a str,
        }
        let wanted: Wanted = match body {
            [] => Wanted::default(),
            body => match serde_json::from_slice(body) {
                Ok(wanted) => wanted,
                Err(error) => {
                    return refuse(
                        StatusCode::BAD_REQUEST,
                        format!("Request decode failed: {error}"),
                    );
                }
            },
        };
        self.change(|store| {
            let index = store.advance();
            match store.sessions.create(index, wanted, Instant::now()) {
                Ok(session) => Ok(pretty(&Created { id: &session.id })),
                Err(text) => refuse(StatusCode::INTERNAL_SERVER_ERROR, text),
            }
        })
    }

    fn renew_session(&self, id: &str, access: Access) -> Answer {
        let mut store = self.store();
        uuid(id)?;
        let Some(session) = store.sessions.renew(id, Instant::now()) else {
            return refuse(StatusCode::NOT_FOUND, format!("Session id '{id}' not found"));
        };
        permit(access)?;
        Ok(pretty(&[session]))
    }

    fn destroy_session(&self, id: &str, access: Access) -> Answer {
        uuid(id)?;
        let known = self.store().sessions.get(id).is_some();
        if known {
            permit(access)?;
            self.change(|store| store.invalidate(id, Instant::now()));
        }
        Ok(pretty(&true))
    }

    fn show_sessions(&self, id: Option<&str>, access: Access) -> Answer {
        id.map_or(Ok(()), uuid)?;
        let store = self.store();
        let shown =
            |session: &&Session| access == Access::Full && id.is_none_or(|id| id == session.id);
        let sessions: Vec<&Session> = store.sessions.all().filter(shown).collect();
        Ok(Dialect::Consul.read(pretty(&sessions), store.sessions.index(), true))
    }

    fn access(&self, request: &Parts, params: &Params) -> Result<Access, Box<Response>> {
        let rights = lock(&self.0.rights);
        let given =
            query::token(&request.headers, "x-consul-token", true).or_else(|| params.get("token"));
        match (rights.token.as_deref(), given) {
            (None, _) => Ok(Access::Full),
            (Some(_), None) => Ok(Access::Anonymous),
            (Some(required), Some(given)) if required == given => Ok(Access::Full),
            (Some(_), Some(_)) => {
                Err(Box::new(answer::text(StatusCode::FORBIDDEN, "ACL not found")))
            }
        }
    }

    fn permit_write(&self, key: &str, access: Access) -> Result<(), Box<Response>> {
        permit(if self.may_write(key) { access } else { Access::Anonymous })
    }
}

/// What a PUT of a key does.
#[derive(Clone, Copy)]
enum Write<'a> {
    Put,
    Cas(u64),
    Acquire(&'a str),
    Release(&'a str),
}

fn permit(access: Access) -> Result<(), Box<Response>> {
    match access {
        Access::Full => Ok(()),
        Access::Anonymous => {
            Err(Box::new(answer::text(StatusCode::FORBIDDEN, "Permission denied")))
        }
    }
}

fn known(store: &Store, session: &str) -> Result<(), Box<Response>> {
    uuid(session)?;
    let invalid = || {
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("invalid session \"{session}\""))
    };
    store.sessions.get(session).map(|_| ()).ok_or_else(|| Box::new(invalid()))
}

fn uuid(id: &str) -> Result<(), Box<Response>> {
    let text = "failed session lookup: index error: UUID must be 36 characters";
    let wrong = || Box::new(answer::text(StatusCode::INTERNAL_SERVER_ERROR, text));
    (id.len() == UUID_LENGTH).then_some(()).ok_or_else(wrong)
}

async fn value(body: Body, limit: &str) -> Result<Bytes, Box<Response>> {
    let too_large = |size: usize| {
        let text =
            format!("Request body({size} bytes) too large, max size: {LARGEST_VALUE} bytes. See ");
        let link = format!("https://www.consul.io/docs/agent/options.html#{limit}.");
        Box::new(answer::text(StatusCode::PAYLOAD_TOO_LARGE, text + &link))
    };
    match body::to_bytes(body, LARGEST_BODY).await {
        Ok(value) if value.len() <= LARGEST_VALUE => Ok(value),
        Ok(value) => Err(too_large(value.len())),
        Err(_) => Err(too_large(LARGEST_BODY)),
    }
}

fn refuse(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    Err(Box::new(answer::text(code, text)))
}

fn not_allowed(method: &Method, allowed: &'static str) -> Answer {
    let mut response =
        answer::text(StatusCode::METHOD_NOT_ALLOWED, format!("method {method} not allowed"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Err(Box::new(response))
}

/// JSON as an agent in development mode writes it: indented, with a newline at the end.
fn pretty(value: &impl Serialize) -> Response {
    let mut body = Vec::new();
    let mut writer =
        serde_json::Serializer::with_formatter(&mut body, PrettyFormatter::with_indent(INDENT));
    match value.serialize(&mut writer) {
        Ok(()) => {
            body.push(b'\n');
            answer::json(body)
        }
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
