//! Takes what arrives in RabbitMQ and keeps it, whatever becomes of the broker.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::issuer::Issuer;

const PREFETCH: u16 = 1_000;
const AGAIN: Duration = Duration::from_millis(100);

/// A message that came.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub id: String,
    /// The broker gives once more what it gave before, and what was published once.
    pub again: bool,
}

/// All that came so far.
#[derive(Default)]
pub struct Come {
    pub arrivals: Vec<Arrival>,
    /// What each id came with.
    pub bodies: HashMap<String, Vec<u8>>,
    /// What was wrong with it.
    pub wrong: Vec<String>,
}

pub struct Oracle {
    come: Arc<Mutex<Come>>,
    /// So many arrivals were looked at, and these changes were among them.
    known: Mutex<(usize, HashSet<usize>)>,
    task: JoinHandle<()>,
}

impl Oracle {
    pub fn new(port: u16, queue: &'static str) -> Self {
        let come = Arc::new(Mutex::new(Come::default()));
        let kept = come.clone();
        let task = tokio::spawn(async move {
            loop {
                // It ends with the broker, and begins again with it.
                let _ = consume(port, queue, &kept).await;
                sleep(AGAIN).await;
            }
        });
        Self { come, known: Mutex::default(), task }
    }

    pub fn with<T>(&self, look: impl FnOnce(&Come) -> T) -> T {
        look(&self.come.lock().unwrap())
    }

    /// Which changes came so far.
    pub fn came(&self, issuer: &Issuer) -> HashSet<usize> {
        let mut known = self.known.lock().unwrap();
        let (looked, came) = &mut *known;
        self.with(|it| {
            came.extend(it.arrivals[*looked..].iter().filter_map(|it| issuer.find(&it.id)));
            *looked = it.arrivals.len();
        });
        came.clone()
    }

    /// Whether a change has come since then.
    pub fn has_come_since(&self, since: Instant, number: usize, issuer: &Issuer) -> bool {
        self.with(|it| {
            let late = it.arrivals.iter().rev().take_while(|it| it.at > since);
            late.filter_map(|it| issuer.find(&it.id)).any(|it| it == number)
        })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn consume(port: u16, queue: &str, kept: &Mutex<Come>) -> lapin::Result<()> {
    let address = format!("amqp://127.0.0.1:{port}");
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut messages = channel.basic_consume(queue.into(), "oracle".into(), options, none).await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        let id = message.properties.message_id().as_ref().unwrap().to_string();
        let ack = message.acker.clone();
        kept.lock().unwrap().take(id, message.redelivered, message.data);
        ack.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

impl Come {
    pub fn take(&mut self, id: String, redelivered: bool, body: Vec<u8>) {
        let again = redelivered && self.bodies.contains_key(&id);
        match self.bodies.get(&id) {
            None => drop(self.bodies.insert(id.clone(), body)),
            Some(before) if *before != body => {
                self.wrong.push(format!("one id with two payloads: {id}"));
            }
            Some(_) => (),
        }
        self.arrivals.push(Arrival { at: Instant::now(), id, again });
    }
}
