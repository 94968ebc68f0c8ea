//! What must hold of a run, judged from what was noted of it: pure, so that it can be shown to
//! find what it looks for.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use nomad_firehose::cursor::{Saved, decode};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    issuer::{Change, Kind},
    leases::Lease,
    oracle::Arrival,
    wire,
};

/// Nine tenths of the TTL after a renewal was sent, a holder stops by itself.
pub const LEASE: Duration = Duration::from_secs(9);
/// What a call may still send that was under way when the term ended, or when the process was
/// suspended. It is given up when the term is over, and its connection cut; until then it is the
/// machine that decides when this happens. It is also what is left of the TTL after the lease, so
/// that within this bound nobody else can have the lock.
pub const LATE: Duration = Duration::from_secs(1);

/// What is said of a gap.
const GAP: &str = "Nomad dropped events of a task";

/// What was noted of a run.
pub struct Evidence {
    pub kind: Kind,
    pub changes: Vec<Change>,
    pub arrivals: Vec<Arrival>,
    pub bodies: HashMap<String, Vec<u8>>,
    pub wire: wire::Heard,
    pub leases: HashMap<String, Lease>,
    /// Who had the lock since when.
    pub holders: Vec<(Instant, Option<String>)>,
    /// What `.cursor` and `.value` held since when.
    pub cursors: Vec<(Instant, Option<Vec<u8>>)>,
    pub values: Vec<(Instant, Option<Vec<u8>>)>,
    /// When copies were woken that had been suspended.
    pub woken: Vec<(Instant, usize)>,
    /// When a position may go back once: Nomad was set back, or the checkpoint corrupted.
    pub backs: Vec<Instant>,
    /// What all copies logged.
    pub log: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub wrong: Vec<String>,
    pub delivered: usize,
    pub repeated: usize,
    /// States that Nomad replaced before they could be read, or task events that it dropped.
    pub unseen: usize,
    /// The most that anything was published after the term of its copy.
    pub latest: Duration,
    /// The most that anything was published after another copy had begun.
    pub overlap: Duration,
    /// Positions that were compared with what was confirmed.
    pub positions: usize,
}

impl Evidence {
    pub fn judge(&self) -> Verdict {
        let marks = self.changes.iter().enumerate().map(|(at, it)| (it.mark, at)).collect();
        let mut verdict = Verdict::default();
        self.delivered(&marks, &mut verdict);
        self.order(&marks, &mut verdict);
        self.positions(&marks, &mut verdict);
        self.terms(&mut verdict);
        verdict
    }

    /// Everything came that Nomad still holds, as it is; nothing else did; and gaps were reported.
    fn delivered(&self, marks: &HashMap<u64, usize>, verdict: &mut Verdict) {
        let reports: Vec<_> = self.log.lines().filter(|it| it.contains(GAP)).collect();
        let mut came = HashSet::new();
        for (id, body) in &self.bodies {
            match find(marks, id) {
                Some(number) if self.is_intact(number, body) => drop(came.insert(number)),
                Some(number) => {
                    came.insert(number);
                    let is = String::from_utf8_lossy(body);
                    let was = &self.changes[number].body;
                    verdict.wrong.push(format!("{id} differs: {was} came as {is}"));
                }
                None => verdict.wrong.push(format!("{id} came, and nobody knows why")),
            }
        }
        for (number, change) in self.changes.iter().enumerate() {
            if came.contains(&number) {
                continue;
            }
            if change.until.is_none() {
                verdict.wrong.push(format!("change {number} never came: {change:?}"));
                continue;
            }
            verdict.unseen += 1;
            let reported = |it: &Change| {
                reports.iter().any(|line| line.contains(&it.object)) || self.is_unknown(it.until)
            };
            if self.kind == Kind::TaskEvents && !reported(change) {
                verdict.wrong.push(format!("change {number} is a gap that nobody reported"));
            }
        }
        verdict.delivered = came.len();
        let mut seen = HashSet::new();
        let firsts = self.arrivals.iter().filter(|it| !it.again && !seen.insert(&it.id));
        verdict.repeated = firsts.count();
    }

    fn is_intact(&self, number: usize, body: &[u8]) -> bool {
        let change = &self.changes[number];
        let Ok(came) = serde_json::from_slice::<Value>(body) else { return false };
        match self.kind {
            Kind::Evaluations => came == change.body,
            Kind::TaskEvents => {
                let event = came["TaskEvent"].as_object();
                let issued = change.body.as_object().unwrap();
                came["AllocationID"] == change.object.as_str()
                    && came["TaskName"] == "main"
                    && came["TaskState"] == "running"
                    && event.is_some_and(|event| {
                        issued.iter().all(|(key, value)| event.get(key) == Some(value))
                            && event
                                .iter()
                                .all(|(key, value)| issued.contains_key(key) || is_zero(value))
                    })
            }
        }
    }

    /// While the checkpoint is damaged, of which an error tells, and until a list was read whole
    /// since, nobody knows what was published before, nor so what is missing.
    fn is_unknown(&self, dropped: Option<Instant>) -> bool {
        let ends = self.cursors.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        self.log.contains("our checkpoint cannot be read")
            && self.cursors.iter().zip(ends).any(|((since, cursor), until)| {
                let is_damaged = |it: &[u8]| parse(it).is_none_or(|(floor, _)| floor == 0);
                let is_damaged = cursor.as_deref().is_some_and(is_damaged);
                let within =
                    dropped.is_some_and(|it| it >= *since && until.is_none_or(|until| it <= until));
                is_damaged && within
            })
    }

    /// What comes of an object for the first time comes in order, unless the newer state comes once
    /// more; and its last state comes last.
    fn order(&self, marks: &HashMap<u64, usize>, verdict: &mut Verdict) {
        let mut newest: HashMap<&str, usize> = HashMap::new();
        let mut last: HashMap<&str, usize> = HashMap::new();
        let mut seen = HashSet::new();
        let mut late: Vec<(usize, usize)> = Vec::new();
        for Arrival { id, again, .. } in &self.arrivals {
            let Some(number) = find(marks, id) else { continue };
            let object = &*self.changes[number].object;
            if !again {
                last.insert(object, number);
            }
            if seen.insert(number) {
                let before = newest.insert(object, number);
                if let Some(before) = before.filter(|it| *it > number) {
                    newest.insert(object, before);
                    late.push((number, before));
                }
            }
            // It, or what is newer, has come once more since.
            late.retain(|(late, before)| {
                let again = *before <= number && self.changes[*before].object == object;
                if again && !self.was_skipped(*late, *before) {
                    verdict.wrong.push(out_of_order(*late, *before));
                }
                !again
            });
        }
        verdict.wrong.extend(late.into_iter().map(|(late, before)| out_of_order(late, before)));
        let mut held: HashMap<&str, usize> = HashMap::new();
        for (number, change) in self.changes.iter().enumerate() {
            if change.until.is_none() {
                held.insert(&change.object, number);
            }
        }
        for (object, number) in held {
            if last.get(object).is_some_and(|it| *it != number) {
                let last = last[object];
                verdict.wrong.push(format!("of {object}, {last} came last, and not {number}"));
            }
        }
    }

    /// Whether a state is older than one that came before because the copy that published the
    /// newer one had not seen it, and was gone before it could save that: whoever takes over finds
    /// both in the event stream.
    fn was_skipped(&self, number: usize, before: usize) -> bool {
        let first = |number: usize| {
            let mark = self.changes[number].mark;
            self.wire.published.iter().find(|(.., id)| mark_of(id) == Some(mark))
        };
        let (Some((newer, ..)), Some((older, copy, _))) = (first(before), first(number)) else {
            return false;
        };
        let Some(acquired) = self.acquired(*copy, *older).filter(|it| it > newer) else {
            return false;
        };
        let index = self.changes[before].index;
        let saved = self.cursors.iter().rev().find(|(at, _)| *at <= acquired);
        let saved = saved.and_then(|(_, it)| parse(it.as_deref()?));
        let is_saved = saved.is_some_and(|(floor, above)| floor >= index || above.contains(&index));
        self.kind == Kind::Evaluations && !is_saved
    }

    /// No position is beyond what was confirmed, nor goes back without a reason.
    fn positions(&self, marks: &HashMap<u64, usize>, verdict: &mut Verdict) {
        let mut confirmed: HashMap<usize, Instant> = HashMap::new();
        for (id, at) in &self.wire.confirmed {
            if let Some(number) = find(marks, id) {
                confirmed.entry(number).and_modify(|it| *it = *at.min(it)).or_insert(*at);
            }
        }
        let durable = |number: usize, at| confirmed.get(&number).is_some_and(|it| *it <= at);
        let mut backs = self.backs.clone();
        let mut before = 0;
        for (at, cursor) in &self.cursors {
            let Some((floor, above)) = cursor.as_deref().and_then(parse) else { continue };
            verdict.positions += 1;
            if floor < before && !take_back(&mut backs, *at) {
                verdict.wrong.push(format!("the floor went back from {before} to {floor}"));
            }
            before = floor;
            for (number, change) in self.changes.iter().enumerate() {
                let gone = change.until.is_some_and(|it| it <= *at);
                if change.index <= floor && !gone && !durable(number, *at) {
                    let sent = self
                        .wire
                        .published
                        .iter()
                        .filter(|(.., id)| mark_of(id) == Some(change.mark));
                    let sent: Vec<_> =
                        sent.map(|(when, copy, _)| (copy, apart(*when, *at))).collect();
                    let came = confirmed.get(&number).map(|it| apart(*it, *at));
                    let what = format!("the floor is {floor}, and change {number} unconfirmed");
                    let when =
                        format!("published at {sent:?} and confirmed at {came:?} ms from it");
                    verdict.wrong.push(format!("{what}, {when}: {change:?}"));
                }
            }
            // For objects it names single changes beyond the floor.
            for index in above.iter().filter(|_| self.kind == Kind::Evaluations) {
                if !marks.get(index).is_some_and(|number| durable(*number, *at)) {
                    verdict.wrong.push(format!("{index} is said to be durable, unconfirmed"));
                }
            }
        }
        let mut backs = self.backs.clone();
        let mut before = 0;
        for (at, value) in &self.values {
            let Some(value) = value.as_deref().and_then(number) else { continue };
            verdict.positions += 1;
            if value < before && !take_back(&mut backs, *at) {
                verdict.wrong.push(format!("the value went back from {before} to {value}"));
            }
            before = value;
            if self.kind == Kind::TaskEvents {
                let reached = confirmed
                    .iter()
                    .any(|(number, when)| when <= at && self.changes[*number].mark >= value);
                if value > 0 && !reached {
                    verdict.wrong.push(format!("no event as late as {value} is confirmed"));
                }
            }
        }
    }

    /// Nothing is published beyond a term, but for what was under way.
    fn terms(&self, verdict: &mut Verdict) {
        let lost = self.lost();
        let mut turn: Option<(Instant, usize, Instant)> = None;
        for (at, copy, id) in &self.wire.published {
            let own = self.leases.iter().filter(|(_, it)| it.copy == *copy);
            let over = own.clone().filter_map(|(session, lease)| {
                before(&lease.acquired, *at)?;
                let until = before(&lease.renewed, *at)? + LEASE;
                let until = lost.get(&**session).map_or(until, |it| until.min(*it));
                Some(at.saturating_duration_since(until))
            });
            let woken = self.woken.iter().filter(|(when, who)| who == copy && when <= at);
            let woken = woken.map(|(when, _)| *at - *when);
            match over.min() {
                None => {
                    let own: Vec<_> = self.leases.iter().filter(|it| it.1.copy == *copy).collect();
                    let what = format!("copy {copy} published {id} without a lock at {at:?}");
                    verdict.wrong.push(format!("{what}; it had {own:?}"));
                }
                Some(over) => {
                    let over = woken.min().map_or(over, |it| it.min(over));
                    verdict.latest = verdict.latest.max(over);
                    if over > LATE {
                        let what = format!("copy {copy} published {id} {over:?} after its term");
                        verdict.wrong.push(what);
                    }
                }
            }
            // The one that took the lock last is the one to publish.
            let acquired = self.acquired(*copy, *at);
            let Some(acquired) = acquired else { continue };
            match &turn {
                Some((began, who, first)) if acquired < *began && who != copy => {
                    let overlap = *at - *first;
                    verdict.overlap = verdict.overlap.max(overlap);
                    if overlap > LATE {
                        let what = format!("copy {copy} published {id} {overlap:?} into the term");
                        verdict.wrong.push(format!("{what} of copy {who}"));
                    }
                }
                Some((began, who, _)) if acquired == *began && who == copy => (),
                _ => turn = Some((acquired, *copy, *at)),
            }
        }
    }

    /// When a copy last tried to take the lock before this.
    fn acquired(&self, copy: usize, at: Instant) -> Option<Instant> {
        let own = self.leases.values().filter(|it| it.copy == copy);
        own.filter_map(|it| before(&it.acquired, at)).max()
    }

    /// When each session no longer had the lock that it had.
    fn lost(&self) -> HashMap<&str, Instant> {
        let pairs = self.holders.windows(2);
        pairs.filter_map(|pair| Some((pair[0].1.as_deref()?, pair[1].0))).collect()
    }
}

/// The last of these that are not later; they are in order.
fn before(all: &[Instant], at: Instant) -> Option<Instant> {
    all.get(all.partition_point(|it| *it <= at).checked_sub(1)?).copied()
}

/// Milliseconds from one to the other, negative where it came before.
fn apart(one: Instant, other: Instant) -> i128 {
    let later = one.saturating_duration_since(other).as_millis();
    let earlier = other.saturating_duration_since(one).as_millis();
    i128::try_from(later).unwrap() - i128::try_from(earlier).unwrap()
}

fn find(marks: &HashMap<u64, usize>, id: &str) -> Option<usize> {
    marks.get(&mark_of(id)?).copied()
}

fn mark_of(id: &str) -> Option<u64> {
    id.split('/').nth(3)?.parse().ok()
}

fn out_of_order(number: usize, before: usize) -> String {
    format!("change {number} came after {before} of the same object")
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(it) => !it,
        Value::Number(it) => it.as_f64() == Some(0.0),
        Value::String(it) => it.is_empty(),
        Value::Array(it) => it.is_empty(),
        Value::Object(it) => it.is_empty(),
    }
}

/// The earliest reason for a position to go back that there is by now, which is used up.
fn take_back(backs: &mut Vec<Instant>, at: Instant) -> bool {
    let found = backs.iter().position(|it| *it <= at);
    found.map(|it| backs.remove(it)).is_some()
}

fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// The floor of a checkpoint and the indexes that it has above; `None` where it cannot be read.
pub fn parse(bytes: &[u8]) -> Option<(u64, Vec<u64>)> {
    let (Saved::Ours(cursor), _) = decode(Some(bytes), &[], None) else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    let head: Value = serde_json::from_str(text.splitn(3, ' ').nth(2)?).ok()?;
    let above = head["above"].as_array()?.iter().filter_map(|it| it[1].as_u64()).collect();
    Some((cursor.floor().0, above))
}
