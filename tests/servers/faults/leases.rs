//! Which session of Consul is whose, when it was renewed, and who had the lock: the former as each
//! copy asks for it, the latter as Consul says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use nomad_firehose::api::{Consul, Entry, Lock};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::sinks::proxy::Ear;

const ID: usize = 36;
const WAIT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

/// The sessions of all copies.
#[derive(Clone, Default)]
pub struct Leases(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    leases: HashMap<String, Lease>,
    /// When each copy asked last for a session that it got. Which one, the answer tells
    /// compressed; the next request names it.
    created: HashMap<usize, Instant>,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub copy: usize,
    /// When requests were sent that created or renewed it and were answered.
    pub renewed: Vec<Instant>,
    /// When it was tried to take the lock with it.
    pub acquired: Vec<Instant>,
}

/// Hears one connection of a copy, on which one request follows the other.
pub struct Connection {
    leases: Leases,
    copy: usize,
    asked: Option<(Instant, Asked)>,
}

enum Asked {
    Create,
    Renew(String),
}

impl Leases {
    pub fn connection(&self, copy: usize) -> Connection {
        Connection { leases: self.clone(), copy, asked: None }
    }

    pub fn all(&self) -> HashMap<String, Lease> {
        self.0.lock().unwrap().leases.clone()
    }

    /// The copy whose session this is.
    pub fn copy(&self, session: &str) -> Option<usize> {
        Some(self.0.lock().unwrap().leases.get(session)?.copy)
    }
}

impl Connection {
    fn note(&self, session: &str, note: impl FnOnce(&mut Lease)) {
        let mut known = self.leases.0.lock().unwrap();
        let renewed = known.created.get(&self.copy).copied();
        let new =
            || Lease { copy: self.copy, renewed: Vec::from_iter(renewed), acquired: Vec::new() };
        note(known.leases.entry(session.to_owned()).or_insert_with(new));
    }
}

impl Ear for Connection {
    fn asked(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        // The client writes the first line in one piece.
        let line = String::from_utf8_lossy(bytes);
        let Some(line) = line.lines().next().filter(|it| it.ends_with("HTTP/1.1")) else { return };
        let id = |after: &str| {
            let (_, id) = line.split_once(after)?;
            id.get(..ID).map(str::to_owned)
        };
        self.asked = if line.starts_with("PUT /v1/session/create") {
            Some((now, Asked::Create))
        } else {
            id("PUT /v1/session/renew/").map(|it| (now, Asked::Renew(it)))
        };
        if let Some(session) = id("acquire=") {
            self.note(&session, |it| it.acquired.push(now));
        }
    }

    fn answered(&mut self, bytes: &[u8]) {
        // The server writes the status in one piece, and what follows it is not looked at.
        let Some((at, asked)) = self.asked.take() else { return };
        match asked {
            _ if !bytes.starts_with(b"HTTP/1.1 200") => (),
            Asked::Renew(session) => self.note(&session, |it| it.renewed.push(at)),
            Asked::Create => drop(self.leases.0.lock().unwrap().created.insert(self.copy, at)),
        }
    }
}

/// What keys held, and since when: followed with blocking queries, past every proxy.
pub struct Followed<T> {
    seen: Arc<Mutex<Vec<(Instant, T)>>>,
    task: JoinHandle<()>,
}

impl<T: Clone + PartialEq + Send + 'static> Followed<T> {
    pub fn new(
        consul: Consul,
        key: String,
        look: impl Fn(Lock, Option<Entry>) -> T + Send + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            let mut past = None;
            loop {
                let Ok(read) = consul.read(&key, past.map(|it| (it, WAIT))).await else {
                    past = None;
                    sleep(AGAIN).await;
                    continue;
                };
                past = Some(read.index.max(1)).filter(|it| past.is_none_or(|past| past <= *it));
                let value = look(read.lock(), read.entry);
                let mut noted = noted.lock().unwrap();
                if noted.last().is_none_or(|(_, last)| *last != value) {
                    noted.push((Instant::now(), value));
                }
            }
        });
        Self { seen, task }
    }

    pub fn seen(&self) -> Vec<(Instant, T)> {
        self.seen.lock().unwrap().clone()
    }

    pub fn times(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    pub fn last(&self) -> Option<T> {
        self.seen.lock().unwrap().last().map(|(_, it)| it.clone())
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The session that has the lock, as this tool and the Go tool see it.
pub fn holder(lock: Lock, _: Option<Entry>) -> Option<String> {
    match lock {
        Lock::Held(session) => Some(session),
        Lock::Free | Lock::Foreign { .. } => None,
    }
}
