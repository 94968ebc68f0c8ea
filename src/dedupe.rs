//! A list shows the same change again and again; it is published once. Pure: given what was read
//! so far, is this new?

use std::{collections::HashMap, ops::RangeInclusive};

use crate::cursor::{Ahead, Cursor, Form, Index, Listed, Mark, Move, Nanos, Since, Tail, Task};

/// Nomad keeps this many events of a task and drops the oldest.
pub const EVENTS_KEPT: usize = 10;

/// What has been read, and so need not be read again. It is ahead of what is durable.
#[derive(Debug)]
pub struct Seen {
    cursor: Cursor,
    tails: Ahead,
    /// The last index of every object that this term has read, so that one that goes back is
    /// noticed.
    listed: HashMap<u64, Index>,
    /// The index of what is being read. It may be older than what was read before, and then what
    /// it does not know yet has not gone back.
    horizon: Index,
    /// Where the event stream was cut. A second commit at such an index may have been missed.
    cuts: Option<RangeInclusive<Index>>,
    /// The last index that the event stream has shown. A second commit at it may be yet to come.
    heard: Option<Index>,
}

/// Whether a state of an object is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was, or it is older than what was.
    Old,
    /// It was not. The hash is that of the state.
    New {
        /// See [`Mark::Object`].
        hash: u64,
    },
    /// It has the index of the last one, and was seen elsewhere. Nomad may have committed twice at
    /// this index, and whether this is the second is to be found out.
    Recheck {
        /// See [`Mark::Object`].
        hash: u64,
    },
    /// The object is older than it was in an earlier list: a sign that Nomad was set back.
    Reverted,
}

/// One task event, as far as telling events apart needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its `Time`.
    pub time: Nanos,
    /// A hash of its `Type`.
    pub kind: u32,
    /// A hash of the whole event.
    pub hash: u64,
}

/// Which of a task's events are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEvents {
    /// Position of the first new one; the number of events where there is none.
    pub from: usize,
    /// Whether Nomad has dropped events before they could be read.
    pub gap: bool,
    /// Whether the position of the last event is worth keeping although nothing is published.
    pub silent: bool,
}

impl Seen {
    /// Starts from what is durable, and reads its tails from there as long as nothing newer is
    /// known. A cursor has one of these at a time.
    #[must_use]
    pub fn new(durable: &Cursor) -> Self {
        let (cursor, tails) = durable.ahead();
        // Of a key whose record waited when the term before ended, a second commit may be missing.
        let cuts = cursor.highest().map(|it| cursor.floor()..=it);
        Self { cursor, tails, listed: HashMap::new(), horizon: Index::default(), cuts, heard: None }
    }

    /// Every change up to here has been read.
    #[must_use]
    pub fn floor(&self) -> Index {
        self.cursor.floor()
    }

    /// What is to be done with that of which nothing is remembered.
    #[must_use]
    pub fn since(&self) -> Since {
        self.cursor.since()
    }

    /// Whether an object with this index can hold nothing new, so that it need not be decoded.
    #[must_use]
    pub fn is_below_floor(&self, index: Index) -> bool {
        index < self.cursor.floor()
    }

    /// Whether a state of an object is new. `hash` is of the state without the fields that change
    /// without an index.
    pub fn object(&self, key: u64, index: Index, hash: impl FnOnce() -> u64) -> Verdict {
        let older = |last: Index| match last <= self.horizon {
            true => Verdict::Reverted,
            false => Verdict::Old,
        };
        if let Some(listed) = self.listed.get(&key).filter(|it| index < **it) {
            return older(*listed);
        }
        let floor = self.cursor.floor();
        if index < floor || self.cursor.since() == Since::Now {
            return Verdict::Old;
        }
        match self.cursor.object(key) {
            Some((last, _)) if index < last => older(last),
            // Nomad may commit twice at one index, and a reader may come between the two.
            Some((last, known)) if index == last => match hash() {
                hash if self.cursor.has(key, hash) => Verdict::Old,
                hash => self.at_one_index(index, known, hash),
            },
            Some(_) => Verdict::New { hash: hash() },
            None if index == floor && !self.cursor.floor_is_known() => Verdict::Old,
            None => Verdict::New { hash: hash() },
        }
    }

    /// What is to be done with a state that is not the one that was published of the same index.
    /// Each source shows the commits of an index in order, but one may be ahead of the other.
    fn at_one_index(&self, index: Index, known: u64, hash: u64) -> Verdict {
        let cut = self.cuts.as_ref().is_some_and(|it| it.contains(&index));
        match (Form::of(known), Form::of(hash)) {
            // The list may have been past the commit that the stream shows.
            (Form::Stub | Form::Listed, Form::Event) => Verdict::Recheck { hash },
            // A stream that was cut shows the commits of the index anew, among them one that a
            // list had passed over.
            (Form::Event, Form::Event) if cut => Verdict::Recheck { hash },
            // A stream that is past the index, and was not cut there, has shown both.
            (Form::Event, Form::Stub) => match cut || self.heard.is_some_and(|it| it <= index) {
                true => Verdict::Recheck { hash },
                false => Verdict::Old,
            },
            _ => Verdict::New { hash },
        }
    }

    /// Whether a state differs from the last list after Nomad was set back.
    pub fn object_after_regression(
        &self,
        key: u64,
        index: Index,
        hash: impl FnOnce() -> u64,
    ) -> Verdict {
        match self.listed.get(&key) {
            Some(listed) if *listed == index => Verdict::Old,
            _ => Verdict::New { hash: hash() },
        }
    }

    /// Whether an allocation with this index is older than an event that was published of it.
    #[must_use]
    pub fn is_set_back(&self, allocation: u128, index: Index) -> bool {
        self.tails.is_set_back(allocation, index, self.horizon)
    }

    /// What is known of an object at the floor or above it: its index and hash.
    #[must_use]
    pub fn known(&self, key: u64) -> Option<(Index, u64)> {
        self.cursor.object(key)
    }

    /// Whether a state of an object, at its last index, was published.
    #[must_use]
    pub fn has(&self, key: u64, hash: u64) -> bool {
        self.cursor.has(key, hash)
    }

    /// Which events of a task are new, where the allocation has this index.
    #[must_use]
    pub fn events(&self, task: Task, index: Index, events: &[Seal]) -> NewEvents {
        let none = NewEvents { from: events.len(), gap: false, silent: false };
        let all = NewEvents { from: 0, gap: false, silent: false };
        if events.is_empty() {
            return none;
        }
        let Some(tail) = self.tails.tail(task) else {
            let floor = self.cursor.floor();
            let above = index > floor || (index == floor && self.cursor.floor_is_known());
            return match self.cursor.since() {
                Since::Now => NewEvents { silent: true, ..none },
                Since::Time(time) => {
                    let from = events.iter().position(|it| it.time > time);
                    let from = from.unwrap_or(events.len());
                    NewEvents { from, silent: from == events.len(), ..none }
                }
                Since::Floor if above => all,
                Since::Floor => NewEvents { silent: true, ..none },
            };
        };
        if index < tail.index {
            return none;
        }
        let same = |it: &Seal| (it.time, it.kind) == (tail.time, tail.kind);
        // A server of another version may show the same event with more fields or another text:
        // then the first that has its time and type is taken for it, lest a later one be lost.
        let found = events.iter().rposition(|it| same(it) && it.hash == tail.hash);
        match found.or_else(|| events.iter().position(same)) {
            Some(at) => NewEvents { from: at + 1, ..none },
            // Nomad committed twice at this index, and this is the state of the first.
            None if index == tail.index && events.iter().all(|it| it.time <= tail.time) => none,
            None => NewEvents { gap: true, ..all },
        }
    }

    /// Whether any object or task is remembered.
    #[must_use]
    pub fn knows_any(&self) -> bool {
        !self.listed.is_empty() || !self.tails.is_empty()
    }

    /// A list of this index is being read.
    pub fn read_at(&mut self, index: Index) {
        self.horizon = index;
    }

    /// The event stream was cut after this index.
    pub fn cut(&mut self, index: Index) {
        self.cuts = Some(match self.cuts.take() {
            None => index..=index,
            Some(it) => index.min(*it.start())..=index.max(*it.end()),
        });
    }

    /// The event stream has shown what it has of this index, so far.
    pub fn hear(&mut self, index: Index) {
        self.heard = self.heard.max(Some(index));
    }

    /// An object was read.
    pub fn list(&mut self, key: u64, index: Index) {
        self.listed.insert(key, index);
    }

    /// These are all objects there were at the index `at`; others are forgotten, unless events
    /// have shown them since.
    pub fn relist(&mut self, at: Index, listed: impl Iterator<Item = (u64, Index)>) {
        self.listed.retain(|_, index| *index > at);
        for (key, index) in listed {
            let known = self.listed.entry(key).or_insert(index);
            *known = index.max(*known);
        }
        self.cuts = self.cuts.take().filter(|it| *it.end() >= at);
    }

    /// Whether an object is remembered.
    #[must_use]
    pub fn is_listed(&self, key: u64) -> bool {
        self.listed.contains_key(&key)
    }

    /// All objects are forgotten: Nomad was set back, and the next list has those there are.
    pub fn unlist(&mut self) {
        self.listed.clear();
        self.cuts = None;
        self.heard = None;
    }

    /// A list of allocations is about to be read.
    pub fn begin_allocations(&mut self) {
        self.tails.begin_list();
    }

    /// The list that is read shows this allocation.
    pub fn list_allocation(&mut self, allocation: u128) {
        self.tails.list(allocation);
    }

    /// What the list of allocations has shown, at its end.
    #[must_use]
    pub fn listed_allocations(&self) -> Listed {
        self.tails.listed()
    }

    /// A change has been read.
    pub fn note(&mut self, mark: Mark) {
        match mark {
            Mark::Object { .. } => self.cursor.apply(mark),
            Mark::Task(task, tail) => self.tails.note(task, tail),
        }
    }

    /// The floor moves.
    pub fn go(&mut self, to: &Move) {
        self.tails.go(to);
        self.cursor.go(to);
    }
}

impl Seal {
    /// The tail that this event becomes once it is published. `terminal` is whether its allocation
    /// is at its end.
    #[must_use]
    pub fn tail(self, index: Index, terminal: bool) -> Tail {
        let Self { time, kind, hash } = self;
        Tail { index, time, kind, hash, terminal }
    }
}

#[cfg(test)]
mod tests;
