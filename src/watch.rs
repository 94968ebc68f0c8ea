//! Turns what Nomad shows into batches of records.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    api::Nomad,
    backoff::Trouble,
    cursor::{Cursor, Index, Mark, Move},
    dedupe::Seen,
    metrics::Metrics,
    record::Record,
    streams::Resource,
};

mod fetch;
mod follow;
mod following;
mod join;
pub mod lines;
mod namespaces;
mod pass;
mod poll;
mod report;
pub mod split;
mod subscription;
mod take;
mod whole;

use following::Following;
pub use following::Source;
use poll::PassError;
use subscription::Cut;
pub use subscription::{NoStream, try_stream};

/// Bytes of payloads in a batch; with one larger payload it may be more. The pipeline holds up to
/// four batches: one being read, two waiting, one being published.
pub const BATCH_BYTES: usize = 1 << 20;
/// Bytes of payloads that are sorted at a time, where all of a list cannot be: whatever exceeds
/// them costs another reading of the list.
pub const PASS_BYTES: usize = 8 << 20;

/// A list is read early once the event stream has shown so many changes of objects since the last
/// one: what is above the floor is remembered, and saved as far as there is room. So is it after
/// an event that cannot be read. At least this time is between two lists.
const EARLY_RESYNC: usize = 4_000;
const EARLY_LIST: Duration = Duration::from_secs(10);

/// Between attempts where Nomad cannot be read.
const LEAST_WAIT: Duration = Duration::from_millis(500);
const GREATEST_WAIT: Duration = Duration::from_secs(30);

/// Changes in order, and what is durable once all of them are published.
#[derive(Debug, Default)]
pub struct Batch {
    /// Oldest first.
    pub records: Vec<Record>,
    /// Positions that move although nothing is published, before the records do: what they stand
    /// for is durable already, or was never to be published.
    pub silent: Vec<Mark>,
    /// Where the floor goes then.
    pub then: Option<Move>,
    /// When the first of the records was read.
    pub read: Option<Instant>,
}

/// What a watcher is to read.
#[derive(Clone, Debug)]
pub struct Scope {
    /// A namespace, or `*` for all.
    pub namespace: Arc<str>,
    /// What records name as their source.
    pub source: Arc<str>,
    /// Where changes come from.
    pub changes: Source,
    /// The longest time between two lists beside the event stream.
    pub resync: Duration,
}

/// The changes of one stream from a cursor on. It tries again whatever fails, and ends by itself
/// only where one whole list is all that is wanted.
pub struct Watcher<R> {
    nomad: Nomad,
    scope: Scope,
    metrics: Arc<Metrics>,
    seen: Seen,
    /// Of the last record of each object: a hash of its id, and the index that its body has.
    bodies: HashMap<u64, (u64, Index)>,
    /// The index of the last list: the next one is to be past it.
    index: Index,
    reading: Reading,
    lists: Lists,
    /// Whether a list of all namespaces has ever shown anything.
    wildcard_works: bool,
    /// A namespace that the token can read.
    probed: String,
    /// How long a server is asked to hold a query.
    wait: Duration,
    /// What was said of objects and namespaces that cannot be read.
    said: HashSet<String>,
    trouble: Trouble,
    follow: Following,
    /// Whether one whole list is all that is to be read.
    once: bool,
    /// How many objects of the last list could not be read.
    unread: usize,
    resource: PhantomData<R>,
}

/// How the next list is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The first of this term, or after an error: with a short wait, so that a server that does
    /// not answer is noticed soon.
    Probing,
    /// Waiting for a change.
    Waiting,
    /// Something of the last list could not be read: wait for a change, but not for long.
    Doubting,
    /// At once, since the last pass left changes for this one.
    Again,
    /// At once and from the leader: the last list looked as if Nomad had been set back.
    Confirming,
    /// At once and from the leader: Nomad has been set back.
    Regressed,
}

/// Which lists there are to read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lists {
    /// One, of the namespace in the scope.
    One,
    /// One for each namespace, because the server does not know `*` for this resource.
    EachNamespace,
}

impl<R: Resource> Watcher<R> {
    /// Watches for changes beyond `cursor`.
    #[must_use]
    pub fn new(nomad: Nomad, scope: Scope, cursor: &Cursor, metrics: Arc<Metrics>) -> Self {
        Self {
            nomad,
            scope,
            metrics,
            index: Index::default(),
            seen: Seen::new(cursor),
            bodies: HashMap::new(),
            reading: Reading::Probing,
            lists: Lists::One,
            wildcard_works: false,
            probed: "default".to_owned(),
            wait: poll::LONGEST_WAIT,
            said: HashSet::new(),
            trouble: Trouble::new(LEAST_WAIT, GREATEST_WAIT),
            follow: Following::default(),
            once: false,
            unread: 0,
            resource: PhantomData,
        }
    }

    /// Reads for ever, or [`Watcher::once`], handing over batches; returns once nobody takes them.
    /// It is in a box, since it is large, and whoever waits for it would be as well.
    pub fn run(&mut self, batches: mpsc::Sender<Batch>) -> BoxFuture<'_, ()> {
        match self.once {
            true => Box::pin(self.run_once(batches)),
            false => Box::pin(self.run_for_ever(batches)),
        }
    }

    async fn run_for_ever(&mut self, batches: mpsc::Sender<Batch>) {
        let mut next = Instant::now();
        loop {
            if self.may_follow() {
                match self.follow(&batches).await {
                    Cut::Closed => return,
                    cut => self.note_cut(cut),
                }
            } else if self.polls_meanwhile() {
                // A pass that goes on with the last one does not wait.
                if !matches!(self.reading, Reading::Again | Reading::Regressed) {
                    sleep_until(next).await;
                }
                next = Instant::now();
                self.metrics.polling.set(1);
                if self.reading != Reading::Probing {
                    next += poll::LEAST_INTERVAL;
                }
                if let Err(PassError::Closed) = self.poll(&batches).await {
                    return;
                }
            } else if let Some(wait) = self.until_stream() {
                tokio::select! {
                    () = sleep(wait) => (),
                    () = self.nomad.token_changed() => (),
                }
            }
        }
    }

    /// Reads the list once it changes.
    async fn poll(&mut self, batches: &mpsc::Sender<Batch>) -> Result<(), PassError> {
        match self.pass(batches).await {
            Ok(reading) => {
                self.reading = reading;
                // A list that is to be confirmed has told nothing yet.
                if reading != Reading::Confirming {
                    self.report_recovered();
                }
            }
            Err(PassError::Closed) => return Err(PassError::Closed),
            Err(err) => {
                self.report_failed(&err);
                if self.reading == Reading::Waiting {
                    // Something in between may cut connections that are idle for so long.
                    self.wait = (self.wait / 2).max(poll::SHORTEST_WAIT);
                }
                if self.reading != Reading::Regressed {
                    self.reading = Reading::Probing;
                }
                tokio::select! {
                    () = self.trouble.backoff.wait() => (),
                    () = self.nomad.token_changed() => (),
                }
            }
        }
        Ok(())
    }
}
