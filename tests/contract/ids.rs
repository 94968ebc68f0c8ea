//! Ids of records: the same change has the same id whoever reads it, and no other has it.

use std::collections::HashSet;

use super::{
    emit::{Recording, emit, emit_elements, emit_object, lists, lists_of, objects_of},
    snapshots::whole_form,
    text::{compact, items, member, members, reordered},
};

/// Every list with each stream that reads it.
fn emissions() -> impl Iterator<Item = (&'static str, &'static Recording)> {
    lists().flat_map(|list| list.streams().iter().map(move |it| (*it, list)))
}

fn ids(stream: &str, list: &Recording) -> Vec<String> {
    emit(stream, list).records.into_iter().map(|it| it.meta.id).collect()
}

#[test]
fn ids_are_unique_within_a_list() {
    for (stream, list) in emissions() {
        let ids = ids(stream, list);
        let unique: HashSet<&String> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "{stream}, {list}");
    }
}

#[test]
fn ids_and_their_order_are_the_same_in_every_run_and_for_every_order_of_keys() {
    for (stream, list) in emissions() {
        let ids = ids(stream, list);
        let text = |it: &Vec<u8>| std::str::from_utf8(it).unwrap().to_owned();
        let elements: Vec<Vec<u8>> =
            list.elements().iter().map(|it| reordered(&text(it)).into_bytes()).collect();
        let again: Vec<String> =
            emit_elements(stream, list, &elements).into_iter().map(|it| it.meta.id).collect();
        assert_eq!(ids, again, "{stream}, {list}");
    }
}

#[test]
fn a_list_in_another_form_emits_the_same_documents_under_the_same_ids() {
    let mut forms = 0;
    for (list, whole) in lists().filter_map(|it| Some((it, whole_form(it)?))) {
        let stream = list.streams()[0];
        let whole = emit(stream, whole).records;
        // Only the second namespace is missing from it.
        let whole: Vec<_> = whole.iter().filter(|it| &*it.meta.namespace == "default").collect();
        let part = emit(stream, list).records;
        assert_eq!(part.len(), whole.len(), "{list}");
        for (one, other) in part.iter().zip(whole) {
            assert_eq!(one.meta.id, other.meta.id, "{list}");
            let text = |it: &[u8]| reordered_fully(&compact(std::str::from_utf8(it).unwrap()));
            assert_eq!(text(&one.body), text(&other.body), "{list}");
        }
        forms += 1;
    }
    assert!(forms >= 5, "only {forms} other forms were recorded");
}

/// The text with its keys sorted: maps come in any order.
fn reordered_fully(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'{') => {
            let mut members = members(text);
            members.sort();
            members
                .iter()
                .map(|(key, value)| format!("{key}:{};", reordered_fully(value)))
                .collect()
        }
        Some(b'[') => items(text).iter().map(|it| reordered_fully(it) + ",").collect(),
        _ => text.to_owned(),
    }
}

#[test]
fn a_field_that_changes_without_an_index_changes_no_id_and_any_other_does() {
    for node in objects_of("nodes") {
        let text = String::from_utf8(node.body.clone()).unwrap();
        let id = |text: String| {
            let node = Recording { body: text.into_bytes(), ..node.clone() };
            emit_object("nodes", &node).meta.id
        };
        let known = id(text.clone());
        for key in ["Events", "LastAllocUpdateIndex", "LastMissedHeartbeatIndex"] {
            assert_eq!(id(with(&text, key, "[1]")), known, "{node}: {key}");
        }
        assert_ne!(id(with(&text, "Status", r#""other""#)), known, "{node}");
    }
    for list in lists_of("jobliststubs") {
        for element in list.elements() {
            let text = String::from_utf8(element).unwrap();
            let id = |text: String| {
                emit_elements("jobliststubs", list, &[text.into_bytes()]).remove(0).meta.id
            };
            let known = id(text.clone());
            let summary = member(&text, "JobSummary");
            let summary = with(&summary, "Summary", r#"{"web":{"Running":77}}"#);
            assert_eq!(id(with(&text, "JobSummary", &summary)), known, "{list}");
            assert_ne!(id(with(&text, "Status", r#""other""#)), known, "{list}");
        }
    }
}

/// The object with another value of a member.
fn with(object: &str, key: &str, value: &str) -> String {
    let mut members = members(object);
    members.retain(|(it, _)| it != key);
    members.push((key.to_owned(), value.to_owned()));
    let members: Vec<String> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn the_id_of_an_object_names_it_and_its_state() {
    for (stream, list) in emissions().filter(|(it, _)| *it != "allocations") {
        for record in emit(stream, list).records {
            let body = std::str::from_utf8(&record.body).unwrap();
            let id: String = serde_json::from_str(&member(body, "ID")).unwrap();
            let index = member(body, "ModifyIndex");
            let (rest, hash) = record.meta.id.rsplit_once('/').unwrap();
            assert_eq!(rest, format!("{stream}/{}/{id}/{index}", record.meta.namespace));
            assert!(is_hash(hash), "{}", record.meta.id);
            assert_eq!(record.meta.subject, id);
            assert_eq!(record.meta.index.to_string(), index);
            assert_eq!(stream == "nodes", record.meta.namespace.is_empty(), "{list}");
        }
    }
}

#[test]
fn the_id_of_a_task_event_names_its_task_and_what_happened_when() {
    for (_, list) in emissions().filter(|(it, _)| *it == "allocations") {
        for record in emit("allocations", list).records {
            let body = std::str::from_utf8(&record.body).unwrap();
            let event = member(body, "TaskEvent");
            let [allocation, task, kind] =
                [(body, "AllocationID"), (body, "TaskName"), (&event, "Type")]
                    .map(|(of, key)| serde_json::from_str::<String>(&member(of, key)).unwrap());
            let time = member(&event, "Time");
            let (rest, hash) = record.meta.id.rsplit_once('/').unwrap();
            assert_eq!(rest, format!("allocations/{allocation}/{task}/{time}/{kind}"));
            assert!(is_hash(hash), "{}", record.meta.id);
            assert_eq!(record.meta.subject, format!("{allocation}/{task}"));
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}
