//! What a member of a replica set does with a command.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use ::mongodb::bson::{Bson, Document, doc};

use serde_json::Value;

use super::{login::Login, record};
use crate::sinks::contract::LARGE;

pub const DATABASE: &str = "nomad";
pub const COLLECTION: &str = "events";

/// What becomes of the next write.
#[derive(Clone, Debug)]
pub enum Script {
    /// It fails with this code and name, and writes nothing.
    Fails(i32, &'static str),
    /// It is done, and no majority has it.
    NoMajority,
    /// More documents are found than there are, since shards have copies of some.
    Orphans,
    /// It is done, and what is stored is lost once it is answered, as by a primary that was alone.
    RolledBack,
    /// Each of its documents fails with this code.
    Each(i32),
    /// As it should be.
    Works,
}

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    /// What it was before it noticed: it says that it is the primary, and refuses writes.
    Deposed,
    Secondary,
}

pub struct Member {
    pub role: Role,
    /// All members, where it is a replica set.
    pub hosts: Vec<String>,
    pub password: String,
    /// By `_id`.
    pub stored: BTreeMap<String, Document>,
    /// Every document that was there after an insert, in the order of the inserts.
    pub attempts: Vec<(String, Value)>,
    /// Commands that write, without their documents.
    pub writes: Vec<Document>,
    pub script: VecDeque<Script>,
    pub takes_full: bool,
    /// Commands by name, and logins that were refused.
    pub asked: BTreeMap<String, usize>,
    pub denied: usize,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            role: Role::Primary,
            hosts: Vec::new(),
            password: super::login::PASSWORD.to_owned(),
            stored: BTreeMap::new(),
            attempts: Vec::new(),
            writes: Vec::new(),
            script: VecDeque::new(),
            takes_full: false,
            asked: BTreeMap::new(),
            denied: 0,
        }
    }
}

fn failed(code: i32, name: &str, said: &str) -> Document {
    doc! { "ok": 0.0, "errmsg": said, "code": code, "codeName": name }
}

impl Member {
    /// The answer to a command.
    pub fn answer(&mut self, command: &Document, login: &mut Login) -> Document {
        let name = command.keys().next().unwrap().clone();
        *self.asked.entry(name.clone()).or_default() += 1;
        match name.as_str() {
            "hello" | "isMaster" => self.hello(command),
            "saslStart" | "saslContinue" => {
                let answer = login.answer(command, &self.password);
                self.denied += usize::from(answer.get_i32("code").is_ok());
                answer
            }
            "endSessions" => doc! { "ok": 1.0 },
            _ if !login.is_in() => {
                failed(13, "Unauthorized", &format!("Command {name} requires authentication"))
            }
            "ping" => doc! { "ok": 1.0 },
            "insert" | "update" => self.write(&name, command),
            other => failed(59, "CommandNotFound", &format!("no such command: '{other}'")),
        }
    }

    fn hello(&self, command: &Document) -> Document {
        let primary = self.role != Role::Secondary;
        let mut hello = doc! {
            "helloOk": true, "ismaster": primary, "isWritablePrimary": primary,
            "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000, "logicalSessionTimeoutMinutes": 30, "connectionId": 1,
            "minWireVersion": 0, "maxWireVersion": 21, "readOnly": false,
        };
        if !self.hosts.is_empty() {
            hello.extend(doc! {
                "setName": "rs0", "setVersion": 1, "secondary": !primary,
                "hosts": self.hosts.clone(),
            });
        }
        if command.contains_key("saslSupportedMechs") {
            hello.insert("saslSupportedMechs", vec!["SCRAM-SHA-256"]);
        }
        hello.insert("ok", 1.0);
        hello
    }

    fn write(&mut self, name: &str, command: &Document) -> Document {
        assert_eq!(command.get_str("$db").ok(), Some(DATABASE));
        assert!(!command.contains_key("txnNumber"), "the library would try again by itself");
        let (mut write, array) = (command.clone(), documents_of(name));
        let documents: Vec<Document> = match write.remove(array) {
            Some(Bson::Array(all)) => {
                all.into_iter().map(|it| it.as_document().unwrap().clone()).collect()
            }
            other => panic!("{name} with {other:?}"),
        };
        assert!(!documents.is_empty() && documents.len() <= 500, "{} documents", documents.len());
        self.writes.push(write);
        if self.role != Role::Primary {
            return failed(10107, "NotWritablePrimary", "not primary");
        }
        if command.get_str(name).ok() != Some(COLLECTION) {
            let said = format!("not authorized on {DATABASE} to execute command {{ {name} }}");
            return failed(13, "Unauthorized", &said);
        }
        let script = self.script.pop_front().unwrap_or(Script::Works);
        if let Script::Fails(code, name) = script {
            return failed(code, name, "scripted");
        }
        let each = if let Script::Each(code) = script { Some(code) } else { None };
        let mut reply = match name {
            "insert" => self.insert(documents, each),
            _ => self.update(&documents),
        };
        match script {
            Script::NoMajority => {
                reply.insert(
                    "writeConcernError",
                    doc! {
                        "code": 64, "codeName": "WriteConcernFailed",
                        "errmsg": "waiting for replication timed out",
                        "errInfo": { "wtimeout": true },
                    },
                );
            }
            Script::RolledBack => self.stored.clear(),
            Script::Orphans => {
                let found = reply.get_i32("n").unwrap();
                reply.insert("n", found + 1);
            }
            Script::Works | Script::Each(_) | Script::Fails(..) => (),
        }
        reply
    }

    fn insert(&mut self, documents: Vec<Document>, each: Option<i32>) -> Document {
        let (mut inserted, mut errors) = (0, Vec::new());
        for (index, document) in documents.into_iter().enumerate() {
            let index = i32::try_from(index).unwrap();
            let id = document.get_str("_id").unwrap().to_owned();
            if let Some(mut err) =
                each.map(|code| doc! { "code": code }).or_else(|| self.wrong(&document))
            {
                err.insert("index", index);
                errors.push(err);
                continue;
            }
            self.attempts.push(record(&document));
            match self.stored.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(document);
                    inserted += 1;
                }
                Entry::Occupied(there) => errors.push(duplicate(index, there.key())),
            }
        }
        let mut reply = doc! { "n": inserted, "ok": 1.0 };
        if !errors.is_empty() {
            reply.insert("writeErrors", errors);
        }
        reply
    }

    /// What is wrong with a document.
    fn wrong(&self, document: &Document) -> Option<Document> {
        let job = |it: &Document| it.get_str("JobID").unwrap_or_default().to_owned();
        let job = document.get_document("data").map_or_else(|_| job(document), job);
        if document.to_vec().unwrap().len() > LARGE {
            return Some(doc! { "code": 2, "errmsg": "object to insert too large" });
        }
        match job.as_str() {
            "bad" => Some(doc! {
                "code": 121, "errmsg": "Document failed validation",
                "errInfo": { "details": { "consideredValue": job } },
            }),
            "twin" => Some(doc! {
                "code": 11000, "keyPattern": { "JobID": 1 }, "keyValue": { "JobID": &job },
                "errmsg": format!("E11000 duplicate key error collection: {DATABASE}.{COLLECTION} \
                                   index: JobID_1 dup key: {{ JobID: \"{job}\" }}"),
            }),
            // Of a shard that has no primary at the moment.
            "full" if !self.takes_full => Some(doc! {
                "code": 133, "codeName": "FailedToSatisfyReadPreference",
                "errmsg": "Could not find host matching read preference { mode: \"primary\" }",
            }),
            _ => None,
        }
    }

    /// An update that changes nothing.
    fn update(&self, updates: &[Document]) -> Document {
        let mut found = 0;
        for update in updates {
            assert_eq!(update.get_bool("upsert").ok(), Some(false));
            let changes = update.get_document("u").unwrap();
            assert_eq!(changes.keys().collect::<Vec<_>>(), ["$setOnInsert"]);
            let id = update.get_document("q").unwrap().get_str("_id").unwrap();
            found += i32::from(self.stored.contains_key(id));
        }
        doc! { "n": found, "nModified": 0, "ok": 1.0 }
    }
}

fn duplicate(index: i32, id: &str) -> Document {
    let said = format!(
        "E11000 duplicate key error collection: {DATABASE}.{COLLECTION} index: _id_ dup key: {{ \
         _id: \"{id}\" }}"
    );
    doc! {
        "index": index, "code": 11000, "errmsg": said,
        "keyPattern": { "_id": 1 }, "keyValue": { "_id": id },
    }
}

fn documents_of(name: &str) -> &'static str {
    if name == "insert" { "documents" } else { "updates" }
}
