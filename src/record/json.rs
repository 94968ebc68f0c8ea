//! What is needed of JSON without decoding it: the members of an object, a hash of its value, a
//! string as JSON. The text walked has been checked by `serde_json` before; on any other text the
//! answers are useless, but nothing panics.

use std::borrow::Cow;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

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
    walk(object, |rest| {
        let (key, value, end) = member(rest);
        each(key, value);
        end
    });
}

/// Walks one object after the other, which are much alike: what was made of a member is used again
/// where the next object has the same text at the same place.
#[derive(Debug)]
pub struct Alike<'a, T> {
    /// The members of the last object.
    last: Vec<Known<'a, T>>,
}

/// A member of the last object.
#[derive(Clone, Copy, Debug)]
struct Known<'a, T> {
    /// The object's text from the member on.
    rest: &'a [u8],
    /// How much of it is the member.
    len: usize,
    /// What was made of it.
    made: T,
}

impl<T> Default for Alike<'_, T> {
    fn default() -> Self {
        Self { last: Vec::new() }
    }
}

impl<'a, T: Copy> Alike<'a, T> {
    /// Calls `each` with what `make` makes of the key and the value of every member, as
    /// [`members`] gives them.
    pub fn members(
        &mut self,
        object: &'a [u8],
        make: impl Fn(&'a [u8], &'a [u8]) -> T,
        mut each: impl FnMut(T),
    ) {
        let mut place = 0;
        walk(object, |rest| {
            let last = self.last.get(place).copied();
            if last.is_some_and(|it| it.rest == rest) {
                self.last[place..].iter().for_each(|it| each(it.made));
                place = self.last.len();
                return rest.len();
            }
            let known = match last {
                Some(last) if last.begins(rest) => Known { rest, ..last },
                _ => {
                    let (key, value, len) = member(rest);
                    Known { rest, len: len.min(rest.len()), made: make(key, value) }
                }
            };
            match self.last.get_mut(place) {
                Some(last) => *last = known,
                None => self.last.push(known),
            }
            place += 1;
            each(known.made);
            known.len
        });
        self.last.truncate(place);
    }
}

impl<T> Known<'_, T> {
    /// Whether the text begins with the same member. A number could go on after the same digits.
    fn begins(&self, text: &[u8]) -> bool {
        text.starts_with(&self.rest[..self.len]) && matches!(text.get(self.len), Some(b',' | b'}'))
    }
}

/// Calls `each` with the text from each member of an object on; it answers how long the member is.
fn walk<'a>(object: &'a [u8], mut each: impl FnMut(&'a [u8]) -> usize) {
    let mut at = skip_space(object, 0);
    if object.get(at) != Some(&b'{') {
        return;
    }
    at = skip_space(object, at + 1);
    while object.get(at) == Some(&b'"') {
        let end = at + each(&object[at..]);
        at = skip_space(object, skip_space(object, end) + 1);
    }
}

/// The key, without its quotes, and the value of the member that the text begins with, and where
/// it ends.
fn member(text: &[u8]) -> (&[u8], &[u8], usize) {
    let end = value_end(text, 0);
    let key = text.get(1..end.saturating_sub(1)).unwrap_or_default();
    let start = skip_space(text, skip_space(text, end) + 1);
    let end = value_end(text, start);
    (key, text.get(start..end).unwrap_or_default(), end)
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

/// The hash of an object, whose members are given one by one in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectHash {
    /// A sum does not depend on the order.
    sum: u64,
}

/// The hash of a member.
#[derive(Clone, Copy, Debug)]
pub struct MemberHash(u64);

impl MemberHash {
    /// Of a member, as [`members`] gives it.
    #[must_use]
    pub fn of(key: &[u8], value: &[u8]) -> Self {
        Self::at(0, key, value)
    }

    /// Of a member of an object that is so deep.
    fn at(depth: u32, key: &[u8], value: &[u8]) -> Self {
        Self(mix(text_hash(key, 0), hash_value(value, &[], depth + 1)))
    }
}

impl ObjectHash {
    /// Adds a member.
    pub fn add(&mut self, member: MemberHash) {
        self.sum = self.sum.wrapping_add(member.0);
    }

    /// The hash, the same as that of the whole object.
    #[must_use]
    pub fn finish(self) -> u64 {
        mix(OBJECT, self.sum)
    }
}

/// What kind of value it is, lest `1`, `"1"` and `[1]` be the same.
const OBJECT: u64 = 1;
const ARRAY: u64 = 2;
const STRING: u64 = 3;
const OTHER: u64 = 4;

fn hash_value(value: &[u8], except: &[&str], depth: u32) -> u64 {
    match value.first() {
        Some(b'{') if depth < MAX_DEPTH => {
            let mut object = ObjectHash::default();
            members(value, |key, value| {
                if !except.iter().any(|it| it.as_bytes() == key) {
                    object.add(MemberHash::at(depth, key, value));
                }
            });
            object.finish()
        }
        Some(b'[') if depth < MAX_DEPTH => {
            let mut sum = ARRAY;
            let mut at = skip_space(value, 1);
            while at < value.len() && value[at] != b']' {
                let end = value_end(value, at);
                let item = value.get(at..end).unwrap_or_default();
                sum = mix(sum, hash_value(item, &[], depth + 1));
                at = skip_space(value, end);
                if value.get(at) == Some(&b',') {
                    at = skip_space(value, at + 1);
                }
            }
            sum
        }
        Some(b'"') => {
            let inner = value.get(1..value.len().saturating_sub(1)).unwrap_or_default();
            text_hash(inner, STRING)
        }
        _ => xxh3_64_with_seed(value, OTHER),
    }
}

/// The hash of a string's content, given between its quotes as written.
fn text_hash(inner: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(&unescaped(inner), seed)
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

/// One number of two; which is first matters.
fn mix(first: u64, second: u64) -> u64 {
    let product = u128::from(first ^ 0x9e37_79b9_7f4a_7c15)
        * u128::from(second.rotate_left(32) ^ 0xd1b5_4a32_d192_ed03);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded.wrapping_add(first.rotate_left(17)).wrapping_add(second)
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
        assert_eq!(found, [("a", "1.50"), (r#"b\""#, r#"{"c":["}",{}]}"#), ("d", r#""x,}""#)]);
        assert!(listed("{}").is_empty());
        assert!(listed("[1]").is_empty());
    }

    #[test]
    fn objects_that_are_alike_have_the_members_that_each_has_alone() {
        let objects = [
            r#"{"a":1,"b":"x","c":{"d":[1]},"e":0}"#,
            r#"{"a":2,"b":"x","c":{"d":[1]},"e":0}"#,
            r#"{"a":1,"b":"x","c":{"d":[1]},"e":0}"#,
            r#"{"a":12,"b":"x","c":{"d":[1]},"e":01}"#,
            r#"{"a":1 , "b":"xy","c":{}, "e":0 }"#,
            r#"{"a":1,"b":"x"}"#,
            "{}",
            r#"{"a":1,"b":"x","c":{"d":[1]},"e":0}"#,
        ];
        let mut alike = Alike::default();
        for object in objects {
            let (mut alone, mut found) = (Vec::new(), Vec::new());
            members(object.as_bytes(), |key, value| alone.push((key, value)));
            alike.members(object.as_bytes(), |key, value| (key, value), |it| found.push(it));
            assert_eq!(found, alone, "{object}");
        }
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
        assert_eq!(hash(br#"{"Type":"Started","Time":1}"#, &[]), 0x3d77091dcd9be7a2);
    }

    proptest! {
        #[test]
        fn any_objects_that_are_alike_have_the_members_that_each_has_alone(
            objects in proptest::collection::vec(
                proptest::collection::vec((0..3usize, 0..4usize), 0..5), 0..6)) {
            let texts: Vec<String> = objects.iter().map(|object| {
                let member = |(key, value): &(usize, usize)| {
                    format!("{}:{}", [r#""a""#, r#""b""#, r#""a\"""#][*key], ["1", "12", "\"x\"", "[{}]"][*value])
                };
                format!("{{{}}}", object.iter().map(member).collect::<Vec<_>>().join(","))
            }).collect();
            let mut alike = Alike::default();
            for object in &texts {
                let (mut alone, mut found) = (Vec::new(), Vec::new());
                members(object.as_bytes(), |key, value| alone.push((key, value)));
                alike.members(object.as_bytes(), |key, value| (key, value), |it| found.push(it));
                prop_assert_eq!(found, alone);
            }
        }

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
