//! A Nomad server, as far as a firehose sees one.

mod events;
mod http;
mod state;
mod stub;
#[cfg(test)]
mod tests;
mod variables;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Bytes, routing::any};
use serde_json::{Map, Value};
use tokio::{sync::watch, time::Instant};

pub use self::variables::{Lock, Variable};
use self::{
    events::Events,
    state::{Key, State, Verbatim, Written},
    variables::http::Rights,
};
use super::{
    answer,
    fault::{Fault, Reach, Request, Script},
};

/// Which recorded server a stand-in behaves as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Nomad 1.0.18.
    V1_0,
    /// Nomad 2.0.5.
    V2_0,
}

/// A table with an index of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `/v1/allocations`; what is stored is what the list shows.
    Allocations,
    /// `/v1/nodes` shows stubs of what is stored, `/v1/node/:id` all of it.
    Nodes,
    /// `/v1/evaluations`; what is stored is what the list shows.
    Evaluations,
    /// `/v1/jobs` shows stubs of what is stored, `/v1/job/:id` all of it.
    Jobs,
    /// `/v1/deployments`; what is stored is what the list shows.
    Deployments,
}

/// The state of a cluster at one moment.
#[derive(Clone)]
pub struct Snapshot(Arc<State>);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("index", &self.0.index).finish_non_exhaustive()
    }
}

/// A shared handle on one stand-in.
#[derive(Clone)]
pub struct Nomad(Arc<Shared>);

struct Shared {
    version: Version,
    state: Mutex<State>,
    token: Mutex<Option<String>>,
    jitter: Mutex<Duration>,
    follower: Mutex<Option<Snapshot>>,
    script: Script,
    changed: watch::Sender<()>,
    events: Events,
    build: Mutex<Option<String>>,
    variable_rights: Mutex<Rights>,
}

impl Nomad {
    /// A fresh cluster, in which nothing was ever written.
    pub fn new(version: Version) -> Self {
        Self(Arc::new(Shared {
            version,
            state: Mutex::new(State::new()),
            token: Mutex::default(),
            jitter: Mutex::default(),
            follower: Mutex::default(),
            script: Script::default(),
            changed: watch::Sender::new(()),
            events: Events::default(),
            build: Mutex::default(),
            variable_rights: Mutex::default(),
        }))
    }

    /// The HTTP API.
    pub fn router(&self) -> Router {
        let router = Router::new().fallback(http::handle).layer(answer::compression());
        // Compressed, a line would wait for the next ones.
        router.route(events::PATH, any(http::handle)).with_state(self.clone())
    }

    /// Creates or replaces an object; the index at which that happened.
    pub fn upsert(&self, table: Table, object: Map<String, Value>) -> u64 {
        self.upsert_many([(table, object)])
    }

    /// Creates or replaces several objects at one index.
    pub fn upsert_many(
        &self,
        objects: impl IntoIterator<Item = (Table, Map<String, Value>)>,
    ) -> u64 {
        self.change(|state| {
            let index = state.advance();
            let written =
                objects.into_iter().map(|(table, object)| state.put(index, table, object));
            let written: Vec<Written> = written.collect();
            self.publish(state, index, &written);
            index
        })
    }

    /// Writes an object at an index of the caller's choice, as a second commit at an index that readers have seen.
    pub fn upsert_at(&self, index: u64, table: Table, object: Map<String, Value>) {
        self.change(|state| {
            let written = state.put(index, table, object);
            self.publish(state, index, &[written]);
        });
    }

    /// Removes an object, as garbage collection does; nodes have no namespace (`""`).
    pub fn delete(&self, table: Table, namespace: &str, id: &str) -> u64 {
        self.change(|state| {
            let index = state.advance();
            let last = state.remove(index, table, &Key::new(namespace, id));
            self.publish_removal(index, table, last);
            index
        })
    }

    /// Moves the index of a table and nothing else, as bookkeeping does (node events, updates of allocations).
    pub fn touch(&self, table: Table) -> u64 {
        self.change(|state| {
            let index = state.advance();
            state.table_mut(table).index = index;
            self.publish_touch(state, index, table);
            index
        })
    }

    /// Replaces the summary of a job, which moves the index of the job list but of no job.
    pub fn set_summary(&self, namespace: &str, id: &str, summary: Map<String, Value>) -> u64 {
        self.change(|state| {
            let index = state.advance();
            state.put_summary(index, Key::new(namespace, id), summary);
            index
        })
    }

    /// Creates a namespace; `default` is there from the beginning.
    pub fn add_namespace(&self, name: &str) -> u64 {
        self.change(|state| {
            let index = state.advance();
            state.put_namespace(index, name);
            index
        })
    }

    /// Serves these bytes as the list (in namespace `default` and for `*`) until the table is written again.
    pub fn serve_recorded(&self, table: Table, list: Bytes, index: u64) {
        self.serve_verbatim(table, Verbatim::Recorded(list), index);
    }

    /// Serves a list whose elements are made anew for each request, while it is sent.
    pub fn serve_generated<I>(
        &self,
        table: Table,
        index: u64,
        elements: impl Fn() -> I + Send + Sync + 'static,
    ) where
        I: Iterator<Item = Bytes> + Send + 'static,
    {
        let elements = move || -> Box<dyn Iterator<Item = Bytes> + Send> { Box::new(elements()) };
        self.serve_verbatim(table, Verbatim::Generated(Arc::new(elements)), index);
    }

    /// Serves these bytes as the object until it is written again; nodes have no namespace (`""`).
    pub fn serve_object(&self, table: Table, namespace: &str, id: &str, body: Bytes) {
        self.change(|state| state.put_recorded(table, Key::new(namespace, id), body));
    }

    /// Sets the counter from which every change takes its index: the next one has `index + 1`. With the snapshot of a
    /// fresh cluster restored before, this is a cluster that was rebuilt from nothing.
    pub fn set_index(&self, index: u64) {
        self.change(|state| state.index = index);
    }

    /// The last index that was given out.
    pub fn index(&self) -> u64 {
        self.state().index
    }

    /// Saves the state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Arc::new(self.state().clone()))
    }

    /// Restores a state, objects and indexes of tables; the next change goes on from the present counter, as in Nomad.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.change(|state| {
            *state = state.restored(&snapshot.0);
            state.variables.restart(Instant::now());
        });
        self.forget_events();
    }

    /// Lets reads that allow `stale` see this state, as of a follower that hangs, until that is taken back with `None`;
    /// event streams that are opened meanwhile come from this follower.
    pub fn lag(&self, follower: Option<Snapshot>) {
        self.follow_events(follower.as_ref().map(|Snapshot(state)| state.index));
        *lock(&self.0.follower) = follower;
        self.0.changed.send_replace(());
    }

    /// Scripts a fault for the next request whose path, or method and path (`GET /v1/jobs`), begins with `prefix`.
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

    /// While true, requests vanish without an answer, those under way included, and event streams are silent.
    pub fn partition(&self, on: bool) {
        self.0.script.set_reach(if on { Reach::Silent } else { Reach::Connected });
        self.0.events.wake();
    }

    /// While true, every request is answered with 500 for want of a leader.
    pub fn leaderless(&self, on: bool) {
        self.0.script.set_reach(if on { Reach::Leaderless } else { Reach::Connected });
    }

    /// Demands this token; without one everybody may read.
    pub fn require_token(&self, token: Option<String>) {
        *lock(&self.0.token) = token;
        self.0.events.wake();
    }

    /// Lets blocking queries wait longer than they ask by this time, at most a sixteenth of the wait.
    pub fn set_jitter(&self, jitter: Duration) {
        *lock(&self.0.jitter) = jitter;
    }

    fn serve_verbatim(&self, table: Table, list: Verbatim, index: u64) {
        self.change(|state| {
            state.index = state.index.max(index);
            let table = state.table_mut(table);
            table.index = index;
            table.verbatim = Some(list);
        });
    }

    /// A variable.
    pub fn variable(&self, namespace: &str, path: &str) -> Option<Variable> {
        self.state().variables.get(&Key::new(namespace, path)).cloned()
    }

    /// The paths of all variables.
    pub fn variables(&self) -> Vec<String> {
        self.state().variables.all().map(|(key, _)| key.id.clone()).collect()
    }

    /// Writes a variable by hand, whoever holds its lock; that stays.
    pub fn put_variable(&self, namespace: &str, path: &str, items: BTreeMap<String, String>) {
        self.change(|state| {
            let at = state.advance();
            let key = Key::new(namespace, path);
            let id = state.variables.get(&key).and_then(|it| it.lock.as_ref()).map(|it| &it.id);
            let lock = variables::Wanted { id: id.cloned(), ..Default::default() };
            let _ = state.variables.set(at, &key, items, None, Some(lock));
        });
    }

    /// Removes a variable, and its lock with it.
    pub fn delete_variable(&self, namespace: &str, path: &str) {
        self.change(|state| {
            let at = state.advance();
            state.variables.delete(at, &Key::new(namespace, path));
        });
    }

    /// Lets the lock of a variable expire at once: its delay begins.
    pub fn expire_lock(&self, namespace: &str, path: &str) {
        self.change(|state| state.variables.expire(&Key::new(namespace, path), Instant::now()));
    }

    /// Lets another server lead: every lock has its whole time again, and delays are forgotten.
    pub fn change_leader(&self) {
        self.change(|state| state.variables.restart(Instant::now()));
    }

    /// Denies everybody variables that begin so.
    pub fn deny_variables(&self, prefix: Option<String>) {
        lock(&self.0.variable_rights).denied = prefix;
    }

    /// Denies everybody writes to variables that begin so.
    pub fn deny_variable_writes(&self, prefix: Option<String>) {
        lock(&self.0.variable_rights).read_only = prefix;
    }

    /// Shows readers no locks, as Nomad does without a management token.
    pub fn hide_locks(&self, on: bool) {
        lock(&self.0.variable_rights).locks_hidden = on;
    }

    /// Lets the servers say that they are of this version; before 1.4 they have no variables, before 1.7 no locks.
    pub fn set_build(&self, build: &str) {
        *lock(&self.0.build) = Some(build.to_owned());
    }

    fn build(&self) -> String {
        lock(&self.0.build).clone().unwrap_or_else(|| self.0.version.text().to_owned())
    }

    /// The state as of now: what had to expire has.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0.state);
        if state.run_timers(Instant::now()) {
            self.0.changed.send_replace(());
        }
        state
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state());
        self.0.changed.send_replace(());
        done
    }
}

/// A test that panicked with the lock held left the state whole: every change is made in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
