//! A Nomad that goes on by itself and remembers every change it made: what each of them is, when
//! it was made, and until when Nomad held it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use nomad_firehose::standin::nomad::{Nomad, Snapshot, Table};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::random::Random;
use crate::support::{allocation, evaluation, uuid};

/// Nomad keeps so many events of a task.
const KEPT: usize = 10;
/// Evaluations that change over and over, and one in so many changes makes a new one.
const OBJECTS: usize = 100;
const NEW: usize = 20;
/// Allocations that live at a time, and the task events of a life: fewer than Nomad keeps.
const LIVES: usize = 12;
const EVENTS: usize = 8;
/// A burst: so many times so many task events become visible at once.
const BURST: (usize, usize) = (8, 25);
/// The clocks of nodes are so far apart, and step back so far.
const APART: i64 = 600_000_000_000;
const NODES: usize = 3;

/// What a stream publishes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Evaluations,
    TaskEvents,
}

impl Kind {
    pub fn stream(self) -> &'static str {
        match self {
            Self::Evaluations => "evaluations",
            Self::TaskEvents => "allocations",
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The id of the evaluation or allocation.
    pub object: String,
    /// Nomad's index of it.
    pub index: u64,
    /// What its record's id has in the place that tells it apart: the index, or the time.
    pub mark: u64,
    /// The evaluation, or the task event.
    pub body: Value,
    /// When Nomad held it no longer, and no snapshot brought it back.
    pub until: Option<Instant>,
}

pub struct Issuer {
    pub kind: Kind,
    nomad: Nomad,
    book: Mutex<Book>,
}

struct Book {
    random: Random,
    changes: Vec<Change>,
    by_mark: HashMap<u64, usize>,
    /// Of each object, the changes that Nomad holds.
    held: HashMap<String, Vec<usize>>,
    /// When each evaluation was made.
    created: HashMap<String, u64>,
    lives: Vec<Life>,
    born: usize,
    /// How far the clock of each node was set back.
    back: [i64; NODES],
    paused: bool,
}

#[derive(Clone)]
struct Life {
    name: String,
    node: usize,
    events: Vec<Value>,
    count: usize,
}

/// A state to which Nomad can be set back.
pub struct Before {
    snapshot: Snapshot,
    held: HashMap<String, Vec<usize>>,
    created: HashMap<String, u64>,
    count: usize,
}

impl Issuer {
    pub fn new(kind: Kind, nomad: Nomad, seed: u64) -> Self {
        let book = Book {
            random: Random::new(seed),
            changes: Vec::new(),
            by_mark: HashMap::new(),
            held: HashMap::new(),
            created: HashMap::new(),
            lives: Vec::new(),
            born: 0,
            back: [0; NODES],
            paused: false,
        };
        Self { kind, nomad, book: Mutex::new(book) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub fn pause(&self, on: bool) {
        self.book().paused = on;
    }

    /// Makes a change, unless that is paused.
    pub fn tick(&self) {
        let mut book = self.book();
        if !book.paused {
            self.change(&mut book);
        }
    }

    /// Makes so many changes, paused or not.
    pub fn make(&self, count: usize) {
        (0..count).for_each(|_| self.change(&mut self.book()));
    }

    fn change(&self, book: &mut Book) {
        match self.kind {
            Kind::Evaluations => {
                let names = book.created.len();
                let new = names < OBJECTS || book.chance(NEW);
                let number = if new { names } else { book.random.below(names) };
                self.evaluate(book, &format!("e{number:05}"));
            }
            Kind::TaskEvents => {
                if book.lives.len() < LIVES {
                    let life = book.be_born();
                    book.lives.push(life);
                }
                let at = book.random.below(book.lives.len());
                let mut life = book.lives.swap_remove(at);
                self.happen(book, &mut life, 1);
                if life.events.len() < EVENTS {
                    book.lives.push(life);
                }
            }
        }
    }

    /// Lets a task event happen in the allocation with this number, which lives for ever.
    pub fn happen_in(&self, number: usize) {
        let mut book = self.book();
        while book.lives.len() <= number {
            let life = book.be_born();
            book.lives.push(life);
        }
        let mut life = book.lives[number].clone();
        self.happen(&mut book, &mut life, 1);
        book.lives[number] = life;
    }

    fn evaluate(&self, book: &mut Book, name: &str) {
        let number = book.changes.len();
        let mut object = evaluation(name, "default", "pending");
        object.insert("StatusDescription".to_owned(), json!(format!("change {number}")));
        let index = self.nomad.upsert(Table::Evaluations, object.clone());
        let id = uuid(name);
        let created = *book.created.entry(id.clone()).or_insert(index);
        object.insert("CreateIndex".to_owned(), json!(created));
        object.insert("ModifyIndex".to_owned(), json!(index));
        book.note(id, index, index, Value::Object(object), 1);
    }

    /// Lets so many task events happen, which become visible at once.
    fn happen(&self, book: &mut Book, life: &mut Life, count: usize) {
        let mut marks = Vec::new();
        for _ in 0..count {
            let number = book.changes.len() + marks.len();
            let time = book.time(life.node, &marks);
            let kind = if life.count == 0 { "Received" } else { "Driver" };
            let message = format!("change {number}");
            let event = json!({"Type": kind, "Time": time, "Message": message, "FailsTask": false});
            life.events.push(event.clone());
            life.count += 1;
            marks.push((u64::try_from(time).unwrap(), event));
        }
        let dropped = life.events.len().saturating_sub(KEPT);
        life.events.drain(..dropped);
        let index = self.nomad.upsert(Table::Allocations, life.object());
        for (mark, event) in marks {
            book.note(uuid(&life.name), index, mark, event, KEPT);
        }
    }

    /// A burst of task events: in an allocation that lives, or in one that is new.
    pub fn burst(&self) -> usize {
        let mut book = self.book();
        let known = book.chance(2) && !book.lives.is_empty();
        let mut life = if known { book.lives.swap_remove(0) } else { book.be_born() };
        for _ in 0..BURST.0 {
            self.happen(&mut book, &mut life, BURST.1);
        }
        BURST.0 * BURST.1
    }

    /// The clock of a node steps back.
    pub fn step_back(&self) {
        let mut book = self.book();
        let node = book.random.below(NODES);
        book.back[node] += APART;
    }

    pub fn snapshot(&self) -> Before {
        let book = self.book();
        let (held, created) = (book.held.clone(), book.created.clone());
        Before { snapshot: self.nomad.snapshot(), held, created, count: book.changes.len() }
    }

    /// Sets Nomad back. Nodes tell it anew what has happened to their allocations; evaluations are
    /// as they were. Those that have changed by that, which are to be published again.
    pub fn restore(&self, before: Before) -> Vec<usize> {
        let mut book = self.book();
        self.nomad.restore(&before.snapshot);
        let now = Instant::now();
        match self.kind {
            Kind::Evaluations => {
                book.created = before.created;
                let mut again = Vec::new();
                let held = std::mem::replace(&mut book.held, before.held.clone());
                for (id, changes) in held {
                    let back = before.held.get(&id);
                    if back == Some(&changes) {
                        continue;
                    }
                    changes.iter().for_each(|it| book.changes[*it].until = Some(now));
                    for it in back.into_iter().flatten() {
                        book.changes[*it].until = None;
                        again.push(*it);
                    }
                }
                again
            }
            Kind::TaskEvents => {
                let lives: Vec<Life> = book.lives.clone();
                for life in lives {
                    self.nomad.upsert(Table::Allocations, life.object());
                }
                // Of those that have ended since, Nomad knows less than before, and all that it
                // knew was published.
                let count = before.count;
                book.changes[count..].iter_mut().for_each(|it| {
                    it.until.get_or_insert(now);
                });
                Vec::new()
            }
        }
    }

    pub fn changes(&self) -> Vec<Change> {
        self.book().changes.clone()
    }

    pub fn count(&self) -> usize {
        self.book().changes.len()
    }

    /// The change that a record tells of, by its id.
    pub fn find(&self, id: &str) -> Option<usize> {
        let mark = id.split('/').nth(3)?.parse().ok()?;
        self.book().by_mark.get(&mark).copied()
    }

    /// Whether Nomad still holds a change.
    pub fn holds(&self, number: usize) -> bool {
        self.book().changes[number].until.is_none()
    }

    /// What Nomad holds of the first so many changes that is not among those that came.
    pub fn missing(&self, count: usize, came: &HashSet<usize>) -> Vec<usize> {
        let book = self.book();
        (0..count).filter(|it| book.changes[*it].until.is_none() && !came.contains(it)).collect()
    }
}

impl Book {
    fn chance(&mut self, of: usize) -> bool {
        self.random.below(of) == 0
    }

    /// Notes a change, of which Nomad holds so many of an object.
    fn note(&mut self, object: String, index: u64, mark: u64, body: Value, kept: usize) {
        let number = self.changes.len();
        let held = self.held.entry(object.clone()).or_default();
        held.push(number);
        let dropped = held.len().saturating_sub(kept);
        let now = Instant::now();
        for old in held.drain(..dropped) {
            self.changes[old].until = Some(now);
        }
        self.by_mark.insert(mark, number);
        self.changes.push(Change { object, index, mark, body, until: None });
    }

    fn be_born(&mut self) -> Life {
        let number = self.born;
        self.born += 1;
        let name = format!("a{number:05}");
        Life { name, node: number % NODES, events: Vec::new(), count: 0 }
    }

    /// What the clock of a node shows; no two events have one time.
    fn time(&self, node: usize, others: &[(u64, Value)]) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let apart = (i64::try_from(node).unwrap() - 1) * APART;
        let mut time = i64::try_from(now.as_nanos()).unwrap() + apart - self.back[node];
        let taken = |time: i64| {
            let mark = u64::try_from(time).unwrap();
            self.by_mark.contains_key(&mark) || others.iter().any(|it| it.0 == mark)
        };
        while taken(time) {
            time += 1;
        }
        time
    }
}

impl Life {
    fn object(&self) -> Map<String, Value> {
        let mut object = allocation(&self.name, &[]);
        object["TaskStates"]["main"]["Events"] = Value::Array(self.events.clone());
        object
    }
}

/// Between two changes of the default rate.
pub const BETWEEN: Duration = Duration::from_millis(40);
