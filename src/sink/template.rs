//! Text in which `{stream}` and its like are replaced by what a record has.

use std::borrow::Cow;

use crate::record::Record;

/// Such a text.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

/// What of a record can be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Stream,
    Type,
    Namespace,
    Job,
    Node,
}

impl Template {
    /// Reads it, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or("has a `{` without its `}`")?;
            let value = match name {
                "stream" => Value::Stream,
                "type" => Value::Type,
                "namespace" => Value::Namespace,
                "job" => Value::Job,
                "node" => Value::Node,
                _ => {
                    let known = "stream, type, namespace, job, node";
                    return Err(format!("`{{{name}}}` is not one of: {known}"));
                }
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Value(value));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Whether it is the same for all records.
    pub(super) fn is_constant(&self) -> bool {
        self.0.iter().all(|it| matches!(it, Part::Text(_)))
    }

    /// The text for a record, whose values are put in as `fit` makes them. What a record does not
    /// have is empty.
    pub(super) fn of(&self, record: &Record, fit: impl Fn(&str) -> Cow<'_, str>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(Value::Stream) => out.push_str(&fit(record.stream)),
                Part::Value(Value::Type) => out.push_str(&fit(record.meta.kind)),
                Part::Value(Value::Namespace) => out.push_str(&fit(&record.meta.namespace)),
                Part::Value(Value::Job) => out.push_str(&fit(&record.job().unwrap_or_default())),
                Part::Value(Value::Node) => out.push_str(&fit(&record.node().unwrap_or_default())),
            }
        }
        out
    }
}
