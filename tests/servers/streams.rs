//! All six streams at once, each elected on its own, over one living cluster.

use std::{collections::BTreeMap, time::Duration};

use nomad_firehose::{standin::cluster, streams};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    World,
    firehose::{Process, repeated, wait},
    support::client,
};

/// The streams that publish objects, and where Nomad lists these.
const OBJECTS: [(&str, &str); 5] = [
    ("deployments", "/v1/deployments?namespace=*"),
    ("evaluations", "/v1/evaluations?namespace=*"),
    ("jobliststubs", "/v1/jobs?namespace=*"),
    ("jobs", "/v1/jobs?namespace=*"),
    ("nodes", "/v1/nodes"),
];
/// A cluster in which each kind of object has come about and changed.
const LIFE: Duration = Duration::from_secs(6);

async fn list(world: &World, path: &str) -> Vec<Value> {
    let url = format!("{}{path}", world.nomad_port.address);
    client().get(url).send().await.unwrap().json().await.unwrap()
}

/// The last index of each object, whatever names it.
fn indexes(objects: &[Value]) -> BTreeMap<String, u64> {
    let one = |it: &Value| {
        (format!("{}/{}", it["Namespace"], it["ID"]), it["ModifyIndex"].as_u64().unwrap())
    };
    objects.iter().map(one).collect()
}

/// Every task event that Nomad still shows.
async fn task_events(world: &World) -> Vec<String> {
    let mut events = Vec::new();
    for allocation in list(world, "/v1/allocations?namespace=*").await {
        let Some(tasks) = allocation["TaskStates"].as_object() else { continue };
        for (task, state) in tasks {
            for event in state["Events"].as_array().unwrap() {
                events.push(task_event(&allocation["ID"], task, event));
            }
        }
    }
    events
}

fn task_event(allocation: &Value, task: &str, event: &Value) -> String {
    format!("{allocation} {task} {} {}", event["Time"], event["Type"])
}

#[tokio::test]
async fn all_six_streams_at_once_publish_what_nomad_holds() {
    let world = World::new().await;
    let cluster = tokio::spawn(cluster::run(world.nomad.clone(), 7));
    let running: BTreeMap<&str, Process> =
        streams::ALL.iter().map(|(name, ..)| (*name, world.stream(name).start())).collect();
    sleep(LIFE).await;
    cluster.abort();

    for (name, path) in OBJECTS {
        let held = indexes(&list(&world, path).await);
        assert!(!held.is_empty(), "there are no {name}");
        wait(&format!("all {name} are published as they are now"), async || {
            let published = indexes(&running[name].out.bodies());
            held.iter().all(|(id, index)| published.get(id) == Some(index)).then_some(())
        })
        .await;
    }
    let held = task_events(&world).await;
    assert!(!held.is_empty(), "there are no task events");
    let published = || -> Vec<String> {
        let event = |it: &Value| {
            task_event(&it["AllocationID"], it["TaskName"].as_str().unwrap(), &it["TaskEvent"])
        };
        running["allocations"].out.bodies().iter().map(event).collect()
    };
    wait("all task events are published", async || {
        let published = published();
        held.iter().all(|it| published.contains(it)).then_some(())
    })
    .await;
    let published = published();
    // Some of the allocations may have been collected since, so what is held is not all.
    assert_eq!(repeated(&published, &published), [""; 0]);

    for (name, process) in running {
        let log = process.stop().await.log;
        assert!(!log.contains("ERROR") && !log.contains("WARN"), "{name}: {log}");
    }
}
