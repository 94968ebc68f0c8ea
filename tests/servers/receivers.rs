//! One stream to several receivers: a process for each, with a prefix in Consul of its own.

use serde_json::Value;

use super::{
    World,
    consul::Agent,
    firehose::{Program, change, names, nodes, repeated},
    sinks::web::{TOKEN, Web},
};

const ARCHIVE: &str = "nomad-firehose-archive";
const ALERTS: &str = "nomad-firehose-alerts";
const PREFIXES: [&str; 3] = ["nomad-firehose", ARCHIVE, ALERTS];
const CHANGES: usize = 20;

/// A copy of the stream that publishes to a receiver of HTTP.
fn to(web: &Web, prefix: &str, world: &World) -> Program {
    world
        .stream("nodes")
        .set("NOMAD_FIREHOSE_CONSUL_PREFIX", prefix)
        .set("SINK_TYPE", "http")
        .set("SINK_HTTP_ADDRESS", format!("http://127.0.0.1:{}/", web.port()))
        .set("SINK_HTTP_TOKEN", TOKEN)
}

fn received(web: &Web) -> Vec<String> {
    let name = |(_, body): (String, Value)| body["Name"].as_str().unwrap().to_owned();
    web.all().into_iter().map(name).collect()
}

async fn holders(consul: &Agent, prefixes: &[&str]) -> Vec<String> {
    let mut holders = Vec::new();
    for prefix in prefixes {
        holders.push(consul.holder(&format!("{prefix}/nodes.lock")).await);
    }
    holders
}

#[tokio::test]
async fn receivers_of_one_stream_have_a_lock_a_position_and_a_pace_each() {
    let world = World::new().await;
    let (archive, alerts) = (Web::start().await, Web::start().await);
    // One of them takes nothing, for as long as it likes.
    archive.always(Some(503));
    (0..CHANGES).for_each(|it| change(&world.nomad, it));
    let last = world.nomad.index() - 1;
    let printing = world.stream("nodes").start();
    let archiving = to(&archive, ARCHIVE, &world).start();
    let alerting = to(&alerts, ALERTS, &world).start();

    printing.publishes(CHANGES).await;
    alerts.took(CHANGES).await;
    archiving.logs("some records were not delivered").await;
    world.saved("nomad-firehose/nodes.value", last).await;
    world.saved("nomad-firehose-alerts/nodes.value", last).await;
    assert_eq!(world.consul.value("nomad-firehose-archive/nodes.value").await, None);
    assert_eq!(received(&archive), [""; 0]);
    let before = holders(&world.consul, &PREFIXES).await;
    assert!(before[0] != before[1] && before[1] != before[2] && before[0] != before[2]);

    // One that stops, and one whose receiver is back, are nobody else's business.
    assert_eq!(repeated(&nodes(CHANGES), &names(&printing.stop().await.out)), [""; 0]);
    change(&world.nomad, CHANGES);
    alerts.took(CHANGES + 1).await;
    archive.always(None);
    archive.took(CHANGES + 1).await;
    let after = holders(&world.consul, &PREFIXES[1..]).await;
    assert_eq!(after, before[1..], "a lock has changed hands");

    // Each goes on where it was.
    archiving.stop().await;
    alerting.stop().await;
    change(&world.nomad, CHANGES + 1);
    let all = nodes(CHANGES + 2);
    let printing = world.stream("nodes").start();
    let archiving = to(&archive, ARCHIVE, &world).start();
    let alerting = to(&alerts, ALERTS, &world).start();
    printing.publishes(2).await;
    archive.took(CHANGES + 2).await;
    alerts.took(CHANGES + 2).await;
    assert_eq!(names(&printing.stop().await.out), all[CHANGES..]);
    archiving.stop().await;
    alerting.stop().await;
    for web in [&archive, &alerts] {
        assert_eq!(repeated(&all, &received(web)), [""; 0]);
    }
}
