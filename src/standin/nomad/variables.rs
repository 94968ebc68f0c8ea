//! Variables and their locks, with everything about these that can surprise.

pub(super) mod http;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::state::Key;
use crate::standin::random::Random;

/// A lock expires after this many times its TTL.
const TTL_STRETCH: u32 = 2;
pub(super) const SHORTEST_TTL: Duration = Duration::from_secs(10);
pub(super) const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// The TTL and the delay of a lock that names none.
const DEFAULT: Duration = Duration::from_secs(15);
/// What the keys and values of a variable may have together.
const LARGEST: usize = 64 * 1024;
const LONGEST_PATH: usize = 128;

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Values by name.
    pub items: BTreeMap<String, String>,
    /// The index of its last change.
    pub modify_index: u64,
    /// The lock, where it is held.
    pub lock: Option<Lock>,
    create_index: u64,
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Who holds it.
    pub id: String,
    /// Half of the time after which it expires.
    pub ttl: Duration,
    /// How long it stays closed then.
    pub delay: Duration,
}

/// Why an operation is refused.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    /// Another index, another holder, or no lock any more.
    Conflict,
    /// There is no such variable.
    Missing,
    /// The request makes no sense.
    Bad(String),
}

/// The lock of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) id: Option<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) delay: Option<Duration>,
}

/// All variables, and the leader's timers, which are not replicated.
#[derive(Clone)]
pub(super) struct Variables {
    /// The index of the last write to the table.
    index: u64,
    rows: BTreeMap<Key, Variable>,
    /// When the locks expire that are renewed. One that somebody wrote past has none.
    timers: BTreeMap<Key, Instant>,
    /// Locks that have expired and still stand.
    cleanups: Vec<Cleanup>,
    ids: Random,
}

/// A lock is to be removed, whoever holds it then.
#[derive(Clone)]
struct Cleanup {
    at: Instant,
    key: Key,
    /// Who held it when it expired.
    of: String,
}

impl Default for Variables {
    fn default() -> Self {
        Self {
            index: 0,
            rows: BTreeMap::new(),
            timers: BTreeMap::new(),
            cleanups: Vec::new(),
            ids: Random::new(7),
        }
    }
}

impl Variables {
    pub(super) fn get(&self, key: &Key) -> Option<&Variable> {
        self.rows.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &Variable)> {
        self.rows.iter()
    }

    /// The index of an answer about one variable.
    pub(super) fn index_of(&self, key: &Key) -> u64 {
        self.get(key).map_or(self.index, |it| it.modify_index)
    }

    /// When a timer fires next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.values().copied().chain(self.cleanups.iter().map(|it| it.at)).min()
    }

    /// A plain write. With the lock's id it is the holder's, and it forgets what time the lock has.
    pub(super) fn set(
        &mut self,
        at: u64,
        key: &Key,
        items: BTreeMap<String, String>,
        cas: Option<u64>,
        lock: Option<Wanted>,
    ) -> Result<Variable, Refused> {
        if items.is_empty() {
            return Err(Refused::Bad("variable missing required Items object".to_owned()));
        }
        check_size(&items)?;
        let lock = lock.unwrap_or_default();
        if lock.ttl.is_some() || lock.delay.is_some() {
            return Err(Refused::Bad(
                "lock TTL and delay can only be set by an acquire".to_owned(),
            ));
        }
        if cas.is_some_and(|cas| self.get(key).map_or(0, |it| it.modify_index) != cas) {
            return Err(Refused::Conflict);
        }
        let held = self.get(key).and_then(|it| it.lock.as_ref());
        if held.is_some_and(|it| Some(&it.id) != lock.id.as_ref()) {
            return Err(Refused::Conflict);
        }
        // Where nobody holds the lock any more, this makes one that no timer ends.
        let lock = lock.id.map(|id| Lock { id, ttl: DEFAULT, delay: DEFAULT });
        Ok(self.put(at, key, items, lock))
    }

    pub(super) fn acquire(
        &mut self,
        at: u64,
        key: &Key,
        items: BTreeMap<String, String>,
        lock: Option<Wanted>,
        now: Instant,
    ) -> Result<Variable, Refused> {
        check_size(&items)?;
        let Wanted { id, ttl, delay } = lock.unwrap_or_default();
        let (ttl, delay) = (ttl.unwrap_or(DEFAULT), delay.unwrap_or(DEFAULT));
        if !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
            return Err(Refused::Bad("TTL must be between 10 seconds and 24 hours".to_owned()));
        }
        let held = self.get(key).and_then(|it| it.lock.as_ref());
        if held.is_some_and(|it| Some(&it.id) != id.as_ref()) {
            return Err(Refused::Conflict);
        }
        let id = id.filter(|it| !it.is_empty()).unwrap_or_else(|| self.ids.uuid());
        // A timer that runs is not set anew, and a clean-up that is due stays due.
        self.timers.entry(key.clone()).or_insert(now + TTL_STRETCH * ttl);
        Ok(self.put(at, key, items, Some(Lock { id, ttl, delay })))
    }

    /// Nothing is written, so that the variable keeps its index.
    pub(super) fn renew(
        &mut self,
        key: &Key,
        id: Option<&str>,
        now: Instant,
    ) -> Result<Variable, Refused> {
        let id = required(id)?;
        let variable = self.get(key).ok_or(Refused::Missing)?.clone();
        let lock = variable.lock.as_ref().filter(|it| it.id == id).ok_or(Refused::Conflict)?;
        if self.cleanups.iter().any(|it| it.key == *key && it.of == id) {
            return Err(Refused::Conflict);
        }
        self.timers.insert(key.clone(), now + TTL_STRETCH * lock.ttl);
        Ok(variable)
    }

    pub(super) fn release(
        &mut self,
        at: u64,
        key: &Key,
        id: Option<&str>,
    ) -> Result<Variable, Refused> {
        let id = required(id)?;
        let variable = self.get(key).ok_or(Refused::Missing)?.clone();
        if variable.lock.as_ref().is_none_or(|it| it.id != id) {
            return Err(Refused::Conflict);
        }
        self.timers.remove(key);
        Ok(self.put(at, key, variable.items, None))
    }

    pub(super) fn delete(&mut self, at: u64, key: &Key) {
        self.rows.remove(key);
        self.timers.remove(key);
        self.index = at;
    }

    /// Lets a lock expire at once: its delay begins.
    pub(super) fn expire(&mut self, key: &Key, at: Instant) {
        self.timers.remove(key);
        if let Some(Lock { id, delay, .. }) = self.get(key).and_then(|it| it.lock.clone()) {
            self.cleanups.push(Cleanup { at: at + delay, key: key.clone(), of: id });
        }
    }

    /// Does what was due by now; `advance` gives the index of each removal. True if anything was.
    pub(super) fn run_timers(&mut self, now: Instant, mut advance: impl FnMut() -> u64) -> bool {
        let mut done = false;
        loop {
            let timer = self.timers.iter().filter(|it| *it.1 <= now).min_by_key(|it| *it.1);
            let timer = timer.map(|(key, at)| (*at, key.clone()));
            let cleanup = self.cleanups.iter().enumerate().filter(|it| it.1.at <= now);
            let cleanup = cleanup.min_by_key(|it| it.1.at).map(|(number, it)| (it.at, number));
            match (timer, cleanup) {
                (None, None) => return done,
                (Some((at, key)), cleanup) if cleanup.is_none_or(|(other, _)| at <= other) => {
                    self.expire(&key, at);
                }
                (_, Some((_, number))) => {
                    let Cleanup { key, .. } = self.cleanups.swap_remove(number);
                    if self.get(&key).is_some_and(|it| it.lock.is_some()) {
                        self.timers.remove(&key);
                        self.unlock(advance(), &key);
                    }
                }
                (Some((at, key)), None) => self.expire(&key, at),
            }
            done = true;
        }
    }

    /// What another leader does: every lock has its whole time again, and delays are forgotten.
    pub(super) fn restart(&mut self, now: Instant) {
        self.cleanups.clear();
        let held = self.rows.iter().filter_map(|(key, it)| Some((key, it.lock.as_ref()?)));
        self.timers = held.map(|(key, it)| (key.clone(), now + TTL_STRETCH * it.ttl)).collect();
    }

    fn unlock(&mut self, at: u64, key: &Key) {
        if let Some(variable) = self.rows.get_mut(key) {
            variable.lock = None;
            variable.modify_index = at;
            self.index = at;
        }
    }

    fn put(
        &mut self,
        at: u64,
        key: &Key,
        items: BTreeMap<String, String>,
        lock: Option<Lock>,
    ) -> Variable {
        let create_index = self.get(key).map_or(at, |it| it.create_index);
        let variable = Variable { items, modify_index: at, lock, create_index };
        self.index = at;
        self.rows.insert(key.clone(), variable.clone());
        variable
    }
}

fn required(id: Option<&str>) -> Result<&str, Refused> {
    id.filter(|it| !it.is_empty()).ok_or_else(|| Refused::Bad("missing lock ID".to_owned()))
}

fn check_size(items: &BTreeMap<String, String>) -> Result<(), Refused> {
    let size: usize = items.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > LARGEST {
        return Err(Refused::Bad("variables are limited to 64KiB in total size".to_owned()));
    }
    Ok(())
}

/// Why no variable can have this path.
pub(super) fn check_path(path: &str) -> Result<(), Refused> {
    let allowed = |it: char| it.is_ascii_alphanumeric() || "-_~/".contains(it);
    if path.is_empty() || path.len() > LONGEST_PATH || !path.chars().all(allowed) {
        return Err(Refused::Bad(format!("invalid path \"{path}\"")));
    }
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["nomad", "jobs", ..] | ["nomad", "sentinel"] | ["nomad", "job-templates", _] => Ok(()),
        ["nomad", ..] => {
            Err(Refused::Bad("only paths at \"nomad/jobs\" and below are valid".to_owned()))
        }
        _ => Ok(()),
    }
}
