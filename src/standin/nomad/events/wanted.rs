//! What a request to the stream asks for.

use std::{collections::BTreeMap, num::IntErrorKind};

use axum::{http::StatusCode, response::Response};

use super::super::state::DEFAULT_NAMESPACE;
use crate::standin::{answer, query::Params};

const ALL: &str = "*";

/// Topics, with the keys of each, and namespaces.
pub(super) struct Wanted {
    topics: BTreeMap<String, Vec<String>>,
    /// None are all, those to come included.
    namespaces: Option<Vec<String>>,
}

impl Wanted {
    /// Reads the parameters, or gives the answer to bad ones. `*` means the namespaces `known`, if the server looks once.
    pub(super) fn of(params: &Params, known: Option<Vec<String>>) -> Result<Self, Box<Response>> {
        let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for topic in params.all("topic") {
            let (name, key) = topic.split_once(':').unwrap_or((topic, ALL));
            if key.contains(':') {
                return Err(bad(format!(
                    "Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: {topic}"
                )));
            }
            topics.entry(name.to_owned()).or_default().push(key.to_owned());
        }
        if topics.is_empty() {
            topics.insert(ALL.to_owned(), vec![ALL.to_owned()]);
        }
        let namespaces = match params.get("namespace") {
            Some(ALL) => known,
            Some("") | None => Some(vec![DEFAULT_NAMESPACE.to_owned()]),
            Some(name) => Some(vec![name.to_owned()]),
        };
        Ok(Self { topics, namespaces })
    }

    /// How many times an event is sent: once for each key that it matches.
    pub(super) fn times(&self, topic: &str, namespace: &str, keys: &[&str]) -> usize {
        let passes = namespace.is_empty()
            || self.namespaces.as_ref().is_none_or(|names| names.iter().any(|it| it == namespace));
        if !passes {
            return 0;
        }
        let asked = |topic| self.topics.get(topic).map(Vec::as_slice).unwrap_or_default();
        let lists = [asked(ALL), asked(topic)];
        // Beside another key, the wildcard is a key that nothing has.
        if lists.iter().any(|list| matches!(list, [key] if key == ALL)) {
            return 1;
        }
        lists.iter().flat_map(|list| list.iter()).filter(|key| keys.contains(&key.as_str())).count()
    }
}

/// The index to begin at: signed, so that a negative one is beyond all others.
pub(super) fn index(params: &Params) -> Result<u64, Box<Response>> {
    let text = params.get("index").filter(|text| !text.is_empty()).unwrap_or("0");
    let index: Result<i64, _> = text.parse();
    index.map(i64::cast_unsigned).map_err(|err| {
        let what = match err.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        bad(format!("Unable to parse index: strconv.Atoi: parsing {text:?}: {what}"))
    })
}

fn bad(text: String) -> Box<Response> {
    Box::new(answer::text(StatusCode::BAD_REQUEST, text))
}
