//! A queue of SQS.

use serde_json::{Value, json};

use super::{
    aws::{Amazon, Api, Outcome, Taken},
    contract::LARGE,
};
use crate::firehose::Program;

/// SendMessageBatch to a queue that is a FIFO queue or not.
pub struct SendMessageBatch<const FIFO: bool>;

/// A service with one queue, `events`, which gets payloads, and refuses a request as a whole.
pub type Standard = Amazon<SendMessageBatch<false>>;
/// A service with one queue, `events.fifo`, which gets envelopes, and refuses messages.
pub type Fifo = Amazon<SendMessageBatch<true>>;

const URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012";

/// The URL of a queue.
pub fn url(name: &str) -> String {
    format!("{URL}/{name}")
}

impl<const FIFO: bool> SendMessageBatch<FIFO> {
    const NAME: &'static str = if FIFO { "events.fifo" } else { "events" };

    fn record(entry: &Value) -> Taken {
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        let body = text("MessageBody").unwrap();
        assert!(body.chars().all(is_allowed), "{body:?}");
        let attributes = entry["MessageAttributes"].as_object().unwrap();
        assert!(attributes.len() <= 10, "{attributes:?}");
        let attribute = |name: &str| {
            let value = attributes.get(name)?;
            assert_eq!(value["DataType"], "String");
            value["StringValue"].as_str().filter(|it| !it.is_empty() && it.chars().all(is_allowed))
        };
        let sizes = attributes.iter().map(|(name, it)| {
            name.len() + "String".len() + it["StringValue"].as_str().unwrap().len()
        });
        let size = body.len() + sizes.sum::<usize>();
        let event: Value = serde_json::from_str(&body).unwrap();
        let (group, token) = (text("MessageGroupId"), text("MessageDeduplicationId"));
        if FIFO {
            for text in [&group, &token].map(|it| it.as_deref().unwrap()) {
                assert!((1..=128).contains(&text.len()), "{text}");
                assert!(text.chars().all(|it| it.is_ascii_graphic()), "{text}");
            }
            assert_eq!(attribute("content-type"), Some("application/cloudevents+json"));
            crate::cloudevents::assert_event(&event);
            let (id, payload) = (event["id"].as_str().unwrap().to_owned(), event["data"].clone());
            return Taken { id, payload, key: group.unwrap(), size, token };
        }
        // The service says that these are not valid for this type of queue.
        assert_eq!((&group, &token), (&None, &None));
        assert_eq!(attribute("content-type"), Some("application/json"));
        assert_eq!(attribute("ce-specversion"), Some("1.0"));
        let [id, key] = ["ce-id", "ce-subject"].map(|it| attribute(it).unwrap().to_owned());
        Taken { id, payload: event, key, size, token }
    }
}

/// What the service takes in a message.
fn is_allowed(it: char) -> bool {
    matches!(it, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

impl<const FIFO: bool> Api for SendMessageBatch<FIFO> {
    const ACTION: &'static str = "AmazonSQS.SendMessageBatch";
    const MAX_RECORDS: usize = 10;
    const MAX_BYTES: usize = 1 << 20;
    const REFUSES: Option<&'static str> =
        if FIFO { None } else { Some("com.amazonaws.sqs#InvalidMessageContents") };

    fn configure(program: Program) -> Program {
        program
            .set("SINK_TYPE", "sqs")
            .set("SINK_SQS_QUEUE_NAME", Self::NAME)
            .set("SINK_SQS_MAX_REQUEST_BYTES", LARGE.to_string())
            .set("NOMAD_FIREHOSE_FORMAT", if FIFO { "cloudevents" } else { "payload" })
    }

    fn records(request: &Value) -> Result<Vec<Taken>, &'static str> {
        if request["QueueUrl"] != url(Self::NAME).as_str() {
            return Err("com.amazonaws.sqs#QueueDoesNotExist");
        }
        let entries = request["Entries"].as_array().unwrap();
        for (number, entry) in entries.iter().enumerate() {
            assert_eq!(entry["Id"], number.to_string().as_str(), "they are to be distinct");
        }
        Ok(entries.iter().map(Self::record).collect())
    }

    fn answer(outcomes: &[Outcome]) -> Value {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        // In no order that has to do with that of the request.
        for (number, outcome) in outcomes.iter().enumerate().rev() {
            let id = number.to_string();
            match outcome {
                Outcome::Stored => successful
                    .push(json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "d41d8cd9"})),
                Outcome::Full => {
                    failed.push(json!({"Id": id, "Code": "InternalError", "SenderFault": false}))
                }
                Outcome::Bad => failed
                    .push(json!({"Id": id, "Code": "InvalidParameterValue", "SenderFault": true})),
            }
        }
        json!({"Successful": successful, "Failed": failed})
    }

    fn other(action: &str, request: &Value) -> Result<Value, &'static str> {
        let there = match action {
            "AmazonSQS.GetQueueUrl" => request["QueueName"] == Self::NAME,
            "AmazonSQS.GetQueueAttributes" => request["QueueUrl"] == url(Self::NAME).as_str(),
            other => panic!("nobody asks for {other}"),
        };
        let answer = json!({"QueueUrl": url(Self::NAME)});
        if there { Ok(answer) } else { Err("com.amazonaws.sqs#QueueDoesNotExist") }
    }
}
