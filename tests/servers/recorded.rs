//! The recorded answers of real Nomads, served by the stand-in, through the real binaries under a
//! real Consul: what comes out is what the snapshots hold, and a second copy repeats none of it.

use bytes::Bytes;
use nomad_firehose::{
    standin::nomad::{Nomad, Version},
    streams,
};

use super::{
    Agent,
    emit::{Recording, emit, lists_of},
    firehose::{Program, Served, when},
};

/// An index beyond all that was recorded.
const INDEX: u64 = 1_000_000;

/// The fullest list of a stream that was recorded after everything had happened.
fn fullest(stream: &str, version: &str) -> &'static Recording {
    let all = lists_of(stream).filter(|it| (it.version, it.folder.as_str()) == (version, "B"));
    all.max_by_key(|it| it.body.len()).unwrap()
}

#[tokio::test]
async fn the_recordings_come_out_of_the_binaries_as_the_snapshots_have_them() {
    let consul = Agent::start().await;
    for (version, as_version) in [("1.0.18", Version::V1_0), ("2.0.5", Version::V2_0)] {
        for (stream, ..) in streams::ALL {
            let list = fullest(stream, version);
            let emitted = emit(stream, list);
            assert!(emitted.unread.is_empty() && !emitted.records.is_empty(), "{list}");
            let nomad = Nomad::new(as_version);
            nomad.serve_recorded(list.standin_table(), Bytes::from(list.body.clone()), INDEX);
            for record in &emitted.records {
                let id = record.meta.subject.split('/').next().unwrap();
                let id = if *stream == "jobs" { &record.meta.subject } else { id };
                if matches!(*stream, "jobs" | "nodes") {
                    let namespace = &record.meta.namespace;
                    nomad.serve_object(list.standin_table(), namespace, id, record.body.clone());
                }
            }
            let port = Served::new(nomad.router()).await;
            let program = || {
                Program::stream(stream)
                    .set("SINK_TYPE", "stdout")
                    .set("NOMAD_ADDR", &port.address)
                    .set("NOMAD_FIREHOSE_SOURCE", "poll")
                    // The servers of 1.0 answer `*` with nothing for some of the lists.
                    .set("NOMAD_FIREHOSE_NAMESPACE", "default")
                    .set("NOMAD_FIREHOSE_CONSUL_PREFIX", format!("recorded/{version}"))
                    .set("CONSUL_HTTP_ADDR", consul.address())
            };
            let expected: Vec<String> = emitted
                .records
                .iter()
                .map(|it| String::from_utf8(it.body.to_vec()).unwrap())
                .collect();
            let first = program().start();
            first.publishes(expected.len()).await;
            let first = first.stop().await;
            let lines: Vec<&str> = first.out.lines().collect();
            assert!(lines == expected, "{list} as {stream}: {} lines", lines.len());

            // The list is asked for again only once all that was new in it is handed over.
            let asked = || {
                let requests = nomad.requests();
                let path = format!("/v1/{}", list.table());
                requests.into_iter().filter(|it| it.path == path).count()
            };
            let before = asked();
            let second = program().start();
            when("the second copy has read the list", || asked() >= before + 2).await;
            assert_eq!(second.stop().await.out, "", "{list} as {stream}");
        }
    }
}
