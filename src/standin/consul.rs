//! A Consul agent, as far as sessions, locks and keys go; it behaves as Consul 1.8.7.

mod http;
mod kv;
mod sessions;
#[cfg(test)]
mod tests;
mod txn;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{Router, body::Bytes};
use tokio::{sync::watch, time::Instant};

pub use self::kv::Entry;
pub use self::sessions::{Behavior, Session};
use self::{kv::Kv, sessions::Sessions};
use super::{
    answer,
    fault::{Fault, Reach, Request, Script},
};

/// A shared handle on one stand-in.
#[derive(Clone)]
pub struct Consul(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    rights: Mutex<Rights>,
    script: Script,
    changed: watch::Sender<()>,
}

/// What clients may do.
#[derive(Default)]
struct Rights {
    token: Option<String>,
    read_only: Option<String>,
}

/// Everything that Raft would hold, and what the leader remembers beside it.
struct Store {
    /// The last index given out.
    index: u64,
    kv: Kv,
    sessions: Sessions,
}

impl Store {
    fn advance(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    /// Ends a session: its keys are freed, and nobody gets them until the lock-delay is over.
    fn invalidate(&mut self, id: &str, at: Instant) {
        let index = self.advance();
        if let Some(session) = self.sessions.remove(index, id) {
            let freed = self.kv.free(index, &session);
            self.sessions.delay(freed, at + session.lock_delay);
        }
    }

    /// Ends the sessions that were not renewed in time; true if there were any.
    fn expire(&mut self, now: Instant) -> bool {
        let expired = self.sessions.expired(now);
        for (id, at) in &expired {
            self.invalidate(id, *at);
        }
        !expired.is_empty()
    }
}

impl Consul {
    /// An agent with nothing in it.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            store: Mutex::new(Store { index: 1, kv: Kv::default(), sessions: Sessions::default() }),
            rights: Mutex::default(),
            script: Script::default(),
            changed: watch::Sender::new(()),
        }))
    }

    /// The HTTP API.
    pub fn router(&self) -> Router {
        Router::new().fallback(http::handle).with_state(self.clone()).layer(answer::compression())
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.entry(key).map(|entry| entry.value.to_vec())
    }

    /// A key with all that Consul knows of it.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        self.store().kv.get(key).cloned()
    }

    /// The sessions that live now.
    pub fn sessions(&self) -> Vec<Session> {
        self.store().sessions.all().cloned().collect()
    }

    /// Writes a key as a plain put does, say as the Go tool.
    pub fn put(&self, key: &str, value: impl Into<Bytes>) {
        self.change(|store| {
            let index = store.advance();
            store.kv.put(index, key, value.into(), 0);
        });
    }

    /// Removes a key.
    pub fn delete(&self, key: &str) {
        self.change(|store| {
            let index = store.advance();
            store.kv.delete(index, key);
        });
    }

    /// Ends a session at once, as a failed health check does: the lock-delay begins.
    pub fn expire(&self, session: &str) {
        self.change(|store| store.invalidate(session, Instant::now()));
    }

    /// Lets another server lead: every session has its whole time again, and lock-delays are forgotten.
    pub fn change_leader(&self) {
        self.change(|store| store.sessions.restart(Instant::now()));
    }

    /// Scripts a fault for the next request whose path, or method and path (`PUT /v1/txn`), begins with `prefix`.
    pub fn script(&self, prefix: &str, fault: Fault) {
        self.0.script.add(prefix, fault);
    }

    /// How many scripted faults still wait for their request.
    pub fn faults_left(&self) -> usize {
        self.0.script.pending()
    }

    /// Drops the faults that still wait for their request; how many these were.
    pub fn forget_faults(&self) -> usize {
        self.0.script.forget()
    }

    /// What was asked so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.0.script.requests()
    }

    /// While true, requests vanish without an answer, those under way included; sessions run out meanwhile.
    pub fn partition(&self, on: bool) {
        self.0.script.set_reach(if on { Reach::Silent } else { Reach::Connected });
    }

    /// While true, every request is answered with 500 for want of a leader.
    pub fn leaderless(&self, on: bool) {
        self.0.script.set_reach(if on { Reach::Leaderless } else { Reach::Connected });
    }

    /// Demands this token; without one everybody may do everything.
    pub fn require_token(&self, token: Option<String>) {
        lock(&self.0.rights).token = token;
    }

    /// Denies everybody writes to keys that begin so, locks included.
    pub fn deny_writes(&self, prefix: Option<String>) {
        lock(&self.0.rights).read_only = prefix;
    }

    /// The store as of now: what had to expire has.
    fn store(&self) -> MutexGuard<'_, Store> {
        let mut store = lock(&self.0.store);
        if store.expire(Instant::now()) {
            self.0.changed.send_replace(());
        }
        store
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let done = change(&mut self.store());
        self.0.changed.send_replace(());
        done
    }

    fn may_write(&self, key: &str) -> bool {
        lock(&self.0.rights).read_only.as_deref().is_none_or(|prefix| !key.starts_with(prefix))
    }
}

impl Default for Consul {
    fn default() -> Self {
        Self::new()
    }
}

/// A test that panicked with the lock held left the state whole: every change is made in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
