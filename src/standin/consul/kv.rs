//! Keys and locks.

use std::collections::BTreeMap;

use axum::body::Bytes;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::sessions::{Behavior, Session};

/// A key with all that Consul knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// How often the key was locked; a plain put resets it.
    pub lock_index: u64,
    /// The key.
    pub key: String,
    /// What a client marks it with; a plain put resets it.
    pub flags: u64,
    /// The value.
    pub value: Bytes,
    /// The session that holds the key.
    pub session: Option<String>,
    /// The index of its first write.
    pub create_index: u64,
    /// The index of its last change.
    pub modify_index: u64,
}

/// An entry as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EntryJson {
    lock_index: u64,
    key: String,
    flags: u64,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
}

impl Entry {
    pub(super) fn json(&self) -> EntryJson {
        EntryJson {
            value: (!self.value.is_empty()).then(|| BASE64_STANDARD.encode(&self.value)),
            ..self.json_without_value()
        }
    }

    /// What a transaction shows of an entry that it only checked or wrote.
    pub(super) fn json_without_value(&self) -> EntryJson {
        EntryJson {
            lock_index: self.lock_index,
            key: self.key.clone(),
            flags: self.flags,
            value: None,
            session: self.session.clone(),
            create_index: self.create_index,
            modify_index: self.modify_index,
        }
    }
}

/// All keys, and the indexes of those that were removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Kv {
    entries: BTreeMap<String, Entry>,
    graves: BTreeMap<String, u64>,
    index: u64,
}

impl Kv {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.values().filter(move |entry| entry.key.starts_with(prefix))
    }

    /// The index of an answer about one key: its own, or that of all keys if it is missing; never 0.
    pub(super) fn index_of(&self, key: &str) -> u64 {
        self.get(key).map_or(self.index, |entry| entry.modify_index).max(1)
    }

    /// The index of an answer about the keys with a prefix.
    pub(super) fn index_under(&self, prefix: &str) -> u64 {
        let removed =
            self.graves.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, index)| *index);
        let last = self.under(prefix).map(|entry| entry.modify_index).chain(removed).max();
        last.unwrap_or(self.index).max(1)
    }

    /// A plain put: the session stays, the lock index does not.
    pub(super) fn put(&mut self, at: u64, key: &str, value: Bytes, flags: u64) {
        let session = self.get(key).and_then(|entry| entry.session.clone());
        self.store(at, Entry { lock_index: 0, session, ..entry(key, value, flags) });
    }

    /// A put if the key was last changed at `expected`, or does not exist and that is 0.
    pub(super) fn cas(
        &mut self,
        at: u64,
        key: &str,
        value: Bytes,
        flags: u64,
        expected: u64,
    ) -> bool {
        let matches = self.get(key).map_or(0, |entry| entry.modify_index) == expected;
        if matches {
            self.put(at, key, value, flags);
        }
        matches
    }

    pub(super) fn lock(
        &mut self,
        at: u64,
        key: &str,
        value: Bytes,
        flags: u64,
        session: &str,
    ) -> bool {
        let (lock_index, holder) = match self.get(key) {
            Some(entry) => (entry.lock_index, entry.session.as_deref()),
            None => (0, None),
        };
        let lock_index = match holder {
            Some(holder) if holder != session => return false,
            Some(_) => lock_index,
            None => lock_index + 1,
        };
        self.store(
            at,
            Entry { lock_index, session: Some(session.to_owned()), ..entry(key, value, flags) },
        );
        true
    }

    pub(super) fn unlock(
        &mut self,
        at: u64,
        key: &str,
        value: Bytes,
        flags: u64,
        session: &str,
    ) -> bool {
        match self.get(key) {
            Some(held) if held.session.as_deref() == Some(session) => {
                let lock_index = held.lock_index;
                self.store(at, Entry { lock_index, ..entry(key, value, flags) });
                true
            }
            _ => false,
        }
    }

    pub(super) fn delete(&mut self, at: u64, key: &str) {
        if self.entries.remove(key).is_some() {
            self.graves.insert(key.to_owned(), at);
            self.index = at;
        }
    }

    pub(super) fn delete_cas(&mut self, at: u64, key: &str, expected: u64) -> bool {
        let matches = self.get(key).is_none_or(|entry| entry.modify_index == expected);
        if matches {
            self.delete(at, key);
        }
        matches
    }

    pub(super) fn delete_under(&mut self, at: u64, prefix: &str) {
        let keys: Vec<String> = self.under(prefix).map(|entry| entry.key.clone()).collect();
        for key in keys {
            self.delete(at, &key);
        }
    }

    /// Takes its keys from a session that ended; which they were.
    pub(super) fn free(&mut self, at: u64, session: &Session) -> Vec<String> {
        let held =
            self.entries.values().filter(|entry| entry.session.as_ref() == Some(&session.id));
        let held: Vec<String> = held.map(|entry| entry.key.clone()).collect();
        for key in &held {
            match (session.behavior, self.entries.get_mut(key)) {
                (Behavior::Release, Some(entry)) => {
                    entry.session = None;
                    entry.modify_index = at;
                    self.index = at;
                }
                _ => self.delete(at, key),
            }
        }
        held
    }

    /// Writes an entry, unless that changes nothing.
    fn store(&mut self, at: u64, entry: Entry) {
        let create_index = self.get(&entry.key).map_or(at, |old| old.create_index);
        let entry = Entry { create_index, ..entry };
        let same = |old: &Entry| Entry { modify_index: 0, ..old.clone() } == entry;
        if !self.get(&entry.key).is_some_and(same) {
            self.graves.remove(&entry.key);
            self.entries.insert(entry.key.clone(), Entry { modify_index: at, ..entry });
            self.index = at;
        }
    }
}

fn entry(key: &str, value: Bytes, flags: u64) -> Entry {
    Entry {
        lock_index: 0,
        key: key.to_owned(),
        flags,
        value,
        session: None,
        create_index: 0,
        modify_index: 0,
    }
}
