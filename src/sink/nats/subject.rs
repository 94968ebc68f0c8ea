//! The subject of a record.

use std::borrow::Cow;

use crate::{
    env::{Env, Noted},
    record::{Record, percent_encoded, shortened},
    sink::template::Template,
};

const NAME: &str = "SINK_NATS_SUBJECT";
/// A value is shortened to so many bytes.
const MAX_VALUE: usize = 255;
/// A server ends a connection on which a line is longer than 4,096 bytes, and a subject is not all
/// that is in one.
const MAX_SUBJECT: usize = 2048;
/// In place of what a record does not have: no token may be empty.
const NOTHING: &str = "_";

/// How subjects are made.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    template: Template,
    text: String,
}

/// A subject that no server takes.
#[derive(Debug, thiserror::Error)]
#[error(
    "the subject made by SINK_NATS_SUBJECT has {0} bytes, and {MAX_SUBJECT} is the limit; use a \
     shorter one"
)]
pub(super) struct SubjectTooLong(usize);

impl Subject {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let text: String = env.required(NAME, "a subject such as nomad.{stream}.{job}")?;
        Self::parse(text).map_err(|why| env.note(NAME, why))
    }

    fn parse(text: String) -> Result<Self, String> {
        let template = Template::parse(&text)?;
        let plain = without_braces(&text);
        if plain.contains(|it: char| it.is_whitespace() || it.is_control()) {
            return Err("has a space or a control character".into());
        }
        if plain.contains(['*', '>']) {
            return Err("has `*` or `>`, which only those who subscribe may use".into());
        }
        if plain.starts_with('$') {
            return Err("begins with `$`, which NATS keeps for itself".into());
        }
        if plain.split('.').any(str::is_empty) {
            return Err("has a dot at an end or beside another".into());
        }
        if template.is_constant() && text.len() > MAX_SUBJECT {
            return Err(SubjectTooLong(text.len()).to_string());
        }
        Ok(Self { template, text })
    }

    /// Whether all records have the same one.
    pub(super) fn is_constant(&self) -> bool {
        self.template.is_constant()
    }

    /// As it is configured.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The subject of a record.
    pub(super) fn of(&self, record: &Record) -> Result<String, SubjectTooLong> {
        let subject = self.template.of(record, |it| {
            // A type is ours, and always has three tokens.
            if std::ptr::eq(it, record.meta.kind) { Cow::Borrowed(it) } else { token(it) }
        });
        if subject.len() > MAX_SUBJECT { Err(SubjectTooLong(subject.len())) } else { Ok(subject) }
    }
}

/// A value as one token. A dot is encoded as well: whoever counts tokens, as `*` does, would
/// otherwise find the job `team.web` in two of them.
fn token(value: &str) -> Cow<'_, str> {
    let unfit = |it: char| {
        it.is_control() || it.is_whitespace() || matches!(it, '.' | '*' | '>' | '$' | '%')
    };
    if value.is_empty() {
        NOTHING.into()
    } else if value.contains(unfit) {
        shortened(&percent_encoded(value, unfit), MAX_VALUE).into_owned().into()
    } else {
        shortened(value, MAX_VALUE)
    }
}

/// The text with some token in place of each value.
fn without_braces(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        plain.push_str(before);
        plain.push_str(NOTHING);
        rest = after.split_once('}').map_or("", |(_, behind)| behind);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::tests::record;

    fn subject(text: &str, job: &str) -> Result<String, String> {
        let body = serde_json::json!({"JobID": job, "NodeID": ""}).to_string();
        let mut record =
            Record { stream: "allocations", body: Bytes::from(body), ..record("k", 1) };
        record.meta.namespace = "prod".into();
        let subject = Subject::parse(text.to_owned())?;
        subject.of(&record).map_err(|err| err.to_string())
    }

    #[test]
    fn each_value_is_one_token_whatever_is_in_it() {
        let of = |job: &str| subject("nomad.{stream}.{namespace}.{job}.{node}", job).unwrap();
        assert_eq!(of("web"), "nomad.allocations.prod.web._");
        assert_eq!(of("team.web"), "nomad.allocations.prod.team%2Eweb._");
        assert_eq!(of("a b\t>*%$\u{85}"), "nomad.allocations.prod.a%20b%09%3E%2A%25%24%C2%85._");
        assert_eq!(of("gr\u{fc}n"), "nomad.allocations.prod.gr\u{fc}n._");
        assert_eq!(of(""), "nomad.allocations.prod._._");
        let long = of(&"x".repeat(5000));
        assert!(long.len() < 300 && long != of(&"x".repeat(5001)), "{long}");
    }

    #[test]
    fn a_type_has_its_dots() {
        assert_eq!(subject("{type}", "web").unwrap(), "nomad.node.changed");
        assert_eq!(subject("{job}", "nomad.node.changed").unwrap(), "nomad%2Enode%2Echanged");
    }

    #[test]
    fn a_subject_that_nobody_could_publish_to_is_refused() {
        for (text, why) in [
            ("a b", "space"),
            ("a.{job}\u{7}", "control"),
            ("a.*", "subscribe"),
            ("a.>", "subscribe"),
            ("$JS.API.{job}", "for itself"),
            (".a", "dot"),
            ("{stream}..{job}", "dot"),
            ("{stream}.", "dot"),
            ("{pod}", "is not one of"),
            ("{stream", "without"),
        ] {
            let problem = subject(text, "web").unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
        }
        assert!(subject(&"x".repeat(MAX_SUBJECT + 1), "web").unwrap_err().contains("2049 bytes"));
        let many = "{job}".repeat(10);
        assert!(subject(&many, &"x".repeat(300)).unwrap_err().contains("2550 bytes"));
    }
}
