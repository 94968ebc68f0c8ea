//! Logs, on standard error: standard output is for records.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::env::{Env, Noted};

/// How much is logged, and how it is written.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: String,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl Logs {
    /// What the environment says, unless the command line says otherwise.
    pub fn from_env(
        env: &Env,
        level: Option<String>,
        format: Option<String>,
    ) -> Result<Self, Noted> {
        let filter = match level.map_or_else(|| env.or("LOG_LEVEL", "info".to_owned()), Ok) {
            Ok(level) => filter(&level).ok_or_else(|| {
                let levels = "error, warn, info, debug, trace";
                env.note("LOG_LEVEL", format!("`{level}` is not one of: {levels}"))
            }),
            Err(noted) => Err(noted),
        };
        let format = match format.map_or_else(|| env.or("LOG_FORMAT", "text".to_owned()), Ok) {
            Ok(format) => match format.as_str() {
                "text" => Ok(Format::Text),
                // The Go tool's own layouts of JSON are not told apart yet.
                "json" | "gelf" | "seatgeek-json" => Ok(Format::Json),
                _ => {
                    let formats = "text, json, gelf, seatgeek-json";
                    Err(env.note("LOG_FORMAT", format!("`{format}` is not one of: {formats}")))
                }
            },
            Err(noted) => Err(noted),
        };
        Ok(Self { filter: filter?, format: format? })
    }

    /// Starts logging. Only the first call in a process counts.
    pub fn start(&self) {
        let logs = fmt()
            .with_env_filter(EnvFilter::new(&self.filter))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let _ = match self.format {
            Format::Text => logs.try_init(),
            Format::Json => logs.json().flatten_event(true).try_init(),
        };
    }
}

/// The filter for a level as the Go tool knows them. Libraries log from warnings on only, and that
/// of AMQP nothing: it logs the payloads of messages that come back, and every error that it logs
/// is also returned.
fn filter(level: &str) -> Option<String> {
    let level = match level.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    };
    let others = if level == "error" { "error" } else { "warn" };
    Some(format!("{others},lapin=off,nomad_firehose={level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_go_tool() {
        assert_eq!(filter("WARNING").as_deref(), Some("warn,lapin=off,nomad_firehose=warn"));
        assert_eq!(filter("fatal").as_deref(), Some("error,lapin=off,nomad_firehose=error"));
        assert_eq!(filter("loud"), None);
    }
}
