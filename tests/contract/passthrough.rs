//! Objects are emitted as Nomad sent them, byte for byte.

use super::emit::{Recording, emit, emit_object, lists_of, objects};

#[test]
fn an_object_that_the_list_has_is_emitted_as_it_stands_there() {
    for stream in ["evaluations", "deployments", "jobliststubs"] {
        for list in lists_of(stream) {
            let mut elements = list.elements();
            let records = emit(stream, list).records;
            assert_eq!(records.len(), elements.len(), "{stream}, {list}");
            for record in &records {
                let at = elements.iter().position(|it| **it == record.body);
                let at = at.unwrap_or_else(|| panic!("{stream}, {list}: {}", record.meta.id));
                elements.swap_remove(at);
            }
        }
    }
}

#[test]
fn an_object_that_is_read_by_id_is_emitted_as_it_was_answered() {
    for object in objects() {
        let record = emit_object(object.streams()[0], object);
        assert!(*record.body == *object.body, "{object}");
    }
    // And so is what a list leads to.
    let bodies: Vec<Vec<u8>> = objects().map(|it| it.body.clone()).collect();
    for stream in ["nodes", "jobs"] {
        for list in lists_of(stream) {
            let emitted = emit(stream, list);
            let all = emitted.records.len() + emitted.unread.len();
            assert_eq!(all, list.elements().len(), "{stream}, {list}");
            for record in emitted.records {
                assert!(bodies.contains(&record.body.to_vec()), "{list}: {}", record.meta.id);
            }
        }
    }
}

#[test]
fn what_no_version_of_nomad_has_sent_yet_passes_through() {
    let text = r#"{"Tags":{"a":"<b>&\u003c\u2028"},"ID":"e1","Namespace":"default","New":1.50e+3,"ModifyIndex":7,"Big":123456789012345678901234567890,"Nothing":null}"#;
    let list = Recording {
        version: "2.0.5",
        folder: "none".into(),
        name: "evaluations".into(),
        body: format!("[{text}]").into_bytes(),
    };
    let records = emit("evaluations", &list).records;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].body, text);
}
