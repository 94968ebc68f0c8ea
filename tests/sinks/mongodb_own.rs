//! What the sink `mongodb` has besides: numbers that stay what they are, documents that are stored
//! once, majorities, and a change of the primary.

use ::mongodb::bson::{Bson, Document, doc};
use bytes::Bytes;
use nomad_firehose::standin::nomad::Table;

use super::{
    contract::Receiver,
    mongodb::{
        MongoDb,
        member::{Member, Role, Script},
        record,
    },
    proxy::{Proxy, Way},
    source::{Source, each_once, numbered},
};
use crate::firehose::{Program, when};

mod setting_up;

struct World {
    source: Source,
    mongodb: MongoDb,
}

impl World {
    async fn new() -> Self {
        Self { source: Source::new().await, mongodb: MongoDb::start().await }
    }

    fn program(&self) -> Program {
        self.program_to(&MongoDb::connection(self.mongodb.port()))
    }

    fn program_to(&self, connection: &str) -> Program {
        MongoDb::sink(self.source.program("evaluations"), connection)
    }

    fn script(&self, script: impl IntoIterator<Item = Script>) {
        self.mongodb.member().script.extend(script);
    }

    /// The names of the writes so far.
    fn writes(&self) -> Vec<String> {
        let member = self.mongodb.member();
        member.writes.iter().map(|it| it.keys().next().unwrap().clone()).collect()
    }

    /// Makes sure that the collection has these evaluations.
    async fn has(&self, count: usize) {
        let stored = self.mongodb.took(count).await;
        each_once(&stored.iter().map(record).collect::<Vec<_>>(), 0..count);
    }
}

fn named(stored: &[Document], number: usize) -> &Document {
    let id = numbered(number, "web")["ID"].as_str().unwrap().to_owned();
    stored.iter().find(|it| it.get_str("ID").ok() == Some(id.as_str())).unwrap()
}

#[tokio::test]
async fn numbers_are_stored_as_nomad_wrote_them() {
    let world = World::new().await;
    let evaluation = serde_json::to_string(&numbered(0, "web")).unwrap();
    let numbers = r#""CreateIndex":900,"ModifyIndex":900,"A":1700000000123456789,"B":18446744073709551615,"C":0.1,"D":0.12345678901234567891,"E":1e3,"F":12345678901234567890123456789012345678901234567890,"Z":0}"#;
    let text = format!("{},{numbers}", evaluation.strip_suffix('}').unwrap());
    world.source.nomad.serve_generated(Table::Evaluations, 1_000_000, move || {
        std::iter::once(Bytes::from(text.clone()))
    });
    let running = world.program().start();
    let stored = world.mongodb.took(1).await;
    running.stop().await;
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let wanted = doc! {
        "A": 1_700_000_000_123_456_789_i64,
        "B": decimal("18446744073709551615"),
        "C": 0.1,
        "D": decimal("0.12345678901234567891"),
        "E": 1e3,
        "F": "12345678901234567890123456789012345678901234567890",
        "Z": 0_i64,
    };
    for (name, value) in wanted {
        assert_eq!(stored[0].get(&name), Some(&value), "{name}");
    }
}

#[tokio::test]
async fn a_document_is_the_payload_with_its_id_or_the_envelope() {
    let mut ids = Vec::new();
    for (sink, format) in [("mongodb", "payload"), ("mongo", "cloudevents")] {
        let world = World::new().await;
        world.source.evaluations("web", 0..1);
        let program = world.program().set("SINK_TYPE", sink);
        let running = program.set("NOMAD_FIREHOSE_FORMAT", format).start();
        let stored = world.mongodb.took(1).await.remove(0);
        running.stop().await;
        ids.push(stored.get_str("_id").unwrap().to_owned());
        let payload = match format {
            "payload" => stored.clone(),
            _ => {
                assert_eq!(stored.get_str("type").ok(), Some("nomad.evaluation.changed"));
                assert_eq!(stored.get("id"), stored.get("_id"));
                crate::cloudevents::assert_event(&record(&stored).1);
                stored.get_document("data").unwrap().clone()
            }
        };
        assert_eq!(payload.get_str("JobID").ok(), Some("web"));
    }
    assert!(ids[0].starts_with("evaluations/"), "{ids:?}");
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn every_write_waits_for_the_journals_of_a_majority() {
    let world = World::new().await;
    world.script([Script::NoMajority]);
    world.source.evaluations("web", 0..3);
    let running = world.program().start();
    running.logs("too few members of the replica set have it").await;
    running.logs("takes records again").await;
    let log = running.stop().await.log;
    assert!(log.contains("WriteConcernFailed (64)"), "{log}");
    // What is there already waits as well.
    assert_eq!(world.writes(), ["insert", "insert", "update"]);
    for write in &world.mongodb.member().writes {
        let concern = doc! { "w": "majority", "j": true, "wtimeout": 10_000_i64 };
        assert_eq!(write.get_document("writeConcern").ok(), Some(&concern));
        assert_eq!(write.get_bool("ordered").ok(), Some(false));
    }
    world.has(3).await;
}

#[tokio::test]
async fn what_is_there_counts_only_once_a_majority_has_it() {
    let world = World::new().await;
    world.script([Script::NoMajority, Script::Works, Script::NoMajority]);
    world.source.evaluations("web", 0..2);
    let running = world.program().start();
    when("it is confirmed in the end", || world.writes().len() == 5).await;
    running.logs("takes records again").await;
    running.stop().await;
    assert_eq!(world.writes(), ["insert", "insert", "update", "insert", "update"]);
    world.has(2).await;
    assert!(world.source.has_checkpoint());
}

#[tokio::test]
async fn what_was_there_and_is_lost_with_its_primary_is_sent_again() {
    let world = World::new().await;
    // It is lost between the answer that it is there and the question whether it is.
    world.script([Script::NoMajority, Script::RolledBack]);
    world.source.evaluations("web", 0..2);
    let running = world.program().start();
    running.logs("documents that it said are there").await;
    world.has(2).await;
    running.logs("takes records again").await;
    running.stop().await;
    assert_eq!(world.writes(), ["insert", "insert", "update", "insert"]);
}

#[tokio::test]
async fn where_shards_have_copies_each_document_is_asked_for() {
    let world = World::new().await;
    world.script([Script::NoMajority, Script::Works, Script::Orphans]);
    world.source.evaluations("web", 0..2);
    let running = world.program().start();
    running.logs("takes records again").await;
    running.stop().await;
    assert_eq!(world.writes(), ["insert", "insert", "update", "update", "update"]);
    world.has(2).await;
    assert!(world.source.has_checkpoint());
}

#[tokio::test]
async fn a_lost_answer_stores_nothing_twice() {
    let world = World::new().await;
    let proxy = Proxy::to(world.mongodb.port()).await;
    world.source.evaluations("web", 0..1);
    let running = world.program_to(&MongoDb::connection(proxy.port())).start();
    world.mongodb.took(1).await;
    proxy.set(Way::Deaf);
    world.source.evaluations("web", 1..4);
    world.mongodb.took(4).await;
    proxy.set(Way::Open);
    when("it is asked whether they are there", || world.writes().iter().any(|it| it == "update"))
        .await;
    running.logs("takes records again").await;
    running.stop().await;
    assert_eq!(world.mongodb.member().attempts.len(), 1 + 2 * 3);
    world.has(4).await;
}

#[tokio::test]
async fn another_primary_is_found_and_nothing_is_lost() {
    let (world, other) = (World::new().await, MongoDb::start().await);
    other.member().role = Role::Secondary;
    let connection = MongoDb::connection_to(&[&world.mongodb, &other]);
    world.source.evaluations("web", 0..3);
    let running = world.program_to(&connection).start();
    world.has(3).await;
    world.mongodb.member().role = Role::Deposed;
    world.source.evaluations("web", 3..6);
    running.logs("it is not the primary of the replica set").await;
    {
        let (mut old, mut new) = (world.mongodb.member(), other.member());
        (old.role, new.role) = (Role::Secondary, Role::Primary);
        new.stored.clone_from(&old.stored);
    }
    other.took(6).await;
    running.logs("takes records again").await;
    running.stop().await;
    let stored: Vec<_> = other.member().stored.values().map(record).collect();
    each_once(&stored, 0..6);
    assert_eq!(world.mongodb.member().stored.len(), 3);
}

#[tokio::test]
async fn what_has_to_be_mended_is_said_and_stops_everything() {
    for (code, name, text) in [
        (13, "Unauthorized", "the user needs insert and update in this collection"),
        (73, "InvalidNamespace", "check SINK_MONGODB_DATABASE and SINK_MONGODB_COLLECTION"),
        (166, "CommandNotSupportedOnView", "it is a view: name a collection"),
        (8000, "AtlasError", "see whether the disk is full"),
        (9, "FailedToParse", "it has to be MongoDB 4.4 or newer"),
        (100, "UnsatisfiableWriteConcern", "see that a majority of them is up"),
    ] {
        let world = World::new().await;
        world.script([Script::Fails(code, name)]);
        world.source.evaluations("web", 0..2);
        let running = world.program().start();
        running.logs(text).await;
        let log = running.stop().await.log;
        let line = log.lines().find(|it| it.contains(text)).unwrap();
        assert!(line.contains("ERROR") && line.contains("nomad.events at 127.0.0.1"), "{line}");
        assert!(line.contains(&format!("{name} ({code})")), "{line}");
        assert!(!world.source.has_checkpoint() && world.mongodb.member().stored.is_empty());
    }
}

#[tokio::test]
async fn what_is_said_of_each_document_and_is_not_its_fault_stops_everything() {
    let world = World::new().await;
    // As a router passes on what a shard says.
    world.script([Script::Each(13)]);
    world.source.evaluations("web", 0..2);
    let running = world.program().start();
    running.logs("the user needs insert and update in this collection").await;
    let log = running.stop().await.log;
    assert!(log.contains("ERROR") && !log.contains("rejected"), "{log}");
    assert!(!world.source.has_checkpoint());
}

#[tokio::test]
async fn a_collection_that_the_user_may_not_write_to_loses_nothing() {
    let world = World::new().await;
    world.source.evaluations("web", 0..3);
    let running = world.program().set("SINK_MONGODB_COLLECTION", "other").start();
    running.logs("the user needs insert and update in this collection").await;
    running.stop().await;
    assert!(!world.source.has_checkpoint());
    let running = world.program().start();
    world.has(3).await;
    running.stop().await;
    assert_eq!(world.mongodb.member().attempts.len(), 3);
}

#[tokio::test]
async fn a_duplicate_of_anything_but_the_id_is_refused() {
    let world = World::new().await;
    world.source.evaluations("twin", 0..1);
    world.source.evaluations("web", 1..3);
    let running = world.program().start();
    running.logs("rejected a record for good").await;
    let stored = world.mongodb.took(2).await;
    let log = running.stop().await.log;
    assert!(log.contains("a unique index other than that of `_id`"), "{log}");
    assert_eq!(world.source.dead_letters().len(), 1);
    assert_eq!(named(&stored, 2).get_str("JobID").ok(), Some("web"));
    assert_eq!(world.writes(), vec!["insert"; world.writes().len()]);
}

#[tokio::test]
async fn documents_that_are_refused_together_are_tried_in_smaller_calls() {
    let world = World::new().await;
    world.source.evaluations("web", 0..4);
    world.script([Script::Fails(10334, "BSONObjectTooLarge")]);
    let running = world.program().start();
    world.has(4).await;
    let log = running.stop().await.log;
    assert!(!log.contains("rejected a record"), "{log}");
    assert!(world.writes().len() >= 3, "{:?}", world.writes());
}

#[tokio::test]
async fn a_backlog_fills_its_calls_and_every_login_is_kept() {
    const COUNT: usize = 2_000;
    let world = World::new().await;
    world.source.evaluations("web", 0..COUNT);
    let running = world.program().start();
    world.has(COUNT).await;
    running.stop().await;
    let Member { writes, asked, .. } = &*world.mongodb.member();
    assert!(writes.len() <= COUNT / 500 + 3, "{} calls", writes.len());
    assert_eq!(asked["saslStart"], 1, "a connection for each call");
}
