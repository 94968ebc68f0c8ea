//! Task events of allocations: each is published once, with what the list says of its task and
//! its allocation, in the shape of the Go tool.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{BadElement, Change, Envelope, Event, Found, Gap, Mode};
use crate::{
    api::nomad::types,
    cursor::{Index, Mark, Task, allocation},
    dedupe::{EVENTS_KEPT, NewEvents, Seal, Seen},
    record::json::{self, ObjectHash},
};

/// A task event, with the allocation and the task it belongs to as they were read: a status may be
/// later than the event.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskUpdate {
    /// Name of the allocation: job, group and number.
    pub name: String,
    /// Node that the allocation is on.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// The allocation.
    #[serde(rename = "AllocationID")]
    pub allocation_id: String,
    /// What the servers want of the allocation.
    pub desired_status: String,
    /// Why they want it.
    pub desired_description: String,
    /// What the node says of the allocation.
    pub client_status: String,
    /// More of what the node says.
    pub client_description: String,
    /// Job of the allocation.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Task group of the allocation.
    pub group_name: String,
    /// The task.
    pub task_name: String,
    /// Evaluation that placed the allocation.
    #[serde(rename = "EvalID")]
    pub eval_id: String,
    /// State of the task: pending, running or dead.
    pub task_state: String,
    /// Whether the task has failed.
    pub task_failed: bool,
    /// When the task started, in RFC 3339; year 1 before that.
    pub task_started_at: String,
    /// When the task finished, in RFC 3339; year 1 before that.
    pub task_finished_at: String,
    /// The event as Nomad sent it.
    pub task_event: types::TaskEvent,
    /// Namespace of the job.
    pub namespace: String,
}

/// Every key of a task event that the Go tool documents, with its zero value: it is there although
/// a server leaves it out. Nomad itself never sends `DiskSize`.
pub(super) const DOCUMENTED: [(&str, &str); 22] = [
    ("Type", r#""""#),
    ("Time", "0"),
    ("FailsTask", "false"),
    ("RestartReason", r#""""#),
    ("SetupError", r#""""#),
    ("DriverError", r#""""#),
    ("DriverMessage", r#""""#),
    ("ExitCode", "0"),
    ("Signal", "0"),
    ("Message", r#""""#),
    ("KillReason", r#""""#),
    ("KillTimeout", "0"),
    ("KillError", r#""""#),
    ("StartDelay", "0"),
    ("DownloadError", r#""""#),
    ("ValidationError", r#""""#),
    ("DiskLimit", "0"),
    ("DiskSize", "0"),
    ("FailedSibling", r#""""#),
    ("VaultError", r#""""#),
    ("TaskSignalReason", r#""""#),
    ("TaskSignal", r#""""#),
];

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

/// The new task events that an element of the allocation list shows.
pub(super) fn task_events(
    element: &[u8],
    seen: &Seen,
    mode: Mode,
    _: &[&str],
) -> Result<Found, BadElement> {
    let envelope = Envelope::read(element)?;
    let index = Index(envelope.modify_index);
    let id = envelope.id;
    let mut found = Found { object: allocation(&id), index, ..Found::default() };
    found.reverted = mode == Mode::Usual && seen.is_set_back(found.object, index);
    if mode != Mode::Regressed && seen.is_below_floor(index) {
        return Ok(found);
    }
    let bad = |why: String| BadElement { object: format!("allocation {id}"), why };
    let alloc: Allocation<'_> =
        serde_json::from_slice(element).map_err(|err| bad(err.to_string()))?;
    let namespace: Arc<str> = envelope.namespace.as_deref().unwrap_or_default().into();
    let shared: Arc<str> = Arc::from(&*id);
    let terminal =
        ENDS.contains(&text(alloc.client_status)) || STOPS.contains(&text(alloc.desired_status));
    for (name, state) in alloc.task_states.iter().flatten() {
        let Some(state) = state else { continue };
        let task = Task::new(&id, name);
        let events = state.events.iter().flatten().map(|it| show(it.get()));
        let events = events
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| bad(format!("an event of task `{name}` has {why}")))?;
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
            found.gaps.push(Gap { allocation: id.to_string(), task: name.to_string() });
        }
        let shared_task: Arc<str> = Arc::from(&**name);
        for event in events.get(from..).unwrap_or_default() {
            let Seal { time, hash, .. } = event.seal;
            found.changes.push(Change {
                index,
                id: shared.clone(),
                namespace: namespace.clone(),
                mark: Mark::Task(task, event.seal.tail(index, terminal)),
                body: Some(encode(&alloc, &id, name, state, event)),
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

/// Looks through an event once: what identifies it, and which documented keys it has.
fn show(text: &str) -> Result<Shown<'_>, String> {
    if !text.starts_with('{') {
        return Err("no object".to_owned());
    }
    let (mut time, mut kind, mut has) = (Ok(0), Cow::Borrowed(""), 0);
    let mut hash = ObjectHash::default();
    // Servers send the keys in much the same order as they are documented in.
    let mut next = 0;
    json::members(text.as_bytes(), |key, value| {
        hash.add(key, value);
        let places = (next..DOCUMENTED.len()).chain(0..next);
        for at in places {
            if DOCUMENTED[at].0.as_bytes() == key {
                has |= 1 << at;
                next = at + 1;
                break;
            }
        }
        match key {
            b"Time" => {
                let text = String::from_utf8_lossy(value);
                time = text.parse().map_err(|_| format!("a Time that is no integer: {text}"));
            }
            b"Type" => kind = string(value),
            _ => (),
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

/// The document, with its keys in the Go tool's order. It is put together from the texts that
/// Nomad sent, so that every number and string stays as it was written.
fn encode(
    alloc: &Allocation<'_>,
    id: &str,
    task: &str,
    state: &TaskState<'_>,
    event: &Shown<'_>,
) -> Bytes {
    let (id, task) = (json::quoted(id), json::quoted(task));
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
    let mut out = String::with_capacity(event.text.len() + 768);
    for (i, (key, value)) in fields.into_iter().enumerate() {
        out.push_str(if i == 0 { "{\"" } else { ",\"" });
        out.push_str(key);
        out.push_str("\":");
        out.push_str(value);
    }
    out.push_str(",\"TaskEvent\":");
    push_event(&mut out, event);
    out.push_str(",\"Namespace\":");
    out.push_str(text(alloc.namespace));
    out.push('}');
    Bytes::from(out)
}

/// The event as written, and the documented keys that it lacks.
fn push_event(out: &mut String, event: &Shown<'_>) {
    let open = event.text.trim_end().strip_suffix('}').unwrap_or(event.text).trim_end();
    out.push_str(open);
    let mut first = open.ends_with('{');
    for (at, (key, zero)) in DOCUMENTED.iter().enumerate() {
        if event.has & (1 << at) == 0 {
            out.push_str(if first { "\"" } else { ",\"" });
            out.push_str(key);
            out.push_str("\":");
            out.push_str(zero);
            first = false;
        }
    }
    out.push('}');
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
