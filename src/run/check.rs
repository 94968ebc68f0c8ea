//! `--check`: connects to everything, changes nothing there, and prints a table of what works.

use std::path::PathBuf;

use super::{
    Config,
    flags::{Flags, print},
};
use crate::{
    env::{Env, Noted},
    error::Chain,
    finding::{self, Finding, LIMIT, within},
    streams::Resource,
};

mod nomad;
mod rights;

/// Places on this machine that a process needs, which a check only looks at.
#[derive(Default)]
pub(super) struct Places {
    dead_letter: Option<PathBuf>,
    listen: Option<String>,
}

impl Places {
    pub(super) fn from_env(env: &Env, dry_run: bool) -> Result<Self, Noted> {
        let dead_letter = env.optional("NOMAD_FIREHOSE_DEAD_LETTER");
        let listen = env.optional("NOMAD_FIREHOSE_LISTEN");
        let (dead_letter, listen) = (dead_letter?, listen?);
        // A dry run rejects nothing, writes nothing, and listens nowhere.
        Ok(if dry_run { Self::default() } else { Self { dead_letter, listen } })
    }
}

/// Prints the table; says whether nothing has failed. `unknown` are warnings about variables.
pub(super) async fn check<R: Resource>(
    config: &Config,
    flags: &Flags,
    places: &Places,
    unknown: &[String],
) -> bool {
    let findings = findings::<R>(config, flags, places, unknown).await;
    print(&finding::table(&findings));
    finding::all_work(&findings)
}

async fn findings<R: Resource>(
    config: &Config,
    flags: &Flags,
    places: &Places,
    unknown: &[String],
) -> Vec<Finding> {
    let configuration = Finding::works("configuration", "environment", unknown.join("; "));
    let leader = async {
        match flags.dry_run {
            true => vec![Finding::skipped(
                "leader",
                "nobody",
                "a dry run takes no lock and keeps no checkpoint",
            )],
            false => config.leader.check().await,
        }
    };
    let (nomad, leader, sink, local) =
        tokio::join!(nomad::findings::<R>(config, flags.once), leader, sink(config), local(places));
    [vec![configuration], nomad, leader, vec![sink], local].concat()
}

async fn sink(config: &Config) -> Finding {
    let sink = config.delivery.sink();
    let about = sink.about();
    let check = async {
        match sink.check().await {
            Ok(()) => Finding::works("sink", &about.at, about.untested),
            Err(err) => Finding::fails("sink", &about.at, Chain(&err).to_string()),
        }
    };
    within("sink", &about.at, LIMIT, check).await
}

async fn local(places: &Places) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(path) = places.dead_letter.clone() {
        let what = "dead letter";
        let at = path.display().to_string();
        let look = async {
            let looked = tokio::task::spawn_blocking(move || finding::file(what, &path)).await;
            looked.unwrap_or_else(|err| Finding::fails(what, "", err.to_string()))
        };
        // To open what is a pipe waits for its reader.
        found.push(within(what, &at, LIMIT, look).await);
    }
    if let Some(address) = &places.listen {
        let detail = "an address; whether it is free is not tested";
        found.push(Finding::not_testable("listener", address, detail));
    }
    found
}
