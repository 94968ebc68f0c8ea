//! An expression made ready: what it looks at is counted, and what could grow without a bound does
//! not.

use std::any::Any;

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators},
        types::{CelBool, CelString, DYN_TYPE, Kind, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use regex::Regex;

use super::work::{SPEND, opaque};

/// Names of ours: no expression can have an `@` outside of a text.
pub(super) const WORK: &str = "@work";
pub(super) const PATTERN: &str = "@pattern";
const MATCHES: &str = "@matches";
const PLUS: &str = "@plus";

/// No text that an expression puts together is longer.
const MOST_TEXT: usize = 64 << 10;

/// A regular expression, compiled once.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

opaque!(Pattern, "pattern");

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(MATCHES, MATCHES, vec![DYN_TYPE, DYN_TYPE], matches)?;
    env.add_overload(PLUS, PLUS, vec![DYN_TYPE, DYN_TYPE], plus)
}

fn mismatch(name: &str, args: &[CowVal<'_, '_>]) -> ExecutionError {
    let types = args.iter().map(|it| it.get_type().name().to_owned()).collect();
    ExecutionError::no_such_overload(name, types)
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    if let [text, pattern] = &args[..]
        && let (Some(text), Some(pattern)) =
            (text.downcast_ref::<CelString>(), pattern.downcast_ref::<Pattern>())
    {
        return Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text.inner()))));
    }
    Err(mismatch("matches", &args[..1.min(args.len())]))
}

/// The sum of numbers or times, or two texts as one. Lists are not put together, lest a loop make
/// one that is larger than memory.
fn plus<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [one, other] = &args[..] else { return Err(mismatch("_+_", &args)) };
    let length = |it: &CowVal<'_, '_>| it.downcast_ref::<CelString>().map(|it| it.inner().len());
    let growing = [Kind::List, Kind::Map, Kind::Bytes];
    let adder = match (length(one), length(other)) {
        (Some(one), Some(other)) if one + other > MOST_TEXT => {
            return Err(ExecutionError::function_error("+", "too long"));
        }
        (None, _) if growing.contains(&one.get_type().kind()) => None,
        _ => one.as_adder(),
    };
    let Some(adder) = adder else { return Err(mismatch("_+_", &args)) };
    let sum = adder.add(&**other).map_err(|err| match err {
        ExecutionError::Overflow(..) => err,
        _ => mismatch("_+_", &args),
    })?;
    Ok(CowVal::Owned(sum.into_owned()))
}

/// Makes an expression ready. Its regular expressions are compiled already, once, so none fails.
pub(super) fn prepare(mut tree: IdedExpr, patterns: &mut Vec<Pattern>) -> IdedExpr {
    ready(&mut tree, false, patterns);
    tree
}

/// The regular expression of a call, and its text where that is in the expression itself.
pub(super) fn pattern(call: &CallExpr) -> Option<&str> {
    match &call.args.last()?.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn ready(tree: &mut IdedExpr, looped: bool, patterns: &mut Vec<Pattern>) {
    match &mut tree.expr {
        Expr::Call(call) => ready_call(call, looped, patterns),
        Expr::Comprehension(it) => {
            for inner in [&mut it.accu_init, &mut it.iter_range] {
                ready(inner, looped, patterns);
            }
            for inner in [&mut it.loop_cond, &mut it.loop_step, &mut it.result] {
                ready(inner, true, patterns);
            }
            spend(&mut it.iter_range);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|it| ready(it, looped, patterns)),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    ready(&mut entry.key, looped, patterns);
                    ready(&mut entry.value, looped, patterns);
                }
            }
        }
        Expr::Select(select) => ready(&mut select.operand, looped, patterns),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => (),
    }
}

fn ready_call(call: &mut CallExpr, looped: bool, patterns: &mut Vec<Pattern>) {
    if call.func_name == "matches"
        && let Some(Ok(regex)) = pattern(call).map(Regex::new)
    {
        let name = format!("{PATTERN}{}", patterns.len());
        patterns.push(Pattern(regex));
        call.func_name = MATCHES.to_owned();
        call.args.pop();
        call.args.extend(call.target.take().map(|it| *it));
        call.args.push(IdedExpr { id: 0, expr: Expr::Ident(name) });
        if looped {
            call.args.first_mut().into_iter().for_each(spend);
        }
    }
    let made = |it: &IdedExpr| matches!(it.expr, Expr::List(_) | Expr::Map(_));
    match (call.func_name.as_str(), &mut call.args[..]) {
        // What a loop adds to its own result.
        (operators::ADD, [one, _]) if !matches!(&one.expr, Expr::Ident(it) if it == "@result") => {
            call.func_name = PLUS.to_owned();
        }
        (operators::IN, [_, within]) => spend(within),
        (operators::EQUALS | operators::NOT_EQUALS, [one, other]) => {
            // A list of the payload knows lists of the expression, and not the other way round.
            if made(one) && !made(other) {
                std::mem::swap(one, other);
            }
            if looped {
                spend(one);
            }
        }
        _ => (),
    }
    if looped && let Some(target) = &mut call.target {
        spend(target);
    }
    let inner = call.target.as_deref_mut().into_iter().chain(&mut call.args);
    inner.for_each(|it| ready(it, looped, patterns));
}

/// Counts what an expression yields.
fn spend(of: &mut IdedExpr) {
    let id = of.id;
    let work = IdedExpr { id, expr: Expr::Ident(WORK.to_owned()) };
    let args = vec![std::mem::take(of), work];
    let call = CallExpr { func_name: SPEND.to_owned(), target: None, args };
    *of = IdedExpr { id, expr: Expr::Call(call) };
}
