//! Sessions, their time to live, and the lock-delay.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::standin::{query::go_duration, random::Random};

/// Consul ends a session only after this many times its TTL.
const TTL_STRETCH: u32 = 2;
const SHORTEST_TTL: Duration = Duration::from_secs(10);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// The lock-delay of a session that names none.
const LOCK_DELAY: Duration = Duration::from_secs(15);
/// A lock-delay that is a number below this means seconds, above it nanoseconds.
const LOCK_DELAY_SECONDS_BELOW: u64 = 1000;
/// The check that a session depends on unless it says otherwise.
const DEFAULT_CHECK: &str = "serfHealth";
const NODE: &str = "standin";

/// What happens to the keys of a session that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Behavior {
    /// They are free.
    Release,
    /// They are deleted.
    Delete,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name that its creator gave it.
    pub name: String,
    /// The node of its agent.
    pub node: String,
    /// How long its keys stay refused after it was ended for its holder.
    #[serde(serialize_with = "nanoseconds")]
    pub lock_delay: Duration,
    /// What happens to its keys then.
    pub behavior: Behavior,
    /// Its time to live, as given; empty if it has none.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// The checks of the node that it depends on.
    pub node_checks: Vec<String>,
    service_checks: Option<Vec<String>>,
    /// The index of its creation.
    pub create_index: u64,
    modify_index: u64,
    #[serde(skip)]
    time: Option<Duration>,
    #[serde(skip)]
    expires: Option<Instant>,
}

fn nanoseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// What a client asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Wanted {
    name: Option<String>,
    #[serde(rename = "TTL")]
    ttl: Option<String>,
    lock_delay: Option<Value>,
    behavior: Option<String>,
    checks: Option<Vec<String>>,
    node_checks: Option<Vec<String>>,
}

/// A request that Consul refuses, with its words.
pub(super) type Refused = String;

/// All sessions, and the keys under lock-delay.
#[derive(Debug)]
pub(super) struct Sessions {
    live: BTreeMap<String, Session>,
    delays: BTreeMap<String, Instant>,
    ids: Random,
    index: u64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { live: BTreeMap::new(), delays: BTreeMap::new(), ids: Random::new(0), index: 0 }
    }
}

impl Sessions {
    pub(super) fn index(&self) -> u64 {
        self.index.max(1)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Session> {
        self.live.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        self.live.values()
    }

    pub(super) fn create(
        &mut self,
        at: u64,
        wanted: Wanted,
        now: Instant,
    ) -> Result<&Session, Refused> {
        let ttl = wanted.ttl.unwrap_or_default();
        let time = time_to_live(&ttl)?;
        let behavior = match wanted.behavior.as_deref() {
            None | Some("" | "release") => Behavior::Release,
            Some("delete") => Behavior::Delete,
            Some(other) => return Err(format!("Invalid Behavior setting '{other}'")),
        };
        let node_checks =
            wanted.node_checks.or(wanted.checks).unwrap_or_else(|| vec![DEFAULT_CHECK.to_owned()]);
        if let Some(unknown) = node_checks.iter().find(|check| *check != DEFAULT_CHECK) {
            return Err(format!("Missing check '{unknown}' registration"));
        }
        let session = Session {
            id: self.ids.uuid(),
            name: wanted.name.unwrap_or_default(),
            node: NODE.to_owned(),
            lock_delay: lock_delay(wanted.lock_delay.as_ref())?,
            behavior,
            ttl,
            node_checks,
            service_checks: None,
            create_index: at,
            modify_index: at,
            time,
            expires: time.map(|time| now + TTL_STRETCH * time),
        };
        self.index = at;
        Ok(self.live.entry(session.id.clone()).insert_entry(session).into_mut())
    }

    pub(super) fn renew(&mut self, id: &str, now: Instant) -> Option<&Session> {
        let session = self.live.get_mut(id)?;
        session.expires = session.time.map(|time| now + TTL_STRETCH * time);
        Some(session)
    }

    pub(super) fn remove(&mut self, at: u64, id: &str) -> Option<Session> {
        let session = self.live.remove(id)?;
        self.index = at;
        Some(session)
    }

    /// The sessions whose time is over, and when that was, in that order.
    pub(super) fn expired(&self, now: Instant) -> Vec<(String, Instant)> {
        let times =
            self.live.values().filter_map(|session| Some((session.id.clone(), session.expires?)));
        let mut expired: Vec<_> = times.filter(|(_, at)| *at <= now).collect();
        expired.sort_by_key(|(_, at)| *at);
        expired
    }

    /// When the next session expires if nobody renews it.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.live.values().filter_map(|session| session.expires).min()
    }

    pub(super) fn delay(&mut self, keys: Vec<String>, until: Instant) {
        self.delays.extend(keys.into_iter().map(|key| (key, until)));
    }

    pub(super) fn delayed(&self, key: &str, now: Instant) -> bool {
        self.delays.get(key).is_some_and(|until| now < *until)
    }

    /// What a change of the leader does to times: it has none of the old ones.
    pub(super) fn restart(&mut self, now: Instant) {
        self.delays.clear();
        for session in self.live.values_mut() {
            session.expires = session.time.map(|time| now + TTL_STRETCH * time);
        }
    }
}

fn time_to_live(ttl: &str) -> Result<Option<Duration>, Refused> {
    if ttl.is_empty() {
        return Ok(None);
    }
    let invalid = || format!("Session TTL '{ttl}' invalid: time: invalid duration \"{ttl}\"");
    let time = go_duration(ttl).ok_or_else(invalid)?;
    if (SHORTEST_TTL..=LONGEST_TTL).contains(&time) {
        Ok(Some(time))
    } else if time.is_zero() {
        Ok(None)
    } else {
        Err(format!("Invalid Session TTL '{}', must be between [10s=24h0m0s]", time.as_nanos()))
    }
}

fn lock_delay(wanted: Option<&Value>) -> Result<Duration, Refused> {
    let invalid = || format!("Invalid LockDelay {}", wanted.unwrap_or(&Value::Null));
    match wanted {
        None | Some(Value::Null) => Ok(LOCK_DELAY),
        Some(Value::String(text)) => go_duration(text).ok_or_else(invalid),
        Some(number) => match number.as_u64().ok_or_else(invalid)? {
            seconds if seconds < LOCK_DELAY_SECONDS_BELOW => Ok(Duration::from_secs(seconds)),
            nanoseconds => Ok(Duration::from_nanos(nanoseconds)),
        },
    }
}
