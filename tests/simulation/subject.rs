//! What changes in a simulation: objects of a stream, whose states are numbered.

use nomad_firehose::{
    cursor::{Cursor, Kind, Task},
    record::json,
    streams::{Allocations, Evaluations, Jobs, Resource},
};
use serde_json::{Map, Value, json};

use crate::support::{Table, allocation, evaluation, job, uuid};

/// So many objects there are.
pub const OBJECTS: u8 = 4;
/// Nomad keeps so many events of a task.
const KEPT: usize = 10;

/// A state of an object. Of an allocation it is a task event, and those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Grows with every change of any object.
    pub number: i64,
    /// The index at which it was committed.
    pub index: u64,
    /// Whether it was committed at an index that readers may have seen.
    pub again: bool,
    /// Whether the clock of the node had stepped back.
    pub early: bool,
}

impl State {
    /// When the event of this number happened, as its node says.
    fn time(self) -> i64 {
        let second = 1_000_000_000;
        self.number * 1_000 + if self.early { 0 } else { second }
    }
}

/// A stream whose objects can be made, and told apart.
pub trait Subject: Resource {
    /// Where they are.
    const TABLE: Table;

    /// An object after these states.
    fn row(object: u8, states: &[State]) -> Map<String, Value>;

    /// Which state a payload shows.
    fn number(body: &Value) -> Option<i64>;

    /// What a payload must have, if it is of the last of these states.
    fn shows(object: u8, states: &[State]) -> Map<String, Value> {
        Self::row(object, states)
    }

    /// The states that Nomad still has, so that each of them is to be published.
    fn held(states: &[State]) -> &[State] {
        match Self::KIND {
            Kind::Objects => &states[states.len().saturating_sub(1)..],
            Kind::TaskEvents => &states[states.len().saturating_sub(KEPT)..],
        }
    }

    /// The number of the last state that a position says is published.
    fn covered(cursor: &Cursor, object: u8, states: &[State]) -> i64 {
        covered_object(cursor, &Self::id(object), states)
    }

    /// An object's id.
    fn id(object: u8) -> String {
        uuid(&name(object))
    }
}

/// Whether the filter of a simulation leaves a state out.
pub fn left_out(number: i64) -> bool {
    number % 3 == 0
}

/// The same in the language of filters.
pub fn filter<R: Resource>() -> &'static str {
    match R::KIND {
        Kind::Objects => "int(data.Status) % 3 != 0",
        Kind::TaskEvents => "int(data.TaskEvent.Message) % 3 != 0",
    }
}

fn name(object: u8) -> String {
    format!("o{object}")
}

/// The object that a subject, an id or a key is of.
pub fn object_of<R: Subject>(text: &str) -> Option<u8> {
    (0..OBJECTS).find(|it| text.split('/').any(|part| part == R::id(*it)))
}

fn status(states: &[State]) -> String {
    states.last().map_or(0, |it| it.number).to_string()
}

impl Subject for Evaluations {
    const TABLE: Table = Table::Evaluations;

    fn row(object: u8, states: &[State]) -> Map<String, Value> {
        evaluation(&name(object), "default", &status(states))
    }

    fn number(body: &Value) -> Option<i64> {
        body["Status"].as_str()?.parse().ok()
    }
}

impl Subject for Jobs {
    const TABLE: Table = Table::Jobs;

    fn row(object: u8, states: &[State]) -> Map<String, Value> {
        job(&name(object), "default", &status(states))
    }

    fn number(body: &Value) -> Option<i64> {
        body["Status"].as_str()?.parse().ok()
    }

    fn id(object: u8) -> String {
        name(object)
    }
}

impl Subject for Allocations {
    const TABLE: Table = Table::Allocations;

    fn row(object: u8, states: &[State]) -> Map<String, Value> {
        let mut row = allocation(&name(object), &[]);
        let first = states.first().map(|it| it.number);
        let event = |it: &State| {
            let kind = if Some(it.number) == first { "Received" } else { "Driver" };
            event(*it, kind)
        };
        row["TaskStates"]["main"]["Events"] = Self::held(states).iter().map(event).collect();
        row
    }

    fn number(body: &Value) -> Option<i64> {
        body["TaskEvent"]["Message"].as_str()?.parse().ok()
    }

    fn shows(object: u8, states: &[State]) -> Map<String, Value> {
        let row = Self::row(object, states);
        let last = row["TaskStates"]["main"]["Events"].as_array().and_then(|it| it.last());
        let (id, name) = (row["ID"].clone(), row["Name"].clone());
        let shows =
            json!({"AllocationID": id, "Name": name, "TaskName": "main", "TaskEvent": last});
        crate::support::object(shows)
    }

    fn covered(cursor: &Cursor, object: u8, states: &[State]) -> i64 {
        let tail = cursor.tail(Task::new(&Self::id(object), "main"));
        let last = states.last().filter(|it| it.index < cursor.floor().0);
        match tail {
            Some(tail) => states.iter().rfind(|it| it.time() == tail.time),
            None => last,
        }
        .map_or(0, |it| it.number)
    }
}

fn event(state: State, kind: &str) -> Value {
    let (time, message) = (state.time(), state.number.to_string());
    json!({"Type": kind, "Time": time, "Message": message, "FailsTask": false})
}

/// Of two states at one index only the first counts, since the position names the index.
fn covered_object(cursor: &Cursor, id: &str, states: &[State]) -> i64 {
    let floor = cursor.floor().0;
    let above = cursor.object(json::name(&format!("default/{id}"))).map(|(index, _)| index.0);
    let covers = |it: &&State| {
        it.index < floor
            || it.index == floor && !cursor.floor_is_known() && !it.again
            || above.is_some_and(|index| it.index < index || it.index == index && !it.again)
    };
    states.iter().rfind(covers).map_or(0, |it| it.number)
}
