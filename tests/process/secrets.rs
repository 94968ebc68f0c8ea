//! Tokens and passwords stay in the environment.

use nomad_firehose::standin::Fault;

use super::{World, firehose::Program};

const NOMAD_TOKEN: &str = "7d1c-planted-nomad-token";
const CONSUL_TOKEN: &str = "5b2a-planted-consul-token";
const PASSWORD: &str = "planted-password";

fn planted(world: &World) -> Program {
    let nomad = world.nomad_port.address.replace("http://", &format!("http://admin:{PASSWORD}@"));
    let consul = world.consul_port.address.replace("http://", &format!("http://admin:{PASSWORD}@"));
    Program::stream("nodes")
        .set("SINK_TYPE", "stdout")
        .set("LOG_LEVEL", "trace")
        .set("NOMAD_ADDR", nomad)
        .set("CONSUL_HTTP_ADDR", consul)
        .set("NOMAD_TOKEN", NOMAD_TOKEN)
        .set("CONSUL_HTTP_TOKEN", CONSUL_TOKEN)
}

fn assert_silent(what: &str, text: &str) {
    for secret in [NOMAD_TOKEN, CONSUL_TOKEN, PASSWORD, "YWRtaW46"] {
        assert!(!text.contains(secret), "{secret} is in what {what} wrote:\n{text}");
    }
}

#[tokio::test]
async fn secrets_are_not_in_a_log_that_says_everything() {
    let world = World::with(3).await;
    world.nomad.require_token(Some(NOMAD_TOKEN.into()));
    world.consul.require_token(Some(CONSUL_TOKEN.into()));
    let running = planted(&world).start();
    running.publishes(3).await;
    let finished = running.stop().await;
    assert!(finished.log.contains("stopped"));
    assert_silent("a run", &finished.log);
    assert_silent("a run", &finished.out);
}

#[tokio::test]
async fn secrets_are_not_in_errors_when_servers_deny_fail_or_are_not_there() {
    let world = World::with(1).await;
    world.nomad.require_token(Some("another".into()));
    let running = planted(&world).start();
    running.logs("403").await;
    assert_silent("a run without permission", &running.stop().await.log);

    let world = World::with(1).await;
    for _ in 0..3 {
        world.consul.script("/v1/session/create", Fault::status(500, "No cluster leader"));
        world.nomad.script("/v1/nodes", Fault::Redirect("http://127.0.0.1:9/elsewhere".into()));
    }
    let running = planted(&world).start();
    running.publishes(1).await;
    let log = running.stop().await.log;
    assert!(log.contains("No cluster leader"), "{log}");
    assert_silent("a run with failing servers", &log);

    let program = planted(&world).arguments(&["--check"]);
    world.nomad_port.close().await;
    world.consul_port.close().await;
    let check = program.run().await;
    assert_eq!(check.code, Some(1));
    assert_silent("a check", &check.out);
    assert_silent("a check", &check.log);
}
