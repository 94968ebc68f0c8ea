//! The command line. Configuration is in the environment; flags are few.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use argh::{EarlyExit, FromArgs};

use super::EX_USAGE;
use crate::{COMMIT, VERSION};

/// What a command line asks for.
pub(super) enum Invocation {
    /// To run, or to do one of the things that flags ask for.
    Run(Flags),
    /// Nothing more: the answer is printed.
    Exit(ExitCode),
}

/// The flags of every binary.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    pub(super) stream: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) schema: bool,
    pub(super) check: bool,
    pub(super) once: bool,
    pub(super) dry_run: bool,
    pub(super) health: bool,
}

/// Publishes the changes of a Nomad cluster to a sink, once elected, from where it left off.
/// Configuration is in the environment; SINK_TYPE is the only variable without a default.
#[derive(FromArgs)]
#[argh(
    note = "Streams: STREAMS",
    note = "Every variable is documented in README.md.",
    error_code(1, "cannot go on, or not everything is done; the log or the table says why"),
    error_code(64, "the command line is wrong"),
    error_code(78, "the configuration is wrong; every problem is printed")
)]
struct Arguments {
    /// how much to log: error, warn, info, debug or trace; also by module (LOG_LEVEL)
    #[argh(option, arg_name = "level")]
    log_level: Option<String>,
    /// how to log: text, json, gelf or seatgeek-json (LOG_FORMAT)
    #[argh(option, arg_name = "format")]
    log_format: Option<String>,
    /// print the JSON Schema of what is published, and exit
    #[argh(switch)]
    schema: bool,
    /// check the configuration, connect to everything, print a table of what works and which
    /// permission is missing, and exit; with --once or --dry-run, what these need
    #[argh(switch)]
    check: bool,
    /// publish what exists, and exit
    #[argh(switch)]
    once: bool,
    /// print everything to standard output, whatever SINK_TYPE is; take no lock, keep no
    /// checkpoint, write nothing anywhere
    #[argh(switch)]
    dry_run: bool,
    /// ask the process that listens on NOMAD_FIREHOSE_LISTEN whether it is ready, print what it
    /// says, and exit with 0 or 1
    #[argh(switch)]
    health: bool,
    /// print the version, and exit
    #[argh(switch, short = 'V')]
    version: bool,
    /// the stream to publish
    #[argh(positional)]
    stream: Vec<String>,
}

/// Reads the process's command line. `streams` are those that a positional argument can name;
/// `None` where the binary has one of its own.
pub(super) fn parse(name: &str, streams: Option<&[&str]>) -> Invocation {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|it| it.to_string_lossy().into_owned())
        .flat_map(|it| split_value(&it))
        .collect();
    parse_from(name, streams, &arguments)
}

fn parse_from(name: &str, streams: Option<&[&str]>, arguments: &[String]) -> Invocation {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&[name], &arguments) {
        Ok(arguments) => arguments,
        Err(EarlyExit { output, status }) => {
            let known =
                streams.map_or_else(|| "this binary has one".to_owned(), |it| it.join(", "));
            let output = output.replace("STREAMS", &known);
            return match status {
                Ok(()) => {
                    print(&output);
                    Invocation::Exit(ExitCode::SUCCESS)
                }
                Err(()) => usage(&output),
            };
        }
    };
    if arguments.version {
        print(&format!("{name} {VERSION} (commit {COMMIT})\n"));
        return Invocation::Exit(ExitCode::SUCCESS);
    }
    let stream = match (streams, arguments.stream.as_slice()) {
        (None, []) => None,
        (None, [extra, ..]) => return usage(&format!("{name} takes no `{extra}`")),
        (Some(known), [stream]) if known.contains(&stream.as_str()) => Some(stream.clone()),
        (Some(known), given) => {
            let given = given.join(" ");
            return usage(&format!("`{given}` is not one of the streams: {}", known.join(", ")));
        }
    };
    let Arguments { log_level, log_format, schema, check, once, dry_run, health, .. } = arguments;
    let beside = [(check, "--check"), (once, "--once"), (dry_run, "--dry-run")];
    let other = beside.into_iter().find(|(given, _)| *given);
    if schema && let Some((_, other)) = other {
        return usage(&format!("--schema connects to nothing, so {other} makes no sense with it"));
    }
    if health && let Some((_, other)) = other {
        return usage(&format!("--health asks another process, so {other} makes no sense with it"));
    }
    Invocation::Run(Flags { stream, log_level, log_format, schema, check, once, dry_run, health })
}

/// `--key=value` is taken as `--key value`, as the Go tool takes both, and `-key` as `--key`.
fn split_value(argument: &str) -> Vec<String> {
    let single = argument.starts_with('-') && !argument.starts_with("--") && argument.len() > 2;
    let argument = if single { format!("-{argument}") } else { argument.to_owned() };
    match argument.split_once('=') {
        Some((key, value)) if key.starts_with("--") => vec![key.to_owned(), value.to_owned()],
        _ => vec![argument],
    }
}

fn usage(what: &str) -> Invocation {
    eprintln!("{}", what.trim_end());
    eprintln!("Run with --help for the command line.");
    Invocation::Exit(ExitCode::from(EX_USAGE))
}

/// Prints an answer. A reader that has gone has had enough.
pub(super) fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Option<Flags> {
        let arguments: Vec<String> = arguments.iter().flat_map(|it| split_value(it)).collect();
        match parse_from("nomad-firehose", Some(&["nodes", "jobs"]), &arguments) {
            Invocation::Run(flags) => Some(flags),
            Invocation::Exit(_) => None,
        }
    }

    #[test]
    fn the_go_tools_flags_stand_before_the_stream_or_after_it() {
        for arguments in [
            &["--log-level=debug", "--log-format", "json", "nodes"][..],
            &["nodes", "--log-level", "debug", "-log-format=json"],
        ] {
            let flags = run(arguments).unwrap();
            assert_eq!(flags.stream.as_deref(), Some("nodes"));
            assert_eq!(flags.log_level.as_deref(), Some("debug"));
            assert_eq!(flags.log_format.as_deref(), Some("json"));
        }
    }

    #[test]
    fn flags_that_contradict_one_another_are_refused() {
        for flag in ["--check", "--once", "--dry-run"] {
            assert!(run(&["nodes", "--schema", flag]).is_none(), "{flag}");
        }
        let flags = run(&["nodes", "--check", "--once", "--dry-run"]).unwrap();
        assert!(flags.check && flags.once && flags.dry_run);
    }

    #[test]
    fn a_stream_that_is_missing_unknown_or_one_too_many_is_refused() {
        assert!(run(&[]).is_none());
        assert!(run(&["pods"]).is_none());
        assert!(run(&["nodes", "jobs"]).is_none());
    }
}
