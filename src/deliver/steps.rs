//! What the position does between records: it waits until all records before it are settled, while
//! later ones of other keys may be settled already (pure).

use std::collections::{HashMap, HashSet, VecDeque};

use crate::cursor::{Cursor, Mark, Move, Task};

/// So many steps wait at most; beyond that, the last two become one, which is taken later. One that
/// sets the floor back stays on its own, and is the last for as long as it waits.
const MAX_STEPS: usize = 8;

/// Objects that may be settled beyond a step that waits.
const MAX_EARLY: usize = 100_000;

/// Steps that wait, and what was settled beyond the first of them.
#[derive(Debug, Default)]
pub(super) struct Steps {
    waiting: VecDeque<Step>,
    /// The last mark of each object that was settled beyond a step. It is noted at once, and once
    /// more after the step, which could undo it.
    early: HashMap<Object, (u64, Mark)>,
}

#[derive(Debug)]
struct Step {
    /// Every record before this place comes first.
    place: u64,
    /// The place of the first of the steps that it was made of.
    since: u64,
    /// Each with the place that it had.
    silent: Vec<(u64, Mark)>,
    to: Option<Move>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Key(u64),
    Task(Task),
}

/// What a mark is of.
pub(super) fn object(mark: &Mark) -> Object {
    match mark {
        Mark::Object { key, .. } => Object::Key(*key),
        Mark::Task(task, _) => Object::Task(*task),
    }
}

impl Steps {
    /// These positions move once all records before `place` are settled, and then the floor does.
    pub(super) fn add(&mut self, place: u64, silent: Vec<Mark>, to: Option<Move>) {
        if silent.is_empty() && to.is_none() {
            return;
        }
        let silent = silent.into_iter().map(|mark| (place, mark));
        let full = self.waiting.len() >= MAX_STEPS;
        match self.waiting.back_mut() {
            Some(last) if full && !is_lower(&last.to) && !is_lower(&to) => {
                last.place = place;
                last.silent.extend(silent);
                keep_last_of_each(&mut last.silent);
                last.to = to.or(last.to.take());
            }
            _ => self.waiting.push_back(Step { place, since: place, silent: silent.collect(), to }),
        }
    }

    /// Whether so much was settled beyond a step that no more is to be remembered.
    pub(super) fn is_full(&self) -> bool {
        self.early.len() >= MAX_EARLY
    }

    /// Whether a step waits that nothing may pass: Nomad was set back.
    pub(super) fn is_barred(&self) -> bool {
        self.waiting.iter().any(|it| is_lower(&it.to))
    }

    /// The record at this place is settled.
    pub(super) fn settled(&mut self, place: u64, mark: Mark, cursor: &mut Cursor) {
        cursor.apply(mark);
        if self.waiting.front().is_some_and(|step| step.since <= place) {
            self.early.insert(object(&mark), (place, mark));
        }
    }

    /// Takes the steps that come before `place`, up to which all records are settled.
    pub(super) fn advance(&mut self, place: u64, cursor: &mut Cursor) {
        while let Some(step) = self.waiting.pop_front_if(|it| it.place <= place) {
            for (place, mark) in step.silent {
                match self.early.get(&object(&mark)) {
                    // A record that came after it says more, and is noted once more below. Of one
                    // index, both are remembered.
                    Some((settled, later)) if *settled >= place => {
                        if is_of_one_index(&mark, later) {
                            cursor.apply(mark);
                        }
                    }
                    _ => {
                        self.early.remove(&object(&mark));
                        cursor.apply(mark);
                    }
                }
            }
            if let Some(to) = &step.to {
                cursor.go(to);
            }
            self.early.values().for_each(|(_, mark)| cursor.apply(*mark));
            match self.waiting.front() {
                Some(next) => self.early.retain(|_, (place, _)| *place >= next.since),
                None => self.early.clear(),
            }
        }
    }
}

/// Whether both are states of an object at one index.
pub(super) fn is_of_one_index(one: &Mark, other: &Mark) -> bool {
    match (one, other) {
        (Mark::Object { index, .. }, Mark::Object { index: other, .. }) => index == other,
        _ => false,
    }
}

/// Keeps the last mark of each task, and of each object every state of its last index, in order.
fn keep_last_of_each(silent: &mut Vec<(u64, Mark)>) {
    let mut seen = HashSet::new();
    let mut last: HashMap<Object, Mark> = HashMap::new();
    silent.reverse();
    silent.retain(|(_, mark)| {
        let last = last.entry(object(mark)).or_insert(*mark);
        match mark {
            Mark::Object { hash, .. } => {
                is_of_one_index(mark, last) && seen.insert((object(mark), *hash))
            }
            Mark::Task(..) => seen.insert((object(mark), 0)),
        }
    });
    silent.reverse();
}

fn is_lower(to: &Option<Move>) -> bool {
    matches!(to, Some(Move::Lower(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Index, Kind, Listed};

    fn mark(key: u64, index: u64) -> Mark {
        Mark::Object { key, index: Index(index), hash: index }
    }

    fn listed(index: u64, keys: &[u64]) -> Option<Move> {
        let listed = Listed::Objects(keys.iter().copied().collect());
        Some(Move::ReachListed { floor: Index(index), list: Index(index), listed })
    }

    #[test]
    fn a_step_waits_for_the_records_before_it_and_undoes_nothing_that_came_after_it() {
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        // Records 0 and 1 are of the first list, record 2 of the next one, which has a new object.
        steps.add(2, Vec::new(), listed(5, &[1, 2]));
        steps.add(3, Vec::new(), listed(7, &[1, 2, 3]));
        steps.settled(1, mark(2, 5), &mut cursor);
        steps.settled(2, mark(3, 7), &mut cursor);
        steps.advance(0, &mut cursor);
        assert_eq!(cursor.floor(), Index(0));
        assert_eq!(cursor.object(3), Some((Index(7), 7)));
        steps.settled(0, mark(1, 4), &mut cursor);
        steps.advance(2, &mut cursor);
        assert_eq!(cursor.floor(), Index(5));
        assert_eq!(cursor.object(3), Some((Index(7), 7)), "the first list did not know it");
        steps.advance(3, &mut cursor);
        assert_eq!(cursor.floor(), Index(7));
    }

    #[test]
    fn what_moves_silently_does_so_after_what_came_before_it_and_not_over_what_came_after() {
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        steps.add(1, vec![mark(1, 6), mark(2, 6)], None);
        steps.settled(1, mark(1, 8), &mut cursor);
        assert_eq!(cursor.object(2), None, "record 0 may be of this object");
        steps.settled(0, mark(2, 3), &mut cursor);
        steps.advance(2, &mut cursor);
        assert_eq!(cursor.object(1), Some((Index(8), 8)));
        assert_eq!(cursor.object(2), Some((Index(6), 6)));
    }

    #[test]
    fn what_was_settled_before_a_step_is_not_noted_again_after_it() {
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        steps.add(1, vec![mark(9, 1)], None);
        steps.add(3, vec![mark(1, 6)], None);
        steps.settled(2, mark(1, 4), &mut cursor);
        steps.advance(3, &mut cursor);
        assert_eq!(cursor.object(1), Some((Index(6), 6)));
    }

    #[test]
    fn steps_that_are_too_many_become_one_that_is_taken_later() {
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        for index in 1..100 {
            steps.add(index, vec![mark(1, index)], Some(Move::Reach(Index(index))));
        }
        assert!(steps.waiting.len() <= MAX_STEPS);
        steps.advance(98, &mut cursor);
        assert!(cursor.floor() < Index(98));
        steps.advance(99, &mut cursor);
        assert_eq!(cursor.floor(), Index(99));
        assert_eq!(cursor.object(1), Some((Index(99), 99)));
        assert!(steps.waiting.is_empty() && steps.early.is_empty());
    }

    #[test]
    fn a_step_that_was_put_off_does_not_undo_what_was_settled_meanwhile() {
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        for place in 1..20 {
            steps.add(place, vec![mark(place, place)], Some(Move::Reach(Index(0))));
        }
        steps.advance(7, &mut cursor);
        // Objects 10 and 19 change again after what was silent about them, and 12 before.
        steps.settled(11, mark(12, 11), &mut cursor);
        steps.settled(15, mark(10, 15), &mut cursor);
        steps.settled(19, mark(19, 25), &mut cursor);
        steps.advance(20, &mut cursor);
        assert_eq!(cursor.object(10), Some((Index(15), 15)));
        assert_eq!(cursor.object(12), Some((Index(12), 12)));
        assert_eq!(cursor.object(19), Some((Index(25), 25)));
        assert_eq!(cursor.object(11), Some((Index(11), 11)));
    }

    #[test]
    fn nothing_passes_a_step_back() {
        let mut steps = Steps::default();
        steps.add(1, Vec::new(), Some(Move::Lower(Index(3))));
        assert!(steps.is_barred());
        steps.advance(1, &mut Cursor::new(Kind::Objects));
        assert!(!steps.is_barred());
    }

    #[test]
    fn a_state_that_moves_silently_is_remembered_beside_a_later_one_of_its_index() {
        let state = |hash| Mark::Object { key: 1, index: Index(4), hash };
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        // Record 0 is of another object. The state 8 was published before, and 16 comes after it.
        steps.add(1, vec![state(8)], listed(4, &[1]));
        steps.settled(1, state(16), &mut cursor);
        steps.settled(0, mark(2, 4), &mut cursor);
        steps.advance(2, &mut cursor);
        assert_eq!(cursor.object(1), Some((Index(4), 16)));
        assert!(cursor.has(1, 8) && cursor.has(1, 16));
    }

    #[test]
    fn steps_that_become_one_keep_every_state_of_an_index_in_order() {
        let state = |hash| Mark::Object { key: 1, index: Index(4), hash };
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        for place in 0..2 * MAX_STEPS as u64 {
            steps.add(place + 1, vec![state(8 * (place % 3))], None);
        }
        assert!(steps.waiting.iter().map(|it| it.silent.len()).sum::<usize>() <= MAX_STEPS + 2);
        steps.advance(u64::MAX, &mut cursor);
        assert_eq!(cursor.object(1), Some((Index(4), 0)));
        assert!([0, 8, 16].iter().all(|hash| cursor.has(1, *hash)));
    }

    #[test]
    fn steps_that_become_one_forget_the_states_of_older_indexes() {
        let (mut steps, mut cursor) = (Steps::default(), Cursor::new(Kind::Objects));
        for place in 1..1_000 {
            steps.add(place, vec![mark(1, place)], None);
        }
        assert!(steps.waiting.iter().map(|it| it.silent.len()).sum::<usize>() <= MAX_STEPS);
        steps.advance(u64::MAX, &mut cursor);
        assert_eq!(cursor.object(1), Some((Index(999), 999)));
    }
}
