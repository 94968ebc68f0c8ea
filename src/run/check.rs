//! `--check`: connects to everything, changes nothing there, and says what works.

use super::{Config, flags::print};
use crate::{
    api::Query,
    cursor::Index,
    error::Chain,
    streams::Resource,
    watch::{self, Source},
};

/// Prints a line for each thing tried; whether all of them work.
pub(super) async fn check<R: Resource>(config: &Config) -> bool {
    let query = Query {
        past: None,
        wait: std::time::Duration::ZERO,
        stale: false,
        namespace: config.scope.namespace.to_string(),
        prefix: None,
    };
    let nomad = match R::list(&config.nomad, &query).await {
        Ok(page) if page.index > Index(0) || page.known_leader => Ok(format!(
            "{}: the list of {} can be read, at index {}; the token is from: {}",
            config.nomad.name(),
            R::NAME,
            page.index,
            config.nomad.token()
        )),
        Ok(_) => Err(format!("{}: it knows no leader", config.nomad.name())),
        Err(err) => Err(Chain(&err).to_string()),
    };
    let events = events::<R>(config).await;
    let leader = config.leader.check().await.map_err(|err| Chain(&err).to_string());
    let sink = config.delivery.sink().check().await;
    let sink = sink.map(|()| "ready".to_owned()).map_err(|err| Chain(&err).to_string());
    let mut all = true;
    for (what, result) in [("nomad", nomad), ("events", events), ("leader", leader), ("sink", sink)]
    {
        all &= result.is_ok();
        let (word, text) = match result {
            Ok(text) => ("ok", text),
            Err(text) => ("FAILED", text),
        };
        print(&format!("{what:<8}{word:<8}{text}\n"));
    }
    all
}

/// Where changes would come from. Only who demands the event stream cannot do without it.
async fn events<R: Resource>(config: &Config) -> Result<String, String> {
    if config.scope.changes == Source::Poll {
        return Ok("changes come from lists, as configured".to_owned());
    }
    match watch::try_stream::<R>(&config.nomad, &config.scope.namespace).await {
        Ok(()) => Ok("the event stream can be read".to_owned()),
        Err(err) if config.scope.changes == Source::Auto => {
            Ok(format!("changes come from lists, since there is no event stream: {}", Chain(&*err)))
        }
        Err(err) => Err(Chain(&*err).to_string()),
    }
}
