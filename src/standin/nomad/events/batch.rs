//! What a write publishes.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use serde_json::{Value, json};

use super::{
    super::{
        Table, Version,
        state::{DEFAULT_NAMESPACE, Key, Object, State, Written},
    },
    payload,
    wanted::Wanted,
};

/// The events of one line.
pub(super) struct Batch {
    pub(super) index: u64,
    events: Vec<Event>,
}

/// What became of one object.
struct Event {
    table: Table,
    kind: &'static str,
    form: Form,
    object: Arc<Object>,
    /// The event as it is sent, made when somebody first wants it.
    text: OnceLock<Bytes>,
}

/// How an event shows its object.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    Whole,
    /// The last state of a job that is gone.
    Deleted,
    /// A node as it was, but for the index of its allocations.
    Repeated,
}

impl Table {
    pub(super) fn topic(self) -> &'static str {
        match self {
            Self::Allocations => "Allocation",
            Self::Nodes => "Node",
            Self::Evaluations => "Evaluation",
            Self::Jobs => "Job",
            Self::Deployments => "Deployment",
        }
    }
}

impl Batch {
    /// The batches of one write, in their order.
    ///
    /// Nodes and jobs that are written are a line of their own, what follows from them the next one. Where there are
    /// allocations, all is one line, as in an applied plan; so it is where an evaluation comes first, which has set the
    /// status of a job.
    pub(super) fn of_write(
        version: Version,
        state: &State,
        index: u64,
        written: &[Written],
    ) -> Vec<Self> {
        let mut batches = Vec::new();
        let (nodes, others): (Vec<_>, Vec<_>) =
            written.iter().partition(|it| it.table == Table::Nodes);
        if let Some(first) = nodes.first() {
            batches.push(Self::one(index, node_kind(version, first), &nodes));
        }
        let allocations: Vec<_> =
            others.iter().copied().filter(|it| it.table == Table::Allocations).collect();
        let Some(first) = others.first() else { return batches };
        if !allocations.is_empty() {
            let kind = allocation_kind(&allocations);
            let mut batch = Self::one(index, kind, &others);
            if (version, kind) == (Version::V2_0, ALLOCATION_UPDATED) {
                batch.repeat_nodes(state, &allocations);
            }
            batches.push(batch);
        } else if first.table == Table::Jobs {
            let kind = if is_stopped(&first.object)
                && !first.previous.as_deref().is_some_and(is_stopped)
            {
                "JobDeregistered"
            } else {
                "JobRegistered"
            };
            let (jobs, rest): (Vec<_>, Vec<_>) =
                others.iter().copied().partition(|it| it.table == Table::Jobs);
            batches.push(Self::one(index, kind, &jobs));
            if !rest.is_empty() {
                batches.push(Self::one(index, kind, &rest));
            }
        } else {
            let kind = match (first.table, &first.previous) {
                (Table::Deployments, None) => PLAN_RESULT,
                (Table::Deployments, Some(_)) => "DeploymentStatusUpdate",
                _ => "EvaluationUpdated",
            };
            batches.push(Self::one(index, kind, &others));
        }
        batches
    }

    /// The event of an object that was removed: of jobs only, and only of the newer version.
    pub(super) fn of_removal(
        version: Version,
        index: u64,
        table: Table,
        last: Arc<Object>,
    ) -> Option<Self> {
        let kind = "JobDeregistered";
        let event = Event { table, kind, form: Form::Deleted, object: last, text: OnceLock::new() };
        let told = table == Table::Jobs && version == Version::V2_0;
        told.then(|| Self { index, events: vec![event] })
    }

    /// The event of bookkeeping, which repeats a node.
    pub(super) fn of_touch(state: &State, index: u64, table: Table) -> Option<Self> {
        let object =
            state.table(table).objects.values().next().filter(|_| table == Table::Nodes)?;
        let (kind, form) = (NODE_EVENT, Form::Whole);
        let event = Event { table, kind, form, object: object.clone(), text: OnceLock::new() };
        Some(Self { index, events: vec![event] })
    }

    /// The line for somebody who wants some of it, without the line break.
    pub(super) fn line(&self, version: Version, wanted: &Wanted) -> Option<Bytes> {
        let mut line = Vec::new();
        for event in &self.events {
            let times = event.times(wanted);
            if times == 0 {
                continue;
            }
            let text = event.text.get_or_init(|| event.encode(version, self.index));
            for _ in 0..times {
                line.extend_from_slice(if line.is_empty() { b"" } else { b"," });
                line.extend_from_slice(text);
            }
        }
        if line.is_empty() {
            return None;
        }
        let start = format!("{{\"Index\":{},\"Events\":[", self.index);
        Some([start.as_bytes(), &line, b"]}"].concat().into())
    }

    fn one(index: u64, kind: &'static str, written: &[&Written]) -> Self {
        let event = |it: &&Written| Event {
            table: it.table,
            kind,
            form: Form::Whole,
            object: it.object.clone(),
            text: OnceLock::new(),
        };
        Self { index, events: written.iter().map(event).collect() }
    }

    /// Adds each node that the allocations are on, once.
    fn repeat_nodes(&mut self, state: &State, allocations: &[&Written]) {
        let mut ids: Vec<&str> = allocations.iter().map(|it| it.object.text("NodeID")).collect();
        ids.sort_unstable();
        ids.dedup();
        let nodes = &state.table(Table::Nodes).objects;
        let found = ids.iter().filter_map(|id| nodes.get(&Key::new("", id)));
        self.events.extend(found.map(|node| Event {
            table: Table::Nodes,
            kind: ALLOCATION_UPDATED,
            form: Form::Repeated,
            object: node.clone(),
            text: OnceLock::new(),
        }));
    }
}

const ALLOCATION_UPDATED: &str = "AllocationUpdated";
const NODE_EVENT: &str = "NodeStreamEvent";
const PLAN_RESULT: &str = "PlanResult";

fn is_stopped(job: &Object) -> bool {
    job.fields.get("Stop") == Some(&Value::Bool(true))
}

/// Whether a write changed one of these members.
fn changed(written: &Written, names: &[&str]) -> bool {
    let differs = |name: &&str| {
        written
            .previous
            .as_ref()
            .is_some_and(|previous| previous.fields.get(*name) != written.object.fields.get(*name))
    };
    names.iter().any(differs)
}

fn node_kind(version: Version, node: &Written) -> &'static str {
    if node.previous.is_none() {
        "NodeRegistration"
    } else if changed(node, &["DrainStrategy", "Drain"]) {
        "NodeDrain"
    } else if changed(node, &["SchedulingEligibility"]) {
        match version {
            Version::V1_0 => "NodeDrain",
            Version::V2_0 => "NodeEligibility",
        }
    } else {
        NODE_EVENT
    }
}

/// What writes allocations: a plan that places or stops some, the wish that they move, or the client.
fn allocation_kind(allocations: &[&Written]) -> &'static str {
    let planned = |it: &&Written| it.previous.is_none() || changed(it, &["DesiredStatus"]);
    if allocations.iter().any(planned) {
        PLAN_RESULT
    } else if allocations.iter().any(|it| changed(it, &["DesiredTransition"])) {
        "AllocationUpdateDesiredStatus"
    } else {
        ALLOCATION_UPDATED
    }
}

impl Event {
    fn namespace(&self) -> &str {
        match self.object.text("Namespace") {
            _ if self.table == Table::Nodes => "",
            "" => DEFAULT_NAMESPACE,
            namespace => namespace,
        }
    }

    /// The keys that are asked for beside the id.
    fn filter_keys(&self) -> Option<Vec<&str>> {
        match self.table {
            Table::Nodes | Table::Jobs => None,
            Table::Deployments => Some(vec![self.object.text("JobID")]),
            Table::Allocations | Table::Evaluations => {
                Some(vec![self.object.text("JobID"), self.object.text("DeploymentID")])
            }
        }
    }

    fn times(&self, wanted: &Wanted) -> usize {
        let mut keys = self.filter_keys().unwrap_or_default();
        keys.push(self.object.text("ID"));
        wanted.times(self.table.topic(), self.namespace(), &keys)
    }

    fn encode(&self, version: Version, index: u64) -> Bytes {
        let topic = self.table.topic();
        let object = payload::object(version, self.table, self.form, &self.object, index);
        let beside = match (version, self.table) {
            (Version::V2_0, Table::Jobs) => {
                format!(",\"Deleted\":{}", self.form == Form::Deleted)
            }
            (Version::V2_0, Table::Allocations) => {
                ",\"Timeout\":false,\"TimeoutReason\":\"\"".to_owned()
            }
            _ => String::new(),
        };
        let (key, namespace) = (json!(self.object.text("ID")), json!(self.namespace()));
        let (kind, keys) = (self.kind, json!(self.filter_keys()));
        let start = format!(
            "{{\"Topic\":\"{topic}\",\"Type\":\"{kind}\",\"Key\":{key},\"Namespace\":{namespace},\
             \"FilterKeys\":{keys},\"Index\":{index},\"Payload\":{{\"{topic}\":"
        );
        [start.as_bytes(), &object, beside.as_bytes(), b"}}"].concat().into()
    }
}
