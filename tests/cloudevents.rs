//! What CloudEvents 1.0 demands of an event, of every stream and through every sink: the facts are
//! in `fixtures/cloudevents.schema.json`, in our own words.

use std::sync::LazyLock;

use jsonschema::Validator;
use nomad_firehose::{
    record::{Format, Record},
    streams::ALL,
};
use serde_json::{Value, json};

use crate::contract::emit;

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("fixtures/cloudevents.schema.json")).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
});

/// What is wrong with an event.
fn wrong(event: &Value) -> Vec<String> {
    SCHEMA.iter_errors(event).map(|it| format!("{}: {it}", it.instance_path())).collect()
}

/// A whole event, as it has come to a receiver.
#[track_caller]
pub fn assert_event(event: &Value) {
    assert_eq!(wrong(event), [""; 0], "{event}");
    assert!(event.get("data").is_some() && event["datacontenttype"] == "application/json");
}

/// Names that an object may have, though hardly any has.
fn hostile_names() -> Vec<String> {
    [
        "gr\u{fc}n/\u{2603}/\u{1f980}",
        "quote\"back\\slash'",
        "with space",
        "100%25",
        "line\nbreak\r\t\u{0}\u{1b}[0m",
        "\u{7f}\u{85}\u{9f}\u{fdd0}\u{fffe}\u{10ffff}",
        "<&>{}[]|^`",
        "..",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["x".repeat(300), "\u{fc}".repeat(300)])
    .collect()
}

/// All that was recorded of a stream, and the first of it with every hostile name.
fn records(stream: &str) -> Vec<Record> {
    let lists = emit::lists_of(stream).flat_map(|it| emit::emit(stream, it).records);
    let objects = emit::objects_of(stream).map(|it| emit::emit_object(stream, it));
    let mut records: Vec<Record> = lists.chain(objects).collect();
    let first = records[0].clone();
    for name in hostile_names() {
        let mut record = first.clone();
        record.key = name.as_str().into();
        record.meta.id = format!("{stream}/{name}/7/00");
        record.meta.subject.clone_from(&name);
        record.meta.namespace = name.into();
        records.push(record);
    }
    records
}

#[test]
fn an_envelope_of_every_stream_conforms_and_has_the_payload_as_it_is() {
    for (stream, ..) in ALL {
        for record in records(stream) {
            let text = record.encoded(Format::CloudEvents);
            assert!(text.ends_with(&[&b"\"data\":"[..], &record.body, b"}"].concat()));
            assert!(!text.contains(&b'\n'), "one line each");
            let event: Value = serde_json::from_slice(&text).unwrap();
            assert_event(&event);
            assert_eq!(event["nomadindex"], record.meta.index.to_string());
        }
    }
}

#[test]
fn attributes_of_objects_that_differ_differ() {
    let mut ids = std::collections::HashSet::new();
    for record in records("nodes").iter().rev().take(hostile_names().len()) {
        let event: Value = serde_json::from_slice(&record.encoded(Format::CloudEvents)).unwrap();
        assert!(ids.insert(event["id"].to_string()), "{event}");
        assert!(event["id"].as_str().unwrap().contains(event["subject"].as_str().unwrap()));
    }
}

#[test]
fn what_does_not_conform_is_found() {
    let good = json!({"specversion": "1.0", "id": "1", "source": "/nomad/global",
        "type": "nomad.node.changed", "datacontenttype": "application/json", "data": {}});
    assert_event(&good);
    let bad = [
        ("specversion", json!("0.3")),
        ("id", json!("")),
        ("id", json!("a\nb")),
        ("id", json!(1)),
        ("source", json!("/nomad/a b")),
        ("source", json!("/nomad/\u{fc}")),
        ("source", json!("/nomad/%2")),
        ("subject", json!("")),
        ("time", json!("yesterday")),
        ("time", json!("2026-11-23T15:23:06")),
        ("data_base64", json!("AA==")),
        ("Upper", json!("x")),
        ("under_score", json!("x")),
        ("twentyonecharacters21", json!("x")),
        ("extension", json!(1_u64 << 31)),
        ("extension", json!(null)),
        ("extension", json!({})),
        ("nomadindex", json!(7)),
    ];
    for (name, value) in bad {
        let mut event = good.clone();
        event[name] = value;
        assert!(!wrong(&event).is_empty(), "{event}");
    }
    for name in ["specversion", "id", "source", "type"] {
        let mut event = good.clone();
        event.as_object_mut().unwrap().remove(name);
        assert!(!wrong(&event).is_empty(), "{name}");
    }
}

#[test]
fn every_example_of_the_page_conforms() {
    let page = include_str!("../docs/cloudevents.md");
    let examples: Vec<&str> =
        page.split("```json\n").skip(1).filter_map(|it| it.split("\n```").next()).collect();
    assert!(examples.len() >= 2, "{} examples", examples.len());
    for example in examples {
        match serde_json::from_str(example).unwrap() {
            Value::Array(events) => events.iter().for_each(assert_event),
            event => assert_event(&event),
        }
    }
}

#[cfg(feature = "http")]
mod http {
    use axum::{
        Router,
        body::Bytes,
        extract::State,
        http::{HeaderMap, StatusCode},
    };
    use nomad_firehose::{
        env::Env,
        sink::{self, Sink},
        standin::serve,
    };
    use tokio::{net::TcpListener, sync::mpsc};

    use super::*;
    use crate::support::client;

    type Posts = mpsc::UnboundedSender<(HeaderMap, Bytes)>;

    async fn take(State(posts): State<Posts>, headers: HeaderMap, body: Bytes) -> StatusCode {
        posts.send((headers, body)).unwrap();
        StatusCode::OK
    }

    /// What the sink with these settings sends of these records.
    async fn sent(records: &[Record], batch: &str, format: &str) -> Vec<(HeaderMap, Bytes)> {
        drop(client());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let (posts, mut posted) = mpsc::unbounded_channel();
        let router = Router::new().fallback(take).with_state(posts);
        let server = tokio::spawn(serve::serve(router, listener, std::future::pending()));
        let env = Env::from([
            ("SINK_TYPE", "http"),
            ("SINK_HTTP_ADDRESS", address.as_str()),
            ("SINK_HTTP_BATCH", batch),
            ("NOMAD_FIREHOSE_FORMAT", format),
        ]);
        let sink = sink::from_env(&env);
        let sink: Box<dyn Sink> = env.check(sink).unwrap();
        let most = sink.limits().records;
        for call in records.chunks(most) {
            sink.deliver(call).await.unwrap();
        }
        server.abort();
        let mut all = Vec::new();
        while let Ok(it) = posted.try_recv() {
            all.push(it);
        }
        all
    }

    fn sample() -> Vec<Record> {
        let few = |(stream, _): &(&str, _)| {
            let all = records(stream);
            let hostile = all.len() - hostile_names().len();
            [&all[..2], &all[hostile..]].concat()
        };
        ALL.iter().flat_map(few).collect()
    }

    /// The event that the headers and the body of a request are in binary mode.
    fn event_of(headers: &HeaderMap, body: &[u8]) -> Value {
        let mut event = json!({"data": serde_json::from_slice::<Value>(body).unwrap()});
        event["datacontenttype"] = headers["content-type"].to_str().unwrap().into();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
            let bytes = value.as_bytes();
            let fine = |it: &u8| (0x21..=0x7e).contains(it) && *it != b'"';
            assert!(!bytes.is_empty() && bytes.iter().all(fine), "{name}: {value:?}");
            event[name] = decoded(bytes).into();
        }
        event
    }

    fn decoded(text: &[u8]) -> String {
        let mut out = Vec::new();
        let mut rest = text.iter();
        while let Some(it) = rest.next() {
            out.push(match it {
                b'%' => {
                    let digits = [*rest.next().unwrap(), *rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                it => *it,
            });
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn a_request_in_binary_mode_has_the_attributes_of_the_envelope() {
        let records = sample();
        let posted = sent(&records, "off", "payload").await;
        assert_eq!(posted.len(), records.len());
        for ((headers, body), record) in posted.iter().zip(&records) {
            let event = event_of(headers, body);
            assert_event(&event);
            let envelope = record.encoded(Format::CloudEvents);
            assert_eq!(event, serde_json::from_slice::<Value>(&envelope).unwrap());
        }
    }

    #[tokio::test]
    async fn envelopes_come_alone_as_lines_and_as_a_batch() {
        let records = sample();
        for (batch, format, media_type) in [
            ("off", "cloudevents", "application/cloudevents+json"),
            ("array", "cloudevents", "application/cloudevents-batch+json"),
            ("cloudevents", "payload", "application/cloudevents-batch+json"),
            ("ndjson", "cloudevents", "application/x-ndjson"),
        ] {
            let mut ids = Vec::new();
            for (headers, body) in sent(&records, batch, format).await {
                assert_eq!(headers["content-type"], media_type);
                assert!(!headers.keys().any(|it| it.as_str().starts_with("ce-")), "{batch}");
                let events: Vec<Value> = match batch {
                    "ndjson" => body
                        .split(|it| *it == b'\n')
                        .filter(|it| !it.is_empty())
                        .map(|it| serde_json::from_slice(it).unwrap())
                        .collect(),
                    "off" => vec![serde_json::from_slice(&body).unwrap()],
                    _ => serde_json::from_slice(&body).unwrap(),
                };
                events.iter().for_each(assert_event);
                ids.extend(events.iter().map(|it| it["id"].to_string()));
            }
            assert_eq!(ids.len(), records.len(), "{batch}");
        }
    }
}
