//! The exact documents, as standard output gets them, kept in `snapshots/`. Above each document
//! stands what its record says beside it. A document is shown once: the same bytes in a later list
//! of the same version refer to it.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use bytes::Bytes;
use nomad_firehose::record::{Record, json};

use super::emit::{Recording, emit, emit_object, lists, lists_of, objects_of};

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots");
/// Of more new documents than so many bytes, a snapshot has a hash of each instead.
const MAX_BYTES: usize = 300_000;

#[test]
fn allocations_are_emitted_as_accepted() {
    check("allocations");
}

#[test]
fn nodes_are_emitted_as_accepted() {
    check("nodes");
}

#[test]
fn evaluations_are_emitted_as_accepted() {
    check("evaluations");
}

#[test]
fn jobs_are_emitted_as_accepted() {
    check("jobs");
}

#[test]
fn job_list_stubs_are_emitted_as_accepted() {
    check("jobliststubs");
}

#[test]
fn deployments_are_emitted_as_accepted() {
    check("deployments");
}

/// The name of the snapshot that already has a document of a version.
type Shown = HashMap<(&'static str, Bytes), String>;

fn check(stream: &str) {
    let mut names = HashSet::new();
    let mut listed = HashSet::new();
    let mut shown = Shown::new();
    for list in lists_of(stream) {
        let emitted = emit(stream, list);
        listed.extend(emitted.records.iter().map(|it| (list.version, it.meta.id.clone())));
        if whole_form(list).is_some() {
            continue;
        }
        let mut about = format!("{list}: {} records of {stream}", emitted.records.len());
        if !emitted.unread.is_empty() {
            let _ = write!(about, "; not recorded by id: {}", emitted.unread.join(", "));
        }
        let name = format!("{stream}-{}-{}-{}", list.version, list.folder, list.name);
        accept(&name, &about, list.version, &emitted.records, &mut shown);
        names.insert(name);
    }
    // Objects in a state that no list shows.
    for version in ["1.0.18", "2.0.5"] {
        let records: Vec<Record> = objects_of(stream)
            .filter(|it| it.version == version)
            .map(|it| emit_object(stream, it))
            .filter(|it| listed.insert((version, it.meta.id.clone())))
            .collect();
        if records.is_empty() {
            continue;
        }
        let name = format!("{stream}-{version}-objects");
        let about = format!("Nomad {version}: {} objects that no list shows", records.len());
        accept(&name, &about, version, &records, &mut shown);
        names.insert(name);
    }
    for entry in std::fs::read_dir(SNAPSHOTS).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = file.strip_suffix(".snap") {
            let ours = name.starts_with(&format!("{stream}-"));
            assert!(!ours || names.contains(name), "nothing emits snapshots/{file} any more");
        }
    }
}

/// The same list for all namespaces, which is how it is asked for, where both were recorded. The
/// stubs of jobs differ between the two on Nomad 1.0, so either is accepted on its own.
pub(super) fn whole_form(list: &Recording) -> Option<&'static Recording> {
    let name = format!("{}_namespace_star", list.table());
    if list.table() == "jobs" || list.name == name {
        return None;
    }
    let whole = (list.version, &list.folder, &name);
    lists().find(|it| (it.version, &it.folder, &it.name) == whole)
}

fn accept(name: &str, about: &str, version: &'static str, records: &[Record], shown: &mut Shown) {
    let is_new = |it: &&Record| !shown.contains_key(&(version, it.body.clone()));
    let bytes: usize = records.iter().filter(is_new).map(|it| it.body.len()).sum();
    let mut text = String::from("# id | type | subject | time | index | namespace\n");
    for record in records {
        let meta = &record.meta;
        let time = meta.time.as_deref().unwrap_or("-");
        let subject = &meta.subject;
        let _ = write!(text, "# {} | {} | {subject} | {time} ", meta.id, meta.kind);
        let _ = writeln!(text, "| {} | {}", meta.index, meta.namespace);
        let body = std::str::from_utf8(&record.body).unwrap();
        assert!(!body.contains(['\n', '\r']), "more than one line: {body}");
        let _ = match shown.get(&(version, record.body.clone())) {
            Some(other) => writeln!(text, "# as in {other}"),
            None if bytes > MAX_BYTES => {
                writeln!(text, "# {} bytes, xxh3 {:016x}", body.len(), json::name(body))
            }
            None => {
                shown.insert((version, record.body.clone()), name.to_owned());
                writeln!(text, "{body}")
            }
        };
    }
    insta::with_settings!({
        snapshot_path => SNAPSHOTS,
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => about,
    }, { insta::assert_snapshot!(name, text) });
}
