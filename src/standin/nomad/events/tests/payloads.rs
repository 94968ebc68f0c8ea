use std::{collections::BTreeSet, fs, path::Path};

use super::*;

/// The members of every allocation event that Nomad 1.0.18 was recorded to send.
const OLD_ALLOCATION: &str = "AllocModifyIndex AllocStates AllocatedResources ClientDescription \
    ClientStatus CreateIndex CreateTime DeploymentID DeploymentStatus DesiredDescription \
    DesiredStatus DesiredTransition EvalID FollowupEvalID ID Job JobID Metrics ModifyIndex \
    ModifyTime Name Namespace NetworkStatus NextAllocation NodeID NodeName PreemptedAllocations \
    PreemptedByAllocation PreviousAllocation RescheduleTracker Resources SharedResources TaskGroup \
    TaskResources TaskStates";
/// Those of every evaluation event.
const OLD_EVALUATION: &str = "AnnotatePlan BlockedEval ClassEligibility CreateIndex CreateTime \
    DeploymentID EscapedComputedClass FailedTGAllocs ID JobID JobModifyIndex LeaderACL ModifyIndex \
    ModifyTime Namespace NextEval NodeID NodeModifyIndex PreviousEval Priority QueuedAllocations \
    QuotaLimitReached SnapshotIndex Status StatusDescription TriggeredBy Type Wait WaitUntil";
/// Those of every allocation event of Nomad 2.0.5, and those that only some have.
const ALLOCATION: &str = "AllocModifyIndex AllocatedResources ClientStatus CreateIndex CreateTime \
    DesiredStatus EvalID ID JobID Metrics ModifyIndex ModifyTime Name Namespace NodeID NodeName \
    Resources SharedResources SigningKeyID TaskGroup TaskResources";
const SOMETIMES: &str = "ClientDescription DeploymentID DeploymentStatus DesiredDescription \
    DesiredTransition FollowupEvalID NetworkStatus NextAllocation PreviousAllocation \
    RescheduleTracker TaskStates";

fn names(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

fn members(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The objects of a recorded list.
fn recorded(file: &str) -> Vec<Map<String, Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The payloads of all events that come without waiting.
async fn payloads(nomad: &Nomad) -> Vec<Value> {
    nomad.set_event_buffer(1000);
    let batches = Stream::open(nomad, "?namespace=*").await.batches().await;
    let payload = |event: &Value| event["Payload"].clone();
    batches.iter().flat_map(|batch| events(batch).iter().map(payload)).collect()
}

#[tokio::test(start_paused = true)]
async fn allocations_and_evaluations_have_the_members_that_were_recorded() {
    let old = Nomad::new(Version::V1_0);
    for (table, file) in [(Table::Allocations, "allocations"), (Table::Evaluations, "evaluations")]
    {
        let listed = recorded(&format!("nomad-1.0.18/A/{file}.body.json"));
        old.upsert_many(listed.into_iter().map(|object| (table, object)));
    }
    for payload in payloads(&old).await {
        match payload.get("Allocation") {
            Some(allocation) => assert_eq!(members(allocation), names(OLD_ALLOCATION)),
            None => assert_eq!(members(&payload["Evaluation"]), names(OLD_EVALUATION)),
        }
    }
    let new = Nomad::new(Version::V2_0);
    let listed = recorded("nomad-2.0.5/A/allocations.body.json");
    new.upsert_many(listed.into_iter().map(|object| (Table::Allocations, object)));
    for payload in payloads(&new).await {
        assert_eq!(members(&payload), names("Allocation Timeout TimeoutReason"));
        let shown = members(&payload["Allocation"]);
        assert!(shown.is_superset(&names(ALLOCATION)), "{shown:?}");
        let known = &names(ALLOCATION) | &names(SOMETIMES);
        assert!(shown.is_subset(&known), "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_names_its_object_and_what_it_belongs_to() {
    let nomad = Nomad::new(Version::V2_0);
    nomad.upsert(Table::Nodes, node("ready"));
    nomad.upsert(Table::Jobs, of_namespace("ops", "j"));
    nomad.upsert(Table::Deployments, of_namespace("ops", "d"));
    nomad.upsert(Table::Evaluations, of_namespace("ops", "e"));
    nomad.upsert(Table::Allocations, of_namespace("ops", "a"));
    let batches = Stream::open(&nomad, "?namespace=*").await.batches().await;
    let of_job = json!(["job", "d"]);
    for ((batch, index), (topic, key, namespace, keys)) in batches.iter().zip(2..).zip([
        ("Node", NODE, "", &Value::Null),
        ("Job", "j", "ops", &Value::Null),
        ("Deployment", "d", "ops", &json!(["job"])),
        ("Evaluation", "e", "ops", &of_job),
        ("Allocation", "a", "ops", &of_job),
    ]) {
        assert_eq!(batch["Index"], index);
        let event = &events(batch)[0];
        assert_eq!(members(event), names("Topic Type Key Namespace FilterKeys Index Payload"));
        assert_eq!((text(&event["Topic"]), text(&event["Key"])), (topic, key));
        assert_eq!((text(&event["Namespace"]), &event["FilterKeys"]), (namespace, keys));
        assert_eq!(
            (&event["Index"], &event["Payload"][topic]["ModifyIndex"]),
            (&json!(index), &json!(index))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_allocation_is_shown_in_full_and_empty_in_the_way_of_the_version() {
    let old = Nomad::new(Version::V1_0);
    old.upsert(Table::Allocations, allocation("a"));
    let (line, _) = Stream::open(&old, "").await.rest().await;
    assert!(line.contains("\"Message\":\"a\\u003cb\""), "{line}");
    let shown = &payloads(&old).await[0]["Allocation"];
    assert_eq!(shown["TaskStates"]["t"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!((&shown["FollowupEvalID"], shown.get("Job")), (&json!(""), Some(&Value::Null)));
    assert_eq!(shown["DesiredTransition"], json!({ "Migrate": null }));
    assert_eq!((shown.get("JobVersion"), shown.get("JobType")), (None, None));

    let new = Nomad::new(Version::V2_0);
    new.upsert(Table::Allocations, allocation("a"));
    let (line, _) = Stream::open(&new, "").await.rest().await;
    assert!(line.contains("\"Message\":\"a<b\""), "{line}");
    let shown = &payloads(&new).await[0]["Allocation"];
    assert_eq!(shown["TaskStates"]["t"]["StartedAt"], Value::Null);
    for absent in ["FollowupEvalID", "Job", "DesiredTransition", "JobVersion", "JobType"] {
        assert_eq!(shown.get(absent), None, "{absent}");
    }
    assert_eq!(shown["AllocModifyIndex"], shown["CreateIndex"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_an_allocation_repeats_its_node_in_the_newer_version() {
    for version in BOTH {
        let nomad = Nomad::new(version);
        let registered = nomad.upsert(Table::Nodes, node("ready"));
        nomad.upsert(Table::Allocations, allocation("a"));
        let mut stream = Stream::open(&nomad, "").await;
        let before = stream.batches().await;
        assert_eq!(before.iter().map(|batch| events(batch).len()).collect::<Vec<_>>(), [1, 1]);
        let index = nomad.upsert_many(["a", "a"].map(|id| (Table::Allocations, allocation(id))));
        let batches = stream.batches().await;
        let nodes = events(&batches[0]).iter().filter(|event| event["Topic"] == "Node");
        let nodes: Vec<_> = nodes.collect();
        if version == Version::V1_0 {
            assert!(nodes.is_empty());
            continue;
        }
        assert_eq!((batches.len(), nodes.len()), (1, 1));
        assert_eq!(
            (text(&nodes[0]["Type"]), &nodes[0]["Index"]),
            ("AllocationUpdated", &json!(index))
        );
        let shown = &nodes[0]["Payload"]["Node"];
        assert_eq!(shown["ModifyIndex"], registered);
        assert_eq!(shown["LastAllocUpdateIndex"], index);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_write_is_called_and_how_it_is_split_follows_from_what_it_writes() {
    let nomad = Nomad::new(Version::V2_0);
    let mut stream = Stream::open(&nomad, "").await;
    let with = |mut object: Map<String, Value>, name: &str, value: Value| {
        object.insert(name.to_owned(), value);
        object
    };
    nomad.upsert(Table::Nodes, node("initializing"));
    nomad.upsert(Table::Nodes, node("ready"));
    let ineligible = with(node("ready"), "SchedulingEligibility", json!("ineligible"));
    nomad.upsert(Table::Nodes, ineligible.clone());
    nomad.upsert(Table::Nodes, with(ineligible, "DrainStrategy", json!({})));
    nomad.touch(Table::Nodes);
    assert_eq!(
        stream.kinds().await,
        [
            ["Node NodeRegistration"],
            ["Node NodeStreamEvent"],
            ["Node NodeEligibility"],
            ["Node NodeDrain"],
            ["Node NodeStreamEvent"]
        ]
    );
    let (job, evaluation) = (evaluation("j"), evaluation("e"));
    let stopped = with(job.clone(), "Stop", json!(true));
    nomad.upsert_many([(Table::Jobs, job.clone()), (Table::Evaluations, evaluation.clone())]);
    nomad.upsert_many([(Table::Evaluations, evaluation.clone()), (Table::Jobs, job.clone())]);
    nomad.upsert_many([(Table::Jobs, stopped), (Table::Evaluations, evaluation.clone())]);
    assert_eq!(
        stream.kinds().await,
        [
            vec!["Job JobRegistered"],
            vec!["Evaluation JobRegistered"],
            vec!["Evaluation EvaluationUpdated", "Job EvaluationUpdated"],
            vec!["Job JobDeregistered"],
            vec!["Evaluation JobDeregistered"]
        ]
    );
    let placed = with(allocation("a"), "NodeID", json!("elsewhere"));
    let all = [
        (Table::Evaluations, evaluation.clone()),
        (Table::Allocations, placed.clone()),
        (Table::Deployments, job.clone()),
        (Table::Jobs, job.clone()),
    ];
    nomad.upsert_many(all);
    let wished = with(placed, "DesiredTransition", json!({ "Migrate": true }));
    nomad.upsert(Table::Allocations, wished.clone());
    nomad.upsert(Table::Allocations, wished.clone());
    nomad.upsert(Table::Allocations, with(wished, "DesiredStatus", json!("stop")));
    nomad.upsert_many([(Table::Deployments, job), (Table::Evaluations, evaluation)]);
    assert_eq!(
        stream.kinds().await,
        [
            vec![
                "Evaluation PlanResult",
                "Allocation PlanResult",
                "Deployment PlanResult",
                "Job PlanResult"
            ],
            vec!["Allocation AllocationUpdateDesiredStatus"],
            vec!["Allocation AllocationUpdated"],
            vec!["Allocation PlanResult"],
            vec!["Deployment DeploymentStatusUpdate", "Evaluation DeploymentStatusUpdate"]
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_newer_version_tells_that_a_job_is_gone_and_neither_of_other_objects() {
    for version in BOTH {
        let nomad = Nomad::new(version);
        let created = nomad.upsert(Table::Jobs, evaluation("j"));
        nomad.upsert(Table::Nodes, node("down"));
        nomad.upsert(Table::Evaluations, evaluation("e"));
        nomad.upsert(Table::Deployments, evaluation("d"));
        nomad.upsert(Table::Allocations, allocation("a"));
        let mut stream = Stream::open(&nomad, "").await;
        let deleted = stream.batches().await[0]["Events"][0]["Payload"]["Deleted"].clone();
        assert_eq!(deleted, if version == Version::V2_0 { json!(false) } else { Value::Null });
        nomad.set_summary("default", "j", object(json!({ "Summary": {} })));
        nomad.add_namespace("ops");
        nomad.touch(Table::Jobs);
        nomad.delete(Table::Nodes, "", NODE);
        nomad.delete(Table::Evaluations, "default", "e");
        nomad.delete(Table::Deployments, "default", "d");
        nomad.delete(Table::Allocations, "default", "a");
        let index = nomad.delete(Table::Jobs, "default", "j");
        nomad.delete(Table::Jobs, "default", "j");
        let batches = stream.batches().await;
        if version == Version::V1_0 {
            assert!(batches.is_empty(), "{batches:?}");
            continue;
        }
        assert_eq!((batches.len(), &batches[0]["Index"]), (1, &json!(index)));
        let payload = &batches[0]["Events"][0]["Payload"];
        assert_eq!(
            (&payload["Deleted"], &payload["Job"]["ModifyIndex"]),
            (&json!(true), &json!(created))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_commit_at_an_index_is_a_second_line_with_that_index() {
    let nomad = with_batches(Version::V2_0, 1);
    nomad.upsert_at(2, Table::Evaluations, evaluation("f"));
    assert_eq!(Stream::open(&nomad, "?index=2").await.indexes().await, [2, 2]);
}
