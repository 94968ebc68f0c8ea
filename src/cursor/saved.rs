//! A cursor as bytes, and where a term takes up from what was saved.
//!
//! The head, `<type>.cursor`, is text: a format name, a checksum, and one line of JSON. Tails are
//! in shards, `<type>.cursor.<n>`, in binary. A tail is true on its own, so shards are written
//! one by one before the head; a lost shard costs duplicates and never an event, because an
//! allocation that changes goes above the floor.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Cursor, Index, Kind, Mark, Nanos, Since,
    ahead::Shared,
    shard::{self, SHARD_BYTES},
    tails::{self, Tails},
};

/// The format this version writes, and the only one it reads.
const HEAD: &str = "nomad-firehose-cursor-1";
/// Twice as many shards as a million tails need, where these are small.
const MAX_SHARDS: u32 = 4_096;
/// Objects that a head remembers above the floor. One that it does not is published again after
/// a crash.
const MAX_ABOVE: usize = 4_000;

/// What was found where checkpoints are kept.
#[derive(Debug)]
pub enum Saved {
    /// No checkpoint at all.
    Nothing,
    /// Our own, and nobody else has written since.
    Ours(Box<Cursor>),
    /// The Go tool has written its position since, or it is the only one.
    GoTool {
        /// Our own, older position.
        cursor: Option<Box<Cursor>>,
        /// The Go tool's position.
        value: u64,
    },
    /// Ours cannot be read.
    Corrupt {
        /// The Go tool's position, where that can be read.
        value: Option<u64>,
        /// What is wrong.
        why: String,
    },
}

/// What to publish where there is no checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// All that exists.
    #[default]
    Earliest,
    /// Only what comes.
    Latest,
}

/// Where a term takes up, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// At our own checkpoint.
    Checkpoint,
    /// At our own checkpoint, which was made in another namespace or region.
    OtherScope {
        /// The scope it was made in.
        was: String,
    },
    /// At the configured start: there is no checkpoint.
    FirstStart(Start),
    /// At the Go tool's position, or at our tails beside it.
    GoTool {
        /// Its position.
        value: u64,
        /// Whether our tails count.
        keeps_tails: bool,
    },
    /// At the Go tool's position where that is an index, else at the beginning.
    Corrupt {
        /// What is wrong with our checkpoint.
        why: String,
        /// The Go tool's position, where it can be read.
        value: Option<u64>,
    },
}

/// A cursor as bytes.
#[derive(Debug)]
pub struct Encoded {
    /// The numbers of the shards that changed. [`Cursor::shard`] has each of them, to be written
    /// before the head, in this order.
    pub shards: Vec<u32>,
    /// The head.
    pub head: Vec<u8>,
    /// What the Go tool reads.
    pub value: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Head {
    tasks: bool,
    floor: u64,
    floor_is_known: bool,
    above: Vec<(String, u64, String)>,
    since: Option<Nanos>,
    newest: Nanos,
    shards: u32,
    /// What was written beside, so that another writer is noticed.
    value: String,
    #[serde(default)]
    scope: String,
}

impl Cursor {
    /// Where a term takes up, given what was saved. `scope` names the part of the Nomad that it
    /// is about; `now` bounds a clock that is ahead.
    #[must_use]
    pub fn resume(
        kind: Kind,
        saved: Saved,
        start: Start,
        scope: &str,
        now: Nanos,
    ) -> (Self, Resumed) {
        let (mut cursor, mut resumed) = Self::take_up(kind, saved, start, now);
        let was = std::mem::replace(&mut cursor.scope, scope.to_owned());
        if resumed == Resumed::Checkpoint && !was.is_empty() && was != scope {
            resumed = Resumed::OtherScope { was };
        }
        (cursor, resumed)
    }

    fn take_up(kind: Kind, saved: Saved, start: Start, now: Nanos) -> (Self, Resumed) {
        let from_value = |value| match kind {
            Kind::Objects => Self::at(Index(value)),
            Kind::TaskEvents => {
                let time = Nanos::try_from(value).unwrap_or(Nanos::MAX).min(now);
                Self { since: Since::Time(time), newest: time, ..Self::new(kind) }
            }
        };
        match saved {
            Saved::Ours(cursor) if cursor.kind == kind => (*cursor, Resumed::Checkpoint),
            Saved::Ours(_) => {
                let why = "it belongs to a stream of another kind".to_owned();
                (Self::new(kind), Resumed::Corrupt { why, value: None })
            }
            Saved::Nothing => {
                let since = match start {
                    Start::Earliest => Since::Floor,
                    Start::Latest => Since::Now,
                };
                (Self { since, ..Self::new(kind) }, Resumed::FirstStart(start))
            }
            Saved::GoTool { cursor, value } => match (kind, cursor) {
                (Kind::TaskEvents, Some(cursor)) if cursor.kind == kind => {
                    (*cursor, Resumed::GoTool { value, keeps_tails: true })
                }
                _ => (from_value(value), Resumed::GoTool { value, keeps_tails: false }),
            },
            Saved::Corrupt { value, why } => {
                let cursor = match (kind, value) {
                    (Kind::Objects, Some(value)) => from_value(value),
                    _ => Self::new(kind),
                };
                (cursor, Resumed::Corrupt { why, value })
            }
        }
    }

    /// The cursor as bytes: the shards that changed, and the head. More shards are made when one
    /// would be too large.
    pub fn encode(&mut self, now: Nanos) -> Encoded {
        self.encode_within(now, SHARD_BYTES)
    }

    /// The same, where a shard may have so many bytes.
    pub fn encode_within(&mut self, now: Nanos, most: usize) -> Encoded {
        let mut tails = self.tails.lock();
        tails.durable.split_shards(shard::room(most), MAX_SHARDS);
        let (shards, count) = (tails.durable.dirty().collect(), tails.durable.shards());
        drop(tails);
        let value = self.value(now).to_string();
        Encoded { shards, head: self.encode_head(count, &value), value }
    }

    /// A shard as bytes. One at a time, so that no second copy of all tails is made.
    #[must_use]
    pub fn shard(&self, number: u32) -> Vec<u8> {
        self.shard_within(number, SHARD_BYTES)
    }

    /// The same, where a shard may have so many bytes.
    #[must_use]
    pub fn shard_within(&self, number: u32, most: usize) -> Vec<u8> {
        let tails = self.tails.lock();
        shard::encode(tails.durable.shard(number).map(|it| (it.task(), it.tail())), most)
    }

    /// All that [`encode`](Self::encode) gave is saved.
    pub fn saved(&mut self) {
        self.tails.lock().durable.saved();
    }

    fn encode_head(&self, shards: u32, value: &str) -> Vec<u8> {
        // States of one object in the order in which they were durable, since one of them is the
        // last.
        let mut above: Vec<_> = Vec::with_capacity(self.above.len());
        for (key, (index, last)) in &self.above {
            let earlier = self.earlier.get(key).into_iter().flatten();
            above.extend(earlier.chain([last]).map(|hash| (index.0, *key, *hash)));
        }
        above.sort_by_key(|(index, key, _)| (*index, *key));
        // The lowest are kept, and so those at the floor itself unless they are too many.
        let kept = above.get(MAX_ABOVE).is_none_or(|(index, ..)| *index > self.floor.0);
        above.truncate(MAX_ABOVE);
        let head = Head {
            tasks: self.kind == Kind::TaskEvents,
            floor: self.floor.0,
            floor_is_known: self.floor_is_known && kept,
            above: above.iter().map(|(i, k, h)| (format!("{k:x}"), *i, format!("{h:x}"))).collect(),
            since: match self.since {
                Since::Time(time) => Some(time),
                // A term that read nothing yet saves nothing yet.
                Since::Floor | Since::Now => None,
            },
            newest: self.newest,
            shards,
            value: value.to_owned(),
            scope: self.scope.clone(),
        };
        let json = serde_json::to_string(&head).unwrap_or_default();
        format!("{HEAD} {:016x} {json}\n", xxh3_64(json.as_bytes())).into_bytes()
    }
}

/// Reads what was saved, a shard at a time, so that no second copy of all tails is made.
#[derive(Debug)]
pub struct Loading {
    head: Option<Result<Head, String>>,
    tails: Tails,
    damaged: usize,
}

impl Loading {
    /// Begins with the head, if there is one.
    #[must_use]
    pub fn new(head: Option<&[u8]>) -> Self {
        let head = head.map(parse_head);
        let shards = head.iter().flatten().map(|it| it.shards).next();
        Self { head, tails: Tails::new(shards.unwrap_or(1)), damaged: 0 }
    }

    /// How many shards the head speaks of. Zero where it cannot be read.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.head.iter().flatten().map(|it| it.shards).sum()
    }

    /// Adds a shard. Those that are missing or damaged cost duplicates.
    pub fn add(&mut self, number: u32, bytes: Option<&[u8]>) {
        // A shard without tails may never have been written.
        let Some(bytes) = bytes else { return };
        let Some(all) = shard::decode(bytes) else {
            self.damaged += 1;
            return;
        };
        let shards = self.tails.shards();
        for (task, tail) in all.filter(|it| tails::shard(it.0, shards) == number) {
            self.tails.put(task, tail, None);
        }
    }

    /// What was saved, given the Go tool's value; and how many shards are damaged.
    #[must_use]
    pub fn finish(self, value: Option<&[u8]>) -> (Saved, usize) {
        let text = value.map(|it| String::from_utf8_lossy(it).trim().to_owned());
        let number = text.as_deref().and_then(|it| it.parse::<u64>().ok());
        let head = match (self.head, number) {
            (Some(head), _) => head,
            (None, Some(value)) => return (Saved::GoTool { cursor: None, value }, 0),
            (None, None) if text.as_deref().is_some_and(|it| !it.is_empty()) => {
                Err("the Go tool's value is not a number".to_owned())
            }
            (None, None) => return (Saved::Nothing, 0),
        };
        let head = match head {
            Ok(head) => head,
            Err(why) => return (Saved::Corrupt { value: number, why }, 0),
        };
        let written = head.value.clone();
        let cursor = Box::new(restore(head, self.tails));
        let saved = match number {
            Some(value) if value.to_string() != written => {
                Saved::GoTool { cursor: Some(cursor), value }
            }
            _ => Saved::Ours(cursor),
        };
        (saved, self.damaged)
    }
}

/// Reads what was saved: the head, its shards by number, and the Go tool's value; beside it, how
/// many shards are damaged.
#[must_use]
pub fn decode(
    head: Option<&[u8]>,
    shards: &[Option<Vec<u8>>],
    value: Option<&[u8]>,
) -> (Saved, usize) {
    let mut loading = Loading::new(head);
    (0..loading.shards()).zip(shards).for_each(|(n, it)| loading.add(n, it.as_deref()));
    loading.finish(value)
}

fn parse_head(bytes: &[u8]) -> Result<Head, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut parts = text.trim_end().splitn(3, ' ');
    let (name, sum, json) = (parts.next(), parts.next(), parts.next());
    if name != Some(HEAD) {
        let name: String = name.unwrap_or_default().chars().take(40).collect();
        let name = name.escape_debug();
        return Err(format!("its format is `{name}`, and this version reads `{HEAD}`"));
    }
    let json = json.ok_or("it is cut short")?;
    if sum != Some(&format!("{:016x}", xxh3_64(json.as_bytes()))) {
        return Err("its checksum is wrong".to_owned());
    }
    let head: Head = serde_json::from_str(json).map_err(|err| format!("it is not valid: {err}"))?;
    if !head.shards.is_power_of_two() || head.shards > MAX_SHARDS {
        return Err(format!("it has {} shards", head.shards));
    }
    Ok(head)
}

fn restore(head: Head, mut tails: Tails) -> Cursor {
    tails.saved();
    let kind = if head.tasks { Kind::TaskEvents } else { Kind::Objects };
    let mut cursor = Cursor {
        floor: Index(head.floor),
        floor_is_known: head.floor_is_known,
        since: head.since.map_or(Since::Floor, Since::Time),
        newest: head.newest,
        tails: Shared::new(tails),
        scope: head.scope,
        ..Cursor::new(kind)
    };
    for (key, index, hash) in head.above {
        if let (Ok(key), Ok(hash)) = (u64::from_str_radix(&key, 16), u64::from_str_radix(&hash, 16))
        {
            cursor.apply(Mark::Object { key, index: Index(index), hash });
        }
    }
    cursor
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
