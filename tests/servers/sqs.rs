//! The sink `sqs` against a server that keeps queues, drops duplicates of FIFO queues, and checks
//! what it is asked.

use std::path::Path;

use serde_json::Value;

use super::moto::Moto;
use crate::{
    firehose::{Program, wait},
    sinks::{
        contract::{LARGE, Receiver},
        source::{Source, each_once},
        world::floor,
    },
};

/// A server with one queue.
pub struct Queue<const FIFO: bool> {
    moto: Moto,
    url: String,
    taken: Vec<(String, Value)>,
}

impl<const FIFO: bool> Queue<FIFO> {
    const NAME: &'static str = if FIFO { "events.fifo" } else { "events" };

    fn record(message: &Value) -> (String, Value) {
        let body: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        if FIFO {
            return (body["id"].as_str().unwrap().to_owned(), body["data"].clone());
        }
        let id = &message["MessageAttributes"]["ce-id"]["StringValue"];
        (id.as_str().unwrap().to_owned(), body)
    }
}

impl<const FIFO: bool> Receiver for Queue<FIFO> {
    const UNREACHABLE: &'static str = "check AWS_ENDPOINT_URL";
    /// It lets everybody in.
    const DENIED: &'static str = "never";

    async fn start() -> Self {
        let moto = Moto::start().await;
        let url = moto.queue(Self::NAME).await;
        Self { moto, url, taken: Vec::new() }
    }

    fn port(&self) -> u16 {
        self.moto.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        Moto::configure(program, port)
            .set("SINK_TYPE", "sqs")
            .set("SINK_SQS_QUEUE_NAME", Self::NAME)
            .set("SINK_SQS_MAX_REQUEST_BYTES", LARGE.to_string())
            .set("NOMAD_FIREHOSE_FORMAT", if FIFO { "cloudevents" } else { "payload" })
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        self.configure(program, port)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        let came = self.moto.drain(&self.url).await;
        self.taken.extend(came.iter().map(Self::record));
        self.taken.clone()
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        panic!("it would forget everything");
    }

    async fn come_back(&mut self) {}
}

// It keeps everything in its memory, fails nothing, refuses nothing that is well-formed, and lets
// everybody in; what then is to be done is tested with a receiver that does.
mod standard {
    crate::sink_contract!(super::Queue<false>:
        records_of_one_key_stay_in_order
        a_lost_answer_means_a_duplicate_and_never_a_loss
        a_record_that_is_too_large_is_kept_and_the_others_go_on
    );
}

mod fifo {
    crate::sink_contract!(super::Queue<true>:
        records_of_one_key_stay_in_order
        a_receiver_that_is_down_at_the_start_is_waited_for
    );
}

#[tokio::test]
async fn a_fifo_queue_takes_each_record_once_in_its_group() {
    let mut queue = Queue::<true>::start().await;
    let source = Source::new().await;
    source.evaluations("web", 0..20);
    for round in 0..2 {
        // As after a crash before the first checkpoint.
        let state = source.directory(&format!("state-{round}"));
        let program = source.program("evaluations").set("NOMAD_FIREHOSE_STATE_DIR", &state);
        let running = queue.configure(program, queue.port()).start();
        wait("a checkpoint", async || floor(Path::new(&state))).await;
        running.stop().await;
    }
    assert_eq!(queue.moto.count(&queue.url).await, 20);
    source.evaluations("web", 20..40);
    let running = queue.configure(source.program("evaluations"), queue.port()).start();
    wait("what is new comes", async || (queue.moto.count(&queue.url).await == 40).then_some(()))
        .await;
    running.stop().await;
    let messages = queue.moto.drain(&queue.url).await;
    for message in &messages {
        let body: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
        assert_eq!(message["Attributes"]["MessageDeduplicationId"], body["id"]);
        assert_eq!(message["Attributes"]["MessageGroupId"], "evaluations");
    }
    each_once(&messages.iter().map(Queue::<true>::record).collect::<Vec<_>>(), 0..40);
    assert!(queue.received().await.is_empty());
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_waited_for() {
    let moto = Moto::start().await;
    let source = Source::new().await;
    source.evaluations("web", 0..3);
    let program = Moto::configure(source.program("evaluations"), moto.port);
    let program = program.set("SINK_TYPE", "sqs").set("SINK_SQS_QUEUE_NAME", "events");
    let running = program.start();
    running.logs("create it, or check SINK_SQS_QUEUE_NAME and the region").await;
    let url = moto.queue("events").await;
    wait("everything comes", async || (moto.count(&url).await == 3).then_some(())).await;
    running.stop().await;
}
