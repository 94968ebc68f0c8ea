//! Where a list meets the event stream: what only the list shows is published once the stream has
//! come as far, and counted where the stream should have shown it.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Batch, Reading, Watcher,
    following::Following,
    pass::Pass,
    poll::PassError,
    subscription::{Cut, Heard, heard},
};
use crate::{
    cursor::{Index, Mark},
    dedupe::Verdict,
    streams::{Mode, Resource},
};

/// What only a list shows is held until the stream has passed the list, has shown nothing for so
/// long, or so much time has gone by.
const QUIET: Duration = Duration::from_millis(500);
const HOLD: Duration = Duration::from_secs(5);

/// Changes that a list has shown and the stream has not.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// It has not come so far.
    behind: usize,
    /// It had passed them when the list was asked for.
    silent: usize,
}

impl<R: Resource> Watcher<R> {
    /// Lets the stream come as far as the list, and keeps what then is still new. At a first start
    /// there is nothing to wait for: whatever the stream still has is older than the list.
    pub(super) async fn release(
        &mut self,
        pass: &mut Pass,
        list: Index,
        first: bool,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), PassError> {
        let counts = !first && R::TOPIC.carries();
        if pass.has_news() && counts {
            self.await_stream(list, batches).await?;
        }
        self.judge_again(pass);
        if counts {
            self.count_missed(pass.indexes());
        }
        Ok(())
    }

    /// Keeps what is still new of what a pass has gathered while events came.
    pub(super) fn judge_again(&mut self, pass: &mut Pass) {
        let seen = &self.seen;
        pass.judge(|change| {
            let Mark::Object { key, index, hash } = change.mark else { return true };
            let verdict = seen.object(key, index, || hash);
            change.recheck = matches!(verdict, Verdict::Recheck { .. });
            matches!(verdict, Verdict::New { .. } | Verdict::Recheck { .. })
        });
        self.judge_held(pass);
    }

    /// Finds what is new in the elements that were held.
    pub(super) fn judge_held(&mut self, pass: &mut Pass) {
        for element in pass.take_held() {
            match R::changes(&element, &self.seen, Mode::Usual) {
                Ok(found) => pass.add_held(found),
                Err(bad) => pass.add_bad(bad),
            }
        }
    }

    /// Notes where the stream was, when a list is asked for.
    pub(super) fn note_passed(&mut self) {
        self.follow.passed = self.follow.stream.as_ref().and_then(|it| it.last);
    }

    /// Whether the stream is as far as a list.
    fn has_passed(&self, list: Index) -> bool {
        self.follow.stream.as_ref().is_none_or(|it| it.last >= Some(list))
    }

    /// Lets the stream come as far as the list, so that of what it still has the states in between
    /// are published first. It may never do so, since it shows changes of its topic only.
    async fn await_stream(
        &mut self,
        list: Index,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), PassError> {
        let limit = Instant::now() + HOLD;
        let mut quiet = Instant::now() + QUIET;
        while !self.has_passed(list) {
            tokio::select! {
                heard = heard(&mut self.follow.stream) => {
                    if let Ok(Heard::Commit(_)) = heard {
                        quiet = Instant::now() + QUIET;
                    }
                    self.take(heard, batches).await?;
                }
                () = sleep_until(limit.min(quiet)) => break,
            }
        }
        Ok(())
    }

    /// Counts what only the list has shown, by the index of each change.
    fn count_missed(&mut self, changes: impl Iterator<Item = Index>) {
        let Following { stream, resumed, passed, missed, .. } = &mut self.follow;
        let Some(stream) = stream else { return };
        for index in changes {
            if stream.last.is_none_or(|it| index > it) {
                missed.behind += 1;
            }
            let (passed, first) = (passed.unwrap_or_default(), stream.first);
            if index < passed && (stream.joined || first.is_some_and(|it| index >= it)) {
                missed.silent += 1;
                self.metrics.missed_in_stream.one();
            } else if resumed.is_some_and(|it| index > it && first.is_none_or(|it| index < it)) {
                self.metrics.missed_between_streams.one();
            }
        }
    }

    /// Ends a subscription of which a list has shown that it is not to be relied on. A list that
    /// was larger than one pass has not been joined yet.
    pub(super) fn check_stream(&mut self) {
        if self.reading == Reading::Again {
            return;
        }
        let Missed { behind, silent } = std::mem::take(&mut self.follow.missed);
        if silent > 0 {
            tracing::warn!(
                stream = R::NAME,
                changes = silent,
                "a list has shown changes that the event stream had passed over without showing \
                 them; they are published. Nomad has no events for some changes, such as the tag \
                 of a job's version; if there were none of those, look at its servers"
            );
        }
        let Some(stream) = &mut self.follow.stream else { return };
        if stream.first.is_some() {
            self.follow.barren = 0;
        } else if stream.joined && behind > 0 {
            self.follow.barren += 1;
        }
        // Another server may do better; one that the first list finds behind was asked just now.
        match std::mem::replace(&mut stream.joined, true) {
            true if silent > 0 => self.end(Cut::Incomplete),
            true if behind > 0 => self.end(Cut::Behind),
            _ => (),
        }
    }
}
