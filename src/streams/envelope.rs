//! What identifies an object of a list.

use std::borrow::Cow;

use serde::Deserialize;

use super::BadElement;
use crate::{cursor::Nanos, error::without_values, record::json};

/// All that is decoded of an object: everything else passes through as Nomad sent it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Envelope<'a> {
    #[serde(rename = "ID", borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    pub(crate) modify_index: u64,
    /// Of evaluations, and of deployments since 1.9.2; in nanoseconds.
    #[serde(default)]
    pub(super) modify_time: Option<Nanos>,
    #[serde(default)]
    job_summary: Option<Summary>,
}

/// A job stub of Nomad 1.0 has its namespace here only.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    #[serde(default)]
    namespace: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of an object; the whole text is checked to be JSON in UTF-8.
    pub(crate) fn read(object: &'a [u8]) -> Result<Self, BadElement> {
        let bad = |object: &str, why: String| BadElement { object: object.to_owned(), why };
        let unknown = "an element of the list";
        if object.first() != Some(&b'{') {
            return Err(bad(unknown, "it is not an object".to_owned()));
        }
        let text = std::str::from_utf8(object)
            .map_err(|err| bad(unknown, format!("it is not UTF-8: {err}")))?;
        let envelope: Self = serde_json::from_str(text).map_err(|err| {
            let mut id = None;
            json::members(object, |key, value| {
                if key == b"ID" {
                    id = Some(String::from_utf8_lossy(value).chars().take(64).collect::<String>());
                }
            });
            bad(id.as_deref().unwrap_or(unknown), without_values(&err))
        })?;
        if envelope.id.is_empty() {
            return Err(bad(unknown, "its ID is empty".to_owned()));
        }
        Ok(envelope)
    }

    /// The namespace of the object; empty where it has none.
    pub(super) fn namespace(&self) -> &str {
        let own = self.namespace.as_deref().filter(|it| !it.is_empty());
        let summary = || self.job_summary.as_ref()?.namespace.as_deref();
        own.or_else(summary).unwrap_or_default()
    }
}
