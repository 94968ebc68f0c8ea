//! From changes to records: what the list does not have is read by id.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    BATCH_BYTES, Batch, GREATEST_WAIT, LEAST_WAIT, Watcher,
    pass::Pass,
    poll::{PassError, send},
};
use crate::{
    api::Nomad,
    backoff::Trouble,
    cursor::{Index, Mark, Move},
    error::Chain,
    metrics::Metrics,
    record::Record,
    streams::{BadElement, Change, Envelope, Resource},
};

/// Reads by id under way at once. All watchers behind one address share the 100 connections that
/// Nomad allows it.
const CONCURRENT_READS: usize = 8;
/// A body that is older than its change, or that cannot be read, is read so many times.
const MAX_READS: u32 = 4;

/// What became of a change.
enum Fetched {
    Record(Box<Record>),
    /// The object is gone, and with it what there was to publish.
    Gone(Mark),
    /// Its body cannot be read; it is tried again with the next list.
    Bad(BadElement),
}

impl<R: Resource> Watcher<R> {
    /// Publishes the changes of a pass in order, and then moves the floor. Everything below
    /// `reach` is known once they are durable. Returns whether a change had to be left out, in
    /// which case the floor stays below it.
    pub(super) async fn publish(
        &mut self,
        pass: &mut Pass,
        mut reach: Index,
        mut then: Option<Move>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<bool, PassError> {
        let (nomad, source, metrics) =
            (self.nomad.clone(), self.scope.source.clone(), self.metrics.clone());
        let fetch = |change: Change| {
            let (nomad, source, metrics) = (&nomad, &source, &metrics);
            async move {
                let index = change.index;
                let mark = change.mark;
                (index, mark, fetch::<R>(nomad, change, source, metrics).await)
            }
        };
        let mut fetched = stream::iter(pass.take().map(fetch)).buffered(CONCURRENT_READS);
        let mut batch = Batch { silent: std::mem::take(&mut pass.silent), ..Batch::default() };
        for mark in &batch.silent {
            self.seen.note(*mark);
        }
        let mut bytes = 0;
        let mut skipped = false;
        while let Some((index, mark, fetched)) = fetched.next().await {
            match fetched {
                Fetched::Record(mut record) => {
                    self.note(mark);
                    record.below = index.before().min(reach);
                    bytes += record.body.len();
                    batch.records.push(*record);
                }
                Fetched::Gone(mark) => {
                    self.metrics.objects_gone.one();
                    self.note(mark);
                }
                Fetched::Bad(bad) => {
                    self.metrics.bad_elements.one();
                    tracing::error!(
                        error = %bad,
                        "an object that Nomad answered with cannot be read; it is tried again, \
                         and the checkpoint does not pass it"
                    );
                    reach = reach.min(index.before());
                    skipped = true;
                }
            }
            if bytes >= BATCH_BYTES {
                send(batches, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if skipped {
            then = Some(Move::Reach(reach));
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

    fn note(&mut self, mark: Mark) {
        self.seen.note(mark);
        if let Mark::Object { key, index, .. } = mark {
            self.seen.list(key, index);
        }
    }
}

/// Makes a record of a change, reading its body where the list did not have it, for as long as
/// that takes.
async fn fetch<R: Resource>(
    nomad: &Nomad,
    change: Change,
    source: &Arc<str>,
    metrics: &Metrics,
) -> Fetched {
    let mut trouble = Trouble::new(LEAST_WAIT, GREATEST_WAIT);
    let mut reads = 0;
    loop {
        reads += 1;
        let body = match R::payload(nomad, &change, reads > 1).await {
            Ok(Some(body)) => body,
            Ok(None) => return Fetched::Gone(change.mark),
            Err(err) => {
                metrics.nomad_errors.one();
                reads = 0;
                let reason = Chain(&err).to_string();
                if trouble.is_news(reason.clone()) {
                    tracing::warn!(
                        stream = R::NAME,
                        object = change.id,
                        error = reason,
                        "cannot read an object from Nomad; it is tried again, and nothing is lost"
                    );
                }
                trouble.backoff.wait().await;
                continue;
            }
        };
        // What the list had is as old as the list; a body by id may come from a server that lags
        // behind the one that showed the change.
        if change.body.is_none() && reads < MAX_READS {
            let index = Envelope::read(&body).map(|it| Index(it.modify_index));
            if !index.is_ok_and(|it| it >= change.index) {
                trouble.backoff.wait().await;
                continue;
            }
        }
        let object = format!("{} {}", R::NAME, change.id);
        return match change.into_record::<R>(body, source) {
            Ok(record) => Fetched::Record(Box::new(record)),
            Err(bad) => Fetched::Bad(BadElement { object, why: bad.why }),
        };
    }
}
