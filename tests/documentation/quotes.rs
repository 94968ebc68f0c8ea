//! What a page quotes of an output, beside that output.

use serde_json::{Deserializer, Value};

/// Stands for anything within a line; alone on a line, for any number of lines.
const ANYTHING: char = '…';
/// What a time begins with, and what it consists of.
const DAY: usize = "2026-11-23T".len();
const UUID: usize = "61e6f398-8725-4172-3681-2b4a75537ae9".len();

/// The first line of a quotation that the output does not have, in this order.
pub fn missing<'a>(quoted: &'a str, output: &str) -> Option<&'a str> {
    let mut lines = output.lines();
    quoted
        .lines()
        .filter(|it| !it.trim().is_empty() && it.trim() != "…")
        .find(|wanted| !lines.any(|line| fits(&varying(wanted), line)))
}

/// Whether an output has a document with the members of a quoted one.
pub fn has_document(quoted: &str, output: &str) -> bool {
    let members = |it: &Value| -> Vec<String> {
        it.as_object().into_iter().flat_map(|it| it.keys().cloned()).collect()
    };
    let documents = |text: &str| -> Vec<Vec<String>> {
        let found = Deserializer::from_str(text).into_iter::<Value>();
        found.map_while(Result::ok).map(|it| members(&it)).collect()
    };
    let wanted = documents(quoted);
    let mut there = documents(output);
    there.extend(output.lines().flat_map(documents));
    !wanted.is_empty() && wanted.iter().all(|it| there.contains(it))
}

/// A line with times and UUIDs replaced by what fits any.
fn varying(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let length = time(rest).or_else(|| uuid(rest));
        out.push(length.map_or(first, |_| ANYTHING));
        rest = &rest[length.unwrap_or(first.len_utf8())..];
    }
    out
}

fn time(text: &str) -> Option<usize> {
    let day = text.get(..DAY)?.bytes().zip("0000-00-00T".bytes());
    let fits = |(is, like): (u8, u8)| if like == b'0' { is.is_ascii_digit() } else { is == like };
    let end = text.find(|it: char| !(it.is_ascii_alphanumeric() || "-:.+".contains(it)));
    day.into_iter().all(fits).then(|| end.unwrap_or(text.len()))
}

fn uuid(text: &str) -> Option<usize> {
    let uuid = text.get(..UUID)?;
    let dash = |it: usize| [8, 13, 18, 23].contains(&it);
    let fits = uuid
        .bytes()
        .enumerate()
        .all(|(at, it)| if dash(at) { it == b'-' } else { it.is_ascii_hexdigit() });
    fits.then_some(UUID)
}

fn fits(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split(ANYTHING);
    let Some(mut rest) = parts.next().and_then(|it| line.strip_prefix(it)) else { return false };
    let mut parts = parts.peekable();
    let Some(_) = parts.peek() else { return rest.trim_end().is_empty() };
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn a_quotation_that_differs_is_found() {
    let output = "2026-11-26T06:53:40.4Z  INFO started a=1\nnomad   ok      index 7\nsink ok\n";
    for (quoted, fine) in [
        ("nomad   ok      index 7\nsink ok", true),
        ("nomad   ok      index …\n…\nsink ok", true),
        ("sink ok\nnomad   ok      index 7", false),
        ("nomad   ok      index 8", false),
        ("nomad   ok      index", false),
        ("2020-01-01T00:00:00Z  INFO started …", true),
        ("2020-01-01T00:00:00Z  INFO stopped …", false),
        ("… started a=1", true),
        ("… started", false),
    ] {
        assert_eq!(missing(quoted, output).is_none(), fine, "{quoted}");
    }
    let documents = "log\n{\"a\":1,\"b\":[]}\n{\"c\":1}\n";
    assert!(has_document("{\"b\": 2,\n\"a\": 3}", documents));
    assert!(!has_document("{\"b\": 2}", documents));
    assert!(!has_document("", documents));
}
