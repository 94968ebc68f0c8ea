//! Positions: how far a stream has been published, and how far Nomad has been read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    ops::RangeInclusive,
    time::SystemTime,
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

mod saved;

pub use saved::{Encoded, Resumed, Saved, Start, decode, shard_count};

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

/// A task of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    allocation: u128,
    name: u64,
}

impl Task {
    /// The task `name` of the allocation `id`.
    #[must_use]
    pub fn new(id: &str, name: &str) -> Self {
        Self { allocation: allocation(id), name: xxh3_64(name.as_bytes()) }
    }
}

/// An allocation's id as a number: the UUID itself, so that two ids are never taken for one.
#[must_use]
pub fn allocation(id: &str) -> u128 {
    let dashes = id.len() == 36 && [8, 13, 18, 23].iter().all(|it| id.as_bytes()[*it] == b'-');
    let digits: String = id.chars().filter(|it| *it != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(uuid) if dashes && digits.len() == 32 => uuid,
        // Not an id that Nomad makes.
        _ => xxh3_128(id.as_bytes()),
    }
}

/// The last task event of a task that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// `ModifyIndex` of the allocation that showed it.
    pub index: Index,
    /// Its `Time`.
    pub time: Nanos,
    /// A hash of its `Type`.
    pub kind: u32,
    /// A hash of the whole event.
    pub hash: u64,
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
    /// The same, at the end of a whole list: what is remembered of others is of no more use.
    ReachListed(Index, HashSet<u128>),
    /// Nomad's index has gone back to this one.
    Lower(Index),
}

/// How far a stream has been published. A checkpoint holds all of it.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    kind: Kind,
    floor: Index,
    /// Whether `above` holds every object whose index is the floor itself.
    floor_is_known: bool,
    /// Objects at the floor and above it: what is durable of them.
    above: HashMap<u64, (Index, u64)>,
    tails: BTreeMap<Task, Tail>,
    since: Since,
    newest: Nanos,
    shards: u32,
    dirty: BTreeSet<u32>,
    moves: u64,
    /// Which part of which Nomad it is a position in; for a warning.
    scope: String,
}

impl Cursor {
    /// Before everything.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, floor_is_known: true, shards: 1, ..Self::default() }
    }

    /// At an index of which only the number is known.
    #[must_use]
    pub fn at(floor: Index) -> Self {
        Self { floor, floor_is_known: false, ..Self::new(Kind::Objects) }
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
    pub fn tail(&self, task: Task) -> Option<&Tail> {
        self.tails.get(&task)
    }

    /// The tails of an allocation's tasks.
    pub fn tails_of(&self, allocation: u128) -> impl Iterator<Item = &Tail> {
        let of = |name| Task { allocation, name };
        self.tails.range(of(0)..=of(u64::MAX)).map(|(_, tail)| tail)
    }

    /// How many tasks have a tail.
    #[must_use]
    pub fn tails(&self) -> usize {
        self.tails.len()
    }

    /// What is durable of an object at the floor or above it: its index and hash.
    #[must_use]
    pub fn object(&self, key: u64) -> Option<(Index, u64)> {
        self.above.get(&key).copied()
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
                    self.above.insert(key, (index, hash));
                }
            }
            Mark::Task(task, tail) => {
                self.newest = self.newest.max(tail.time);
                self.tails.insert(task, tail);
                self.dirty.insert(self.shard(task));
            }
        }
    }

    /// The floor moves.
    pub fn go(&mut self, to: &Move) {
        match to {
            Move::Reach(floor) => self.reach(*floor),
            Move::ReachListed(floor, listed) => {
                let (shards, dirty) = (self.shards, &mut self.dirty);
                self.tails.retain(|task, tail| {
                    // One above the floor was published from a list that this one lags behind.
                    let keep = tail.index > *floor || listed.contains(&task.allocation);
                    if !keep {
                        dirty.insert(shard(*task, shards));
                    }
                    keep
                });
                // What is above the floor was published from something newer than that list.
                self.above.retain(|key, (index, _)| {
                    *index > *floor || listed.contains(&u128::from(*key))
                });
                self.reach(*floor);
                self.since = Since::Floor;
            }
            Move::Lower(floor) => {
                self.moves += 1;
                self.floor = *floor;
                self.floor_is_known = false;
                self.above.clear();
                // An allocation that was set back is not an old one.
                for tail in self.tails.values_mut() {
                    tail.index = tail.index.min(*floor);
                }
                self.dirty.extend(0..self.shards);
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

    fn shard(&self, task: Task) -> u32 {
        shard(task, self.shards)
    }
}

/// The shard that holds the tail of a task, where there are `count` (a power of two). The leading
/// bits of a UUID are as random as the others, and make each shard a range.
fn shard(task: Task, count: u32) -> u32 {
    let bits = count.trailing_zeros();
    if bits == 0 { 0 } else { (task.allocation >> (128 - bits)) as u32 }
}

/// The tasks of a shard.
fn shard_range(number: u32, count: u32) -> RangeInclusive<Task> {
    let bits = count.trailing_zeros();
    if bits == 0 {
        let last = Task { allocation: u128::MAX, name: u64::MAX };
        return Task { allocation: 0, name: 0 }..=last;
    }
    let first = u128::from(number) << (128 - bits);
    let last = Task { allocation: first | (u128::MAX >> bits), name: u64::MAX };
    Task { allocation: first, name: 0 }..=last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: u64, index: u64) -> Mark {
        Mark::Object { key, index: Index(index), hash: key }
    }

    #[test]
    fn an_allocation_id_is_its_uuid_and_any_other_text_still_has_a_name() {
        assert_eq!(allocation("00000000-0000-0000-0000-0000000000ff"), 255);
        assert_ne!(allocation("web"), allocation("worker"));
        assert_ne!(allocation("00000000-0000-0000-0000-0000000000fg"), 255);
    }

    #[test]
    fn what_is_below_the_floor_is_forgotten_and_what_is_at_it_is_kept() {
        let mut cursor = Cursor::new(Kind::Objects);
        for (key, index) in [(1, 5), (2, 6), (3, 7)] {
            cursor.apply(object(key, index));
        }
        cursor.reach(Index(6));
        assert_eq!(cursor.object(1), None);
        assert_eq!(cursor.object(2), Some((Index(6), 2)));
        assert_eq!(cursor.object(3), Some((Index(7), 3)));
        cursor.reach(Index(4));
        assert_eq!(cursor.floor(), Index(6));
    }

    #[test]
    fn a_floor_goes_back_only_when_told_to() {
        let mut cursor = Cursor::at(Index(9));
        cursor.apply(object(1, 12));
        cursor.go(&Move::Lower(Index(3)));
        assert_eq!((cursor.floor(), cursor.object(1)), (Index(3), None));
    }

    #[test]
    fn tails_of_allocations_that_are_gone_are_forgotten() {
        let mut cursor = Cursor::new(Kind::TaskEvents);
        let tail = Tail { index: Index(5), time: 1, kind: 0, hash: 0 };
        let (kept, gone) = (Task::new("a", "t"), Task::new("b", "t"));
        cursor.apply(Mark::Task(kept, tail));
        cursor.apply(Mark::Task(gone, tail));
        cursor.go(&Move::ReachListed(Index(5), HashSet::from([allocation("a")])));
        assert_eq!((cursor.tail(kept), cursor.tail(gone)), (Some(&tail), None));
    }

    #[test]
    fn the_go_tools_value_is_never_beyond_now() {
        let mut cursor = Cursor::new(Kind::TaskEvents);
        let tail = Tail { index: Index(5), time: 1_000, kind: 0, hash: 0 };
        cursor.apply(Mark::Task(Task::new("a", "t"), tail));
        assert_eq!((cursor.value(900), cursor.value(2_000)), (900, 1_000));
    }
}
