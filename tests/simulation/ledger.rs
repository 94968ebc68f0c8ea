//! What was changed, what arrived, and what is saved; and whether that may be so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nomad_firehose::{
    cursor::{Cursor, Kind, Saved},
    record::{Limits, Record},
    standin::consul::Consul,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    copy::Facts,
    subject::{State, Subject, left_out, object_of},
};
use crate::support::checkpoint;

/// A lock that was taken by force is noticed so long after it could have been: a read of it that
/// failed is made again after a second.
const NOTICED: Duration = Duration::from_millis(1_100);
/// A session of 10 s can be relied on for so long after its renewal was sent.
const RELIABLE: Duration = Duration::from_secs(9);
/// So many violations are told.
const TOLD: usize = 5;

/// A record that arrived.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    number: i64,
    object: u8,
    copy: usize,
    term: u64,
    /// Whether the copy was told so.
    confirmed: bool,
}

/// What was changed, what arrived, and what is saved.
pub struct Ledger {
    consul: Consul,
    lock: String,
    /// Whether some states are left out.
    filters: bool,
    /// All states of each object that Nomad knows of.
    told: BTreeMap<u8, Vec<State>>,
    last: i64,
    /// Every payload that there can be, by object and number.
    payloads: BTreeMap<(u8, i64), Map<String, Value>>,
    arrivals: Vec<Arrival>,
    /// Numbers that need not arrive any more.
    refused: BTreeSet<i64>,
    /// Numbers that the receiver has for good, or refused, and said so.
    settled: BTreeSet<i64>,
    floor: u64,
    /// What was changed until a floor was first saved: at a first start, what Nomad has dropped by
    /// then is history, and no gap.
    history: i64,
    covered: BTreeMap<u8, i64>,
    /// When the lock was last taken from its holder by force.
    forced: Option<Instant>,
    /// Changes up to this number were undone, or may have been.
    undone: Option<i64>,
    /// Whether a checkpoint was damaged.
    damaged: bool,
    violations: Vec<String>,
}

impl Ledger {
    pub fn new(consul: Consul, lock: &str, filters: bool) -> Self {
        Self {
            consul,
            lock: lock.to_owned(),
            filters,
            told: BTreeMap::new(),
            last: 0,
            payloads: BTreeMap::new(),
            arrivals: Vec::new(),
            refused: BTreeSet::new(),
            settled: BTreeSet::new(),
            floor: 0,
            history: 0,
            covered: BTreeMap::new(),
            forced: None,
            undone: None,
            damaged: false,
            violations: Vec::new(),
        }
    }

    /// An object changes at an index; its states by now.
    pub fn changes<R: Subject>(
        &mut self,
        object: u8,
        index: u64,
        again: bool,
        early: bool,
    ) -> Vec<State> {
        self.last += 1;
        let states = self.told.entry(object).or_default();
        states.push(State { number: self.last, index, again, early });
        self.payloads.insert((object, self.last), R::shows(object, states));
        states.clone()
    }

    /// The states of an object.
    pub fn states(&self, object: u8) -> &[State] {
        self.told.get(&object).map_or(&[], |it| &it[..])
    }

    /// All states of all objects, to come back to.
    pub fn told(&self) -> BTreeMap<u8, Vec<State>> {
        self.told.clone()
    }

    /// Nomad is set back to these states.
    pub fn set_back(&mut self, told: BTreeMap<u8, Vec<State>>) {
        self.told = told;
        self.undone = Some(self.last);
        self.covered.clear();
    }

    /// Somebody takes the lock away.
    pub fn force(&mut self) {
        self.forced = Some(Instant::now());
    }

    /// Somebody damages the checkpoint.
    pub fn damage(&mut self) {
        self.damaged = true;
        self.covered.clear();
    }

    /// What must not be.
    pub fn wrong(&mut self, what: String) {
        if self.violations.len() < TOLD {
            self.violations.push(what);
        }
    }

    pub fn violations(&self) -> Result<(), String> {
        if self.violations.is_empty() { Ok(()) } else { Err(self.violations.join("\n")) }
    }

    fn holder(&self) -> Option<String> {
        self.consul.entry(&format!("nomad-firehose/{}.lock", self.lock))?.session
    }

    /// A call to the receiver begins: only the holder of the lock may make one.
    pub fn call_begins<R: Subject>(&mut self, facts: &Facts, records: &[Record], limits: Limits) {
        let now = Instant::now();
        let holder = self.holder();
        let (own, elected, renewed) = facts.claim();
        if holder != own {
            let forced = self.forced.filter(|it| Some(*it) >= elected);
            let known = [forced, facts.impaired(), facts.process.disturbed()];
            let known = known.into_iter().flatten().max();
            let excused = forced.is_some() && known.is_some_and(|it| now <= it + NOTICED);
            if !excused {
                self.wrong(format!(
                    "copy {} makes a call with {own:?}, and the lock is held by {holder:?}; taken \
                     by force {:?} ago",
                    facts.copy,
                    self.forced.map(|it| it.elapsed()),
                ));
            }
        }
        if renewed.is_none_or(|it| now >= it + RELIABLE) {
            let ago = renewed.map(|it| it.elapsed());
            self.wrong(format!("copy {} makes a call, renewed {ago:?} ago", facts.copy));
        }
        if records.is_empty() || records.len() > limits.records {
            self.wrong(format!("{} records in a call", records.len()));
        }
        let objects: BTreeSet<_> = records.iter().map(|it| object_of::<R>(&it.key)).collect();
        if limits.one_per_key && objects.len() < records.len() {
            self.wrong("a key is twice in a call".to_owned());
        }
    }

    /// A record arrives, or is refused for good; its number.
    pub fn arrives<R: Subject>(
        &mut self,
        facts: &Facts,
        record: &Record,
        refused: bool,
    ) -> Option<i64> {
        let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
        let known = object_of::<R>(&record.meta.subject).zip(R::number(&body));
        let shows = known.and_then(|it| self.payloads.get(&it));
        let intact = shows.is_some_and(|it| has_all(&body, it));
        let Some((object, number)) = known.filter(|_| intact) else {
            self.wrong(format!("{} arrives, which nobody made so: {body}", record.meta.id));
            return None;
        };
        if self.leaves_out(number) {
            self.wrong(format!("{} arrives, which the filter leaves out", record.meta.id));
        }
        let (copy, term) = (facts.copy, facts.metrics.terms.get());
        if self.undone.is_none() {
            self.judge::<R>(facts, Arrival { number, object, copy, term, confirmed: false });
        }
        if refused {
            self.refused.insert(number);
            self.settled.insert(number);
        } else {
            self.arrivals.push(Arrival { number, object, copy, term, confirmed: false });
        }
        Some(number)
    }

    /// In order of each object, and again only with a reason. A term that follows a crash may show a
    /// state or an event that was passed over before: the event stream still has it.
    fn judge<R: Subject>(&mut self, facts: &Facts, new: Arrival) {
        let of = |it: &&Arrival| it.object == new.object;
        let same_term = |it: &&Arrival| (it.copy, it.term) == (new.copy, new.term);
        let mut before = self.arrivals.iter().filter(of).filter(|it| it.confirmed);
        let known = self.has_arrived(new.number);
        let loaded = facts.loaded();
        let was_saved = |it: &Arrival| loaded.get(&it.object).is_some_and(|at| it.number <= *at);
        let overtaken = |it: &Arrival| {
            it.number > new.number
                && ((it.copy, it.term) == (new.copy, new.term)
                    || !known
                        && self.forced.is_none()
                        && R::KIND == Kind::TaskEvents
                        && was_saved(it))
        };
        let again = before.clone().filter(same_term).any(|it| it.number == new.number);
        let late = before.any(overtaken);
        let saved = facts.loaded().get(&new.object).is_some_and(|it| new.number <= *it);
        if late && !facts.is_lossy() {
            self.wrong(format!("{new:?} arrives after a later one"));
        }
        if again && !facts.is_lossy() {
            self.wrong(format!("{new:?} was confirmed in the same term, and arrives again"));
        }
        if saved && known && !self.damaged {
            self.wrong(format!("{new:?} was saved before the term began, and arrives again"));
        }
        if saved && !known && !self.damaged {
            self.wrong(format!("{new:?} was saved before it ever arrived"));
        }
    }

    /// The copy is told that these arrived.
    pub fn confirms(&mut self, facts: &Facts, numbers: &[i64]) {
        let (copy, term) = (facts.copy, facts.metrics.terms.get());
        for it in self.arrivals.iter_mut().rev() {
            if (it.copy, it.term) == (copy, term) && numbers.contains(&it.number) {
                it.confirmed = true;
            }
        }
        self.settled.extend(numbers);
    }

    fn position(&self) -> (Option<Box<Cursor>>, usize) {
        match checkpoint(&self.consul, &self.lock) {
            (Saved::Ours(cursor), damaged) => (Some(cursor), damaged),
            (_, damaged) => (None, damaged),
        }
    }

    /// Up to which number each object is saved.
    pub fn saved<R: Subject>(&self) -> BTreeMap<u8, i64> {
        let Some(cursor) = self.position().0 else { return BTreeMap::new() };
        self.told.iter().map(|(it, states)| (*it, R::covered(&cursor, *it, states))).collect()
    }

    /// A checkpoint was written: it covers nothing that is not settled, and it has not moved back.
    pub fn written<R: Subject>(&mut self) {
        let (cursor, damaged) = self.position();
        let Some(cursor) = cursor else {
            if !self.damaged
                && self.consul.value(&format!("nomad-firehose/{}.cursor", self.lock)).is_some()
            {
                self.wrong("the checkpoint cannot be read".to_owned());
            }
            return;
        };
        if self.undone.is_some() {
            return;
        }
        if cursor.floor().0 < self.floor && !self.damaged {
            self.wrong(format!("the floor moves back from {} to {}", self.floor, cursor.floor()));
        }
        if self.floor == 0 {
            self.history = self.last;
        }
        self.floor = cursor.floor().0;
        for (object, states) in self.told.clone() {
            let covered = R::covered(&cursor, object, &states);
            let before = self.covered.insert(object, covered).unwrap_or_default();
            if covered < before && damaged == 0 && !self.damaged {
                self.wrong(format!("object {object} is saved up to {covered}, after {before}"));
            }
            let was_damaged = self.damaged;
            let of_value = |it: &State| was_damaged && it.again;
            for state in R::held(&states).iter().filter(|it| it.number <= covered) {
                let settled = self.settled.contains(&state.number) || self.leaves_out(state.number);
                if !settled && !of_value(state) {
                    self.wrong(format!("{state:?} of object {object} is saved, and not settled"));
                }
            }
        }
    }

    /// A copy that was asked to stop is about to release the lock: all that it knows is saved.
    pub fn released<R: Subject>(&mut self, facts: &Facts) {
        if self.undone.is_some() || self.damaged || self.holder() != facts.claim().0 {
            return;
        }
        let (saved, term) = (self.saved::<R>(), facts.metrics.terms.get());
        let unsaved = |it: &&Arrival| {
            it.confirmed && it.copy == facts.copy && it.term == term
                && it.number > saved.get(&it.object).copied().unwrap_or_default()
                // Of two states at one index only the hash tells which is saved.
                && !self.states(it.object).iter().any(|state| state.number == it.number && state.again)
        };
        if let Some(unsaved) = self.arrivals.iter().find(unsaved) {
            self.wrong(format!("a clean stop leaves {unsaved:?} unsaved"));
        }
    }

    fn leaves_out(&self, number: i64) -> bool {
        self.filters && left_out(number)
    }

    fn has_arrived(&self, number: i64) -> bool {
        self.refused.contains(&number) || self.arrivals.iter().any(|it| it.number == number)
    }

    /// What Nomad holds and has not arrived.
    pub fn missing<R: Subject>(&self) -> Vec<i64> {
        let held = self.told.values().flat_map(|it| R::held(it));
        let due = held.filter(|it| self.undone.is_none_or(|undone| it.number > undone));
        // A damaged checkpoint is replaced with a value, which tells one state at an index only.
        let due = due.filter(|it| !(self.damaged && it.again));
        let due = due.map(|it| it.number).filter(|it| !self.leaves_out(*it));
        due.filter(|it| !self.has_arrived(*it)).collect()
    }

    /// What must be true in the end, when all copies have stopped.
    pub fn ends<R: Subject>(&mut self, gaps: u64) {
        let missing = self.missing::<R>();
        if !missing.is_empty() {
            self.wrong(format!("never published: {missing:?}"));
        }
        if self.undone.is_some() || self.damaged {
            return;
        }
        let saved = self.saved::<R>();
        let mut with_gaps = 0;
        for (object, states) in self.told.clone() {
            let last = states.iter().rfind(|it| !it.again).map_or(0, |it| it.number);
            if saved.get(&object).is_none_or(|it| *it < last) {
                self.wrong(format!("of object {object} {last} is never saved: {saved:?}"));
            }
            let at_last = self.arrivals.iter().rfind(|it| it.object == object).map(|it| it.number);
            let expected = states.last().map(|it| it.number);
            let expected =
                expected.filter(|it| !self.refused.contains(it) && !self.leaves_out(*it));
            if self.forced.is_none() && expected.is_some() && at_last != expected {
                self.wrong(format!("of object {object} {at_last:?} came last, not {expected:?}"));
            }
            let lost = |it: &State| {
                let due = it.number > self.history && !self.leaves_out(it.number);
                due && !self.has_arrived(it.number)
            };
            let lost = states.iter().any(lost);
            with_gaps += u64::from(lost && R::KIND == Kind::TaskEvents);
        }
        if gaps < with_gaps {
            self.wrong(format!("events of {with_gaps} tasks are lost, and {gaps} gaps reported"));
        }
    }
}

/// Whether a document has all these members with these values.
fn has_all(body: &Value, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, value)| match value {
        Value::Object(members) => has_all(&body[key], members),
        value => body[key] == *value,
    })
}
