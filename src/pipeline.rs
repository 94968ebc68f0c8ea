//! One term as the publisher: read ahead, publish, then move the checkpoint.
//!
//! The invariant of the whole program is here: a checkpoint is saved only after the sink has every
//! record up to it for good, and only by the process whose term it is.

use std::{
    future::{Future, pending},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    backoff::Backoff,
    cursor::{Cursor, Since},
    deliver::{Delivery, Fatal, Outbox},
    error::Chain,
    failpoint::{self, Point},
    leader::{LeaderError, Term},
    metrics::Metrics,
    shutdown::Shutdown,
    streams::Resource,
    watch::{Batch, Watcher},
};

/// Batches between reading and publishing, beside the one being read and the one being published.
const QUEUED_BATCHES: usize = 2;
/// A crash repeats no more records than this.
const MAX_UNSAVED: usize = 10_000;
/// A checkpoint is saved this long after the last record, when no more come.
const IDLE: Duration = Duration::from_secs(1);

/// Why a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The process was asked to stop.
    Stopped,
    /// Another process may be the publisher now.
    Over,
    /// What was to be read is published, and the position saved. Only a watcher that reads once
    /// comes to its end.
    Complete,
}

/// Publishes what `watcher` finds until it has read all that it is to read, the term is over, or
/// the process is asked to stop.
/// `every` is the longest time between a confirmed record and its checkpoint.
pub async fn serve<R: Resource>(
    watcher: &mut Watcher<R>,
    cursor: Cursor,
    delivery: &Delivery,
    term: &dyn Term,
    stop: &Shutdown,
    every: Duration,
    metrics: &Metrics,
) -> Result<Ended, Fatal> {
    let (tx, rx) = mpsc::channel(QUEUED_BATCHES);
    let checkpoint = Checkpoint::new(cursor, term, every, metrics);
    let read = async {
        watcher.run(tx).await;
        // What was read has yet to be published.
        pending().await
    };
    tokio::select! {
        biased;
        // Whatever is being published may be published again by the next term.
        () = term.over() => Ok(Ended::Over),
        ended = publish(rx, delivery, checkpoint, stop) => ended,
        ended = read => Ok(ended),
    }
}

async fn publish(
    mut rx: mpsc::Receiver<Batch>,
    delivery: &Delivery,
    mut checkpoint: Checkpoint<'_>,
    stop: &Shutdown,
) -> Result<Ended, Fatal> {
    let mut outbox = Outbox::new(delivery);
    let mut reading = true;
    checkpoint.show();
    let ended = loop {
        if !reading && outbox.is_empty() {
            break Ended::Complete;
        }
        let due = checkpoint.due();
        let next = outbox.next_at();
        tokio::select! {
            biased;
            () = stop.requested() => break Ended::Stopped,
            () = reached(due), if due.is_some() => {
                match meanwhile(&mut outbox, checkpoint.save()).await {
                    Ok(()) | Err(LeaderError::Unavailable { .. }) => (),
                    Err(LeaderError::Over) => return Ok(Ended::Over),
                }
            }
            done = outbox.done(), if outbox.calling() > 0 => {
                let count = done.count();
                let settled = outbox.settle(done, &mut checkpoint.cursor).await;
                checkpoint.note(count);
                if let Err(err) = settled {
                    // What is confirmed stays confirmed, whatever became of the rest.
                    let _ = outbox.finish(&mut checkpoint.cursor).await;
                    checkpoint.note(0);
                    checkpoint.save_last().await;
                    return Err(err);
                }
            }
            batch = rx.recv(), if reading && outbox.has_room() => match batch {
                Some(Batch { records, silent, then, read }) => {
                    failpoint::reach(Point::TakeBatch).await;
                    let records = if delivery.filters() {
                        tokio::select! {
                            biased;
                            () = stop.requested() => break Ended::Stopped,
                            records = meanwhile(&mut outbox, delivery.sift(records)) => records,
                        }
                    } else {
                        records.into()
                    };
                    outbox.read_at(read);
                    outbox.add(silent, records, then, &mut checkpoint.cursor);
                    checkpoint.note(0);
                }
                None => reading = false,
            },
            () = reached(next), if next.is_some() => {
                match call(&mut outbox, &mut checkpoint, stop).await {
                    None => (),
                    Some(Ended::Over) => return Ok(Ended::Over),
                    Some(ended) => break ended,
                }
            }
        }
    };
    let finished = outbox.finish(&mut checkpoint.cursor).await;
    checkpoint.note(0);
    if ended == Ended::Complete {
        finished?;
        return Ok(checkpoint.save_whole(stop).await);
    }
    checkpoint.save_last().await;
    finished.map(|()| ended)
}

/// Waits until an instant. A timer would take a millisecond also for one that is past.
async fn reached(at: Option<Instant>) {
    if let Some(at) = at.filter(|it| *it > Instant::now()) {
        sleep_until(at).await;
    }
}

/// Waits for something while calls to the sink go on.
async fn meanwhile<T>(outbox: &mut Outbox<'_>, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = outbox.go_on() => match never {},
    }
}

/// Makes one call to the sink; `Some` where the term or the process is to end.
async fn call(
    outbox: &mut Outbox<'_>,
    checkpoint: &mut Checkpoint<'_>,
    stop: &Shutdown,
) -> Option<Ended> {
    let call = outbox.next_call()?;
    if let Some(ended) = checkpoint.make_room(outbox, stop).await {
        return Some(ended);
    }
    failpoint::reach(Point::Call).await;
    if !checkpoint.term.holds() {
        return Some(Ended::Over);
    }
    outbox.start(call);
    None
}

/// What is durable, and how much of it is saved.
struct Checkpoint<'a> {
    cursor: Cursor,
    term: &'a dyn Term,
    every: Duration,
    metrics: &'a Metrics,
    /// How often the cursor had moved when it was last looked at.
    moves: u64,
    /// Records since the last save.
    unsaved: usize,
    /// When the first of what is unsaved came.
    since: Option<Instant>,
    /// When the last record came.
    last: Option<Instant>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Whether it was said that there are more tails than can be kept.
    said_full: bool,
}

impl<'a> Checkpoint<'a> {
    fn new(cursor: Cursor, term: &'a dyn Term, every: Duration, metrics: &'a Metrics) -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let moves = cursor.moves();
        Self {
            cursor,
            term,
            every,
            metrics,
            moves,
            unsaved: 0,
            since: None,
            last: None,
            backoff,
            not_before: None,
            said_full: false,
        }
    }

    /// So many more records are published, or were tried: is there more to save?
    fn note(&mut self, records: usize) {
        let moves = self.cursor.moves();
        if moves != self.moves {
            self.moves = moves;
            self.unsaved += records;
            let now = Instant::now();
            self.since.get_or_insert(now);
            if records > 0 {
                self.last = Some(now);
            }
            self.note_dropped();
            self.show();
        }
    }

    /// What is to be seen of it from outside.
    fn show(&self) {
        self.metrics.cursor_index.set(self.cursor.floor().0);
        self.metrics.unsaved_records.set(self.unsaved as u64);
    }

    /// Tails may have been dropped.
    fn note_dropped(&mut self) {
        let dropped = self.cursor.take_dropped();
        self.metrics.tails_dropped.add(dropped);
        if dropped > 0 && !std::mem::replace(&mut self.said_full, true) {
            tracing::warn!(
                tails = self.cursor.tails(),
                "there are more tasks than positions can be kept of; those of allocations that \
                 have ended go first, then the oldest. If such an allocation changes, its task \
                 events are published again. Let Nomad collect garbage more often"
            );
        }
    }

    /// When the next save is due.
    fn due(&self) -> Option<Instant> {
        // Whoever starts from now has no position before the first list is through.
        let first = self.since.filter(|_| self.cursor.since() != Since::Now)?;
        let due = self.last.map_or(first + self.every, |last| last + IDLE);
        let due = std::cmp::min(first + self.every, due);
        Some(self.not_before.map_or(due, |it| it.max(due)))
    }

    async fn save(&mut self) -> Result<(), LeaderError> {
        failpoint::reach(Point::Save).await;
        match self.term.save(&mut self.cursor).await {
            Ok(()) => {
                failpoint::reach(Point::Saved).await;
                self.metrics.checkpoints_saved.one();
                self.metrics.health.checkpoint.works();
                self.metrics.last_checkpoint.now();
                self.metrics.unsaved_records.set(0);
                if self.backoff.attempts() > 0 {
                    tracing::info!("the checkpoint is saved again");
                }
                self.unsaved = 0;
                self.since = None;
                self.last = None;
                self.not_before = None;
                self.backoff.reset();
                Ok(())
            }
            Err(err) => {
                self.metrics.checkpoint_errors.one();
                if let LeaderError::Unavailable { .. } = err {
                    self.metrics.health.checkpoint.fails(&Chain(&err).to_string());
                    if self.backoff.attempts() == 0 {
                        tracing::error!(
                            error = %Chain(&err),
                            records = MAX_UNSAVED,
                            "the checkpoint could not be saved and is tried again; after a crash, \
                             so many records at most would be published again. Mend what the error \
                             says"
                        );
                    }
                    self.not_before = Some(Instant::now() + self.backoff.next_wait());
                }
                Err(err)
            }
        }
    }

    /// Saves what is unsaved before the records in calls would make it too much.
    async fn make_room(&mut self, outbox: &mut Outbox<'_>, stop: &Shutdown) -> Option<Ended> {
        let records = outbox.calling();
        let overdue = |due: Option<Instant>| due.is_some_and(|due| due <= Instant::now());
        let full = self.unsaved > 0 && self.unsaved + records > MAX_UNSAVED;
        if !full && !overdue(self.due()) {
            return None;
        }
        loop {
            match meanwhile(outbox, self.save()).await {
                Ok(()) => return None,
                Err(LeaderError::Over) => return Some(Ended::Over),
                Err(LeaderError::Unavailable { .. }) if !full => return None,
                Err(LeaderError::Unavailable { .. }) => (),
            }
            let wait = self.not_before.unwrap_or_else(Instant::now);
            tokio::select! {
                () = stop.requested() => return Some(Ended::Stopped),
                () = meanwhile(outbox, sleep_until(wait)) => (),
            }
        }
    }

    /// The save after all that was to be read: nobody saves it later, so it is tried until it is
    /// done.
    async fn save_whole(&mut self, stop: &Shutdown) -> Ended {
        while self.due().is_some() {
            match self.save().await {
                Ok(()) => break,
                Err(LeaderError::Over) => return Ended::Over,
                Err(LeaderError::Unavailable { .. }) => (),
            }
            let wait = self.not_before.unwrap_or_else(Instant::now);
            tokio::select! {
                () = stop.requested() => return Ended::Stopped,
                () = sleep_until(wait) => (),
            }
        }
        Ended::Complete
    }

    /// The save at the end of a term: once, for whoever comes next reads the rest again.
    async fn save_last(&mut self) {
        failpoint::reach(Point::SaveLast).await;
        if self.due().is_some() && self.save().await.is_err() {
            tracing::warn!(
                records = self.unsaved,
                "the last checkpoint of the term could not be saved; these records will be \
                 published again. The lines before say why"
            );
        }
    }
}
