//! The OpenAPI documents: valid, whole, and true of what real servers answered.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use openapiv3::OpenAPI;
use serde_json::{Map, Value};

use crate::contract::{Recording, lists, objects};

const DOCUMENTS: [(&str, &str); 2] = [
    ("nomad", include_str!("../openapi/nomad.yaml")),
    ("consul", include_str!("../openapi/consul.yaml")),
];
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn document(name: &str) -> Value {
    let (_, text) = DOCUMENTS.iter().find(|(it, _)| *it == name).unwrap();
    yaml_serde::from_str(text).unwrap()
}

fn object(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a reference leads to; the value itself where it is none.
fn resolved<'a>(value: &'a Value, root: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(name) => {
            let target = name.strip_prefix('#').and_then(|it| root.pointer(it));
            resolved(target.unwrap_or_else(|| panic!("{name} leads nowhere")), root)
        }
        None => value,
    }
}

/// Calls `each` with every object in the value.
fn every(value: &Value, each: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            each(object);
            object.values().for_each(|it| every(it, each));
        }
        Value::Array(items) => items.iter().for_each(|it| every(it, each)),
        _ => (),
    }
}

/// Every operation, with its path, and the parameters of all operations of the path.
fn operations(root: &Value) -> Vec<(String, &Value, &Value)> {
    let paths = object(&root["paths"]).iter();
    let paths = paths.flat_map(|(path, item)| METHODS.map(|method| (method, path, item)));
    paths
        .filter_map(|(method, path, item)| {
            Some((format!("{method} {path}"), item.get(method)?, &item["parameters"]))
        })
        .collect()
}

#[test]
fn the_documents_are_openapi_3_0() {
    for (name, text) in DOCUMENTS {
        // Unlike a JSON value, a YAML one refuses a key that comes twice.
        let _: yaml_serde::Value = yaml_serde::from_str(text).unwrap();
        let root = document(name);
        assert!(root["openapi"].as_str().unwrap().starts_with("3.0."), "{name}");
        let parsed: OpenAPI = serde_json::from_value(root.clone()).unwrap();
        assert_eq!(parsed.operations().count(), operations(&root).len(), "{name}");
        // What the parser does not know it would have dropped.
        assert!(parsed.extensions.is_empty(), "{name}");
        let components = serde_json::to_value(parsed.components.unwrap()).unwrap();
        for kind in ["schemas", "parameters", "headers", "responses"] {
            let keys = |it: &Value| object(&it[kind]).keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(&components), keys(&root["components"]), "{name}: {kind}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    for (name, _) in DOCUMENTS {
        let root = document(name);
        let mut used = HashSet::new();
        every(&root, &mut |it| {
            if let Some(Value::String(target)) = it.get("$ref") {
                assert!(it.len() == 1, "{name}: what stands beside {target} does not count");
                let found = target.strip_prefix('#').and_then(|it| root.pointer(it));
                assert!(found.is_some(), "{name}: {target} leads nowhere");
                used.insert(target.clone());
            }
        });
        for kind in ["schemas", "parameters", "headers", "responses"] {
            for key in object(&root["components"][kind]).keys() {
                let target = format!("#/components/{kind}/{key}");
                assert!(used.contains(&target), "{name}: nothing uses {target}");
            }
        }
    }
}

#[test]
fn every_operation_has_its_own_id_its_parameters_and_described_responses() {
    for (name, _) in DOCUMENTS {
        let root = document(name);
        let mut ids = HashSet::new();
        for (path, operation, shared) in operations(&root) {
            let path = format!("{name}: {path}");
            let id = operation["operationId"].as_str();
            assert!(ids.insert(id.unwrap_or_else(|| panic!("{path} has no id"))), "{path}");
            assert_described(operation, &path);
            let mut in_path = BTreeSet::new();
            let mut named = HashSet::new();
            let own = operation["parameters"].as_array().into_iter().flatten();
            for parameter in own.chain(shared.as_array().into_iter().flatten()) {
                let parameter = resolved(parameter, &root);
                let key = parameter["name"].as_str().unwrap();
                assert!(named.insert((key, parameter["in"].as_str())), "{path}: {key} twice");
                assert_described(parameter, &format!("{path}: {key}"));
                assert!(parameter["schema"].is_object(), "{path}: {key} has no schema");
                if parameter["in"] == "path" {
                    assert_eq!(parameter["required"], true, "{path}: {key}");
                    in_path.insert(key);
                }
            }
            let template: BTreeSet<&str> =
                path.split('{').skip(1).filter_map(|it| it.split('}').next()).collect();
            assert_eq!(in_path, template, "{path}");
            let responses = object(&operation["responses"]);
            assert!(responses.contains_key("200"), "{path}: no answer");
            assert!(responses.contains_key("4XX"), "{path}: no refusal");
            for (status, response) in responses {
                assert_described(resolved(response, &root), &format!("{path}: {status}"));
            }
        }
    }
}

fn assert_described(value: &Value, name: &str) {
    let text = value["description"].as_str().unwrap_or_default();
    assert!(!text.is_empty(), "{name} is not described");
}

#[test]
fn what_a_schema_requires_it_describes() {
    for (name, _) in DOCUMENTS {
        let root = document(name);
        for (schema, it) in object(&root["components"]["schemas"]) {
            assert_described(it, &format!("{name}: {schema}"));
        }
        every(&root, &mut |schema| {
            let required = schema.get("required").map(texts).unwrap_or_default();
            for key in &required {
                let known = schema.get("properties").and_then(|it| it.get(*key));
                assert!(known.is_some(), "{name}: {key} of {schema:?}");
            }
            let unique: HashSet<&&str> = required.iter().collect();
            assert_eq!(unique.len(), required.len(), "{name}: {required:?}");
        });
    }
}

/// What was seen of a property of a schema.
#[derive(Default)]
struct Seen {
    /// Objects of the schema by version, and those of them that have the property.
    counts: BTreeMap<&'static str, (usize, usize)>,
}

/// Compares recorded answers with the schemas.
struct Comparison {
    root: Value,
    problems: BTreeSet<String>,
    /// By schema and property.
    seen: BTreeMap<(String, String), Seen>,
}

/// The comparison of every recorded list and object.
fn comparison() -> Comparison {
    let root = document("nomad");
    let mut all =
        Comparison { root: root.clone(), problems: BTreeSet::new(), seen: BTreeMap::new() };
    let answer = |path: &str| {
        let schema = "get/responses/200/content/application~1json/schema";
        root.pointer(&format!("/paths/{path}/{schema}")).unwrap()
    };
    for recording in lists().chain(objects()) {
        let value: Value = serde_json::from_slice(&recording.body).unwrap();
        let path = match (recording.table(), &value) {
            (table, Value::Array(_)) => format!("~1v1~1{table}"),
            ("nodes", _) => "~1v1~1node~1{node_id}".to_owned(),
            _ => "~1v1~1job~1{job_id}".to_owned(),
        };
        all.compare(answer(&path), &value, "answer", false, recording);
    }
    all
}

impl Comparison {
    fn compare(
        &mut self,
        schema: &Value,
        value: &Value,
        name: &str,
        nullable: bool,
        from: &Recording,
    ) {
        let nullable = nullable || schema["nullable"] == true;
        if let Some(target) = schema["$ref"].as_str() {
            let short = target.rsplit('/').next().unwrap_or_default().to_owned();
            let schema = resolved(schema, &self.root).clone();
            return self.compare(&schema, value, &short, nullable, from);
        }
        if let Some(all) = schema["allOf"].as_array() {
            assert_eq!(all.len(), 1, "{name}: `allOf` is for descriptions only");
            return self.compare(&all[0], value, name, nullable, from);
        }
        let fits = match schema["type"].as_str() {
            _ if value.is_null() => nullable,
            None => true,
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("number") => value.is_number(),
            Some("integer") => fits_format(schema["format"].as_str(), value),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some(other) => panic!("{name}: unknown type {other}"),
        };
        if !fits {
            let short: String = value.to_string().chars().take(60).collect();
            self.problems.insert(format!("{name} is {short} in {from}"));
            return;
        }
        match value {
            Value::Array(items) => {
                for item in items {
                    self.compare(&schema["items"], item, &format!("{name}[]"), false, from);
                }
            }
            Value::Object(members) => self.compare_members(schema, members, name, from),
            _ => (),
        }
    }

    fn compare_members(
        &mut self,
        schema: &Value,
        members: &Map<String, Value>,
        name: &str,
        from: &Recording,
    ) {
        let properties = object(&schema["properties"]);
        for key in texts(&schema["required"]) {
            if !members.contains_key(key) {
                self.problems.insert(format!("{name}.{key} is missing in {from}"));
            }
        }
        for key in properties.keys() {
            let seen = self.seen.entry((name.to_owned(), key.clone())).or_default();
            let (objects, with) = seen.counts.entry(from.version).or_default();
            *objects += 1;
            *with += usize::from(members.contains_key(key));
        }
        for (key, value) in members {
            match (properties.get(key), schema.get("additionalProperties")) {
                (Some(property), _) => {
                    self.compare(property, value, &format!("{name}.{key}"), false, from);
                }
                (None, Some(Value::Bool(true))) => (),
                (None, Some(of @ Value::Object(_))) => {
                    self.compare(of, value, &format!("{name}.*"), false, from);
                }
                (None, _) => {
                    self.problems.insert(format!("{name}.{key} is not described; it is in {from}"));
                }
            }
        }
    }
}

fn fits_format(format: Option<&str>, value: &Value) -> bool {
    let (signed, unsigned) = (value.as_i64(), value.as_u64());
    match format {
        Some("int8") => signed.is_some_and(|it| i8::try_from(it).is_ok()),
        Some("uint8") => unsigned.is_some_and(|it| u8::try_from(it).is_ok()),
        Some("uint16") => unsigned.is_some_and(|it| u16::try_from(it).is_ok()),
        Some("int64") => signed.is_some(),
        Some("uint64") => unsigned.is_some(),
        other => panic!("unknown format {other:?}"),
    }
}

#[test]
fn every_recorded_key_is_described_with_its_type() {
    let Comparison { problems, seen, .. } = comparison();
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(seen.len() > 400, "only {} properties were compared", seen.len());
}

#[test]
fn a_key_that_is_unknown_missing_or_of_another_type_is_a_problem() {
    let schema = serde_json::json!({
        "type": "object", "required": ["A"],
        "properties": {"A": {"type": "integer", "format": "uint8"}},
    });
    for (text, problems) in [
        (r#"{"A":255}"#, 0),
        (r#"{"A":256}"#, 1),
        (r#"{"A":null}"#, 1),
        (r#"{"A":1,"B":1}"#, 1),
        (r#"{"B":1}"#, 2),
        ("null", 1),
    ] {
        let mut found =
            Comparison { root: Value::Null, problems: BTreeSet::new(), seen: BTreeMap::new() };
        let from = lists().next().unwrap();
        found.compare(&schema, &serde_json::from_str(text).unwrap(), "it", false, from);
        assert_eq!(found.problems.len(), problems, "{text}: {:?}", found.problems);
    }
}

#[test]
fn a_key_that_one_version_sends_and_another_does_not_says_since_or_until_when() {
    let compared = comparison();
    let mut silent = Vec::new();
    for ((schema, property), seen) in &compared.seen {
        let of = |version| seen.counts.get(version).copied().unwrap_or_default();
        let ((olds, old), (news, new)) = (of("1.0.18"), of("2.0.5"));
        // What every object of one version has and none of the other.
        let word = match () {
            () if old == 0 && olds > 0 && new == news => "Since ",
            () if new == 0 && news > 0 && old == olds => "Until ",
            () => continue,
        };
        let of = &compared.root["components"]["schemas"][schema];
        let property_of = &of["properties"][property];
        let target = resolved(property_of["allOf"].get(0).unwrap_or(property_of), &compared.root);
        let says =
            |it: &Value, word| it["description"].as_str().is_some_and(|it| it.contains(word));
        // Some objects are sent without their empty fields by some versions.
        if !says(property_of, word) && !says(target, word) && !says(of, "left out") {
            silent.push(format!("{schema}.{property}: {word}when? {old}/{olds} {new}/{news}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
