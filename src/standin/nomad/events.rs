//! The event stream: what is published, and how it goes wrong.

mod batch;
mod buffer;
mod payload;
mod stream;
#[cfg(test)]
mod tests;
mod wanted;

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::body::Bytes;
use tokio::sync::watch;

use self::{batch::Batch, buffer::Buffer};
use super::{
    Nomad, Table, lock,
    state::{Object, State, Written},
};

/// Where the stream is.
pub(super) const PATH: &str = "/v1/event/stream";

/// The broker of a server, and those who wait for it.
pub(super) struct Events {
    broker: Mutex<Broker>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Broker {
    buffer: Buffer,
    /// Batches that a server which is cut off does not get.
    held: Option<Vec<Arc<Batch>>>,
    /// How many batches are still to be lost.
    skip: usize,
    /// Grows when all subscriptions end, and how they end.
    closed: (u64, Closing),
    /// What is written into the streams, each before the batch with this position.
    texts: Vec<(u64, Bytes)>,
    disabled: bool,
    stalled: bool,
    /// The newest index that streams see which are opened now.
    follower: Option<u64>,
    /// What is sent instead of events.
    recorded: Option<Bytes>,
    /// The size of the pieces that streams come in.
    split: Option<usize>,
}

/// How subscriptions end.
#[derive(Clone, Copy, Default)]
enum Closing {
    /// The server says so.
    #[default]
    Told,
    /// The server is gone.
    Cut,
}

impl Default for Events {
    fn default() -> Self {
        Self { broker: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Events {
    /// Lets every stream look again.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    fn broker(&self) -> MutexGuard<'_, Broker> {
        lock(&self.broker)
    }

    fn change(&self, change: impl FnOnce(&mut Broker)) {
        change(&mut self.broker());
        self.wake();
    }
}

impl Broker {
    fn publish(&mut self, batch: Arc<Batch>) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if let Some(held) = &mut self.held {
            held.push(batch);
        } else {
            self.buffer.push(batch);
        }
    }

    fn close(&mut self, how: Closing) {
        self.closed = (self.closed.0 + 1, how);
    }
}

impl Nomad {
    pub(super) fn publish(&self, state: &State, index: u64, written: &[Written]) {
        self.publish_all(Batch::of_write(self.0.version, state, index, written));
    }

    pub(super) fn publish_removal(&self, index: u64, table: Table, last: Option<Arc<Object>>) {
        self.publish_all(
            last.and_then(|last| Batch::of_removal(self.0.version, index, table, last)),
        );
    }

    pub(super) fn publish_touch(&self, state: &State, index: u64, table: Table) {
        self.publish_all(Batch::of_touch(state, index, table));
    }

    /// Replaces the broker, as restoring a state does: nothing is left of what was published.
    pub(super) fn forget_events(&self) {
        self.0.events.change(|broker| {
            broker.buffer.clear();
            broker.close(Closing::Told);
        });
    }

    fn publish_all(&self, batches: impl IntoIterator<Item = Batch>) {
        self.0.events.change(|broker| {
            batches.into_iter().for_each(|batch| broker.publish(Arc::new(batch)));
        });
    }
}

/// What can go wrong with the event stream.
impl Nomad {
    /// Keeps this many batches, at first 100; a stream that is not read ends when the batch it waits for is dropped.
    pub fn set_event_buffer(&self, batches: usize) {
        self.0.events.change(|broker| broker.buffer.resize(batches));
    }

    /// Runs without a broker, as a server that was configured so: streams end, and none is served any more.
    pub fn disable_events(&self) {
        self.0.events.change(|broker| {
            broker.disabled = true;
            broker.close(Closing::Cut);
        });
    }

    /// Restarts the server: streams are cut, the buffer is empty, and the last batches are published again as they were.
    pub fn restart_broker(&self, replayed: usize) {
        self.0.events.change(|broker| {
            broker.held = broker.held.take().map(|_| Vec::new());
            let mut old = broker.buffer.clear();
            let known = old.len().saturating_sub(replayed);
            old.drain(..known);
            old.into_iter().for_each(|batch| broker.buffer.push(batch));
            broker.close(Closing::Cut);
        });
    }

    /// Ends every stream, as a server does that restores a snapshot; what was published stays.
    pub fn close_subscriptions(&self) {
        self.0.events.change(|broker| broker.close(Closing::Told));
    }

    /// Loses the next batches without a trace.
    pub fn skip_events(&self, batches: usize) {
        self.0.events.change(|broker| broker.skip = batches);
    }

    /// While true, streams have heartbeats only, as of a server that is cut off from the others; it catches up later.
    pub fn mute_events(&self, on: bool) {
        self.0.events.change(|broker| {
            if on {
                broker.held.get_or_insert_default();
            } else {
                let held = mem::take(&mut broker.held).unwrap_or_default();
                held.into_iter().for_each(|batch| broker.buffer.push(batch));
            }
        });
    }

    /// While true, streams are silent, without heartbeats, as on a connection that is dead.
    pub fn stall_events(&self, on: bool) {
        self.0.events.change(|broker| broker.stalled = on);
    }

    /// Writes this into every open stream as it is, without a line break.
    pub fn send_event_text(&self, text: impl Into<Bytes>) {
        let text = text.into();
        self.0.events.change(|broker| {
            let position = broker.buffer.end();
            broker.texts.push((position, text));
        });
    }

    /// Publishes the last batch of this index once more, if it is still in the buffer. Earlier ones of the index are not: no
    /// server shows commits in another order than they were made.
    pub fn repeat_event(&self, index: u64) {
        self.0.events.change(|broker| {
            let again =
                broker.buffer.batches().filter(|batch| batch.index == index).last().cloned();
            again.into_iter().for_each(|batch| broker.publish(batch));
        });
    }

    /// Sends these bytes to every stream that is opened from now on, and then nothing but heartbeats; `None` ends that.
    pub fn serve_stream(&self, recorded: impl Into<Option<Bytes>>) {
        self.0.events.change(|broker| broker.recorded = recorded.into());
    }

    /// Cuts streams into pieces of this many bytes, joining lines that are there at once; 0 sends lines as they come.
    pub fn split_events(&self, bytes: usize) {
        self.0.events.change(|broker| broker.split = Some(bytes).filter(|bytes| *bytes > 0));
    }

    /// Lets streams that are opened from now on come from a server that has seen nothing beyond this index, until that is
    /// taken back with `None`; then they catch up.
    pub fn follow_events(&self, newest: Option<u64>) {
        self.0.events.change(|broker| broker.follower = newest);
    }

    /// How many streams are open.
    pub fn subscribers(&self) -> usize {
        self.0.events.changed.receiver_count()
    }
}
