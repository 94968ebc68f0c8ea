//! What becomes of a call of the sink `kafka` that nobody waits for any more.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nomad_firehose::{
    cursor::{Index, Mark},
    env::Env,
    record::{Meta, Record},
    sink::{self, Sink},
};
use tokio::time::timeout;

use super::{
    contract::Receiver,
    kafka::{
        Kafka, TOPIC,
        script::{IDENTITY, PRODUCE},
    },
};
use crate::firehose::when;

/// Of these, the library sends a few at once, and keeps the others until it is answered.
const RECORDS: usize = 20;
const BYTES: usize = 50_000;

fn record(number: usize) -> Record {
    Record {
        stream: "nodes",
        key: Arc::from("one for all"),
        mark: Mark::Object { key: 1, index: Index(7), hash: number as u64 },
        below: Index(6),
        body: Bytes::from(format!("{{\"ID\":\"{}\"}}", "x".repeat(BYTES))),
        meta: Meta {
            id: format!("nodes/one/{number}"),
            source: "/nomad/global".into(),
            kind: "nomad.node.changed",
            subject: "one".into(),
            time: None,
            index: Index(7),
            namespace: "".into(),
        },
    }
}

fn kafka(port: u16) -> Box<dyn Sink> {
    let brokers = format!("127.0.0.1:{port}");
    let env = Env::from([
        ("SINK_TYPE", "kafka"),
        ("SINK_KAFKA_BROKERS", brokers.as_str()),
        ("SINK_KAFKA_TOPIC", TOPIC),
    ]);
    let sink = sink::from_env(&env);
    env.check(sink).unwrap()
}

#[tokio::test]
async fn a_call_that_is_dropped_takes_with_it_what_waits_in_the_library() {
    let broker = Kafka::new(None).await;
    let sink = kafka(broker.port());
    let records: Vec<Record> = (0..RECORDS).map(record).collect();
    broker.script(|it| it.is_held = true);
    {
        let call = sink.deliver(&records);
        tokio::pin!(call);
        let asked = when("it begins", || broker.asked(PRODUCE) > 0);
        tokio::select! {
            ended = &mut call => panic!("{ended:?}"),
            () = asked => (),
        }
        // It goes on while nobody answers.
        assert!(timeout(Duration::from_millis(200), &mut call).await.is_err());
    }
    broker.script(|it| it.is_held = false);
    when("its connections are closed", || broker.open() == 0).await;
    let (asked, stored) = (broker.asked(PRODUCE), broker.messages().len());
    assert_eq!(asked, 1, "what waited was sent");
    assert!(stored < RECORDS, "{stored}");
    // The next call has a producer of its own, and gets all of them through.
    sink.deliver(&records).await.unwrap();
    assert_eq!(broker.messages().len(), stored + RECORDS);
    sink.close().await;
    when("its connections are closed", || broker.open() == 0).await;
}

#[tokio::test]
async fn calls_at_once_have_producers_of_their_own_which_are_used_again() {
    let broker = Kafka::new(None).await;
    let sink = kafka(broker.port());
    let records = [record(0)];
    let calls = sink.limits().calls;
    for _ in 0..5 {
        let all = (0..calls).map(|_| sink.deliver(&records));
        let ended = futures::future::join_all(all).await;
        assert!(ended.into_iter().all(|it| it.is_ok()));
    }
    assert_eq!(broker.asked(IDENTITY), calls);
    assert_eq!(broker.messages().len(), 5 * calls);
}
