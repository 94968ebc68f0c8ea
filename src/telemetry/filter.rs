//! Which entries are logged (pure).

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::CRATE;

/// The modules that have a level of their own if they are given one.
pub const MODULES: [&str; 9] =
    ["admin", "api", "deliver", "leader", "pipeline", "run", "sink", "sink::amqp", "watch"];

/// As the Go tool knows them; nothing here is worse than an error.
const LEVELS: [(&str, LevelFilter); 8] = [
    ("panic", LevelFilter::ERROR),
    ("fatal", LevelFilter::ERROR),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("warning", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// The filter that a text asks for: a level, and others for modules.
///
/// Libraries log from warnings on only, and that of AMQP nothing: it logs the payloads of messages
/// that come back, and every error that it logs is also returned. So is every one of that of NATS, and
/// that of Kafka warns of producers that are cut on purpose. No text changes that.
pub(super) fn parse(text: &str) -> Result<Targets, String> {
    let mut base = None;
    let mut modules: Vec<(&str, LevelFilter)> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            None if base.is_some() => {
                return Err(format!("`{part}` is a second level for all modules"));
            }
            None => base = Some(level(part)?),
            Some((name, value)) => {
                let name = module(name.trim())?;
                if modules.iter().any(|(it, _)| *it == name) {
                    return Err(format!("module `{name}` is given two levels"));
                }
                modules.push((name, level(value.trim())?));
            }
        }
    }
    let base = base.unwrap_or(LevelFilter::INFO);
    let modules = modules.into_iter().map(|(name, level)| (format!("{CRATE}::{name}"), level));
    Ok(Targets::new()
        .with_default(base.min(LevelFilter::WARN))
        .with_target("krafka", LevelFilter::OFF)
        .with_target("lapin", LevelFilter::OFF)
        .with_target("async_nats", LevelFilter::OFF)
        .with_target(CRATE, base)
        .with_targets(modules))
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let name = text.to_ascii_lowercase();
    let found = LEVELS.iter().find(|(it, _)| *it == name).map(|(_, level)| *level);
    found.ok_or_else(|| unknown(text, "the levels", &LEVELS.map(|(it, _)| it)))
}

fn module(text: &str) -> Result<&'static str, String> {
    let found = MODULES.iter().find(|it| **it == text).copied();
    found.ok_or_else(|| unknown(text, "the modules that log", &MODULES))
}

fn unknown(text: &str, what: &str, known: &[&str]) -> String {
    let distance = |it: &&str| strsim::damerau_levenshtein(&text.to_ascii_lowercase(), it);
    // With half of it wrong, it may be anything.
    let near = known.iter().copied().filter(|it| 2 * distance(it) <= it.len());
    let meant = near.min_by_key(distance).map(|it| format!("; did you mean {it}?"));
    let known = known.join(", ");
    format!("`{text}` is not one of {what}: {known}{}", meant.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    /// The most that each of these logs.
    fn most(text: &str, targets: [&str; 4]) -> [Option<Level>; 4] {
        let filter = parse(text).unwrap();
        let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        targets.map(|target| levels.into_iter().find(|it| filter.would_enable(target, it)))
    }

    const TARGETS: [&str; 4] =
        ["nomad_firehose::run", "nomad_firehose::leader::consul::lease", "hyper", "lapin::channel"];

    #[test]
    fn levels_are_those_of_the_go_tool() {
        let (error, warn) = (Some(Level::ERROR), Some(Level::WARN));
        assert_eq!(most("WARNING", TARGETS), [warn, warn, warn, None]);
        assert_eq!(most("fatal", TARGETS), [error, error, error, None]);
        assert_eq!(most("panic", TARGETS), [error, error, error, None]);
        let trace = Some(Level::TRACE);
        assert_eq!(most("trace", TARGETS), [trace, trace, warn, None]);
        let libraries = ["hyper", "h2::proto", "lapin", "async_nats::connector"];
        assert_eq!(most("trace", libraries), [warn, warn, None, None]);
    }

    #[test]
    fn a_module_has_a_level_of_its_own_and_its_parts_have_it_too() {
        let (info, warn) = (Some(Level::INFO), Some(Level::WARN));
        let trace = Some(Level::TRACE);
        assert_eq!(most("info, leader = Trace", TARGETS), [info, trace, warn, None]);
        assert_eq!(most("leader=trace", TARGETS), [info, trace, warn, None]);
        let error = Some(Level::ERROR);
        assert_eq!(most("error,leader=trace", TARGETS), [error, trace, error, None]);
        let sinks =
            ["nomad_firehose::sink::amqp::link", "nomad_firehose::sink::http", "h2", "lapin"];
        assert_eq!(most("sink::amqp=trace,sink=warn", sinks), [trace, warn, warn, None]);
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known_and_what_may_have_been_meant() {
        let no_guess = "`loud` is not one of the levels: panic, fatal, error, warn, warning, info, \
                        debug, trace";
        assert_eq!(parse("loud").unwrap_err(), no_guess);
        assert!(parse("leader=degub").unwrap_err().ends_with("trace; did you mean debug?"));
        let module = parse("info,leadr=debug").unwrap_err();
        assert!(
            module.starts_with("`leadr` is not one of the modules that log: admin, "),
            "{module}"
        );
        assert!(module.ends_with("did you mean leader?"), "{module}");
        for text in ["lapin=trace", "nomad_firehose::run=info", "=info", "run", "info,", "info=run"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("info,debug").unwrap_err().contains("second level"));
        assert!(parse("run=info,run=warn").unwrap_err().contains("two levels"));
    }
}
