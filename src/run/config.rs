//! Everything a process needs, from its environment. Nothing connects yet.

use std::{sync::Arc, time::Duration};

use crate::{
    admin::{self, Listen},
    api::{Nomad, connect},
    cursor::Start,
    deliver::{self, Delivery},
    env::{Env, Noted},
    filter::Filter,
    leader::{self, Leader},
    metrics::Metrics,
    record::percent_encoded,
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
        let delivery = Delivery::from_env(env, sink::from_env(env), &metrics);
        let leader = leader::from_env(env, R::LOCK);
        Self::read::<R>(env, metrics, delivery, leader)
    }

    /// The same for a dry run: to standard output, and with nobody to be elected by. The settings of
    /// a sink that is named are looked at all the same.
    pub fn dry_run<R: Resource>(env: &Env) -> Result<Self, Noted> {
        let metrics = Arc::new(Metrics::default());
        let grace = deliver::grace(env);
        let (sink, filter) = (sink::stdout_in_place(env), Filter::from_env(env));
        let delivery = sink.and_then(|sink| {
            let delivery = Delivery::new(sink, grace?, metrics.clone());
            Ok(delivery.with_filter(filter?))
        });
        // In memory, which is gone with the process.
        let config = Self::read::<R>(env, metrics, delivery, Ok(leader::solo(None, R::LOCK)))?;
        // It is no copy of the stream, and is not to look like one.
        Ok(Self { listen: None, ..config })
    }

    fn read<R: Resource>(
        env: &Env,
        metrics: Arc<Metrics>,
        delivery: Result<Delivery, Noted>,
        leader: Result<Box<dyn Leader>, Noted>,
    ) -> Result<Self, Noted> {
        let endpoint = connect::nomad(env);
        let region = connect::nomad_region(env);
        let namespace = namespace(env);
        let start = start(env);
        let changes = changes(env);
        let checkpoint = env.duration("NOMAD_FIREHOSE_CHECKPOINT", Duration::from_secs(10));
        let resync = env.duration("NOMAD_FIREHOSE_RESYNC", Duration::from_secs(300));
        let listen = admin::from_env(env, R::NAME);

        let (region, delivery) = (region?, delivery?);
        let scope = Scope {
            namespace: namespace?.into(),
            source: source(region.as_deref().unwrap_or("global")).into(),
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

/// What records name as their source: a URI reference, whatever the region is called.
fn source(region: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-._~".contains(it);
    format!("/nomad/{}", percent_encoded(region, |it| !plain(it)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_uri_reference_whatever_the_region_is_called() {
        assert_eq!(source("eu-west_1"), "/nomad/eu-west_1");
        assert_eq!(source("a b/\u{fc}%"), "/nomad/a%20b%2F%C3%BC%25");
    }
}
