//! Documents of allocations: every recorded task event once, in the shape of the Go tool.

use std::collections::HashMap;

use super::{
    emit::{Recording, emit, emit_elements, lists_of},
    text::{compact, items, member, members},
};

/// The keys of a document, in their order.
const KEYS: [&str; 17] = [
    "Name",
    "NodeID",
    "AllocationID",
    "DesiredStatus",
    "DesiredDescription",
    "ClientStatus",
    "ClientDescription",
    "JobID",
    "GroupName",
    "TaskName",
    "EvalID",
    "TaskState",
    "TaskFailed",
    "TaskStartedAt",
    "TaskFinishedAt",
    "TaskEvent",
    "Namespace",
];

/// The keys of a task event that are documented, with the value of one that is not sent.
pub(super) const EVENT_KEYS: [(&str, &str); 22] = [
    ("Type", r#""""#),
    ("Time", "0"),
    ("FailsTask", "false"),
    ("RestartReason", r#""""#),
    ("SetupError", r#""""#),
    ("DriverError", r#""""#),
    ("DriverMessage", r#""""#),
    ("ExitCode", "0"),
    ("Signal", "0"),
    ("Message", r#""""#),
    ("KillReason", r#""""#),
    ("KillTimeout", "0"),
    ("KillError", r#""""#),
    ("StartDelay", "0"),
    ("DownloadError", r#""""#),
    ("ValidationError", r#""""#),
    ("DiskLimit", "0"),
    ("DiskSize", "0"),
    ("FailedSibling", r#""""#),
    ("VaultError", r#""""#),
    ("TaskSignalReason", r#""""#),
    ("TaskSignal", r#""""#),
];

const ZERO_TIME: &str = r#""0001-01-01T00:00:00Z""#;

/// The value of a member; the zero where there is none, or it is null.
fn or(object: &str, key: &str, zero: &str) -> String {
    Some(member(object, key)).filter(|it| !it.is_empty() && it != "null").unwrap_or(zero.into())
}

/// A time of a task, as it is emitted.
fn time(state: &str, key: &str) -> String {
    Some(or(state, key, ZERO_TIME))
        .filter(|it| !it.starts_with(r#""0001-"#))
        .unwrap_or(ZERO_TIME.into())
}

/// The members of a document, as written.
type Document = Vec<(String, String)>;

/// The documents that a list stands for, by allocation and task, written down from the contract
/// and not from the code.
fn expected(list: &Recording) -> HashMap<(String, String), Vec<Document>> {
    let mut all = HashMap::new();
    for element in list.elements() {
        let alloc = compact(std::str::from_utf8(&element).unwrap());
        let text = |key: &str| or(&alloc, key, r#""""#);
        let id = text("ID");
        let of_alloc = [
            text("Name"),
            text("NodeID"),
            id.clone(),
            text("DesiredStatus"),
            text("DesiredDescription"),
            text("ClientStatus"),
            text("ClientDescription"),
            text("JobID"),
            text("TaskGroup"),
        ];
        let (eval, namespace) = (text("EvalID"), text("Namespace"));
        for (task, state) in members(&or(&alloc, "TaskStates", "{}")) {
            let task = format!("\"{task}\"");
            let of_task = [
                task.clone(),
                eval.clone(),
                or(&state, "State", r#""""#),
                or(&state, "Failed", "false"),
                time(&state, "StartedAt"),
                time(&state, "FinishedAt"),
            ];
            let document = |event: String| -> Document {
                let last = [completed(&event), namespace.clone()];
                let values = of_alloc.iter().chain(&of_task).chain(&last).cloned();
                KEYS.iter().map(ToString::to_string).zip(values).collect()
            };
            let events = items(&or(&state, "Events", "[]"));
            if !events.is_empty() {
                all.insert((id.clone(), task), events.into_iter().map(document).collect());
            }
        }
    }
    all
}

/// The event as it was sent, and after that the documented keys that were not.
fn completed(event: &str) -> String {
    let sent = members(event);
    let mut all = event[..event.len() - 1].to_owned();
    for (key, zero) in EVENT_KEYS {
        if !sent.iter().any(|(it, _)| it == key) {
            all.push_str(&format!(",\"{key}\":{zero}"));
        }
    }
    all + "}"
}

#[test]
fn every_recorded_task_event_is_emitted_once_and_in_order() {
    let mut events = 0;
    for list in lists_of("allocations") {
        let mut emitted: HashMap<_, Vec<_>> = HashMap::new();
        for record in emit("allocations", list).records {
            let document = members(&compact(std::str::from_utf8(&record.body).unwrap()));
            let (id, task) = (document[2].1.clone(), document[9].1.clone());
            emitted.entry((id, task)).or_default().push(document);
            events += 1;
        }
        let expected = expected(list);
        assert_eq!(emitted.len(), expected.len(), "{list}");
        for (task, documents) in expected {
            assert_eq!(emitted.get(&task), Some(&documents), "{list}: {task:?}");
        }
    }
    assert!(events > 1_000, "only {events} task events were recorded");
}

#[test]
fn a_task_event_has_every_key_that_was_recorded_and_every_documented_one() {
    for list in lists_of("allocations") {
        for record in emit("allocations", list).records {
            let event = member(std::str::from_utf8(&record.body).unwrap(), "TaskEvent");
            let event: HashMap<String, String> = members(&event).into_iter().collect();
            for (key, _) in EVENT_KEYS {
                assert!(event.contains_key(key), "{}: no {key}", record.meta.id);
            }
            // The one that no server sends, and two that they send beyond what is documented.
            assert_eq!(event["DiskSize"], "0", "{}", record.meta.id);
            for key in ["DisplayMessage", "Details"] {
                assert!(event.contains_key(key), "{}: no {key}", record.meta.id);
            }
        }
    }
}

/// The documents of an allocation with one task, `t`.
fn documents(state: &str) -> Vec<String> {
    let list = lists_of("allocations").next().unwrap();
    let element = format!(
        r#"{{"ID":"00000000-0000-4000-8000-000000000001","ModifyIndex":7,"ClientDescription":"a<b>&c\u0026","TaskStates":{{"t":{state}}}}}"#
    );
    let records = emit_elements("allocations", list, &[element.into_bytes()]);
    records.iter().map(|it| String::from_utf8(it.body.to_vec()).unwrap()).collect()
}

#[test]
fn a_time_that_is_not_set_is_year_one_whatever_the_server_calls_it() {
    let absent = "";
    for zero in [absent, "null", r#""""#, ZERO_TIME, r#""0001-01-01T00:00:00+00:00""#] {
        let times = match zero {
            "" => String::new(),
            zero => format!(r#""StartedAt":{zero},"FinishedAt":{zero},"#),
        };
        let found = documents(&format!(r#"{{{times}"Events":[{{"Type":"Received","Time":1}}]}}"#));
        assert_eq!(member(&found[0], "TaskStartedAt"), ZERO_TIME, "{zero}");
        assert_eq!(member(&found[0], "TaskFinishedAt"), ZERO_TIME, "{zero}");
    }
    let set = r#"{"StartedAt":"2026-11-23T15:21:00.5Z","Events":[{"Type":"Received","Time":1}]}"#;
    assert_eq!(member(&documents(set)[0], "TaskStartedAt"), r#""2026-11-23T15:21:00.5Z""#);
}

#[test]
fn texts_and_numbers_stay_as_they_were_written() {
    let event =
        r#"{"Type":"Dri\u0076er","Time":17,"Message":"<&>\u003c \u2028","New":{"a":1.50e3}}"#;
    let found = documents(&format!(r#"{{"Events":[{event}]}}"#));
    let emitted = member(&found[0], "TaskEvent");
    assert!(emitted.starts_with(&event[..event.len() - 1]), "{emitted}");
    assert_eq!(member(&found[0], "ClientDescription"), r#""a<b>&c\u0026""#);
}

#[test]
fn an_allocation_of_which_nothing_is_known_still_has_every_key() {
    let found = documents(r#"{"Events":[{}]}"#);
    let keys: Vec<String> = members(&found[0]).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, KEYS);
    let event = members(&member(&found[0], "TaskEvent"));
    let event: Vec<(&str, &str)> = event.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(event, EVENT_KEYS);
}
