//! Everything a process needs, from its environment. Nothing connects yet.

use std::{sync::Arc, time::Duration};

use crate::{
    admin::{self, Listen},
    api::{Nomad, connect},
    cursor::Start,
    deliver::Delivery,
    env::{Env, Noted},
    leader::{self, Leader},
    metrics::Metrics,
    sink,
    streams::Resource,
    watch::{Scope, Source},
};

/// What a process publishes, from where, to where, and as whom.
pub struct Config {
    /// Where changes come from.
    pub nomad: Nomad,
    /// Which of them.
    pub scope: Scope,
    /// Where they go.
    pub delivery: Delivery,
    /// Who publishes.
    pub leader: Box<dyn Leader>,
    /// What to publish without a checkpoint.
    pub start: Start,
    /// The longest time between a confirmed record and its checkpoint.
    pub checkpoint: Duration,
    /// How long a call to the sink may take after the first signal.
    pub grace: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where metrics and health are served, if anywhere.
    pub listen: Option<Listen>,
}

impl Config {
    /// Reads all of it before the first `?`, so that every problem is reported at once.
    pub fn from_env<R: Resource>(env: &Env) -> Result<Self, Noted> {
        let metrics = Arc::new(Metrics::default());
        let endpoint = connect::nomad(env);
        let region = connect::nomad_region(env);
        let namespace = namespace(env);
        let delivery = Delivery::from_env(env, sink::from_env(env), &metrics);
        let leader = leader::from_env(env, R::LOCK);
        let start = start(env);
        let changes = changes(env);
        let checkpoint = env.duration("NOMAD_FIREHOSE_CHECKPOINT", Duration::from_secs(10));
        let resync = env.duration("NOMAD_FIREHOSE_RESYNC", Duration::from_secs(300));
        let listen = admin::from_env(env, R::NAME);

        let (region, delivery) = (region?, delivery?);
        let scope = Scope {
            namespace: namespace?.into(),
            source: format!("/nomad/{}", region.as_deref().unwrap_or("global")).into(),
            changes: changes?,
            resync: resync?,
        };
        let mut leader = leader?;
        leader.counts_in(&metrics);
        Ok(Self {
            listen: listen?,
            nomad: Nomad::new(endpoint?, region),
            scope,
            grace: delivery.grace(),
            delivery,
            leader,
            start: start?,
            checkpoint: checkpoint?,
            metrics,
        })
    }
}

/// Which namespaces to watch. Nomad sets NOMAD_NAMESPACE in every task, and following it there
/// would silently narrow the stream to the job's own.
fn namespace(env: &Env) -> Result<String, Noted> {
    let own = env.optional::<String>("NOMAD_FIREHOSE_NAMESPACE");
    let outer = env.optional::<String>("NOMAD_NAMESPACE");
    let in_task = env.optional::<String>("NOMAD_ALLOC_ID")?.is_some();
    let outer = outer?.filter(|_| !in_task);
    Ok(own?.or(outer).unwrap_or_else(|| "*".to_owned()))
}

fn start(env: &Env) -> Result<Start, Noted> {
    let name = "NOMAD_FIREHOSE_START";
    match env.or(name, "earliest".to_owned())?.as_str() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        other => Err(env.note(name, format!("`{other}` is not one of: earliest, latest"))),
    }
}

fn changes(env: &Env) -> Result<Source, Noted> {
    let name = "NOMAD_FIREHOSE_SOURCE";
    match env.or(name, "auto".to_owned())?.as_str() {
        "auto" => Ok(Source::Auto),
        "events" => Ok(Source::Events),
        "poll" => Ok(Source::Poll),
        other => Err(env.note(name, format!("`{other}` is not one of: auto, events, poll"))),
    }
}
