//! What a line of the event stream shows, and what becomes of it.

use std::{future::Future, time::Duration};

use tokio::sync::mpsc;

use super::{
    Batch, EARLY_LIST, Watcher,
    fetch::Out,
    lines::{Commit, is_of_1_0},
    poll::PassError,
    subscription::{Cut, Heard, heard},
};
use crate::{
    cursor::Index,
    error::without_values,
    streams::{Mode, Resource, Topic},
};

/// A subscription that lasted so long ends the trouble that was before it.
const LASTING: Duration = Duration::from_secs(60);

impl<R: Resource> Watcher<R> {
    /// Waits for something, while what the stream shows is published.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<T, PassError> {
        let mut work = std::pin::pin!(work);
        loop {
            let has_room = self.follow.has_room();
            tokio::select! {
                done = &mut work => return Ok(done),
                heard = heard(&mut self.follow.stream), if has_room => self.take(heard, batches).await?,
            }
        }
    }

    /// Publishes what a line of the stream shows. Where the stream has ended, it is noted why.
    pub(super) async fn take(
        &mut self,
        heard: Result<Heard, Cut>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), PassError> {
        self.note_lasting();
        let line = match heard {
            Ok(Heard::Heartbeat) => return Ok(()),
            Ok(Heard::Commit(line)) => line,
            Ok(Heard::TooLong(bytes)) => {
                self.take_bad(format!("a line of it has {bytes} bytes"));
                return Ok(());
            }
            Err(cut) => {
                self.end(cut);
                return Ok(());
            }
        };
        let commit = match Commit::read(&line) {
            Ok(commit) => commit,
            Err(err) => {
                self.take_bad(without_values(&err));
                return Ok(());
            }
        };
        let mut out = Out::new(Index::default());
        for object in commit.objects(R::TOPIC) {
            let Some(object) = object else {
                self.take_bad("an event of it has no object".to_owned());
                continue;
            };
            if !self.follow.version_known && self.seems_refused(object) {
                return Ok(());
            }
            let found = match R::changes(object, &self.seen, Mode::Event) {
                Ok(found) => found,
                Err(bad) => {
                    self.take_bad(bad.to_string());
                    continue;
                }
            };
            if let Topic::Announces(_) = R::TOPIC {
                if !found.changes.is_empty() {
                    self.follow.want_list_of(found.index);
                }
                continue;
            }
            self.follow.note_shown(found.changes.len(), R::KIND);
            self.publish_found(found, &mut out, batches).await?;
        }
        if !out.skipped.is_empty() {
            // Whether it is gone, or where it can be read, the list tells.
            self.follow.list_after(EARLY_LIST);
        }
        out.flush(batches, &self.metrics).await?;
        let index = commit.index();
        self.metrics.nomad_index.set(index.0);
        self.seen.hear(index);
        self.follow.last = self.follow.last.max(Some(index));
        if let Some(stream) = &mut self.follow.stream {
            stream.first.get_or_insert(index);
            stream.last = stream.last.max(Some(index));
        }
        Ok(())
    }

    /// A subscription that lasts ends the trouble that was before it.
    fn note_lasting(&mut self) {
        if self.follow.stream.as_ref().is_some_and(|it| it.age() >= LASTING)
            && let Some((after, attempts)) = self.follow.trouble.over()
        {
            tracing::info!(stream = R::NAME, ?after, attempts, "the event stream is there again");
        }
    }

    /// Where the version could not be asked for: whether an object shows that it is 1.0, and the
    /// subscription is ended for it.
    fn seems_refused(&mut self, object: &[u8]) -> bool {
        self.follow.version_known = true;
        let refused = is_of_1_0(R::TOPIC, object).then(|| self.refuse_version());
        if let Some(Err(cut)) = refused {
            self.follow.version_known = false;
            self.end(cut);
            return true;
        }
        false
    }

    /// An event cannot be read; what it is about is in the list.
    fn take_bad(&mut self, why: String) {
        self.report_bad_event(why);
        self.follow.list_after(EARLY_LIST);
    }

    /// Ends the subscription, and notes why for whoever follows it.
    pub(super) fn end(&mut self, cut: Cut) {
        self.leave();
        self.follow.cut = Some(cut);
    }

    /// Leaves the subscription, where there is one.
    pub(super) fn leave(&mut self) {
        if let Some(last) = self.follow.stream.take().and_then(|it| it.last) {
            self.seen.cut(last);
        }
    }
}
