//! What a check finds in Nomad.

use std::time::Duration;

use futures::StreamExt;

use super::rights;
use crate::{
    api::{self, ApiError, Page, Query},
    cursor::{Cursor, Index},
    dedupe::Seen,
    error::{Chain, brief},
    finding::{Finding, LIMIT, within},
    run::Config,
    streams::{Change, Mode, Resource},
    watch::{
        self, Source,
        split::{Element, Splitter},
    },
};

const REACHED: &str = "nomad";
const TOKEN: &str = "nomad token";
const LIST: &str = "nomad list";
const OBJECT: &str = "nomad object";
const EVENTS: &str = "nomad events";
/// A list of a large cluster takes its time to be made.
const LIST_LIMIT: Duration = Duration::from_secs(20);

/// What there is of a list.
enum First {
    /// It is empty.
    Nothing,
    /// It begins with this object, or with one that cannot be read.
    Object(Option<Box<Change>>),
}

/// A row for each thing that the stream needs of Nomad. `once` needs no event stream.
pub(super) async fn findings<R: Resource>(config: &Config, once: bool) -> Vec<Finding> {
    let name = config.nomad.name();
    let address = name.strip_prefix("Nomad at ").unwrap_or(name);
    let namespace = &*config.scope.namespace;
    let at = match rights::has_namespaces::<R>() {
        true => format!("{} of namespace {namespace}", R::NAME),
        false => R::NAME.to_owned(),
    };
    let topic = format!("topic {}", R::TOPIC.name());
    let (reached, answers) = reached(config, address).await;
    if !answers {
        let mut rows = vec![(TOKEN, config.nomad.token()), (LIST, at.clone())];
        if rights::reads_by_id::<R>() {
            rows.push((OBJECT, at));
        }
        rows.push((EVENTS, topic));
        let skipped = |(what, at)| Finding::skipped(what, at, "Nomad does not answer");
        return std::iter::once(reached).chain(rows.into_iter().map(skipped)).collect();
    }
    let (token, (list, object), events) = tokio::join!(
        config.nomad.own_token(),
        list_and_object::<R>(config, &at),
        within(EVENTS, &topic, LIST_LIMIT, events::<R>(config, &topic, once)),
    );
    let list_works = list.outcome == crate::finding::Outcome::Works;
    let token = judge_token(&config.nomad.token(), token, list_works);
    [reached, token, list].into_iter().chain(object).chain([events]).collect()
}

/// Whether Nomad answers at all, and which version it is.
async fn reached(config: &Config, address: &str) -> (Finding, bool) {
    match tokio::time::timeout(LIMIT, config.nomad.version()).await {
        Ok(Ok(version)) => {
            (Finding::works(REACHED, address, format!("version {}", brief(&version))), true)
        }
        Ok(Err(err)) if err.is_unreachable() => {
            (Finding::fails(REACHED, address, Chain(&err).to_string()), false)
        }
        Ok(Err(err)) if err.status().is_some() => {
            let detail = "it tells its version only with `agent { policy = \"read\" }`";
            let refused = [Some(401), Some(403)].contains(&err.status());
            let found = match refused || err.says("Permission denied") {
                true => Finding::works(REACHED, address, detail),
                false => Finding::fails(REACHED, address, Chain(&err).to_string()),
            };
            (found, true)
        }
        Ok(Err(err)) => (Finding::fails(REACHED, address, Chain(&err).to_string()), true),
        Err(_) => {
            let detail = format!("there was no answer within {} s", LIMIT.as_secs());
            (Finding::fails(REACHED, address, detail), false)
        }
    }
}

/// What the token is. The identity of a task is none that Nomad tells of.
fn judge_token(at: &str, token: api::Result<Option<api::Token>>, list_works: bool) -> Finding {
    match token {
        Ok(None) => Finding::works(TOKEN, at, "ACLs are off: no token is needed"),
        Ok(Some(token)) => Finding::works(TOKEN, at, token.about()),
        Err(_) if list_works && at == "none" => {
            Finding::works(TOKEN, at, "none is given: it may do what anybody may")
        }
        Err(_) if list_works => {
            Finding::works(TOKEN, at, "it is let in; what it is, Nomad does not tell it")
        }
        Err(err) => Finding::fails(TOKEN, at, Chain(&err).to_string()),
    }
}

async fn list_and_object<R: Resource>(config: &Config, at: &str) -> (Finding, Option<Finding>) {
    let mut first = None;
    let list = within(LIST, at, LIST_LIMIT, list::<R>(config, at, &mut first)).await;
    if !rights::reads_by_id::<R>() {
        return (list, None);
    }
    let object = match first {
        None => Finding::skipped(OBJECT, at, "the list cannot be read"),
        Some(First::Nothing) => Finding::skipped(OBJECT, at, "the list has none"),
        Some(First::Object(None)) => {
            Finding::fails(OBJECT, at, "the first element of the list cannot be read")
        }
        Some(First::Object(Some(change))) => {
            within(OBJECT, at, LIST_LIMIT, object::<R>(config, at, &change)).await
        }
    };
    (list, Some(object))
}

async fn list<R: Resource>(config: &Config, at: &str, first: &mut Option<First>) -> Finding {
    let namespace = &config.scope.namespace;
    let page = match R::list(&config.nomad, &query(namespace)).await {
        Err(err) if err.is_forbidden() && R::OLD_WILDCARD && &**namespace == "*" => {
            return each_namespace::<R>(config, at, &err, first).await;
        }
        page => page,
    };
    let page = match page {
        Ok(page) => page,
        Err(err) => return Finding::fails(LIST, at, list_failed::<R>(&err, namespace)),
    };
    if page.index == Index(0) && !page.known_leader {
        return Finding::fails(LIST, at, "the server knows no leader; see its own log");
    }
    let index = page.index;
    match first_of::<R>(config, page).await {
        Err(why) => Finding::fails(LIST, at, why),
        Ok(First::Nothing) => {
            *first = Some(First::Nothing);
            empty::<R>(config, at, index).await
        }
        Ok(found) => {
            *first = Some(found);
            Finding::works(LIST, at, format!("at index {index}"))
        }
    }
}

fn query(namespace: &str) -> Query {
    let namespace = namespace.to_owned();
    Query { past: None, wait: Duration::ZERO, stale: false, namespace, prefix: None }
}

fn list_failed<R: Resource>(err: &ApiError, namespace: &str) -> String {
    if !err.is_forbidden() {
        return Chain(err).to_string();
    }
    format!("{}: it needs {}", Chain(err), rights::to_list::<R>(namespace))
}

/// A list may be empty because there is nothing, or because the token may not see it.
async fn empty<R: Resource>(config: &Config, at: &str, index: Index) -> Finding {
    let namespace = &*config.scope.namespace;
    if rights::has_namespaces::<R>()
        && namespace != "*"
        && let Ok(there) = config.nomad.namespaces().await
        && !there.iter().any(|it| it == namespace)
    {
        let detail = "there is no such namespace, or the token may see nothing in it; check \
                      NOMAD_FIREHOSE_NAMESPACE";
        return Finding::fails(LIST, at, detail);
    }
    let mut detail = format!(
        "empty, at index {index}; if the cluster has some, the token is not shown them: it needs {}",
        rights::to_list::<R>(namespace)
    );
    if R::OLD_WILDCARD && namespace == "*" {
        detail.push_str(". Before Nomad 1.2.4 each namespace is read on its own");
    }
    Finding::works(LIST, at, detail)
}

/// Before Nomad 1.2.4 some lists take `*` for the name of a namespace, and deny it.
async fn each_namespace<R: Resource>(
    config: &Config,
    at: &str,
    denied: &ApiError,
    first: &mut Option<First>,
) -> Finding {
    let namespaces = config.nomad.namespaces().await.unwrap_or_default();
    let mut readable = Vec::new();
    for namespace in &namespaces {
        if let Ok(page) = R::list(&config.nomad, &query(namespace)).await {
            if first.is_none() {
                *first = first_of::<R>(config, page).await.ok();
            }
            readable.push(namespace.as_str());
        }
    }
    if readable.is_empty() {
        return Finding::fails(LIST, at, list_failed::<R>(denied, "*"));
    }
    let detail = format!(
        "each namespace on its own: {} of {} can be read",
        readable.len(),
        namespaces.len()
    );
    Finding::works(LIST, at, detail)
}

/// The first object of a list; the rest is not read.
async fn first_of<R: Resource>(config: &Config, page: Page) -> Result<First, String> {
    let mut splitter = Splitter::default();
    let mut body = page.body;
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|err| Chain(&config.nomad.body_failed(R::NAME, err)).to_string())?;
        let mut rest = &chunk[..];
        match splitter.next_element(&mut rest).map_err(|err| Chain(&err).to_string())? {
            None => (),
            Some(Element::TooLarge(_)) => return Ok(First::Object(None)),
            Some(Element::Whole(text)) => {
                let seen = Seen::new(&Cursor::new(R::KIND));
                let found = R::changes(text, &seen, Mode::Usual).ok();
                let change = found.and_then(|it| it.changes.into_iter().next());
                return Ok(First::Object(change.map(Box::new)));
            }
        }
    }
    splitter.finish().map_err(|err| Chain(&err).to_string())?;
    Ok(First::Nothing)
}

async fn object<R: Resource>(config: &Config, at: &str, change: &Change) -> Finding {
    match R::payload(&config.nomad, change, false).await {
        Ok(Some(_)) => Finding::works(OBJECT, at, format!("read {}", brief(&change.id))),
        Ok(None) => Finding::skipped(OBJECT, at, "the first of the list was deleted just now"),
        Err(err) if err.is_forbidden() => {
            let namespace = match &*change.namespace {
                "" => &config.scope.namespace,
                namespace => namespace,
            };
            let rule = rights::to_read::<R>(namespace);
            Finding::fails(OBJECT, at, format!("{}: it needs {rule}", Chain(&err)))
        }
        Err(err) => Finding::fails(OBJECT, at, Chain(&err).to_string()),
    }
}

/// Where changes would come from. Only who demands the event stream cannot do without it.
async fn events<R: Resource>(config: &Config, at: &str, once: bool) -> Finding {
    if once {
        return Finding::skipped(EVENTS, at, "--once reads lists alone");
    }
    if config.scope.changes == Source::Poll {
        return Finding::skipped(EVENTS, at, "changes come from lists, as configured");
    }
    let namespace = &config.scope.namespace;
    let Err(err) = watch::try_stream::<R>(&config.nomad, namespace).await else {
        return Finding::works(EVENTS, at, "");
    };
    let rule = match err.denied {
        true => format!("; the token needs {} for it", rights::to_read::<R>(namespace)),
        false => String::new(),
    };
    let why = format!("{}{rule}", Chain(&*err.source));
    if config.scope.changes == Source::Auto {
        let detail = format!("changes would come from lists, which cost more: {why}");
        return Finding::works(EVENTS, at, detail);
    }
    Finding::fails(EVENTS, at, why)
}
