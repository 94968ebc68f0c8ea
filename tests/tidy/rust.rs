//! As much of Rust as the checks need: tokens, and the modules of the crate that they name.

/// A piece of source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Word(String),
    /// The content of a string literal, with the breaks of continued lines removed.
    Text(String),
    Comment(String),
    Sign(char),
}

use Token::{Comment, Sign, Text, Word};

/// Cuts a source into tokens. Characters and numbers are of no interest, but are told from
/// lifetimes and words.
pub fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let rest = &chars[at..];
        let taken = if rest.starts_with(&['/', '/']) {
            let end = until(rest, 0, |it| it.starts_with(&['\n']));
            found.push(Comment(rest[..end].iter().collect()));
            end
        } else if rest.starts_with(&['/', '*']) {
            let end = block_comment(rest);
            found.push(Comment(rest[..end].iter().collect()));
            end
        } else if let Some((text, end)) = string(rest) {
            found.push(Text(text));
            end
        } else if c == '\'' {
            // A character has its closing quote soon; a lifetime has none.
            match rest {
                ['\'', '\\', ..] => until(rest, 3, |it| it.starts_with(&['\''])) + 1,
                ['\'', _, '\'', ..] => 3,
                _ => 1,
            }
        } else if is_word(c) {
            let end = until(rest, 0, |it| it.first().is_none_or(|it| !is_word(*it)));
            found.push(Word(rest[..end].iter().collect()));
            end
        } else {
            if !c.is_whitespace() {
                found.push(Sign(c));
            }
            1
        };
        at += taken;
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn until(chars: &[char], from: usize, end: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|at| end(&chars[*at..])).unwrap_or(chars.len())
}

fn block_comment(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

/// A string literal at the beginning of `chars`, of any kind, and its length there.
fn string(chars: &[char]) -> Option<(String, usize)> {
    let prefix = chars.iter().take_while(|it| matches!(it, 'b' | 'c' | 'r')).count();
    let raw = chars[..prefix].contains(&'r');
    let hashes = chars[prefix..].iter().take_while(|it| **it == '#').count();
    let start = prefix + hashes + 1;
    if prefix > 2 || chars.get(start - 1) != Some(&'"') || (hashes > 0 && !raw) {
        return None;
    }
    if raw {
        let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
        let end = until(chars, start, |it| it.starts_with(&close));
        return Some((chars[start..end].iter().collect(), end + close.len()));
    }
    let (mut text, mut at) = (String::new(), start);
    while let Some(&c) = chars.get(at) {
        match (c, chars.get(at + 1)) {
            ('"', _) => break,
            ('\\', Some('\n')) => at = until(chars, at + 1, |it| !it[0].is_whitespace()),
            ('\\', Some(next)) => {
                text.extend([c, *next]);
                at += 2;
            }
            _ => {
                text.push(c);
                at += 1;
            }
        }
    }
    Some((text, at + 1))
}

/// The modules at the root of the crate that the tokens of a file name, by `crate::` or by as many
/// `super::` as lead there. `depth` is how many modules the file is in.
pub fn named_modules(tokens: &[Token], depth: usize) -> Vec<String> {
    let tokens: Vec<&Token> = tokens.iter().filter(|it| !matches!(it, Comment(_))).collect();
    let mut found = Vec::new();
    // For each open brace, whether it is that of a module.
    let mut braces = Vec::new();
    for at in 0..tokens.len() {
        match tokens[at] {
            Sign('{') => {
                let module = at >= 2 && is(tokens[at - 2], "mod");
                braces.push(module);
            }
            Sign('}') => {
                braces.pop();
            }
            Word(_) if !follows_path(&tokens, at) => {
                let depth = depth + braces.iter().filter(|it| **it).count();
                path(&tokens, at, depth, &mut found);
            }
            _ => (),
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is(token: &Token, word: &str) -> bool {
    matches!(token, Word(it) if it == word)
}

fn follows_path(tokens: &[&Token], at: usize) -> bool {
    at >= 2 && *tokens[at - 1] == Sign(':') && *tokens[at - 2] == Sign(':')
}

/// Follows a path that begins in a module so deep, and notes the module at the root that it leads
/// to; 0 is the root itself.
fn path(tokens: &[&Token], at: usize, depth: usize, found: &mut Vec<String>) {
    let Some(Word(word)) = tokens.get(at) else { return };
    let next = match word.as_str() {
        "crate" => 0,
        "super" if depth > 0 => depth - 1,
        "self" => depth,
        _ => return,
    };
    if tokens.get(at + 1) == Some(&&Sign(':')) && tokens.get(at + 2) == Some(&&Sign(':')) {
        members(tokens, at + 3, next, found);
    }
}

/// What follows `::` of a module so deep: a name, or a group of them.
fn members(tokens: &[&Token], at: usize, depth: usize, found: &mut Vec<String>) {
    match tokens.get(at) {
        Some(Word(word)) if word == "super" => path(tokens, at, depth, found),
        Some(Word(word)) if depth == 0 && word != "self" => found.push(word.clone()),
        Some(Sign('*')) if depth == 0 => found.push("*".to_owned()),
        Some(Sign('{')) => {
            let (mut open, mut at) = (1, at + 1);
            let mut first = true;
            while let (Some(token), true) = (tokens.get(at), open > 0) {
                match token {
                    Sign('{') => open += 1,
                    Sign('}') => open -= 1,
                    Sign(',') if open == 1 => first = true,
                    _ if open == 1 && first => {
                        members(tokens, at, depth, found);
                        first = false;
                    }
                    _ => (),
                }
                at += 1;
            }
        }
        _ => (),
    }
}

#[test]
fn modules_are_found_in_any_form_of_a_path() {
    let named = |source: &str, depth| named_modules(&tokens(source), depth);
    let group =
        "use crate::{api::{self, Page}, cursor::{Index, saved::Head as H}, env as e, record};";
    assert_eq!(named(group, 1), ["api", "cursor", "env", "record"]);
    assert_eq!(
        named("fn f(x: &crate::api::Page) { crate :: record::json::hash(x) }", 2),
        ["api", "record"]
    );
    assert_eq!(named("use super::run; use self::x; use super::super::y;", 1), ["run"]);
    assert_eq!(named("use super::{super::run, sibling};", 2), ["run"]);
    assert_eq!(
        named("mod tests { use super::*; use super::super::run; fn f() { super::g() } }", 1),
        ["run"]
    );
    assert_eq!(named("use crate::*;", 1), ["*"]);
    let none = r##"// crate::a
        /* crate::b /* nested */ crate::c */ const A: &str = "crate::d\" crate::e";
        const B: &str = r#"crate::f" crate::g"#; const C: char = '"'; fn f<'a>(x: &'a [u8]) {}
        use other::crate_name; use ::http::x; const D: &[u8] = b"crate::h"; const E: char = '\'';"##;
    assert_eq!(named(none, 1), [""; 0]);
}

#[test]
fn texts_and_comments_are_told_apart() {
    let found = tokens("let a = \"one \\\n   two\"; // TODO \"no text\"\nb(r\"three\")");
    let texts: Vec<_> = found.iter().filter(|it| matches!(it, Text(_))).collect();
    assert_eq!(texts, [&Text("one two".into()), &Text("three".into())]);
    assert!(found.contains(&Comment("// TODO \"no text\"".into())));
}
