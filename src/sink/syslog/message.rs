//! A record as a message of syslog.

use std::{fmt::Write as _, time::SystemTime};

use crate::{
    env::{Env, Noted},
    record::{Format, Record},
    telemetry,
};

/// What RFC 5424 has room for.
const MAX_APP_NAME: usize = 48;
const MAX_HOST: usize = 255;
const MAX_SD_NAME: usize = 32;
/// The Go tool's values.
const TAG: &str = "nomad-firehose";
const FACILITY: &str = "kern";
const SEVERITY: &str = "notice";
/// Under which the attributes are in a message. Its number is the one for examples, which nobody
/// has (RFC 5612), since there is no name of this kind that is registered.
const SD_ID: &str = "cloudevents@32473";

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// How messages are written.
#[derive(Clone, Debug)]
pub(super) struct Form {
    layout: Layout,
    priority: usize,
    host: String,
    tag: String,
    sd_id: String,
    process: u32,
    format: Format,
}

/// Which standard they follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// RFC 5424: the attributes of CloudEvents are its structured data.
    Structured,
    /// As the Go tool writes to the network, which RFC 3164 is like.
    Plain,
    /// As programs write to the socket of their machine: whoever listens there knows the host,
    /// and the time.
    Local,
}

/// How messages are told apart in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each has its length before it.
    OctetCounted,
    /// Each ends with a line break.
    Newline,
}

impl Form {
    pub(super) fn from_env(env: &Env, format: Format, is_local: bool) -> Result<Self, Noted> {
        let layout = match env.optional::<String>("SINK_SYSLOG_FORMAT") {
            Ok(name) => match name.as_deref() {
                None if is_local => Ok(Layout::Local),
                None | Some("rfc5424") => Ok(Layout::Structured),
                Some("rfc3164") if is_local => Ok(Layout::Local),
                Some("rfc3164") => Ok(Layout::Plain),
                Some(other) => {
                    let what = format!("`{other}` is not one of: rfc5424, rfc3164");
                    Err(env.note("SINK_SYSLOG_FORMAT", what))
                }
            },
            Err(noted) => Err(noted),
        };
        let facility = one_of(env, "SINK_SYSLOG_FACILITY", FACILITY, &FACILITIES);
        let severity = one_of(env, "SINK_SYSLOG_SEVERITY", SEVERITY, &SEVERITIES);
        let tag = tag(env, layout.is_ok_and(|it| it == Layout::Structured));
        let sd_id = sd_id(env);
        let host = printable(&telemetry::host(env), MAX_HOST);
        Ok(Self {
            layout: layout?,
            priority: facility? * SEVERITIES.len() + severity?,
            host,
            tag: tag?,
            sd_id: sd_id?,
            process: std::process::id(),
            format,
        })
    }

    /// The message of a record.
    pub(super) fn message(&self, record: &Record) -> Vec<u8> {
        let Self { priority, host, tag, process, .. } = self;
        let mut head = format!("<{priority}>");
        // It cannot fail to write to a string.
        let _ = match self.layout {
            Layout::Structured => {
                let time = humantime::format_rfc3339_micros(time(record));
                let stream = record.stream;
                write!(head, "1 {time} {host} {tag} {process} {stream} ")
            }
            Layout::Plain => {
                let time = humantime::format_rfc3339_seconds(time(record));
                write!(head, "{time} {host} {tag}[{process}]: ")
            }
            Layout::Local => write!(head, "{tag}[{process}]: "),
        };
        if self.layout == Layout::Structured {
            self.structured_data(record, &mut head);
        }
        let mut message = head.into_bytes();
        message.extend_from_slice(&record.encoded(self.format));
        message
    }

    /// The attributes, unless they are in the envelope.
    fn structured_data(&self, record: &Record, out: &mut String) {
        if self.format == Format::CloudEvents {
            out.push_str("- ");
            return;
        }
        out.push('[');
        out.push_str(&self.sd_id);
        let media_type = ("datacontenttype", self.format.media_type().into());
        for (name, value) in record.meta.attributes().chain([media_type]) {
            let _ = write!(out, " {name}=\"");
            for it in value.chars() {
                if matches!(it, '"' | '\\' | ']') {
                    out.push('\\');
                }
                out.push(it);
            }
            out.push('"');
        }
        out.push_str("] ");
    }
}

impl Framing {
    pub(super) fn from_env(env: &Env, is_local: bool) -> Result<Self, Noted> {
        match env.optional::<String>("SINK_SYSLOG_FRAMING")?.as_deref() {
            None if is_local => Ok(Self::Newline),
            None | Some("octet-counted") => Ok(Self::OctetCounted),
            Some("newline") => Ok(Self::Newline),
            Some(other) => {
                let what = format!("`{other}` is not one of: octet-counted, newline");
                Err(env.note("SINK_SYSLOG_FRAMING", what))
            }
        }
    }

    /// The messages as a stream has them. A message has no line break in it.
    pub(super) fn frame(self, messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(messages.iter().map(|it| it.len() + 8).sum());
        for message in messages {
            if self == Self::OctetCounted {
                out.extend_from_slice(format!("{} ", message.len()).as_bytes());
            }
            out.extend_from_slice(message);
            if self == Self::Newline {
                out.push(b'\n');
            }
        }
        out
    }
}

/// When it happened, or now where Nomad does not say.
fn time(record: &Record) -> SystemTime {
    let time = record.meta.time.as_deref().and_then(|it| humantime::parse_rfc3339(it).ok());
    time.unwrap_or_else(SystemTime::now)
}

/// The number of a name.
fn one_of(
    env: &Env,
    variable: &'static str,
    default: &str,
    names: &[&str],
) -> Result<usize, Noted> {
    let name = env.or(variable, default.to_owned())?;
    let name = match name.as_str() {
        "error" => "err",
        "warn" => "warning",
        name => name,
    };
    names
        .iter()
        .position(|it| *it == name)
        .ok_or_else(|| env.note(variable, format!("`{name}` is not one of: {}", names.join(", "))))
}

fn is_printable(it: char) -> bool {
    matches!(it, '!'..='~')
}

fn printable(text: &str, most: usize) -> String {
    let text: String = text.chars().filter(|it| is_printable(*it)).take(most).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

fn tag(env: &Env, is_structured: bool) -> Result<String, Noted> {
    let name = "SINK_SYSLOG_TAG";
    let tag = env.or(name, TAG.to_owned())?;
    if tag.contains(char::is_control) {
        return Err(env.note(name, "has control characters, such as a line break"));
    }
    if is_structured && !(tag.len() <= MAX_APP_NAME && tag.chars().all(is_printable)) {
        let what = format!(
            "is not what RFC 5424 allows: {MAX_APP_NAME} printable ASCII characters without \
             spaces; write another, or set SINK_SYSLOG_FORMAT to rfc3164"
        );
        return Err(env.note(name, what));
    }
    Ok(tag)
}

fn sd_id(env: &Env) -> Result<String, Noted> {
    let name = "SINK_SYSLOG_SD_ID";
    let sd_id = env.or(name, SD_ID.to_owned())?;
    let allowed = |it: char| is_printable(it) && !matches!(it, '=' | ']' | '"');
    let is_name = match sd_id.split_once('@') {
        Some((own, number)) => {
            let of_digits = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
            !own.is_empty() && number.split('.').all(of_digits)
        }
        None => false,
    };
    if is_name && sd_id.len() <= MAX_SD_NAME && sd_id.chars().all(allowed) {
        return Ok(sd_id);
    }
    let what = format!(
        "`{sd_id}` is not a name, `@` and an enterprise number, of at most {MAX_SD_NAME} characters"
    );
    Err(env.note(name, what))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::tests::record;

    fn form(set: &[(&str, &str)], is_local: bool, format: Format) -> Result<Form, Vec<String>> {
        let env: Env = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let form = Form::from_env(&env, format, is_local);
        env.check(form).map_err(|it| it.iter().map(ToString::to_string).collect())
    }

    fn written(set: &[(&str, &str)], is_local: bool, format: Format) -> String {
        let mut form = form(set, is_local, format).unwrap();
        (form.host, form.process) = ("host".into(), 7);
        let mut record = Record { body: Bytes::from_static(b"{\"a\":1}"), ..record("k", 0) };
        record.meta.id = "nodes/a\"b\\c]\u{fc}/7/00".into();
        record.meta.time = Some("2026-11-23T15:23:06.339470430Z".to_owned());
        String::from_utf8(form.message(&record)).unwrap()
    }

    #[test]
    fn a_message_has_the_attributes_as_structured_data() {
        assert_eq!(
            written(&[], false, Format::Payload),
            "<5>1 2026-11-23T15:23:06.339470Z host nomad-firehose 7 nodes [cloudevents@32473 \
             specversion=\"1.0\" id=\"nodes/a\\\"b\\\\c\\]\u{fc}/7/00\" source=\"/nomad/global\" \
             type=\"nomad.node.changed\" subject=\"n1\" time=\"2026-11-23T15:23:06.339470430Z\" \
             nomadindex=\"7\" datacontenttype=\"application/json\"] {\"a\":1}"
        );
    }

    #[test]
    fn an_envelope_has_no_attributes_beside_it() {
        let set = [
            ("SINK_SYSLOG_FACILITY", "local7"),
            ("SINK_SYSLOG_SEVERITY", "warn"),
            ("SINK_SYSLOG_TAG", "t"),
        ];
        let message = written(&set, false, Format::CloudEvents);
        let head = "<188>1 2026-11-23T15:23:06.339470Z host t 7 nodes - {\"specversion\":\"1.0\",";
        assert!(message.starts_with(head), "{message}");
    }

    #[test]
    fn the_plain_forms_are_those_of_the_go_tool() {
        let plain = [("SINK_SYSLOG_FORMAT", "rfc3164"), ("SINK_SYSLOG_TAG", "a b")];
        let network = "<5>2026-11-23T15:23:06Z host a b[7]: {\"a\":1}";
        assert_eq!(written(&plain, false, Format::Payload), network);
        assert_eq!(written(&[], true, Format::Payload), "<5>nomad-firehose[7]: {\"a\":1}");
    }

    #[test]
    fn every_mistake_is_said() {
        let set = [
            ("SINK_SYSLOG_FACILITY", "local8"),
            ("SINK_SYSLOG_SEVERITY", "loud"),
            ("SINK_SYSLOG_TAG", "a b"),
            ("SINK_SYSLOG_SD_ID", "cloudevents"),
        ];
        let problems = form(&set, false, Format::Payload).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        for sd_id in ["@1", "a b@1", "a@x", "a@", &format!("{}@1", "a".repeat(31))] {
            assert!(form(&[("SINK_SYSLOG_SD_ID", sd_id)], false, Format::Payload).is_err());
        }
        assert!(form(&[("SINK_SYSLOG_FORMAT", "json")], false, Format::Payload).is_err());
    }

    #[test]
    fn messages_are_counted_in_bytes_or_end_with_a_line_break() {
        let messages = ["a\u{fc}".as_bytes().to_vec(), b"b".to_vec()];
        assert_eq!(Framing::OctetCounted.frame(&messages), "3 a\u{fc}1 b".as_bytes());
        assert_eq!(Framing::Newline.frame(&messages), "a\u{fc}\nb\n".as_bytes());
    }
}
