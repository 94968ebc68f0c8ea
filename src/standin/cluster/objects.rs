//! Whole objects, with every key that Nomad 2.0.5 gives them.

use serde_json::{Map, Value, json};

use super::clock::rfc3339;

pub(super) type Fields = Map<String, Value>;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// The fields of a JSON object.
pub(super) fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// The fields of several JSON objects; a single one would be too long for the macro.
fn joined(parts: impl IntoIterator<Item = Value>) -> Fields {
    parts.into_iter().flat_map(fields).collect()
}

/// What distinguishes a node.
pub(super) struct NodeSpec {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) address: &'static str,
}

pub(super) fn node(spec: &NodeSpec, now: u64) -> Fields {
    let NodeSpec { id, name, class, address } = spec;
    let driver = |name: &str| {
        json!({
            "Attributes": { format!("driver.{name}"): "true" },
            "Detected": true,
            "HealthDescription": "Healthy",
            "Healthy": true,
            "UpdateTime": rfc3339(now),
        })
    };
    let identity = json!({
        "ID": id,
        "SecretID": "",
        "Name": name,
        "Datacenter": "dc1",
        "HTTPAddr": format!("{address}:4646"),
        "TLSEnabled": false,
        "NodeClass": class,
        "NodePool": "default",
        "ComputedClass": format!("v1:{now}"),
        "CgroupParent": "nomad.slice",
        "IdentitySigningKeyID": "",
        "Attributes": {
            "arch": "x86",
            "cpu.numcores": "4",
            "driver.docker": "1",
            "kernel.name": "linux",
            "nomad.version": "2.0.5",
            "unique.hostname": name,
            "unique.network.ip-address": address,
        },
        "Meta": { "rack": class },
        "Links": { "consul": format!("dc1.{name}") },
        "Drivers": { "docker": driver("docker"), "raw_exec": driver("raw_exec") },
    });
    let resources = json!({
        "NodeResources": {
            "Cpu": { "CpuShares": 10400, "ReservableCpuCores": [0, 1, 2, 3], "TotalCpuCores": 4 },
            "Devices": null,
            "Disk": { "DiskMB": 258_019 },
            "MaxDynamicPort": 32000,
            "Memory": { "MemoryMB": 16384 },
            "MinDynamicPort": 20000,
            "Networks": [{ "CIDR": format!("{address}/32"), "Device": "eth0", "IP": address, "MBits": 1000, "Mode": "host" }],
            "NodeNetworks": null,
            "Processors": { "Topology": null },
        },
        "ReservedResources": {
            "Cpu": { "CpuShares": 0, "ReservedCpuCores": null },
            "Disk": { "DiskMB": 0 },
            "Memory": { "MemoryMB": 0 },
            "Networks": { "ReservedHostPorts": "" },
        },
        "HostNetworks": null,
        "HostVolumes": {},
        "CSIControllerPlugins": {},
        "CSINodePlugins": {},
        "GCVolumesOnNodeGC": false,
        "NodeMaxAllocs": 0,
    });
    let state = json!({
        "Drain": false,
        "DrainStrategy": null,
        "LastDrain": null,
        "SchedulingEligibility": "eligible",
        "Status": "ready",
        "StatusDescription": "",
        "StatusUpdatedAt": now / SECOND,
        "LastAllocUpdateIndex": 0,
        "LastMissedHeartbeatIndex": 0,
        "Events": [node_event("Cluster", "Node registered", now)],
    });
    joined([identity, resources, state])
}

pub(super) fn node_event(subsystem: &str, message: &str, now: u64) -> Value {
    json!({
        "CreateIndex": 0,
        "Details": null,
        "Message": message,
        "Subsystem": subsystem,
        "Timestamp": rfc3339(now),
    })
}

/// What distinguishes a job.
pub(super) struct JobSpec {
    pub(super) id: &'static str,
    pub(super) namespace: &'static str,
    pub(super) kind: &'static str,
    pub(super) group: &'static str,
    pub(super) task: &'static str,
    pub(super) image: &'static str,
    pub(super) count: usize,
}

pub(super) fn job(spec: &JobSpec, version: u64, now: u64) -> Fields {
    let identity = json!({
        "ID": spec.id,
        "Name": spec.id,
        "ParentID": "",
        "Namespace": spec.namespace,
        "Region": "global",
        "Type": spec.kind,
        "Priority": 50,
        "AllAtOnce": false,
        "Datacenters": ["dc1"],
        "NodePool": "default",
        "Meta": { "owner": "demo" },
        "ConsulNamespace": "",
        "VaultNamespace": "",
        "NomadTokenID": "",
        "DispatchIdempotencyToken": "",
        "Payload": null,
        "UI": null,
        "VersionTag": null,
    });
    let placement = json!({
        "Affinities": null,
        "Constraints": null,
        "Spreads": null,
        "Multiregion": null,
        "ParameterizedJob": null,
        "Periodic": null,
        "Dispatched": false,
        "TaskGroups": [group(spec, version)],
        "Update": update(0),
    });
    let state = json!({
        "Stop": false,
        "Stable": false,
        "Status": "pending",
        "StatusDescription": "",
        "Version": version,
        "SubmitTime": now,
    });
    joined([identity, placement, state])
}

fn update(health: u64) -> Value {
    json!({
        "AutoPromote": false,
        "AutoRevert": false,
        "Canary": 0,
        "HealthCheck": if health > 0 { "task_states" } else { "" },
        "HealthyDeadline": health * 5 * MINUTE,
        "MaxParallel": 1,
        "MinHealthyTime": health * SECOND,
        "ProgressDeadline": health * 10 * MINUTE,
        "Stagger": 30 * SECOND,
    })
}

fn restart() -> Value {
    json!({
        "Attempts": 2,
        "Delay": 15 * SECOND,
        "Interval": 30 * MINUTE,
        "Mode": "fail",
        "RenderTemplates": false,
    })
}

fn group(spec: &JobSpec, version: u64) -> Value {
    let parts = [
        json!({
            "Name": spec.group,
            "Count": spec.count,
            "Tasks": [task(spec, version)],
            "Update": update(1),
            "RestartPolicy": restart(),
            "EphemeralDisk": { "Migrate": false, "SizeMB": 300, "Sticky": false },
            "Migrate": {
                "HealthCheck": "checks",
                "HealthyDeadline": 5 * MINUTE,
                "MaxParallel": 1,
                "MinHealthyTime": 10 * SECOND,
            },
            "ReschedulePolicy": {
                "Attempts": 0,
                "Delay": 30 * SECOND,
                "DelayFunction": "exponential",
                "Interval": 0,
                "MaxDelay": 60 * MINUTE,
                "Unlimited": true,
            },
        }),
        json!({
            "Affinities": null,
            "Constraints": null,
            "Consul": null,
            "Disconnect": null,
            "MaxClientDisconnect": null,
            "MaxRunDuration": null,
            "Meta": null,
            "Networks": null,
            "PreventRescheduleOnLost": false,
            "Scaling": null,
            "Services": null,
            "ShutdownDelay": null,
            "Spreads": null,
            "StopAfterClientDisconnect": null,
            "Volumes": null,
        }),
    ];
    Value::Object(joined(parts))
}

fn task(spec: &JobSpec, version: u64) -> Value {
    let parts = [
        json!({
            "Name": spec.task,
            "Driver": "docker",
            "Config": { "image": format!("{}:1.{version}", spec.image), "ports": ["http"] },
            "Env": { "LOG_LEVEL": "info" },
            "User": "",
            "Leader": false,
            "Kind": "",
            "KillSignal": "",
            "KillTimeout": 5 * SECOND,
            "ShutdownDelay": 0,
            "RestartPolicy": restart(),
            "LogConfig": { "Disabled": false, "MaxFileSizeMB": 10, "MaxFiles": 10 },
            "Resources": {
                "CPU": 100,
                "Cores": 0,
                "Devices": null,
                "DiskMB": 0,
                "IOPS": 0,
                "MemoryMB": 300,
                "MemoryMaxMB": 0,
                "NUMA": null,
                "Networks": null,
                "SecretsMB": 0,
            },
        }),
        json!({
            "Actions": null,
            "Affinities": null,
            "Artifacts": null,
            "CSIPluginConfig": null,
            "Constraints": null,
            "Consul": null,
            "DispatchPayload": null,
            "Identities": null,
            "Identity": null,
            "Lifecycle": null,
            "Meta": null,
            "ScalingPolicies": null,
            "Schedule": null,
            "Secrets": null,
            "Services": null,
            "Templates": null,
            "Vault": null,
            "VolumeMounts": null,
        }),
    ];
    Value::Object(joined(parts))
}

pub(super) fn evaluation(id: &str, spec: &JobSpec, trigger: &str, now: u64) -> Fields {
    fields(json!({
        "ID": id,
        "Namespace": spec.namespace,
        "Priority": 50,
        "Type": spec.kind,
        "TriggeredBy": trigger,
        "JobID": spec.id,
        "Status": "pending",
        "CreateTime": now,
        "ModifyTime": now,
    }))
}

pub(super) fn deployment(
    id: &str,
    spec: &JobSpec,
    version: u64,
    job_index: u64,
    now: u64,
) -> Fields {
    let group = json!({
        "AutoPromote": false,
        "AutoRevert": false,
        "DesiredCanaries": 0,
        "DesiredTotal": spec.count,
        "HealthyAllocs": 0,
        "PlacedAllocs": spec.count,
        "PlacedCanaries": null,
        "ProgressDeadline": 10 * MINUTE,
        "Promoted": false,
        "RequireProgressBy": rfc3339(now + 10 * MINUTE),
        "UnhealthyAllocs": 0,
    });
    fields(json!({
        "ID": id,
        "Namespace": spec.namespace,
        "JobID": spec.id,
        "JobVersion": version,
        "JobCreateIndex": job_index,
        "JobModifyIndex": job_index,
        "JobSpecModifyIndex": job_index,
        "IsMultiregion": false,
        "EvalPriority": 50,
        "Status": "running",
        "StatusDescription": "Deployment is running",
        "TaskGroups": { spec.group: group },
        "CreateTime": now,
        "ModifyTime": now,
    }))
}
