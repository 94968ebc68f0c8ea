//! Inserts documents into a collection of MongoDB.

use std::{future::Future, sync::Arc, time::Duration};

use ::mongodb::{
    Client,
    bson::{Document, RawDocumentBuf, doc},
};
use async_trait::async_trait;
use tokio::{sync::Mutex, time::timeout};

use super::{About, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record},
};

mod address;
mod answer;
mod command;
mod document;
mod number;

use address::Address;
use answer::{CallError, Late, Meaning, NotThere, Outcome, Unconfirmed};
use command::{Entry, parts};

/// Records of a call, which become one command as a rule.
const MAX_RECORDS: usize = 500;
/// Bytes of their JSON. A document can be larger than its JSON; a call that becomes larger than a
/// command may be is sent in several.
const CALL_BYTES: usize = 4 << 20;
/// What every server takes as a document, and as the documents of one command.
const DOCUMENT_BYTES: usize = 16 << 20;
/// Calls at once: the Go tool's default.
const WORKERS: usize = 1;
const MAX_WORKERS: usize = 64;
/// How long a call may take with everything that belongs to it.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to disconnect.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A collection.
///
/// Delivered means that a majority of the replica set has the document in its journal.
pub(super) struct MongoDb {
    address: Address,
    database: String,
    collection: String,
    workers: usize,
    format: Format,
    client: Mutex<Option<Client>>,
}

impl Connect for MongoDb {
    const SUMMARY: Summary = Summary {
        delivered: "in the journal of a majority of the replica set",
        duplicate: "`_id`, so that it is not stored again",
        set_by: &["SINK_MONGODB_WORKERS"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let address = Address::from_env(env);
        let database = name(env, "SINK_MONGODB_DATABASE", "the name of a database", database);
        let collection =
            name(env, "SINK_MONGODB_COLLECTION", "the name of a collection", collection);
        let workers = env.within("SINK_MONGODB_WORKERS", WORKERS, MAX_WORKERS);
        Ok(Self {
            address: address?,
            database: database?,
            collection: collection?,
            workers: workers?,
            format,
            client: Mutex::default(),
        })
    }
}

fn name(
    env: &Env,
    variable: &'static str,
    hint: &str,
    wrong: fn(&str) -> Option<&'static str>,
) -> Result<String, Noted> {
    let name: String = env.required(variable, hint)?;
    match wrong(&name) {
        None => Ok(name),
        Some(what) => Err(env.note(variable, format!("`{name}` {what}"))),
    }
}

/// What MongoDB would say against the name of a database.
fn database(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        return Some("is longer than 63 bytes");
    }
    name.contains(['/', '\\', '.', ' ', '"', '$', '\0'])
        .then_some("has a character that no database may have in its name")
}

/// What it would say against that of a collection.
fn collection(name: &str) -> Option<&'static str> {
    if name.starts_with("system.") {
        return Some("is for MongoDB itself");
    }
    name.contains(['$', '\0']).then_some("has a character that no collection may have in its name")
}

#[async_trait]
impl Sink for MongoDb {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (entries, mut failures) = self.entries(records);
        if !entries.is_empty() {
            failures.extend(self.within("insert into", self.insert(entries)).await?);
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        Limits {
            calls: self.workers,
            records: MAX_RECORDS,
            bytes: CALL_BYTES,
            beside: self.format.beside(),
            // One document can be refused while the next is stored.
            one_per_key: true,
        }
    }

    fn about(&self) -> About {
        let untested = "not tested: whether the user may insert and update in the collection";
        About { at: self.shown(), untested }
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let ping = async {
            let ping = RawDocumentBuf::try_from(&doc! { "ping": 1 });
            let ping = ping.map_err(DeliverError::unavailable)?;
            match self.run("ask", ping).await {
                Ok(_) => Ok(()),
                Err(Stopped::Refused(err)) => Err(DeliverError::unavailable(err)),
                Err(Stopped::Unavailable(err)) => Err(err),
            }
        };
        self.within("ask", ping).await
    }

    async fn close(&self) {
        if let Some(client) = self.client.lock().await.take() {
            // What is not closed in time is closed with the process.
            let _ = timeout(CLOSE_LIMIT, client.shutdown().immediate(true)).await;
        }
    }
}

/// Why a command has no answer that can be looked at.
enum Stopped {
    Unavailable(DeliverError),
    /// It is the documents, and it is not said which.
    Refused(CallError),
}

impl MongoDb {
    fn shown(&self) -> String {
        format!("collection {}.{} at {}", self.database, self.collection, self.address.shown)
    }

    /// What to insert, and the records that no collection takes.
    fn entries(&self, records: &[Record]) -> (Vec<Entry>, Vec<Failure>) {
        let (mut entries, mut failures) = (Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            let id = record.meta.id.clone();
            match document::document(&id, &record.encoded(self.format), DOCUMENT_BYTES) {
                Ok(document) => entries.push(Entry { position, id, document }),
                Err(err) => failures.push(rejected(position, err)),
            }
        }
        (entries, failures)
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, DeliverError>>,
    ) -> Result<T, DeliverError> {
        match timeout(CALL_LIMIT, call).await {
            Ok(done) => done,
            Err(_) => {
                let err = Late { doing, at: self.shown(), limit: CALL_LIMIT };
                Err(DeliverError::unavailable(err))
            }
        }
    }

    /// Inserts; which of them failed.
    async fn insert(&self, entries: Vec<Entry>) -> Result<Vec<Failure>, DeliverError> {
        let (mut failures, mut there) = (Vec::new(), Vec::new());
        for part in parts(entries) {
            let documents = part.iter().map(|it| &it.document);
            let command = command::insert(&self.collection, documents);
            let reply = match self.run("insert into", command).await {
                Ok(reply) => reply,
                Err(Stopped::Unavailable(err)) => return Err(err),
                Err(Stopped::Refused(err)) => {
                    failures.extend(refused(&part, err));
                    continue;
                }
            };
            for (index, outcome) in self.outcomes(&reply, part.len())? {
                let Some(entry) = part.get(index) else { continue };
                let position = entry.position;
                match outcome {
                    Outcome::There => there.push((position, entry.id.clone())),
                    Outcome::Rejected(err) => failures.push(rejected(position, err)),
                    Outcome::Failed(err) | Outcome::Unusable(err) => {
                        let (kind, source) = (FailureKind::Transient, err.into());
                        failures.push(Failure { position, kind, source });
                    }
                }
            }
        }
        if !there.is_empty() {
            failures.extend(self.confirm(there).await?);
        }
        Ok(failures)
    }

    /// What an answer says of the documents that were not inserted.
    fn outcomes(
        &self,
        reply: &Document,
        sent: usize,
    ) -> Result<Vec<(usize, Outcome)>, DeliverError> {
        answer::outcomes(reply, sent, "insert into", &self.shown())
            .map_err(|(err, again)| DeliverError::Unavailable { source: err.into(), again })
    }

    /// Waits until a majority has documents that were there already.
    ///
    /// That one is there only says that the primary has it, and a router keeps to itself that a
    /// majority has not, where everything of a command was there. An update that changes nothing
    /// waits for the majority as any write does, and counts what it found.
    ///
    /// It can find more than were sent: where the shard key is not `_id`, all shards are asked, and
    /// one may still have a copy of what has moved to another. Then the sum does not tell whether
    /// one is missing, so that they are asked for one by one, each of which is there or is not.
    /// That a sum is right by chance, as one is counted twice and another is lost, takes a move
    /// and a rollback within one call; it cannot be where the shard key is `_id`.
    async fn confirm(&self, there: Vec<(usize, String)>) -> Result<Vec<Failure>, DeliverError> {
        let found = self.found(&there).await?;
        if found == there.len() {
            return Ok(Vec::new());
        }
        if found < there.len() {
            return Ok(self.unconfirmed(&there, found));
        }
        let mut failures = Vec::new();
        for one in &there {
            let one = std::slice::from_ref(one);
            if self.found(one).await? == 0 {
                failures.extend(self.unconfirmed(one, 0));
            }
        }
        Ok(failures)
    }

    /// How many of these a majority has.
    async fn found(&self, there: &[(usize, String)]) -> Result<usize, DeliverError> {
        let command = command::confirm(&self.collection, there.iter().map(|(_, id)| id.as_str()));
        let reply = match self.run("confirm documents in", command).await {
            Ok(reply) => reply,
            Err(Stopped::Unavailable(err)) => return Err(err),
            Err(Stopped::Refused(err)) => return Err(DeliverError::unavailable(err)),
        };
        answer::found(&reply, "confirm documents in", &self.shown())
            .map_err(|(err, again)| DeliverError::Unavailable { source: err.into(), again })
    }

    fn unconfirmed(&self, there: &[(usize, String)], found: usize) -> Vec<Failure> {
        let source = Arc::new(Unconfirmed { at: self.shown(), sent: there.len(), found });
        let failed = |(position, _): &(usize, String)| Failure {
            position: *position,
            kind: FailureKind::Transient,
            source: source.clone().into(),
        };
        there.iter().map(failed).collect()
    }

    /// Runs a command once: the library tries none of these again.
    async fn run(&self, doing: &'static str, command: RawDocumentBuf) -> Result<Document, Stopped> {
        let client = self.client(doing).await.map_err(Stopped::Unavailable)?;
        let err = match client.database(&self.database).run_raw_command(command).await {
            Ok(reply) => return Ok(reply),
            Err(err) => err,
        };
        let anew = answer::needs_another_client(&err.kind);
        let stopped = self.stopped(doing, &err);
        if anew {
            // Addresses, passwords and certificates may be others by now.
            self.client.lock().await.take();
        }
        Err(stopped)
    }

    fn stopped(&self, doing: &'static str, err: &::mongodb::error::Error) -> Stopped {
        let (meaning, hint) = answer::meaning(&err.kind);
        let source = CallError::new(doing, self.shown(), hint, &err.kind);
        match meaning {
            Meaning::Refused => Stopped::Refused(source),
            Meaning::Unavailable(again) => {
                Stopped::Unavailable(DeliverError::Unavailable { source: source.into(), again })
            }
        }
    }

    /// The client, which has its connections made when they are needed.
    async fn client(&self, doing: &'static str) -> Result<Client, DeliverError> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let options = self.address.options(self.workers).await;
        let options = options.map_err(|err| match err {
            NotThere::Said(err) => match self.stopped(doing, &err) {
                Stopped::Unavailable(err) => err,
                Stopped::Refused(err) => DeliverError::unavailable(err),
            },
            NotThere::Password(err) => DeliverError::unusable(err),
        })?;
        let made =
            Client::with_options(options).map_err(|err| match self.stopped(doing, &err) {
                Stopped::Unavailable(err) => err,
                Stopped::Refused(err) => DeliverError::unavailable(err),
            })?;
        Ok(client.insert(made).clone())
    }
}

fn rejected(position: usize, source: impl Into<BoxError>) -> Failure {
    Failure { position, kind: FailureKind::Rejected, source: source.into() }
}

fn refused(part: &[Entry], err: CallError) -> Vec<Failure> {
    let kind = if part.len() == 1 { FailureKind::Rejected } else { FailureKind::Suspect };
    let source = Arc::new(err);
    let failure =
        |it: &Entry| Failure { position: it.position, kind, source: source.clone().into() };
    part.iter().map(failure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_mongodb_takes() {
        assert!(database("nomad-events_1").is_none() && collection("a.b-c").is_none());
        let long = "x".repeat(64);
        for name in ["a.b", "a b", "a/b", "a$", &long] {
            assert!(database(name).is_some(), "{name}");
        }
        for name in ["system.users", "a$b"] {
            assert!(collection(name).is_some(), "{name}");
        }
    }
}
