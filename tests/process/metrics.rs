//! What `/metrics` shows of a real process, and what its clients cannot do to it.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use nomad_firehose::metrics::{described, names};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    World,
    firehose::{FAILED, Program, change},
    saved_floor,
    scrape::{ask, is_ended, value},
};

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots");

fn listening(program: Program) -> Program {
    program.set("NOMAD_FIREHOSE_LISTEN", "127.0.0.1:0")
}

#[tokio::test]
async fn metrics_are_what_was_published() {
    let (world, dir) = (World::with(3).await, tempfile::tempdir().unwrap());
    let running = listening(world.solo("nodes", dir.path())).start();
    running.publishes(3).await;
    running.shows("records_delivered_total", 3.0).await;
    running.shows("unsaved_records", 0.0).await;
    let text = running.ask("GET", "/metrics").await.body;
    let is = |series: &str| value(&text, series).unwrap_or_else(|| panic!("{series}: {text}"));
    let bytes: usize = running.out.text().lines().map(str::len).sum();
    assert_eq!(is("delivered_bytes_total"), bytes as f64);
    assert_eq!((is("leader"), is("terms_total"), is("ready")), (1.0, 1.0, 1.0));
    assert_eq!((is("queue_records"), is("queue_bytes")), (0.0, 0.0));
    assert_eq!(
        (is("source_to_sink_seconds_count"), is("sink_call_bytes_sum")),
        (3.0, bytes as f64)
    );
    assert_eq!(is("sink_call_records_sum"), 3.0);
    assert_eq!(is("cursor_index"), is("nomad_index"));
    assert_eq!(is("source{kind=\"events\"}"), 1.0);
    assert_eq!(is("elections_total{outcome=\"won\"}"), 1.0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    for series in [
        "last_delivered_timestamp_seconds",
        "last_checkpoint_timestamp_seconds",
        "last_contact_timestamp_seconds{with=\"nomad\"}",
        "last_contact_timestamp_seconds{with=\"sink\"}",
    ] {
        assert!((now - 60.0..=now).contains(&is(series)), "{series} is {}", is(series));
    }
    running.stop().await;
    assert_eq!(saved_floor(dir.path()).unwrap() as f64, is("cursor_index"));
}

/// Names, types, help and labels, without values, and one bucket for all.
#[cfg(target_os = "linux")]
fn shape(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut line = match line.starts_with('#') {
            true => line.to_owned(),
            false => line.rsplit_once(' ').unwrap().0.to_owned(),
        };
        for label in ["le", "version", "commit"] {
            if let Some((before, rest)) = line.split_once(&format!("{label}=\"")) {
                let rest = rest.split_once('"').unwrap().1;
                line = format!("{before}{label}=\"…\"{rest}");
            }
        }
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn names_types_and_labels_are_the_ones_in_the_snapshot() {
    let world = World::with(1).await;
    let running = listening(world.elected("nodes")).start();
    running.shows("records_delivered_total", 1.0).await;
    running.shows("checkpoint_saves_total", 1.0).await;
    let text = running.ask("GET", "/metrics").await.body;
    running.stop().await;
    insta::with_settings!({
        snapshot_path => SNAPSHOTS,
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("metrics", shape(&text)) });
}

#[test]
fn the_page_on_metrics_has_each_of_them_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(path).unwrap();
    let mut rows = Vec::new();
    for it in described() {
        let label = it.label.map_or(String::new(), |(key, values)| {
            let values: Vec<_> = values.iter().map(|it| format!("`{it}`")).collect();
            format!("`{key}`: {}", values.join(", "))
        });
        rows.push(format!("| `{}` | {} | {label} | {} |", it.name, it.kind, it.help));
    }
    let there: Vec<&str> = page
        .lines()
        .filter(|it| it.starts_with("| `nomad_firehose_") || it.starts_with("| `process_"))
        .collect();
    assert_eq!(there, rows, "the table should be:\n{}\n", rows.join("\n"));
    let known = names();
    let named = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in named.filter(|it| it.starts_with("nomad_firehose_") && !it.ends_with('_')) {
        assert!(known.iter().any(|it| it == name), "there is no {name}");
    }
}

#[tokio::test]
async fn only_three_pages_are_there_and_only_to_be_read() {
    let world = World::with(1).await;
    let running = listening(world.elected("nodes")).start();
    running.publishes(1).await;
    running.is_ready(true).await;
    let metrics = running.ask("GET", "/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    for path in ["/metrics", "/live", "/ready"] {
        let head = running.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        let refused = running.ask("POST", path).await;
        assert_eq!(refused.status, 405, "{path}");
        assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
    }
    assert_eq!(running.ask("GET", "/").await.status, 404);
    assert_eq!(running.ask("GET", "/metrics?a=b").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn clients_that_misbehave_disturb_neither_publishing_nor_others_for_long() {
    let world = World::with(1).await;
    let running = listening(world.elected("nodes")).start();
    running.publishes(1).await;
    let address = running.serves().await;
    let begun = Instant::now();
    let mut held = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let part: &[u8] = if number % 2 == 0 { b"" } else { b"GET /metrics HTTP/1.1\r\nHos" };
        stream.write_all(part).await.unwrap();
        held.push(stream);
    }
    // Published while all of them are there.
    change(&world.nomad, 1);
    running.publishes(2).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Each has five seconds, and a third of them are served at once.
    assert_eq!(ask(address, "GET", "/live").await.status, 200);
    for stream in &mut held {
        assert!(timeout(Duration::from_secs(30), is_ended(stream)).await.unwrap());
    }
    // One that never ends its request is cut off where it is too large.
    let mut large = TcpStream::connect(address).await.unwrap();
    let flood = async {
        large.write_all(b"GET /metrics HTTP/1.1\r\n").await?;
        for _ in 0..10_000 {
            large.write_all(format!("X: {}\r\n", "x".repeat(1000)).as_bytes()).await?;
        }
        std::io::Result::Ok(())
    };
    let flooded = timeout(Duration::from_secs(30), flood).await.unwrap();
    assert!(flooded.is_err(), "ten megabytes of headers were taken");
    change(&world.nomad, 2);
    running.publishes(3).await;
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_kept_does_not_keep_the_process() {
    let world = World::with(1).await;
    let running = listening(world.elected("nodes")).start();
    running.publishes(1).await;
    let mut stream = TcpStream::connect(running.serves().await).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = [0; 1024];
        while !rest.contains(&b'}') {
            assert!(stream.read(&mut rest).await.unwrap() > 0);
        }
    }
    let asked = Instant::now();
    running.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert!(is_ended(&mut stream).await);
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_process_before_it_connects_to_anything() {
    let world = World::with(1).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = world.elected("nodes").set("NOMAD_FIREHOSE_LISTEN", &address).run().await;
    assert_eq!((finished.code, finished.out.as_str()), (Some(FAILED), ""), "{}", finished.log);
    let said = format!("cannot listen on {address}; check NOMAD_FIREHOSE_LISTEN");
    assert!(finished.log.contains(&said), "{}", finished.log);
    assert!(world.nomad.requests().is_empty() && world.consul.requests().is_empty());
}
