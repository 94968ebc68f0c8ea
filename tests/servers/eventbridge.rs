//! The sink `eventbridge` against a server that has event buses, whose rule hands everything on to
//! a queue.

use serde_json::{Value, json};

use super::moto::{ACCOUNT, Moto, REGION};
use crate::{
    firehose::{Program, wait},
    sinks::{
        contract::{LARGE, Receiver},
        source::Source,
    },
};

const SOURCE: &str = "example.nomad";

/// A server with one event bus.
pub struct Bus {
    moto: Moto,
    url: String,
    taken: Vec<Value>,
}

impl Bus {
    /// Makes the bus, and the rule that hands on what has our source.
    async fn make(moto: &Moto) -> String {
        let url = moto.queue("target").await;
        let rule = json!({
            "Name": "all",
            "EventBusName": "events",
            "EventPattern": json!({"source": [SOURCE], "detail-type": ["Nomad"]}).to_string(),
        });
        let target = json!({
            "Rule": "all",
            "EventBusName": "events",
            "Targets": [{"Id": "1", "Arn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:target")}],
        });
        moto.ask("events", "AWSEvents.CreateEventBus", json!({"Name": "events"})).await;
        moto.ask("events", "AWSEvents.PutRule", rule).await;
        moto.ask("events", "AWSEvents.PutTargets", target).await;
        url
    }

    /// The events that came.
    async fn events(&mut self) -> &[Value] {
        let came = self.moto.drain(&self.url).await;
        let event = |it: &Value| serde_json::from_str(it["Body"].as_str().unwrap()).unwrap();
        self.taken.extend(came.iter().map(event));
        &self.taken
    }

    fn sink(program: Program, port: u16) -> Program {
        Moto::configure(program, port)
            .set("SINK_TYPE", "eventbridge")
            .set("SINK_EVENT_BUS_NAME", "events")
            .set("SINK_EVENT_BUS_DETAIL_TYPE", "Nomad")
            .set("SINK_EVENT_BUS_SOURCE", SOURCE)
            .set("SINK_EVENT_BUS_MAX_REQUEST_BYTES", LARGE.to_string())
    }
}

impl Receiver for Bus {
    const UNREACHABLE: &'static str = "check AWS_ENDPOINT_URL";
    /// It lets everybody in.
    const DENIED: &'static str = "never";

    async fn start() -> Self {
        let moto = Moto::start().await;
        let url = Self::make(&moto).await;
        Self { moto, url, taken: Vec::new() }
    }

    fn port(&self) -> u16 {
        self.moto.port
    }

    fn configure(&self, program: Program, port: u16) -> Program {
        Self::sink(program, port)
    }

    fn configure_wrongly(&self, program: Program, port: u16) -> Program {
        Self::sink(program, port)
    }

    async fn received(&mut self) -> Vec<(String, Value)> {
        let id = |it: &Value| it["resources"][0].as_str().unwrap().to_owned();
        self.events().await.iter().map(|it| (id(it), it["detail"].clone())).collect()
    }

    async fn take_full(&mut self, _: bool) {}

    async fn crash(&mut self) {
        panic!("it would forget everything");
    }

    async fn come_back(&mut self) {}
}

// It keeps everything in its memory, fails nothing, refuses nothing that is well-formed, and lets
// everybody in; what then is to be done is tested with a receiver that does. It takes a fifth of a
// second for each event, so those tests that make many are left to that one as well.
crate::sink_contract!(Bus:
    a_lost_answer_means_a_duplicate_and_never_a_loss
    a_record_that_is_too_large_is_kept_and_the_others_go_on
);

#[tokio::test]
async fn a_rule_matches_what_is_published_once_the_bus_is_there() {
    let moto = Moto::start().await;
    let source = Source::new().await;
    source.evaluations("web", 0..3);
    let running = Bus::sink(source.program("evaluations"), moto.port).start();
    running.logs("create it, or check SINK_EVENT_BUS_NAME and the region").await;
    let url = Bus::make(&moto).await;
    wait("everything comes", async || (moto.count(&url).await == 3).then_some(())).await;
    running.stop().await;
    let mut bus = Bus { moto, url, taken: Vec::new() };
    for event in bus.events().await {
        assert_eq!((&event["source"], &event["detail-type"]), (&SOURCE.into(), &"Nomad".into()));
        let id = event["resources"][0].as_str().unwrap();
        assert!(id.starts_with("evaluations/") && event["detail"]["JobID"] == "web", "{event}");
    }
}
