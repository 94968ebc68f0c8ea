//! From changes to records: what the list does not have is read by id.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::{sync::mpsc, time::timeout};

use super::{
    BATCH_BYTES, Batch, GREATEST_WAIT, LEAST_WAIT, Reading, Watcher,
    pass::Pass,
    poll::{PassError, send},
};
use crate::{
    api::Nomad,
    backoff::Trouble,
    cursor::{Index, Mark, Move},
    error::Chain,
    metrics::Metrics,
    record::{Record, json},
    streams::{BadElement, Change, Envelope, Resource},
};

/// Reads by id under way at once. All watchers behind one address share the 100 connections that
/// Nomad allows it.
const CONCURRENT_READS: usize = 8;
/// A body that is older than its change, refused, or unreadable is asked for so many times.
const MAX_READS: u32 = 4;

/// A batch waits so long for the next record, when that is slow to come.
const FLUSH: Duration = Duration::from_millis(100);

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

impl<R: Resource> Watcher<R> {
    /// Publishes the changes of a pass in order, and then moves the floor. Everything below
    /// `reach` is known once they are durable. Returns the changes that had to be
    /// left out; the floor stays below them.
    pub(super) async fn publish(
        &mut self,
        pass: &mut Pass,
        mut reach: Index,
        mut then: Option<Move>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Vec<Mark>, PassError> {
        self.report_gaps(pass);
        // A server that has not been set back yet would show what is to be no more.
        let fresh = self.reading == Reading::Regressed;
        let (nomad, source, metrics) =
            (self.nomad.clone(), self.scope.source.clone(), self.metrics.clone());
        let fetch = |change: Change| {
            let (nomad, source, metrics) = (&nomad, &source, &metrics);
            async move {
                let index = change.index;
                let mark = change.mark;
                (index, mark, fetch::<R>(nomad, change, fresh, source, metrics).await)
            }
        };
        let mut batch = Batch { silent: std::mem::take(&mut pass.silent), ..Batch::default() };
        batch.records.reserve(pass.changes());
        let mut changes = pass.take().peekable();
        let mut reads = FuturesOrdered::new();
        for mark in &batch.silent {
            self.seen.note(*mark);
        }
        let mut bytes = 0;
        let mut skipped = Vec::new();
        loop {
            while reads.len() < CONCURRENT_READS
                && let Some(change) = changes.next_if(|it| it.body.is_none())
            {
                reads.push_back(fetch(change));
            }
            let next = if reads.is_empty() {
                changes.next().map(|mut change| {
                    let (index, mark) = (change.index, change.mark);
                    let body = change.body.take().unwrap_or_default();
                    (index, mark, complete::<R>(change, body, &source))
                })
            } else if let Ok(next) = timeout(FLUSH, reads.next()).await {
                next
            } else {
                if !batch.records.is_empty() {
                    send(batches, std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
                continue;
            };
            let Some((index, mark, fetched)) = next else { break };
            match fetched {
                Fetched::Record(mut record) => {
                    self.note(mark);
                    if self.remember(mark, &record) {
                        batch.silent.push(mark);
                    } else {
                        record.below = index.before().min(reach);
                        bytes += record.body.len();
                        batch.records.push(record);
                    }
                }
                Fetched::Missing(object) => {
                    self.metrics.objects_missing.one();
                    self.report_missing(&object);
                    reach = reach.min(index.before());
                    skipped.push(mark);
                }
                Fetched::Bad(bad) => {
                    self.report_bad_object(&bad);
                    reach = reach.min(index.before());
                    skipped.push(mark);
                }
            }
            if bytes >= BATCH_BYTES {
                send(batches, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if !skipped.is_empty() {
            then = then.map(|it| match it {
                Move::ReachListed(_, listed) => Move::ReachListed(reach, listed),
                Move::Reach(_) | Move::Lower(_) => Move::Reach(reach),
            });
        }
        if let Some(then) = &then {
            self.seen.go(then);
        }
        batch.then = then;
        if !batch.records.is_empty() || !batch.silent.is_empty() || batch.then.is_some() {
            send(batches, batch).await?;
        }
        Ok(skipped)
    }

    /// Remembers the record; whether it says again what the last one of its object said. A body that was read by
    /// id can be newer than the list that named it, and the next list names it again. The record
    /// before is in an earlier pass, so that it is durable before this batch begins.
    fn remember(&mut self, mark: Mark, record: &Record) -> bool {
        let Mark::Object { key, .. } = mark else { return false };
        let id = json::name(&record.meta.id);
        self.bodies.insert(key, id) == Some(id)
    }

    fn note(&mut self, mark: Mark) {
        self.seen.note(mark);
        if let Mark::Object { key, index, .. } = mark {
            self.seen.list(key, index);
        }
    }
}

/// Makes a record of a change and its body.
fn complete<R: Resource>(change: Change, body: Bytes, source: &Arc<str>) -> Fetched {
    let id = change.id.clone();
    match change.into_record::<R>(body, source) {
        Ok(record) => Fetched::Record(record),
        Err(bad) => Fetched::Bad(BadElement { object: format!("{} {id}", R::NAME), why: bad.why }),
    }
}

/// Makes a record of a change, reading its body, for as long as that takes.
async fn fetch<R: Resource>(
    nomad: &Nomad,
    change: Change,
    mut fresh: bool,
    source: &Arc<str>,
    metrics: &Metrics,
) -> Fetched {
    let mut trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
    let object = || format!("{} {}", R::NAME, change.id);
    // Once a server has answered with something else than the object, only the leader is asked.
    let mut reads = 0;
    let why = loop {
        let why = match R::payload(nomad, &change, fresh).await {
            Ok(Some(body)) => {
                // It may come from a server that lags behind the one that showed the change.
                let index = Envelope::read(&body).map(|it| Index(it.modify_index));
                match index {
                    Ok(index) if index >= change.index => {
                        return complete::<R>(change, body, source);
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
                    if trouble.is_news(reason.clone()) {
                        tracing::warn!(
                            stream = R::NAME,
                            object = &*change.id,
                            error = reason,
                            "cannot read an object from Nomad; it is tried again"
                        );
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
