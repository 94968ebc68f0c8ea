//! From changes to records: what the list does not have is read by id.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    BATCH_BYTES, Batch, GREATEST_WAIT, LEAST_WAIT, Reading, Watcher,
    pass::Pass,
    poll::{PassError, send},
    subscription::heard,
};
use crate::{
    api::Nomad,
    backoff::Trouble,
    cursor::{Form, Index, Kind, Mark, Move},
    error::{Chain, brief},
    failpoint::{self, Point},
    metrics::Metrics,
    record::{Record, json},
    streams::{BadElement, Change, Envelope, Found, Resource},
};

/// Reads by id under way at once. All watchers behind one address share the 100 connections that
/// Nomad allows it.
const CONCURRENT_READS: usize = 8;
/// A body that is older than its change, refused, or unreadable is asked for so many times.
const MAX_READS: u32 = 4;

/// A batch waits so long for the next record, when that is slow to come.
const FLUSH: Duration = Duration::from_millis(100);

/// What an object is read by id for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    ByList,
    AfterRegression,
    /// Nothing else is read meanwhile, and what fails is left to the next list.
    ByEvent,
}

/// What became of a change.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are records, which a box would slow down"
)]
enum Fetched {
    Record(Record),
    /// There is no such object. Whether it is gone, or the server that answered lags or is on its
    /// way out, the next list tells.
    Missing(BadElement),
    /// Its body cannot be read; it is tried again with the next list.
    Bad(BadElement),
}

/// A batch in the making.
pub(super) struct Out {
    batch: Batch,
    bytes: usize,
    /// Everything below is known once what was published is durable.
    reach: Index,
    /// Changes that had to be left out; the floor stays below them.
    pub(super) skipped: Vec<Mark>,
}

/// What of a change is needed once it is fetched.
#[derive(Clone, Copy)]
struct Fetching {
    index: Index,
    mark: Mark,
    recheck: bool,
}

impl Out {
    pub(super) fn new(reach: Index) -> Self {
        Self { batch: Batch::default(), bytes: 0, reach, skipped: Vec::new() }
    }

    /// The floor stays below a change.
    fn skip(&mut self, it: Fetching) {
        self.reach = self.reach.min(it.index.before());
        self.skipped.push(it.mark);
    }

    /// Hands over what there is.
    pub(super) async fn flush(
        &mut self,
        batches: &mpsc::Sender<Batch>,
        metrics: &Metrics,
    ) -> Result<(), PassError> {
        let bytes = std::mem::take(&mut self.bytes);
        let batch = std::mem::take(&mut self.batch);
        if batch.records.is_empty() && batch.silent.is_empty() && batch.then.is_none() {
            return Ok(());
        }
        metrics.queued(batch.records.len(), bytes);
        send(batches, batch).await
    }
}

impl<R: Resource> Watcher<R> {
    /// Publishes the changes of a pass in order, and then moves the floor. Everything below
    /// `reach` is known once they are durable. Returns the changes that had to be
    /// left out; the floor stays below them.
    pub(super) async fn publish(
        &mut self,
        pass: &mut Pass,
        reach: Index,
        mut then: Option<Move>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Vec<Mark>, PassError> {
        let (gaps, before) = pass.take_gaps();
        self.report_gaps(&gaps, before);
        let asked = match self.reading {
            Reading::Regressed => Asked::AfterRegression,
            _ => Asked::ByList,
        };
        let (nomad, source, metrics) =
            (self.nomad.clone(), self.scope.source.clone(), self.metrics.clone());
        let fetch = |change: Change| {
            let (nomad, source, metrics) = (&nomad, &source, &metrics);
            async move {
                let it = Fetching::of(&change);
                (it, fetch::<R>(nomad, change, asked, source, metrics).await)
            }
        };
        // An allocation stands at the index of its last event, and those before it are older. So
        // only the end of a list tells how far task events are known.
        let known = match R::KIND {
            Kind::TaskEvents => Index::default(),
            Kind::Objects => reach,
        };
        let mut out = Out::new(known);
        out.batch.records.reserve(pass.changes());
        self.note_silent(std::mem::take(&mut pass.silent), &mut out);
        let mut changes = pass.take().peekable();
        let mut reads = FuturesOrdered::new();
        loop {
            while reads.len() < CONCURRENT_READS
                && let Some(change) = changes.next_if(|it| it.body.is_none())
            {
                reads.push_back(fetch(change));
            }
            if reads.is_empty() {
                let Some(change) = changes.next() else { break };
                let it = Fetching::of(&change);
                self.emit(it, complete::<R>(change, &source), &mut out, batches).await?;
                continue;
            }
            tokio::select! {
                next = timeout(FLUSH, reads.next()) => match next {
                    Ok(Some((it, fetched))) => self.emit(it, fetched, &mut out, batches).await?,
                    Ok(None) => (),
                    Err(_) => out.flush(batches, &self.metrics).await?,
                },
                heard = heard(&mut self.follow.stream) => {
                    out.flush(batches, &self.metrics).await?;
                    self.take(heard, batches).await?;
                }
            }
        }
        if !out.skipped.is_empty() {
            then = then.map(|it| match it {
                Move::ReachListed { list, listed, .. } => {
                    Move::ReachListed { floor: out.reach, list, listed }
                }
                Move::Reach(_) | Move::Lower(_) => Move::Reach(out.reach),
            });
        }
        if let Some(then) = &then {
            self.seen.go(then);
        }
        out.batch.then = then;
        out.flush(batches, &self.metrics).await?;
        Ok(out.skipped)
    }

    /// Publishes what an event shows.
    pub(super) async fn publish_found(
        &mut self,
        found: Found,
        out: &mut Out,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), PassError> {
        self.report_gaps(&found.gaps, 0);
        self.note_silent(found.silent, out);
        for change in found.changes {
            let it = Fetching::of(&change);
            let (source, metrics) = (&self.scope.source, &self.metrics);
            let fetched = match change.body {
                Some(_) => complete::<R>(change, source),
                None => fetch::<R>(&self.nomad, change, Asked::ByEvent, source, metrics).await,
            };
            self.emit(it, fetched, out, batches).await?;
        }
        Ok(())
    }

    fn note_silent(&mut self, silent: Vec<Mark>, out: &mut Out) {
        silent.iter().for_each(|it| self.seen.note(*it));
        out.batch.silent.extend(silent);
    }

    /// Adds what became of a change to the batch.
    async fn emit(
        &mut self,
        it: Fetching,
        fetched: Fetched,
        out: &mut Out,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), PassError> {
        match fetched {
            Fetched::Record(mut record) => match self.standing(it, &record) {
                Standing::Overtaken => (),
                Standing::Known => {
                    self.note(it.mark);
                    // It stands for a record before it, which must not be in the same batch.
                    if !out.batch.records.is_empty() {
                        out.flush(batches, &self.metrics).await?;
                    }
                    out.batch.silent.push(it.mark);
                }
                Standing::New => {
                    self.note(it.mark);
                    record.below = it.index.before().min(out.reach);
                    out.bytes += record.body.len();
                    out.batch.read.get_or_insert_with(Instant::now);
                    out.batch.records.push(record);
                }
            },
            Fetched::Missing(object) => {
                self.metrics.objects_missing.one();
                self.report_missing(&object);
                out.skip(it);
            }
            Fetched::Bad(bad) => {
                self.report_bad_object(&bad);
                out.skip(it);
            }
        }
        if out.bytes >= BATCH_BYTES {
            out.flush(batches, &self.metrics).await?;
        }
        Ok(())
    }

    /// Whether a record is news by now.
    fn standing(&mut self, it: Fetching, record: &Record) -> Standing {
        let Mark::Object { key, index, hash } = it.mark else { return Standing::New };
        let known = self.seen.known(key);
        // The event stream goes on while objects are read by id.
        if known.is_some_and(|(last, _)| last > index) {
            return Standing::Overtaken;
        }
        let body = (json::name(&record.meta.id), record.meta.index);
        let whole = || match Form::of(hash) {
            Form::Stub => Form::Event.mark(json::hash(&record.body, R::VOLATILE)),
            Form::Listed | Form::Event => hash,
        };
        // A body that was read by id can be newer than what named it: the next list names it
        // again, and the event stream has the states before it yet to come.
        let last = self.bodies.get(&key);
        if last.is_some_and(|it| it.1 > body.1 || *it == body) || self.seen.has(key, whole()) {
            return Standing::Known;
        }
        if it.recheck && Form::of(hash) == Form::Event {
            // Which of the two is later, the next list tells.
            self.follow.want_list_of(index);
            return Standing::Overtaken;
        }
        self.bodies.insert(key, body);
        Standing::New
    }

    fn note(&mut self, mark: Mark) {
        self.seen.note(mark);
        if let Mark::Object { key, index, .. } = mark {
            self.seen.list(key, index);
        }
    }
}

impl Fetching {
    fn of(change: &Change) -> Self {
        Self { index: change.index, mark: change.mark, recheck: change.recheck }
    }
}

/// What a record is, given what was published while its body was read.
enum Standing {
    New,
    /// It says again what the last record of its object said.
    Known,
    /// A later state was published.
    Overtaken,
}

/// Makes a record of a change that has its body.
fn complete<R: Resource>(mut change: Change, source: &Arc<str>) -> Fetched {
    let (id, body) = (change.id.clone(), change.body.take().unwrap_or_default());
    match change.into_record::<R>(body, source) {
        Ok(record) => Fetched::Record(record),
        Err(bad) => Fetched::Bad(BadElement { object: format!("{} {id}", R::NAME), why: bad.why }),
    }
}

/// Makes a record of a change, reading its body, for as long as that takes.
async fn fetch<R: Resource>(
    nomad: &Nomad,
    change: Change,
    asked: Asked,
    source: &Arc<str>,
    metrics: &Metrics,
) -> Fetched {
    let mut trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
    let object = || format!("{} {}", R::NAME, change.id);
    // A server that has not been set back yet would show what is to be no more, and one that lags
    // the first of two commits at an index. Once a server has answered with something else than the
    // object, only the leader is asked.
    let mut fresh = asked == Asked::AfterRegression || change.recheck;
    let mut reads = 0;
    let why = loop {
        let body = R::payload(nomad, &change, fresh);
        let why = match failpoint::around(Point::ReadObject, body).await {
            Ok(Some(body)) => {
                metrics.health.nomad.works();
                // It may come from a server that lags behind the one that showed the change.
                let index = Envelope::read(&body).map(|it| Index(it.modify_index));
                match index {
                    Ok(index) if index >= change.index => {
                        return complete::<R>(Change { body: Some(body), ..change }, source);
                    }
                    Ok(index) => format!("at index {index} it is older than its change"),
                    Err(bad) => bad.why,
                }
            }
            Ok(None) if fresh => {
                let why = "it is listed, and yet there is no such object".to_owned();
                return Fetched::Missing(BadElement { object: object(), why });
            }
            Ok(None) => String::new(),
            Err(err) => {
                metrics.nomad_errors.one();
                let reason = Chain(&err).to_string();
                if err.is_about_object() {
                    if fresh {
                        break reason;
                    }
                    reason
                } else {
                    // Nomad is away: that can last, and says nothing about the object.
                    if asked != Asked::ByEvent {
                        // The end of the list says when it is over.
                        metrics.health.nomad.fails(&reason);
                    }
                    if trouble.is_news(reason.clone()) {
                        tracing::warn!(
                            stream = R::NAME,
                            object = brief(&change.id),
                            error = reason,
                            "cannot read an object from Nomad; it is tried again. Mend what the \
                             error says"
                        );
                    }
                    if asked == Asked::ByEvent && trouble.backoff.attempts() >= MAX_READS {
                        break reason;
                    }
                    trouble.backoff.wait().await;
                    continue;
                }
            }
        };
        (reads, fresh) = (reads + 1, true);
        if reads >= MAX_READS {
            break why;
        }
        trouble.backoff.wait().await;
    };
    Fetched::Bad(BadElement { object: object(), why })
}
