//! What the sink `kinesis` has besides: full requests, shards that fail on their own, and the
//! credentials of AWS.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State};
use nomad_firehose::standin::nomad::Table;
use tokio::time::Instant;

use super::{
    aws::{KEY, most_of_one_key},
    contract::Receiver,
    kinesis::Kinesis,
    source::{Source, each_once, each_problem_once, id},
};
use crate::{
    firehose::{CONFIGURATION, Program, Served, when},
    support::allocation,
};

struct World {
    source: Source,
    kinesis: Kinesis,
}

impl World {
    async fn new() -> Self {
        Self { source: Source::new().await, kinesis: Kinesis::start().await }
    }

    fn program(&self) -> Program {
        Kinesis::sink(self.source.program("evaluations"), self.kinesis.port())
    }

    /// The sink without credentials and region.
    fn program_alone(&self) -> Program {
        self.source
            .program("evaluations")
            .set("SINK_TYPE", "kinesis")
            .set("SINK_KINESIS_STREAM_NAME", "events")
            .set("NOMAD_FIREHOSE_FORMAT", "cloudevents")
            .set("AWS_ENDPOINT_URL_KINESIS", format!("http://127.0.0.1:{}", self.kinesis.port()))
            .set("AWS_EC2_METADATA_DISABLED", "true")
    }
}

#[tokio::test]
async fn a_backlog_fills_its_requests() {
    const COUNT: usize = 3_000;
    let mut world = World::new().await;
    world.kinesis.take_time(Duration::from_millis(200));
    world.source.evaluations("web", 0..COUNT);
    let running = world.program().start();
    world.kinesis.took(COUNT).await;
    running.stop().await;
    each_once(&world.kinesis.received().await, 0..COUNT);
    let puts = world.kinesis.puts();
    let sizes: Vec<_> = puts.iter().map(|it| it.keys.len()).collect();
    assert!(sizes.iter().all(|it| *it <= 500), "{sizes:?}");
    // What was read before the first call began makes a call of its own.
    let full = sizes.iter().filter(|it| **it == 500).count();
    assert!(full >= 4, "{sizes:?}");
    assert!(sizes.len() <= COUNT / 500 + 3, "{sizes:?}");
}

#[tokio::test]
async fn no_request_has_two_records_of_one_key() {
    let mut world = World::new().await;
    let times: Vec<i64> = (1..9).collect();
    let row = |it| (Table::Allocations, allocation(&format!("a{it}"), &times));
    world.source.nomad.upsert_many((0..50).map(row).collect::<Vec<_>>());
    let program = world.source.program("allocations");
    let running = Kinesis::sink(program, world.kinesis.port()).start();
    let received = world.kinesis.took(50 * times.len()).await;
    running.stop().await;
    for it in 0..50 {
        let name = format!("a{it}.web[0]");
        let of = received.iter().filter(|(_, body)| body["Name"] == name.as_str());
        let came: Vec<_> = of.map(|(_, it)| it["TaskEvent"]["Time"].as_i64().unwrap()).collect();
        assert_eq!(came, times, "{name}");
    }
    let puts = world.kinesis.puts();
    assert!(puts.iter().all(|it| most_of_one_key(it) == 1), "a key is twice in a request");
    assert!(puts.len() < 50, "{} requests", puts.len());
}

#[tokio::test]
async fn a_shard_that_is_throttled_delays_its_own_keys_only() {
    let mut world = World::new().await;
    world.source.evaluations("full", 0..5);
    let running = world.program().start();
    running.logs("some records were not delivered").await;
    let mut slowest = Duration::ZERO;
    for number in 5..25 {
        let since = Instant::now();
        world.source.evaluations("web", number..number + 1);
        world.kinesis.took(number - 4).await;
        slowest = slowest.max(since.elapsed());
    }
    // Far less than what waits because it failed so often.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let failed = || world.kinesis.puts().iter().filter(|it| it.failed > 0).count();
    when("it fails again and again", || failed() >= 4).await;
    let puts = world.kinesis.puts();
    let failed: Vec<_> = puts.iter().filter(|it| it.failed > 0).map(|it| it.at).collect();
    assert!(failed[3] - failed[0] >= Duration::from_millis(125 + 250 + 500), "{failed:?}");
    world.kinesis.take_full(true).await;
    each_once(&world.kinesis.took(25).await, 0..25);
    running.logs("takes records again").await;
    let log = running.stop().await.log;
    assert_eq!(log.matches("ProvisionedThroughputExceededException").count(), 1, "{log}");
    assert_eq!(log.matches("takes records again").count(), 1, "{log}");
}

#[tokio::test]
async fn the_partition_key_can_be_one_for_all() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..10);
    let running = world.program().set("SINK_KINESIS_PARTITION_KEY", "nomad").start();
    world.kinesis.took(10).await;
    running.stop().await;
    assert!(world.kinesis.puts().iter().flat_map(|it| &it.keys).all(|it| it == "nomad"));
}

#[tokio::test]
async fn a_stream_that_is_not_there_stops_everything_and_loses_nothing() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..3);
    let running = world.program().set("SINK_KINESIS_STREAM_NAME", "other").start();
    running.logs("create it, or check SINK_KINESIS_STREAM_NAME and the region").await;
    let log = running.stop().await.log;
    let error = log.lines().find(|it| it.contains("check SINK_KINESIS_STREAM_NAME")).unwrap();
    assert!(error.contains("ERROR") && error.contains("`other`"), "{error}");
    assert!(!world.source.has_checkpoint());
    assert!(world.kinesis.received().await.is_empty());
    let running = world.program().start();
    each_once(&world.kinesis.took(3).await, 0..3);
    running.stop().await;
    assert_eq!(world.source.dead_letters().len(), 0);
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_at_once() {
    let world = World::new().await;
    let long = "k".repeat(257);
    let wrong = [
        ("SINK_KINESIS_STREAM_NAME", "no such name"),
        ("SINK_KINESIS_PARTITION_KEY", long.as_str()),
        ("SINK_KINESIS_MAX_RECORD_BYTES", "0"),
        ("SINK_KINESIS_MAX_REQUEST_BYTES", "10485761"),
        ("SINK_KINESIS_WORKERS", "0"),
        ("NOMAD_FIREHOSE_REJECTED", "perhaps"),
    ];
    each_problem_once(world.program(), &wrong).await;
    let finished = world.source.program("evaluations").set("SINK_TYPE", "kinesis").run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    assert!(finished.log.contains("SINK_KINESIS_STREAM_NAME: is not set"), "{}", finished.log);
}

#[tokio::test]
async fn secrets_and_payloads_are_not_in_the_log() {
    let mut world = World::new().await;
    world.source.evaluations("planted-payload", 0..2);
    world.source.evaluations("bad", 2..3);
    world.source.evaluations("full", 3..4);
    let planted = |program: Program| {
        program
            .set("LOG_LEVEL", "trace")
            .set("AWS_SECRET_ACCESS_KEY", "planted-secret")
            .set("AWS_SESSION_TOKEN", "planted-session")
    };
    let running = planted(world.program()).start();
    running.logs("rejected a record for good").await;
    running.logs("ProvisionedThroughputExceededException").await;
    world.kinesis.crash().await;
    running.logs("check AWS_ENDPOINT_URL").await;
    world.kinesis.come_back().await;
    world.kinesis.take_full(true).await;
    world.kinesis.took(3).await;
    let stopped = running.stop().await;
    assert_eq!(world.kinesis.puts()[0].session.as_deref(), Some("planted-session"));
    let denied = planted(world.program()).set("AWS_ACCESS_KEY_ID", "AKIDWRONG").start();
    world.source.evaluations("planted-payload", 4..5);
    denied.logs("check the credentials in AWS_*").await;
    let denied = denied.stop().await;
    for text in [&stopped.log, &stopped.out, &denied.log] {
        assert!(!text.contains("planted"), "{text}");
        // Nor is what is planted as it is sent.
        assert!(!text.contains("Signature="), "{text}");
    }
}

#[tokio::test]
async fn credentials_and_region_may_be_in_the_files_of_aws() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..3);
    let credentials = format!(
        "[default]\naws_access_key_id = AKIDWRONG\naws_secret_access_key = no\n\n\
         [events]\naws_access_key_id = {KEY}\naws_secret_access_key = yes\n"
    );
    let running = world
        .program_alone()
        .set("AWS_PROFILE", "events")
        .set("AWS_SHARED_CREDENTIALS_FILE", world.source.file("credentials", &credentials))
        .set(
            "AWS_CONFIG_FILE",
            world.source.file("config", "[profile events]\nregion = eu-central-1\n"),
        )
        .start();
    each_once(&world.kinesis.took(3).await, 0..3);
    running.stop().await;
}

#[tokio::test]
async fn a_region_that_nobody_set_is_what_the_log_says() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..1);
    let program = world.program_alone().set("AWS_ACCESS_KEY_ID", KEY);
    let running = program.set("AWS_SECRET_ACCESS_KEY", "yes").start();
    running.logs("the receiver is not available").await;
    let log = running.stop().await.log;
    assert!(log.contains("no AWS region is known; set AWS_REGION"), "{log}");
    assert!(world.kinesis.received().await.is_empty());
}

/// What a token service was asked.
type Asked = Arc<Mutex<Vec<String>>>;

async fn assume_role(State(asked): State<Asked>, body: String) -> String {
    asked.lock().unwrap().push(body);
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><AssumedRoleUser>\
         <Arn>arn:aws:sts::123456789012:assumed-role/firehose/s</Arn>\
         <AssumedRoleId>AROA:s</AssumedRoleId></AssumedRoleUser><Credentials>\
         <AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>planted-secret</SecretAccessKey>\
         <SessionToken>planted-session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
         </AssumeRoleWithWebIdentityResponse>"
    )
}

#[tokio::test]
async fn credentials_may_be_those_of_a_web_identity() {
    let mut world = World::new().await;
    world.source.evaluations("web", 0..3);
    let asked = Asked::default();
    let router = Router::new().fallback(assume_role).with_state(asked.clone());
    let tokens = Served::new(router).await;
    let running = world
        .program_alone()
        .set("LOG_LEVEL", "trace")
        .set("AWS_REGION", "eu-west-1")
        .set("AWS_ENDPOINT_URL_STS", &tokens.address)
        .set("AWS_WEB_IDENTITY_TOKEN_FILE", world.source.file("identity", "planted-identity"))
        .set("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/firehose")
        .start();
    each_once(&world.kinesis.took(3).await, 0..3);
    let log = running.stop().await.log;
    assert!(!log.contains("planted"), "{log}");
    assert_eq!(world.kinesis.puts()[0].session.as_deref(), Some("planted-session"));
    let asked = asked.lock().unwrap().join("\n");
    assert!(asked.contains("WebIdentityToken=planted-identity"), "{asked}");
    assert_eq!(world.kinesis.received().await[0].1["ID"], id(0));
}
