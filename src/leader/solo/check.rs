//! What a check finds of a directory: it only looks, since a lock that was tried would be one.

use std::{path::Path, time::SystemTime};

use super::{Solo, blocking, read};
use crate::{
    cursor::{Loading, Saved},
    finding::{self, Finding, Outcome},
    leader::checkpoint,
};

const DIRECTORY: &str = "state directory";
const LOCK: &str = "lock";
const CHECKPOINT: &str = "checkpoint";

impl Solo {
    /// A row for each thing that is in the directory.
    pub(super) async fn findings(&self) -> Vec<Finding> {
        let Some(dir) = self.dir.clone() else {
            let detail = "NOMAD_FIREHOSE_STATE_DIR is not set: the checkpoint is in memory, and \
                          gone with the process";
            return vec![Finding::works(DIRECTORY, "memory", detail)];
        };
        let solo = self.clone();
        let found = blocking(move || Ok(solo.look(&dir)));
        found.await.unwrap_or_else(|err| vec![Finding::fails(DIRECTORY, "", err.to_string())])
    }

    fn look(&self, dir: &Path) -> Vec<Finding> {
        let (lock, cursor) = (self.path(dir, "lock"), self.path(dir, "cursor"));
        let there = finding::directory(DIRECTORY, dir);
        match there.outcome {
            Outcome::Works => (),
            Outcome::Fails => return vec![there],
            Outcome::Skipped | Outcome::NotTestable => {
                return vec![there, checkpoint(&cursor.display().to_string(), &Saved::Nothing)];
            }
        }
        let mut locked = finding::file(LOCK, &lock);
        if locked.outcome != Outcome::Fails {
            let detail = "without taking it, whether another process holds it";
            locked = Finding::not_testable(LOCK, lock.display().to_string(), detail);
        }
        let name = cursor.display().to_string();
        let saved = match read(&cursor) {
            Ok(None) => checkpoint(&name, &Saved::Nothing),
            Ok(Some(head)) => {
                let (saved, _) = Loading::new(Some(&head)).finish(None);
                let mut found = checkpoint(&name, &saved);
                found.detail.push_str(&age(&cursor));
                found
            }
            Err(err) => Finding::fails(CHECKPOINT, name, format!("it cannot be read: {err}")),
        };
        vec![there, locked, saved]
    }
}

/// When a file was written.
fn age(path: &Path) -> String {
    let written = path.metadata().and_then(|it| it.modified()).ok();
    let age = written.and_then(|it| SystemTime::now().duration_since(it).ok());
    age.map(|it| format!("; saved {} s ago", it.as_secs())).unwrap_or_default()
}
