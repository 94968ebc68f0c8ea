//! What is to be published: in order, cut into calls that a sink takes, and kept until it is
//! settled (pure).

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

/// Records in the order in which they came, less those of the calls that are under way.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    rest: BTreeMap<u64, Record>,
    /// The place of the next record that comes.
    next: u64,
    bytes: usize,
    /// How many records of each key there are.
    keys: HashMap<Arc<str>, usize>,
    /// Keys of which a record failed, until one gets through.
    held: HashMap<Arc<str>, Held>,
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
            bytes: 0,
            keys: HashMap::new(),
            held: HashMap::new(),
            ceiling: limits.records,
        }
    }

    /// Adds records behind all others.
    pub(super) fn add(&mut self, records: Vec<Record>) {
        for record in records {
            let place = self.next;
            self.next += 1;
            self.put(place, record);
        }
    }

    /// Puts a record of a call back to its place.
    pub(super) fn put(&mut self, place: u64, record: Record) {
        self.bytes += record.body.len();
        *self.keys.entry(record.key.clone()).or_default() += 1;
        self.rest.insert(place, record);
    }

    /// Whether more records would make the next call fuller.
    pub(super) fn wants_more(&self) -> bool {
        if self.bytes >= WINDOW_BYTES {
            return false;
        }
        // What waits after a failure is in no call that could be full.
        let held = |key: &Arc<str>| self.keys.get(key).copied().unwrap_or_default();
        if self.limits.one_per_key {
            let held = self.held.keys().filter(|key| held(key) > 0).count();
            self.keys.len() - held < self.limits.records
        } else {
            let held: usize = self.held.keys().map(held).sum();
            self.rest.len() - held < self.limits.records
                && (held > 0 || self.bytes < self.limits.bytes)
        }
    }

    /// Every record before this place is settled, unless it is in a call that is under way.
    pub(super) fn first(&self) -> u64 {
        self.rest.first_key_value().map_or(self.next, |(place, _)| *place)
    }

    /// The place of the next record that comes.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// What is durable once all records that have been handed out and not put back are.
    pub(super) fn below(&self) -> Option<Index> {
        self.rest.first_key_value().map(|(_, record)| record.below)
    }

    /// When there is something to send, if there is anything.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let mut first = None;
        for record in self.rest.values() {
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
        let mut keys = HashSet::new();
        for (place, record) in &self.rest {
            if self.held.get(&record.key).is_some_and(|held| held.until > now) {
                continue;
            }
            if one_per_key && keys.contains(&record.key) {
                continue;
            }
            let size = self.limits.size(record);
            if !places.is_empty() && (places.len() >= self.ceiling || bytes + size > most_bytes) {
                break;
            }
            if one_per_key {
                keys.insert(record.key.clone());
            }
            bytes += size;
            places.push(*place);
        }
        let records: Vec<Record> = places.iter().filter_map(|it| self.rest.remove(it)).collect();
        for record in &records {
            self.bytes -= record.body.len();
            if let Some(count) = self.keys.get_mut(&record.key) {
                *count -= 1;
                if *count == 0 {
                    self.keys.remove(&record.key);
                }
            }
        }
        (!records.is_empty()).then_some(Call { places, records })
    }

    /// One of so many records is at fault: the next call has half of them.
    pub(super) fn narrow(&mut self, suspects: usize) {
        self.ceiling = (suspects / 2).max(1);
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

    /// A record of this key got through, or was given up.
    pub(super) fn release(&mut self, key: &str) {
        self.held.remove(key);
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
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn queue(keys: &[&str], size: usize, limits: Limits) -> Queue {
        let mut queue = Queue::new(limits);
        queue.add(keys.iter().map(|it| record(it, size)).collect());
        queue
    }

    fn limits(records: usize, bytes: usize, one_per_key: bool) -> Limits {
        Limits { records, bytes, one_per_key, beside: 0 }
    }

    fn shape(call: &Call) -> String {
        call.records.iter().map(|it| &*it.key).collect()
    }

    fn shapes(mut queue: Queue) -> Vec<String> {
        let now = Instant::now();
        std::iter::from_fn(|| queue.next_call(now)).map(|it| shape(&it)).collect()
    }

    #[test]
    fn a_call_holds_no_more_records_and_bytes_than_the_sink_takes() {
        assert_eq!(shapes(queue(&["a", "b", "c"], 10, limits(2, 100, false))), ["ab", "c"]);
        assert_eq!(shapes(queue(&["a", "b", "c"], 60, limits(2, 100, false))), ["a", "b", "c"]);
        let beside = Limits { beside: 50, ..limits(2, 100, false) };
        assert_eq!(shapes(queue(&["a", "b"], 10, beside)), ["a", "b"]);
    }

    #[test]
    fn a_record_that_is_too_large_is_a_call_of_its_own() {
        assert_eq!(shapes(queue(&["a", "b"], 10, limits(9, 5, false))), ["a", "b"]);
    }

    #[test]
    fn a_key_comes_once_in_a_call_where_records_can_fail_one_by_one() {
        let queue = queue(&["a", "a", "b", "a", "c"], 1, limits(3, 100, true));
        assert_eq!(shapes(queue), ["abc", "a", "a"]);
    }

    #[test]
    fn what_failed_waits_and_keeps_its_place_while_other_keys_go_on() {
        let mut queue = queue(&["a", "b", "a", "c", "d"], 1, limits(2, 100, true));
        let now = Instant::now();
        let call = queue.next_call(now).unwrap();
        assert_eq!(shape(&call), "ab");
        let (place, failed) = call.into_places().next().unwrap();
        queue.put(place, failed);
        queue.hold(&HashSet::from(["a".into()]), now);
        assert_eq!(shape(&queue.next_call(now).unwrap()), "cd");
        assert!(queue.next_call(now).is_none());
        let back = queue.next_at(now).unwrap();
        assert!(back > now && back <= now + LEAST_WAIT);
        let first = queue.next_call(back).unwrap();
        assert_eq!(first.places, [0]);
        queue.release("a");
        assert!(!queue.is_holding());
        assert_eq!(queue.next_call(now).unwrap().places, [2]);
    }

    #[test]
    fn a_position_never_passes_a_record_that_failed() {
        let mut queue = queue(&["a", "b", "c"], 1, limits(1, 100, false));
        let now = Instant::now();
        let (first, second) = (queue.next_call(now).unwrap(), queue.next_call(now).unwrap());
        for call in [first, second] {
            let (place, mut failed) = call.into_places().next().unwrap();
            failed.below = Index(place);
            queue.put(place, failed);
        }
        assert_eq!(queue.below(), Some(Index(0)));
    }

    #[test]
    fn a_key_that_goes_on_failing_waits_longer_and_longer_within_bounds() {
        let mut queue = queue(&["a"], 1, limits(2, 100, true));
        let now = Instant::now();
        for least in [1, 2, 4, 8, 16, 32, 64, 60, 60] {
            queue.hold(&HashSet::from(["a".into()]), now);
            let wait = queue.held_for(now);
            assert!(wait >= LEAST_WAIT * least / 2 && wait <= GREATEST_WAIT, "{wait:?}");
        }
    }

    #[test]
    fn a_call_with_a_culprit_is_halved_until_the_culprit_is_alone() {
        let mut queue = queue(&["a", "b", "c", "d"], 1, limits(4, 100, false));
        let now = Instant::now();
        let mut calls = Vec::new();
        while let Some(call) = queue.next_call(now) {
            calls.push(shape(&call));
            match shape(&call) {
                shape if shape == "c" => (),
                shape if shape.contains('c') => {
                    queue.narrow(call.records.len());
                    call.into_places().for_each(|(place, record)| queue.put(place, record));
                }
                _ => queue.widen(),
            }
        }
        assert_eq!(calls, ["abcd", "ab", "cd", "c", "d"]);
    }

    #[test]
    fn records_are_gathered_until_a_call_is_full() {
        assert!(queue(&["a", "b"], 1, limits(3, 100, false)).wants_more());
        assert!(!queue(&["a", "b", "c"], 1, limits(3, 100, false)).wants_more());
        assert!(!queue(&["a", "b"], 50, limits(3, 100, false)).wants_more());
        assert!(queue(&["a", "a", "a", "b"], 50, limits(3, 100, true)).wants_more());
        assert!(!queue(&["a", "a", "c", "b"], 1, limits(3, 100, true)).wants_more());
        assert!(!queue(&["a"], WINDOW_BYTES, limits(3, 100, true)).wants_more());
    }
}
