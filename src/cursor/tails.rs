//! The tails of all tasks, packed: a million of them take 60 MB.
//!
//! Tails are spread by a hash of the allocation over chunks, small sorted arrays whose number is a
//! power of two. A shard, as it is saved, is every chunk whose number ends in the same bits.

use std::{collections::BTreeSet, ops::Range};

use xxhash_rust::xxh3::xxh3_64;

use super::{Index, Nanos, Tail, Task};

/// So many tails there are at most, as far as the floor allows to drop any.
pub(super) const MOST_TAILS: usize = 1_000_000;
/// Tails in a chunk, on average, at most: an insertion moves half of them.
const CHUNK_TAILS: usize = 256;
/// The bit beside the generation that says whether the allocation was at its end.
const TERMINAL: u32 = 1 << 31;
/// Beyond every index that Nomad has: what is at its end goes before what is not.
const LASTING: u64 = 1 << 63;

/// A tail with its task, packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    task: Task,
    index: Index,
    time: Nanos,
    hash: u64,
    kind: u32,
    /// The generation of the last list that showed the allocation, and [`TERMINAL`].
    listed: u32,
}

/// Tails by task.
#[derive(Debug)]
pub(super) struct Tails {
    /// A power of two of them, at least as many as shards.
    chunks: Vec<Vec<Entry>>,
    len: usize,
    /// How many shards they are saved in: a power of two.
    shards: u32,
    /// Shards that have changed since they were saved.
    dirty: BTreeSet<u32>,
    most: usize,
    /// Beyond so many tails some are to be dropped.
    trim_at: usize,
    /// How many were dropped for want of space.
    dropped: usize,
}

impl Default for Tails {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Entry {
    pub(super) fn task(&self) -> Task {
        self.task
    }

    pub(super) fn tail(&self) -> Tail {
        let Self { index, time, hash, kind, .. } = *self;
        Tail { index, time, kind, hash, terminal: self.is_terminal() }
    }

    pub(super) fn index(&self) -> Index {
        self.index
    }

    /// The generation of the last list that showed it.
    pub(super) fn listed(&self) -> u32 {
        self.listed & !TERMINAL
    }

    pub(super) fn list(&mut self, generation: u32) {
        self.listed = (self.listed & TERMINAL) | (generation & !TERMINAL);
    }

    fn is_terminal(&self) -> bool {
        self.listed & TERMINAL != 0
    }
}

/// A number as random as a hash, so that allocations with similar ids are spread as well.
fn spread(allocation: [u64; 2]) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&allocation[0].to_le_bytes());
    bytes[8..].copy_from_slice(&allocation[1].to_le_bytes());
    xxh3_64(&bytes)
}

/// The shard of a task, where there are `count`.
pub(super) fn shard(task: Task, count: u32) -> u32 {
    spread(task.allocation) as u32 & (count - 1)
}

impl Tails {
    /// No tails, which will be saved in so many shards: a power of two.
    pub(super) fn new(shards: u32) -> Self {
        Self {
            chunks: vec![Vec::new(); shards as usize],
            len: 0,
            shards,
            dirty: BTreeSet::new(),
            most: MOST_TAILS,
            trim_at: MOST_TAILS,
            dropped: 0,
        }
    }

    /// Bounds the number of tails.
    pub(super) fn bound(&mut self, most: usize) {
        (self.most, self.trim_at) = (most, most);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten()
    }

    pub(super) fn get(&self, task: Task) -> Option<&Entry> {
        let chunk = &self.chunks[self.chunk(task.allocation)];
        chunk.binary_search_by(|it| it.task.cmp(&task)).ok().map(|at| &chunk[at])
    }

    /// The tails of an allocation's tasks.
    pub(super) fn of(&self, allocation: [u64; 2]) -> &[Entry] {
        let (chunk, tails) = self.place(allocation);
        &self.chunks[chunk][tails]
    }

    /// The same, to note that they were listed; nothing of that is saved.
    pub(super) fn of_mut(&mut self, allocation: [u64; 2]) -> &mut [Entry] {
        let (chunk, tails) = self.place(allocation);
        &mut self.chunks[chunk][tails]
    }

    /// The chunk of an allocation, and where its tails are there.
    fn place(&self, allocation: [u64; 2]) -> (usize, Range<usize>) {
        let number = self.chunk(allocation);
        let chunk = &self.chunks[number];
        let from = chunk.partition_point(|it| it.task.allocation < allocation);
        let count = chunk[from..].iter().take_while(|it| it.task.allocation == allocation).count();
        (number, from..from + count)
    }

    /// Sets the tail of a task. Without a generation it keeps the one that it has.
    pub(super) fn put(&mut self, task: Task, tail: Tail, listed: Option<u32>) {
        let number = self.chunk(task.allocation);
        let chunk = &mut self.chunks[number];
        let found = chunk.binary_search_by(|it| it.task.cmp(&task));
        let listed = listed.unwrap_or_else(|| found.map_or(0, |at| chunk[at].listed()));
        let Tail { index, time, kind, hash, terminal } = tail;
        let listed = listed | if terminal { TERMINAL } else { 0 };
        let entry = Entry { task, index, time, hash, kind, listed };
        match found {
            Ok(at) => chunk[at] = entry,
            Err(at) => {
                if chunk.len() == chunk.capacity() {
                    chunk.reserve_exact(step(chunk.len()));
                }
                chunk.insert(at, entry);
                self.len += 1;
            }
        }
        self.dirty.insert(number as u32 & (self.shards - 1));
        if self.len > self.chunks.len() * CHUNK_TAILS {
            self.split_chunks();
        }
    }

    /// Forgets those that no list has shown since this generation, as far as they are not above
    /// the floor.
    pub(super) fn sweep(&mut self, generation: u32, floor: Index) {
        // One above the floor was published from a list that this one lags behind.
        self.retain(|it| it.index > floor || it.listed() >= generation);
    }

    /// No tail is above the floor any more: an allocation that was set back is not an old one.
    pub(super) fn lower(&mut self, floor: Index) {
        for entry in self.chunks.iter_mut().flatten() {
            entry.index = entry.index.min(floor);
        }
        self.dirty.extend(0..self.shards);
    }

    /// Whether there are so many that some are to be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.len > self.trim_at
    }

    /// Whether there are more than there should be.
    pub(super) fn is_above_bound(&self) -> bool {
        self.len > self.most
    }

    /// Drops what costs the least: tails of allocations at their end first, the oldest first. Only
    /// those below the floor can be dropped: such an allocation is published again if it changes,
    /// while one at the floor would be with the next list. More are dropped than needed, since all
    /// have to be looked at.
    pub(super) fn trim(&mut self, floor: Index) {
        let spare = self.most / 64 + 1;
        let needed = self.len.saturating_sub(self.most);
        let rank = |it: &Entry| if it.is_terminal() { it.index.0 } else { it.index.0 | LASTING };
        let mut ranks: Vec<_> = self.iter().filter(|it| it.index < floor).map(rank).collect();
        let terminal = ranks.iter().filter(|it| **it < LASTING).count();
        let drop = if terminal >= needed { terminal.min(needed + spare) } else { needed + spare };
        let drop = if needed == 0 { 0 } else { drop.min(ranks.len()) };
        if drop > 0 {
            let (_, last, _) = ranks.select_nth_unstable(drop - 1);
            let last = *last;
            let before = ranks[..drop].iter().filter(|it| **it < last).count();
            let mut ties = drop - before;
            self.retain(|it| {
                if it.index >= floor || rank(it) > last {
                    return true;
                }
                if rank(it) == last {
                    if ties == 0 {
                        return true;
                    }
                    ties -= 1;
                }
                false
            });
            self.dropped += drop;
        }
        self.trim_at = if self.len > self.most { self.len + spare } else { self.most };
    }

    /// How many were dropped since this was last asked.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    /// Shards that have changed, the last first: where there are more than there were, those that
    /// nobody reads yet are written before what has moved to them is gone elsewhere.
    pub(super) fn dirty(&self) -> impl Iterator<Item = u32> {
        self.dirty.iter().rev().copied()
    }

    /// All that had changed is saved.
    pub(super) fn saved(&mut self) {
        self.dirty.clear();
    }

    /// The tails of a shard.
    pub(super) fn shard(&self, number: u32) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().skip(number as usize).step_by(self.shards as usize).flatten()
    }

    /// Makes more shards, as long as one that changed has more than `most` tails. What stays where
    /// it was need not be written again: a reader ignores what has moved.
    pub(super) fn split_shards(&mut self, most: usize, most_shards: u32) {
        while self.shards < most_shards && self.dirty.iter().any(|it| self.shard_len(*it) > most) {
            self.dirty.extend(self.shards..2 * self.shards);
            self.shards *= 2;
            if self.chunks.len() < self.shards as usize {
                self.split_chunks();
            }
        }
    }

    fn shard_len(&self, number: u32) -> usize {
        let chunks = self.chunks.iter().skip(number as usize).step_by(self.shards as usize);
        chunks.map(Vec::len).sum()
    }

    fn chunk(&self, allocation: [u64; 2]) -> usize {
        spread(allocation) as usize & (self.chunks.len() - 1)
    }

    /// Twice as many chunks, one after the other, so that no two copies are held of all.
    fn split_chunks(&mut self) {
        let count = self.chunks.len();
        self.chunks.reserve_exact(count);
        for number in 0..count {
            let moves = |it: &Entry| spread(it.task.allocation) as usize & count != 0;
            let chunk = &mut self.chunks[number];
            let moved: Vec<Entry> = chunk.iter().filter(|it| moves(it)).copied().collect();
            chunk.retain(|it| !moves(it));
            chunk.shrink_to_fit();
            self.chunks.push(moved);
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        for (number, chunk) in self.chunks.iter_mut().enumerate() {
            let before = chunk.len();
            chunk.retain(&mut keep);
            if chunk.len() < before {
                chunk.shrink_to(chunk.len() + step(chunk.len()));
                self.len -= before - chunk.len();
                self.dirty.insert(number as u32 & (self.shards - 1));
            }
        }
    }
}

/// By how much a chunk grows: doubling would leave a third of the memory unused.
fn step(len: usize) -> usize {
    (len / 8).max(4)
}

#[cfg(test)]
#[path = "tails_tests.rs"]
mod tests;
