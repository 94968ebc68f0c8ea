//! The identity that Nomad gives a task, over the socket that it gives it as well.

use nomad_firehose::{
    env::Env,
    standin::nomad::{Nomad as StandIn, Table, Version},
};
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinSet};

use super::{SecretFile, nodes, nomad_of, replace};
use crate::{firehose::Program, support::node};

/// A Nomad behind the socket of a task, which lets nobody in without a token.
struct Task {
    nomad: StandIn,
    secrets: SecretFile,
    dir: TempDir,
    // Dropped with the task, which ends it.
    _served: JoinSet<()>,
}

impl Task {
    async fn new() -> Self {
        let nomad = StandIn::new(Version::V2_0);
        nomad.upsert(Table::Nodes, node("a", "ready"));
        nomad.require_token(Some("identity-1".into()));
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let router = nomad.router();
        let mut served = JoinSet::new();
        served.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { nomad, secrets: SecretFile::new("identity-1\n"), dir, _served: served }
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.dir.path().join("api.sock").display())
    }

    fn secrets_dir(&self) -> String {
        self.secrets.dir.path().display().to_string()
    }
}

#[tokio::test]
async fn the_identity_in_the_file_of_a_task_is_used_and_followed() {
    let task = Task::new().await;
    let (socket, secrets) = (task.socket(), task.secrets_dir());
    let none = nomad_of(Env::from([("NOMAD_UNIX_ADDR", &*socket)]));
    assert!(none.list_nodes(&nodes(None)).await.is_err(), "the socket lets nobody in");
    assert_eq!(none.token(), "none");

    let vars = [("NOMAD_UNIX_ADDR", &*socket), ("NOMAD_SECRETS_DIR", &*secrets)];
    let file_only = nomad_of(Env::from(vars));
    let [a, b] = vars;
    // With `env = true` as well, Nomad has set the variable to what was in the file.
    let both = nomad_of(Env::from([a, b, ("NOMAD_TOKEN", "identity-1")]));
    for (identity, nomad) in
        ["identity-1", "identity-2"].into_iter().flat_map(|it| [(it, &file_only), (it, &both)])
    {
        task.nomad.require_token(Some(identity.into()));
        task.secrets.replace(identity);
        nomad.list_nodes(&nodes(None)).await.unwrap();
        assert_eq!(nomad.token(), format!("the file {}", task.secrets.shown()));
    }
}

#[tokio::test]
async fn a_token_that_was_given_by_hand_goes_before_the_identity_of_the_task() {
    let task = Task::new().await;
    let (socket, secrets) = (task.socket(), task.secrets_dir());
    let given = ("NOMAD_TOKEN", "by-hand");
    task.nomad.require_token(Some("by-hand".into()));
    let vars = [("NOMAD_ADDR", &*socket), ("NOMAD_SECRETS_DIR", &*secrets), given];
    let nomad = nomad_of(Env::from(vars));
    nomad.list_nodes(&nodes(None)).await.unwrap();
    assert_eq!(nomad.token(), "NOMAD_TOKEN");

    let other = task.dir.path().join("other");
    replace(&other, "by-hand");
    let other = other.display().to_string();
    let [a, b, _] = vars;
    let nomad = nomad_of(Env::from([a, b, ("NOMAD_FIREHOSE_TOKEN_FILE", &other)]));
    nomad.list_nodes(&nodes(None)).await.unwrap();
    assert_eq!(nomad.token(), format!("the file {other}"));
}

#[tokio::test]
async fn a_process_in_a_task_publishes_by_its_socket_and_says_which_token_it_has() {
    let task = Task::new().await;
    let program = || {
        Program::stream("nodes")
            .set("SINK_TYPE", "stdout")
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("NOMAD_UNIX_ADDR", task.socket())
            .set("NOMAD_SECRETS_DIR", task.secrets_dir())
    };
    let checked = program().arguments(&["--check"]).run().await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    assert!(checked.out.contains(&task.secrets.shown()), "{}", checked.out);

    let running = program().start();
    running.publishes(1).await;
    task.nomad.require_token(Some("identity-2".into()));
    task.secrets.replace("identity-2");
    task.nomad.upsert(Table::Nodes, node("b", "ready"));
    running.publishes(2).await;
    let log = running.stop().await.log;
    assert!(log.contains(&format!("token=\"the file {}\"", task.secrets.shown())), "{log}");
    assert!(!log.contains("identity-"), "{log}");
}
