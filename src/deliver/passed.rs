//! Records that are not published, and come after one of their object that is not settled (pure).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::steps::{is_of_one_index, object};
use crate::cursor::Mark;

/// So many wait at most, before no more is read.
const MOST: usize = 100_000;

/// What waits for the records before it. A position is settled after those of the same key only,
/// published or not.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    /// The place of the last record of each key that is to be published, until that is settled.
    last: HashMap<Arc<str>, u64>,
    waiting: HashMap<Arc<str>, VecDeque<Waiting>>,
    count: usize,
}

#[derive(Debug)]
struct Waiting {
    /// The place of the record that it waits for.
    after: u64,
    place: u64,
    mark: Mark,
}

impl PassedOver {
    /// A record is to be published.
    pub(super) fn note(&mut self, key: &Arc<str>, place: u64) {
        self.last.insert(key.clone(), place);
    }

    /// A record is not to be published; whether it is settled with that.
    pub(super) fn add(&mut self, key: Arc<str>, place: u64, mark: Mark) -> bool {
        let Some(after) = self.last.get(&key).copied() else { return true };
        let waiting = self.waiting.entry(key).or_default();
        // The last position of each object says it all, unless two have one index.
        let before = waiting.len();
        waiting.retain(|it| {
            it.after != after
                || object(&it.mark) != object(&mark)
                || is_of_one_index(&it.mark, &mark)
        });
        waiting.push_back(Waiting { after, place, mark });
        self.count = self.count + waiting.len() - before;
        false
    }

    /// The record of this key at this place is settled: what is settled with it.
    pub(super) fn settle(&mut self, key: &Arc<str>, place: u64) -> Vec<(u64, Mark)> {
        if self.last.get(key) == Some(&place) {
            self.last.remove(key);
        }
        let mut settled = Vec::new();
        if let Some(waiting) = self.waiting.get_mut(key) {
            while let Some(it) = waiting.pop_front_if(|it| it.after <= place) {
                settled.push((it.place, it.mark));
            }
            if waiting.is_empty() {
                self.waiting.remove(key);
            }
        }
        self.count -= settled.len();
        settled
    }

    /// Whether so many wait that no more is to be read.
    pub(super) fn is_full(&self) -> bool {
        self.count >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Index;

    fn mark(index: u64, hash: u64) -> Mark {
        Mark::Object { key: 1, index: Index(index), hash }
    }

    #[test]
    fn what_comes_after_an_unsettled_record_of_its_key_waits_for_that_one_only() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut passed = PassedOver::default();
        passed.note(&a, 0);
        assert!(passed.add(b.clone(), 1, mark(2, 0)));
        assert!(!passed.add(a.clone(), 2, mark(3, 0)));
        passed.note(&a, 3);
        assert!(!passed.add(a.clone(), 4, mark(5, 0)));
        assert_eq!(passed.settle(&a, 0), [(2, mark(3, 0))]);
        assert_eq!(passed.settle(&a, 3), [(4, mark(5, 0))]);
        assert!(passed.add(a, 5, mark(6, 0)));
    }

    #[test]
    fn of_positions_that_wait_only_the_last_index_is_kept_and_all_of_its_states() {
        let key: Arc<str> = "a".into();
        let mut passed = PassedOver::default();
        passed.note(&key, 0);
        for index in 1..1_000 {
            assert!(!passed.add(key.clone(), index, mark(index, 0)));
        }
        assert!(!passed.add(key.clone(), 1_000, mark(999, 1)));
        assert_eq!(passed.count, 2);
        assert_eq!(passed.settle(&key, 0), [(999, mark(999, 0)), (1_000, mark(999, 1))]);
        assert_eq!(passed.count, 0);
    }
}
