//! What `deploy/` has for real servers: the rights in Consul, and the broker of the try-out.

use std::{collections::BTreeMap, path::Path};

use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use nomad_firehose::{standin::cluster, streams};
use reqwest::Method;
use serde_json::{Value, json};

use super::{World, consul::Agent, rabbitmq::Node};
use crate::firehose::{FAILED, Process, Program, wait};

/// Where the container of the try-out has the definitions.
const DEFINITIONS: &str = "/etc/rabbitmq/firehose.json";

fn deployed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Each rule of a policy, as it is written.
fn rules(policy: &str) -> Vec<&str> {
    let rules: Vec<_> = policy.split("\n\n").filter(|it| it.contains('{')).collect();
    assert!(!rules.is_empty(), "no rules in:\n{policy}");
    rules
}

/// A token that has these rights and no others.
async fn token(consul: &Agent, name: &str, rules: &str) -> String {
    let policy = json!({"Name": name, "Rules": rules}).to_string();
    let made = consul.ask(Method::PUT, "/v1/acl/policy", &policy).await;
    assert!(made.is_some(), "Consul does not take this policy:\n{rules}");
    let token = json!({"Policies": [{"Name": name}]}).to_string();
    let made = consul.ask(Method::PUT, "/v1/acl/token", &token).await.unwrap();
    made["SecretID"].as_str().unwrap().to_owned()
}

fn with_token(world: &World, stream: &str, token: &str) -> Program {
    world.stream(stream).set("CONSUL_HTTP_TOKEN", token)
}

/// The lock name of a stream, which its keys begin with.
fn key(world_stream: &str, suffix: &str) -> String {
    let name = if world_stream == "jobliststubs" { "jobliststub" } else { world_stream };
    format!("nomad-firehose/{name}.{suffix}")
}

#[tokio::test]
async fn with_its_own_policy_each_stream_is_elected_saves_and_resigns() {
    let world = World::with(Agent::guarded().await).await;
    let cluster = tokio::spawn(cluster::run(world.nomad.clone(), 7));
    let mut running: BTreeMap<&str, Process> = BTreeMap::new();
    for (name, ..) in streams::ALL {
        let policy = deployed(&format!("consul/policy-{name}.hcl"));
        let token = token(&world.consul, name, &policy).await;
        let check = with_token(&world, name, &token).arguments(&["--check"]).run().await;
        assert_eq!(check.code, Some(0), "{name}: {}", check.out);
        running.insert(*name, with_token(&world, name, &token).start());
    }
    for process in running.values() {
        process.publishes(1).await;
    }
    cluster.abort();
    for (name, process) in running {
        let log = process.stop().await.log;
        assert!(!log.contains("cannot be elected") && !log.contains("could not be"), "{log}");
        let lock = world.consul.entry(&key(name, "lock")).await.unwrap();
        assert_eq!(lock.session, None, "{name} has not resigned: {log}");
        assert!(world.consul.entry(&key(name, "cursor")).await.is_some(), "{name}: {log}");
    }
}

#[tokio::test]
async fn one_policy_does_for_every_stream() {
    let world = World::with(Agent::guarded().await).await;
    let token = token(&world.consul, "all", &deployed("consul/policy-firehose.hcl")).await;
    for (name, ..) in streams::ALL {
        let check = with_token(&world, name, &token).arguments(&["--check"]).run().await;
        assert_eq!(check.code, Some(0), "{name}: {}", check.out);
        let process = with_token(&world, name, &token).start();
        process.logs("elected").await;
        process.stop().await;
    }
}

#[tokio::test]
async fn no_rule_can_be_spared_and_none_is_of_another_stream() {
    let world = World::with(Agent::guarded().await).await;
    let policy = deployed("consul/policy-nodes.hcl");
    let mut tokens = BTreeMap::new();
    let all = rules(&policy);
    assert_eq!(all.len(), 2, "a rule was added: see that it is needed");
    for left_out in &all {
        let others: Vec<_> = all.iter().filter(|it| *it != left_out).copied().collect();
        tokens.insert((*left_out).to_owned(), others.join("\n\n"));
        let read_only = left_out.replace("\"write\"", "\"read\"");
        let weaker = policy.replace(left_out, &read_only);
        tokens.insert(read_only, weaker);
    }
    tokens.insert("jobs".to_owned(), deployed("consul/policy-jobs.hcl"));
    let number = tokens.len();
    assert_eq!(number, 5);
    for (index, (what, rules)) in tokens.into_iter().enumerate() {
        let token = token(&world.consul, &format!("less-{index}"), &rules).await;
        let process = with_token(&world, "nodes", &token).start();
        process.logs("cannot be elected").await;
        assert!(process.out.text().is_empty(), "publishes without:\n{what}");
        let said = process.log.text();
        assert!(said.contains("403") || said.contains("denied"), "{what}: {said}");
    }
    // Without a token nothing is to be had either.
    let check = world.stream("nodes").arguments(&["--check"]).run().await;
    assert_eq!(check.code, Some(FAILED), "{}", check.out);
}

#[tokio::test]
async fn the_broker_of_the_try_out_takes_what_its_firehoses_are_told_to_send() {
    let compose: Value = yaml_serde::from_str(&deployed("compose/compose.yaml")).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/rabbitmq.json");
    let settings = deployed("compose/rabbitmq.conf");
    assert!(settings.contains(DEFINITIONS), "{settings}");
    let settings = settings.replace(DEFINITIONS, path.to_str().unwrap());
    let node = Node::start_with(|_| settings.clone()).await;

    let world = World::new().await;
    let cluster = tokio::spawn(cluster::run(world.nomad.clone(), 7));
    let mut program = world.stream("nodes");
    let host = format!("127.0.0.1:{}", node.port());
    let mut address = String::new();
    for (name, value) in compose["x-firehose"]["environment"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        if name == "SINK_AMQP_CONNECTION" {
            address = value.replace("rabbitmq", &host);
            program = program.set(name, &address);
        } else if name.starts_with("SINK_") || name == "NOMAD_FIREHOSE_FORMAT" {
            program = program.set(name, value);
        }
    }
    let process = program.start();
    let connection = Connection::connect(&address, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    wait("the queue of the try-out has messages", async || {
        let asking = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = channel.queue_declare("nomad".into(), asking, FieldTable::default()).await;
        (queue.unwrap().message_count() > 0).then_some(())
    })
    .await;
    cluster.abort();
    process.stop().await;
}
