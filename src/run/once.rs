//! `--once`: publishes what exists, as the publisher that it is elected to be, and ends.

use super::{Config, begin, log_over, log_started};
use crate::{
    error::BoxError,
    pipeline::{self, Ended},
    shutdown::Shutdown,
    streams::Resource,
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Everything that exists is published, and the checkpoint is saved.
    Complete,
    /// The same, but for some of it.
    Short {
        /// Records that the sink rejected for good.
        rejected: u64,
        /// Objects that could not be read. The checkpoint is before them.
        unread: usize,
    },
    /// The process was asked to stop before.
    Stopped,
}

/// Competes for the lock, takes up the checkpoint, publishes what exists, saves the checkpoint, and
/// resigns. A term that is lost in the middle is followed by another.
pub async fn once<R: Resource>(config: &Config, stop: &Shutdown) -> Result<Once, BoxError> {
    log_started::<R>(config);
    while let Some(term) = config.leader.elect(stop).await? {
        config.metrics.term_began();
        let mut unread = 0;
        let ended = match begin::<R>(config, &*term, stop).await {
            Err(early) => Ok(early),
            Ok((watcher, cursor)) => {
                let mut watcher = watcher.once();
                let (delivery, every) = (&config.delivery, config.checkpoint);
                let (metrics, term) = (&config.metrics, &*term);
                let ended =
                    pipeline::serve(&mut watcher, cursor, delivery, term, stop, every, metrics);
                let ended = ended.await;
                unread = watcher.unread();
                ended
            }
        };
        config.metrics.term_ended();
        term.resign().await;
        match ended? {
            Ended::Stopped => break,
            Ended::Over => log_over::<R>(),
            Ended::Complete => {
                return Ok(complete::<R>(config.metrics.given_up(), unread));
            }
        }
    }
    tracing::error!(
        stream = R::NAME,
        "asked to stop before everything that exists was published; the next run goes on from the \
         checkpoint"
    );
    Ok(Once::Stopped)
}

fn complete<R: Resource>(rejected: u64, unread: usize) -> Once {
    if rejected == 0 && unread == 0 {
        tracing::info!(stream = R::NAME, "everything that exists is published");
        return Once::Complete;
    }
    tracing::error!(
        stream = R::NAME,
        rejected,
        unread,
        "everything that exists is published but for records that the sink rejected, and objects \
         that cannot be read; each is in the log above. Mend that, and run it again"
    );
    Once::Short { rejected, unread }
}
