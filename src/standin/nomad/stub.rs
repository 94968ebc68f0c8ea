//! The short forms that the node list and the job list show.

use serde_json::{Map, Value};

use super::{Version, state::Object};

const NODE: [&str; 11] = [
    "ID",
    "Datacenter",
    "Name",
    "NodeClass",
    "SchedulingEligibility",
    "Status",
    "StatusDescription",
    "Drivers",
    "HostVolumes",
    "CreateIndex",
    "ModifyIndex",
];
const NODE_SINCE_2_0: [&str; 2] = ["NodePool", "LastDrain"];
const JOB: [&str; 14] = [
    "ID",
    "ParentID",
    "Name",
    "Datacenters",
    "Multiregion",
    "Type",
    "Priority",
    "Stop",
    "Status",
    "StatusDescription",
    "CreateIndex",
    "ModifyIndex",
    "JobModifyIndex",
    "SubmitTime",
];
const JOB_SINCE_2_0: [&str; 1] = ["NodePool"];

/// A node in the list.
pub(super) fn node(version: Version, node: &Object) -> Value {
    let fields = &node.fields;
    let mut stub = choose(fields, &NODE);
    let address = fields.get("HTTPAddr").and_then(Value::as_str).unwrap_or_default();
    let address = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let of_attributes =
        fields.get("Attributes").and_then(|attributes| attributes.get("nomad.version"));
    insert(&mut stub, "Address", address);
    insert(&mut stub, "Version", of_attributes.cloned().unwrap_or_else(|| version.text().into()));
    insert(
        &mut stub,
        "Drain",
        set(fields, "DrainStrategy") || fields.get("Drain") == Some(&Value::Bool(true)),
    );
    insert(&mut stub, "NodeResources", Value::Null);
    insert(&mut stub, "ReservedResources", Value::Null);
    if version == Version::V2_0 {
        stub.extend(choose(fields, &NODE_SINCE_2_0));
        insert(&mut stub, "Attributes", Value::Null);
    }
    Value::Object(stub)
}

/// A job in the list. Version 1.0 names the namespace only where the request asked for all of them.
pub(super) fn job(
    version: Version,
    job: &Object,
    namespace: &str,
    wildcard: bool,
    summary: Value,
) -> Value {
    let fields = &job.fields;
    let mut stub = choose(fields, &JOB);
    insert(
        &mut stub,
        "Namespace",
        if wildcard || version == Version::V2_0 { namespace } else { "" },
    );
    insert(&mut stub, "Periodic", set(fields, "Periodic"));
    insert(&mut stub, "ParameterizedJob", set(fields, "ParameterizedJob"));
    insert(&mut stub, "JobSummary", summary);
    if version == Version::V2_0 {
        stub.extend(choose(fields, &JOB_SINCE_2_0));
        insert(&mut stub, "Meta", Value::Null);
    }
    Value::Object(stub)
}

fn choose(fields: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone()))).collect()
}

fn set(fields: &Map<String, Value>, key: &str) -> bool {
    fields.get(key).is_some_and(|value| !value.is_null())
}

fn insert(stub: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    stub.insert(key.to_owned(), value.into());
}
