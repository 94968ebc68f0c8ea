//! What the sink `sqs` has besides: what a FIFO queue drops, messages that fail alone, and what
//! the service says.

use std::collections::BTreeMap;

use nomad_firehose::standin::nomad::Table;
use serde_json::{Value, json};

use super::{
    aws::{Amazon, refusal},
    contract::Receiver,
    source::{Source, each_once, each_problem_once, id, numbered},
    sqs::{Fifo, SendMessageBatch, Standard, url},
};
use crate::{
    firehose::{CONFIGURATION, FAILED, Program, when},
    support::allocation,
};

struct World<const FIFO: bool> {
    source: Source,
    sqs: Amazon<SendMessageBatch<FIFO>>,
}

impl<const FIFO: bool> World<FIFO> {
    async fn new() -> Self {
        Self { source: Source::new().await, sqs: Amazon::start().await }
    }

    fn program(&self, stream: &str) -> Program {
        Amazon::<SendMessageBatch<FIFO>>::sink(self.source.program(stream), self.sqs.port())
    }

    /// The entries of all requests.
    fn entries(&self) -> Vec<Value> {
        let puts = self.sqs.puts();
        puts.iter().flat_map(|it| it.request["Entries"].as_array().unwrap().clone()).collect()
    }
}

const SEND: &str = "AmazonSQS.SendMessageBatch";

#[tokio::test]
async fn a_fifo_queue_swallows_nothing_of_two_streams_and_two_runs() {
    let mut world = World::<true>::new().await;
    for round in 0..2 {
        world.source.evaluations("web", round * 10..round * 10 + 10);
        let times: Vec<i64> = (1..=3 + round as i64).collect();
        world.source.nomad.upsert(Table::Allocations, allocation("a", &times));
        let other = world
            .source
            .program("allocations")
            .set("NOMAD_FIREHOSE_STATE_DIR", world.source.directory("allocations"));
        let other = Fifo::sink(other, world.sqs.port());
        let running = [world.program("evaluations").start(), other.start()];
        world.sqs.took([13, 24][round]).await;
        for running in running {
            running.stop().await;
        }
    }
    let received = world.sqs.received().await;
    let (events, evaluations): (Vec<_>, Vec<_>) =
        received.into_iter().partition(|(_, body)| body["TaskEvent"].is_object());
    assert_eq!(events.len(), 4);
    each_once(&evaluations, 0..20);
    let groups: Vec<_> = world.sqs.puts().into_iter().flat_map(|it| it.keys).collect();
    assert!(groups.iter().all(|it| it == "evaluations" || it == "allocations"), "{groups:?}");
}

#[tokio::test]
async fn a_fifo_queue_drops_a_record_that_comes_again() {
    let mut world = World::<true>::new().await;
    world.source.evaluations("web", 0..10);
    for round in 0..2 {
        // As after a crash before the first checkpoint.
        let state = world.source.directory(&format!("state-{round}"));
        let program = world.program("evaluations").set("NOMAD_FIREHOSE_STATE_DIR", state);
        let running = program.start();
        when("all were sent", || world.entries().len() >= 10 * (round + 1)).await;
        running.stop().await;
    }
    each_once(&world.sqs.received().await, 0..10);
    let mut sent = BTreeMap::new();
    for it in world.entries() {
        *sent.entry(it["MessageDeduplicationId"].to_string()).or_insert(0) += 1;
    }
    assert_eq!((sent.len(), sent.values().all(|it| *it == 2)), (10, true), "{sent:?}");
}

#[tokio::test]
async fn a_group_can_be_an_object() {
    let mut world = World::<true>::new().await;
    world.source.evaluations("web", 0..10);
    let running = world.program("evaluations").set("SINK_SQS_GROUP", "key").start();
    world.sqs.took(10).await;
    running.stop().await;
    let mut groups: Vec<_> = world.sqs.puts().into_iter().flat_map(|it| it.keys).collect();
    groups.sort();
    groups.dedup();
    assert_eq!(groups.len(), 10, "{groups:?}");
}

#[tokio::test]
async fn what_failed_and_what_was_not_answered_for_is_sent_again_and_nothing_else() {
    let world = World::<false>::new().await;
    world.source.evaluations("web", 0..10);
    // Of the first request that has so many, one was stored, one failed, and nothing is said of
    // the rest.
    let mut done = false;
    let (told, asked) = std::sync::mpsc::channel();
    world.sqs.script(move |action, request| {
        let entries = request["Entries"].as_array().filter(|it| !done && it.len() >= 3)?;
        assert_eq!(action, SEND);
        done = true;
        told.send(entries[1]["MessageAttributes"]["ce-id"]["StringValue"].clone()).unwrap();
        Some((
            200,
            json!({
                "Successful": [{"Id": "1", "MessageId": "m", "MD5OfMessageBody": "d"}],
                "Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": false}],
            }),
        ))
    });
    let running = world.program("evaluations").start();
    // The scripted answer is not among those that were stored here.
    when("all others come", || world.entries().len() >= 9).await;
    running.logs("did not take a record").await;
    running.stop().await;
    let stored = asked.recv().unwrap();
    let ids: Vec<_> = world.sqs.puts().into_iter().flat_map(|it| it.ids).collect();
    assert_eq!(ids.len(), 9, "{ids:?}");
    assert!(!ids.iter().any(|it| stored == it.as_str()), "{ids:?}");
    assert!(world.source.has_checkpoint());
}

#[tokio::test]
async fn a_request_that_is_too_long_is_sent_in_parts() {
    let mut world = World::<false>::new().await;
    world.source.evaluations("web", 0..10);
    world.sqs.script(|_, request| {
        let too_long = request["Entries"].as_array().is_some_and(|it| it.len() > 2);
        too_long.then(|| refusal("com.amazonaws.sqs#BatchRequestTooLong"))
    });
    let running = world.program("evaluations").start();
    each_once(&world.sqs.took(10).await, 0..10);
    running.stop().await;
    assert_eq!(world.source.dead_letters().len(), 0);
}

#[tokio::test]
async fn text_that_the_service_does_not_take_is_sent_in_another_form() {
    let mut world = World::<false>::new().await;
    let text = "\u{0}\u{8}\u{7f}\u{fffe}\\\u{ffff}\u{10ffff}";
    let mut evaluation = numbered(1, "web");
    evaluation.insert("StatusDescription".into(), text.into());
    world.source.nomad.upsert(Table::Evaluations, evaluation);
    // The receiver makes sure that all characters are allowed.
    let running = world.program("evaluations").start();
    let received = world.sqs.took(1).await;
    running.stop().await;
    assert_eq!(received[0].1["StatusDescription"], text);
}

#[tokio::test]
async fn what_the_service_says_is_what_the_log_tells_to_do() {
    let world = World::<false>::new().await;
    world.source.evaluations("web", 0..3);
    for (action, code, wanted) in [
        (SEND, "com.amazonaws.sqs#QueueDoesNotExist", "create it, or check SINK_SQS_QUEUE_NAME"),
        (SEND, "AWS.SimpleQueueService.NonExistentQueue", "create it, or check SINK_SQS_QUEUE_"),
        (SEND, "AccessDenied", "the credentials need sqs:SendMessage"),
        (SEND, "com.amazonaws.sqs#KmsDisabled", "check the key of KMS that encrypts it"),
        (SEND, "RequestThrottled", "RequestThrottled"),
        (SEND, "InvalidClientTokenId", "check the credentials in AWS_*, and the clock"),
        ("AmazonSQS.GetQueueUrl", "AccessDeniedException", "the credentials need sqs:GetQueueUrl"),
        ("AmazonSQS.GetQueueUrl", "QueueDoesNotExist", "create it, or check SINK_SQS_QUEUE_NAME"),
    ] {
        world.sqs.script(move |asked, _| (asked == action).then(|| refusal(code)));
        let running = world.program("evaluations").start();
        running.logs("the receiver is not available").await;
        let log = running.stop().await.log;
        assert!(log.contains(wanted) && log.contains("`events`"), "{code}: {log}");
        assert!(log.contains("This is how it was said to be."), "{code}: {log}");
    }
    assert!(!world.source.has_checkpoint());
    assert!(world.entries().is_empty());
}

#[tokio::test]
async fn a_url_is_used_as_it_is() {
    let mut world = World::<false>::new().await;
    world.source.evaluations("web", 0..3);
    world.sqs.script(|action, _| {
        (action == "AmazonSQS.GetQueueUrl").then(|| panic!("it is known already"))
    });
    let program = world.program("evaluations").set("SINK_SQS_QUEUE_NAME", url("events"));
    let running = program.start();
    each_once(&world.sqs.took(3).await, 0..3);
    running.stop().await;
}

#[tokio::test]
async fn a_check_looks_for_the_queue_and_sends_nothing() {
    let world = World::<false>::new().await;
    let check = |queue: String| {
        let program = world.program("evaluations").set("SINK_SQS_QUEUE_NAME", queue);
        program.arguments(&["--check"]).run()
    };
    for queue in ["events".to_owned(), url("events")] {
        let checked = check(queue).await;
        assert!(checked.out.contains("not tested: `sqs:SendMessage`"), "{}", checked.out);
        assert_eq!(checked.code, Some(0), "{}", checked.out);
    }
    for queue in ["other".to_owned(), url("other")] {
        let checked = check(queue).await;
        assert!(checked.out.contains("create it, or check SINK_SQS_QUEUE_NAME"), "{}", checked.out);
        assert_eq!(checked.code, Some(FAILED), "{}", checked.out);
    }
    // Who may send need not have the right to ask.
    world.sqs.script(|_, _| Some(refusal("AccessDenied")));
    let checked = check(url("other")).await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    assert!(world.entries().is_empty());
}

#[tokio::test]
async fn payloads_are_not_in_the_log_though_the_service_quotes_them() {
    let world = World::<false>::new().await;
    world.source.evaluations("planted-payload", 0..1);
    world.sqs.script(|action, request| {
        let code = "com.amazonaws.sqs#InvalidMessageContents";
        let quoted = json!({"__type": code, "message": request["Entries"].to_string()});
        (action == SEND).then_some((400, quoted))
    });
    let running = world.program("evaluations").set("LOG_LEVEL", "trace").start();
    running.logs("rejected a record for good").await;
    let stopped = running.stop().await;
    assert!(stopped.log.contains("InvalidMessageContents"), "{}", stopped.log);
    assert!(!stopped.log.contains("planted"), "{}", stopped.log);
    assert_eq!(world.source.dead_letters()[0]["body"]["ID"], id(0));
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_at_once() {
    let source = Source::new().await;
    let wrong = [
        ("SINK_SQS_QUEUE_NAME", "https://me:planted@sqs.example/1/events"),
        ("SINK_SQS_GROUP", "job"),
        ("SINK_SQS_MAX_REQUEST_BYTES", "0"),
        ("SINK_SQS_WORKERS", "65"),
        ("NOMAD_FIREHOSE_REJECTED", "perhaps"),
    ];
    let finished =
        each_problem_once(Standard::sink(source.program("evaluations"), 9), &wrong).await;
    assert!(!finished.log.contains("planted"), "{}", finished.log);
    let finished = source.program("evaluations").set("SINK_TYPE", "sqs").run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    assert!(finished.log.contains("SINK_SQS_QUEUE_NAME: is not set"), "{}", finished.log);
}
