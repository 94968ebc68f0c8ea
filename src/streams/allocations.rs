//! Task events of allocations: each is published once, with what the list says of its task and
//! its allocation, in the shape of the Go tool.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{BadElement, Change, Envelope, Event, Found, Gap, Mode, task_update::DOCUMENTED};
use crate::{
    cursor::{Index, Mark, Task, allocation},
    dedupe::{EVENTS_KEPT, NewEvents, Seal, Seen},
    error::without_values,
    record::json::{self, Alike, MemberHash, ObjectHash},
};

/// What a time that is not set is called, whatever the server calls it.
const ZERO_TIME: &str = r#""0001-01-01T00:00:00Z""#;

/// What a node says of an allocation that has ended, and the servers of one that is to end.
const ENDS: [&str; 3] = [r#""complete""#, r#""failed""#, r#""lost""#];
const STOPS: [&str; 2] = [r#""stop""#, r#""evict""#];

type Raw<'a> = Option<&'a RawValue>;

/// What is decoded of an allocation. Texts stay as they are written.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allocation<'a> {
    #[serde(borrow, rename = "ID")]
    id: Cow<'a, str>,
    modify_index: u64,
    #[serde(borrow)]
    name: Raw<'a>,
    #[serde(borrow, rename = "NodeID")]
    node_id: Raw<'a>,
    #[serde(borrow)]
    desired_status: Raw<'a>,
    #[serde(borrow)]
    desired_description: Raw<'a>,
    #[serde(borrow)]
    client_status: Raw<'a>,
    #[serde(borrow)]
    client_description: Raw<'a>,
    #[serde(borrow, rename = "JobID")]
    job_id: Raw<'a>,
    #[serde(borrow)]
    task_group: Raw<'a>,
    #[serde(borrow, rename = "EvalID")]
    eval_id: Raw<'a>,
    #[serde(borrow)]
    namespace: Raw<'a>,
    /// By task; Nomad's own order is random.
    #[serde(borrow)]
    task_states: Option<BTreeMap<Cow<'a, str>, Option<TaskState<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskState<'a> {
    #[serde(borrow)]
    state: Raw<'a>,
    #[serde(borrow)]
    failed: Raw<'a>,
    #[serde(borrow)]
    started_at: Raw<'a>,
    #[serde(borrow)]
    finished_at: Raw<'a>,
    #[serde(borrow)]
    events: Option<Vec<&'a RawValue>>,
}

/// An event as written, and what was found in it.
struct Shown<'a> {
    text: &'a str,
    seal: Seal,
    kind: Cow<'a, str>,
    /// A bit for each of [`DOCUMENTED`] that it has.
    has: u32,
}

/// What was found in a member of an event.
#[derive(Clone, Copy)]
struct Member<'a> {
    name: Name<'a>,
    hash: MemberHash,
    /// The bit of its key.
    has: u32,
}

/// A member that is looked into, with its value.
#[derive(Clone, Copy)]
enum Name<'a> {
    Time(&'a [u8]),
    Type(&'a [u8]),
    Other,
}

/// The new task events that an allocation shows.
pub(super) fn task_events(
    element: &[u8],
    seen: &Seen,
    mode: Mode,
    _: &[&str],
) -> Result<Found, BadElement> {
    let alloc = match Allocation::read(element) {
        Ok(alloc) => alloc,
        Err(why) => return unreadable(element, seen, mode, why),
    };
    let (id, index) = (&*alloc.id, Index(alloc.modify_index));
    let mut found = place(id, index, seen, mode);
    if is_old(index, seen, mode) {
        return Ok(found);
    }
    let bad = |why: String| BadElement { object: format!("allocation {id}"), why };
    let namespace = alloc.namespace().map_err(|err| bad(without_values(&err)))?;
    let shared: Arc<str> = Arc::from(id);
    let mut known = Alike::default();
    let terminal =
        ENDS.contains(&text(alloc.client_status)) || STOPS.contains(&text(alloc.desired_status));
    for (name, state) in alloc.task_states.iter().flatten() {
        let Some(state) = state else { continue };
        let task = Task::new(id, name);
        let texts = state.events.as_deref().unwrap_or_default();
        let mut events = Vec::with_capacity(texts.len());
        for text in texts {
            let event = show(text.get(), &mut known)
                .map_err(|why| bad(format!("an event of task `{name}` has {why}")))?;
            events.push(event);
        }
        let seals: Vec<Seal> = events.iter().map(|it| it.seal).collect();
        let NewEvents { from, gap, silent } = seen.events(task, index, &seals);
        if let (true, Some(last)) = (silent, seals.last()) {
            found.silent.push(Mark::Task(task, last.tail(index, terminal)));
        }
        // Nomad drops the oldest events; a full set that does not begin at the beginning tells of
        // some that were never read.
        // At the very first start that is history, and no loss.
        let dropped = from == 0
            && seen.floor() > Index(0)
            && events.len() >= EVENTS_KEPT
            && events.first().is_some_and(|it| it.kind != "Received");
        if (gap || dropped) && mode != Mode::Regressed {
            found.gaps.push(Gap { allocation: id.to_owned(), task: name.to_string() });
        }
        let new = events.get(from..).unwrap_or_default();
        let shared_task: Arc<str> = Arc::from(&**name);
        found.changes.reserve(new.len());
        for (event, body) in new.iter().zip(encode(&alloc, name, state, new)) {
            let Seal { time, hash, .. } = event.seal;
            found.changes.push(Change {
                index,
                id: shared.clone(),
                namespace: namespace.clone(),
                mark: Mark::Task(task, event.seal.tail(index, terminal)),
                body: Some(body),
                event: Some(Event {
                    task: shared_task.clone(),
                    kind: event.kind.as_ref().into(),
                    time,
                    hash,
                }),
                time: Some(time),
                recheck: false,
            });
        }
    }
    Ok(found)
}

/// An allocation, before it is known what it shows.
fn place(id: &str, index: Index, seen: &Seen, mode: Mode) -> Found {
    let object = allocation(id);
    let reverted = mode == Mode::Usual && seen.is_set_back(object, index);
    Found { object, index, reverted, ..Found::default() }
}

fn is_old(index: Index, seen: &Seen, mode: Mode) -> bool {
    mode != Mode::Regressed && seen.is_below_floor(index)
}

/// What is to be said of an allocation that cannot be read: nothing where it is an old one, of
/// which the envelope is enough.
fn unreadable(element: &[u8], seen: &Seen, mode: Mode, why: String) -> Result<Found, BadElement> {
    let envelope = Envelope::read(element)?;
    let index = Index(envelope.modify_index);
    if is_old(index, seen, mode) {
        return Ok(place(&envelope.id, index, seen, mode));
    }
    Err(BadElement { object: format!("allocation {}", envelope.id), why })
}

impl<'a> Allocation<'a> {
    /// Reads an allocation; the whole text is checked to be JSON in UTF-8.
    fn read(element: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(element).map_err(|err| err.to_string())?;
        let alloc: Self = serde_json::from_str(text).map_err(|err| without_values(&err))?;
        if alloc.id.is_empty() { Err("its ID is empty".to_owned()) } else { Ok(alloc) }
    }

    /// The namespace; empty where it has none.
    fn namespace(&self) -> serde_json::Result<Arc<str>> {
        let text: Option<Cow<'_, str>> = serde_json::from_str(or(self.namespace, "null"))?;
        Ok(text.unwrap_or_default().into())
    }
}

/// Looks through an event once: what identifies it, and which documented keys it has.
fn show<'a>(text: &'a str, known: &mut Alike<'a, Member<'a>>) -> Result<Shown<'a>, String> {
    if !text.starts_with('{') {
        return Err("no object".to_owned());
    }
    let (mut time, mut kind, mut has) = (Ok(0), Cow::Borrowed(""), 0);
    let mut hash = ObjectHash::default();
    let look = |key: &'a [u8], value: &'a [u8]| Member {
        name: match key {
            b"Time" => Name::Time(value),
            b"Type" => Name::Type(value),
            _ => Name::Other,
        },
        hash: MemberHash::of(key, value),
        has: DOCUMENTED.iter().position(|it| it.0.as_bytes() == key).map_or(0, |at| 1 << at),
    };
    known.members(text.as_bytes(), look, |member| {
        hash.add(member.hash);
        has |= member.has;
        match member.name {
            Name::Time(value) => {
                let text = String::from_utf8_lossy(value);
                time = text.parse().map_err(|_| format!("a Time that is no integer: {text}"));
            }
            Name::Type(value) => kind = string(value),
            Name::Other => (),
        }
    });
    let seal = Seal { time: time?, kind: json::name(&kind) as u32, hash: hash.finish() };
    Ok(Shown { text, seal, kind, has })
}

/// The content of a JSON string; empty for any other value.
fn string(value: &[u8]) -> Cow<'_, str> {
    let inner = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
    match json::unescaped(inner.unwrap_or_default()) {
        Cow::Borrowed(text) => String::from_utf8_lossy(text),
        Cow::Owned(text) => Cow::Owned(String::from_utf8_lossy(&text).into_owned()),
    }
}

/// A document for each event of a task, with its keys in the Go tool's order. They are put
/// together from the texts that Nomad sent, so that every number and string stays as it was
/// written, and share one piece of memory.
fn encode(
    alloc: &Allocation<'_>,
    task: &str,
    state: &TaskState<'_>,
    events: &[Shown<'_>],
) -> Vec<Bytes> {
    let (id, task) = (json::quoted(&alloc.id), json::quoted(task));
    let fields = [
        ("Name", text(alloc.name)),
        ("NodeID", text(alloc.node_id)),
        ("AllocationID", &id),
        ("DesiredStatus", text(alloc.desired_status)),
        ("DesiredDescription", text(alloc.desired_description)),
        ("ClientStatus", text(alloc.client_status)),
        ("ClientDescription", text(alloc.client_description)),
        ("JobID", text(alloc.job_id)),
        ("GroupName", text(alloc.task_group)),
        ("TaskName", &task),
        ("EvalID", text(alloc.eval_id)),
        ("TaskState", text(state.state)),
        ("TaskFailed", or(state.failed, "false")),
        ("TaskStartedAt", time(state.started_at)),
        ("TaskFinishedAt", time(state.finished_at)),
    ];
    let before = fields.map(|(key, value)| format!(r#""{key}":{value}"#)).join(",");
    let before = format!(r#"{{{before},"TaskEvent":"#);
    let after = format!(r#","Namespace":{}}}"#, text(alloc.namespace));
    let filled = |it| lacking(it).map(|(key, zero)| key.len() + zero.len() + 4).sum::<usize>();
    let size = |it: &Shown<'_>| before.len() + it.text.len() + filled(it.has) + after.len();
    let mut out = BytesMut::with_capacity(events.iter().map(size).sum());
    events
        .iter()
        .map(|event| {
            out.extend_from_slice(before.as_bytes());
            push_event(&mut out, event);
            out.extend_from_slice(after.as_bytes());
            out.split().freeze()
        })
        .collect()
}

/// The event as written, and the documented keys that it lacks.
fn push_event(out: &mut BytesMut, event: &Shown<'_>) {
    let open = event.text.trim_end().strip_suffix('}').unwrap_or(event.text).trim_end();
    out.extend_from_slice(open.as_bytes());
    let mut first = open.ends_with('{');
    for (key, zero) in lacking(event.has) {
        let start = if first { "\"" } else { ",\"" };
        for part in [start, key, "\":", zero] {
            out.extend_from_slice(part.as_bytes());
        }
        first = false;
    }
    out.extend_from_slice(b"}");
}

/// The documented keys whose bits are not set, with their zero values.
fn lacking(has: u32) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lacks = move |at: &usize| has & (1 << at) == 0;
    (0..DOCUMENTED.len()).filter(lacks).map(|at| DOCUMENTED[at])
}

fn text(value: Raw<'_>) -> &str {
    or(value, r#""""#)
}

fn or<'a>(value: Raw<'a>, zero: &'a str) -> &'a str {
    value.map(RawValue::get).filter(|it| *it != "null").unwrap_or(zero)
}

fn time(value: Raw<'_>) -> &str {
    let text = or(value, ZERO_TIME);
    if text.starts_with("\"0001-01-01T00:00:00") || text == r#""""# { ZERO_TIME } else { text }
}
