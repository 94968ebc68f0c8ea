//! What a tail is of, and what it says.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{Index, Nanos};

/// A task of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// The allocation's number in two halves, which take less room than one aligned number.
    pub(super) allocation: [u64; 2],
    pub(super) name: u64,
}

impl Task {
    /// The task `name` of the allocation `id`.
    #[must_use]
    pub fn new(id: &str, name: &str) -> Self {
        Self { allocation: halves(allocation(id)), name: xxh3_64(name.as_bytes()) }
    }
}

/// An allocation's id as a number: the UUID itself, so that two ids are never taken for one.
#[must_use]
pub fn allocation(id: &str) -> u128 {
    let dashes = id.len() == 36 && [8, 13, 18, 23].iter().all(|it| id.as_bytes()[*it] == b'-');
    let digits: String = id.chars().filter(|it| *it != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(uuid) if dashes && digits.len() == 32 => uuid,
        // Not an id that Nomad makes.
        _ => xxh3_128(id.as_bytes()),
    }
}

/// The halves of an allocation's number.
pub(super) fn halves(allocation: u128) -> [u64; 2] {
    [(allocation >> 64) as u64, allocation as u64]
}

/// The last task event of a task that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// `ModifyIndex` of the allocation that showed it.
    pub index: Index,
    /// Its `Time`.
    pub time: Nanos,
    /// A hash of its `Type`.
    pub kind: u32,
    /// A hash of the whole event.
    pub hash: u64,
    /// Whether the allocation was at its end, so that hardly anything follows.
    pub terminal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_id_is_its_uuid_and_any_other_text_still_has_a_name() {
        assert_eq!(allocation("00000000-0000-0000-0000-0000000000ff"), 255);
        assert_ne!(allocation("web"), allocation("worker"));
        assert_ne!(allocation("00000000-0000-0000-0000-0000000000fg"), 255);
    }
}
