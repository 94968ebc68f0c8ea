//! What a check finds of the variables of Nomad: reads alone; nothing is written.

use super::{
    Nomad,
    checkpoint::{Checkpoint, Head},
};
use crate::{
    api::ApiError,
    cursor::Loading,
    error::Chain,
    finding::{Finding, LIMIT, within},
    leader::{LeaderError, checkpoint, skipped},
};

const LOCKS: &str = "variables";
const READ: &str = "variables read";
const WRITE: &str = "variables write";
const LOCK: &str = "lock";
const CHECKPOINT: &str = "checkpoint";

impl Nomad {
    /// A row for each thing that an election and a checkpoint need.
    pub(super) async fn findings(&self) -> Vec<Finding> {
        let name = self.variables.name();
        let address = name.strip_prefix("Nomad at ").unwrap_or(name);
        let paths = format!("{}/* of {}", self.paths.prefix, self.variables.namespace());
        let locks = match self.check_versions().await {
            Ok(()) => Finding::works(LOCKS, address, "locks of variables"),
            Err(err) => {
                let failed = Finding::fails(LOCKS, address, Chain(&err).to_string());
                if !is_unreachable(&err) {
                    failed
                } else {
                    let rows = [
                        (READ, &*paths),
                        (WRITE, &*paths),
                        (LOCK, &*self.paths.lock),
                        (CHECKPOINT, &*self.paths.cursor),
                    ];
                    return std::iter::once(failed).chain(skipped("Nomad", &rows)).collect();
                }
            }
        };
        let ([read, lock, checkpoint], write) = tokio::join!(
            self.read_findings(&paths),
            within(WRITE, &paths, LIMIT, self.write_finding(&paths)),
        );
        vec![locks, read, write, lock, checkpoint]
    }

    async fn read_findings(&self, paths: &str) -> [Finding; 3] {
        let (lock, cursor) = (&self.paths.lock, &self.paths.cursor);
        let read = async {
            let locked = self.variables.read(lock, None).await?;
            Ok((locked, self.variables.read(cursor, None).await?))
        };
        let (locked, head) = match read.await {
            Ok(read) => read,
            Err(err) => {
                let err = self.failed("read the lock and the checkpoint", err);
                let why = "the variables cannot be read";
                return [
                    Finding::fails(READ, paths, Chain(&err).to_string()),
                    Finding::skipped(LOCK, lock, why),
                    Finding::skipped(CHECKPOINT, cursor, why),
                ];
            }
        };
        let lock = match locked.variable {
            None => Finding::works(LOCK, lock, "nobody holds it"),
            Some(variable) if variable.holder.is_some() => Finding::works(LOCK, lock, "held"),
            Some(_) => Finding::works(LOCK, lock, "free, or held and not shown to this token"),
        };
        let checkpoint = match Checkpoint::read(head.variable).head {
            Head::Nothing => Finding::works(CHECKPOINT, cursor, "none yet"),
            Head::Here(head) => {
                let (saved, _) = Loading::new(Some(head.as_bytes())).finish(None);
                checkpoint(cursor, &saved)
            }
            Head::Beside { parts, .. } => {
                Finding::works(CHECKPOINT, cursor, format!("in {parts} variables beside it"))
            }
            Head::Damaged => Finding::fails(
                CHECKPOINT,
                cursor,
                "somebody else wrote the variable; a term would publish everything again",
            ),
        };
        [Finding::works(READ, paths, ""), lock, checkpoint]
    }

    /// Nomad tells nobody what a token may write, unless that is everything.
    async fn write_finding(&self, paths: &str) -> Finding {
        match self.variables.own_token().await {
            Ok(None) => Finding::works(WRITE, paths, "ACLs are off"),
            Ok(Some(token)) if token.manages => Finding::works(WRITE, paths, token.about()),
            Ok(Some(_)) | Err(_) => {
                let detail = format!("without writing; the token needs {}", self.rule());
                Finding::not_testable(WRITE, paths, detail)
            }
        }
    }
}

/// Whether it is because the server does not answer.
fn is_unreachable(err: &LeaderError) -> bool {
    let LeaderError::Unavailable { source, .. } = err else { return false };
    source.downcast_ref::<ApiError>().is_some_and(ApiError::is_unreachable)
}
