//! Requests about variables, and their answers.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::{self, Body},
    http::{HeaderValue, Method, StatusCode, request::Parts},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        Nomad, lock,
        state::{DEFAULT_NAMESPACE, Key},
    },
    Refused, Variable, Wanted, check_path,
};
use crate::standin::{
    answer::{self, Dialect},
    query::{Blocking, Params, go_duration},
};

const WAIT: Duration = Duration::from_secs(300);
/// What is read of a body.
const LARGEST_BODY: usize = 4 << 20;
/// The first versions, as major and minor, with variables and with locks.
const VARIABLES_SINCE: (u32, u32) = (1, 4);
const LOCKS_SINCE: (u32, u32) = (1, 7);

type Answer = Result<Response, Box<Response>>;

/// What clients may do with variables.
#[derive(Default)]
pub(in super::super) struct Rights {
    /// Nobody reads or writes what begins so.
    pub(in super::super) denied: Option<String>,
    /// Nobody writes what begins so.
    pub(in super::super) read_only: Option<String>,
    /// Readers are not shown who holds a lock, as without a management token.
    pub(in super::super) locks_hidden: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    namespace: Option<String>,
    path: Option<String>,
    items: Option<BTreeMap<String, String>>,
    lock: Option<LockRequest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LockRequest {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "TTL")]
    ttl: Option<Value>,
    #[serde(rename = "LockDelay")]
    delay: Option<Value>,
}

/// What a write is.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Set,
    Acquire,
    Renew,
    Release,
}

impl Nomad {
    pub(in super::super) async fn variable_request(
        &self,
        request: &Parts,
        path: &str,
        body: Body,
    ) -> Answer {
        if self.build_number() < VARIABLES_SINCE {
            return Err(Box::new(answer::empty(StatusCode::NOT_FOUND)));
        }
        let params = Params::of(&request.uri);
        let namespace = params.get("namespace").unwrap_or(DEFAULT_NAMESPACE);
        let key = Key::new(namespace, path);
        let writes = request.method != Method::GET;
        if !self.may_use(path, writes) {
            return refuse(StatusCode::FORBIDDEN, "Permission denied");
        }
        match request.method {
            Method::GET => self.read_variable(&key, &params).await,
            Method::PUT | Method::POST => {
                let body = body::to_bytes(body, LARGEST_BODY).await;
                let body = body.map_err(|err| bad(err.to_string()))?;
                self.write_variable(&key, &params, &body)
            }
            _ => Err(Box::new(answer::invalid_method())),
        }
    }

    async fn read_variable(&self, key: &Key, params: &Params) -> Answer {
        let blocking = Blocking::of(params, WAIT, WAIT)?;
        let deadline = Instant::now() + blocking.wait;
        let mut changed = self.0.changed.subscribe();
        loop {
            let until = {
                let state = self.state();
                let variables = &state.variables;
                if blocking.index == 0 || variables.index_of(key) > blocking.index {
                    break;
                }
                variables.next_due().map_or(deadline, |it| it.min(deadline))
            };
            if timeout_at(until, changed.changed()).await.is_err() && until == deadline {
                break;
            }
        }
        let state = self.state();
        let response = match state.variables.get(key) {
            Some(variable) => answer::json(self.shown(key, variable).to_string()),
            None => answer::text(StatusCode::NOT_FOUND, "variable not found"),
        };
        Ok(Dialect::Nomad.read(response, state.variables.index_of(key), true))
    }

    fn write_variable(&self, key: &Key, params: &Params, body: &[u8]) -> Answer {
        let request: Request = serde_json::from_slice(body).map_err(|err| bad(err.to_string()))?;
        let operation = self.operation(params)?;
        if key.namespace == "*" || request.namespace.as_deref() == Some("*") {
            return refuse(StatusCode::BAD_REQUEST, "can not target wildcard (\"*\") namespace");
        }
        if request.namespace.as_ref().is_some_and(|it| *it != key.namespace)
            || request.path.as_ref().is_some_and(|it| *it != key.id)
        {
            return refuse(StatusCode::BAD_REQUEST, "variable does not match the request");
        }
        check_path(&key.id).map_err(refused)?;
        let cas = match params.get("cas") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| bad("cas: not a number".to_owned()))?),
        };
        // A server without locks does not know this member.
        let wanted = request.lock.filter(|_| self.build_number() >= LOCKS_SINCE);
        let wanted = wanted.map(LockRequest::read).transpose()?;
        let id = wanted.as_ref().and_then(|it| it.id.clone());
        let items = request.items.unwrap_or_default();
        let now = Instant::now();
        let done = self.change(|state| match operation {
            Operation::Set => {
                let at = state.advance();
                state.variables.set(at, key, items, cas, wanted)
            }
            Operation::Acquire => {
                let at = state.advance();
                state.variables.acquire(at, key, items, wanted, now)
            }
            Operation::Renew => state.variables.renew(key, id.as_deref(), now),
            Operation::Release if !items.is_empty() => {
                Err(Refused::Bad("a release takes no Items".to_owned()))
            }
            Operation::Release => {
                let at = state.advance();
                state.variables.release(at, key, id.as_deref())
            }
        });
        match done {
            Ok(variable) => {
                let mut shown = json_of(key, &variable, true);
                if matches!(operation, Operation::Renew | Operation::Release) {
                    shown.as_object_mut().map(|it| it.remove("Items"));
                }
                let mut response = answer::json(shown.to_string());
                let index = HeaderValue::from(variable.modify_index);
                response.headers_mut().insert(Dialect::Nomad.index(), index);
                Ok(response)
            }
            Err(Refused::Conflict) => {
                let present = self.state().variables.get(key).cloned();
                let mut shown = present.map_or(json!({}), |it| self.shown(key, &it));
                if operation == Operation::Acquire {
                    shown = json!({ "Namespace": key.namespace, "Path": key.id, "ModifyIndex": 0 });
                }
                let mut response = answer::json(shown.to_string());
                *response.status_mut() = StatusCode::CONFLICT;
                Ok(response)
            }
            Err(other) => Err(refused(other)),
        }
    }

    /// What the parameters say; a server without locks does not see those.
    fn operation(&self, params: &Params) -> Result<Operation, Box<Response>> {
        let known = [
            ("lock-acquire", Operation::Acquire),
            ("lock-renew", Operation::Renew),
            ("lock-release", Operation::Release),
        ];
        let locks = self.build_number() >= LOCKS_SINCE;
        let asked = known.into_iter().filter(|(name, _)| locks && params.has(name));
        match asked.map(|(_, operation)| operation).collect::<Vec<_>>()[..] {
            [] => Ok(Operation::Set),
            [operation] if !params.has("cas") => Ok(operation),
            [_] => Err(bad("CAS can not be used with lock operations".to_owned())),
            _ => Err(bad("only one lock operation at a time".to_owned())),
        }
    }

    /// A variable as readers see it.
    fn shown(&self, key: &Key, variable: &Variable) -> Value {
        json_of(key, variable, !lock(&self.0.variable_rights).locks_hidden)
    }

    fn may_use(&self, path: &str, writes: bool) -> bool {
        let rights = lock(&self.0.variable_rights);
        let below = |it: &Option<String>| it.as_deref().is_some_and(|it| path.starts_with(it));
        let denied = below(&rights.denied) || writes && below(&rights.read_only);
        !denied
    }

    /// Major and minor version.
    fn build_number(&self) -> (u32, u32) {
        let build = self.build();
        let mut numbers = build.split('.').map(|it| it.parse().unwrap_or_default());
        (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
    }
}

impl LockRequest {
    fn read(self) -> Result<Wanted, Box<Response>> {
        let duration = |it: Option<Value>| match it {
            None => Ok(None),
            Some(Value::String(text)) => {
                go_duration(&text).map(Some).ok_or_else(|| bad(format!("invalid duration {text}")))
            }
            Some(number) => {
                let nanos = number.as_u64().ok_or_else(|| bad("invalid duration".to_owned()))?;
                Ok(Some(Duration::from_nanos(nanos)))
            }
        };
        let (ttl, delay) = (duration(self.ttl)?, duration(self.delay)?);
        Ok(Wanted { id: self.id, ttl, delay })
    }
}

fn json_of(key: &Key, variable: &Variable, with_lock: bool) -> Value {
    let mut shown = json!({
        "Namespace": key.namespace,
        "Path": key.id,
        "Items": variable.items,
        "CreateIndex": variable.create_index,
        "ModifyIndex": variable.modify_index,
        "CreateTime": variable.create_index,
        "ModifyTime": variable.modify_index,
    });
    if let (Some(lock), true) = (&variable.lock, with_lock) {
        let text = |it: Duration| format!("{}ms", it.as_millis());
        shown["Lock"] =
            json!({ "ID": lock.id, "TTL": text(lock.ttl), "LockDelay": text(lock.delay) });
    }
    shown
}

fn refused(refused: Refused) -> Box<Response> {
    match refused {
        Refused::Missing => Box::new(answer::text(StatusCode::NOT_FOUND, "variable not found")),
        Refused::Bad(text) => bad(text),
        Refused::Conflict => Box::new(answer::text(StatusCode::CONFLICT, "conflict")),
    }
}

fn bad(text: String) -> Box<Response> {
    Box::new(answer::text(StatusCode::BAD_REQUEST, text))
}

fn refuse(code: StatusCode, text: &'static str) -> Answer {
    Err(Box::new(answer::text(code, text)))
}
