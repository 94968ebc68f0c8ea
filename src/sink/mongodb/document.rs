//! A payload as a document of BSON.

use std::fmt;

use ::mongodb::bson::RawDocumentBuf;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::number::{Number, number};

/// How deeply MongoDB lets documents and arrays be nested.
const MAX_DEPTH: usize = 100;

/// Types of BSON, by the byte that says which it is.
const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0a;
const INTEGER: u8 = 0x12;
const DECIMAL: u8 = 0x13;

/// A record that is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the record is no JSON that a document can have: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the record is not an object, so that it cannot be a document")]
    NoObject,
    #[error("the record has an `_id` of its own")]
    OwnId,
    #[error("the record is nested more than {MAX_DEPTH} levels deep, which MongoDB does not store")]
    TooDeep,
    #[error("the record has {size} bytes as a document, and MongoDB stores {most}")]
    TooLarge { size: usize, most: usize },
    #[error("the record is no document: {0}")]
    Bson(#[from] ::mongodb::bson::error::Error),
}

/// The document with this id, and the members of a JSON object in their order.
pub(super) fn document(id: &str, json: &[u8], most: usize) -> Result<RawDocumentBuf, Unfit> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Unfit::NoObject);
    }
    let Members(members) = serde_json::from_slice(json)?;
    let mut out = Vec::with_capacity(json.len() * 2);
    framed(&mut out, |out| {
        out.push(STRING);
        name(out, "_id");
        string(out, id)?;
        for (key, value) in members {
            if key == "_id" {
                return Err(Unfit::OwnId);
            }
            element(out, &key, value.get(), 1)?;
        }
        Ok(())
    })?;
    match out.len() {
        size if size > most => Err(Unfit::TooLarge { size, most }),
        _ => Ok(RawDocumentBuf::from_bytes(out)?),
    }
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// A name and its value, which lies within so many documents and arrays.
fn element(out: &mut Vec<u8>, key: &str, json: &str, depth: usize) -> Result<(), Unfit> {
    let at = out.len();
    out.push(NULL);
    name(out, key);
    let kind = value(out, json, depth)?;
    if let Some(byte) = out.get_mut(at) {
        *byte = kind;
    }
    Ok(())
}

/// A value; which type it has.
fn value(out: &mut Vec<u8>, json: &str, depth: usize) -> Result<u8, Unfit> {
    let nested = json.starts_with(['{', '[']);
    if nested && depth >= MAX_DEPTH {
        return Err(Unfit::TooDeep);
    }
    Ok(match json.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(json)?;
            framed(out, |out| {
                members.iter().try_for_each(|(key, it)| element(out, key, it.get(), depth + 1))
            })?;
            DOCUMENT
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(json)?;
            framed(out, |out| {
                let mut numbered = values.iter().enumerate();
                numbered.try_for_each(|(at, it)| element(out, &at.to_string(), it.get(), depth + 1))
            })?;
            ARRAY
        }
        Some(b'"') => {
            string(out, &serde_json::from_str::<String>(json)?)?;
            STRING
        }
        Some(b't' | b'f') => {
            out.push(u8::from(json == "true"));
            BOOLEAN
        }
        Some(b'n') => NULL,
        _ => match number(json) {
            Number::Integer(it) => {
                out.extend(it.to_le_bytes());
                INTEGER
            }
            Number::Double(it) => {
                out.extend(it.to_le_bytes());
                DOUBLE
            }
            Number::Decimal(it) => {
                out.extend(it.bytes());
                DECIMAL
            }
            Number::Text(it) => {
                string(out, it)?;
                STRING
            }
        },
    })
}

/// A name. BSON ends it with a zero byte, so that one within it is written as JSON would.
fn name(out: &mut Vec<u8>, name: &str) {
    for byte in name.bytes() {
        match byte {
            0 => out.extend(br"\u0000"),
            byte => out.push(byte),
        }
    }
    out.push(0);
}

fn string(out: &mut Vec<u8>, text: &str) -> Result<(), Unfit> {
    let size = length(text.len() + 1)?;
    out.extend(size.to_le_bytes());
    out.extend(text.as_bytes());
    out.push(0);
    Ok(())
}

/// What a document or an array has around its elements: its length, and a zero byte.
fn framed(
    out: &mut Vec<u8>,
    elements: impl FnOnce(&mut Vec<u8>) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    let start = out.len();
    out.extend([0; 4]);
    elements(out)?;
    out.push(0);
    let size = length(out.len() - start)?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&size.to_le_bytes());
    }
    Ok(())
}

fn length(size: usize) -> Result<i32, Unfit> {
    i32::try_from(size).map_err(|_| Unfit::TooLarge { size, most: i32::MAX as usize })
}

#[cfg(test)]
mod tests {
    use ::mongodb::bson::{Bson, Document, doc};

    use super::*;

    const MOST: usize = 1 << 20;

    fn stored(json: &str) -> Document {
        let document = document("i/1", json.as_bytes(), MOST).unwrap();
        Document::try_from(&document).unwrap()
    }

    #[test]
    fn every_value_is_what_it_was_and_where_it_was() {
        let json =
            r#"{"z":{"b":[1,"x\u00fc\u0000",null,true,false,[]],"a":{}},"n":-1.5,"":"empty"}"#;
        let wanted = doc! {
            "_id": "i/1",
            "z": { "b": [1_i64, "x\u{fc}\0", Bson::Null, true, false, []], "a": {} },
            "n": -1.5,
            "": "empty",
        };
        assert_eq!(stored(json), wanted);
        assert_eq!(stored(json).keys().collect::<Vec<_>>(), ["_id", "z", "n", ""]);
    }

    #[test]
    fn names_are_kept_but_for_a_zero_byte() {
        let stored = stored(r#"{"m":{"prometheus.io/port":"1","$ref":2,"a\u0000b":3}}"#);
        let meta = stored.get_document("m").unwrap();
        let names = ["prometheus.io/port", "$ref", r"a\u0000b"];
        assert_eq!(meta.keys().collect::<Vec<_>>(), names);
    }

    #[test]
    fn numbers_that_a_double_would_change_are_not_made_one() {
        let json = r#"{"t":1700000000123456789,"u":18446744073709551615,"d":0.12345678901234567891,"l":123456789012345678901234567890123456789}"#;
        let stored = stored(json);
        assert_eq!(stored.get_i64("t").ok(), Some(1_700_000_000_123_456_789));
        assert_eq!(
            stored.get("u"),
            Some(&Bson::Decimal128("18446744073709551615".parse().unwrap()))
        );
        let long = Bson::Decimal128("0.12345678901234567891".parse().unwrap());
        assert_eq!(stored.get("d"), Some(&long));
        assert_eq!(stored.get_str("l").ok(), Some("123456789012345678901234567890123456789"));
    }

    #[test]
    fn what_mongodb_does_not_store_is_refused() {
        let refused = |json: &str| document("i", json.as_bytes(), MOST).unwrap_err();
        assert!(matches!(refused("[1]"), Unfit::NoObject));
        assert!(matches!(refused("{\"a\":"), Unfit::Json(_)));
        assert!(matches!(refused(r#"{"_id":1}"#), Unfit::OwnId));
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(document("i", nested(MAX_DEPTH).as_bytes(), MOST).is_ok());
        assert!(matches!(refused(&nested(MAX_DEPTH + 1)), Unfit::TooDeep));
        assert!(matches!(refused(&nested(100_000)), Unfit::TooDeep));
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MOST));
        assert!(matches!(refused(&large), Unfit::TooLarge { .. }));
    }
}
