//! Positions: how far a stream has been published, and how far Nomad has been read.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::{Duration, SystemTime},
};

mod ahead;
mod form;
mod saved;
mod shard;
mod tails;
mod task;

pub use ahead::Ahead;
use ahead::Shared;
pub use form::{Form, same};
pub use saved::{Encoded, Loading, Resumed, Saved, Start, decode};
pub use task::{Tail, Task, allocation};

/// A Raft index of Nomad: of a change, or of a list (`X-Nomad-Index`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// The index before this one; zero stays zero.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since 1970, by the clock of whoever wrote them.
pub type Nanos = i64;

/// The time by the clock of this machine.
#[must_use]
pub fn now() -> Nanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}

/// What a stream publishes, and so what its position is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Objects, each known by its last index.
    #[default]
    Objects,
    /// Task events, known by the last one published of each task.
    TaskEvents,
}

/// What becomes durable with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This state of an object.
    Object {
        /// The object's name, hashed.
        key: u64,
        /// Its `ModifyIndex`, as the list or the event gave it.
        index: Index,
        /// A hash of what the list showed of it.
        hash: u64,
    },
    /// This event of a task, and those before it.
    Task(Task, Tail),
}

/// What is published of that of which nothing is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// All that is above the floor.
    #[default]
    Floor,
    /// Task events later than this; it is what the Go tool's position can tell.
    Time(Nanos),
    /// Nothing that exists at the first read.
    Now,
}

/// A move of the floor.
#[derive(Clone, Debug)]
pub enum Move {
    /// Every change up to this index is durable.
    Reach(Index),
    /// The same, at the end of a whole list: what is remembered of others is of no more use,
    /// unless it is above the list's index, and the list too old to have it.
    ReachListed {
        /// Every change up to this index is durable.
        floor: Index,
        /// The index of the list.
        list: Index,
        /// What it has.
        listed: Listed,
    },
    /// Nomad's index has gone back to this one.
    Lower(Index),
}

/// What a whole list has shown.
#[derive(Clone, Debug)]
pub enum Listed {
    /// These objects.
    Objects(HashSet<u64>),
    /// The allocations that were marked with this generation, or a later one.
    Tasks(u32),
}

/// How far a stream has been published. A checkpoint holds all of it.
#[derive(Debug, Default)]
pub struct Cursor {
    kind: Kind,
    floor: Index,
    /// Whether `above` holds every object whose index is the floor itself.
    floor_is_known: bool,
    /// Objects at the floor and above it: what is durable of them.
    above: HashMap<u64, (Index, u64)>,
    /// Hashes of earlier commits at the same index, of the few objects that have them: the event
    /// stream shows them again.
    earlier: HashMap<u64, Vec<u64>>,
    tails: Shared,
    since: Since,
    newest: Nanos,
    moves: u64,
    /// Which part of which Nomad it is a position in; for a warning.
    scope: String,
}

impl Cursor {
    /// Before everything.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, floor_is_known: true, ..Self::default() }
    }

    /// At an index of which only the number is known.
    #[must_use]
    pub fn at(floor: Index) -> Self {
        Self { floor, floor_is_known: false, ..Self::new(Kind::Objects) }
    }

    /// With at most so many tails, as far as there are some to drop.
    #[must_use]
    pub fn with_most_tails(self, most: usize) -> Self {
        self.tails.lock().durable.bound(most);
        self
    }

    /// The same position, and the same tails: whatever becomes of these is seen by both.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            above: self.above.clone(),
            earlier: self.earlier.clone(),
            tails: self.tails.share(),
            scope: self.scope.clone(),
            ..*self
        }
    }

    /// For whoever reads ahead of this cursor: the same position, but for the tails, and those. A
    /// cursor has one reader at a time.
    #[must_use]
    pub fn ahead(&self) -> (Self, Ahead) {
        let apart = Self { tails: Shared::default(), ..self.share() };
        (apart, Ahead::new(&self.tails))
    }

    /// Every change up to this index is durable.
    #[must_use]
    pub fn floor(&self) -> Index {
        self.floor
    }

    /// What is published of that of which nothing is remembered.
    #[must_use]
    pub fn since(&self) -> Since {
        self.since
    }

    /// The tail of a task.
    #[must_use]
    pub fn tail(&self, task: Task) -> Option<Tail> {
        self.tails.lock().durable.get(task).map(tails::Entry::tail)
    }

    /// How many tasks have a tail.
    #[must_use]
    pub fn tails(&self) -> usize {
        self.tails.lock().durable.len()
    }

    /// How many tails were dropped for want of space since this was last asked.
    pub fn take_dropped(&mut self) -> usize {
        self.tails.lock().durable.take_dropped()
    }

    /// What is durable of an object at the floor or above it: its index and hash.
    #[must_use]
    pub fn object(&self, key: u64) -> Option<(Index, u64)> {
        self.above.get(&key).copied()
    }

    /// Whether a state of an object, at its last index, is durable.
    #[must_use]
    pub fn has(&self, key: u64, hash: u64) -> bool {
        self.above.get(&key).is_some_and(|(_, last)| same(*last, hash))
            || self.earlier.get(&key).is_some_and(|it| it.iter().any(|it| same(*it, hash)))
    }

    /// The highest index that is remembered above the floor.
    #[must_use]
    pub fn highest(&self) -> Option<Index> {
        self.above.values().map(|(index, _)| *index).max()
    }

    /// Whether every object at the floor itself is remembered.
    #[must_use]
    pub fn floor_is_known(&self) -> bool {
        self.floor_is_known
    }

    /// How often it has moved: the same number means that there is nothing new to save.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// A record is durable.
    pub fn apply(&mut self, mark: Mark) {
        self.moves += 1;
        match mark {
            Mark::Object { key, index, hash } => {
                if index >= self.floor {
                    match self.above.insert(key, (index, hash)) {
                        Some((last, known)) if last == index && known != hash => {
                            let earlier = self.earlier.entry(key).or_default();
                            earlier.retain(|it| *it != hash);
                            earlier.push(known);
                        }
                        Some((last, _)) if last == index => (),
                        _ => drop(self.earlier.remove(&key)),
                    }
                }
            }
            Mark::Task(task, tail) => {
                self.newest = self.newest.max(tail.time);
                let mut tails = self.tails.lock();
                tails.apply(task, tail);
                if tails.durable.is_full() {
                    tails.durable.trim(self.floor);
                }
            }
        }
    }

    /// The floor moves.
    pub fn go(&mut self, to: &Move) {
        match to {
            Move::Reach(floor) => self.reach(*floor),
            Move::ReachListed { floor, list, listed } => {
                match listed {
                    Listed::Tasks(generation) => self.tails.lock().sweep(*generation, *list),
                    Listed::Objects(listed) => {
                        let newer = |index: Index| index > *list;
                        self.above.retain(|key, (index, _)| newer(*index) || listed.contains(key));
                        self.earlier.retain(|key, _| self.above.contains_key(key));
                    }
                }
                self.reach(*floor);
                self.since = Since::Floor;
            }
            Move::Lower(floor) => {
                self.moves += 1;
                self.floor = *floor;
                self.floor_is_known = false;
                self.above.clear();
                self.earlier.clear();
                self.tails.lock().lower(*floor);
            }
        }
    }

    /// Moves the floor up; a lower one is ignored.
    pub fn reach(&mut self, floor: Index) {
        // A start from now has passed over what is at the floor without looking.
        let known = self.since != Since::Now;
        if !known {
            self.moves += 1;
            self.since = Since::Floor;
        }
        if floor > self.floor {
            self.moves += 1;
            self.floor = floor;
            self.floor_is_known = known;
            self.above.retain(|_, (index, _)| *index >= floor);
            self.earlier.retain(|key, _| self.above.contains_key(key));
            let mut tails = self.tails.lock();
            if tails.durable.is_above_bound() {
                tails.durable.trim(floor);
            }
        }
    }

    /// How far it has come, in words.
    #[must_use]
    pub fn about(&self) -> String {
        let newest = Duration::from_nanos(u64::try_from(self.newest).unwrap_or_default());
        let at = SystemTime::UNIX_EPOCH.checked_add(newest).filter(|_| self.newest > 0);
        match at.filter(|_| self.kind == Kind::TaskEvents) {
            Some(at) => {
                format!("task events up to {} are published", humantime::format_rfc3339_seconds(at))
            }
            None => format!("everything up to index {} is published", self.floor),
        }
    }

    /// The position as the Go tool writes and reads it: the floor, or for task events the highest
    /// `Time`, but not beyond `now`: a node whose clock is ahead would silence the Go tool.
    #[must_use]
    pub fn value(&self, now: Nanos) -> u64 {
        match self.kind {
            Kind::Objects => self.floor.0,
            Kind::TaskEvents => u64::try_from(self.newest.min(now)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
