//! The sink `redis` against several real ones that belong together, and over TLS.

use super::{
    consul::free_port,
    redis::World,
    redis_server::{KEY, Reply, Server},
};
use crate::{authority::Authority, firehose::wait, sinks::world::floor};

/// A master, and a replica that has all of it.
async fn pair() -> (Server, Server) {
    let master = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]).await;
    master.says("replication", "state=online").await;
    (master, replica)
}

#[tokio::test]
async fn what_the_replicas_do_not_have_is_not_delivered_and_is_not_appended_again_and_again() {
    let (world, (master, replica)) = (World::new().await, pair().await);
    world.nodes(&["a"]);
    let state = tempfile::tempdir().unwrap();
    let running = world.to(&master).set("SINK_REDIS_WAIT", "1");
    let running = running.set("NOMAD_FIREHOSE_STATE_DIR", state.path().to_str().unwrap()).start();
    wait("the first is delivered", async || floor(state.path())).await;
    let waits = || {
        let stats = master.ask(&["INFO", "commandstats"]);
        let count = stats.text().lines().find_map(|it| it.strip_prefix("cmdstat_wait:calls="));
        count.unwrap().split(',').next().unwrap().parse::<usize>().unwrap()
    };
    replica.signal("STOP");
    world.nodes(&["b"]);
    running.logs("0 of 1 replicas have everything within 1s").await;
    let before = waits();
    wait("it has tried again", async || (waits() > before + 1).then_some(())).await;
    assert_eq!(master.names(), ["a", "b"]);
    replica.signal("CONT");
    running.logs("takes records again").await;
    world.nodes(&["c"]);
    assert_eq!(master.named(4).await, ["a", "b", "b", "c"]);
    wait("the replica has them", async || (replica.names().len() == 4).then_some(())).await;
    running.stop().await;
}

#[tokio::test]
async fn the_replica_that_sentinels_make_the_master_gets_what_comes_next() {
    let (world, (mut master, replica)) = (World::new().await, pair().await);
    let sentinel = Server::sentinel("main", &master, &[]).await;
    wait("the sentinel knows the replica", async || {
        (sentinel.ask(&["SENTINEL", "REPLICAS", "main"]).list().len() == 1).then_some(())
    })
    .await;
    world.nodes(&["a"]);
    let nobody = free_port();
    let hosts = format!("127.0.0.1:{nobody},127.0.0.1:{}", sentinel.port);
    let other = format!("redis+sentinel://{hosts}/other");
    let other = world.stream("nodes", other).start();
    other.logs("no sentinel knows the master `other`").await;
    other.stop().await;
    let running = world.stream("nodes", format!("redis+sentinel://{hosts}/main/0")).start();
    wait("the replica has it", async || (replica.names() == ["a"]).then_some(())).await;
    master.crash();
    world.nodes(&["b"]);
    assert_eq!(replica.named(2).await, ["a", "b"]);
    running.logs("takes records again").await;
    running.stop().await;
}

#[tokio::test]
async fn a_sentinel_that_wants_to_know_who_we_are_is_told() {
    let (world, master) = (World::new().await, Server::start_with(Some("right"), &[]).await);
    let guarded = ["requirepass right", "sentinel auth-pass main right"];
    let sentinel = Server::sentinel("main", &master, &guarded).await;
    world.nodes(&["a"]);
    let url = |user| format!("redis+sentinel://{user}127.0.0.1:{}/main", sentinel.port);
    let nobody = world.stream("nodes", url("")).start();
    nobody.logs("NOAUTH").await;
    nobody.stop().await;
    let running = world.stream("nodes", url(":right@")).start();
    assert_eq!(master.named(1).await, ["a"]);
    running.stop().await;
}

/// Three masters that share the slots.
async fn cluster() -> Vec<Server> {
    let mut nodes = Vec::new();
    let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    let mut buses = Vec::new();
    for (number, (first, last)) in slots.into_iter().enumerate() {
        let bus = free_port().to_string();
        let node = Server::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
        node.tell(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        node.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        nodes.push(node);
        buses.push(bus);
    }
    for (node, bus) in nodes.iter().zip(&buses).skip(1) {
        nodes[0].tell(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]);
    }
    for node in &nodes {
        wait("all nodes know one another", async || {
            let info = node.ask(&["CLUSTER", "INFO"]);
            let info = info.text();
            let whole =
                info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384");
            whole.then_some(())
        })
        .await;
    }
    nodes
}

fn owns(node: &Server) -> bool {
    node.ask(&["TYPE", KEY]).text() != "" && !node.ask(&["TYPE", KEY]).text().starts_with('-')
}

#[tokio::test]
async fn whichever_node_of_a_cluster_is_named_the_one_that_has_the_key_gets_the_records() {
    let (world, nodes) = (World::new().await, cluster().await);
    world.nodes(&["a"]);
    let owner = nodes.iter().position(owns).unwrap();
    let url = |it: &Server| format!("redis+cluster://127.0.0.1:{}", it.port);
    for (count, node) in nodes.iter().enumerate() {
        let running = world.stream("nodes", url(node)).start();
        nodes[owner].named(count + 1).await;
        running.stop().await;
    }
    // As a server alone, a node that has other keys is of no use.
    let alone = world.to(&nodes[(owner + 1) % 3]).start();
    alone.logs("name the nodes as redis+cluster:// in SINK_REDIS_URL").await;
    alone.stop().await;

    // The key goes to another node while there is a connection to the first.
    let running = world.stream("nodes", url(&nodes[(owner + 1) % 3])).start();
    nodes[owner].named(4).await;
    let (from, to) = (&nodes[owner], &nodes[(owner + 2) % 3]);
    let slot = from.ask(&["CLUSTER", "KEYSLOT", KEY]).number().to_string();
    let id = |it: &Server| it.ask(&["CLUSTER", "MYID"]).text().to_owned();
    to.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    from.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    from.tell(&["MIGRATE", "127.0.0.1", &to.port.to_string(), KEY, "0", "5000"]);
    world.nodes(&["b"]);
    running.logs("the key is being moved to another node").await;
    for node in [to, from, &nodes[(owner + 1) % 3]] {
        node.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    }
    assert_eq!(to.named(5).await, ["a", "a", "a", "a", "b"]);
    running.logs("takes records again").await;
    running.stop().await;
}

#[tokio::test]
async fn over_tls_both_sides_have_to_be_known_to_the_same_authority() {
    let (world, authority) = (World::new().await, Authority::new());
    let (cert, key) = authority.server_files("redis.test");
    let (ca, port) = (authority.file("authorities/ca.pem"), free_port().to_string());
    let server = Server::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "yes",
    ])
    .await;
    world.nodes(&["a"]);
    let secure = || {
        world
            .stream("nodes", format!("rediss://127.0.0.1:{port}"))
            .set("SINK_REDIS_TLS_SERVER_NAME", "redis.test")
    };
    let known = || {
        secure()
            .set("SINK_REDIS_CLIENT_CERT", authority.file("cert.pem"))
            .set("SINK_REDIS_CLIENT_KEY", authority.file("key.pem"))
    };
    let other = Authority::new();
    let denied = [
        secure().set("SINK_REDIS_CACERT", &ca),
        known().set("SINK_REDIS_CACERT", other.file("authorities/ca.pem")),
        known().set("SINK_REDIS_CACERT", &ca).set("SINK_REDIS_TLS_SERVER_NAME", "other.test"),
        // No authority of the system vouches for it either.
        known(),
    ];
    for program in denied {
        let running = program.start();
        running.logs("the receiver is not available").await;
        let log = running.stop().await.log;
        let said = ["with TLS; check SINK_REDIS_CACERT", "ended the connection"];
        assert!(said.iter().any(|it| log.contains(it)), "{log}");
    }
    assert_eq!(server.ask(&["EXISTS", KEY]), Reply::Number(0));
    let running = known().set("SINK_REDIS_CACERT", &ca).start();
    assert_eq!(server.named(1).await, ["a"]);
    running.stop().await;
}
