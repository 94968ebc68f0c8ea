//! `--check` with tokens that lack a permission: it is named as the rule that gives it.

use nomad_firehose::{standin::Fault, streams};

use super::{
    World,
    check::Printed,
    firehose::{FAILED, Program},
};

fn denied() -> Fault {
    Fault::status(403, "Permission denied")
}

#[tokio::test]
async fn the_capability_that_each_list_needs_is_named() {
    let world = World::with(1).await;
    let node = "`node { policy = \"read\" }`";
    let jobs = |it: &str| format!("`namespace \"*\" {{ capabilities = [\"{it}\"] }}`");
    for (name, ..) in streams::ALL {
        let (list, rule) = match *name {
            "nodes" => ("/v1/nodes", node.to_owned()),
            "jobs" | "jobliststubs" => ("/v1/jobs", jobs("list-jobs")),
            other => (other, jobs("read-job")),
        };
        let list = format!("/v1/{}", list.trim_start_matches("/v1/"));
        world.nomad.script(&list, denied());
        if ["evaluations", "deployments"].contains(name) {
            // Before Nomad 1.2.4 it would be `*` that is denied, so each namespace is tried.
            world.nomad.script(&list, denied());
        }
        let check = world.check(name).run().await;
        let printed = Printed::of(&check);
        assert_eq!(check.code, Some(FAILED), "{name}: {}", check.out);
        assert_eq!(printed.with("FAILED"), ["nomad list"], "{name}: {}", check.out);
        let (_, detail) = printed.row("nomad list");
        assert!(detail.contains(&rule) && detail.contains("check NOMAD_TOKEN"), "{name}: {detail}");
        assert_eq!(world.nomad.faults_left(), 0, "{name}");
    }
}

#[tokio::test]
async fn the_capability_that_an_object_and_its_events_need_is_named() {
    let world = World::with(1).await;
    let job = crate::support::job("web", "team", "running");
    world.nomad.upsert(nomad_firehose::standin::nomad::Table::Jobs, job);
    world.nomad.script("/v1/job/", denied());
    world.nomad.script("/v1/event/stream", denied());
    let check = world.check("jobs").set("NOMAD_FIREHOSE_SOURCE", "events").run().await;
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["nomad object", "nomad events"], "{}", check.out);
    let rule = |it: &str| format!("`namespace \"{it}\" {{ capabilities = [\"read-job\"] }}`");
    assert!(printed.row("nomad object").1.contains(&rule("team")), "{}", check.out);
    assert!(printed.row("nomad events").1.contains(&rule("*")), "{}", check.out);
}

#[tokio::test]
async fn a_token_that_nomad_does_not_know_is_told_from_one_that_it_tells_nothing_of() {
    let world = World::with(1).await;
    world.nomad.require_token(Some("another".into()));
    let check = world.check("nodes").set("NOMAD_TOKEN", "planted-secret").run().await;
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["nomad token", "nomad list"], "{}", check.out);
    assert!(!check.out.contains("planted-secret"));
    // The version is for those who may read agents.
    assert!(printed.row("nomad").1.contains("agent"), "{}", check.out);

    world.nomad.require_token(None);
    world.nomad.script("/v1/acl/token/self", denied());
    let check = world.check("nodes").set("NOMAD_TOKEN", "an-identity").run().await;
    assert_eq!(check.code, Some(0), "{}", check.out);
    assert!(Printed::of(&check).row("nomad token").1.contains("let in"), "{}", check.out);

    let token = r#"{"Type":"client","Name":"x","Policies":["a","b"],"Roles":[{"ID":"1","Name":"r"}],
        "SecretID":"planted-secret","ExpirationTime":"2030-01-01T00:00:00Z"}"#;
    let body = token.into();
    world.nomad.script(
        "/v1/acl/token/self",
        Fault::GarbageBody { body, content_type: "application/json" },
    );
    let check = world.check("nodes").run().await;
    let said = "a client token, policies: a, b, roles: r; it expires at 2030-01-01T00:00:00Z";
    assert_eq!(Printed::of(&check).row("nomad token"), ("ok", said));
    assert!(!check.out.contains("planted-secret"));
}

#[tokio::test]
async fn what_a_token_of_consul_lacks_is_named() {
    let world = World::with(1).await;
    world.consul.deny_writes(Some("nomad-firehose/".into()));
    let check = world.check("nodes").run().await;
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["consul write"], "{}", check.out);
    let rule = "`key_prefix \"nomad-firehose/\" { policy = \"write\" }`";
    assert!(printed.row("consul write").1.contains(rule), "{}", check.out);

    world.consul.require_token(Some("another".into()));
    for (token, failed) in [
        (None, vec!["consul read", "consul write"]),
        (
            Some("planted-secret"),
            vec!["consul token", "consul read", "consul write", "consul session"],
        ),
    ] {
        let mut program = world.check("nodes");
        if let Some(token) = token {
            program = program.set("CONSUL_HTTP_TOKEN", token);
        }
        let check = program.run().await;
        assert_eq!(check.code, Some(FAILED));
        let printed = Printed::of(&check);
        assert_eq!(printed.with("FAILED"), failed, "{}", check.out);
        assert!(printed.row("consul read").1.contains(rule), "{}", check.out);
        assert!(printed.row("consul session").1.contains("session_prefix"), "{}", check.out);
        assert!(!check.out.contains("planted-secret"));
    }
}

#[tokio::test]
async fn what_consul_does_not_tell_is_not_testable_and_the_policy_is_named() {
    let world = World::with(1).await;
    for _ in 0..2 {
        world.consul.script("/v1/internal/acl/authorize", Fault::status(404, ""));
    }
    let check = world.check("nodes").run().await;
    assert_eq!(check.code, Some(0), "{}", check.out);
    let printed = Printed::of(&check);
    assert_eq!(printed.with("not testable"), ["consul write", "consul session"]);
    let apart = world.check("nodes").set("CONSUL_NAMESPACE", "team").run().await;
    assert_eq!(
        Printed::of(&apart).with("not testable"),
        ["consul write", "consul session"],
        "{}",
        apart.out
    );
}

#[tokio::test]
async fn a_key_that_is_no_lock_has_failed() {
    let world = World::with(1).await;
    world.consul.put("nomad-firehose/nodes.lock", "mine");
    let check = world.check("nodes").run().await;
    let printed = Printed::of(&check);
    assert_eq!(printed.with("FAILED"), ["lock"], "{}", check.out);
    assert!(printed.row("lock").1.contains("NOMAD_FIREHOSE_CONSUL_PREFIX"), "{}", check.out);
}

#[tokio::test]
async fn the_rights_to_variables_are_told_as_far_as_nomad_tells() {
    let world = World::with(1).await;
    let check = async |program: Program| program.arguments(&["--check"]).run().await;
    let open = check(world.by_nomad("nodes")).await;
    let printed = Printed::of(&open);
    assert_eq!(open.code, Some(0), "{}", open.out);
    assert_eq!(printed.row("lock"), ("ok", "nobody holds it"));
    assert_eq!(printed.row("variables write"), ("ok", "ACLs are off"));

    let rule = "`namespace \"default\" { variables { path \"nomad-firehose/*\" { capabilities = \
                [\"read\", \"write\"] } } }`";
    for _ in 0..2 {
        world.nomad.script("/v1/acl/token/self", denied());
    }
    let limited = check(world.by_nomad("nodes")).await;
    let printed = Printed::of(&limited);
    assert_eq!(printed.with("not testable"), ["variables write"], "{}", limited.out);
    assert!(printed.row("variables write").1.contains(rule), "{}", limited.out);

    world.nomad.deny_variables(Some("nomad-firehose/".to_owned()));
    let denied = check(world.by_nomad("nodes")).await;
    let printed = Printed::of(&denied);
    assert_eq!(printed.with("FAILED"), ["variables read"], "{}", denied.out);
    assert!(printed.row("variables read").1.contains(rule), "{}", denied.out);

    world.nomad.deny_variables(None);
    world.nomad.set_build("1.6.10");
    let old = check(world.by_nomad("nodes")).await;
    assert_eq!(Printed::of(&old).with("FAILED"), ["variables"], "{}", old.out);
    assert!(old.out.contains("Nomad 1.7"), "{}", old.out);
}
