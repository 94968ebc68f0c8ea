//! What is to be published: in order, cut into calls that a sink takes, until it is settled (pure).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{GREATEST_WAIT, LEAST_WAIT};
use crate::{
    backoff::Backoff,
    cursor::Index,
    record::{Limits, Record},
};

/// Bytes of payloads that are gathered to make a call full. With the batches that are being read
/// meanwhile, the pipeline stays below 16 MiB.
const WINDOW_BYTES: usize = 8 << 20;

/// Records in the order in which they came, and what is known of those in calls under way.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    rest: BTreeMap<u64, Record>,
    /// The place of the next record that comes.
    next: u64,
    /// Of the payloads that wait, and of all that are not settled.
    rest_bytes: usize,
    bytes: usize,
    /// How many records of each key wait.
    keys: HashMap<Arc<str>, usize>,
    /// The places of records in calls under way, and what is durable below each.
    calling: BTreeMap<u64, Index>,
    /// Their keys: no other call may have records of these.
    busy: HashSet<Arc<str>>,
    /// Keys of which a record failed, until one gets through.
    held: HashMap<Arc<str>, Held>,
    /// Places of records of which one is at fault.
    suspects: HashSet<u64>,
    /// No call has more records than this: half of those of which one is at fault, and twice as
    /// many when a call gets through.
    ceiling: usize,
}

/// A key whose records are to wait, while others go on.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: Instant,
    attempts: u32,
}

/// When a record may be in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Second,
    Never,
}

/// The records of one call to the sink, and their places in the queue.
#[derive(Debug)]
pub struct Call {
    places: Vec<u64>,
    records: Vec<Record>,
}

impl Call {
    /// The records, oldest first; never empty.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records with their places.
    pub(super) fn into_places(self) -> impl Iterator<Item = (u64, Record)> {
        self.places.into_iter().zip(self.records)
    }
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            rest: BTreeMap::new(),
            next: 0,
            rest_bytes: 0,
            bytes: 0,
            keys: HashMap::new(),
            calling: BTreeMap::new(),
            busy: HashSet::new(),
            held: HashMap::new(),
            suspects: HashSet::new(),
            ceiling: limits.records,
        }
    }

    /// Adds a record behind all others.
    pub(super) fn add(&mut self, record: Record) {
        let place = self.pass();
        self.bytes += record.body.len();
        self.insert(place, record);
    }

    /// The next place, where no record is.
    pub(super) fn pass(&mut self) -> u64 {
        let place = self.next;
        self.next += 1;
        place
    }

    /// Puts a record of a call back to its place.
    pub(super) fn put_back(&mut self, place: u64, record: Record) {
        self.called(place, &record);
        self.insert(place, record);
    }

    /// A record of a call is delivered, or given up; whether it was one of which one is at fault.
    pub(super) fn settle(&mut self, place: u64, record: &Record) -> bool {
        self.called(place, record);
        self.bytes -= record.body.len();
        self.held.remove(&record.key);
        self.suspects.remove(&place)
    }

    fn insert(&mut self, place: u64, record: Record) {
        self.rest_bytes += record.body.len();
        *self.keys.entry(record.key.clone()).or_default() += 1;
        self.rest.insert(place, record);
    }

    fn called(&mut self, place: u64, record: &Record) {
        self.calling.remove(&place);
        self.busy.remove(&record.key);
    }

    /// Whether more records would make the next call fuller.
    pub(super) fn wants_more(&self) -> bool {
        if self.bytes >= WINDOW_BYTES {
            return false;
        }
        // What has to wait is in no call that could be full.
        let waiting =
            self.held.keys().chain(self.busy.iter().filter(|it| !self.held.contains_key(*it)));
        let waiting = waiting.filter_map(|it| self.keys.get(it).copied());
        if self.limits.one_per_key {
            self.keys.len() - waiting.count() < self.limits.records
        } else {
            let waiting: usize = waiting.sum();
            self.rest.len() - waiting < self.limits.records
                && (waiting > 0 || self.rest_bytes < self.limits.bytes)
        }
    }

    /// Every record before this place is settled.
    pub(super) fn first(&self) -> u64 {
        self.front().map_or(self.next, |(place, _)| place)
    }

    /// The first record that is not settled: its place, and what is durable below it.
    fn front(&self) -> Option<(u64, Index)> {
        let waits = self.rest.first_key_value().map(|(place, record)| (*place, record.below));
        let called = self.calling.first_key_value().map(|(place, below)| (*place, *below));
        waits.into_iter().chain(called).min()
    }

    /// The place of the next record that comes.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The index up to which everything is durable, where something is not settled.
    pub(super) fn below(&self) -> Option<Index> {
        self.front().map(|(_, below)| below)
    }

    /// How many records are in calls under way.
    pub(super) fn calling(&self) -> usize {
        self.calling.len()
    }

    /// When there is something to send, if there is anything that does not wait for a call.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let mut first = None;
        for record in self.rest.values().filter(|it| !self.busy.contains(&it.key)) {
            match self.held.get(&record.key) {
                Some(held) if held.until > now => {
                    first = Some(first.map_or(held.until, |it: Instant| it.min(held.until)));
                }
                _ => return Some(now),
            }
        }
        first
    }

    /// Takes the next call out of the queue.
    pub(super) fn next_call(&mut self, now: Instant) -> Option<Call> {
        let Limits { bytes: most_bytes, one_per_key, .. } = self.limits;
        let mut places = Vec::new();
        let mut bytes = 0;
        let mut keys: HashSet<&str> = HashSet::new();
        // What failed comes after what did not, lest it be tried for ever before all others.
        'full: for turn in [Turn::First, Turn::Second] {
            if turn == Turn::Second && self.held.is_empty() {
                break;
            }
            for (place, record) in &self.rest {
                if self.turn(&record.key, now) != turn || one_per_key && keys.contains(&*record.key)
                {
                    continue;
                }
                let size = self.limits.size(record);
                let full = places.len() >= self.ceiling || bytes + size > most_bytes;
                if full && !places.is_empty() {
                    break 'full;
                }
                if one_per_key {
                    keys.insert(&record.key);
                }
                bytes += size;
                places.push(*place);
            }
        }
        places.sort_unstable();
        let records = self.take(&places);
        for (place, record) in places.iter().zip(&records) {
            self.rest_bytes -= record.body.len();
            self.calling.insert(*place, record.below);
            self.busy.insert(record.key.clone());
            if let Some(count) = self.keys.get_mut(&record.key) {
                *count -= 1;
                if *count == 0 {
                    self.keys.remove(&record.key);
                }
            }
        }
        (!records.is_empty()).then_some(Call { places, records })
    }

    /// Takes out the records at these places, which are in order.
    fn take(&mut self, places: &[u64]) -> Vec<Record> {
        match places.last() {
            // As a rule they are the first of all, and one cut is less work than many.
            Some(last) if self.rest.keys().take(places.len()).eq(places) => {
                let rest = self.rest.split_off(&(last + 1));
                std::mem::replace(&mut self.rest, rest).into_values().collect()
            }
            _ => places.iter().filter_map(|it| self.rest.remove(it)).collect(),
        }
    }

    fn turn(&self, key: &Arc<str>, now: Instant) -> Turn {
        match self.held.get(key) {
            _ if self.busy.contains(key) => Turn::Never,
            None => Turn::First,
            Some(held) if held.until > now => Turn::Never,
            // It has let others go first for long enough.
            Some(held) if held.until + GREATEST_WAIT <= now => Turn::First,
            Some(_) => Turn::Second,
        }
    }

    /// One of the records at these places is at fault: the next call has half of them.
    pub(super) fn narrow(&mut self, suspects: Vec<u64>) {
        self.ceiling = (suspects.len() / 2).max(1);
        self.suspects.extend(suspects);
    }

    /// Whether a record is at fault, and it is not known which.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// A call got through, at least in part.
    pub(super) fn widen(&mut self) {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.limits.records);
    }

    /// These keys are to wait. All that failed together come back together, lest they make calls
    /// of their own.
    pub(super) fn hold(&mut self, keys: &HashSet<Arc<str>>, now: Instant) {
        let attempts = |key| self.held.get(key).map_or(0, |it: &Held| it.attempts);
        let before = keys.iter().map(attempts).max().unwrap_or_default();
        let until = now + Backoff::wait_after(before, LEAST_WAIT, GREATEST_WAIT);
        for key in keys {
            let held = self.held.entry(key.clone()).or_insert(Held { until, attempts: 0 });
            *held = Held { until, attempts: held.attempts.saturating_add(1) };
        }
    }

    /// These keys are to let others go first, from this moment on.
    pub(super) fn defer(&mut self, keys: &HashSet<Arc<str>>, until: Instant) {
        for key in keys {
            let held = self.held.entry(key.clone()).or_insert(Held { until, attempts: 0 });
            held.until = held.until.max(until);
        }
    }

    /// Whether a key is one that failed.
    pub(super) fn has_failed(&self, key: &str) -> bool {
        self.held.contains_key(key)
    }

    /// Whether records that failed are still to get through.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// How long the records that failed have to wait at most.
    #[cfg(test)]
    fn held_for(&self, now: Instant) -> std::time::Duration {
        self.held.values().map(|it| it.until - now).max().unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
