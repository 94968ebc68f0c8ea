//! The commands of the documentation that need a real server.

use std::{fs::OpenOptions, io::Write, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::{post, put},
};
use lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use nomad_firehose::standin::{
    cluster,
    consul::Consul,
    nomad::{Nomad, Table},
};
use serde_json::Value;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use self::{
    follow::follow,
    pages::Page,
    stage::{Outcome, Stage},
};
use super::{consul::Agent, rabbitmq::Node};
use crate::{
    firehose::Served,
    support::{Version, node},
};

#[path = "../documentation/follow.rs"]
mod follow;
#[path = "../documentation/pages.rs"]
mod pages;
#[path = "../documentation/quotes.rs"]
mod quotes;
#[path = "../documentation/stage.rs"]
mod stage;

/// What the cluster is drawn from.
const SEED: u64 = 7;
const BETWEEN_NODES: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The page that sets up what others of this server rely on.
const FIRST: &str = "docs/amqp.md";
const QUEUE: &str = "events";
const VHOST: &str = "nomad";

/// A living Nomad.
struct Living {
    port: Served,
    task: JoinHandle<()>,
}

impl Living {
    async fn new() -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let port = Served::new(nomad.router()).await;
        let task = tokio::spawn(async move {
            // A node now and then, so that whoever goes on from a checkpoint has something to do.
            let nodes = async {
                for number in 0.. {
                    nomad.upsert(Table::Nodes, node(&format!("n{number}"), "ready"));
                    sleep(BETWEEN_NODES).await;
                }
            };
            tokio::join!(cluster::run(nomad.clone(), SEED), nodes);
        });
        Self { port, task }
    }

    fn places(&self, consul: &str) -> Vec<(String, String)> {
        let nomad = self.port.address.clone();
        vec![
            ("http://nomad.example:4646".to_owned(), nomad),
            ("127.0.0.1:8500".to_owned(), consul.to_owned()),
        ]
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The pages that have commands for this server.
fn pages_for(server: &str) -> Vec<Page> {
    let wanted = format!("server {server}");
    let has = |it: &Page| it.blocks.iter().any(|it| it.note.as_deref() == Some(&wanted));
    let found: Vec<Page> = pages::followed().into_iter().filter(has).collect();
    assert!(!found.is_empty(), "no page has commands for {server}");
    found
}

fn fine(_: &Outcome) -> Result<(), String> {
    Ok(())
}

fn nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_consul_do_what_their_pages_say() {
    for page in pages_for("consul") {
        let (nomad, consul) = (Living::new().await, Agent::start().await);
        let places = nomad.places(&consul.address());
        let followed = spawn_blocking(move || {
            let mut stage = Stage::new(places);
            // There is something to look at.
            let begun = stage.run("firehose-nodes >/dev/null");
            assert_eq!(begun.code, Some(0), "{}", begun.output);
            follow(&page, &mut stage, Some("consul"), &|| (), &fine)
        });
        nothing(&followed.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_rabbitmq_do_what_their_pages_say() {
    let consul = Served::new(Consul::new().router()).await;
    let (nomad, node) = (Living::new().await, Arc::new(Node::start().await));
    let management = Served::new(management(node.clone())).await;
    let host = |it: &Served| it.address.trim_start_matches("http://").to_owned();
    let mut places = nomad.places(&host(&consul));
    places.push(("rabbitmq.example:15672".to_owned(), host(&management)));
    places.push(("rabbitmq.example:5672".to_owned(), format!("127.0.0.1:{}", node.port())));
    let mut stage = Stage::new(places);
    stage.program("rabbitmqctl", &node.ctl_script());
    let drained = tokio::spawn(drain(node.port(), stage.path("received")));
    let mut pages = pages_for("amqp");
    pages.sort_by_key(|it| it.path != FIRST);
    let followed = spawn_blocking(move || {
        let each = pages.iter().map(|it| follow(it, &mut stage, Some("amqp"), &|| (), &fine));
        each.flatten().collect::<Vec<String>>()
    });
    nothing(&followed.await.unwrap());
    drained.abort();
}

/// What the management plugin answers to, done with what there is without it.
fn management(node: Arc<Node>) -> Router {
    Router::new()
        .route("/api/vhosts/{vhost}", put(add_vhost))
        .route("/api/users/{user}", put(add_user))
        .route("/api/permissions/{vhost}/{user}", put(permit))
        .route("/api/exchanges/{vhost}/{exchange}", put(declare_exchange))
        .route("/api/queues/{vhost}/{queue}", put(declare_queue))
        .route("/api/bindings/{vhost}/e/{exchange}/q/{queue}", post(bind))
        .with_state(node)
}

async fn ctl(node: Arc<Node>, arguments: Vec<String>) -> StatusCode {
    let done = spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        node.ctl(&arguments);
    });
    if done.await.is_ok() { StatusCode::CREATED } else { StatusCode::BAD_REQUEST }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|it| (*it).to_owned()).collect()
}

async fn add_vhost(State(node): State<Arc<Node>>, Path(vhost): Path<String>) -> StatusCode {
    ctl(node.clone(), words(&["add_vhost", &vhost])).await;
    ctl(node, words(&["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"])).await
}

async fn add_user(
    State(node): State<Arc<Node>>,
    Path(user): Path<String>,
    body: Bytes,
) -> StatusCode {
    ctl(node, words(&["add_user", &user, json(&body)["password"].as_str().unwrap()])).await
}

async fn permit(
    State(node): State<Arc<Node>>,
    Path((vhost, user)): Path<(String, String)>,
    body: Bytes,
) -> StatusCode {
    let body = json(&body);
    let [configure, write, read] =
        ["configure", "write", "read"].map(|it| body[it].as_str().unwrap());
    ctl(node, words(&["set_permissions", "-p", &vhost, &user, configure, write, read])).await
}

fn json(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap()
}

async fn connect(port: u16, vhost: &str) -> Option<(Connection, lapin::Channel)> {
    let address = format!("amqp://127.0.0.1:{port}/{vhost}");
    let connection = Connection::connect(&address, ConnectionProperties::default()).await.ok()?;
    let channel = connection.create_channel().await.ok()?;
    Some((connection, channel))
}

async fn declare_exchange(
    State(node): State<Arc<Node>>,
    Path((vhost, exchange)): Path<(String, String)>,
    body: Bytes,
) -> StatusCode {
    let body = json(&body);
    assert_eq!(body["type"], "topic");
    let options = ExchangeDeclareOptions {
        durable: body["durable"].as_bool().unwrap(),
        ..Default::default()
    };
    let (_connection, channel) = connect(node.port(), &vhost).await.unwrap();
    let none = FieldTable::default();
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, options, none)
        .await
        .unwrap();
    StatusCode::CREATED
}

async fn declare_queue(
    State(node): State<Arc<Node>>,
    Path((vhost, queue)): Path<(String, String)>,
    body: Bytes,
) -> StatusCode {
    let options = QueueDeclareOptions {
        durable: json(&body)["durable"].as_bool().unwrap(),
        ..Default::default()
    };
    let (_connection, channel) = connect(node.port(), &vhost).await.unwrap();
    channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
    StatusCode::CREATED
}

async fn bind(
    State(node): State<Arc<Node>>,
    Path((vhost, exchange, queue)): Path<(String, String, String)>,
    body: Bytes,
) -> StatusCode {
    let body = json(&body);
    let key = body["routing_key"].as_str().unwrap();
    let (_connection, channel) = connect(node.port(), &vhost).await.unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(queue.as_str().into(), exchange.as_str().into(), key.into(), options, none)
        .await
        .unwrap();
    StatusCode::CREATED
}

/// Takes what arrives, as soon as there is somewhere for it to arrive.
async fn drain(port: u16, received: PathBuf) {
    loop {
        sleep(LOOK_AGAIN).await;
        let Some((_connection, channel)) = connect(port, VHOST).await else { continue };
        let options = BasicGetOptions { no_ack: true };
        while let Ok(got) = channel.basic_get(QUEUE.into(), options).await {
            let Some(message) = got else {
                sleep(LOOK_AGAIN).await;
                continue;
            };
            let file = OpenOptions::new().append(true).open(&received);
            file.and_then(|mut it| it.write_all(&message.delivery.data)).unwrap();
        }
    }
}
