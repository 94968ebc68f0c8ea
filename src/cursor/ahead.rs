//! Tails as they are durable, and as they were read: one copy of all, and beside it those that were
//! read and are not durable yet.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Index, Listed, Move, Tail, Task,
    tails::{Entry, Tails},
    task::halves,
};

/// What is known of tails. Whoever publishes moves what is durable, and whoever reads is ahead of
/// that.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) durable: Tails,
    /// Tails that were read and are not durable yet.
    read: BTreeMap<Task, Read>,
    /// What the reader has done to all tails, and is not done to the durable ones yet.
    pending: VecDeque<Pending>,
    /// The list that is read, or was read last.
    generation: u32,
}

#[derive(Debug)]
struct Read {
    tail: Tail,
    /// The last list that showed the allocation.
    listed: u32,
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    /// Those that no list has shown since a generation are forgotten, up to the floor.
    Sweep(u32, Index),
    Lower(Index),
}

/// A handle on what is known: the cursor has one, and whoever reads ahead of it another.
#[derive(Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub(super) fn new(durable: Tails) -> Self {
        Self(Arc::new(Mutex::new(Known { durable, ..Known::default() })))
    }

    /// Another handle on the same.
    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A tail is durable.
    pub(super) fn apply(&mut self, task: Task, tail: Tail) {
        let lowered = self.pending.iter().filter_map(Pending::floor).min();
        let index = lowered.map_or(tail.index, |it| it.min(tail.index));
        // One that is no longer among those that were read is forgotten by the reader, and will
        // be here once it is its turn.
        let listed = self.read.get(&task).map(|it| it.listed);
        if self.read.get(&task).is_some_and(|it| it.tail == Tail { index, ..tail }) {
            self.read.remove(&task);
        }
        self.durable.put(task, tail, listed);
    }

    /// It is this move's turn.
    pub(super) fn sweep(&mut self, generation: u32, floor: Index) {
        self.durable.sweep(generation, floor);
        let done = |it: &Pending| matches!(it, Pending::Sweep(it, _) if *it <= generation);
        while self.pending.front().is_some_and(done) {
            self.pending.pop_front();
        }
    }

    /// It is this move's turn.
    pub(super) fn lower(&mut self, floor: Index) {
        self.durable.lower(floor);
        while let Some(Pending::Sweep(..)) = self.pending.pop_front() {}
    }

    /// A durable tail as the reader sees it; `None` where that has forgotten it.
    fn seen(&self, entry: &Entry) -> Option<Tail> {
        seen(&self.pending, entry)
    }
}

fn seen(pending: &VecDeque<Pending>, entry: &Entry) -> Option<Tail> {
    let mut index = entry.index();
    for done in pending {
        match *done {
            Pending::Sweep(generation, floor) if index <= floor && entry.listed() < generation => {
                return None;
            }
            Pending::Sweep(..) => (),
            Pending::Lower(floor) => index = index.min(floor),
        }
    }
    Some(Tail { index, ..entry.tail() })
}

impl Pending {
    fn floor(&self) -> Option<Index> {
        match self {
            Self::Lower(floor) => Some(*floor),
            Self::Sweep(..) => None,
        }
    }
}

/// The tails of all that was read, ahead of a cursor.
#[derive(Debug)]
pub struct Ahead(Shared);

impl Ahead {
    /// At the cursor with these tails; whoever was ahead of it before is no more.
    pub(super) fn new(tails: &Shared) -> Self {
        let mut known = tails.lock();
        known.read.clear();
        known.pending.clear();
        drop(known);
        Self(tails.share())
    }

    /// The tail of a task.
    #[must_use]
    pub fn tail(&self, task: Task) -> Option<Tail> {
        let known = self.0.lock();
        match known.read.get(&task) {
            Some(read) => Some(read.tail),
            None => known.durable.get(task).and_then(|it| known.seen(it)),
        }
    }

    /// Whether a task of an allocation has a tail with a higher index than this, up to `horizon`.
    #[must_use]
    pub fn is_set_back(&self, allocation: u128, index: Index, horizon: Index) -> bool {
        let higher = |it: Index| index < it && it <= horizon;
        let (known, allocation) = (self.0.lock(), halves(allocation));
        let durable = known.durable.of(allocation).iter();
        let durable = durable.filter(|it| !known.read.contains_key(&it.task()));
        let mut durable = durable.filter_map(|it| known.seen(it));
        let [first, last] = [0, u64::MAX].map(|name| Task { allocation, name });
        known.read.range(first..=last).any(|(_, it)| higher(it.tail.index))
            || durable.any(|it| higher(it.index))
    }

    /// Whether no task has a tail.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let known = self.0.lock();
        known.read.is_empty() && !known.durable.iter().any(|it| known.seen(it).is_some())
    }

    /// A list is about to be read. Tails that it does not show can be forgotten at its end.
    pub fn begin_list(&mut self) {
        self.0.lock().generation += 1;
    }

    /// What the list has shown that is read, or was read last.
    #[must_use]
    pub fn listed(&self) -> Listed {
        Listed::Tasks(self.0.lock().generation)
    }

    /// The list shows this allocation.
    pub fn list(&mut self, allocation: u128) {
        let (mut known, allocation) = (self.0.lock(), halves(allocation));
        let Known { durable, read, pending, generation } = &mut *known;
        for entry in durable.of_mut(allocation) {
            // One that is forgotten stays so.
            if seen(pending, entry).is_some() {
                entry.list(*generation);
            }
        }
        if !read.is_empty() {
            let [first, last] = [0, u64::MAX].map(|name| Task { allocation, name });
            read.range_mut(first..=last).for_each(|(_, it)| it.listed = *generation);
        }
    }

    /// A task event has been read.
    pub fn note(&mut self, task: Task, tail: Tail) {
        let mut known = self.0.lock();
        let listed = known.generation;
        known.read.insert(task, Read { tail, listed });
    }

    /// The floor moves.
    pub fn go(&mut self, to: &Move) {
        let mut known = self.0.lock();
        match to {
            Move::ReachListed { list, listed: Listed::Tasks(generation), .. } => {
                known.read.retain(|_, it| it.tail.index > *list || it.listed >= *generation);
                // The last one forgets what those before it do.
                if let Some(Pending::Sweep(_, before)) = known.pending.back()
                    && before <= list
                {
                    known.pending.pop_back();
                }
                known.pending.push_back(Pending::Sweep(*generation, *list));
            }
            Move::Lower(floor) => {
                for read in known.read.values_mut() {
                    read.tail.index = read.tail.index.min(*floor);
                }
                known.pending.push_back(Pending::Lower(*floor));
            }
            Move::Reach(_) | Move::ReachListed { listed: Listed::Objects(_), .. } => (),
        }
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod properties;
