//! The job, the policies, the images and the try-out: what they name is there, and is the same in
//! each of them.

use std::collections::{BTreeMap, BTreeSet};

use hcl::{Body, Structure};
use nomad_firehose::{VERSION, streams};
use serde_json::Value;

use super::{file, files};
use crate::tidy::variables_read;

/// Variables that begin as ours do, and are not for this program or are read when it is built.
const OF_OTHERS: [&str; 1] = ["NOMAD_FIREHOSE_COMMIT"];

/// The variables of this program, or of its servers' clients, that a text names.
fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let ours = |it: &&str| {
        ["NOMAD_", "CONSUL_", "SINK_", "LOG_"].iter().any(|prefix| it.starts_with(prefix))
            && !it.ends_with('_')
            && it.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_')
    };
    words.filter(ours).collect()
}

/// The streams by name, with what their keys begin with.
fn all_streams() -> BTreeSet<String> {
    streams::ALL.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

/// Every program that is released.
fn programs() -> BTreeSet<String> {
    let streams = all_streams().into_iter().map(|it| format!("firehose-{it}"));
    streams.chain(["nomad-firehose".to_owned()]).collect()
}

fn parsed(name: &str) -> Body {
    hcl::parse(&file(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
}

/// Every block of this kind, however deep; what a dynamic one makes counts as one.
fn blocks<'a>(body: &'a Body, kind: &str) -> Vec<&'a hcl::Block> {
    let mut found = Vec::new();
    for block in body.blocks() {
        let made = block.labels.first().map(hcl::BlockLabel::as_str);
        if block.identifier() == kind || (block.identifier() == "dynamic" && made == Some(kind)) {
            found.push(block);
        }
        found.extend(blocks(&block.body, kind));
    }
    found
}

/// What an attribute is, as it is written.
fn attribute(body: &Body, name: &str) -> Option<String> {
    let found = body.attributes().find(|it| it.key() == name)?;
    Some(hcl::format::to_string(found.expr()).unwrap().trim_matches('"').to_owned())
}

#[test]
fn every_variable_that_a_file_names_is_read_by_the_program() {
    let read = variables_read();
    let mut wrong = Vec::new();
    for (name, text) in files() {
        let known = |it: &&str| read.iter().any(|read| read == it) || OF_OTHERS.contains(it);
        let strange = variables(&text).into_iter().filter(|it| !known(it));
        wrong.extend(strange.map(|it| format!("{name}: {it}")));
    }
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
    assert_eq!(variables("SINK_TYPE=${NOMAD_ADDRESS} xSINK_ SINK_").len(), 2);
}

#[test]
fn the_job_runs_two_copies_of_every_stream_with_an_identity_and_checks() {
    let job = parsed("nomad/firehose.nomad.hcl");
    let streams = blocks(&job, "variable");
    let streams = streams.iter().find(|it| it.labels[0].as_str() == "streams").unwrap();
    let listed = attribute(&streams.body, "default").unwrap();
    let listed: BTreeSet<String> =
        listed.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(listed, all_streams());

    let [group] = blocks(&job, "group")[..] else { panic!("there is one group for all streams") };
    assert_eq!(attribute(&group.body, "for_each").as_deref(), Some("var.streams"));
    let [content] = blocks(&group.body, "content")[..] else { panic!("the group has a content") };
    assert_eq!(attribute(&content.body, "count").as_deref(), Some("2"));

    let [task] = blocks(&job, "task")[..] else { panic!("there is one task") };
    let identities = blocks(&task.body, "identity");
    assert_eq!(identities.len(), 2, "one for Nomad, one for Consul");
    assert_eq!(attribute(&identities[0].body, "env").as_deref(), Some("true"));
    assert_eq!(attribute(&identities[0].body, "file").as_deref(), Some("true"));
    assert_eq!(attribute(&identities[1].body, "name").as_deref(), Some("consul_default"));
    assert_eq!(attribute(&task.body, "kill_signal").as_deref(), Some("SIGTERM"));
    assert_eq!(attribute(&task.body, "kill_timeout").as_deref(), Some("10s"));
    let [env] = blocks(&task.body, "env")[..] else { panic!("the task has an environment") };
    let address = attribute(&env.body, "NOMAD_ADDR").unwrap();
    assert!(address.ends_with("${NOMAD_SECRETS_DIR}/api.sock"), "{address}");

    let checks: BTreeSet<_> =
        blocks(&job, "check").iter().map(|it| attribute(&it.body, "path").unwrap()).collect();
    assert_eq!(checks, BTreeSet::from(["/live".to_owned(), "/ready".to_owned()]));
    let [update] = blocks(&job, "update")[..] else { panic!("the job says how it is updated") };
    assert_eq!(attribute(&update.body, "max_parallel").as_deref(), Some("1"));
}

#[test]
fn policies_grant_what_is_documented_and_no_more() {
    let rights = |name: &str| {
        let body = parsed(name);
        let mut found = BTreeMap::new();
        for block in body.blocks() {
            let label = block.labels.first().map_or("", |it| it.as_str());
            let name = format!("{} {label}", block.identifier()).trim().to_owned();
            let granted = attribute(&block.body, "policy")
                .or_else(|| attribute(&block.body, "capabilities"))
                .unwrap_or_default();
            let granted = granted.split_whitespace().collect::<String>().replace('"', "");
            assert!(found.insert(name, granted).is_none(), "a rule is there twice");
        }
        found
    };
    let objects = ("namespace *".to_owned(), "[list-jobs,read-job]".to_owned());
    let nodes = ("node".to_owned(), "read".to_owned());
    assert_eq!(rights("nomad/policy-all.hcl"), [objects.clone(), nodes.clone()].into());
    assert_eq!(rights("nomad/policy-objects.hcl"), [objects].into());
    assert_eq!(rights("nomad/policy-nodes.hcl"), [nodes].into());
    let leader = parsed("nomad/policy-leader.hcl");
    let [path] = blocks(&leader, "path")[..] else { panic!("there is one path") };
    assert_eq!(path.labels[0].as_str(), "nomad-firehose/*", "the default prefix");
    let granted = attribute(&path.body, "capabilities").unwrap();
    assert_eq!(granted.split('"').skip(1).step_by(2).collect::<Vec<_>>(), ["read", "write"]);

    for stream in all_streams() {
        let lock = if stream == "jobliststubs" { "jobliststub" } else { &stream };
        let expected = [
            (format!("key_prefix nomad-firehose/{lock}."), "write".to_owned()),
            ("session_prefix".to_owned(), "write".to_owned()),
        ];
        assert_eq!(rights(&format!("consul/policy-{stream}.hcl")), expected.into(), "{stream}");
    }
}

#[test]
fn there_is_an_image_for_every_program_and_no_more_in_it() {
    let text = file("Dockerfile");
    let stages: Vec<&str> = text.split("\nFROM ").skip(1).collect();
    let name = |stage: &str| stage.lines().next().unwrap().split(" AS ").nth(1).unwrap().to_owned();
    let images: BTreeMap<String, &str> = stages.iter().map(|it| (name(it), *it)).collect();
    let of_programs: BTreeSet<String> =
        images.keys().filter(|it| !["build", "base"].contains(&it.as_str())).cloned().collect();
    assert_eq!(of_programs, programs());
    assert_eq!(name(stages.last().unwrap()), "nomad-firehose", "comes without --target");

    let base = images["base"];
    assert!(base.starts_with("scratch AS base\n"), "there is no shell and no package");
    let user = base.lines().find_map(|it| it.strip_prefix("USER ")).unwrap();
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    for line in ["STOPSIGNAL SIGTERM", "/etc/ssl/certs/ca-certificates.crt"] {
        assert!(base.contains(line), "{line}");
    }
    assert!(base.contains(&format!("ARG VERSION={VERSION}\n")), "the label has another version");
    for program in programs() {
        let stage = images[&program];
        assert!(stage.starts_with("base AS "), "{program}");
        let lines: Vec<&str> = stage.lines().filter(|it| !it.starts_with('#')).collect();
        let entry = lines.iter().find_map(|it| it.strip_prefix("ENTRYPOINT ")).unwrap();
        let entry: Vec<String> = serde_json::from_str(entry).unwrap();
        assert!(entry[0].ends_with(&format!("/{program}")), "{program}: {entry:?}");
        let health = lines.iter().find(|it| it.starts_with("HEALTHCHECK ")).unwrap();
        let health: Vec<String> =
            serde_json::from_str(health.split("CMD ").nth(1).unwrap()).unwrap();
        assert_eq!(health[1..], ["--health"], "{program}");
        let copied = lines.iter().filter(|it| it.starts_with("COPY ")).count();
        assert_eq!(copied, 1, "{program} has more than itself");
    }
}

#[test]
fn the_try_out_runs_every_stream_from_an_image_that_is_built() {
    let compose: Value = yaml_serde::from_str(&file("compose/compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    let firehoses: BTreeSet<String> = services
        .values()
        .filter(|it| it["<<"]["image"] == "nomad-firehose" || it["image"] == "nomad-firehose")
        .map(|it| it["command"][0].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(firehoses, all_streams());
    let shared = &compose["x-firehose"];
    assert_eq!(shared["deploy"]["replicas"], 2);
    let built: Vec<&Value> = services.values().filter(|it| it["build"].is_object()).collect();
    let [builder] = built[..] else { panic!("the image is built once, for all") };
    let target = builder["build"]["target"].as_str().unwrap();
    assert!(file("Dockerfile").contains(&format!(" AS {target}\n")));
    let environment = shared["environment"].as_object().unwrap();
    for (variable, service) in [
        ("NOMAD_ADDR", "nomad"),
        ("CONSUL_HTTP_ADDR", "consul"),
        ("SINK_AMQP_CONNECTION", "rabbitmq"),
    ] {
        let value = environment[variable].as_str().unwrap();
        assert!(services.contains_key(service) && value.contains(service), "{variable}: {value}");
    }
    // What is mounted is there.
    for mount in services.values().filter_map(|it| it["volumes"].as_array()).flatten() {
        let from = mount.as_str().unwrap().split(':').next().unwrap();
        let path = super::path("compose").join(from);
        assert!(path.exists(), "{} is mounted and is not there", path.display());
    }
    let scraped: Value = yaml_serde::from_str(&file("compose/prometheus.yaml")).unwrap();
    let names = &scraped["scrape_configs"][0]["dns_sd_configs"][0]["names"];
    let names = names.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), all_streams());
}

#[test]
fn what_is_hcl_is_hcl_and_what_is_yaml_is_yaml() {
    let mut read = 0;
    for (name, text) in files() {
        let is = |extension: &str| name.ends_with(extension);
        if is(".hcl") {
            let body = parsed(&name);
            assert!(body.iter().any(|it| matches!(it, Structure::Block(_))), "{name} has no block");
        } else if is(".yaml") {
            let _: Value =
                yaml_serde::from_str(&text).unwrap_or_else(|err| panic!("{name}: {err}"));
        } else if is(".json") {
            let _: Value =
                serde_json::from_str(&text).unwrap_or_else(|err| panic!("{name}: {err}"));
        } else {
            continue;
        }
        read += 1;
    }
    assert!(read > 15, "only {read} files");
}
