//! What can be wrong with an expression whatever the record is.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::Regex;

use super::prepare::pattern;
use crate::error::brief;

/// The variables, and what each is.
const VARIABLES: [(&str, &str); 9] = [
    ("id", "string"),
    ("source", "string"),
    ("type", "string"),
    ("subject", "string"),
    ("time", "timestamp"),
    ("nomadindex", "int"),
    ("nomadnamespace", "string"),
    ("stream", "string"),
    ("data", "map"),
];
/// The names of types, to compare with what `type()` tells.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
/// Deeper ones are refused: their evaluation would need too much of the stack. A loop counts twice,
/// and so does what a function is called on.
pub(super) const MAX_DEPTH: usize = 40;

/// How a function can be called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `f(x)`
    Global,
    /// `x.f()`
    Member,
}
use Form::{Global, Member};

/// The functions: their name, how they are called, with how many arguments, and what they yield.
const FUNCTIONS: [(&str, Form, usize, Option<&str>); 17] = [
    ("size", Global, 1, Some("int")),
    ("size", Member, 0, Some("int")),
    ("contains", Member, 1, Some("bool")),
    ("startsWith", Member, 1, Some("bool")),
    ("endsWith", Member, 1, Some("bool")),
    ("matches", Member, 1, Some("bool")),
    ("matches", Global, 2, Some("bool")),
    ("bool", Global, 1, Some("bool")),
    ("bytes", Global, 1, Some("bytes")),
    ("double", Global, 1, Some("double")),
    ("int", Global, 1, Some("int")),
    ("string", Global, 1, Some("string")),
    ("uint", Global, 1, Some("uint")),
    ("dyn", Global, 1, None),
    ("type", Global, 1, Some("type")),
    ("timestamp", Global, 1, Some("timestamp")),
    ("duration", Global, 1, Some("duration")),
];

/// What macros make of themselves where they fit.
const MACROS: [(&str, &str); 6] = [
    ("has", "has(data.Member)"),
    ("all", "list.all(x, condition)"),
    ("exists", "list.exists(x, condition)"),
    ("exists_one", "list.exists_one(x, condition)"),
    ("map", "list.map(x, value)"),
    ("filter", "list.filter(x, condition)"),
];

/// Names that are offered instead are at most so many edits away.
const MAX_EDITS: usize = 2;
/// So much of the text is shown where something is wrong.
const SHOWN: usize = 32;

/// Says what is wrong with an expression, and where.
pub(super) fn check(text: &str, tree: &IdedExpr) -> Result<(), String> {
    let mut check = Check { text, bound: Vec::new() };
    check.walk(tree, 0)?;
    match kind(tree) {
        Some("bool") | None => Ok(()),
        Some(kind) => Err(format!("its result is a value of type {kind}, and never true or false")),
    }
}

/// The reason with its place in the text, which counts from 1.
pub(super) fn at(text: &str, line: usize, column: usize, why: &str) -> String {
    let shown = text.lines().nth(line - 1).unwrap_or_default();
    let start = shown.floor_char_boundary(column.saturating_sub(1));
    let rest = &shown[start..];
    let end = rest.floor_char_boundary(SHOWN);
    let more = if end < rest.len() { "..." } else { "" };
    let place = format!("line {line}, column {column}");
    brief(&match &rest[..end] {
        "" => format!("{place}, at the end: {why}"),
        rest => format!("{place}, at `{rest}{more}`: {why}"),
    })
}

struct Check<'a> {
    text: &'a str,
    /// The variables of the loops around.
    bound: Vec<&'a str>,
}

impl<'a> Check<'a> {
    fn walk(&mut self, tree: &'a IdedExpr, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("is nested more than {MAX_DEPTH} deep"));
        }
        let depth = depth + 1;
        match &tree.expr {
            Expr::Ident(name) => self.variable(name),
            Expr::Literal(_) => Ok(()),
            Expr::Select(select) => self.walk(&select.operand, depth),
            Expr::List(list) => list.elements.iter().try_for_each(|it| self.walk(it, depth)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key, depth)?;
                    self.walk(&entry.value, depth)
                }
                EntryExpr::StructField(_) => Err("has a field without an object".to_owned()),
            }),
            Expr::Call(call) => {
                // A wrong name is more telling than what it was called with.
                self.call(call)?;
                call.target.iter().try_for_each(|it| self.walk(it, depth + 1))?;
                call.args.iter().try_for_each(|it| self.walk(it, depth))
            }
            Expr::Comprehension(it) => {
                self.walk(&it.iter_range, depth + 1)?;
                self.walk(&it.accu_init, depth)?;
                self.bound.extend([it.iter_var.as_str(), it.accu_var.as_str()]);
                let inner = [&it.loop_cond, &it.loop_step, &it.result];
                let walked = inner.into_iter().try_for_each(|it| self.walk(it, depth));
                self.bound.truncate(self.bound.len() - 2);
                walked
            }
            Expr::Struct(it) => {
                Err(self.wrong(&it.type_name, &format!("there is no type `{}`", it.type_name)))
            }
            Expr::Unspecified => Err("cannot be read".to_owned()),
        }
    }

    fn variable(&self, name: &str) -> Result<(), String> {
        let known = self.bound.contains(&name)
            || TYPES.contains(&name)
            || VARIABLES.iter().any(|it| it.0 == name);
        if known {
            return Ok(());
        }
        let names = VARIABLES.map(|it| it.0);
        let why = format!("there is no variable `{name}`{}", instead(name, &names));
        Err(self.wrong(name, &why))
    }

    fn call(&self, call: &CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        let form = if call.target.is_some() { Member } else { Global };
        if !name.chars().next().is_some_and(|it| it.is_ascii_alphabetic()) {
            return self.operands(call);
        }
        if let Some((_, usage)) = MACROS.iter().find(|it| it.0 == name) {
            return Err(self.wrong(name, &format!("`{name}` is used as in {usage}")));
        }
        let mut same = FUNCTIONS.iter().filter(|it| it.0 == name).peekable();
        if same.peek().is_none() {
            let names = FUNCTIONS.map(|it| it.0);
            let names: Vec<&str> = names.into_iter().chain(MACROS.map(|it| it.0)).collect();
            let why = format!("there is no function `{name}`{}", instead(name, &names));
            return Err(self.wrong(name, &why));
        }
        if !same.any(|it| it.1 == form && it.2 == call.args.len()) {
            let usage = FUNCTIONS.iter().find(|it| it.0 == name).map(|it| match (it.1, it.2) {
                (Member, 0) => format!("x.{name}()"),
                (Member, _) => format!("x.{name}(y)"),
                (Global, _) => format!("{name}(x)"),
            });
            let why = format!("`{name}` is used as in {}", usage.unwrap_or_default());
            return Err(self.wrong(name, &why));
        }
        if name == "matches" {
            let Some(pattern) = pattern(call) else {
                let why = "the regular expression has to be a text in quotes";
                return Err(self.wrong(name, why));
            };
            if let Err(err) = Regex::new(pattern) {
                let why = err.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                return Err(self.wrong(name, &format!("no regular expression: {why}")));
            }
        }
        Ok(())
    }

    /// Whether operands can be what an operator wants.
    fn operands(&self, call: &CallExpr) -> Result<(), String> {
        let (sign, logical): (&str, &[IdedExpr]) = match call.func_name.as_str() {
            operators::LOGICAL_AND => ("&&", &call.args),
            operators::LOGICAL_OR => ("||", &call.args),
            operators::LOGICAL_NOT => ("!", &call.args),
            operators::CONDITIONAL => ("?", &call.args[..1.min(call.args.len())]),
            _ => return Ok(()),
        };
        for it in logical {
            if let Some(kind) = kind(it).filter(|it| *it != "bool") {
                let why = format!("`{sign}` wants true or false, and not a value of type {kind}");
                return Err(self.wrong(sign, &why));
            }
        }
        Ok(())
    }

    /// The reason with the place where a name or a sign is first used.
    fn wrong(&self, name: &str, why: &str) -> String {
        match find(self.text, name) {
            Some(place) => {
                let before = &self.text[..place];
                let line = before.matches('\n').count() + 1;
                let column = place - before.rfind('\n').map_or(0, |it| it + 1) + 1;
                at(self.text, line, column, why)
            }
            None => brief(why),
        }
    }
}

/// Another name that may be meant.
fn instead(name: &str, names: &[&str]) -> String {
    let distance = |it: &&&str| strsim::damerau_levenshtein(name, it);
    match names.iter().min_by_key(distance).filter(|it| distance(it) <= MAX_EDITS) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; there are: {}", names_once(names)),
    }
}

fn names_once(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.dedup();
    names.join(", ")
}

/// Where a name is first used as such: not in a text, not as part of a name, and not as a member.
fn find(text: &str, name: &str) -> Option<usize> {
    let word = |it: char| it.is_alphanumeric() || it == '_';
    let is_word = name.starts_with(word);
    let mut quote = None;
    let mut before = ' ';
    let mut chars = text.char_indices();
    while let Some((at, it)) = chars.next() {
        match quote {
            Some(_) if it == '\\' => drop(chars.next()),
            Some(open) if it == open => quote = None,
            Some(_) => (),
            None if it == '"' || it == '\'' => quote = Some(it),
            None => {
                let rest = &text[at..];
                if let Some(rest) = rest.strip_prefix(name) {
                    let member = before == '.' && !rest.starts_with('(');
                    if !is_word || !word(before) && !rest.starts_with(word) && !member {
                        return Some(at);
                    }
                }
            }
        }
        before = it;
    }
    None
}

/// What an expression yields, where that is sure.
fn kind(tree: &IdedExpr) -> Option<&'static str> {
    match &tree.expr {
        Expr::Ident(name) => VARIABLES.iter().find(|it| it.0 == name).map(|it| it.1),
        Expr::Literal(literal) => Some(match literal {
            LiteralValue::Boolean(_) => "bool",
            LiteralValue::Bytes(_) => "bytes",
            LiteralValue::Double(_) => "double",
            LiteralValue::Int(_) => "int",
            LiteralValue::Null => "null_type",
            LiteralValue::String(_) => "string",
            LiteralValue::UInt(_) => "uint",
        }),
        Expr::List(_) => Some("list"),
        Expr::Map(_) => Some("map"),
        Expr::Select(select) => select.test.then_some("bool"),
        Expr::Comprehension(it) => kind(&it.accu_init).filter(|it| ["list", "bool"].contains(it)),
        Expr::Call(call) => match (call.func_name.as_str(), &call.args[..]) {
            (operators::CONDITIONAL, [_, yes, no]) => kind(yes).filter(|it| kind(no) == Some(*it)),
            (
                operators::ADD
                | operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::NEGATE,
                _,
            ) => Some("number, text or time"),
            (operators::INDEX, _) => None,
            (name, _) if name.starts_with(|it: char| it.is_ascii_alphabetic()) => {
                FUNCTIONS.iter().find(|it| it.0 == name).and_then(|it| it.3)
            }
            _ => Some("bool"),
        },
        Expr::Struct(_) | Expr::Unspecified => None,
    }
}
