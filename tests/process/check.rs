//! `--check`: the table, what it tells of each thing, and that it changes nothing.

use std::time::Duration;

use nomad_firehose::standin::nomad::Table as Objects;
use tokio::time::Instant;

use super::{
    World,
    firehose::{CONFIGURATION, FAILED, Finished, Program, wait},
    saved_floor,
};
use crate::{
    sinks::web::{TOKEN, Web},
    support::node,
};

/// The page that shows what is printed.
const PAGE: &str = include_str!("../../docs/check.md");
/// Where the servers are in it.
const NOMAD: &str = "http://127.0.0.1:4646";
const CONSUL: &str = "http://127.0.0.1:8500";

/// What a check printed: of each row what, where, the result and the detail.
pub struct Printed(Vec<[String; 4]>);

impl Printed {
    pub fn of(finished: &Finished) -> Self {
        let lines = finished.out.lines().skip(1).take_while(|it| !it.is_empty());
        let rows = lines.map(|line| {
            let mut cells = cells(line).into_iter();
            [(); 4].map(|()| cells.next().unwrap_or_default())
        });
        Self(rows.collect())
    }

    /// The result and the detail of a row.
    pub fn row(&self, what: &str) -> (&str, &str) {
        let row = self.0.iter().find(|it| it[0] == what);
        let [_, _, result, detail] = row.unwrap_or_else(|| panic!("no {what} in {:?}", self.0));
        (result, detail)
    }

    /// The rows with this result.
    pub fn with(&self, result: &str) -> Vec<&str> {
        self.0.iter().filter(|it| it[2] == result).map(|it| it[0].as_str()).collect()
    }
}

/// What is between the spaces that make columns.
fn cells(line: &str) -> Vec<String> {
    line.split("  ").map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// A table without what depends on the length of an address.
fn plain(text: &str) -> String {
    text.lines().map(|it| cells(it).join(" | ") + "\n").collect()
}

/// The tables of the page.
fn shown() -> Vec<String> {
    let blocks = PAGE.split("```text\n").skip(1);
    blocks.map(|it| plain(it.split("```").next().unwrap())).collect()
}

impl World {
    pub fn check(&self, stream: &str) -> Program {
        self.elected(stream).arguments(&["--check"])
    }

    /// Asserts that the page has the table that was printed.
    fn assert_shown(&self, finished: &Finished) {
        let text = finished.out.replace(&self.nomad_port.address, NOMAD);
        let text = plain(&text.replace(&self.consul_port.address, CONSUL));
        assert!(shown().contains(&text), "docs/check.md does not show this:\n{text}");
    }

    /// Both servers have tokens, and this is it.
    fn with_tokens(&self, program: Program) -> Program {
        self.nomad.require_token(Some("nomad-secret".into()));
        self.consul.require_token(Some("consul-secret".into()));
        program.set("NOMAD_TOKEN", "nomad-secret").set("CONSUL_HTTP_TOKEN", "consul-secret")
    }
}

#[tokio::test]
async fn where_all_is_well_each_row_says_so_and_the_page_shows_them() {
    let world = World::with(3).await;
    let check = world.with_tokens(world.check("nodes")).run().await;
    assert_eq!((check.code, check.log.as_str()), (Some(0), ""), "{}", check.out);
    world.assert_shown(&check);
    let printed = Printed::of(&check);
    assert!(printed.with("FAILED").is_empty() && printed.with("ok").len() > 10, "{}", check.out);
}

#[tokio::test]
async fn the_page_shows_what_is_printed_where_permissions_are_missing() {
    let world = World::with(3).await;
    let program = world.with_tokens(world.check("jobs"));
    world.consul.deny_writes(Some("nomad-firehose/".into()));
    world.consul.put("nomad-firehose/jobs.lock", "mine");
    let denied = nomad_firehose::standin::Fault::status(403, "Permission denied");
    world.nomad.script("/v1/jobs", denied);
    let check = program.set("NOMAD_FIREHOSE_SOURCE", "poll").run().await;
    assert_eq!(check.code, Some(FAILED), "{}", check.log);
    world.assert_shown(&check);
}

#[tokio::test]
async fn a_nomad_that_is_away_hides_nothing_of_consul_and_the_other_way_round() {
    let world = World::with(1).await;
    let program = world.check("nodes");
    let World { nomad_port, consul_port, .. } = &world;
    let (nomad, consul) = (nomad_port.address.clone(), consul_port.address.clone());
    let gone = "http://127.0.0.1:9";
    let check = program.set("NOMAD_ADDR", gone).run().await;
    assert_eq!(check.code, Some(FAILED), "{}", check.log);
    let text = plain(&check.out.replace(gone, NOMAD).replace(&consul, CONSUL));
    assert!(shown().contains(&text), "docs/check.md does not show this:\n{text}");
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["nomad"]);
    assert!(printed.row("nomad").1.contains("check NOMAD_ADDR"), "{}", check.out);
    assert_eq!(printed.row("consul").0, "ok");

    let check = world.check("nodes").set("CONSUL_HTTP_ADDR", gone).run().await;
    assert_eq!(check.code, Some(FAILED), "{}", check.log);
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["consul"]);
    assert!(printed.row("consul").1.contains("check CONSUL_HTTP_ADDR"), "{}", check.out);
    assert_eq!(printed.row("checkpoint").0, "skipped");
    assert!(check.out.contains(&nomad) && printed.row("nomad list").0 == "ok", "{}", check.out);
}

#[tokio::test]
async fn servers_that_hang_end_within_a_limit() {
    let world = World::with(1).await;
    world.nomad.partition(true);
    world.consul.partition(true);
    let began = Instant::now();
    let check = world.check("nodes").run().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["nomad", "consul"]);
    for what in ["nomad", "consul"] {
        assert!(printed.row(what).1.contains("no answer within"), "{}", check.out);
    }
}

#[tokio::test]
async fn nothing_is_written_anywhere_and_no_session_made() {
    let world = World::with(2).await;
    world.consul.put("nomad-firehose/nodes.value", "7");
    let before = (world.consul.entry("nomad-firehose/nodes.value"), world.nomad.index());
    let dir = tempfile::tempdir().unwrap();
    let letters = dir.path().join("letters");
    let program = world.with_tokens(world.check("nodes"));
    let program = program.set("NOMAD_FIREHOSE_DEAD_LETTER", letters.to_str().unwrap());
    let check = program.run().await;
    assert_eq!(check.code, Some(0), "{}{}", check.out, check.log);
    assert_eq!(Printed::of(&check).row("dead letter").0, "not testable");
    assert!(!letters.exists());
    assert_eq!(before, (world.consul.entry("nomad-firehose/nodes.value"), world.nomad.index()));
    assert!(world.consul.sessions().is_empty());
    for request in world.consul.requests() {
        let asks = request.method == "POST" && request.path == "/v1/internal/acl/authorize";
        assert!(asks || request.method == "GET", "{request:?}");
    }
    assert!(world.nomad.requests().iter().all(|it| it.method == "GET"));

    // By Nomad's variables, and in a directory.
    let check = world.by_nomad("nodes").set("NOMAD_TOKEN", "nomad-secret");
    assert_eq!(check.arguments(&["--check"]).run().await.code, Some(0));
    assert!(world.nomad.variables().is_empty());
    assert!(world.nomad.requests().iter().all(|it| it.method == "GET"));
    let state = dir.path().join("state");
    let check = world.solo("nodes", &state).set("NOMAD_TOKEN", "nomad-secret");
    let check = check.arguments(&["--check"]).run().await;
    assert_eq!(check.code, Some(0), "{}", check.out);
    assert_eq!(Printed::of(&check).row("state directory").0, "not testable");
    assert!(!state.exists());
}

#[tokio::test]
async fn the_lock_and_the_checkpoint_are_told_of() {
    let world = World::with(2).await;
    let running = world.elected("nodes").start();
    running.publishes(2).await;
    wait("a checkpoint", async || world.consul.entry("nomad-firehose/nodes.cursor")).await;
    let printed = Printed::of(&world.check("nodes").run().await);
    let (result, detail) = printed.row("lock");
    assert!(result == "ok" && detail.contains("nomad-firehose-nodes of node"), "{detail}");
    assert!(printed.row("checkpoint").1.contains("everything up to index"));
    running.stop().await;
    world.consul.put("nomad-firehose/nodes.cursor", "spoilt");
    let check = world.check("nodes").run().await;
    assert_eq!(Printed::of(&check).with("FAILED"), ["checkpoint"], "{}", check.out);

    let dir = tempfile::tempdir().unwrap();
    let running = world.solo("nodes", dir.path()).start();
    running.publishes(2).await;
    wait("a checkpoint", async || saved_floor(dir.path())).await;
    let check = world.solo("nodes", dir.path()).arguments(&["--check"]).run().await;
    let printed = Printed::of(&check);
    assert!(printed.row("checkpoint").1.contains("; saved "), "{}", check.out);
    assert_eq!(printed.row("lock").0, "not testable");
    running.stop().await;
}

#[tokio::test]
async fn places_on_this_machine_are_looked_at() {
    let world = World::with(1).await;
    let dir = tempfile::tempdir().unwrap();
    let letters = dir.path().join("letters");
    let row = async |path: &std::path::Path| {
        let program =
            world.check("nodes").set("NOMAD_FIREHOSE_DEAD_LETTER", path.to_str().unwrap());
        let check = program.run().await;
        let printed = Printed::of(&check);
        let (result, _) = printed.row("dead letter");
        assert_eq!(check.code == Some(FAILED), result == "FAILED", "{}", check.out);
        result.to_owned()
    };
    assert_eq!(row(&letters).await, "not testable");
    std::fs::write(&letters, "one\n").unwrap();
    assert_eq!(row(&letters).await, "ok");
    assert_eq!(std::fs::read_to_string(&letters).unwrap(), "one\n");
    assert_eq!(row(&letters.join("below")).await, "FAILED");
    assert_eq!(row(&dir.path().join("no/such")).await, "FAILED");
    assert_eq!(row(dir.path()).await, "FAILED");
    let listening = world.check("nodes").set("NOMAD_FIREHOSE_LISTEN", "127.0.0.1:1");
    let check = listening.run().await;
    assert_eq!(check.code, Some(0), "{}", check.out);
    assert_eq!(Printed::of(&check).row("listener").0, "not testable");
}

#[tokio::test]
async fn a_sink_that_lets_nobody_in_has_failed_and_one_that_does_says_what_is_not_known() {
    let (world, web) = (World::with(1).await, Web::start().await);
    let program = |token: &str| {
        let program = world.check("nodes").set("SINK_TYPE", "http");
        let program = program.set("SINK_HTTP_ADDRESS", format!("http://127.0.0.1:{}", web.port()));
        program.set("SINK_HTTP_TOKEN", token)
    };
    web.always(Some(204));
    let good = program(TOKEN).run().await;
    let printed = Printed::of(&good);
    assert_eq!(good.code, Some(0), "{}", good.out);
    assert!(printed.row("sink").1.contains("not tested"), "{}", good.out);
    web.always(Some(401));
    let bad = program("planted-secret").run().await;
    assert_eq!(bad.code, Some(FAILED));
    assert_eq!(Printed::of(&bad).with("FAILED"), ["sink"], "{}", bad.out);
    assert!(!bad.out.contains("planted-secret"));
    assert!(web.all().is_empty());
}

#[tokio::test]
async fn where_changes_would_come_from_is_told() {
    let world = World::with(1).await;
    world.nomad.disable_events();
    let row = async |source: &str, flag: &[&str]| {
        let program = world.check("nodes").set("NOMAD_FIREHOSE_SOURCE", source);
        let check = program.arguments(flag).run().await;
        let printed = Printed::of(&check);
        let (result, detail) = printed.row("nomad events");
        (result.to_owned(), detail.to_owned())
    };
    let (result, auto) = row("auto", &[]).await;
    assert!(result == "ok" && auto.contains("from lists") && auto.contains("silence"), "{auto}");
    assert!(auto.contains("`node { policy = \"read\" }`"), "{auto}");
    assert_eq!(row("events", &[]).await.0, "FAILED");
    assert_eq!(row("poll", &[]).await.0, "skipped");
    let (result, once) = row("events", &["--once"]).await;
    assert!(result == "skipped" && once.contains("--once"), "{once}");
}

#[tokio::test]
async fn with_a_dry_run_only_what_that_needs_is_tried() {
    let world = World::with(1).await;
    let program = Program::stream("nodes").set("NOMAD_ADDR", &world.nomad_port.address);
    let check = program.arguments(&["--check", "--dry-run"]).run().await;
    assert_eq!(check.code, Some(0), "{}{}", check.out, check.log);
    assert_eq!(Printed::of(&check).row("leader").0, "skipped");
    assert!(check.out.contains("standard output"), "{}", check.out);
}

#[tokio::test]
async fn an_empty_list_is_worth_a_word_and_a_namespace_that_is_not_there_a_failure() {
    let world = World::with(0).await;
    let empty = world.check("evaluations").run().await;
    let (result, detail) = (Printed::of(&empty), "`namespace \"*\" { capabilities");
    assert_eq!(result.row("nomad list").0, "ok", "{}", empty.out);
    assert!(result.row("nomad list").1.contains(detail), "{}", empty.out);
    let program = world.check("evaluations").set("NOMAD_FIREHOSE_NAMESPACE", "tema");
    let check = program.run().await;
    assert_eq!(Printed::of(&check).with("FAILED"), ["nomad list"], "{}", check.out);
    world.nomad.add_namespace("tema");
    let program = world.check("evaluations").set("NOMAD_FIREHOSE_NAMESPACE", "tema");
    assert_eq!(program.run().await.code, Some(0));
    let nodes = Printed::of(&world.check("nodes").run().await);
    assert_eq!(nodes.row("nomad object").0, "skipped");
    world.nomad.upsert(Objects::Nodes, node("a", "ready"));
    let nodes = Printed::of(&world.check("nodes").run().await);
    assert_eq!(nodes.row("nomad object").0, "ok");
}

#[tokio::test]
async fn the_table_is_the_same_whatever_the_log_is_and_a_wrong_configuration_prints_none() {
    let world = World::with(1).await;
    let text = world.check("nodes").run().await;
    let program = world.check("nodes").set("LOG_FORMAT", "json").set("LOG_LEVEL", "trace");
    let json = program.run().await;
    assert_eq!(text.out, json.out);
    assert!(json.log.lines().all(|it| it.starts_with('{')), "{}", json.log);
    let program = world.check("nodes").set("NOMAD_FIREHOSE_CHEKPOINT", "5s");
    let warned = Printed::of(&program.run().await);
    assert!(warned.row("configuration").1.contains("did you mean NOMAD_FIREHOSE_CHECKPOINT"));
    let wrong = world.check("nodes").set("NOMAD_FIREHOSE_START", "yesterday").run().await;
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(CONFIGURATION), ""));
}
