//! What Nomad shows: elements of lists, objects of events, and small answers.

use std::sync::Arc;

use nomad_firehose::{
    cursor::{Cursor, Index},
    dedupe::Seen,
    error::Chain,
    streams::{Allocations, Deployments, Evaluations, JobListStubs, Jobs, Mode, Nodes, Resource},
};
use serde_json::value::RawValue;

use super::consul::{answering, run};

/// Nothing that is not an object of JSON is published, what is published is what Nomad sent, and
/// nothing is published twice.
pub fn nomad(input: &[u8]) {
    let Some(([which, how], text)) = input.split_first_chunk::<2>() else { return };
    match which % 8 {
        0 => element::<Allocations>(*how, text),
        1 => element::<Nodes>(*how, text),
        2 => element::<Evaluations>(*how, text),
        3 => element::<Jobs>(*how, text),
        4 => element::<JobListStubs>(*how, text),
        5 => element::<Deployments>(*how, text),
        _ => answer(*how, text),
    }
}

fn element<R: Resource>(how: u8, text: &[u8]) {
    let mode = [Mode::Usual, Mode::Event, Mode::Regressed][usize::from(how % 3)];
    let mut cursor = Cursor::new(R::KIND);
    cursor.reach(Index(u64::from(how / 3)));
    let mut seen = Seen::new(&cursor);
    let is_object = text.first() == Some(&b'{')
        && std::str::from_utf8(text).is_ok()
        && serde_json::from_slice::<&RawValue>(text).is_ok();
    let found = match R::changes(text, &seen, mode) {
        Err(bad) => return super::is_brief(&bad.to_string()),
        Ok(found) => found,
    };
    assert!(is_object || found.changes.is_empty(), "{found:?}");
    let source: Arc<str> = "/nomad/global".into();
    found.silent.iter().for_each(|it| seen.note(*it));
    for change in found.changes {
        seen.note(change.mark);
        let Some(body) = change.body.clone() else { continue };
        let record = match change.into_record::<R>(body, &source) {
            Ok(record) => record,
            Err(bad) => return super::is_brief(&bad.to_string()),
        };
        assert!(record.meta.id.starts_with(R::NAME), "{}", record.meta.id);
        assert!(!record.body.iter().any(|it| matches!(it, b'\n' | b'\r')));
        let written: &RawValue = serde_json::from_slice(&record.body).unwrap();
        assert!(written.get().starts_with('{'));
    }
    // A list after a regression is about what is known of the one before, which is nothing.
    if mode != Mode::Regressed {
        let again = R::changes(text, &seen, mode).unwrap();
        let recheck = again.changes.iter().all(|it| it.recheck);
        assert!(again.changes.is_empty() || recheck, "{again:?}");
    }
}

fn answer(how: u8, text: &[u8]) {
    let status = [200, 200, 403, 500, 404, 307][usize::from(how % 6)];
    run(async {
        let (router, client) = answering(status, "X-Nomad-Index", text);
        let nomad = nomad_firehose::api::Nomad::stand_in(router, client);
        let errors = [
            nomad.namespaces().await.err(),
            nomad.version().await.err(),
            nomad.node("a", false).await.err(),
        ];
        for err in errors.into_iter().flatten() {
            super::is_brief(&Chain(&err).to_string());
        }
        if status == 200 {
            // What is read by id is passed through as it came.
            assert_eq!(nomad.node("a", true).await.unwrap().unwrap(), text);
            let is_list = serde_json::from_slice::<Vec<serde_json::Value>>(text).is_ok();
            assert!(is_list || nomad.namespaces().await.is_err());
        }
    });
}
