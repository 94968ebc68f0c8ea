//! Whether the process works, and whether what it needs can be reached. Every question is asked
//! with an instant, so that the rules can be tested without waiting.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::Stamp;
use crate::error::brief;

/// A server of Nomad or Consul may fail for so long before it counts as away: an election among
/// them, or the restart of an agent, is over by then.
const FAILING: Duration = Duration::from_secs(30);
/// Nomad may be silent for so long. An idle list is held for 5 minutes and a sixteenth, and given
/// up 20 s later; the event stream says something every 30 s.
const NOMAD_SILENT: Duration = Duration::from_secs(6 * 60);
/// The leader's backend may be silent for so long. Who stands by asks for 15 s at a time, who leads
/// for 30 s, and both wait a sixteenth and 20 s longer at most; the lock is renewed beside it.
const LEADER_SILENT: Duration = Duration::from_secs(90);
/// The sink may take so long for a call, once there is one. Its own time limits are shorter, but for
/// a `SINK_HTTP_TIMEOUT` that somebody has made longer.
const SINK_SILENT: Duration = Duration::from_secs(120);
/// The main loop shows every second that it goes on. One that does not for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What the process is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It has not heard yet who is elected.
    #[default]
    Starting,
    /// Another process is the publisher, or may be.
    Standby,
    /// It is the publisher.
    Publishing,
    /// It was asked to stop.
    Stopping,
}

/// What is known of the process.
#[derive(Debug)]
pub struct Health {
    doing: Mutex<Doing>,
    /// Nomad, as the source of changes.
    pub nomad: Contact,
    /// The backend of the leader.
    pub leader: Contact,
    /// The sink.
    pub sink: Contact,
    /// The checkpoint, as it is saved: that can fail while the lock is renewed.
    pub checkpoint: Contact,
}

#[derive(Debug)]
struct Doing {
    role: Role,
    beat: Instant,
}

/// What is known of something that the process needs.
#[derive(Debug, Default)]
pub struct Contact {
    last: Stamp,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// When something was last heard of it.
    heard: Option<Instant>,
    /// Since when it fails, and how.
    failing: Option<(Instant, String)>,
    /// Since when something is waited for.
    waiting: Option<Instant>,
    /// It is in this process, and is always there.
    own: bool,
}

/// What `/ready` answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readiness {
    /// Whether it publishes, or could at once.
    pub ready: bool,
    /// What it is doing.
    pub role: Role,
    /// What it needs.
    pub checks: BTreeMap<&'static str, Check>,
}

/// What `/live` answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Liveness {
    /// Whether it goes on.
    pub live: bool,
    /// What it is doing.
    pub role: Role,
    /// What shows it.
    pub checks: BTreeMap<&'static str, Check>,
}

/// Whether one thing is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Check {
    /// Whether it is.
    pub ok: bool,
    /// It is not needed at the moment, so nothing is known of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unused: bool,
    /// How long ago something was last heard of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<f64>,
    /// What is wrong, also where it has not lasted long enough to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            doing: Mutex::new(Doing { role: Role::Starting, beat: Instant::now() }),
            nomad: Contact::default(),
            leader: Contact::default(),
            sink: Contact::default(),
            checkpoint: Contact::default(),
        }
    }
}

impl Health {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is doing this from now on. Who was asked to stop does nothing else any more.
    pub fn enter(&self, role: Role) {
        let mut doing = self.doing();
        if doing.role == Role::Stopping || doing.role == role {
            return;
        }
        doing.role = role;
        drop(doing);
        if role == Role::Publishing {
            // What was heard in another term says nothing about now.
            for contact in [&self.nomad, &self.sink, &self.checkpoint] {
                *contact.state() = State::default();
            }
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn role(&self) -> Role {
        self.doing().role
    }

    /// The main loop goes on.
    pub fn beat(&self) {
        self.doing().beat = Instant::now();
    }

    /// Whether a restart would help. What is outside of the process has no say in it.
    #[must_use]
    pub fn liveness(&self, now: Instant) -> Liveness {
        let Doing { role, beat } = *self.doing();
        let since = now.saturating_duration_since(beat);
        let live = since < STUCK;
        let error =
            (!live).then(|| format!("the main loop has been stuck for {} s", since.as_secs()));
        let check = Check { ok: live, since_seconds: Some(seconds(since)), error, unused: false };
        Liveness { live, role, checks: BTreeMap::from([("loop", check)]) }
    }

    /// Whether it publishes, or could at once. `queued`: records wait to be published, so that Nomad
    /// need not be asked.
    #[must_use]
    pub fn readiness(&self, now: Instant, queued: bool) -> Readiness {
        let role = self.role();
        let publishing = role == Role::Publishing;
        let used = |check: Check| if publishing { check } else { Check::unused() };
        let silent = if queued { Duration::MAX } else { NOMAD_SILENT };
        let nomad = used(self.nomad.server(now, silent));
        let leader = self.leader.server(now, LEADER_SILENT);
        let sink = used(self.sink.receiver(now));
        let checkpoint = used(self.checkpoint.saved(now));
        let checks = BTreeMap::from([
            ("checkpoint", checkpoint),
            ("leader", leader),
            ("nomad", nomad),
            ("sink", sink),
        ]);
        let doing = matches!(role, Role::Publishing | Role::Standby);
        let ready = doing && checks.values().all(|it| it.ok);
        Readiness { ready, role, checks }
    }
}

impl Contact {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was heard of it, which need not mean that all is well.
    pub fn heard(&self) {
        self.last.now();
        let mut state = self.state();
        state.heard = Some(Instant::now());
        state.waiting = None;
    }

    /// It does what it is asked.
    pub fn works(&self) {
        self.heard();
        self.state().failing = None;
    }

    /// It does not. The first time counts, and the last reason.
    pub fn fails(&self, why: &str) {
        let mut state = self.state();
        state.waiting = None;
        let since = state.failing.take().map_or_else(Instant::now, |(since, _)| since);
        state.failing = Some((since, brief(why)));
    }

    /// It is waited for, if it is not already.
    pub fn is_waited_for(&self) {
        self.state().waiting.get_or_insert_with(Instant::now);
    }

    /// It has answered, and is waited for anew or not.
    pub fn waits_on(&self, more: bool) {
        self.state().waiting = more.then(Instant::now);
    }

    /// It is in this process: there is nothing to be reached.
    pub fn is_own(&self) {
        self.state().own = true;
    }

    /// When something was last heard of it, in milliseconds since 1970.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last.get()
    }

    /// A server that is asked all the time, and may fail for a while.
    fn server(&self, now: Instant, silent: Duration) -> Check {
        let State { heard, failing, own, .. } = self.state().clone();
        let since = heard.map(|it| now.saturating_duration_since(it));
        let failed = failing.as_ref().map(|(since, _)| now.saturating_duration_since(*since));
        let is_silent = since.is_none_or(|it| it >= silent) && !own;
        let ok = !is_silent && failed.is_none_or(|it| it < FAILING);
        let error = failing.map(|(_, why)| why).or_else(|| match since {
            _ if !is_silent => None,
            None => Some("nothing has been heard of it yet".to_owned()),
            Some(since) => Some(format!("nothing has been heard of it for {} s", since.as_secs())),
        });
        Check { ok, unused: false, since_seconds: since.map(seconds), error }
    }

    /// What is written when there is something to write, and may fail for a while.
    fn saved(&self, now: Instant) -> Check {
        let State { heard, failing, .. } = self.state().clone();
        let since = heard.map(|it| seconds(now.saturating_duration_since(it)));
        let lasts = |since: &Instant| now.saturating_duration_since(*since) >= FAILING;
        let ok = !failing.as_ref().is_some_and(|(since, _)| lasts(since));
        Check { ok, unused: false, since_seconds: since, error: failing.map(|(_, why)| why) }
    }

    /// A receiver, which is asked when there is something to say: the last answer counts.
    fn receiver(&self, now: Instant) -> Check {
        let State { heard, failing, waiting, .. } = self.state().clone();
        let since = heard.map(|it| now.saturating_duration_since(it));
        let waited = waiting.map(|it| now.saturating_duration_since(it));
        let error = failing.map(|(_, why)| why).or_else(|| {
            let waited = waited.filter(|it| *it >= SINK_SILENT)?;
            Some(format!("there has been no answer for {} s", waited.as_secs()))
        });
        Check { ok: error.is_none(), unused: false, since_seconds: since.map(seconds), error }
    }
}

impl Check {
    fn unused() -> Self {
        Self { ok: true, unused: true, ..Self::default() }
    }
}

/// Seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
