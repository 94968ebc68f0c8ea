//! Consul, as the leader sees it: sessions, keys and transactions.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use progenitor_client::Error;
use tokio::time::timeout;

use super::{
    State,
    answer::{ApiError, Result, Server, drain},
    connect::{ConsulScope, Credentials, Endpoint},
    consul::{
        self,
        types::{KvEntry, SessionRequest, TxnKvOp, TxnOp, TxnResult},
    },
    credentials,
};
use crate::error::brief;

/// Marks a key as a lock of the Go client, which refuses any other.
pub const LOCK_FLAGS: u64 = 3_304_740_253_564_472_344;
/// A request that does not block, and the time on top of the wait of one that does.
const LIMIT: Duration = Duration::from_secs(5);

/// A handle to Consul. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Consul {
    pub(super) client: consul::Client,
    pub(super) server: Server,
    pub(super) scope: ConsulScope,
    pub(super) credentials: Option<Credentials>,
}

/// A key as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// `X-Consul-Index`: what to wait past for the next change.
    pub index: u64,
    /// What it holds; `None` where there is no such key.
    pub entry: Option<Entry>,
}

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: Vec<u8>,
    /// The session that has it locked.
    pub session: Option<String>,
    /// The index of its last write.
    pub modify_index: u64,
    /// What its writers use it for.
    pub flags: u64,
}

/// The state of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody has it.
    Free,
    /// This session has it.
    Held(String),
    /// The key is in use for something else.
    Foreign {
        /// Its flags.
        flags: u64,
    },
}

/// A transaction was refused; nothing of it was carried out.
#[derive(Debug, thiserror::Error)]
pub enum TxnRefused {
    /// The lock is not held by the session.
    #[error("the lock is not held by this session: {0}")]
    NotHeld(String),
    /// A key was written by somebody else since it was read.
    #[error("a key was written by somebody else: {0}")]
    Conflict(String),
    /// The token may not write the keys.
    #[error("Consul denies the write: {0}; the token needs `write` on the prefix of the keys")]
    Denied(String),
    /// It is not known whether it was carried out.
    #[error(transparent)]
    Api(#[from] ApiError),
}

#[cfg(feature = "demo")]
impl From<crate::failpoint::Lost> for TxnRefused {
    fn from(lost: crate::failpoint::Lost) -> Self {
        Self::Api(lost.into())
    }
}

impl Key {
    /// Who has the lock, where the key is one.
    #[must_use]
    pub fn lock(&self) -> Lock {
        match &self.entry {
            None => Lock::Free,
            Some(entry) => match (&entry.session, entry.flags) {
                (_, flags) if flags != LOCK_FLAGS => Lock::Foreign { flags },
                (Some(session), _) => Lock::Held(session.clone()),
                (None, _) => Lock::Free,
            },
        }
    }
}

/// Every operation may be sent to a namespace or a partition of its own.
macro_rules! request {
    ($consul:expr, $operation:ident) => {{
        let mut request = $consul.client.$operation();
        if let Some(namespace) = &$consul.scope.namespace {
            request = request.ns(namespace);
        }
        if let Some(partition) = &$consul.scope.partition {
            request = request.partition(partition);
        }
        request
    }};
}

impl Consul {
    /// Consul at an endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint, scope: ConsulScope) -> Self {
        let server = Server {
            name: format!("Consul at {}", endpoint.shown),
            variable: "CONSUL_HTTP_ADDR",
            token: "CONSUL_HTTP_TOKEN (or CONSUL_HTTP_TOKEN_FILE)",
        };
        let state = State::network(&endpoint);
        let credentials = Some(endpoint.credentials.clone());
        let client = consul::Client::new_with_client(&endpoint.base, endpoint.client(), state);
        Self { client, server, scope, credentials }
    }

    /// A stand-in in this process.
    #[cfg(feature = "demo")]
    #[must_use]
    pub fn stand_in(router: axum::Router, client: reqwest::Client) -> Self {
        let client =
            consul::Client::new_with_client("http://consul.test", client, State::router(router));
        let server = Server {
            name: "the stand-in Consul".into(),
            variable: "CONSUL_HTTP_ADDR",
            token: "CONSUL_HTTP_TOKEN (or CONSUL_HTTP_TOKEN_FILE)",
        };
        Self { client, server, scope: ConsulScope::default(), credentials: None }
    }

    /// The server, as errors name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// Resolves once there is another token than now.
    pub async fn token_changed(&self) {
        credentials::changed(self.credentials.as_ref()).await;
    }

    /// Creates a session that nothing but its TTL ends; returns its id.
    pub async fn create_session(
        &self,
        name: &str,
        ttl: Duration,
        lock_delay: Duration,
    ) -> Result<String> {
        let body = SessionRequest {
            name: Some(name.to_owned()),
            ttl: Some(format!("{}ms", ttl.as_millis())),
            lock_delay: Some(format!("{}ms", lock_delay.as_millis())),
            behavior: Some("release".to_owned()),
            // Left out, they would be the health of the agent's node, which can end the session
            // before its TTL: then another process could publish while this one still believes in
            // its term.
            checks: Vec::new(),
            node_checks: Vec::new(),
            service_checks: Vec::new(),
        };
        let request = request!(self, create_session).body(body).send();
        let answer = self.server.ask("create a session", LIMIT, request).await?;
        Ok(answer.into_inner().id)
    }

    /// The health checks that can end a session; `None` where there is no such session.
    pub async fn session_checks(&self, session: &str) -> Result<Option<Vec<String>>> {
        let request = request!(self, read_session).session(session).send();
        let answer = self.server.ask("read the session", LIMIT, request).await?;
        let found = answer.into_inner().into_iter().next();
        Ok(found.map(|it| {
            let older = it.checks.into_iter().flatten();
            older.chain(it.node_checks.into_iter().flatten()).collect()
        }))
    }

    /// Renews a session; false where it is gone.
    pub async fn renew(&self, session: &str, limit: Duration) -> Result<bool> {
        let request = request!(self, renew_session).session(session).send();
        match self.server.ask("renew the session", limit, request).await {
            Ok(_) => Ok(true),
            Err(err) if err.is_not_found() => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Ends a session.
    pub async fn destroy(&self, session: &str) -> Result<()> {
        let request = request!(self, destroy_session).session(session).send();
        self.server.ask("end the session", LIMIT, request).await.map(|_| ())
    }

    /// Reads a key from the leader; waits for a change past `past` where that is given.
    pub async fn read(&self, key: &str, past: Option<(u64, Duration)>) -> Result<Key> {
        let mut request = request!(self, read_key).key(key).consistent(true);
        let mut limit = LIMIT;
        if let Some((index, wait)) = past {
            request = request.index(index).wait(format!("{}ms", wait.as_millis()));
            limit += wait + wait / 16;
        }
        let doing = format!("read key {key}");
        // Consul's own answers have it, whether there is such a key or not; a proxy's have not.
        let index = |headers: &reqwest::header::HeaderMap| {
            let index = headers.get("X-Consul-Index").and_then(|it| it.to_str().ok());
            let index = index.and_then(|it| it.parse().ok());
            index.ok_or_else(|| self.server.unexpected(&doing, "no X-Consul-Index".to_owned()))
        };
        match timeout(limit, request.send()).await {
            Err(_) => Err(self.server.silent(doing, limit)),
            Ok(Ok(answer)) => {
                let index = index(answer.headers())?;
                let entry = answer.into_inner().into_iter().next();
                let entry = entry.map(|it| self.entry(&doing, it)).transpose()?;
                Ok(Key { index, entry })
            }
            Ok(Err(Error::ErrorResponse(answer))) if answer.status().as_u16() == 404 => {
                Ok(Key { index: index(answer.headers())?, entry: None })
            }
            Ok(Err(err)) => Err(self.server.explain(doing, err).await),
        }
    }

    /// Locks a key for a session; false where another has it, or had it until just now.
    pub async fn acquire(&self, key: &str, session: &str) -> Result<bool> {
        let request =
            request!(self, write_key).key(key).acquire(session).flags(LOCK_FLAGS).body("").send();
        let doing = format!("acquire the lock {key}");
        Ok(self.server.ask(doing, LIMIT, request).await?.into_inner())
    }

    /// Unlocks a key.
    pub async fn release(&self, key: &str, session: &str) -> Result<bool> {
        let request =
            request!(self, write_key).key(key).release(session).flags(LOCK_FLAGS).body("").send();
        let doing = format!("release the lock {key}");
        Ok(self.server.ask(doing, LIMIT, request).await?.into_inner())
    }

    /// Carries out a transaction, if `session` holds `lock`; returns the index of the write.
    pub async fn write_fenced(
        &self,
        lock: &str,
        session: &str,
        writes: Vec<Write<'_>>,
    ) -> std::result::Result<u64, TxnRefused> {
        let op = |verb: &str, key: &str| TxnKvOp {
            verb: verb.to_owned(),
            key: key.to_owned(),
            value: None,
            flags: None,
            index: None,
            session: None,
        };
        let check = TxnKvOp { session: Some(session.to_owned()), ..op("check-session", lock) };
        let writes = writes.into_iter().map(|Write { key, value, cas }| TxnKvOp {
            value: Some(BASE64_STANDARD.encode(value)),
            index: cas,
            ..op(if cas.is_some() { "cas" } else { "set" }, key)
        });
        let ops: Vec<TxnOp> = std::iter::once(check).chain(writes).map(|kv| TxnOp { kv }).collect();
        let doing = "write the checkpoint".to_owned();
        let request = request!(self, transaction).body(ops).send();
        let answer = match timeout(LIMIT, request).await {
            Err(_) => return Err(self.server.silent(doing, LIMIT).into()),
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(Error::ErrorResponse(answer))) if answer.status().as_u16() == 409 => {
                return Err(refusal(&drain(answer.into_inner_stream()).await));
            }
            Ok(Err(err)) => return Err(self.server.explain(doing, err).await.into()),
        };
        let written = answer.results.into_iter().flatten().filter_map(|it| it.kv).next_back();
        written.map(|it| it.modify_index).ok_or_else(|| {
            self.server.unexpected(doing, "a transaction without results".into()).into()
        })
    }

    fn entry(&self, doing: &str, entry: KvEntry) -> Result<Entry> {
        let value = BASE64_STANDARD
            .decode(entry.value.unwrap_or_default())
            .map_err(|err| self.server.unexpected(doing, format!("a value that is {err}")))?;
        let session = entry.session.filter(|it| !it.is_empty());
        let (flags, modify_index) = (entry.flags, entry.modify_index);
        Ok(Entry { value, session, modify_index, flags })
    }
}

/// A write in a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The key.
    pub key: &'a str,
    /// Its new value.
    pub value: &'a [u8],
    /// The index that it must have been written at last; 0 where there must be none.
    pub cas: Option<u64>,
}

/// Why a transaction was refused, from the body of status 409.
fn refusal(body: &[u8]) -> TxnRefused {
    let result: Option<TxnResult> = serde_json::from_slice(body).ok();
    let errors = result.and_then(|it| it.errors).unwrap_or_default();
    let what = |it: &consul::types::TxnError| brief(&it.what);
    // A token that may not write is refused in the same way as a lock that is lost.
    if let Some(denied) = errors.iter().find(|it| it.what.contains("Permission denied")) {
        return TxnRefused::Denied(what(denied));
    }
    match errors.iter().find(|it| it.op_index == 0) {
        Some(check) => TxnRefused::NotHeld(what(check)),
        None => TxnRefused::Conflict(errors.first().map(what).unwrap_or_default()),
    }
}
