//! Its configuration: TLS, passwords that are replaced, a check, mistakes, and what stays a secret.

use super::World;
use crate::{
    connecting::servers::Authority,
    firehose::{CONFIGURATION, FAILED, Program},
    sinks::{
        contract::Receiver,
        mongodb::{
            MongoDb,
            login::{PASSWORD, USER},
        },
        source::{Source, each_problem_once},
    },
};

#[tokio::test]
async fn servers_are_known_by_an_authority_and_know_us_by_a_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mongodb = MongoDb::secure(authority.server("127.0.0.1", true)).await;
    let world = World { source: Source::new().await, mongodb };
    let pem =
        ["cert.pem", "key.pem"].map(|it| std::fs::read_to_string(authority.file(it)).unwrap());
    let pair = world.source.file("pair.pem", &pem.concat());
    let connection = |authority: &Authority| {
        let address = MongoDb::connection(world.mongodb.port());
        let ca = authority.file("authorities/ca.pem");
        format!("{address}&tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={pair}")
    };
    world.source.evaluations("web", 0..2);
    let running = world.program_to(&connection(&other)).start();
    running.logs(MongoDb::UNREACHABLE).await;
    let log = running.stop().await.log;
    assert!(log.contains("certificate"), "{log}");
    let running = world.program_to(&connection(&authority)).start();
    world.has(2).await;
    running.stop().await;
    let missing = connection(&authority).replace("ca.pem", "nothing.pem");
    let checked = world.program_to(&missing).arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(FAILED));
    assert!(checked.out.contains("check tlsCAFile and tlsCertificateKeyFile"), "{}", checked.out);
}

#[tokio::test]
async fn a_password_in_a_file_is_read_again_once_it_is_refused() {
    let world = World::new().await;
    let connection = MongoDb::connection(world.mongodb.port());
    let connection = connection.replace(&format!("{USER}:{PASSWORD}@"), &format!("{USER}@"));
    let file = world.source.file("password", "old\n");
    world.source.evaluations("web", 0..2);
    let program = world.program_to(&connection).set("SINK_MONGODB_PASSWORD_FILE", &file);
    let running = program.start();
    running.logs(MongoDb::DENIED).await;
    world.source.file("password", &format!("{PASSWORD}\n"));
    world.has(2).await;
    running.logs("takes records again").await;
    running.stop().await;
}

#[tokio::test]
async fn a_check_logs_in_and_writes_nothing() {
    let world = World::new().await;
    let check = async |program: Program| program.arguments(&["--check"]).run().await;
    let checked = check(world.program()).await;
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.log);
    let place = format!("collection nomad.events at 127.0.0.1:{}", world.mongodb.port());
    assert!(checked.out.contains(&place), "{}", checked.out);
    let address = MongoDb::connection(world.mongodb.port());
    let denied = check(world.program_to(&address.replace(PASSWORD, "wrong"))).await;
    assert_eq!(denied.code, Some(FAILED));
    assert!(denied.out.contains(MongoDb::DENIED), "{}", denied.out);
    let nobody = check(world.program_to(&MongoDb::connection(9))).await;
    assert_eq!(nobody.code, Some(FAILED));
    assert!(nobody.out.contains(MongoDb::UNREACHABLE), "{}", nobody.out);
    assert!(world.writes().is_empty());
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_at_once() {
    let world = World::new().await;
    let wrong = [
        ("SINK_MONGODB_CONNECTION", "mongodb://u:planted@db:port"),
        ("SINK_MONGODB_DATABASE", "a.b"),
        ("SINK_MONGODB_COLLECTION", "system.users"),
        ("SINK_MONGODB_WORKERS", "0"),
        ("SINK_MONGODB_PASSWORD_FILE", "/nowhere/password"),
        ("NOMAD_FIREHOSE_REJECTED", "perhaps"),
    ];
    let finished = each_problem_once(world.program(), &wrong).await;
    assert!(!finished.log.contains("planted"), "{}", finished.log);
    let finished = world.source.program("evaluations").set("SINK_TYPE", "mongo").run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    for name in ["CONNECTION", "DATABASE", "COLLECTION"] {
        let text = format!("SINK_MONGODB_{name}: is not set");
        assert!(finished.log.contains(&text), "{}", finished.log);
    }
    let file = world.source.file("password", "planted");
    let nobody = world.program_to("mongodb://db").set("SINK_MONGODB_PASSWORD_FILE", file);
    let finished = nobody.run().await;
    assert!(finished.log.contains("names no user"), "{}", finished.log);
}

#[tokio::test]
async fn secrets_and_payloads_are_not_in_the_log() {
    let mut world = World::new().await;
    world.source.evaluations("planted-payload", 0..2);
    for (number, job) in ["bad", "twin", "full"].into_iter().enumerate() {
        world.source.evaluations(job, number + 2..number + 3);
    }
    let running = world.program().set("LOG_LEVEL", "trace").start();
    running.logs_times(2, "rejected a record for good").await;
    running.logs("some records were not delivered").await;
    world.mongodb.crash().await;
    world.source.evaluations("planted-payload", 5..6);
    running.logs(MongoDb::UNREACHABLE).await;
    world.mongodb.come_back().await;
    world.mongodb.take_full(true).await;
    world.mongodb.took(4).await;
    let stopped = running.stop().await;
    let wrong = MongoDb::connection(world.mongodb.port()).replace(PASSWORD, "planted-wrong");
    let denied = world.program_to(&wrong).set("LOG_LEVEL", "trace").start();
    world.source.evaluations("planted-payload", 6..7);
    denied.logs(MongoDb::DENIED).await;
    let denied = denied.stop().await;
    for text in [&stopped.log, &stopped.out, &denied.log] {
        assert!(!text.contains("planted"), "{text}");
        // Nor does a server's answer show values of a document.
        assert!(!text.contains("dup key") && !text.contains("consideredValue"), "{text}");
    }
}
