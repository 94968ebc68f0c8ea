//! Transactions: all operations or none, at one index.

use axum::body::Bytes;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Store,
    kv::{Entry, EntryJson, Kv},
    sessions::Sessions,
};

/// An operation as sent.
#[derive(Debug, Deserialize)]
pub(super) struct Op {
    #[serde(rename = "KV")]
    pub(super) kv: KvOp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct KvOp {
    verb: String,
    pub(super) key: String,
    value: Option<String>,
    flags: u64,
    index: u64,
    session: String,
}

/// The answer to a transaction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outcome {
    results: Option<Vec<Done>>,
    errors: Option<Vec<Failed>>,
    #[serde(flatten)]
    read: Option<Read>,
}

#[derive(Serialize)]
struct Done {
    #[serde(rename = "KV")]
    kv: EntryJson,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failed {
    pub(super) op_index: usize,
    pub(super) what: String,
}

/// What a transaction that only reads says beside its results.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Read {
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
}

impl Outcome {
    pub(super) fn failed(errors: Vec<Failed>) -> Self {
        Self { results: None, errors: Some(errors), read: None }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.errors.is_none()
    }

    pub(super) fn only_reads(&self) -> bool {
        self.read.is_some()
    }
}

impl KvOp {
    pub(super) fn writes(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "set" | "cas" | "lock" | "unlock" | "delete" | "delete-cas" | "delete-tree"
        )
    }

    fn apply(&self, at: u64, kv: &mut Kv, sessions: &Sessions) -> Result<Vec<EntryJson>, String> {
        let key = self.key.as_str();
        let value = || {
            let value = BASE64_STANDARD.decode(self.value.as_deref().unwrap_or_default());
            value.map(Bytes::from).map_err(|_| format!("the value of key {key:?} is not base64"))
        };
        let found = |kv: &Kv, missing: String| kv.get(key).cloned().ok_or(missing);
        match self.verb.as_str() {
            "set" => kv.put(at, key, value()?, self.flags),
            "cas" => {
                let done = kv.cas(at, key, value()?, self.flags, self.index);
                done.then_some(())
                    .ok_or_else(|| format!("failed to set key {key:?}, index is stale"))?;
            }
            "lock" => {
                sessions
                    .get(&self.session)
                    .ok_or_else(|| format!("invalid session {:?}", self.session))?;
                let done = kv.lock(at, key, value()?, self.flags, &self.session);
                done.then_some(())
                    .ok_or_else(|| format!("failed to lock key {key:?}, lock is already held"))?;
            }
            "unlock" => {
                let done = kv.unlock(at, key, value()?, self.flags, &self.session);
                let text = "lock isn't held, or is held by another session";
                done.then_some(())
                    .ok_or_else(|| format!("failed to unlock key {key:?}, {text}"))?;
            }
            "delete" => {
                kv.delete(at, key);
                return Ok(Vec::new());
            }
            "delete-cas" => {
                let done = kv.delete_cas(at, key, self.index);
                done.then_some(())
                    .ok_or_else(|| format!("failed to delete key {key:?}, index is stale"))?;
                return Ok(Vec::new());
            }
            "delete-tree" => {
                kv.delete_under(at, key);
                return Ok(Vec::new());
            }
            "get" => return Ok(vec![found(kv, format!("key {key:?} doesn't exist"))?.json()]),
            "get-tree" => return Ok(kv.under(key).map(Entry::json).collect()),
            "check-session" => {
                let entry =
                    found(kv, format!("failed to check session, key {key:?} doesn't exist"))?;
                let current = entry.session.unwrap_or_default();
                if current != self.session {
                    let text = format!("current session {current:?} != {:?}", self.session);
                    return Err(format!("failed session check for key {key:?}, {text}"));
                }
            }
            "check-index" => {
                let entry = found(kv, format!("failed to check index, key {key:?} doesn't exist"))?;
                if entry.modify_index != self.index {
                    let text =
                        format!("current modify index {} != {}", entry.modify_index, self.index);
                    return Err(format!("failed index check for key {key:?}, {text}"));
                }
            }
            "check-not-exists" if kv.get(key).is_some() => {
                return Err(format!("key {key:?} exists"));
            }
            "check-not-exists" => return Ok(Vec::new()),
            unknown => return Err(format!("unknown KV verb {unknown:?}")),
        }
        Ok(kv.get(key).map(Entry::json_without_value).into_iter().collect())
    }
}

impl Store {
    /// Carries a transaction out, or says of each operation that failed why.
    pub(super) fn transact(&mut self, ops: &[Op], now: Instant) -> Outcome {
        let only_reads = !ops.iter().any(|op| op.kv.writes());
        let at = if only_reads { self.index } else { self.advance() };
        let mut kv = self.kv.clone();
        let mut results = Vec::new();
        let mut errors = Vec::new();
        for (op_index, Op { kv: op }) in ops.iter().enumerate() {
            let delayed = op.verb == "lock" && self.sessions.delayed(&op.key, now);
            let done = match delayed {
                true => Err(format!("failed to lock key {:?} due to lock delay", op.key)),
                false => op.apply(at, &mut kv, &self.sessions),
            };
            match done {
                Ok(entries) => results.extend(entries.into_iter().map(|kv| Done { kv })),
                Err(what) => errors.push(Failed { op_index, what }),
            }
        }
        let read = only_reads.then_some(Read {
            index: 0,
            last_contact: 0,
            known_leader: true,
            consistency_level: "",
        });
        if errors.is_empty() {
            self.kv = kv;
            Outcome { results: Some(results), errors: None, read }
        } else {
            Outcome { read, ..Outcome::failed(errors) }
        }
    }
}
