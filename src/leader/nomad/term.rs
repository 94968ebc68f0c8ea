//! A term that lasts as long as the lock can be shown to, and the checkpoint is its.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::time::timeout;

use super::{
    super::{LeaderError, Term, lease::Lease, lease::Task, report_damaged},
    Nomad, RESIGN_LIMIT, Won,
    checkpoint::{self, Checkpoint, Head, MOST_BYTES, MOST_PARTS, MOST_TEXT, Owner},
    paths::Place,
    unique, watch,
};
use crate::{
    api::{Found, Items, Written},
    cursor::{self, Cursor, Encoded, Loading, Saved},
    error::Chain,
};

/// A variable that somebody else wrote is read again so many times.
const MAX_CONFLICTS: u32 = 3;

pub(super) struct NomadTerm {
    leader: Nomad,
    lease: Lease,
    monitor: Task,
    id: String,
    owner: Owner,
    known: Mutex<Known>,
}

/// What the variables are like, as far as this term has seen.
#[derive(Debug)]
struct Known {
    /// The index of each, by its path.
    indexes: BTreeMap<String, u64>,
    /// Where the parts of the head are not, so that they can be written; `None` while it is not
    /// known.
    free: Option<Place>,
}

/// A term that has the checkpoint.
pub(super) struct Begun {
    owner: Owner,
    index: u64,
}

impl Nomad {
    /// Makes the checkpoint this term's, before anything is published: whoever had it cannot write
    /// it any more.
    pub(super) async fn begin(&self, lease: &Lease) -> Result<Begun, LeaderError> {
        let path = &self.paths.cursor;
        let failed = |err| self.failed("take over the checkpoint", err);
        let holder = unique();
        for _ in 0..=MAX_CONFLICTS {
            let found = self.variables.read(path, None).await.map_err(failed)?;
            let Checkpoint { owner, head, index } = Checkpoint::read(found.variable);
            let epoch = owner.map_or(0, |it| it.epoch).saturating_add(1);
            let owner = Owner { epoch, holder: holder.clone() };
            let items = checkpoint::items(&owner, &head);
            if !lease.holds() {
                break;
            }
            match self.variables.write(path, &items, index).await.map_err(failed)? {
                Written::At(index) => {
                    tracing::debug!(epoch, holder, "the checkpoint is taken over");
                    return Ok(Begun { owner, index });
                }
                Written::Conflict => {
                    tracing::debug!(checkpoint = path, "somebody else wrote the checkpoint")
                }
            }
        }
        let why = format!("{path} is written by another process all the time");
        Err(LeaderError::unavailable("take over the checkpoint", why))
    }
}

impl NomadTerm {
    pub(super) fn new(leader: Nomad, won: Won, id: String, begun: Begun) -> Self {
        let monitor = watch(&leader, &won, &id);
        let indexes = BTreeMap::from([(leader.paths.cursor.clone(), begun.index)]);
        let known = Mutex::new(Known { indexes, free: None });
        Self { leader, lease: won.lease, monitor, id, owner: begun.owner, known }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, path: &str, index: u64) {
        self.known().indexes.insert(path.to_owned(), index);
    }

    fn over(&self, why: &str) -> LeaderError {
        self.lease.end().now(why);
        LeaderError::Over
    }

    /// Reads a variable, and notes its index.
    async fn read(&self, path: &str) -> Result<Found, LeaderError> {
        let read = self.leader.variables.read(path, None).await;
        let found = read.map_err(|err| self.leader.failed("read the checkpoint", err))?;
        self.note(path, found.variable.as_ref().map_or(0, |it| it.modify_index));
        Ok(found)
    }

    /// Whose the checkpoint is says its variable alone, whatever is being written.
    async fn is_ours(&self) -> Result<Checkpoint, LeaderError> {
        let checkpoint = Checkpoint::read(self.read(&self.leader.paths.cursor).await?.variable);
        match &checkpoint.owner {
            Some(owner) if *owner != self.owner => {
                Err(self.over("another process has taken over the checkpoint"))
            }
            // Written by hand, or deleted: nobody who took over leaves it so.
            None | Some(_) => Ok(checkpoint),
        }
    }

    /// Writes a variable if it is as it was last seen. If it is not, an answer of ours was lost, or
    /// one of before this term wrote late, or this term is over.
    async fn write(&self, path: &str, items: &Items) -> Result<(), LeaderError> {
        let mut conflicts = 0;
        loop {
            if !self.lease.holds() {
                return Err(LeaderError::Over);
            }
            let cas = self.known().indexes.get(path).copied().unwrap_or_default();
            let written = self.leader.variables.write(path, items, cas).await;
            match written.map_err(|err| self.leader.failed("save the checkpoint", err))? {
                Written::At(index) => {
                    self.note(path, index);
                    return Ok(());
                }
                Written::Conflict if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    tracing::debug!(checkpoint = path, "a variable was written since it was read");
                    self.is_ours().await?;
                    if path != self.leader.paths.cursor {
                        self.read(path).await?;
                    }
                }
                Written::Conflict => {
                    let why = format!("{path} is written by another process all the time");
                    return Err(LeaderError::unavailable("save the checkpoint", why));
                }
            }
        }
    }

    /// The head as it was saved; one that lacks a part has a wrong checksum.
    async fn head(&self, head: Head) -> Result<Option<String>, LeaderError> {
        Ok(match head {
            Head::Nothing => None,
            Head::Here(head) => Some(head),
            Head::Damaged => Some(String::new()),
            Head::Beside { place, parts } => {
                let mut head = String::new();
                for number in 0..parts {
                    let found = self.read(&self.leader.paths.part(place, number)).await?;
                    head.push_str(checkpoint::part(found.variable.as_ref()));
                }
                Some(head)
            }
        })
    }

    /// Writes what of the head does not fit its variable, where nobody reads it before that
    /// variable says so.
    async fn put_beside(&self, head: &str) -> Result<Head, LeaderError> {
        let parts = checkpoint::cut(head, MOST_TEXT);
        if parts.len() > MOST_PARTS {
            let why = format!("it has {} bytes", head.len());
            return Err(LeaderError::unavailable("save the checkpoint", why));
        }
        let free = self.known().free;
        let place = match free {
            Some(place) => place,
            // An answer may have been lost, so that the variable says something else than we know.
            None => self.is_ours().await?.head.free(),
        };
        for (number, part) in parts.iter().enumerate() {
            let items = checkpoint::part_items(&self.owner, part);
            self.write(&self.leader.paths.part(place, number), &items).await?;
        }
        Ok(Head::Beside { place, parts: parts.len() })
    }
}

#[async_trait]
impl Term for NomadTerm {
    async fn load(&self) -> Result<Saved, LeaderError> {
        let checkpoint = self.is_ours().await?;
        if checkpoint.owner.is_none() {
            return Err(self.over("the checkpoint was deleted or overwritten"));
        }
        let head = self.head(checkpoint.head).await?;
        let mut loading = Loading::new(head.as_deref().map(str::as_bytes));
        for number in 0..loading.shards() {
            let found = self.read(&self.leader.paths.shard(number)).await?;
            let shard = found.variable.as_ref().map(checkpoint::shard);
            loading.add(number, shard.as_deref());
        }
        let (saved, damaged) = loading.finish(None);
        report_damaged(damaged, &self.leader.paths.cursor);
        Ok(saved)
    }

    async fn save(&self, cursor: &mut Cursor) -> Result<(), LeaderError> {
        let paths = &self.leader.paths;
        let Encoded { shards, head, .. } = cursor.encode_within(cursor::now(), MOST_BYTES);
        for number in shards {
            let shard = cursor.shard_within(number, MOST_BYTES);
            let items = checkpoint::shard_items(&self.owner, &shard);
            self.write(&paths.shard(number), &items).await?;
        }
        let head = String::from_utf8_lossy(&head);
        let head = if head.len() <= MOST_TEXT {
            Head::Here(head.into_owned())
        } else {
            self.put_beside(&head).await?
        };
        self.known().free = None;
        self.write(&paths.cursor, &checkpoint::items(&self.owner, &head)).await?;
        self.known().free = Some(head.free());
        cursor.saved();
        Ok(())
    }

    async fn over(&self) {
        self.lease.over().await;
    }

    fn holds(&self) -> bool {
        self.lease.holds()
    }

    async fn resign(self: Box<Self>) {
        let Self { leader, lease, monitor, id, .. } = *self;
        // It would take our own release for a loss.
        drop(monitor);
        // A lock that may have expired is on its way out, and so would be that of whoever acquires
        // it after a release.
        if !lease.holds() {
            return;
        }
        let release = leader.variables.release(&leader.paths.lock, &id);
        if let Ok(Err(err)) = timeout(RESIGN_LIMIT, release).await {
            tracing::warn!(
                error = %Chain(&err),
                "the lock could not be released; it is free once it has expired, and nothing is to \
                 be done"
            );
        }
    }
}
