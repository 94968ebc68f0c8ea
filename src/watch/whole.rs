//! What exists, and nothing more: lists, until one was read to its end. The event stream has no
//! part in it, since it shows what happens.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};

use super::{Batch, Reading, Watcher, poll};
use crate::streams::Resource;

/// Something that cannot be read, or is listed and not found, is looked for in so many lists; most
/// of it was only just deleted. So long is between two of them.
const MOST_LISTS: u32 = 4;
const BETWEEN_LISTS: Duration = Duration::from_secs(5);

impl<R: Resource> Watcher<R> {
    /// Reads one whole list, and then ends; see [`Watcher::unread`].
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// How many objects of the last list could not be read. The position stays before them.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// Reads lists until one was read to its end; returns then, or once nobody takes batches.
    /// While Nomad cannot be read, it is tried again for ever.
    pub(super) async fn run_once(&mut self, batches: mpsc::Sender<Batch>) {
        let mut lists = 0;
        self.metrics.polling.set(1);
        loop {
            self.unread = 0;
            if self.poll(&batches).await.is_err() {
                return;
            }
            match self.reading {
                Reading::Waiting => return,
                // A list that failed has been waited for.
                Reading::Probing | Reading::Again => (),
                Reading::Confirming => sleep(poll::LEAST_INTERVAL).await,
                Reading::Doubting | Reading::Regressed => {
                    lists += u32::from(self.unread > 0);
                    if lists >= MOST_LISTS {
                        return;
                    }
                    if self.reading == Reading::Doubting {
                        sleep(BETWEEN_LISTS).await;
                    }
                }
            }
        }
    }
}
