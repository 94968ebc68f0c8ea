//! How much one record may cost: every element that a loop or a comparison looks at is counted.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        types::{CelString, DYN_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

/// Elements that may be looked at for one record: a third of a second.
pub(super) const MOST: u64 = 1_000_000;
/// So many bytes of a text count for one element.
const BYTES: usize = 256;

/// Counts its second argument's elements, and is its first argument.
pub(super) const SPEND: &str = "@spend";

static TYPE: Type = Type::new_unspecified_type("work");

/// What was looked at so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Work(Arc<AtomicU64>);

impl Work {
    pub(super) fn done(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_too_much(&self) -> bool {
        self.done() > MOST
    }

    fn add(&self, elements: usize) {
        self.0.fetch_add(elements as u64, Ordering::Relaxed);
    }
}

impl Val for Work {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Work {}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(SPEND, SPEND, vec![DYN_TYPE, DYN_TYPE], spend)
}

fn spend<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (Some(work), Some(value)) = (args.pop(), args.pop()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    if let Some(work) = work.downcast_ref::<Work>() {
        work.add(1 + size(&*value));
        if work.is_too_much() {
            return Err(ExecutionError::function_error(SPEND, "too much"));
        }
    }
    Ok(value)
}

/// How many elements a value counts for, beside itself.
fn size(value: &dyn Val) -> usize {
    match (value.as_sizer(), value.downcast_ref::<CelString>()) {
        (_, Some(text)) => text.inner().len() / BYTES,
        (Some(sizer), None) => usize::try_from(*sizer.size().inner()).unwrap_or_default(),
        (None, None) => 0,
    }
}
