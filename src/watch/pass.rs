//! What one reading of a list gathers. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::PASS_BYTES;
use crate::{
    cursor::{Index, Kind, Mark},
    streams::{BadElement, Change, Found, Gap},
};

/// So many unreadable elements are named in the log; the others are only counted.
const NAMED: usize = 5;
/// Positions that move silently are handed over when there are so many: at a start from the latest,
/// every task has one.
const MOST_SILENT: usize = 4_096;

/// Where the changes of an object stand among the others: by index, by object, and as they were
/// read.
type Place = (Index, Arc<str>, usize);

/// The changes that one reading of a list has found so far.
#[derive(Debug)]
pub(super) struct Pass {
    kind: Kind,
    changes: BTreeMap<Place, Vec<Change>>,
    bytes: usize,
    limit: usize,
    read: usize,
    /// The first change that was left for the next pass.
    left: Option<Place>,
    /// Allocations that show something new, while they are held: the index, the id and the element.
    held: Option<Vec<(Index, u128, Bytes)>>,
    held_bytes: usize,
    pub(super) silent: Vec<Mark>,
    /// Every object of the list, with its index. Allocations are marked where their tails are.
    pub(super) listed: HashMap<u128, Index>,
    reverted: bool,
    gaps: Vec<Gap>,
    gaps_taken: usize,
    bad: usize,
    named: Vec<BadElement>,
    elements: usize,
}

impl Pass {
    /// Gathers up to `limit` bytes of changes at a time.
    pub(super) fn new(kind: Kind, limit: usize) -> Self {
        Self {
            kind,
            limit,
            changes: BTreeMap::new(),
            bytes: 0,
            read: 0,
            left: None,
            held: None,
            held_bytes: 0,
            silent: Vec::new(),
            listed: HashMap::new(),
            reverted: false,
            gaps: Vec::new(),
            gaps_taken: 0,
            bad: 0,
            named: Vec::new(),
            elements: 0,
        }
    }

    /// Adds what an element shows. Of objects only the lowest indexes are kept within the limit:
    /// the floor can then move up to the first that was left out.
    pub(super) fn add(&mut self, found: Found) {
        self.elements += 1;
        if self.kind == Kind::Objects {
            self.listed.insert(found.object, found.index);
        }
        self.silent.extend(found.silent);
        self.reverted |= found.reverted;
        self.gaps.extend(found.gaps);
        let Some(first) = found.changes.first() else { return };
        self.read += 1;
        let place = (found.index, first.id.clone(), self.read);
        if self.left.as_ref().is_some_and(|left| *left < place) {
            return;
        }
        self.bytes += size(&found.changes);
        self.changes.insert(place, found.changes);
        if self.kind == Kind::Objects {
            while self.bytes > self.limit && self.changes.len() > 1 {
                let Some((place, changes)) = self.changes.pop_last() else { break };
                self.bytes -= size(&changes);
                self.left = Some(place);
            }
        }
    }

    /// From now on elements with task events are held, and judged once they are taken.
    pub(super) fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Holds the element in which this was found, if that is to be done; whether it is.
    pub(super) fn held(&mut self, found: &Found, element: &[u8]) -> bool {
        let Some(held) = self.held.as_mut().filter(|_| !found.changes.is_empty()) else {
            return false;
        };
        held.push((found.index, found.object, Bytes::copy_from_slice(element)));
        self.held_bytes += element.len();
        self.elements += 1;
        self.reverted |= found.reverted;
        true
    }

    /// Whether no more can be held.
    pub(super) fn holds_much(&self) -> bool {
        self.held_bytes > PASS_BYTES
    }

    /// What was held, the lowest indexes first. Nothing more is held.
    pub(super) fn take_held(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        self.held_bytes = 0;
        let mut held = self.held.take().unwrap_or_default();
        held.sort_unstable_by_key(|(index, object, _)| (*index, *object));
        held.into_iter().map(|(.., element)| element)
    }

    /// Adds what an element shows that was held before.
    pub(super) fn add_held(&mut self, found: Found) {
        self.elements -= 1;
        self.add(found);
    }

    /// Whether anything is to be published.
    pub(super) fn has_news(&self) -> bool {
        !self.changes.is_empty() || self.held_bytes > 0
    }

    /// Whether anything has been judged that is to be published or noted.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty() || !self.silent.is_empty()
    }

    /// The indexes of what is to be published, and surely is a change.
    pub(super) fn indexes(&self) -> impl Iterator<Item = Index> {
        self.changes.values().flatten().filter(|it| !it.recheck).map(|it| it.index)
    }

    /// Judges every change again.
    pub(super) fn judge(&mut self, mut again: impl FnMut(&mut Change) -> bool) {
        self.changes.retain(|_, changes| {
            changes.retain_mut(&mut again);
            !changes.is_empty()
        });
    }

    /// Notes an element that cannot be read.
    pub(super) fn add_bad(&mut self, bad: BadElement) {
        self.elements += 1;
        self.bad += 1;
        if self.named.len() < NAMED {
            self.named.push(bad);
        }
    }

    /// How many elements could not be read, and the first of them.
    pub(super) fn bad(&self) -> (usize, &[BadElement]) {
        (self.bad, &self.named)
    }

    /// Whether an object has gone back.
    pub(super) fn reverted(&self) -> bool {
        self.reverted
    }

    /// Tasks of which Nomad dropped events, since this was last asked, and how many before.
    pub(super) fn take_gaps(&mut self) -> (Vec<Gap>, usize) {
        let before = self.gaps_taken;
        self.gaps_taken += self.gaps.len();
        (std::mem::take(&mut self.gaps), before)
    }

    /// How many elements there were.
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    /// Whether a batch is full. Task events are published as they are read, because a tail is a
    /// position of its own.
    pub(super) fn is_full(&self) -> bool {
        self.kind == Kind::TaskEvents
            && (self.bytes >= self.limit || self.silent.len() >= MOST_SILENT)
    }

    /// How many changes there are so far.
    pub(super) fn changes(&self) -> usize {
        self.changes.values().map(Vec::len).sum()
    }

    /// The changes so far, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Change> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.changes).into_values().flatten()
    }

    /// Whether changes were left for the next pass.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// How far everything is known once the changes of this pass are durable, given the index of
    /// the list. Where an element could not be read, no further than before.
    pub(super) fn reach(&self, list: Index) -> Index {
        match &self.left {
            _ if self.bad > 0 => Index::default(),
            Some((left, ..)) => list.min(left.before()),
            None => list,
        }
    }
}

fn size(changes: &[Change]) -> usize {
    changes.iter().map(Change::size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str, index: u64) -> Found {
        let change = Change {
            index: Index(index),
            id: id.into(),
            namespace: "".into(),
            mark: Mark::Object { key: index, index: Index(index), hash: 0 },
            body: None,
            event: None,
            time: None,
            recheck: false,
        };
        Found {
            object: index.into(),
            index: Index(index),
            changes: vec![change],
            ..Found::default()
        }
    }

    fn gathered(limit: usize, all: &[(&str, u64)]) -> (Vec<Arc<str>>, u64) {
        let mut pass = Pass::new(Kind::Objects, limit);
        for (id, index) in all {
            pass.add(found(id, *index));
        }
        (pass.take().map(|it| it.id).collect(), pass.reach(Index(99)).0)
    }

    #[test]
    fn changes_are_in_order_of_index_and_id() {
        let all = [("c", 7), ("b", 9), ("a", 7)];
        assert_eq!(gathered(usize::MAX, &all), (vec!["a".into(), "c".into(), "b".into()], 99));
    }

    #[test]
    fn a_backlog_beyond_the_limit_leaves_the_highest_indexes_for_the_next_pass() {
        let two = 2 * found("a", 1).changes[0].size();
        let all = [("d", 9), ("a", 3), ("b", 5), ("c", 7)];
        assert_eq!(gathered(two, &all), (vec!["a".into(), "b".into()], 6));
    }

    #[test]
    fn an_index_that_is_only_partly_in_the_pass_is_not_reached() {
        let two = 2 * found("a", 1).changes[0].size();
        assert_eq!(
            gathered(two, &[("a", 5), ("b", 5), ("c", 5)]),
            (vec!["a".into(), "b".into()], 4)
        );
    }

    #[test]
    fn nothing_is_reached_past_an_element_that_cannot_be_read() {
        let mut pass = Pass::new(Kind::Objects, 99);
        pass.add_bad(BadElement { object: "x".into(), why: "y".into() });
        assert_eq!(pass.reach(Index(9)), Index(0));
    }
}
