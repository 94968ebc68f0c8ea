//! What the sink `syslog` has besides: crashes and what is known after them, each kind of socket,
//! TLS, and messages that are hard to write.

use std::time::Duration;

use nomad_firehose::standin::nomad::Table;
use tokio::time::sleep;

use super::syslog::Rsyslogd;
use crate::{
    authority::Authority,
    firehose::{Process, wait},
    sinks::{contract::Receiver, world::World},
    support::allocation,
};

const TCP: &str = "input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")";

/// A Nomad, and a daemon with this in its configuration.
async fn world(head: &str, tail: &str) -> World<Rsyslogd> {
    let mut world = World::<Rsyslogd>::new().await;
    let head = format!("{head}\nmodule(load=\"imtcp\")");
    world.receiver = Rsyslogd::with(&head, &format!("{tail}\n{TCP}")).await;
    world
}

/// A process that writes to it, with nothing in between.
fn start(world: &World<Rsyslogd>, set: &[(&str, &str)]) -> Process {
    let program = world.receiver.sink(world.program());
    set.iter().fold(program, |program, (name, value)| program.set(name, value)).start()
}

#[tokio::test]
async fn a_daemon_that_is_killed_or_stopped_while_it_reads_has_written_all_that_was_delivered() {
    let mut world = world("", "").await;
    let running = start(&world, &[]);
    for round in 0..30 {
        (0..10).for_each(|it| world.events("web", &format!("{round}-{it}"), 5));
        if round % 10 == 5 {
            match round {
                15 => world.receiver.stop().await,
                _ => world.receiver.crash().await,
            }
            sleep(Duration::from_millis(20)).await;
            world.receiver.come_back().await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let received = world.all_received().await;
    world.check(&received);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_kept_outlives_a_restart_between_two_calls() {
    let mut world = world("", "").await;
    let running = start(&world, &[("SINK_SYSLOG_CONFIRM", "none")]);
    for round in 0..3 {
        world.events("web", &format!("a{round}"), 3);
        world.all_received().await;
        world.receiver.crash().await;
        world.receiver.come_back().await;
    }
    world.events("web", "b", 3);
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0);
    running.stop().await;
}

#[tokio::test]
async fn ids_and_payloads_come_as_they_are_in_either_framing() {
    for framing in ["octet-counted", "newline"] {
        let mut world = world("", "").await;
        let names = ["we\\b", "\"]", "gr\u{fc}n \u{1f525}", "a=b c", "1 2"];
        for (number, job) in names.iter().enumerate() {
            world.events(job, &format!("a{number}"), 3);
        }
        let running = start(&world, &[("SINK_SYSLOG_FRAMING", framing)]);
        let received = world.all_received().await;
        assert_eq!(world.check(&received), 0);
        running.stop().await;
        let message = &world.receiver.messages[0];
        let head = [&message.priority, &message.tag, &message.kind].map(String::as_str);
        assert_eq!(head, ["5", "nomad-firehose", "allocations"]);
        assert!(message.data.starts_with("[cloudevents@32473 specversion="), "{}", message.data);
    }
}

#[tokio::test]
async fn the_largest_message_comes_whole_to_a_daemon_that_is_set_up_as_it_comes() {
    let mut world = world("", "").await;
    let running = start(&world, &[]);
    let of = |name: &str, size: usize| {
        let mut allocation = allocation(name, &[1]);
        allocation.insert("JobID".into(), "web".into());
        allocation.insert("ClientDescription".into(), "x".repeat(size).into());
        allocation
    };
    world.nomad.upsert(Table::Allocations, of("aa", 9_000));
    running.logs("rejected a record for good").await;
    let log = running.log.text();
    let size = log.split("the message has ").nth(1).unwrap().split(' ').next().unwrap();
    let beside = size.parse::<usize>().unwrap() - 9_000;
    world.nomad.upsert(Table::Allocations, of("bb", 8_096 - beside));
    let received = world.receiver.took(1).await;
    let text = received[0].1["ClientDescription"].as_str().unwrap();
    assert_eq!(text.len(), 8_096 - beside);
    world.nomad.upsert(Table::Allocations, of("cc", 8_097 - beside));
    running.logs_times(2, "rejected a record for good").await;
    running.stop().await;
}

#[tokio::test]
async fn packets_come_and_a_daemon_that_is_away_is_noticed() {
    let mut world = world(
        "module(load=\"imudp\")",
        "input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")",
    )
    .await;
    world.receiver.crash().await;
    world.events("web", "a", 3);
    let running = start(&world, &[("SINK_SYSLOG_PROTO", "udp")]);
    running.logs("was lost as records were written").await;
    world.receiver.come_back().await;
    world.events("web", "b", 3);
    let received = world.all_received().await;
    world.check(&received);
    running.stop().await;
}

#[tokio::test]
async fn the_socket_of_the_machine_takes_messages_and_may_be_made_anew() {
    let mut world = world(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")",
        "input(type=\"imuxsock\" socket=\"{dir}/log\")",
    )
    .await;
    let path = world.receiver.path("log");
    let set = [
        ("SINK_SYSLOG_PROTO", "unixgram"),
        ("SINK_SYSLOG_ADDR", &*path),
        ("SINK_SYSLOG_FACILITY", "local0"),
        ("SINK_SYSLOG_SEVERITY", "info"),
        ("NOMAD_FIREHOSE_FORMAT", "cloudevents"),
    ];
    let running = start(&world, &set);
    world.events("web", "a", 3);
    world.all_received().await;
    world.receiver.crash().await;
    world.events("web", "b", 3);
    running.logs("the syslog receiver at").await;
    world.receiver.come_back().await;
    world.events("web", "c", 3);
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0);
    running.stop().await;
    let message = &world.receiver.messages[0];
    let head = [&message.priority, &message.tag, &message.data].map(String::as_str);
    assert_eq!(head, ["134", "nomad-firehose", "-"]);
}

#[tokio::test]
async fn a_local_stream_takes_messages_and_confirms_them() {
    let mut world =
        world("module(load=\"imptcp\")", "input(type=\"imptcp\" path=\"{dir}/stream\")").await;
    let path = world.receiver.path("stream");
    let set = [
        ("SINK_SYSLOG_PROTO", "unix"),
        ("SINK_SYSLOG_ADDR", &*path),
        ("SINK_SYSLOG_FORMAT", "rfc5424"),
    ];
    world.events("gr\u{fc}n", "a", 5);
    let running = start(&world, &set);
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0);
    running.stop().await;
}

/// A daemon with TLS that is called `logs.test`, and asks for a certificate of `client`.
async fn secure(authority: &Authority) -> World<Rsyslogd> {
    let (cert, key) = authority.server_files("logs.test");
    let ca = authority.file("authorities/ca.pem");
    let mut world = World::<Rsyslogd>::new().await;
    let head = format!(
        "global(defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{ca}\"\n\
         defaultNetstreamDriverCertFile=\"{cert}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
         module(load=\"imtcp\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\"\n\
         streamDriver.authMode=\"x509/name\" permittedPeer=[\"client\"])"
    );
    world.receiver = Rsyslogd::with(&head, TCP).await;
    world
}

#[tokio::test]
async fn over_tls_both_show_who_they_are_and_a_crash_loses_nothing() {
    let authority = Authority::new();
    let mut world = secure(&authority).await;
    let ca = authority.file("authorities/ca.pem");
    let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
    let set = [
        ("SINK_SYSLOG_PROTO", "tcp+tls"),
        ("SINK_SYSLOG_TLS_SERVER_NAME", "logs.test"),
        ("SINK_SYSLOG_CACERT", &*ca),
        ("SINK_SYSLOG_CLIENT_CERT", &*cert),
        ("SINK_SYSLOG_CLIENT_KEY", &*key),
    ];
    let running = start(&world, &set);
    for round in 0..20 {
        (0..5).for_each(|it| world.events("web", &format!("{round}-{it}"), 5));
        if round == 10 {
            world.receiver.crash().await;
            world.receiver.come_back().await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let received = world.all_received().await;
    world.check(&received);
    running.stop().await;
}

#[tokio::test]
async fn without_the_right_certificates_or_the_right_name_nothing_counts_as_delivered() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut world = secure(&authority).await;
    world.events("web", "a", 1);
    let (ca, wrong) = (authority.file("authorities/ca.pem"), other.file("authorities/ca.pem"));
    let (cert, key) = (authority.file("cert.pem"), authority.file("key.pem"));
    let client = [("SINK_SYSLOG_CLIENT_CERT", &*cert), ("SINK_SYSLOG_CLIENT_KEY", &*key)];
    let with = |world: &World<Rsyslogd>, ca, name, client: &[(&'static str, &str)]| {
        let own = [
            ("SINK_SYSLOG_PROTO", "tls"),
            ("SINK_SYSLOG_CACERT", ca),
            ("SINK_SYSLOG_TLS_SERVER_NAME", name),
        ];
        start(world, &[&own, client].concat())
    };
    let wrong_ones =
        [(&wrong, "logs.test", &client[..]), (&ca, "other.test", &client), (&ca, "logs.test", &[])];
    for (ca, name, client) in wrong_ones {
        let process = with(&world, ca, name, client);
        process.logs("do not agree on TLS; check SINK_SYSLOG_CACERT").await;
        process.stop().await;
    }
    assert!(world.receiver.received().await.is_empty());
    let right = with(&world, &ca, "logs.test", &client);
    wait("the record comes", async || (!world.receiver.received().await.is_empty()).then_some(()))
        .await;
    right.stop().await;
}
