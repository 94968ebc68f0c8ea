//! What the sources log, and what `docs/logs.md` says of it.

use nomad_firehose::telemetry::MODULES;

use super::{
    APART, Source, below, nothing, page,
    rust::Token::{self, Comment, Sign, Text, Word},
};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// The part of the page about each kind of message, and its levels.
const MESSAGES: [(&str, &[&str]); 2] =
    [("## Warnings and errors", &["error", "warn"]), ("## The other messages", &["info"])];
const FIELDS: &str = "## Fields";
/// What every line has, or a line that the limit makes, and no macro names.
const OTHER_FIELDS: [&str; 3] = ["module", "like", "lines"];

/// A call of a macro that logs.
struct Logged {
    path: String,
    level: &'static str,
    message: String,
    fields: Vec<String>,
}

fn logged(sources: &[Source]) -> Vec<Logged> {
    let mut found = Vec::new();
    for file in sources.iter().filter(|it| !it.is_below(&format!("src/{APART}"))) {
        let tokens: Vec<&Token> =
            file.tokens.iter().filter(|it| !matches!(it, Comment(_))).collect();
        for (at, window) in tokens.windows(3).enumerate() {
            let [Word(name), Sign('!'), Sign('(')] = window else { continue };
            let Some(level) = LEVELS.into_iter().find(|it| it == name) else { continue };
            let (message, fields) = call(&tokens[at + 3..]);
            found.push(Logged { path: file.path.clone(), level, message, fields });
        }
    }
    found
}

/// The message and the names of the fields in what follows the parenthesis that opens.
fn call(tokens: &[&Token]) -> (String, Vec<String>) {
    let mut parts = vec![Vec::new()];
    let mut open = 1;
    for token in tokens {
        match token {
            Sign('(' | '[' | '{') => open += 1,
            Sign(')' | ']' | '}') => open -= 1,
            _ => (),
        }
        match token {
            _ if open == 0 => break,
            Sign(',') if open == 1 => parts.push(Vec::new()),
            token => parts.last_mut().unwrap().push(*token),
        }
    }
    let mut fields = Vec::new();
    for part in parts {
        match part.as_slice() {
            [Text(message), ..] => return (message.clone(), fields),
            [Sign('%' | '?'), Word(name)] | [Word(name)] => fields.push(name.clone()),
            [Word(name), Sign('='), ..] => fields.push(name.clone()),
            _ => (),
        }
    }
    (String::new(), fields)
}

/// The rows of the tables below a heading, each cut into cells.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.split(&format!("{heading}\n")).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter_map(|it| it.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|it| it.split(" | ").collect()).collect()
}

/// What a cell quotes: with two backticks on each side where there are some in it.
fn quoted(cell: &str) -> Option<&str> {
    let twice = cell.strip_prefix("`` ").and_then(|it| it.strip_suffix(" ``"));
    twice.or_else(|| cell.strip_prefix('`')?.strip_suffix('`'))
}

/// Whether a message begins with a text that ends where a part of it does.
fn begins(message: &str, text: &str) -> bool {
    let rest = message.strip_prefix(text);
    rest.is_some_and(|it| it.is_empty() || it.starts_with(['.', ';', ':', ',']))
}

/// Messages that have no row, or more than one, and rows that have no message.
fn wrong_messages(sources: &[Source], page: &str) -> Vec<String> {
    let logged = logged(sources);
    let mut wrong = Vec::new();
    for (heading, levels) in MESSAGES {
        let rows = rows(page, heading);
        let rows: Vec<(&str, &str)> =
            rows.iter().filter_map(|it| Some((it[0], quoted(it.get(1)?)?))).collect();
        let of_levels = || logged.iter().filter(|it| levels.contains(&it.level));
        for it in of_levels() {
            let row = |(level, text): &&(&str, &str)| {
                level.to_lowercase() == it.level && begins(&it.message, text)
            };
            let count = rows.iter().filter(row).count();
            if count != 1 {
                let Logged { path, message, .. } = it;
                wrong.push(format!("{count} rows below {heading} are of {path}: {message}"));
            }
        }
        for (level, text) in &rows {
            if !of_levels().any(|it| begins(&it.message, text) && level.to_lowercase() == it.level)
            {
                wrong.push(format!("nobody logs at {level}: {text}"));
            }
        }
    }
    wrong
}

/// Fields without a row, and rows without a field.
fn wrong_fields(sources: &[Source], page: &str) -> Vec<String> {
    let rows = rows(page, FIELDS);
    let rows: Vec<&str> = rows.iter().filter_map(|it| quoted(it[0])).collect();
    let logged: Vec<String> = logged(sources).into_iter().flat_map(|it| it.fields).collect();
    let lacking = logged.iter().filter(|it| !rows.contains(&it.as_str())).cloned();
    let gone = rows
        .iter()
        .filter(|it| !OTHER_FIELDS.contains(it) && logged.iter().all(|field| field != *it));
    let mut wrong: Vec<String> = lacking.chain(gone.map(|it| (*it).to_owned())).collect();
    wrong.sort();
    wrong.dedup();
    wrong
}

/// The modules that log: those at the root, and sinks.
fn logging_modules(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for Logged { path, .. } in logged(sources) {
        let file = Source::new(&path, "");
        let modules = file.modules();
        found.push(modules[0].to_owned());
        if let ["sink", name, ..] = modules[..] {
            found.push(format!("sink::{name}"));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn the_page_about_logs_has_every_message_and_no_other() {
    assert!(logged(&below("src")).len() > 60);
    nothing(wrong_messages(&below("src"), &page("docs/logs.md")));
}

#[test]
fn the_page_about_logs_has_every_field_and_no_other() {
    nothing(wrong_fields(&below("src"), &page("docs/logs.md")));
}

#[test]
fn a_level_can_be_given_to_every_module_that_logs_and_to_no_other() {
    assert_eq!(logging_modules(&below("src")), MODULES);
    let page = page("docs/logs.md");
    let named = |it: &&&str| page.contains(&format!("`{it}`"));
    assert_eq!(MODULES.iter().filter(named).count(), MODULES.len());
}

/// A message without a word of what to do is of no use to whoever is woken by it. This knows no
/// more than that there has to be more than one sentence, or part of one.
#[test]
fn a_warning_or_an_error_says_more_than_what_is_wrong() {
    let short = |it: &Logged| {
        ["error", "warn"].contains(&it.level) && !it.message.contains(['.', ';', ':', ','])
    };
    let short = logged(&below("src")).into_iter().filter(short);
    nothing(short.map(|it| format!("{}: {}", it.path, it.message)).collect());
}

#[test]
fn the_checks_of_the_page_about_logs_find_what_they_are_for() {
    let one = |text: &str| vec![Source::new("src/sink/a.rs", text)];
    let source = r#"tracing::warn!(%a, b = f(c, "no; message"), ?d, "it is gone; make {} of it", e);
        info!("it is `there`");"#;
    let found = logged(&one(source));
    assert_eq!(found[0].fields, ["a", "b", "d"]);
    assert_eq!(found[0].message, "it is gone; make {} of it");
    let page = "## Warnings and errors\n\n| l | m |\n|---|---|\n| WARN | `it is gone` | x |\n\n\
                ## The other messages\n\n| INFO | `` it is `there` `` | y |\n\n\
                ## Fields\n\n| `a` | x |\n| `b` | x |\n| `d` | x |\n";
    assert_eq!(wrong_messages(&one(source), page), [""; 0]);
    assert_eq!(wrong_fields(&one(source), page), [""; 0]);
    for (from, to, count) in [
        ("it is gone", "it is", 2),
        ("it is gone", "it is back", 2),
        ("| WARN", "| ERROR", 2),
        ("`` it is `there` ``", "it is there", 1),
        (
            "| WARN | `it is gone` | x |",
            "| WARN | `it is gone` | x |\n| WARN | `it is gone` | y |",
            1,
        ),
    ] {
        assert_eq!(wrong_messages(&one(source), &page.replace(from, to)).len(), count, "{to}");
    }
    assert_eq!(wrong_fields(&one(source), &page.replace("`d`", "`e`")), ["d", "e"]);
    assert_eq!(logging_modules(&one(source)), ["sink", "sink::a"]);
}
