//! What is watched: one line per stream. To add a stream, add a line here and a file in `bin/`.

use std::{
    fmt::{Debug, Write as _},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    api::{self, Nomad, Page, Query, nomad::types},
    cursor::{Index, Kind, Mark, Nanos},
    dedupe::Seen,
    error::brief,
    record::{Meta, Record, json},
};

mod allocations;
mod envelope;
mod objects;
mod schema;
mod task_update;

use allocations::task_events;
pub(crate) use envelope::Envelope;
use objects::{full, stub};
pub use task_update::TaskUpdate;

/// One kind of Nomad object, and how its list becomes what is published.
pub trait Resource: Debug + Send + Sync + 'static {
    /// Names the stream, its binary and its metric label.
    const NAME: &'static str;
    /// Names the Consul keys, as the Go tool does.
    const LOCK: &'static str;
    /// One line for humans.
    const ABOUT: &'static str;
    /// The type that a record has in its metadata.
    const TYPE: &'static str;
    /// What its position is made of.
    const KIND: Kind;
    /// Top-level members that Nomad changes without an index: they make no change of their own.
    const VOLATILE: &'static [&'static str];
    /// What Nomad's event stream has of it.
    const TOPIC: Topic;
    /// Whether its list takes `namespace=*` as a name before Nomad 1.2.4, and so answers nothing.
    const OLD_WILDCARD: bool;

    /// Waits for the list to change.
    fn list(nomad: &Nomad, query: &Query) -> impl Future<Output = api::Result<Page>> + Send;

    /// What one element of the list shows that is new. Pure.
    fn changes(element: &[u8], seen: &Seen, mode: Mode) -> Result<Found, BadElement>;

    /// Reads what is to be published of a change, where the list does not have it; `None` where
    /// the object is gone by now.
    fn payload(
        nomad: &Nomad,
        change: &Change,
        fresh: bool,
    ) -> impl Future<Output = api::Result<Option<Bytes>>> + Send;

    /// The JSON Schema of what is published, as `--schema` prints it: the file in `schemas/`, which
    /// is what [`Resource::schema`] generates. A program with the text in it is much smaller than
    /// one that generates it.
    const SCHEMA: &'static str;

    /// The JSON Schema of what is published, generated from its type.
    fn schema() -> schemars::Schema;
}

/// Something to do with a stream that is known only by its name.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn on<R: Resource>(self) -> Self::Output;
}

/// What is being read, and what of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A list: what is new since the last one.
    Usual,
    /// A list after Nomad was set back: what differs from the last one.
    Regressed,
    /// The object of an event: what is new. An old one says nothing about Nomad's state.
    Event,
}

/// What Nomad's event stream has of a resource, by the name of the topic. The member of a payload
/// that holds the object is called the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Events have what is published.
    Carries(&'static str),
    /// Events say that the list may have changed.
    Announces(&'static str),
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Carries(name) | Self::Announces(name) => name,
        }
    }

    /// Whether its events have what is published.
    #[must_use]
    pub fn carries(self) -> bool {
        matches!(self, Self::Carries(_))
    }
}

/// One change, on its way to be a record.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its index, as the list shows it.
    pub index: Index,
    /// The object, or the allocation.
    pub id: Arc<str>,
    /// The namespace of the object; empty for nodes.
    pub namespace: Arc<str>,
    /// What becomes durable with it.
    pub mark: Mark,
    /// The payload, where the list has it.
    pub body: Option<Bytes>,
    /// What tells a task event from the others of its allocation.
    pub event: Option<Event>,
    /// When it happened, where Nomad says so.
    pub time: Option<Nanos>,
    /// Whether it may be no change at all, which only its body tells: see [`crate::dedupe::Verdict::Recheck`].
    pub recheck: bool,
}

/// A task event's own identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The task.
    pub task: Arc<str>,
    /// Its `Type`.
    pub kind: Box<str>,
    /// Its `Time`.
    pub time: Nanos,
    /// A hash of the whole event.
    pub hash: u64,
}

/// What one element of a list shows.
#[derive(Debug, Default)]
pub struct Found {
    /// The object, so that those no longer listed are forgotten: a hash of its name, or the number
    /// of the allocation.
    pub object: u128,
    /// Its index.
    pub index: Index,
    /// What is new, oldest first.
    pub changes: Vec<Change>,
    /// Positions that move although nothing is published.
    pub silent: Vec<Mark>,
    /// Tasks of which Nomad dropped events before they could be read.
    pub gaps: Vec<Gap>,
    /// Whether the object went back.
    pub reverted: bool,
}

/// Task events that Nomad no longer had when they could be read: they are lost, and this says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The allocation.
    pub allocation: String,
    /// The task.
    pub task: String,
}

/// An element of a list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be read: {}", brief(.object), brief(.why))]
pub struct BadElement {
    /// Its id where that can be read, else a word for it.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
}

/// Declares the streams: a type per stream, and [`ALL`] of them for the command line and the tests.
macro_rules! streams {
    ($(
        #[doc = $about:literal]
        $Stream:ident($name:literal, $lock:literal, $kind:ident, $type:literal):
            $list:path, $changes:path, $payload:path => $Payload:ty,
            events $topic:expr, volatile $volatile:expr, old_wildcard $old_wildcard:literal;
    )+) => {
        $(
            #[doc = $about]
            #[derive(Clone, Copy, Debug)]
            pub struct $Stream;

            impl Resource for $Stream {
                const NAME: &'static str = $name;
                const LOCK: &'static str = $lock;
                const ABOUT: &'static str = $about.trim_ascii();
                const TYPE: &'static str = $type;
                const KIND: Kind = Kind::$kind;
                const TOPIC: Topic = $topic;
                const VOLATILE: &'static [&'static str] = &$volatile;
                const OLD_WILDCARD: bool = $old_wildcard;
                const SCHEMA: &'static str =
                    include_str!(concat!("../schemas/", $name, ".schema.json"));

                async fn list(nomad: &Nomad, query: &Query) -> api::Result<Page> {
                    $list(nomad, query).await
                }

                fn changes(element: &[u8], seen: &Seen, mode: Mode) -> Result<Found, BadElement> {
                    $changes(element, seen, mode, Self::VOLATILE)
                }

                async fn payload(
                    nomad: &Nomad,
                    change: &Change,
                    fresh: bool,
                ) -> api::Result<Option<Bytes>> {
                    $payload(nomad, change, fresh).await
                }

                fn schema() -> schemars::Schema {
                    schema::of::<$Payload>($name, Self::ABOUT)
                }
            }
        )+

        /// Every stream: its name, and what it publishes.
        pub const ALL: &[(&str, &str)] = &[$(($name, <$Stream as Resource>::ABOUT)),+];

        /// Does `work` with the stream of that name; `None` where there is none.
        pub fn with_stream<W: Work>(name: &str, work: W) -> Option<W::Output> {
            match name {
                $($name => Some(work.on::<$Stream>()),)+
                _ => None,
            }
        }
    };
}

// The list, what it shows, and what is published.
streams! {
    /// Every new task event of every allocation.
    Allocations("allocations", "allocations", TaskEvents, "nomad.allocation.task-event"):
        Nomad::list_allocations, task_events, whole => TaskUpdate,
        events Topic::Carries("Allocation"), volatile [], old_wildcard false;

    /// Every node, whenever it changes.
    Nodes("nodes", "nodes", Objects, "nomad.node.changed"):
        Nomad::list_nodes, stub, node => types::Node,
        events Topic::Carries("Node"),
        volatile ["Events", "LastAllocUpdateIndex", "LastMissedHeartbeatIndex"], old_wildcard false;

    /// Every evaluation, whenever it changes.
    Evaluations("evaluations", "evaluations", Objects, "nomad.evaluation.changed"):
        Nomad::list_evaluations, full, whole => types::Evaluation,
        events Topic::Carries("Evaluation"), volatile [], old_wildcard true;

    /// Every job, whenever it changes.
    Jobs("jobs", "jobs", Objects, "nomad.job.changed"):
        Nomad::list_jobs, stub, job => types::Job,
        events Topic::Carries("Job"), volatile ["JobSummary"], old_wildcard false;

    /// The short form of every job, whenever the job changes.
    JobListStubs("jobliststubs", "jobliststub", Objects, "nomad.job-list-stub.changed"):
        Nomad::list_jobs, full, whole => types::JobListStub,
        events Topic::Announces("Job"), volatile ["JobSummary"], old_wildcard false;

    /// Every deployment, whenever it changes.
    Deployments("deployments", "deployments", Objects, "nomad.deployment.changed"):
        Nomad::list_deployments, full, whole => types::Deployment,
        events Topic::Carries("Deployment"), volatile [], old_wildcard true;
}

/// The list, or the event, had all there is to publish.
async fn whole(_: &Nomad, change: &Change, _: bool) -> api::Result<Option<Bytes>> {
    Ok(change.body.clone())
}

async fn node(nomad: &Nomad, change: &Change, fresh: bool) -> api::Result<Option<Bytes>> {
    nomad.node(&change.id, fresh).await
}

async fn job(nomad: &Nomad, change: &Change, fresh: bool) -> api::Result<Option<Bytes>> {
    nomad.job(&change.id, &change.namespace, fresh).await
}

impl Change {
    /// Roughly how much memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        const FIXED: usize = size_of::<Change>() + 128;
        FIXED + self.id.len() + self.body.as_ref().map_or(0, Bytes::len)
    }

    /// Makes the change a record. The payload's own index names it, since a body that was read by
    /// id may be newer than what the list showed: so the same content always has the same id.
    pub fn into_record<R: Resource>(
        self,
        body: Bytes,
        source: &Arc<str>,
    ) -> Result<Record, BadElement> {
        // One line per document is the contract of stdout. Only a server that was asked for
        // `pretty` breaks lines, and JSON has none within a string.
        let body = match memchr::memchr2(b'\n', b'\r', &body) {
            None => body,
            Some(_) => body.iter().filter(|it| !matches!(it, b'\n' | b'\r')).copied().collect(),
        };
        let below = Index::default();
        let Self { index, id, namespace, mark, event, time, .. } = self;
        let (record_id, subject, index, time) = match event {
            Some(Event { task, kind, time: at, hash }) => {
                let subject = [&*id, "/", &*task].concat();
                // This is done for each event; one piece of memory is enough for it.
                let mut name = String::with_capacity(subject.len() + kind.len() + 64);
                let _ = write!(name, "{}/{subject}/{at}/{kind}/{hash:016x}", R::NAME);
                (name, subject, index, time)
            }
            None => {
                let envelope = Envelope::read(&body)?;
                let index = Index(envelope.modify_index);
                let hash = json::hash(&body, R::VOLATILE);
                let name = format!("{}/{namespace}/{id}/{index}/{hash:016x}", R::NAME);
                (name, id.to_string(), index, envelope.modify_time.or(time))
            }
        };
        let meta = Meta {
            id: record_id,
            source: source.clone(),
            kind: R::TYPE,
            subject,
            time: time.and_then(rfc3339),
            index,
            namespace: namespace.clone(),
        };
        let key = if R::KIND == Kind::TaskEvents || namespace.is_empty() {
            id
        } else {
            format!("{namespace}/{id}").into()
        };
        Ok(Record { stream: R::NAME, key, mark, below, body, meta })
    }
}

/// Nanoseconds since 1970 as RFC 3339; `None` for zero and before.
fn rfc3339(time: Nanos) -> Option<String> {
    let since = Duration::from_nanos(u64::try_from(time).ok().filter(|it| *it > 0)?);
    let time = std::time::SystemTime::UNIX_EPOCH.checked_add(since)?;
    Some(humantime::format_rfc3339_nanos(time).to_string())
}
