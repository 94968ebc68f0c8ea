//! What the sink `http` has besides: what its requests look like, and how it is configured.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use nomad_firehose::standin::nomad::Table;
use ring::hmac;

use super::{
    source::{Source, each_once, each_problem_once, id, numbered},
    web::{Posted, TOKEN, Web},
};
use crate::{
    firehose::{CONFIGURATION, Program},
    support::allocation,
};

mod answers;
mod rejections;
mod secrets;

/// A Nomad, and a receiver of what is published of it.
struct World {
    source: Source,
    web: Web,
}

impl World {
    async fn new() -> Self {
        Self { source: Source::new().await, web: Web::start().await }
    }

    fn program(&self, stream: &str) -> Program {
        sink(self.source.program(stream), self.web.port()).set("SINK_HTTP_TOKEN", TOKEN)
    }
}

fn sink(program: Program, port: u16) -> Program {
    program
        .set("SINK_TYPE", "http")
        .set("SINK_HTTP_ADDRESS", format!("http://127.0.0.1:{port}/in/events?tenant=a%20b&n=1"))
}

#[tokio::test]
async fn an_event_is_a_request_of_its_own_with_its_attributes_as_headers() {
    let world = World::new().await;
    let job = r#"{"ID":"team/app-ümläut" ,"Namespace":"default","ModifyIndex":7,"N":1234567890123456789.10}"#;
    world.source.nomad.serve_recorded(Table::Jobs, Bytes::from(format!("[{job}]")), 7);
    let running = world.program("jobliststubs").start();
    let posted = world.web.asked(1).await;
    running.stop().await;
    let [posted] = &posted[..] else { panic!("{} requests", posted.len()) };
    assert_eq!(posted.method, "POST");
    assert_eq!(posted.uri, "/in/events?tenant=a%20b&n=1");
    assert_eq!(posted.body, job.as_bytes());
    let id = posted.header("ce-id");
    assert!(id.starts_with("jobliststubs/default/team/app-%C3%BCml%C3%A4ut/7/"), "{id}");
    assert!(posted.header("ce-source").starts_with("/nomad/"), "{:?}", posted.headers);
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer let-me-in"),
        ("ce-specversion", "1.0"),
        ("ce-type", "nomad.job-list-stub.changed"),
        ("ce-subject", "team/app-%C3%BCml%C3%A4ut"),
        ("ce-nomadindex", "7"),
        ("ce-nomadnamespace", "default"),
        ("ce-time", ""),
    ] {
        assert_eq!(posted.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn the_time_of_a_change_is_a_header_where_nomad_says_it() {
    let world = World::new().await;
    let mut evaluation = numbered(1, "web");
    evaluation.insert("ModifyTime".into(), 1_700_000_000_123_456_789_i64.into());
    world.source.nomad.upsert(Table::Evaluations, evaluation);
    let running = world.program("evaluations").start();
    let posted = world.web.asked(1).await;
    running.stop().await;
    assert_eq!(posted[0].header("ce-time"), "2023-11-14T22:13:20.123456789Z");
}

#[tokio::test]
async fn an_event_can_be_an_envelope_without_headers_of_its_own() {
    let world = World::new().await;
    world.source.evaluations("web", 0..1);
    let running = world.program("evaluations").set("NOMAD_FIREHOSE_FORMAT", "cloudevents").start();
    let posted = world.web.asked(1).await;
    running.stop().await;
    assert_eq!(posted[0].header("content-type"), "application/cloudevents+json");
    let own = posted[0].headers.keys().filter(|it| it.as_str().starts_with("ce-")).count();
    assert_eq!(own, 0, "{:?}", posted[0].headers);
    let event = &posted[0].events()[0];
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "nomad.evaluation.changed");
    assert_eq!(event["data"]["ID"], id(0));
}

#[tokio::test]
async fn batches_have_a_form_and_stay_within_their_limits() {
    for (batch, format, content_type) in [
        ("array", "payload", "application/json"),
        ("array", "cloudevents", "application/cloudevents-batch+json"),
        ("ndjson", "payload", "application/x-ndjson"),
        ("ndjson", "cloudevents", "application/x-ndjson"),
        ("cloudevents", "payload", "application/cloudevents-batch+json"),
    ] {
        // The one limit and then the other is what ends a batch.
        for (records, bytes) in [(7, 1_000_000), (500, 6_000)] {
            let what = format!("{batch} of {format} with {records} and {bytes}");
            let world = World::new().await;
            let names: Vec<String> = (0..8).map(|it| format!("a{it}")).collect();
            let times: Vec<i64> = (1..9).collect();
            let rows = names.iter().map(|it| (Table::Allocations, allocation(it, &times)));
            world.source.nomad.upsert_many(rows.collect::<Vec<_>>());
            let running = world
                .program("allocations")
                .set("NOMAD_FIREHOSE_FORMAT", format)
                .set("SINK_HTTP_BATCH", batch)
                .set("SINK_HTTP_BATCH_RECORDS", records.to_string())
                .set("SINK_HTTP_BATCH_BYTES", bytes.to_string())
                .set("SINK_WORKER_COUNT", "2")
                .start();
            let received = world.web.took(names.len() * times.len()).await;
            running.stop().await;
            assert_eq!(received.len(), names.len() * times.len(), "{what}");
            for name in &names {
                let name = format!("{name}.web[0]");
                let of = received.iter().filter(|(_, body)| body["Name"] == name.as_str());
                let came: Vec<_> =
                    of.map(|(_, it)| it["TaskEvent"]["Time"].as_i64().unwrap()).collect();
                assert_eq!(came, times, "{what}: {name}");
            }
            let posted = world.web.posted();
            assert!(posted.iter().any(|it| it.events().len() > 1), "{what}");
            for it in posted {
                assert_eq!(it.header("content-type"), content_type, "{what}");
                assert_eq!(it.header("ce-id"), "", "{what}");
                let (count, size) = (it.events().len(), it.body.len());
                assert!(
                    count <= records && (count == 1 || size <= bytes),
                    "{what}: {count}, {size}"
                );
            }
        }
    }
}

/// One request of one event, where the sink is configured with these.
async fn one_request(wanted: &str, change: impl FnOnce(Program, &Source) -> Program) -> Posted {
    let world = World::new().await;
    world.web.demand(wanted);
    world.source.evaluations("web", 0..1);
    let program = sink(world.source.program("evaluations"), world.web.port());
    let running = change(program, &world.source).start();
    each_once(&world.web.took(1).await, 0..1);
    running.stop().await;
    world.web.posted().pop().unwrap()
}

#[tokio::test]
async fn a_signature_is_of_the_body_before_it_is_compressed() {
    let signed = |posted: &Posted, header: &str, secret: &str| {
        let signature = posted.header(header).strip_prefix("sha256=").unwrap().to_owned();
        let digits = |at: usize| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
        let signature: Vec<u8> = (0..signature.len()).step_by(2).map(digits).collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, &posted.plain(), &signature).unwrap();
    };
    let posted = one_request("", |program, _| {
        program.set("SINK_HTTP_GZIP", "true").set("SINK_HTTP_HMAC_SECRET", "k3y")
    })
    .await;
    assert_eq!(posted.header("content-encoding"), "gzip");
    assert_eq!(posted.body[..2], [0x1f, 0x8b]);
    signed(&posted, "x-signature-256", "k3y");

    let posted = one_request("", |program, source| {
        program
            .set("SINK_HTTP_BATCH", "array")
            .set("SINK_HTTP_HMAC_SECRET_FILE", source.file("secret", "of-a-file\n"))
            .set("SINK_HTTP_HMAC_HEADER", "X-Hub-Signature-256")
    })
    .await;
    assert_eq!(posted.header("content-encoding"), "");
    assert_eq!(posted.header("x-signature-256"), "");
    signed(&posted, "x-hub-signature-256", "of-a-file");
}

#[tokio::test]
async fn headers_are_lines_of_the_environment_or_of_a_file() {
    let posted = one_request("Splunk abc", |program, _| {
        program.set("SINK_HTTP_HEADERS", "X-Tenant: a b\n\nAuthorization:Splunk abc\n")
    })
    .await;
    assert_eq!(posted.header("x-tenant"), "a b");
    let posted = one_request("Bearer t", |program, source| {
        program
            .set("SINK_HTTP_HEADERS", "X-Tenant: a")
            .set("SINK_HTTP_HEADERS_FILE", source.file("headers", "X-Key: 1:2\n"))
            .set("SINK_HTTP_TOKEN", "t")
    })
    .await;
    assert_eq!((posted.header("x-key"), posted.header("x-tenant")), ("1:2", ""));
}

#[tokio::test]
async fn user_info_of_the_address_becomes_basic_authentication() {
    let wanted = format!("Basic {}", STANDARD.encode("us er:p@ss"));
    let world = World::new().await;
    world.web.demand(&wanted);
    world.source.evaluations("web", 0..1);
    let address = format!("http://us%20er:p%40ss@127.0.0.1:{}/in", world.web.port());
    let running = world
        .source
        .program("evaluations")
        .set("SINK_TYPE", "http")
        .set("SINK_HTTP_ADDRESS", address)
        .start();
    each_once(&world.web.took(1).await, 0..1);
    running.stop().await;
    assert_eq!(world.web.posted()[0].uri, "/in");
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_at_once() {
    let world = World::new().await;
    let wrong = [
        ("SINK_HTTP_ADDRESS", "http://u:planted-password@127.0.0.1/in?key=planted-query"),
        ("SINK_HTTP_BATCH", "pairs"),
        ("SINK_HTTP_BATCH_RECORDS", "0"),
        ("SINK_HTTP_BATCH_BYTES", "1GB"),
        ("SINK_HTTP_GZIP", "perhaps"),
        ("SINK_HTTP_HEADERS", "planted-header"),
        ("SINK_HTTP_HMAC_SECRET_FILE", "/nowhere"),
        ("SINK_HTTP_HMAC_HEADER", "not a header"),
        ("SINK_HTTP_TIMEOUT", "soon"),
        ("SINK_WORKER_COUNT", "0"),
    ];
    let finished = each_problem_once(world.program("evaluations"), &wrong).await;
    assert!(!finished.log.contains("planted"), "{}", finished.log);
    for address in [
        "127.0.0.1/in?key=planted",
        "ftp://u:planted@h/?a",
        "http://u:planted?@:/",
        "ftp://h/?key=a@planted",
    ] {
        let finished = world.program("evaluations").set("SINK_HTTP_ADDRESS", address).run().await;
        assert_eq!(finished.code, Some(CONFIGURATION));
        assert!(finished.log.contains("SINK_HTTP_ADDRESS: "), "{}", finished.log);
        assert!(!finished.log.contains("planted"), "{}", finished.log);
    }
}
