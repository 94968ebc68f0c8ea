//! `/live`, `/ready` and `--health` of real processes. How long each thing may be away is tested
//! with a paused clock elsewhere.

use std::net::TcpListener;

use serde_json::Value;

use super::{
    World,
    firehose::{CONFIGURATION, FAILED, Program, change},
};
use crate::sinks::web::{TOKEN, Web};

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots");

fn listening(program: Program) -> Program {
    program.set("NOMAD_FIREHOSE_LISTEN", "127.0.0.1:0")
}

/// The body as it is documented, but for times and ports.
fn shape(mut body: Value) -> String {
    let checks = body["checks"].as_object_mut().unwrap();
    for check in checks.values_mut() {
        if let Some(since) = check.get_mut("since_seconds") {
            assert!(since.as_f64().unwrap() < 60.0, "{since}");
            *since = "…".into();
        }
        if let Some(error) = check.get_mut("error") {
            let text = error.as_str().unwrap();
            assert!(text.contains("127.0.0.1:") && text.contains("500"), "{text}");
            *error = "…".into();
        }
    }
    serde_json::to_string_pretty(&body).unwrap()
}

#[tokio::test]
async fn the_bodies_are_as_documented() {
    let (world, web) = (World::with(1).await, Web::start().await);
    let http = |program: Program| {
        let address = format!("http://127.0.0.1:{}/", web.port());
        let program = listening(program).set("SINK_TYPE", "http").set("SINK_HTTP_TOKEN", TOKEN);
        program.set("SINK_HTTP_ADDRESS", address)
    };
    let first = http(world.elected("nodes")).start();
    web.asked(1).await;
    let mut shapes = vec![shape(first.is_ready(true).await)];
    let second = http(world.elected("nodes")).start();
    shapes.push(shape(second.is_ready(true).await));
    assert_eq!(
        (second.metric("leader").await, first.metric("leader").await),
        (Some(0.0), Some(1.0))
    );
    web.always(Some(500));
    change(&world.nomad, 1);
    shapes.push(shape(first.is_ready(false).await));
    let live = first.ask("GET", "/live").await;
    assert_eq!(live.status, 200, "a receiver that fails is no reason to start again");
    shapes.push(shape(serde_json::from_str(&live.body).unwrap()));
    web.always(Some(204));
    first.is_ready(true).await;
    second.stop().await;
    first.stop().await;
    insta::with_settings!({
        snapshot_path => SNAPSHOTS,
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("health", shapes.join("\n")) });
}

#[tokio::test]
async fn a_process_that_cannot_reach_its_servers_is_alive_and_not_ready_and_names_them() {
    let world = World::with(1).await;
    let running = listening(world.elected("nodes"));
    world.nomad_port.close().await;
    let running = running.start();
    let body = running.is_ready(false).await;
    assert_ne!(body["role"], "standby");
    running.logs("cannot read from Nomad").await;
    let nomad = running.is_ready(false).await["checks"]["nomad"].clone();
    assert!(nomad["error"].as_str().unwrap().contains("check NOMAD_ADDR"), "{nomad}");
    assert_eq!(running.ask("GET", "/live").await.status, 200);
    running.stop().await;

    let world = World::with(1).await;
    let running = listening(world.elected("nodes"));
    world.consul_port.close().await;
    let running = running.start();
    running.logs("cannot be elected").await;
    let body = running.is_ready(false).await;
    assert_eq!(
        (&body["role"], &body["checks"]["leader"]["ok"]),
        (&"starting".into(), &false.into())
    );
    let error = body["checks"]["leader"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("CONSUL_HTTP_ADDR"), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn the_flag_asks_the_process_that_listens_there_and_needs_nothing_else() {
    let world = World::with(1).await;
    let flag = |listen: &str| {
        let program = Program::stream("nodes").arguments(&["--health"]);
        program.set("NOMAD_FIREHOSE_LISTEN", listen)
    };
    let running = listening(world.elected("nodes")).start();
    running.is_ready(true).await;
    let port = running.serves().await.port();
    let asked = flag(&format!(":{port}")).run().await;
    assert_eq!(asked.code, Some(0), "{}", asked.log);
    let body: Value = serde_json::from_str(&asked.out).unwrap();
    assert_eq!(body["role"], "publishing");
    running.stop().await;

    let nobody = flag(&format!("0.0.0.0:{port}")).run().await;
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(FAILED), ""));
    assert!(nobody.log.contains("cannot ask 127.0.0.1:"), "{}", nobody.log);
    // Who takes a connection and says nothing is not waited for, for long.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let asked = flag(&silent.local_addr().unwrap().to_string()).run().await;
    assert_eq!(asked.code, Some(FAILED));

    for wrong in ["", "here"] {
        let finished = flag(wrong).run().await;
        assert_eq!((finished.code, finished.out.as_str()), (Some(CONFIGURATION), ""), "{wrong}");
        assert!(finished.log.starts_with("NOMAD_FIREHOSE_LISTEN: "), "{}", finished.log);
    }
}
