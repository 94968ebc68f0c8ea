//! Objects as events show them: in the old version by another encoder than that of the HTTP API, allocations in their
//! full form.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::{
    super::{Table, Version, state::Object},
    batch::Form,
};

/// What Go's own encoder makes of a time that was not set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// The members that are times, wherever they are.
const TIMES: [&str; 6] =
    ["FinishedAt", "LastRestart", "RequireProgressBy", "StartedAt", "Timestamp", "WaitUntil"];
/// The key that signs the identities of tasks, of which the newer version names one in every allocation.
const SIGNING_KEY: &str = "e0b5875d-4050-5333-21b4-ac0f0a6c5537";
/// The members of an allocation that only the list shows.
const LISTED_ONLY: [&str; 2] = ["JobVersion", "JobType"];

/// The object itself, encoded.
pub(super) fn object(
    version: Version,
    table: Table,
    form: Form,
    object: &Object,
    index: u64,
) -> Bytes {
    if version == Version::V2_0 && table != Table::Allocations && form != Form::Repeated {
        return object.body.clone();
    }
    if (version, table) == (Version::V2_0, Table::Allocations) {
        return allocation(&object.fields);
    }
    let mut fields = object.fields.clone();
    if form == Form::Repeated {
        fields.insert("LastAllocUpdateIndex".to_owned(), index.into());
    }
    if table == Table::Allocations {
        fields.retain(|name, _| !LISTED_ONLY.contains(&name.as_str()));
        let created = fields.get("CreateIndex").cloned().unwrap_or_default();
        fields.entry("AllocModifyIndex").or_insert(created);
        add(&mut fields, (*FULL_ALLOCATION).clone());
    }
    match (version, table) {
        (Version::V1_0, Table::Allocations) => add(&mut fields, old_allocation()),
        (Version::V1_0, Table::Evaluations) => add(&mut fields, old_evaluation()),
        _ => {}
    }
    let mut value = Value::Object(fields);
    match version {
        Version::V2_0 => value.to_string().into(),
        Version::V1_0 => {
            set_times(&mut value);
            escape(&value.to_string()).into()
        }
    }
}

/// An allocation as the newer version shows it, without a copy of it: there can be thousands in a second.
fn allocation(fields: &Map<String, Value>) -> Bytes {
    let own = fields.iter().filter(|(name, _)| !LISTED_ONLY.contains(&name.as_str()));
    let mut shown: BTreeMap<&str, &Value> = own.map(|(name, value)| (&**name, value)).collect();
    if let Some(created) = fields.get("CreateIndex") {
        shown.entry("AllocModifyIndex").or_insert(created);
    }
    for (name, value) in FULL_ALLOCATION.as_object().into_iter().flatten() {
        if shown.get(&**name).is_none_or(|it| it.is_null()) {
            shown.insert(name, value);
        }
    }
    let key = Value::from(SIGNING_KEY);
    shown.insert("SigningKeyID", &key);
    shown.retain(|_, value| !is_empty(value));
    // Values of JSON can always be encoded.
    serde_json::to_vec(&shown).unwrap_or_default().into()
}

/// Whether the newer version leaves a member out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.values().all(Value::is_null),
    }
}

/// Adds the members that are not there, or null.
fn add(fields: &mut Map<String, Value>, more: Value) {
    let Value::Object(more) = more else { return };
    for (name, value) in more {
        if fields.get(&name).is_none_or(Value::is_null) {
            fields.insert(name, value);
        }
    }
}

/// What the list does not show of an allocation.
static FULL_ALLOCATION: LazyLock<Value> = LazyLock::new(|| {
    let resources = json!({
        "CPU": 20,
        "Devices": null,
        "DiskMB": 20,
        "IOPS": 0,
        "MemoryMB": 16,
        "Networks": null,
    });
    json!({
        "AllocatedResources": { "Shared": { "DiskMB": 20 }, "Tasks": {} },
        "Metrics": {
            "AllocationTime": 41871,
            "ClassExhausted": null,
            "ClassFiltered": null,
            "CoalescedFailures": 0,
            "ConstraintFiltered": null,
            "DimensionExhausted": null,
            "NodesAvailable": { "dc1": 2 },
            "NodesEvaluated": 2,
            "NodesExhausted": 0,
            "NodesFiltered": 0,
            "QuotaExhausted": null,
            "ScoreMetaData": null,
            "Scores": null,
        },
        "Resources": resources,
        "SharedResources": resources,
        "TaskResources": { "t": resources },
    })
});

/// The members of an allocation that the old version shows though they are empty.
fn old_allocation() -> Value {
    json!({
        "AllocStates": null,
        "ClientDescription": "",
        "DeploymentID": "",
        "DeploymentStatus": null,
        "DesiredDescription": "",
        "FollowupEvalID": "",
        "Job": null,
        "NetworkStatus": null,
        "NextAllocation": "",
        "PreemptedAllocations": null,
        "PreemptedByAllocation": "",
        "PreviousAllocation": "",
        "RescheduleTracker": null,
        "TaskStates": null,
    })
}

/// The members of an evaluation that the old version shows though they are empty, among them some that the HTTP API does
/// not have.
fn old_evaluation() -> Value {
    json!({
        "AnnotatePlan": false,
        "BlockedEval": "",
        "ClassEligibility": null,
        "DeploymentID": "",
        "EscapedComputedClass": false,
        "FailedTGAllocs": null,
        "JobModifyIndex": 0,
        "LeaderACL": "",
        "NextEval": "",
        "NodeID": "",
        "NodeModifyIndex": 0,
        "PreviousEval": "",
        "QueuedAllocations": null,
        "QuotaLimitReached": "",
        "SnapshotIndex": 0,
        "StatusDescription": "",
        "Wait": 0,
        "WaitUntil": null,
    })
}

/// Writes out the times that were not set.
fn set_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Null if TIMES.contains(&name.as_str()) => *value = NO_TIME.into(),
                    _ => set_times(value),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(set_times),
        _ => {}
    }
}

/// Escapes as Go's own encoder does, which writes for web pages.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            _ => escaped.push(c),
        }
    }
    escaped
}
