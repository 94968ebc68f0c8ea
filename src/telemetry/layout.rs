//! How an entry is written: one line, whatever is in it (pure, but for what a machine is called).
//!
//! The names in `json` and `gelf` are those of the Go tool, so that what reads its logs reads
//! these.

use std::{
    borrow::Cow,
    fmt::Write,
    fs,
    io::{self, IsTerminal},
    process,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Number, Value as Json};
use tracing::Level;

use crate::env::{Env, Noted};

/// The names that `LOG_FORMAT` takes.
const FORMATS: [(&str, Format); 4] = [
    ("text", Format::Text),
    ("json", Format::Json),
    ("gelf", Format::Gelf),
    ("seatgeek-json", Format::SeatgeekJson),
];
/// The last second that has four digits for its year.
const LAST_SECOND: u64 = 253_402_300_799;
/// Where a Linux says what it is called.
const HOST_FILES: [&str; 2] = ["/proc/sys/kernel/hostname", "/etc/hostname"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Text,
    Json,
    Gelf,
    SeatgeekJson,
}

/// How lines look, and what is the same in all of them.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    format: Format,
    colours: bool,
    stream: &'static str,
    host: Arc<str>,
}

/// What is logged.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) module: String,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// What a field has.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(Number),
    Bool(bool),
    /// A text, quoted where the line is one.
    Text(String),
    /// What something looks like when it is printed.
    Shown(String),
}

impl Layout {
    /// What the environment says, unless the command line says otherwise, for a process that
    /// publishes this stream.
    pub fn from_env(
        env: &Env,
        stream: &'static str,
        format: Option<String>,
    ) -> Result<Self, Noted> {
        let name = format.map_or_else(|| env.or("LOG_FORMAT", "text".to_owned()), Ok)?;
        let Some((_, format)) = FORMATS.iter().find(|(it, _)| *it == name) else {
            let formats = FORMATS.map(|(it, _)| it).join(", ");
            return Err(env.note("LOG_FORMAT", format!("`{name}` is not one of: {formats}")));
        };
        // Whatever it is set to, as is the custom.
        let plain = env.optional::<String>("NO_COLOR")?.is_some();
        let host = match format {
            Format::Gelf => host(env).into(),
            Format::Text | Format::Json | Format::SeatgeekJson => "".into(),
        };
        let colours = !plain && io::stderr().is_terminal();
        Ok(Self { format: *format, colours, stream, host })
    }

    /// Prints what is wrong before anything is logged: as an entry where entries are documents, and
    /// else as it is.
    pub fn print(&self, level: Level, text: &str) {
        let line = match self.format {
            Format::Text => format!("{}\n", one_line(text)),
            Format::Json | Format::Gelf | Format::SeatgeekJson => {
                self.line(&Entry::new(level, "run", text.to_owned()))
            }
        };
        super::write(&line);
    }

    /// The line of an entry, with its end.
    pub(super) fn line(&self, entry: &Entry) -> String {
        let mut line = match self.format {
            Format::Text => self.text(entry),
            Format::Json => document(self.json(entry, ["time", "level", "msg"])),
            Format::SeatgeekJson => {
                document(self.json(entry, ["@timestamp", "@level", "@message"]))
            }
            Format::Gelf => document(self.gelf(entry)),
        };
        line.push('\n');
        line
    }

    fn text(&self, entry: &Entry) -> String {
        let Entry { level, module, message, .. } = entry;
        let (time, message) = (rfc3339(entry.time), one_line(message));
        let mut line = match self.colours {
            false => format!("{time} {level:>5} {module}: {message}"),
            true => {
                let colour = colour(*level);
                format!(
                    "\u{1b}[2m{time}\u{1b}[0m \u{1b}[{colour}m{level:>5}\u{1b}[0m \
                     \u{1b}[2m{module}:\u{1b}[0m {message}"
                )
            }
        };
        let has = |name: &str| entry.fields.iter().any(|(it, _)| *it == name);
        if !self.stream.is_empty() && !has("stream") {
            let _ = write!(line, " stream={:?}", self.stream);
        }
        for (name, value) in &entry.fields {
            let _ = match value {
                Value::Number(number) => write!(line, " {name}={number}"),
                Value::Bool(whether) => write!(line, " {name}={whether}"),
                Value::Text(text) => write!(line, " {name}={text:?}"),
                Value::Shown(text) => write!(line, " {name}={}", one_line(text)),
            };
        }
        line
    }

    /// As the Go tool's formatter of JSON has it, under these names.
    fn json<'a>(
        &self,
        entry: &'a Entry,
        [time, level, message]: [&'static str; 3],
    ) -> Vec<(Cow<'a, str>, Json)> {
        let mut members: Vec<(Cow<str>, Json)> = vec![
            (time.into(), rfc3339(entry.time).into()),
            (level.into(), level_name(entry.level).into()),
            (message.into(), entry.message.as_str().into()),
            ("module".into(), entry.module.as_str().into()),
        ];
        for (name, value) in self.fields(entry) {
            let taken = members.iter().any(|(it, _)| it == name);
            let name = if taken { format!("fields.{name}").into() } else { name.into() };
            members.push((name, value.into_json()));
        }
        members
    }

    /// GELF 1.1. Of its own members `full_message` is left out: no message has more than a line.
    fn gelf<'a>(&self, entry: &'a Entry) -> Vec<(Cow<'a, str>, Json)> {
        let mut members: Vec<(Cow<str>, Json)> = vec![
            ("version".into(), "1.1".into()),
            ("host".into(), (&*self.host).into()),
            ("short_message".into(), entry.message.as_str().into()),
            ("timestamp".into(), unix_seconds(entry.time).into()),
            ("level".into(), syslog_level(entry.level).into()),
            ("_level_name".into(), level_name(entry.level).into()),
            ("_pid".into(), process::id().into()),
            ("_module".into(), entry.module.as_str().into()),
        ];
        for (name, value) in self.fields(entry) {
            let fine = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
            let mut name: String = name.chars().map(|it| if fine(it) { it } else { '_' }).collect();
            name.insert(0, '_');
            // A server makes `id` of it, which it has a use for itself.
            if name == "_id" || members.iter().any(|(it, _)| *it == name) {
                name.insert_str(1, "fields.");
            }
            let value = match value.into_json() {
                Json::Bool(whether) => whether.to_string().into(),
                value => value,
            };
            members.push((name.into(), value));
        }
        members
    }

    /// The fields of an entry, and the stream, which every line has.
    fn fields<'a>(&self, entry: &'a Entry) -> Vec<(&'a str, Value)> {
        let own = entry.fields.iter().map(|(name, value)| (*name, value.clone()));
        let mut fields: Vec<(&str, Value)> = own.collect();
        if !self.stream.is_empty() && fields.iter().all(|(it, _)| *it != "stream") {
            fields.insert(0, ("stream", Value::Text(self.stream.to_owned())));
        }
        fields
    }
}

impl Value {
    fn into_json(self) -> Json {
        match self {
            Self::Number(number) => number.into(),
            Self::Bool(whether) => whether.into(),
            Self::Text(text) | Self::Shown(text) => text.into(),
        }
    }
}

/// A JSON document on one line. Of what breaks lines for one reader or another, or commands a
/// terminal, JSON itself allows a part in its strings.
fn document(members: Vec<(Cow<'_, str>, Json)>) -> String {
    let mut text = String::from("{");
    for (at, (name, value)) in members.into_iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{}:{value}", Json::from(name));
    }
    text.push('}');
    if !text.contains(is_unprintable) {
        return text;
    }
    let mut escaped = String::new();
    for c in text.chars() {
        if is_unprintable(c) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A text with nothing in it that ends a line or commands a terminal.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return text.into();
    }
    let mut line = String::new();
    for c in text.chars() {
        if is_unprintable(c) {
            line.extend(c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line.into()
}

fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// As the Go tool calls them.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The severities of syslog.
fn syslog_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Time since 1970, of a clock that may be wrong by any amount.
fn since_epoch(time: SystemTime) -> Duration {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.min(Duration::from_secs(LAST_SECOND))
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + since_epoch(time)).to_string()
}

/// To the tenth of a millisecond, as the Go tool has it.
fn unix_seconds(time: SystemTime) -> f64 {
    (since_epoch(time).as_secs_f64() * 10_000.0).round() / 10_000.0
}

/// What this machine is called.
pub(crate) fn host(env: &Env) -> String {
    let named = HOST_FILES.iter().filter_map(|it| fs::read_to_string(it).ok());
    let named = named.map(|it| it.trim().to_owned()).find(|it| !it.is_empty());
    let variable = |name| env.optional::<String>(name).ok().flatten();
    named
        .or_else(|| variable("HOSTNAME"))
        .or_else(|| variable("COMPUTERNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
