//! What a pass says of what it could not read: each thing once, and no more than a few lines.

use super::{Watcher, pass::Pass, poll::PassError};
use crate::{
    error::{Chain, brief},
    streams::{BadElement, Gap, Resource},
};

/// So many tasks with gaps are named for each list; the others are only counted.
const NAMED_GAPS: usize = 5;
/// So many troubles are remembered as said; any more are only counted.
const REMEMBERED: usize = 1_000;
const EMPTY: &str = "empty list";
const EVENT: &str = "event";

impl<R: Resource> Watcher<R> {
    /// Reports elements of a list that cannot be read; whether there are any.
    pub(super) fn report_bad(&mut self, pass: &Pass) -> bool {
        let (count, named) = pass.bad();
        for bad in named {
            self.report_bad_object(bad);
        }
        // Those that are named are counted where they are.
        self.metrics.bad_elements.add(count - named.len());
        count > 0
    }

    /// Reports an object that cannot be read.
    pub(super) fn report_bad_object(&mut self, bad: &BadElement) {
        self.metrics.bad_elements.one();
        if self.is_first(bad.to_string()) {
            tracing::error!(
                stream = R::NAME,
                error = %bad,
                "an object cannot be read from Nomad; it is tried again with every list, the \
                 others go on, and the checkpoint does not pass it. Look at it with Nomad's own \
                 tools, and at what is between this process and Nomad"
            );
        }
    }

    /// Reports an event that cannot be read, the first of a term.
    pub(super) fn report_bad_event(&mut self, why: String) {
        self.metrics.bad_events.one();
        if self.is_first(EVENT.to_owned()) {
            tracing::warn!(
                stream = R::NAME,
                error = why,
                "an event of the stream cannot be read; what it is about is published from a list. \
                 Others are only counted. If there are more, look at what is between this process \
                 and Nomad"
            );
        }
    }

    /// Reports an object that is listed and cannot be found, once it is so for the second time:
    /// mostly it was deleted in between.
    pub(super) fn report_missing(&mut self, object: &BadElement) {
        let name = format!("missing {}", object.object);
        if self.said.contains(&name) {
            self.report_bad_object(object);
        }
        self.is_first(name);
    }

    /// Reports task events that Nomad no longer had; `before` is how many tasks of this list were
    /// reported already.
    pub(super) fn report_gaps(&self, gaps: &[Gap], before: usize) {
        self.metrics.gaps.add(gaps.len());
        for gap in gaps.iter().take(NAMED_GAPS.saturating_sub(before)) {
            tracing::warn!(
                allocation = brief(&gap.allocation),
                task = brief(&gap.task),
                "Nomad dropped events of a task before they could be read: it keeps ten of each. \
                 They are lost; those it still has are published. See whether the task restarts all \
                 the time, or nobody published for a while"
            );
        }
        if before <= NAMED_GAPS && before + gaps.len() > NAMED_GAPS {
            tracing::warn!(
                "more tasks of this list have lost events; see the lines before, and the counter of gaps"
            );
        }
    }

    /// Reports that a list could not be read.
    pub(super) fn report_failed(&mut self, err: &PassError) {
        self.metrics.nomad_errors.one();
        let reason = Chain(err).to_string();
        self.metrics.health.nomad.fails(&reason);
        if self.trouble.is_news(reason.clone()) {
            tracing::warn!(
                error = reason,
                "cannot read from Nomad; it is tried again. What it still has then is published. \
                 Mend what the error says, or check NOMAD_ADDR and the token"
            );
        }
    }

    /// Reports that a list could be read.
    pub(super) fn report_recovered(&mut self) {
        self.metrics.health.nomad.works();
        if let Some((after, attempts)) = self.trouble.over() {
            tracing::info!(?after, attempts, "Nomad is read again");
        }
    }

    /// Reports a list that has turned empty.
    pub(super) fn report_empty(&mut self, empty: bool) {
        if !empty {
            self.said.remove(EMPTY);
        } else if self.seen.knows_any() && self.is_first(EMPTY.to_owned()) {
            tracing::warn!(
                stream = R::NAME,
                "the list has turned empty; if the cluster has not, the token may have lost its \
                 rights, which servers before 1.3.2 do not say: check it"
            );
        }
    }

    /// Reports a namespace that the token may not read.
    pub(super) fn report_closed(&mut self, namespace: &str) {
        if self.is_first(format!("namespace {namespace}")) {
            tracing::warn!(
                stream = R::NAME,
                namespace = brief(namespace),
                "the token may not read this namespace, and its changes are not published; give \
                 the token `read-job` there if they should be"
            );
        }
    }

    fn is_first(&mut self, what: String) -> bool {
        self.said.len() < REMEMBERED && self.said.insert(what)
    }
}
