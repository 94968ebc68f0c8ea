//! The batches that a server still has, and where in them a stream begins.

use std::{collections::VecDeque, sync::Arc};

use super::batch::Batch;

/// How many batches a server keeps unless it is told otherwise.
const DEFAULT_SIZE: usize = 100;

/// The newest batches. A position counts all that ever were, and stays true when old ones are dropped.
pub(super) struct Buffer {
    size: usize,
    first: u64,
    batches: VecDeque<Arc<Batch>>,
}

/// What is at a position.
pub(super) enum At {
    Batch(Arc<Batch>),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    Dropped,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { size: DEFAULT_SIZE, first: 0, batches: VecDeque::new() }
    }
}

impl Buffer {
    pub(super) fn resize(&mut self, size: usize) {
        self.size = if size == 0 { DEFAULT_SIZE } else { size };
        self.trim();
    }

    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        self.batches.push_back(batch);
        self.trim();
    }

    /// Drops everything, and gives what it was.
    pub(super) fn clear(&mut self) -> VecDeque<Arc<Batch>> {
        self.first = self.end();
        std::mem::take(&mut self.batches)
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.batches.iter()
    }

    /// The position of the next batch.
    pub(super) fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// What a server has there that has seen nothing beyond `newest`.
    pub(super) fn at(&self, position: u64, newest: u64) -> At {
        let Some(place) = position.checked_sub(self.first) else { return At::Dropped };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        match self.batches.get(place) {
            Some(batch) if batch.index <= newest => At::Batch(batch.clone()),
            _ => At::Wait,
        }
    }

    /// Where a stream begins that asks for this index: there, or at the next higher one. Where there is none, the newest
    /// batch is sent again; 0 means the oldest.
    pub(super) fn start(&self, index: u64, newest: u64) -> u64 {
        let seen = self.batches.iter().take_while(|batch| batch.index <= newest);
        let mut last = self.first;
        for (position, batch) in (self.first..).zip(seen) {
            last = position;
            if batch.index >= index {
                break;
            }
        }
        last
    }

    fn trim(&mut self) {
        while self.batches.len() > self.size {
            self.batches.pop_front();
            self.first += 1;
        }
    }
}
