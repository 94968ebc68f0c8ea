//! A configuration that is wrong: all of it is said, and nothing is done.

use std::{io::ErrorKind, net::TcpListener};

use super::{
    World,
    firehose::{CONFIGURATION, Program},
};

const TOKEN: &str = "9f8e-planted-token";
const PASSWORD: &str = "planted-password";

#[tokio::test]
async fn every_problem_is_printed_at_once_before_anything_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let wrong = [
        ("LOG_LEVEL", "loud"),
        ("NOMAD_FIREHOSE_GRACE", "soon"),
        ("NOMAD_FIREHOSE_CHECKPOINT", "10"),
        ("NOMAD_FIREHOSE_START", "yesterday"),
        ("NOMAD_FIREHOSE_SOURCE", "magic"),
        ("NOMAD_FIREHOSE_LISTEN", "here"),
        ("NOMAD_FIREHOSE_FORMAT", "xml"),
        ("NOMAD_FIREHOSE_FILTER", "kind == 1"),
        ("NOMAD_FIREHOSE_REJECTED", "perhaps"),
        ("NOMAD_FIREHOSE_SESSION_TTL", "1s"),
        ("NOMAD_SKIP_VERIFY", "perhaps"),
        ("CONSUL_HTTP_SSL", "perhaps"),
    ];
    let mut program = Program::stream("nodes")
        .set("NOMAD_ADDR", format!("http://admin:{PASSWORD}@{address}"))
        .set("CONSUL_HTTP_ADDR", address.to_string())
        .set("NOMAD_TOKEN", TOKEN)
        .set("CONSUL_HTTP_TOKEN", format!("{TOKEN}\nwith a line break"));
    for (name, value) in wrong {
        program = program.set(name, value);
    }
    let finished = program.run().await;
    assert_eq!((finished.code, finished.out.as_str()), (Some(CONFIGURATION), ""));
    for name in wrong.map(|(name, _)| name).iter().chain(&["SINK_TYPE", "CONSUL_HTTP_TOKEN"]) {
        let lines = finished.log.lines().filter(|it| it.starts_with(&format!("{name}: "))).count();
        assert_eq!(lines, 1, "{name}: {}", finished.log);
    }
    for secret in [TOKEN, PASSWORD] {
        assert!(!finished.log.contains(secret), "{}", finished.log);
    }
    let connected = listener.accept().map(|_| ()).map_err(|err| err.kind());
    assert_eq!(connected, Err(ErrorKind::WouldBlock), "something connected");
}

#[tokio::test]
async fn a_variable_that_nobody_knows_is_warned_about_with_the_one_that_was_meant() {
    let world = World::with(1).await;
    let running = world.elected("nodes").set("NOMAD_FIREHOSE_CHEKPOINT", "5s").start();
    running.publishes(1).await;
    let log = running.stop().await.log;
    let warning = log.lines().find(|it| it.contains("NOMAD_FIREHOSE_CHEKPOINT")).unwrap();
    assert!(warning.contains("WARN") && warning.contains("NOMAD_FIREHOSE_CHECKPOINT"), "{warning}");
}
