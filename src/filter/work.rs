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

use super::values;

/// Elements that may be looked at for one record: a third of a second.
pub(super) const MOST: u64 = 1_000_000;
/// So many bytes of a text count for one element.
const BYTES: usize = 256;

/// Counts its second argument's elements, and is its first argument.
pub(super) const SPEND: &str = "@spend";

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

/// A value that an expression only hands on.
macro_rules! opaque {
    ($Value:ty, $name:literal) => {
        impl Val for $Value {
            fn get_type(&self) -> &Type {
                Self::cel_type()
            }

            fn cel_type() -> &'static Type {
                static TYPE: Type = Type::new_unspecified_type($name);
                &TYPE
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $Value {}
    };
}

pub(super) use opaque;

opaque!(Work, "work");

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
    match value.downcast_ref::<CelString>() {
        Some(text) => text.inner().len() / BYTES,
        None => values::size(value).unwrap_or_default(),
    }
}
