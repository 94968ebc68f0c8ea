//! Schemas of what is emitted: every document agrees with its own, and none does any more once a
//! documented key is missing or has another type.

use std::{collections::HashSet, fs, path::PathBuf};

use jsonschema::Validator;
use nomad_firehose::streams::{ALL, Resource, Work, with_stream};
use serde_json::{Value, json};

use super::emit::{emit, emit_object, lists_of, objects_of};

/// Writes the schemas instead of comparing them.
const UPDATE: &str = "UPDATE_SCHEMAS";

struct Generated;

impl Work for Generated {
    type Output = Value;

    fn on<R: Resource>(self) -> Value {
        R::schema().to_value()
    }
}

fn schema(stream: &str) -> (Value, Validator) {
    let schema = with_stream(stream, Generated).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    (schema, validator)
}

/// Every document that the stream emits of what was recorded, with where it comes from.
fn documents(stream: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let value = |body: &[u8]| serde_json::from_slice(body).unwrap();
    for list in lists_of(stream) {
        let records = emit(stream, list).records;
        found.extend(records.iter().map(|it| (format!("{list}: {}", it.meta.id), value(&it.body))));
    }
    for object in objects_of(stream) {
        found.push((object.to_string(), value(&emit_object(stream, object).body)));
    }
    found
}

#[test]
fn the_schemas_that_are_kept_and_printed_are_those_of_the_types() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (stream, ..) in ALL {
        let file = folder.join(format!("{stream}.schema.json"));
        let generated = format!("{:#}\n", with_stream(stream, Generated).unwrap());
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&file, &generated).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        let name = file.display();
        assert!(
            kept == generated,
            "{name} is another one; {UPDATE}=1 writes it, then look at what changed"
        );
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), ALL.len(), "a schema of no stream is kept");
}

#[test]
fn every_schema_is_a_schema_of_draft_2020_12() {
    for (stream, about) in ALL {
        let (schema, _) = schema(stream);
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{stream}");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["description"], **about);
    }
}

#[test]
fn every_emitted_document_agrees_with_the_schema_of_its_stream() {
    for (stream, ..) in ALL {
        let (_, validator) = schema(stream);
        let documents = documents(stream);
        assert!(!documents.is_empty(), "nothing was recorded for {stream}");
        for (name, document) in documents {
            let errors: Vec<String> = validator
                .iter_errors(&document)
                .map(|it| format!("{}: {it}", it.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{stream}, {name}: {errors:#?}");
        }
    }
}

#[test]
fn a_key_that_is_not_known_yet_is_allowed_at_every_depth() {
    for (stream, ..) in ALL {
        let (root, validator) = schema(stream);
        for (name, mut document) in documents(stream) {
            add_unknown(&mut document, &root, &root);
            let error = validator.validate(&document).err().map(|it| it.to_string());
            assert_eq!(error, None, "{stream}, {name}");
        }
    }
}

fn add_unknown(value: &mut Value, of: &Value, root: &Value) {
    let Some(of) = matching(of, value, root) else { return };
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                add_unknown(value, of_member(of, key), root);
            }
            // A map has no documented keys; any key of it has a value of its type.
            if of.get("properties").is_some() {
                object.insert("FromTheFuture".to_owned(), json!({"a": [1, null]}));
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|it| add_unknown(it, &of["items"], root));
        }
        _ => (),
    }
}

#[test]
fn a_document_without_a_required_key_or_with_another_type_does_not_agree() {
    let mut sum = 0;
    for (stream, ..) in ALL {
        let (root, validator) = schema(stream);
        let mut done = HashSet::new();
        let mut wrong = Vec::new();
        for (_, mut document) in documents(stream) {
            let mut places = Vec::new();
            visit(&document, &root, &root, "", "", &mut places);
            for place in places.into_iter().filter(|it| done.insert(it.kind.clone())) {
                let whole = document.clone();
                place.damage.apply(&place.pointer, &mut document);
                if validator.is_valid(&document) {
                    wrong.push(place.kind);
                }
                document = whole;
            }
        }
        assert!(wrong.is_empty(), "{stream}: nothing is said about {wrong:#?}");
        sum += done.len();
    }
    // As many as the OpenAPI document describes and the recordings show.
    assert!(sum > 2_500, "only {sum} damages were tried");
}

#[test]
fn every_documented_key_of_a_task_event_is_required() {
    let (root, _) = schema("allocations");
    let event = &root["$defs"]["TaskEvent"];
    let required = event["required"].as_array().unwrap();
    for (key, zero) in super::task_events::EVENT_KEYS {
        assert!(required.contains(&key.into()), "{key}");
        let kind = match serde_json::from_str(zero).unwrap() {
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            _ => "integer",
        };
        assert_eq!(event["properties"][key]["type"], kind, "{key}");
    }
}

/// A change that no document survives.
enum Damage {
    Remove,
    Set(Value),
}

struct Place {
    /// Where in this document.
    pointer: String,
    /// Where in any document, and what is done there.
    kind: String,
    damage: Damage,
}

impl Damage {
    fn apply(&self, pointer: &str, document: &mut Value) {
        match self {
            Self::Set(value) => *document.pointer_mut(pointer).unwrap() = value.clone(),
            Self::Remove => {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                let key = key.replace("~1", "/").replace("~0", "~");
                let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
                assert!(parent.remove(&key).is_some());
            }
        }
    }
}

/// All that can be damaged in a value that a schema describes. `generic` is the place without
/// positions in arrays and keys of maps.
fn visit(
    value: &Value,
    of: &Value,
    root: &Value,
    pointer: &str,
    generic: &str,
    places: &mut Vec<Place>,
) {
    for wrong in [json!("text"), json!(1.5), json!(true), json!([[]]), json!({"": []}), Value::Null]
    {
        if !pointer.is_empty() && matching(of, &wrong, root).is_none() {
            let kind = format!("{generic} = {wrong}");
            places.push(Place { pointer: pointer.to_owned(), kind, damage: Damage::Set(wrong) });
        }
    }
    let Some(of) = matching(of, value, root) else {
        panic!("{pointer} is {value}, which {of} is not")
    };
    match value {
        Value::Object(object) => {
            let required: Vec<&str> =
                of["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            for (key, value) in object {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                let pointer = format!("{pointer}/{escaped}");
                let known = of["properties"].get(key).is_some();
                let generic = format!("{generic}/{}", if known { key } else { "*" });
                if required.contains(&key.as_str()) {
                    let kind = format!("{generic} removed");
                    places.push(Place { pointer: pointer.clone(), kind, damage: Damage::Remove });
                    assert!(is_typed(of_member(of, key), root), "{generic} has no type");
                }
                visit(value, of_member(of, key), root, &pointer, &generic, places);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let (pointer, generic) = (format!("{pointer}/{i}"), format!("{generic}/*"));
                visit(item, &of["items"], root, &pointer, &generic, places);
            }
        }
        _ => (),
    }
}

/// The schema of a member, `true` where nothing is said of it.
fn of_member<'a>(of: &'a Value, key: &str) -> &'a Value {
    const ANY: &Value = &Value::Bool(true);
    let map = || of.get("additionalProperties");
    of["properties"].get(key).or_else(map).unwrap_or(ANY)
}

fn is_typed(of: &Value, root: &Value) -> bool {
    let any = [json!("text"), json!(1.5), json!(true), json!([[]]), json!({"": []}), Value::Null];
    any.iter().any(|it| matching(of, it, root).is_none())
}

/// The schema behind references and alternatives that is about values of the type of this one;
/// `None` where that type is not allowed.
fn matching<'a>(of: &'a Value, value: &Value, root: &'a Value) -> Option<&'a Value> {
    if let Some(name) = of["$ref"].as_str() {
        return matching(root.pointer(name.strip_prefix('#').unwrap()).unwrap(), value, root);
    }
    let alternatives = ["anyOf", "oneOf", "allOf"].iter().find_map(|it| of[*it].as_array());
    if let Some(alternatives) = alternatives {
        return alternatives.iter().find_map(|it| matching(it, value, root));
    }
    let is = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    };
    let allowed = match &of["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    };
    allowed.then_some(of)
}
