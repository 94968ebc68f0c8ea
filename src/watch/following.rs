//! What is known of the event stream, and when the next list is due beside it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    EARLY_LIST, EARLY_RESYNC, GREATEST_WAIT, LEAST_WAIT,
    join::Missed,
    poll::LEAST_INTERVAL,
    subscription::{Cut, Subscription},
};
use crate::{
    backoff::Trouble,
    cursor::{Index, Kind},
};

/// Events are published shortly before a list shows what they tell of.
const VISIBLE: Duration = Duration::from_millis(50);
/// While lists fail, so many changes are taken from the stream: only lists let go of what is
/// remembered of them.
const MOST_SHOWN: usize = 100_000;

/// So many lists in a row may be older than the event that asked for them.
const MOST_SHORT: u32 = 10;

/// Where changes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The event stream where the server offers it to the token, else lists.
    #[default]
    Auto,
    /// The event stream; where there is none, nothing is published.
    Events,
    /// Lists.
    Poll,
}

/// What is known of the event stream.
pub(super) struct Following {
    /// The subscription, while there is one.
    pub(super) stream: Option<Subscription>,
    /// The last index that this term has heard.
    pub(super) last: Option<Index>,
    /// What `last` was when the subscription began.
    pub(super) resumed: Option<Index>,
    /// What the subscription had shown when the list that is being read was asked for.
    pub(super) passed: Option<Index>,
    /// Changes that it has shown since the last list; those of them that are of objects.
    shown: usize,
    above: usize,
    /// What only the last list has shown.
    pub(super) missed: Missed,
    /// When the last list was read.
    listed: Option<Instant>,
    /// When the next list is to be read, and not before when, since the last one failed.
    due: Instant,
    not_before: Option<Instant>,
    /// When one is to be read for something that the stream has shown since the last was asked for.
    wanted: Option<Instant>,
    /// How far the next list is to be, and how often one was not.
    wanted_index: Index,
    short: u32,
    /// Why the subscription has ended, where it did so during something else.
    pub(super) cut: Option<Cut>,
    /// When the next subscription is to be tried.
    pub(super) next: Instant,
    pub(super) trouble: Trouble,
    /// How often the token had been replaced at the last attempt.
    pub(super) token: u64,
    /// How often in a row it was denied.
    pub(super) denied: u32,
    /// How many subscriptions in a row have shown nothing of what lists had.
    pub(super) barren: u32,
    /// Whether the version of Nomad is known to be right.
    pub(super) version_known: bool,
    /// Which source the log has named.
    pub(super) said: Option<Source>,
}

impl Default for Following {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            stream: None,
            last: None,
            resumed: None,
            passed: None,
            shown: 0,
            above: 0,
            missed: Missed::default(),
            listed: None,
            due: now,
            not_before: None,
            wanted: None,
            wanted_index: Index::default(),
            short: 0,
            cut: None,
            next: now,
            trouble: Trouble::new(LEAST_WAIT, GREATEST_WAIT),
            token: 0,
            denied: 0,
            barren: 0,
            version_known: false,
            said: None,
        }
    }
}

impl Following {
    /// A list is to be read soon, but so long after the last one.
    pub(super) fn list_after(&mut self, pause: Duration) {
        let soon = Instant::now() + VISIBLE;
        let at = self.listed.map_or(soon, |it| soon.max(it + pause));
        self.wanted = Some(self.wanted.map_or(at, |it| it.min(at)));
    }

    /// A list that is at least as far as this index is to be read soon.
    pub(super) fn want_list_of(&mut self, index: Index) {
        self.wanted_index = self.wanted_index.max(index);
        self.list_after(LEAST_INTERVAL);
    }

    /// The stream has shown so many changes.
    pub(super) fn note_shown(&mut self, changes: usize, kind: Kind) {
        self.shown += changes;
        self.above += if kind == Kind::Objects { changes } else { 0 };
    }

    /// When the next list is to be read.
    pub(super) fn next_list(&self) -> Instant {
        let mut at = self.wanted.map_or(self.due, |it| it.min(self.due));
        if let Some(listed) = self.listed.filter(|_| self.above > EARLY_RESYNC) {
            at = at.min(listed + EARLY_LIST);
        }
        self.not_before.map_or(at, |it| it.max(at))
    }

    /// A list is asked for.
    pub(super) fn asked(&mut self) {
        self.wanted = None;
    }

    /// A subscription has begun.
    pub(super) fn began(&mut self) {
        self.denied = 0;
        self.due = Instant::now();
        self.not_before = None;
        self.missed = Missed::default();
        // Nomad may have been set back since.
        (self.wanted_index, self.short) = (Index::default(), 0);
    }

    /// A list of this index was read whole; the next one is due after so long.
    pub(super) fn listed(&mut self, index: Index, next: Duration) {
        let now = Instant::now();
        self.listed = Some(now);
        (self.shown, self.above) = (0, 0);
        self.due = now + next;
        self.not_before = None;
        if index < self.wanted_index && self.short < MOST_SHORT {
            self.short += 1;
            self.list_after(LEAST_INTERVAL);
        } else {
            (self.wanted_index, self.short) = (Index::default(), 0);
        }
    }

    /// A list could not be read.
    pub(super) fn failed(&mut self, wait: Duration) {
        self.due = Instant::now();
        self.not_before = Some(self.due + wait);
    }

    /// Whether more can be taken from the stream.
    pub(super) fn has_room(&self) -> bool {
        self.shown < MOST_SHOWN
    }
}
