//! An expression, from its text to what it says of a record.

use std::{sync::OnceLock, thread};

use cel::{
    Context, Env, ExecutionError, Value,
    common::{
        ast::IdedExpr,
        types::{CelBool, CelInt, CelNull, CelString, CelUInt},
        value::CowVal,
    },
    context::VariableResolver,
    parser::PrattParser,
};

use super::{
    Judged,
    check::{self, MAX_DEPTH, at},
    prepare::{self, PATTERN, Pattern, WORK},
    time, values,
    work::{self, Work},
};
use crate::{error::brief, record::Record};

/// A longer expression is refused.
pub(super) const MAX_BYTES: usize = 4_096;
/// Reading an expression of this length takes no more stack, however it is nested.
const STACK: usize = 16 << 20;

/// An expression that can be evaluated.
pub(super) struct Expression {
    text: String,
    tree: IdedExpr,
    patterns: Vec<Pattern>,
    /// The functions.
    context: Context<'static, 'static>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("has {} bytes, and {MAX_BYTES} is the most", text.len()));
        }
        // Text that is nested as deeply as its length allows would be too much for a usual stack.
        let read = thread::scope(|scope| {
            let reader = thread::Builder::new().stack_size(STACK);
            let reader = reader.spawn_scoped(scope, || read(text));
            reader.map(|it| it.join().unwrap_or_else(|_| Err("cannot be read".to_owned())))
        });
        let tree = read.map_err(|err| format!("there is no thread to read it in: {err}"))??;
        let mut patterns = Vec::new();
        let tree = prepare::prepare(tree, &mut patterns);
        let mut env = Env::default().with_optional_support(false).with_stdlib();
        work::declare(&mut env)
            .and_then(|()| prepare::declare(&mut env))
            .and_then(|()| time::declare(&mut env))
            .map_err(|err| err.to_string())?;
        let context = Context::with_env(env.into());
        Ok(Self { text: text.to_owned(), tree, patterns, context })
    }

    pub(super) fn judge(&self, record: &Record) -> Judged {
        let variables = Variables {
            record,
            patterns: &self.patterns,
            work: Work::default(),
            data: OnceLock::new(),
        };
        let result = self.evaluate(&variables);
        let work = variables.work.done();
        let verdict = match result {
            _ if variables.work.is_too_much() => {
                Err(format!("it looks at more than {} elements of one record", work::MOST))
            }
            _ if matches!(variables.data.get(), Some(None)) => {
                Err("the payload cannot be read".to_owned())
            }
            other => other,
        };
        Judged { verdict, work }
    }

    fn evaluate(&self, variables: &Variables<'_>) -> Result<bool, String> {
        let mut context = self.context.new_inner_scope();
        context.set_variable_resolver(variables);
        let value = Value::resolve_val(&self.tree, &context).map_err(|err| self.reason(&err))?;
        match value.downcast_ref::<CelBool>() {
            Some(kept) => Ok(*kept.inner()),
            None => Err(format!("its result is a value of type {}", value.get_type().name())),
        }
    }

    /// Why it cannot be evaluated. Names are those of the expression, and values are left out.
    fn reason(&self, err: &ExecutionError) -> String {
        match err {
            ExecutionError::NoSuchKey(key) if self.text.contains(key.as_str()) => {
                brief(&format!("there is no member `{key}`; ask with has() first"))
            }
            ExecutionError::NoSuchKey(_) => "there is no such member".to_owned(),
            ExecutionError::NoSuchOverload(call) => {
                let name = call.function().trim_matches(|it| it == '_' || it == '@');
                format!("`{name}` does not take {}", call.argument_types().join(" and "))
            }
            ExecutionError::UnexpectedType { got, want } => {
                format!("a value is of type {got}, where {want} is wanted")
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "it divides by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a number becomes too large".to_owned(),
            ExecutionError::IndexOutOfBounds(_) => "a list has no such element".to_owned(),
            ExecutionError::FunctionError { function, .. } => {
                format!("`{}` cannot do that with its arguments", function.trim_matches('@'))
            }
            ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
                format!("the operator `{operator}` does not take values of these types")
            }
            ExecutionError::ValuesNotComparable(..) => "values cannot be compared".to_owned(),
            _ => "values are of types that do not fit".to_owned(),
        }
    }
}

fn read(text: &str) -> Result<IdedExpr, String> {
    let tree = PrattParser::default().parse(text).map_err(|errors| {
        if errors.errors.iter().any(|it| it.msg.contains("recursion limit")) {
            return format!("is nested more than {MAX_DEPTH} deep");
        }
        let first = errors.errors.iter().find(|it| it.pos.0 > 0).or(errors.errors.first());
        let Some(first) = first else { return "cannot be read".to_owned() };
        let why = first.msg.trim_start_matches("Syntax error: ").replace("<EOF>", "the end");
        match (usize::try_from(first.pos.0), usize::try_from(first.pos.1)) {
            (Ok(line), Ok(column)) if line > 0 => at(text, line, column, &why),
            _ => brief(&why),
        }
    })?;
    check::check(text, &tree)?;
    Ok(tree)
}

/// The variables of one record. The payload is parsed once it is asked for.
struct Variables<'a> {
    record: &'a Record,
    patterns: &'a [Pattern],
    work: Work,
    data: OnceLock<Option<serde_json::Value>>,
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let text = |it: &'b str| CowVal::owned(CelString::from(it));
        let meta = &self.record.meta;
        Some(match name {
            "id" => text(&meta.id),
            "source" => text(&meta.source),
            "type" => text(meta.kind),
            "subject" => text(&meta.subject),
            "time" => match meta.time.as_deref().and_then(time::parse) {
                Some(time) => CowVal::owned(time),
                None => CowVal::owned(CelNull),
            },
            "nomadindex" => match i64::try_from(meta.index.0) {
                Ok(index) => CowVal::owned(CelInt::from(index)),
                Err(_) => CowVal::owned(CelUInt::from(meta.index.0)),
            },
            "nomadnamespace" => text(&meta.namespace),
            "stream" => text(self.record.stream),
            "data" => {
                let parse = || serde_json::from_slice(&self.record.body).ok();
                values::value(self.data.get_or_init(parse).as_ref()?)
            }
            WORK => CowVal::Borrowed(&self.work),
            _ => {
                let number: usize = name.strip_prefix(PATTERN)?.parse().ok()?;
                CowVal::Borrowed(self.patterns.get(number)?)
            }
        })
    }
}
