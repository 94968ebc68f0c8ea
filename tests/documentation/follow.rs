//! Follows a page: what is run of it, where, and what is compared.

use serde_json::{Deserializer, Value};

use super::{
    pages::{Block, Page},
    quotes,
    stage::{Outcome, Stage},
};

/// Commands are in blocks of this language.
const COMMANDS: &str = "sh";
/// Names of it that would hide commands from this test.
const ALIASES: [&str; 6] = ["", "bash", "console", "shell", "shell-session", "zsh"];

/// How a block of commands is run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Here, and the last command ends with this code.
    Here(i32),
    /// Here, while this runs in the background.
    Beside(String),
    /// In the suite against real servers, with this one.
    Server(String),
    /// Nowhere: it needs something that no test has. A shell has to be able to read it.
    Nowhere,
}

fn way(note: Option<&str>) -> Result<Way, String> {
    let Some(note) = note else { return Ok(Way::Here(0)) };
    let (kind, rest) = note.split_once(' ').unwrap_or((note, ""));
    match (kind, rest) {
        ("exit", code) => code.parse().map(Way::Here).map_err(|_| format!("no code: {note}")),
        ("beside", command) if !command.is_empty() => Ok(Way::Beside(command.to_owned())),
        ("server", "amqp" | "consul") => Ok(Way::Server(rest.to_owned())),
        ("container" | "nomad" | "root", "") => Ok(Way::Nowhere),
        _ => Err(format!("unknown annotation: {note}")),
    }
}

/// Follows a page, and says what is wrong with it: all blocks that need no server, or only those
/// for `server`. `before` each, something can be done; `judge` looks at what became of each.
pub fn follow(
    page: &Page,
    stage: &mut Stage,
    server: Option<&str>,
    before: &dyn Fn(),
    judge: &dyn Fn(&Outcome) -> Result<(), String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last: Option<Outcome> = None;
    for block in &page.blocks {
        let found = match block.language.as_str() {
            COMMANDS => {
                before();
                follow_commands(block, stage, server, &mut last)
                    .and_then(|()| last.as_ref().map_or(Ok(()), judge))
            }
            alias if ALIASES.contains(&alias) => {
                Err(format!("commands are in `{COMMANDS}` blocks, and all blocks have a language"))
            }
            _ => compare(block, stage, last.as_ref()),
        };
        if let Err(what) = found {
            wrong.push(format!("{}:{}: {what}", page.path, block.line));
        }
    }
    wrong
}

fn follow_commands(
    block: &Block,
    stage: &mut Stage,
    server: Option<&str>,
    last: &mut Option<Outcome>,
) -> Result<(), String> {
    *last = None;
    let (text, code) = match (way(block.note.as_deref())?, server) {
        (Way::Here(code), None) => (block.text.clone(), code),
        (Way::Beside(command), None) => (format!("{command} >/dev/null &\n{}", block.text), 0),
        (Way::Server(of), Some(server)) if of == server => (block.text.clone(), 0),
        (_, Some(_)) => return Ok(()),
        (Way::Server(_) | Way::Nowhere, None) => {
            let fine = stage.is_readable(&block.text);
            return if fine { Ok(()) } else { Err("a shell cannot read it".to_owned()) };
        }
    };
    let outcome = stage.run(&text);
    if outcome.code != Some(code) {
        return Err(format!("it ended with {:?}:\n{}", outcome.code, outcome.output));
    }
    *last = Some(outcome);
    Ok(())
}

/// Compares what is quoted of the output of the commands before it.
fn compare(block: &Block, stage: &mut Stage, last: Option<&Outcome>) -> Result<(), String> {
    let (json, text) = (block.language == "json", block.language == "text");
    let mut documents = Deserializer::from_str(&block.text).into_iter::<Value>();
    if json && let Some(Err(err)) = documents.find(Result::is_err) {
        return Err(format!("it is not JSON: {err}"));
    }
    match (block.note.as_deref(), last) {
        (Some("illustration"), _) => return Ok(()),
        // What is run in the other suite has its output compared there.
        (Some("output"), None) if block.after_commands => return Ok(()),
        (Some("output"), None) => return Err("there is no output before it".to_owned()),
        (Some("output"), Some(_)) => {}
        (Some(other), _) => return Err(format!("unknown annotation: {other}")),
        (None, Some(_)) if block.adjacent && (json || text) => {}
        (None, _) => return Ok(()),
    }
    let Some(outcome) = last else { return Ok(()) };
    let quoted = stage.placed(&block.text);
    if json {
        let fine = quotes::has_document(&quoted, &outcome.output);
        let what = "no document of the output has these members";
        return if fine { Ok(()) } else { Err(format!("{what}:\n{}", outcome.output)) };
    }
    match quotes::missing(&quoted, &outcome.output) {
        None => Ok(()),
        Some(line) => Err(format!("not in the output: {line}\n{}", outcome.output)),
    }
}
