//! What the sink `eventbridge` has besides: a bus that is not there, events that fail alone, and
//! what the service says.

use nomad_firehose::standin::nomad::Table;
use serde_json::{Value, json};

use super::{
    aws::refusal,
    contract::Receiver,
    eventbridge::EventBridge,
    source::{Source, each_once, each_problem_once},
};
use crate::{
    firehose::{CONFIGURATION, FAILED, Program, when},
    support::allocation,
};

struct World {
    source: Source,
    bus: EventBridge,
}

impl World {
    async fn new() -> Self {
        Self { source: Source::new().await, bus: EventBridge::start().await }
    }

    fn program(&self, stream: &str) -> Program {
        EventBridge::sink(self.source.program(stream), self.bus.port())
    }

    /// The entries of all requests.
    fn entries(&self) -> Vec<Value> {
        let puts = self.bus.puts();
        puts.iter().flat_map(|it| it.request["Entries"].as_array().unwrap().clone()).collect()
    }
}

const PUT: &str = "AWSEvents.PutEvents";
const DESCRIBE: &str = "AWSEvents.DescribeEventBus";

#[tokio::test]
async fn nothing_is_put_onto_a_bus_that_is_not_there() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..3);
    let running = world.program("evaluations").set("SINK_EVENT_BUS_NAME", "other").start();
    running.logs("create it, or check SINK_EVENT_BUS_NAME and the region").await;
    let log = running.stop().await.log;
    let error = log.lines().find(|it| it.contains("check SINK_EVENT_BUS_NAME")).unwrap();
    assert!(error.contains("ERROR") && error.contains("`other`"), "{error}");
    assert!(world.entries().is_empty() && !world.source.has_checkpoint());
    let running = world.program("evaluations").start();
    each_once(&world.bus.took(3).await, 0..3);
    running.stop().await;
}

#[tokio::test]
async fn a_bus_that_may_not_be_described_is_published_to() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..3);
    world.bus.script(|action, _| (action == DESCRIBE).then(|| refusal("AccessDeniedException")));
    let running = world.program("evaluations").start();
    each_once(&world.bus.took(3).await, 0..3);
    running.stop().await;
    let checked = world.program("evaluations").arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    assert!(checked.out.contains("not tested: `events:PutEvents`"), "{}", checked.out);
}

#[tokio::test]
async fn a_check_looks_for_the_bus_and_puts_nothing() {
    let world = World::new().await;
    for (bus, code) in [("events", 0), ("other", FAILED)] {
        let program = world.program("evaluations").set("SINK_EVENT_BUS_NAME", bus);
        let checked = program.arguments(&["--check"]).run().await;
        assert_eq!(checked.code, Some(code), "{}", checked.out);
    }
    assert!(world.entries().is_empty());
}

#[tokio::test]
async fn an_event_says_which_record_it_is_and_when_it_happened() {
    let mut world = World::new().await;
    world.source.nomad.upsert(Table::Allocations, allocation("a", &[1_767_225_601_500_000_000]));
    for format in ["payload", "cloudevents"] {
        let state = world.source.directory(format);
        let program = world.program("allocations").set("NOMAD_FIREHOSE_STATE_DIR", state);
        let running = program.set("NOMAD_FIREHOSE_FORMAT", format).start();
        let came = if format == "payload" { 1 } else { 2 };
        world.bus.took(came).await;
        running.stop().await;
        let entry = world.entries().pop().unwrap();
        assert!((entry["Time"].as_f64().unwrap() - 1_767_225_601.5).abs() < 0.001, "{entry}");
        let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
        if format == "cloudevents" {
            crate::cloudevents::assert_event(&detail);
            assert_eq!(detail["id"], entry["Resources"][0]);
        }
    }
    let received = world.bus.received().await;
    assert_eq!(received[0], received[1], "one record has one id, whatever its format");
}

#[tokio::test]
async fn what_failed_is_put_again_and_nothing_else() {
    let world = World::new().await;
    world.source.evaluations("web", 0..10);
    let (told, asked) = std::sync::mpsc::channel();
    let mut done = false;
    world.bus.script(move |_, request| {
        let entries = request["Entries"].as_array().filter(|it| !done && it.len() >= 3)?;
        done = true;
        told.send(entries[1]["Resources"][0].clone()).unwrap();
        let mut results = vec![json!({"ErrorCode": "InternalFailure"}); entries.len()];
        results[1] = json!({"EventId": "e"});
        // Its count is not what is relied on.
        Some((200, json!({"FailedEntryCount": 0, "Entries": results})))
    });
    let running = world.program("evaluations").start();
    when("all others come", || world.entries().len() >= 9).await;
    running.logs("did not take a record: InternalFailure").await;
    running.stop().await;
    let stored = asked.recv().unwrap();
    let ids: Vec<_> = world.entries().iter().map(|it| it["Resources"][0].clone()).collect();
    assert_eq!((ids.len(), ids.contains(&stored)), (9, false), "{ids:?}");
    assert!(world.source.has_checkpoint());
}

#[tokio::test]
async fn an_answer_for_too_few_events_is_for_none() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..10);
    let mut done = false;
    world.bus.script(move |_, request| {
        request["Entries"].as_array().filter(|it| !done && it.len() >= 3)?;
        done = true;
        Some((200, json!({"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]})))
    });
    let running = world.program("evaluations").start();
    each_once(&world.bus.took(10).await, 0..10);
    running.logs("answered for 1 of").await;
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_sent_in_parts() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..10);
    world.bus.script(|_, request| {
        let too_large = request["Entries"].as_array().is_some_and(|it| it.len() > 2);
        too_large.then(|| refusal("ValidationException"))
    });
    let running = world.program("evaluations").start();
    each_once(&world.bus.took(10).await, 0..10);
    running.stop().await;
    assert_eq!(world.source.dead_letters().len(), 0);
}

#[tokio::test]
async fn what_the_service_says_is_what_the_log_tells_to_do() {
    let world = World::new().await;
    world.source.evaluations("web", 0..3);
    let denied = |request: &Value| {
        let entries = request["Entries"].as_array().unwrap();
        let denied = json!({"ErrorCode": "NotAuthorizedForSourceException"});
        (200, json!({"FailedEntryCount": entries.len(), "Entries": vec![denied; entries.len()]}))
    };
    for (code, wanted) in [
        ("", "NotAuthorizedForSourceException; the credentials need events:PutEvents on it"),
        ("AccessDeniedException", "the credentials need events:PutEvents"),
        ("ThrottlingException", "ThrottlingException"),
        ("InternalException", "InternalException"),
        ("ExpiredTokenException", "check the credentials in AWS_*, and the clock"),
    ] {
        world.bus.script(move |action, request| {
            let answer = || if code.is_empty() { denied(request) } else { refusal(code) };
            (action == PUT).then(answer)
        });
        let running = world.program("evaluations").start();
        running.logs("the receiver is not available").await;
        let log = running.stop().await.log;
        assert!(log.contains(wanted) && log.contains("bus `events`"), "{code}: {log}");
    }
    assert!(world.entries().is_empty() && !world.source.has_checkpoint());
    assert_eq!(world.source.dead_letters().len(), 0);
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_at_once() {
    let source = Source::new().await;
    let long = "d".repeat(129);
    let wrong = [
        ("SINK_EVENT_BUS_NAME", "no such name"),
        ("SINK_EVENT_BUS_DETAIL_TYPE", long.as_str()),
        ("SINK_EVENT_BUS_SOURCE", "aws.nomad"),
        ("SINK_EVENT_BUS_MAX_REQUEST_BYTES", "0"),
        ("SINK_EVENT_BUS_WORKERS", "65"),
        ("NOMAD_FIREHOSE_REJECTED", "perhaps"),
    ];
    each_problem_once(EventBridge::sink(source.program("evaluations"), 9), &wrong).await;
    let finished = source.program("evaluations").set("SINK_TYPE", "eventbridge").run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    for name in ["SINK_EVENT_BUS_NAME", "SINK_EVENT_BUS_DETAIL_TYPE", "SINK_EVENT_BUS_SOURCE"] {
        assert!(finished.log.contains(&format!("{name}: is not set")), "{}", finished.log);
    }
}
