//! Every command of every page, with stand-ins for the servers.

use std::{collections::HashMap, fs::OpenOptions, io::Write, path::PathBuf};

use axum::{Router, body::Bytes, http::StatusCode};
use nomad_firehose::{
    env::Env,
    run::Config,
    standin::{cluster, consul::Consul, nomad::Nomad},
    streams::{self, Nodes},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use super::{
    cargo::Manifest,
    follow::follow,
    pages::{self, Page},
    stage::{Outcome, Stage},
};
use crate::{firehose::Served, support::Version};

/// Variables of these are configuration.
const OURS: [&str; 4] = ["NOMAD_", "CONSUL_", "SINK_", "LOG_"];
/// Variables that end like this are paths.
const PATHS: [&str; 3] = ["_DIR", "_FILE", "_DEAD_LETTER"];
/// What the cluster is drawn from.
const SEED: u64 = 7;

/// Servers for a page, as long as it is followed.
struct World {
    nomad: Served,
    store: Consul,
    consul: Served,
    receiver: Served,
    received: watch::Sender<Option<PathBuf>>,
    cluster: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let (nomad, consul) = (Nomad::new(Version::V2_0), Consul::new());
        let (received, file) = watch::channel(None::<PathBuf>);
        let receive = move |body: Bytes| {
            let path = file.borrow().clone().unwrap();
            let written = OpenOptions::new().append(true).open(path);
            written.and_then(|mut it| it.write_all(&body)).unwrap();
            std::future::ready(StatusCode::NO_CONTENT)
        };
        Self {
            nomad: Served::new(nomad.router()).await,
            consul: Served::new(consul.router()).await,
            store: consul,
            receiver: Served::new(Router::new().fallback(receive)).await,
            received,
            cluster: tokio::spawn(cluster::run(nomad, SEED)),
        }
    }

    /// Lets every stream publish all there is, so that no block has to wait for a change.
    fn start_over(&self) {
        for (name, ..) in streams::ALL {
            let name = name.replace("jobliststubs", "jobliststub");
            for key in ["value", "cursor"] {
                self.store.delete(&format!("nomad-firehose/{name}.{key}"));
            }
        }
    }

    fn stage(&self) -> Stage {
        let host = |it: &Served| it.address.trim_start_matches("http://").to_owned();
        let (nomad, consul) = (host(&self.nomad), host(&self.consul));
        let places = [
            ("https://nomad.example:4646", &self.nomad.address),
            ("http://nomad.example:4646", &self.nomad.address),
            ("nomad.example:4646", &nomad),
            ("127.0.0.1:4646", &nomad),
            ("consul.example:8500", &consul),
            ("127.0.0.1:8500", &consul),
            ("https://events.example", &self.receiver.address),
            ("http://events.example", &self.receiver.address),
        ];
        let stage = Stage::new(places.map(|(from, to)| (from.to_owned(), to.clone())).into());
        self.received.send_replace(Some(stage.path("received")));
        stage
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cluster.abort();
    }
}

/// What is wrong with what a block has asked `cargo` for, or exported.
fn judge(outcome: &Outcome, manifest: &Manifest) -> Result<(), String> {
    for line in &outcome.cargo {
        manifest.judge(line).map_err(|what| format!("cargo {line}: {what}"))?;
    }
    // A block that was to fail has got no further.
    if outcome.environment.is_empty() { Ok(()) } else { is_a_configuration(outcome) }
}

/// Whether what a block has exported is what the program takes.
fn is_a_configuration(outcome: &Outcome) -> Result<(), String> {
    let ours =
        outcome.environment.iter().filter(|(name, _)| OURS.iter().any(|it| name.starts_with(it)));
    let env: Env = ours
        .map(|(name, value)| {
            // A path is meant to be below where the block was run.
            let path = PATHS.iter().any(|it| name.ends_with(it));
            let value = if path { outcome.directory.join(value).into() } else { value.into() };
            (name.into(), value)
        })
        .collect();
    let config = Config::from_env::<Nodes>(&env);
    let unknown = env.unknown();
    match env.check(config.map(drop)) {
        Err(problems) => Err(problems.iter().map(|it| format!("{it}\n")).collect()),
        Ok(()) if unknown.is_empty() => Ok(()),
        Ok(()) => Err(unknown.join("\n")),
    }
}

// A build that lacks a sink refuses what is shown of it.
#[cfg(feature = "full")]
#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_what_its_page_says() {
    let pages = pages::followed();
    assert!(pages.len() > 10, "only {} pages were found", pages.len());
    let mut followed = Vec::new();
    for page in pages.into_iter().filter(|it| !it.blocks.is_empty()) {
        let world = World::new().await;
        followed.push(spawn_blocking(move || {
            let manifest = Manifest::read();
            let judge = |it: &Outcome| judge(it, &manifest);
            follow(&page, &mut world.stage(), None, &|| world.start_over(), &judge)
        }));
    }
    let mut wrong: Vec<String> = Vec::new();
    for page in followed {
        wrong.extend(page.await.unwrap());
    }
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_does_not_do_what_it_says_is_found() {
    let world = World::new().await;
    let fence =
        |note: &str, language: &str, text: &str| format!("{note}\n```{language}\n{text}\n```\n");
    let commands = |text: &str| fence("", "sh", text);
    let noted = |note: &str, text: &str| fence(&format!("<!-- test: {note} -->"), "sh", text);
    let cases: Vec<(String, bool)> = vec![
        (commands("firehose-nodes --check"), true),
        (commands("firehose-nodes --chek"), false),
        (commands("false\ntrue"), false),
        (commands("firehose-nodes >nodes\ngrep -q Datacenter nodes"), true),
        (commands("firehose-nodes &\nfirehose-jobs &"), true),
        (
            commands("SINK_TYPE=http SINK_HTTP_ADDRESS=https://events.example/x firehose-nodes"),
            true,
        ),
        (commands("SINK_TYPE=http SINK_HTTP_ADDRESS=nowhere firehose-nodes &"), false),
        (commands("export SINK_WORKER_COUNTS=3"), false),
        (commands("export NOMAD_FIREHOSE_GRACE=3"), false),
        (
            commands(
                "export NOMAD_FIREHOSE_TOKEN_FILE=/run/secrets/x\ntest -s $NOMAD_FIREHOSE_TOKEN_FILE",
            ),
            true,
        ),
        (commands("cargo build --release --features pigeon"), false),
        (commands("tools/test && .ci/long fuzz && test -e target/release/firehose-jobs"), true),
        (commands("tools/rabbitmq --cto"), false),
        (noted("exit 78", "SINK_TYPE=x firehose-nodes"), true),
        (noted("exit 1", "SINK_TYPE=x firehose-nodes"), false),
        (noted("exit soon", "true"), false),
        (commands("export NOMAD_FIREHOSE_LEADER=solo NOMAD_FIREHOSE_STATE_DIR=state"), true),
        (commands("docker run it"), false),
        (noted("container", "docker run it"), true),
        (noted("container", "docker 'run it"), false),
        (noted("server postgres", "true"), false),
        (noted("later", "true"), false),
        (noted("beside firehose-nodes", "true"), true),
        (noted("beside firehose-notes", "true"), false),
        (fence("", "bash", "true"), false),
        (fence("", "", "true"), false),
        (commands("firehose-jobs --version") + &fence("", "text", "firehose-jobs …"), true),
        (commands("firehose-jobs --version") + &fence("", "text", "firehose-nodes …"), false),
        (commands("firehose-jobs --version") + "\nSo:\n" + &fence("", "text", "else"), true),
        (
            commands("firehose-jobs --version")
                + "\nSo:\n"
                + &fence("<!-- test: output -->", "text", "else"),
            false,
        ),
        (commands("true") + &fence("<!-- test: illustration -->", "text", "like this"), true),
        (fence("<!-- test: output -->", "text", "of nothing"), false),
        (commands("echo '{\"a\":1}'") + &fence("", "json", "{\"a\": 2}"), true),
        (commands("echo '{\"a\":1}'") + &fence("", "json", "{\"b\": 1}"), false),
        (fence("", "json", "{\"a\": }"), false),
    ];
    let judged = spawn_blocking(move || {
        let (manifest, mut stage) = (Manifest::read(), world.stage());
        let mut try_out = |(text, fine): (String, bool)| {
            let judge = |it: &Outcome| judge(it, &manifest);
            let page = Page::new("docs/x.md", &text);
            let wrong = follow(&page, &mut stage, None, &|| world.start_over(), &judge);
            (wrong.is_empty() != fine).then_some((text, wrong))
        };
        cases.into_iter().filter_map(&mut try_out).collect::<HashMap<String, Vec<String>>>()
    });
    let judged = judged.await.unwrap();
    assert!(judged.is_empty(), "judged wrongly: {judged:#?}");
}
