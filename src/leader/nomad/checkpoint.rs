//! A checkpoint as the values of variables (pure).

use std::collections::VecDeque;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{HOLDER, paths::Place};
use crate::api::{Items, Variable};

/// The number of the term.
const EPOCH: &str = "epoch";
/// The head, where it fits.
const HEAD: &str = "head";
/// Where it is else, and in how many parts.
const PLACE: &str = "place";
const PARTS: &str = "parts";
/// A part of a head, and a shard of tails.
const PART: &str = "part";
const TAILS: &str = "tails";

/// Nomad takes 64 KiB of names and values together; this leaves room for ours.
pub(super) const MOST_TEXT: usize = 60 << 10;
/// As many bytes as are [`MOST_TEXT`] in base64.
pub(super) const MOST_BYTES: usize = 45 << 10;
/// A head remembers 4,000 objects, with 61 characters for each at most.
pub(super) const MOST_PARTS: usize = 8;

/// Who moves the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The number of its term.
    pub(super) epoch: u64,
    /// Its name: two that count from the same number are told apart.
    pub(super) holder: String,
}

/// Where the head is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing was ever saved.
    Nothing,
    /// Here.
    Here(String),
    /// In variables beside.
    Beside { place: Place, parts: usize },
    /// Somebody wrote the variable who is not this program.
    Damaged,
}

impl Head {
    /// Where no part of it is.
    pub(super) fn free(&self) -> Place {
        match self {
            Self::Beside { place, .. } => place.other(),
            Self::Nothing | Self::Here(_) | Self::Damaged => Place::A,
        }
    }
}

/// The variable of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Who wrote it; `None` where that cannot be read.
    pub(super) owner: Option<Owner>,
    pub(super) head: Head,
    /// The index to write it at; 0 where there is none.
    pub(super) index: u64,
}

impl Checkpoint {
    pub(super) fn read(variable: Option<Variable>) -> Self {
        let Some(Variable { items, modify_index, .. }) = variable else {
            return Self { owner: None, head: Head::Nothing, index: 0 };
        };
        let text = |name| items.get(name).map(String::as_str);
        let epoch = text(EPOCH).and_then(|it| it.parse().ok());
        let holder = text(HOLDER).map(str::to_owned);
        let owner = epoch.zip(holder).map(|(epoch, holder)| Owner { epoch, holder });
        let parts = text(PARTS).and_then(|it| it.parse().ok());
        let parts = parts.filter(|it| (1..=MOST_PARTS).contains(it));
        let head = match (text(HEAD), text(PLACE).and_then(Place::named), parts) {
            (Some(head), None, None) => Head::Here(head.to_owned()),
            (None, Some(place), Some(parts)) => Head::Beside { place, parts },
            (None, None, None) if owner.is_some() && text(PLACE).or(text(PARTS)).is_none() => {
                Head::Nothing
            }
            _ => Head::Damaged,
        };
        Self { owner, head, index: modify_index }
    }
}

/// The values of the variable of a checkpoint.
pub(super) fn items(owner: &Owner, head: &Head) -> Items {
    let mut items = beside(owner);
    match head {
        Head::Nothing => (),
        Head::Here(head) => {
            items.insert(HEAD.to_owned(), head.clone());
        }
        Head::Beside { place, parts } => {
            items.insert(PLACE.to_owned(), place.name().to_owned());
            items.insert(PARTS.to_owned(), parts.to_string());
        }
        // It stays damaged until it is replaced, and is never taken for one that was not there.
        Head::Damaged => {
            items.insert(HEAD.to_owned(), String::new());
        }
    }
    items
}

/// The values of a variable with a part of a head.
pub(super) fn part_items(owner: &Owner, part: &str) -> Items {
    let mut items = beside(owner);
    items.insert(PART.to_owned(), part.to_owned());
    items
}

/// The values of a variable with a shard.
pub(super) fn shard_items(owner: &Owner, bytes: &[u8]) -> Items {
    let mut items = beside(owner);
    items.insert(TAILS.to_owned(), BASE64_STANDARD.encode(bytes));
    items
}

/// A part of a head; nothing where it is not there, which the head's checksum tells.
pub(super) fn part(variable: Option<&Variable>) -> &str {
    variable.and_then(|it| it.items.get(PART)).map_or("", String::as_str)
}

/// A shard; one without bytes where it is not readable, so that it counts as damaged.
pub(super) fn shard(variable: &Variable) -> Vec<u8> {
    let text = variable.items.get(TAILS).map_or("", String::as_str);
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

/// Text in parts that fit a variable each.
pub(super) fn cut(text: &str, most: usize) -> Vec<&str> {
    let mut rest = VecDeque::from([text]);
    let mut parts = Vec::new();
    while let Some(text) = rest.pop_front() {
        let end = if text.len() > most { text.floor_char_boundary(most) } else { text.len() };
        let (part, more) = text.split_at(end);
        parts.push(part);
        if !more.is_empty() {
            rest.push_back(more);
        }
    }
    parts
}

fn beside(owner: &Owner) -> Items {
    Items::from([
        (EPOCH.to_owned(), owner.epoch.to_string()),
        (HOLDER.to_owned(), owner.holder.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that Nomad takes.
    const LIMIT: usize = 64 << 10;

    fn size(items: &Items) -> usize {
        items.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    fn owner() -> Owner {
        Owner { epoch: u64::MAX, holder: "h".repeat(36) }
    }

    #[test]
    fn the_largest_of_each_kind_is_within_what_nomad_takes() {
        let text = "x".repeat(MOST_TEXT);
        assert!(size(&items(&owner(), &Head::Here(text.clone()))) <= LIMIT);
        assert!(size(&part_items(&owner(), &text)) <= LIMIT);
        assert!(size(&shard_items(&owner(), &vec![7; MOST_BYTES])) <= LIMIT);
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let beside = Head::Beside { place: Place::B, parts: 3 };
        for head in [Head::Nothing, Head::Here("text".to_owned()), beside] {
            let items = items(&owner(), &head);
            let variable = Variable { items, modify_index: 9, holder: None };
            let wanted = Checkpoint { owner: Some(owner()), head, index: 9 };
            assert_eq!(Checkpoint::read(Some(variable)), wanted);
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_damaged_and_never_nothing() {
        let written = [("note", "mine"), ("epoch", "7"), ("parts", "99"), ("place", "c")];
        for (key, value) in written {
            let items = Items::from([(key.to_owned(), value.to_owned())]);
            let variable = Variable { items, modify_index: 9, holder: None };
            let read = Checkpoint::read(Some(variable));
            assert_eq!((read.owner, read.head, read.index), (None, Head::Damaged, 9), "{key}");
        }
        // A take-over keeps it so.
        let variable =
            Variable { items: items(&owner(), &Head::Damaged), modify_index: 9, holder: None };
        assert_eq!(Checkpoint::read(Some(variable)).head, Head::Here(String::new()));
    }

    #[test]
    fn text_is_cut_between_characters_and_nothing_is_lost() {
        let text = "aü".repeat(10);
        let parts = cut(&text, 5);
        assert!(parts.iter().all(|it| it.len() <= 5 && !it.is_empty()), "{parts:?}");
        assert_eq!(parts.concat(), text);
        assert_eq!(cut("", 5), [""]);
    }
}
