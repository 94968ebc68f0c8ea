//! What comes to be published: records, those that a filter leaves out, and where the position goes.

use tokio::time::Instant;

use super::Outbox;
use crate::{
    cursor::{Cursor, Index, Mark, Move, Since},
    deliver::Sifted,
    record::Record,
};

impl Outbox<'_> {
    /// Adds what comes after all that was added before: positions that move silently, records, and
    /// where the floor goes then. What can be noted at once is noted in `cursor`.
    pub fn add(
        &mut self,
        silent: Vec<Mark>,
        records: impl Into<Sifted>,
        then: Option<Move>,
        cursor: &mut Cursor,
    ) {
        self.steps.add(self.queue.next(), silent, None);
        self.add_records(records.into(), cursor);
        self.steps.add(self.queue.next(), Vec::new(), then);
        self.steps.advance(self.queue.first(), cursor);
    }

    /// Adds records, and settles those that are not published: at once, or with the one before it.
    fn add_records(&mut self, sifted: Sifted, cursor: &mut Cursor) {
        let Sifted { records, passed } = sifted;
        if !passed.is_empty() {
            self.steps.advance(self.queue.first(), cursor);
        }
        let moves = cursor.moves();
        let (mut added, mut below) = (0, None);
        let mut records = records.into_iter();
        for it in passed {
            self.queue_up(records.by_ref().take(it.after - added));
            added = it.after;
            let place = self.queue.pass();
            if self.passed.add(it.key, place, it.mark) {
                self.steps.settled(place, it.mark, cursor);
                below = Some(it.below);
            }
        }
        self.queue_up(records);
        self.reach(moves, below, cursor);
    }

    fn queue_up(&mut self, records: impl Iterator<Item = Record>) {
        for record in records {
            if self.delivery.filters() {
                self.passed.note(&record.key, self.queue.next());
            }
            self.queue.add(record);
        }
    }

    /// The floor follows, if the position has moved since: to the first that is not settled, or to
    /// `last` where all are.
    pub(super) fn reach(&self, moves: u64, last: Option<Index>, cursor: &mut Cursor) {
        // A start from now has no position before the first list is through.
        if cursor.moves() != moves
            && cursor.since() != Since::Now
            && let Some(below) = self.queue.below().or(last)
        {
            cursor.reach(below);
        }
    }

    /// What is added from now on was read then.
    pub fn read_at(&mut self, read: Option<Instant>) {
        self.reads.note(self.queue.first(), self.queue.next(), read);
    }
}
