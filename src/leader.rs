//! Who may publish, and from where. To add a backend: a file here, its `mod` line, and its arm in
//! [`from_env`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    api,
    backoff::Trouble,
    cursor::{Cursor, Saved},
    env::{Env, Noted},
    error::{BoxError, Chain, brief},
    finding::Finding,
    metrics::Metrics,
    shutdown::Shutdown,
};

mod consul;
mod lease;
mod nomad;
mod solo;

/// Elects one publisher per stream.
#[async_trait]
pub trait Leader: Send + Sync {
    /// Waits until this process is the publisher; `None` once it is asked to stop. Whatever may
    /// heal is logged and tried again for ever; an error is for what cannot.
    async fn elect(&self, stop: &Shutdown) -> Result<Option<Box<dyn Term>>, LeaderError>;

    /// Connects without changing anything, and tells what of all that it needs works.
    async fn check(&self) -> Vec<Finding>;

    /// What it does from now on is counted there.
    fn counts_in(&mut self, metrics: &Arc<Metrics>);
}

/// A time as the publisher, and the only way to a checkpoint: whoever is not the publisher has
/// none.
#[async_trait]
pub trait Term: Send + Sync {
    /// The last checkpoint of any term.
    async fn load(&self) -> Result<Saved, LeaderError>;

    /// Moves the checkpoint. Fails, and changes nothing, once the term is over.
    async fn save(&self, cursor: &mut Cursor) -> Result<(), LeaderError>;

    /// Resolves once the term is over, or can no longer be shown not to be.
    async fn over(&self);

    /// Whether the term lasts at this instant. Asked before every call to the sink, because a
    /// process that was suspended learns late that its term is over.
    fn holds(&self) -> bool;

    /// Steps down, so that another process is elected at once.
    async fn resign(self: Box<Self>);
}

/// The election or the checkpoint failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Another process may be the publisher now.
    #[error("the term is over")]
    Over,
    /// Trying again can help.
    #[error("cannot {doing}")]
    Unavailable {
        /// What was being done, to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

impl LeaderError {
    /// Cannot do this, for that reason.
    pub fn unavailable(doing: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { doing: doing.into(), source: source.into() }
    }
}

/// Election by a Consul lock, with the Go tool's keys.
#[must_use]
pub fn consul(
    consul: api::Consul,
    prefix: &str,
    lock: &str,
    ttl: Duration,
    lock_delay: Duration,
) -> Box<dyn Leader> {
    Box::new(consul::Consul::new(consul, prefix, lock, ttl, lock_delay))
}

/// Election and checkpoint by the variables of a Nomad; fails where it would not take the paths.
pub fn nomad(
    variables: api::Variables,
    prefix: &str,
    lock: &str,
    ttl: Duration,
    lock_delay: Duration,
) -> Result<Box<dyn Leader>, String> {
    Ok(Box::new(nomad::Nomad::new(variables, prefix, lock, ttl, lock_delay)?))
}

/// No election; the checkpoint is in a directory, or in memory.
#[must_use]
pub fn solo(dir: Option<PathBuf>, lock: &'static str) -> Box<dyn Leader> {
    Box::new(solo::Solo::new(dir, lock))
}

/// The backend that `NOMAD_FIREHOSE_LEADER` names, for the stream whose keys are called `lock`.
pub fn from_env(env: &Env, lock: &'static str) -> Result<Box<dyn Leader>, Noted> {
    let name = env.or("NOMAD_FIREHOSE_LEADER", "consul".to_owned())?;
    match name.as_str() {
        "consul" => Ok(Box::new(consul::Consul::from_env(env, lock)?)),
        "solo" => Ok(Box::new(solo::Solo::from_env(env, lock)?)),
        "nomad" => Ok(Box::new(nomad::Nomad::from_env(env, lock)?)),
        _ => Err(env
            .note("NOMAD_FIREHOSE_LEADER", format!("`{name}` is not one of: consul, solo, nomad"))),
    }
}

/// What there is of a checkpoint.
fn checkpoint(at: &str, saved: &Saved) -> Finding {
    let what = "checkpoint";
    match saved {
        Saved::Nothing => Finding::works(what, at, "none yet"),
        Saved::Ours(cursor) => Finding::works(what, at, cursor.about()),
        Saved::GoTool { value, .. } => {
            Finding::works(what, at, format!("the Go tool was the last to write it: {value}"))
        }
        Saved::Corrupt { why, .. } => {
            let detail = format!(
                "it cannot be read: {}. A term would go on from the Go tool's position, or publish \
                 everything again",
                brief(why)
            );
            Finding::fails(what, at, detail)
        }
    }
}

/// The rows of what depends on a server that does not answer.
fn skipped(server: &str, rows: &[(&'static str, &str)]) -> Vec<Finding> {
    let row = |(what, at): &(&'static str, &str)| {
        Finding::skipped(what, *at, format!("{server} does not answer"))
    };
    rows.iter().map(row).collect()
}

/// Says why nobody is elected, once for each reason.
fn report(trouble: &mut Trouble, err: &LeaderError, metrics: &Metrics) {
    let reason = Chain(err).to_string();
    metrics.elections_failed.one();
    metrics.health.leader.fails(&reason);
    if trouble.is_news(reason.clone()) {
        tracing::error!(
            error = reason,
            "cannot be elected; it is tried again. Nothing is published until then, and nothing is \
             lost. Mend what the error says"
        );
    }
}

/// Says that so many parts of a checkpoint could not be read, where there is any.
fn report_damaged(damaged: usize, checkpoint: &str) {
    if damaged > 0 {
        tracing::error!(
            damaged,
            checkpoint,
            "parts of the checkpoint are damaged; task events of some allocations will be \
             published again when these change. If it recurs, find out what else writes there"
        );
    }
}

/// A duration that the servers allow.
fn ranged(
    env: &Env,
    name: &'static str,
    default: Duration,
    (least, greatest): (Duration, Duration),
    who: &str,
) -> Result<Duration, Noted> {
    let value = env.duration(name, default)?;
    if value < least || value > greatest {
        let bounds = format!("from {} s to {} s", least.as_secs(), greatest.as_secs());
        return Err(env.note(name, format!("is {value:?}, and {who} allows {bounds}")));
    }
    Ok(value)
}
