//! An event bus of EventBridge.

use serde_json::{Value, json};

use super::{
    aws::{Amazon, Api, Outcome, Taken},
    contract::LARGE,
};
use crate::firehose::Program;

/// PutEvents.
pub struct PutEvents;

/// A service with one event bus, `events`, which gets payloads.
pub type EventBridge = Amazon<PutEvents>;

impl Api for PutEvents {
    const ACTION: &'static str = "AWSEvents.PutEvents";
    const MAX_RECORDS: usize = 10;
    const MAX_BYTES: usize = 1 << 20;
    const REFUSES: Option<&'static str> = None;

    fn configure(program: Program) -> Program {
        program
            .set("SINK_TYPE", "eventbridge")
            .set("SINK_EVENT_BUS_NAME", "events")
            .set("SINK_EVENT_BUS_DETAIL_TYPE", "Nomad")
            .set("SINK_EVENT_BUS_SOURCE", "example.nomad")
            .set("SINK_EVENT_BUS_MAX_REQUEST_BYTES", LARGE.to_string())
    }

    fn records(request: &Value) -> Result<Vec<Taken>, &'static str> {
        let record = |it: &Value| {
            let text = |name: &str| it[name].as_str().unwrap();
            // It would say that it has an event for any other bus as well, and drop it.
            assert_eq!(text("EventBusName"), "events");
            assert_eq!((text("Source"), text("DetailType")), ("example.nomad", "Nomad"));
            let detail: Value = serde_json::from_str(text("Detail")).unwrap();
            assert!(detail.is_object());
            let resources = it["Resources"].as_array().unwrap();
            assert_eq!(resources.len(), 1);
            let id = resources[0].as_str().unwrap().to_owned();
            let time = if it["Time"].is_number() { 14 } else { 0 };
            let labels = text("Source").len() + text("DetailType").len();
            let size = time + labels + text("Detail").len() + id.len();
            let payload = detail.get("data").unwrap_or(&detail).clone();
            Taken { key: id.clone(), id, payload, size, token: None }
        };
        Ok(request["Entries"].as_array().unwrap().iter().map(record).collect())
    }

    fn answer(outcomes: &[Outcome]) -> Value {
        let result = |outcome: &Outcome| match outcome {
            Outcome::Stored => json!({"EventId": "af4e8101-0d66-bba4-4f33-7f0af2c13327"}),
            Outcome::Full => json!({"ErrorCode": "ThrottlingException", "ErrorMessage": "Slow"}),
            Outcome::Bad => json!({"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail"}),
        };
        let failed = outcomes.iter().filter(|it| **it != Outcome::Stored).count();
        let entries: Vec<Value> = outcomes.iter().map(result).collect();
        json!({"FailedEntryCount": failed, "Entries": entries})
    }

    fn other(action: &str, request: &Value) -> Result<Value, &'static str> {
        assert_eq!(action, "AWSEvents.DescribeEventBus");
        let there = request["Name"] == "events";
        let answer = json!({"Name": "events"});
        if there { Ok(answer) } else { Err("ResourceNotFoundException") }
    }
}
