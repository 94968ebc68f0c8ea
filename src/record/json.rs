//! What is needed of JSON without decoding it: the members of an object, a hash of its value, a
//! string as JSON. The text walked has been checked by `serde_json` before; on any other text the
//! answers are useless, but nothing panics.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

/// Deeper values are hashed as text. Nomad's objects are about a dozen levels deep; the limit
/// keeps a hostile document from exhausting the stack.
const MAX_DEPTH: u32 = 64;

/// Text as a JSON string, quotes included.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Calls `each` with the key and the value of every member of the object, both as written; the
/// key is without its quotes.
pub fn members<'a>(object: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8])) {
    let mut at = skip_space(object, 0);
    if object.get(at) != Some(&b'{') {
        return;
    }
    at = skip_space(object, at + 1);
    while object.get(at) == Some(&b'"') {
        let end = value_end(object, at);
        let key = object.get(at + 1..end.saturating_sub(1)).unwrap_or_default();
        let start = skip_space(object, skip_space(object, end) + 1);
        let end = value_end(object, start);
        each(key, object.get(start..end).unwrap_or_default());
        at = skip_space(object, skip_space(object, end) + 1);
    }
}

/// A hash of the value that does not depend on the order of keys, on white space, or on how a
/// string is escaped. Top-level members named in `except` do not count; numbers count as written.
#[must_use]
pub fn hash(value: &[u8], except: &[&str]) -> u64 {
    hash_value(value, except, 0)
}

/// A 64-bit name for a text, the same in every version.
#[must_use]
pub fn name(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

fn hash_value(value: &[u8], except: &[&str], depth: u32) -> u64 {
    match value.first() {
        Some(b'{') if depth < MAX_DEPTH => {
            // Addition does not care for order; the count tells {} from nothing.
            let mut sum = 0u64;
            members(value, |key, value| {
                if !except.iter().any(|it| it.as_bytes() == key) {
                    let pair = [string(key), hash_value(value, &[], depth + 1)];
                    sum = sum.wrapping_add(mix(&pair));
                }
            });
            mix(&[1, sum])
        }
        Some(b'[') if depth < MAX_DEPTH => {
            let mut sum = 2u64;
            let mut at = skip_space(value, 1);
            while at < value.len() && value[at] != b']' {
                let end = value_end(value, at);
                let item = value.get(at..end).unwrap_or_default();
                sum = mix(&[sum, hash_value(item, &[], depth + 1)]);
                at = skip_space(value, end);
                if value.get(at) == Some(&b',') {
                    at = skip_space(value, at + 1);
                }
            }
            sum
        }
        Some(b'"') => {
            let inner = value.get(1..value.len().saturating_sub(1)).unwrap_or_default();
            mix(&[3, string(inner)])
        }
        _ => mix(&[4, xxh3_64(value)]),
    }
}

/// The hash of a string's content, given between its quotes as written.
fn string(inner: &[u8]) -> u64 {
    xxh3_64(&unescaped(inner))
}

/// The content of a string, given between its quotes as written.
#[must_use]
pub fn unescaped(inner: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let text = [b"\"", inner, b"\""].concat();
    match serde_json::from_slice::<String>(&text) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(inner),
    }
}

fn mix(words: &[u64; 2]) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_le_bytes());
    bytes[8..].copy_from_slice(&words[1].to_le_bytes());
    xxh3_64(&bytes)
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Where the value that starts at `at` ends; always beyond `at`.
fn value_end(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(b'"') => string_end(text, at),
        Some(b'{' | b'[') => {
            let mut depth = 0usize;
            let mut i = at;
            while let Some(byte) = text.get(i) {
                match byte {
                    b'"' => {
                        i = string_end(text, i);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return i + 1;
                        }
                    }
                    _ => (),
                }
                i += 1;
            }
            text.len().max(at + 1)
        }
        _ => {
            let scalar = |it: &u8| matches!(it, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            let rest = text.get(at..).unwrap_or_default();
            at + rest.iter().position(scalar).unwrap_or(rest.len()).max(1)
        }
    }
}

fn string_end(text: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(rest) = text.get(i..) {
        match memchr::memchr2(b'"', b'\\', rest) {
            Some(skip) if rest[skip] == b'"' => return i + skip + 1,
            Some(skip) => i += skip + 2,
            None => break,
        }
    }
    text.len().max(at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(object: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
        members(object.as_bytes(), |key, value| found.push((text(key), text(value))));
        found
    }

    #[test]
    fn members_are_given_as_written() {
        let found = listed(r#" { "a" : 1.50 , "b\"" : {"c":["}",{}]} , "d":"x,}" }"#);
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [("a", "1.50"), (r#"b\""#, r#"{"c":["}",{}]}"#), ("d", r#""x,}""#)]
        );
        assert!(listed("{}").is_empty());
        assert!(listed("[1]").is_empty());
    }

    #[test]
    fn the_hash_depends_on_the_value_and_not_on_how_it_is_written() {
        let one = hash(br#"{"a":1,"b":[true,{"c":"x/y"}]}"#, &[]);
        let two = hash(br#"{ "b": [true, {"c":"x\/y"}], "a":1 }"#, &[]);
        assert_eq!(one, two);
        for other in [r#"{"a":1}"#, r#"{"a":"1","b":[true,{"c":"x/y"}]}"#, "{}", "[]", r#""""#] {
            assert_ne!(one, hash(other.as_bytes(), &[]), "{other}");
        }
        assert_ne!(hash(b"[1,2]", &[]), hash(b"[2,1]", &[]));
    }

    #[test]
    fn excepted_members_do_not_count() {
        let with = hash(br#"{"ID":"n","Events":[1]}"#, &["Events"]);
        assert_eq!(with, hash(br#"{"ID":"n","Events":[2,3]}"#, &["Events"]));
        assert_eq!(with, hash(br#"{"ID":"n"}"#, &["Events"]));
    }

    #[test]
    fn the_hash_never_changes_between_versions() {
        // Event ids and saved positions hold it.
        assert_eq!(hash(br#"{"Type":"Started","Time":1}"#, &[]), 0xb9024e4683bfdec4);
    }

    proptest! {
        #[test]
        fn any_text_is_walked_without_panic(text in ".{0,64}") {
            let _ = hash(text.as_bytes(), &[]);
        }

        #[test]
        fn any_bytes_are_walked_without_panic(text in proptest::collection::vec(
            prop::sample::select(b"{}[]\",:\\ 1a".to_vec()), 0..64)) {
            let _ = hash(&text, &[]);
        }
    }
}
