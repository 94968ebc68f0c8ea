//! A stream of Kinesis.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    aws::{Amazon, Api, Outcome, Taken},
    contract::LARGE,
};
use crate::firehose::Program;

/// PutRecords.
pub struct PutRecords;

/// A service with one stream, `events`.
pub type Kinesis = Amazon<PutRecords>;

impl Api for PutRecords {
    const ACTION: &'static str = "Kinesis_20131202.PutRecords";
    const MAX_RECORDS: usize = 500;
    const MAX_BYTES: usize = 5 << 20;
    const REFUSES: Option<&'static str> = Some("InvalidArgumentException");

    fn configure(program: Program) -> Program {
        program
            .set("SINK_TYPE", "kinesis")
            .set("SINK_KINESIS_STREAM_NAME", "events")
            .set("SINK_KINESIS_MAX_RECORD_BYTES", LARGE.to_string())
            .set("NOMAD_FIREHOSE_FORMAT", "cloudevents")
    }

    fn records(request: &Value) -> Result<Vec<Taken>, &'static str> {
        if request["StreamName"] != "events" {
            return Err("ResourceNotFoundException");
        }
        let record = |it: &Value| {
            let key = it["PartitionKey"].as_str().unwrap().to_owned();
            let data = STANDARD.decode(it["Data"].as_str().unwrap()).unwrap();
            let event: Value = serde_json::from_slice(&data).unwrap();
            crate::cloudevents::assert_event(&event);
            Taken {
                id: event["id"].as_str().unwrap().to_owned(),
                payload: event["data"].clone(),
                size: data.len() + key.len(),
                key,
                token: None,
            }
        };
        Ok(request["Records"].as_array().unwrap().iter().map(record).collect())
    }

    fn answer(outcomes: &[Outcome]) -> Value {
        let result = |(number, outcome): (usize, &Outcome)| match outcome {
            Outcome::Stored => json!({
                "SequenceNumber": number.to_string(), "ShardId": "shardId-000000000000",
            }),
            _ => json!({
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": "Rate exceeded for shard shardId-000000000001",
            }),
        };
        let failed = outcomes.iter().filter(|it| **it != Outcome::Stored).count();
        let results: Vec<Value> = outcomes.iter().enumerate().map(result).collect();
        json!({"FailedRecordCount": failed, "Records": results})
    }
}
