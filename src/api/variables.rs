//! Nomad's variables, as the leader sees them: reads that wait, writes that compare, and locks.

use std::{collections::BTreeMap, time::Duration};

use progenitor_client::Error;
use reqwest::header::HeaderMap;
use tokio::time::timeout;

use super::{
    answer::{Result, Server, drain},
    credentials::{self, Credentials},
    nomad::{
        self, builder,
        types::{self, LockWrite, VariableWrite},
    },
};

/// A request that does not block, and the time on top of the wait of one that does.
const LIMIT: Duration = Duration::from_secs(5);

/// The values of a variable by name.
pub type Items = BTreeMap<String, String>;

/// A handle to the variables of one namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Variables {
    pub(super) client: nomad::Client,
    pub(super) server: Server,
    namespace: String,
    region: Option<String>,
    credentials: Option<Credentials>,
}

/// A path as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What to wait past for the next change.
    pub index: u64,
    /// What is there; `None` where there is no such variable.
    pub variable: Option<Variable>,
}

/// A variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Its values.
    pub items: Items,
    /// The index of its last change.
    pub modify_index: u64,
    /// Who has it locked, where the token may know.
    pub holder: Option<String>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was carried out at this index.
    At(u64),
    /// The variable has another index than was expected, or is locked. Nothing was written.
    Conflict,
}

/// What became of an attempt to lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The lock is held.
    Won {
        /// By whom: the server may have chosen another name.
        id: String,
        /// The index of the variable since.
        index: u64,
    },
    /// Somebody else has it.
    Held,
    /// The server took it for a plain write: it knows no locks.
    Unknown,
}

/// A server, as an agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Variables {
    /// The variables of a namespace, by the client of the streams.
    pub(super) fn new(
        (client, credentials): (nomad::Client, Option<Credentials>),
        server: Server,
        region: Option<String>,
        namespace: &str,
    ) -> Self {
        Self { client, server, namespace: namespace.to_owned(), region, credentials }
    }

    /// Resolves once there is another token than now.
    pub async fn token_changed(&self) {
        credentials::changed(self.credentials.as_ref()).await;
    }

    /// The server, as errors name it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// The namespace of the variables.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The servers of the region that are alive.
    pub async fn servers(&self) -> Result<Vec<Member>> {
        let request = self.client.list_members().send();
        let answer = self.server.ask("ask for the servers' versions", LIMIT, request).await?;
        let types::Members { members, server_region } = answer.into_inner();
        let region = self.region.clone().or(server_region);
        let ours = |it: &types::Member| {
            let elsewhere = region.as_ref().zip(it.tags.get("region")).is_some_and(|(a, b)| a != b);
            it.status == "alive" && !elsewhere
        };
        let version = |it: &types::Member| it.tags.get("build").cloned().unwrap_or_default();
        let servers = members.into_iter().filter(ours);
        Ok(servers.map(|it| Member { version: version(&it), name: it.name }).collect())
    }

    /// Reads a variable from the leader; waits for a change past `past` where that is given.
    pub async fn read(&self, path: &str, past: Option<(u64, Duration)>) -> Result<Found> {
        let mut request = self.client.read_variable().path(path).namespace(&self.namespace);
        if let Some(region) = &self.region {
            request = request.region(region);
        }
        let mut limit = LIMIT;
        if let Some((index, wait)) = past {
            request = request.index(index).wait(format!("{}ms", wait.as_millis()));
            limit += wait + wait / 16;
        }
        let doing = format!("read the variable {path}");
        match timeout(limit, request.send()).await {
            Err(_) => Err(self.server.silent(doing, limit)),
            Ok(Ok(answer)) => {
                let index = self.index(&doing, answer.headers())?;
                let types::Variable { items, lock, modify_index } = answer.into_inner();
                let items = items.unwrap_or_default().into_iter().collect();
                let variable = Variable { items, modify_index, holder: lock.map(|it| it.id) };
                Ok(Found { index, variable: Some(variable) })
            }
            Ok(Err(Error::ErrorResponse(answer))) if answer.status().as_u16() == 404 => {
                let headers = answer.headers().clone();
                let text = drain(answer.into_inner_stream()).await;
                if is_absent(&headers, &text) {
                    let index = self.index(&doing, &headers).unwrap_or_default();
                    return Ok(Found { index, variable: None });
                }
                let what = "status 404, and not that there is no such variable; Nomad has \
                            variables from 1.4 on";
                Err(self.server.unexpected(doing, what.to_owned()))
            }
            Ok(Err(err)) => Err(self.server.explain(doing, err).await),
        }
    }

    /// Writes a variable whose last change was at `cas`; 0 if it must not exist.
    pub async fn write(&self, path: &str, items: &Items, cas: u64) -> Result<Written> {
        let request = self.put(path, Some(items), None).cas(cas);
        let doing = format!("write the variable {path}");
        let answer = self.written(doing, LIMIT, request).await?;
        Ok(answer.map_or(Written::Conflict, |it| Written::At(it.modify_index)))
    }

    /// Locks a variable, whose values are replaced.
    pub async fn acquire(
        &self,
        path: &str,
        id: &str,
        items: &Items,
        ttl: Duration,
        lock_delay: Duration,
    ) -> Result<Acquired> {
        let lock = LockWrite {
            id: Some(id.to_owned()),
            ttl: Some(format!("{}ms", ttl.as_millis())),
            lock_delay: Some(format!("{}ms", lock_delay.as_millis())),
        };
        let request = self.put(path, Some(items), Some(lock)).lock_acquire("");
        let doing = format!("acquire the lock {path}");
        Ok(match self.written(doing, LIMIT, request).await? {
            None => Acquired::Held,
            Some(types::Variable { lock: None, .. }) => Acquired::Unknown,
            Some(types::Variable { lock: Some(lock), modify_index, .. }) => {
                Acquired::Won { id: lock.id, index: modify_index }
            }
        })
    }

    /// Renews a lock; false where it is not held by this id any more.
    pub async fn renew(&self, path: &str, id: &str, limit: Duration) -> Result<bool> {
        let request = self.put(path, None, Some(held_by(id))).lock_renew("");
        self.held(format!("renew the lock {path}"), limit, request).await
    }

    /// Releases a lock; false where it is not held by this id any more.
    pub async fn release(&self, path: &str, id: &str) -> Result<bool> {
        let request = self.put(path, None, Some(held_by(id))).lock_release("");
        self.held(format!("release the lock {path}"), LIMIT, request).await
    }

    /// What the server answers to whoever says to hold a lock: whether that is so.
    async fn held(
        &self,
        doing: String,
        limit: Duration,
        request: builder::WriteVariable<'_>,
    ) -> Result<bool> {
        match self.written(doing, limit, request).await {
            Ok(answer) => Ok(answer.is_some()),
            Err(err) if err.is_not_found() => Ok(false),
            Err(err) => Err(err),
        }
    }

    fn put(
        &self,
        path: &str,
        items: Option<&Items>,
        lock: Option<LockWrite>,
    ) -> builder::WriteVariable<'_> {
        let body = VariableWrite {
            namespace: self.namespace.clone(),
            path: path.to_owned(),
            items: items.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            lock,
        };
        let request = self.client.write_variable().path(path).namespace(&self.namespace);
        let request = request.body(body);
        match &self.region {
            Some(region) => request.region(region),
            None => request,
        }
    }

    /// What the server answers to a write; `None` for a conflict.
    async fn written(
        &self,
        doing: String,
        limit: Duration,
        request: builder::WriteVariable<'_>,
    ) -> Result<Option<types::Variable>> {
        match timeout(limit, request.send()).await {
            Err(_) => Err(self.server.silent(doing, limit)),
            Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
            Ok(Err(Error::ErrorResponse(answer))) if answer.status().as_u16() == 409 => Ok(None),
            Ok(Err(err)) => Err(self.server.explain(doing, err).await),
        }
    }

    /// `X-Nomad-Index`. Nomad's own answers have it, a proxy's have not.
    fn index(&self, doing: &str, headers: &HeaderMap) -> Result<u64> {
        let index = headers.get("X-Nomad-Index").and_then(|it| it.to_str().ok());
        let index = index.and_then(|it| it.parse().ok());
        index.ok_or_else(|| self.server.unexpected(doing, "no X-Nomad-Index".to_owned()))
    }
}

/// A lock by its id alone.
fn held_by(id: &str) -> LockWrite {
    LockWrite { id: Some(id.to_owned()), ttl: None, lock_delay: None }
}

/// Whether the answer is Nomad's, to a path where there is nothing. An agent that shuts down says
/// the same of what exists, and that it knows no leader.
fn is_absent(headers: &HeaderMap, text: &[u8]) -> bool {
    let leader = headers.get("X-Nomad-KnownLeader").map(|it| it == "true");
    leader.unwrap_or_else(|| String::from_utf8_lossy(text).contains("variable not found"))
}
