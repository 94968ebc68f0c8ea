//! When records were read, by their places in the queue (pure).

use std::collections::VecDeque;

use tokio::time::Instant;

/// So many batches are told apart. While one record holds the first of them, those that come after
/// that many count as read with the last.
const MOST: usize = 10_000;

/// From which place on records were read when: an entry for a batch, and nothing for a record.
#[derive(Debug, Default)]
pub(super) struct Reads(VecDeque<(u64, Instant)>);

impl Reads {
    /// What has this place and those after it was read then; what is before `first` is settled.
    pub(super) fn note(&mut self, first: u64, place: u64, read: Option<Instant>) {
        while self.0.get(1).is_some_and(|(next, _)| *next <= first) {
            self.0.pop_front();
        }
        if self.0.len() < MOST {
            self.0.extend(read.map(|read| (place, read)));
        }
    }

    /// When the record at a place was read.
    pub(super) fn of(&self, place: u64) -> Option<Instant> {
        let after = self.0.partition_point(|(first, _)| *first <= place);
        self.0.get(after.checked_sub(1)?).map(|(_, read)| *read)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_place_has_the_time_of_its_batch_until_it_is_settled() {
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let (one, two, three) = (at(1), at(2), at(3));
        let mut reads = Reads::default();
        assert_eq!(reads.of(0), None);
        reads.note(0, 0, Some(one));
        reads.note(0, 3, Some(two));
        reads.note(0, 3, None);
        assert_eq!([0, 2, 3, 9].map(|it| reads.of(it)), [one, one, two, two].map(Some));
        reads.note(3, 5, Some(three));
        assert_eq!([3, 4, 5].map(|it| reads.of(it)), [two, two, three].map(Some));
        assert_eq!((reads.of(0), reads.0.len()), (None, 2));
    }

    #[test]
    fn one_record_that_waits_for_ever_does_not_fill_memory() {
        let mut reads = Reads::default();
        (0..3 * MOST as u64).for_each(|place| reads.note(0, place, Some(Instant::now())));
        assert_eq!(reads.0.len(), MOST);
        assert!(reads.of(3 * MOST as u64).is_some());
    }
}
