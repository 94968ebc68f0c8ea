//! Standard output has the records, and standard error the log.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    World,
    firehose::{bodies, events, repeated},
};
use crate::support::client;

#[tokio::test]
async fn standard_output_has_each_node_as_nomad_gives_it_and_nothing_else() {
    let world = World::with(25).await;
    let running = world.elected("nodes").set("LOG_LEVEL", "trace").start();
    running.publishes(25).await;
    let finished = running.stop().await;
    let published = bodies(&finished.out);
    assert_eq!(published.len(), 25);
    for node in published {
        let id = node["ID"].as_str().unwrap();
        let url = format!("{}/v1/node/{id}", world.nomad_port.address);
        let held: Value = client().get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(node, held);
    }
}

#[tokio::test]
async fn standard_output_has_each_task_event_once() {
    let world = World::with(25).await;
    let running = world.elected("allocations").start();
    running.publishes(50).await;
    let names = running.out.names();
    assert_eq!(repeated(&events(25), &names), [""; 0]);
    running.stop().await;
}

#[tokio::test]
async fn logs_are_on_standard_error_and_each_line_is_a_document_if_asked_for() {
    let world = World::with(3).await;
    let program = world.elected("nodes").set("LOG_FORMAT", "json").set("LOG_LEVEL", "trace");
    let running = program.start();
    running.publishes(3).await;
    let finished = running.stop().await;
    assert_eq!(bodies(&finished.out).len(), 3);
    let lines: Vec<BTreeMap<String, Value>> =
        finished.log.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let has = |text: &str| lines.iter().any(|it| it["msg"].as_str().unwrap().contains(text));
    assert!(has("started") && has("elected") && has("stopped"), "{}", finished.log);
    for line in lines {
        assert!(line.contains_key("level") && line.contains_key("time"), "{line:?}");
    }
}

#[tokio::test]
async fn a_log_level_of_error_says_nothing_while_all_is_well() {
    let world = World::with(1).await;
    let running = world.elected("nodes").set("LOG_LEVEL", "error").start();
    running.publishes(1).await;
    assert_eq!(running.stop().await.log, "");
}
