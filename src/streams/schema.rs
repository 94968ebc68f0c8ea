//! JSON Schemas of what is published, from the types that the OpenAPI document generates.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::task_update::DOCUMENTED;

/// The schema (draft 2020-12) of a stream's documents.
pub(super) fn of<T: JsonSchema>(stream: &str, about: &str) -> Schema {
    // As it is serialised: a key that is always there is required although it may be null.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), format!("urn:nomad-firehose:{stream}").into());
    schema.insert("description".to_owned(), about.into());
    if stream == "allocations" {
        require_documented(&mut schema);
    }
    schema
}

/// What the Go tool's documentation shows of a task event is always there, although the servers'
/// own type does not promise it.
fn require_documented(schema: &mut Schema) {
    let Some(event) = schema.pointer_mut("/$defs/TaskEvent").and_then(Value::as_object_mut) else {
        return;
    };
    event.insert("required".to_owned(), DOCUMENTED.iter().map(|(key, _)| *key).collect());
    let Some(properties) = event.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (key, zero) in DOCUMENTED {
        let kind = match zero {
            "0" => "integer",
            "false" => "boolean",
            _ => "string",
        };
        let absent = || json!({ "description": "Not sent by Nomad: always the zero value." });
        let property = properties.entry(key).or_insert_with(absent);
        if let Some(property) = property.as_object_mut() {
            property.insert("type".to_owned(), kind.into());
        }
    }
}
