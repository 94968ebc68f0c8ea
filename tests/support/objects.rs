//! Objects of a cluster, as small as they can be.

use serde_json::{Map, Value};

use super::FaultySink;

/// An object from JSON.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

/// A node with this status.
pub fn node(id: &str, status: &str) -> Map<String, Value> {
    object(serde_json::json!({
        "ID": uuid(id), "Name": id, "Status": status, "Events": [], "Datacenter": "dc1",
    }))
}

/// An evaluation with this status.
pub fn evaluation(id: &str, namespace: &str, status: &str) -> Map<String, Value> {
    object(serde_json::json!({
        "ID": uuid(id), "Namespace": namespace, "JobID": "web", "Type": "service", "Status": status,
        "TriggeredBy": "job-register", "Priority": 50,
    }))
}

/// A job with this status.
pub fn job(id: &str, namespace: &str, status: &str) -> Map<String, Value> {
    object(serde_json::json!({
        "ID": id, "Name": id, "Namespace": namespace, "Type": "service", "Status": status, "Version": 0,
    }))
}

/// An allocation with one task, `main`, that has had events at these times.
pub fn allocation(id: &str, times: &[i64]) -> Map<String, Value> {
    let events: Vec<Value> = times.iter().map(|time| event(*time)).collect();
    object(serde_json::json!({
        "ID": uuid(id), "Name": format!("{id}.web[0]"), "Namespace": "default", "NodeID": uuid("n"),
        "JobID": "web", "TaskGroup": "web", "EvalID": uuid("e"), "DesiredStatus": "run",
        "DesiredDescription": "", "ClientStatus": "running", "ClientDescription": "",
        "TaskStates": {"main": {
            "State": "running", "Failed": false, "StartedAt": null, "FinishedAt": null,
            "Events": events,
        }},
    }))
}

/// A task event; the first of a task is `Received`.
fn event(time: i64) -> Value {
    let kind = if time % 1_000 == 1 { "Received" } else { "Driver" };
    serde_json::json!({"Type": kind, "Time": time, "Message": format!("at {time}"), "FailsTask": false})
}

/// The times of the task events that arrived, in order.
pub fn times(sink: &FaultySink) -> Vec<i64> {
    sink.bodies().iter().map(|it| it["TaskEvent"]["Time"].as_i64().unwrap()).collect()
}

/// A UUID for a short name.
pub fn uuid(name: &str) -> String {
    let mut digits: String = name.bytes().map(|it| format!("{it:02x}")).collect();
    digits.truncate(12);
    format!("00000000-0000-4000-8000-{digits:0>12}")
}

/// A node stub with this index.
pub fn stub(id: &str, index: u64) -> String {
    serde_json::json!({"ID": uuid(id), "ModifyIndex": index}).to_string()
}
