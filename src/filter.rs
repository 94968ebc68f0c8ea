//! Which records are published: an expression in CEL, the Common Expression Language, over a record
//! and what is said about it (pure).

use crate::{
    env::{Env, Noted},
    record::Record,
};

#[cfg(feature = "filter")]
mod check;
#[cfg(feature = "filter")]
mod evaluate;
#[cfg(feature = "filter")]
mod prepare;
#[cfg(not(feature = "filter"))]
mod stub;
#[cfg(feature = "filter")]
mod time;
#[cfg(feature = "filter")]
mod values;
#[cfg(feature = "filter")]
mod work;

#[cfg(feature = "filter")]
use evaluate::Expression;
#[cfg(not(feature = "filter"))]
use stub::Expression;

const NAME: &str = "NOMAD_FIREHOSE_FILTER";

/// An expression that tells which records are published.
#[derive(Debug)]
pub struct Filter(Expression);

/// What an expression says of a record.
#[derive(Debug)]
pub struct Judged {
    /// Whether it is to be published, or why that cannot be told. No reason has a value of the
    /// payload.
    pub verdict: Result<bool, String>,
    /// The work that it took, in elements that were looked at.
    pub work: u64,
}

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(String);

impl Filter {
    /// The filter that the environment asks for, if any.
    pub fn from_env(env: &Env) -> Result<Option<Self>, Noted> {
        let Some(text) = env.optional::<String>(NAME)? else { return Ok(None) };
        Self::parse(&text).map(Some).map_err(|wrong| env.note(NAME, wrong.to_string()))
    }

    /// Reads an expression. All that can be wrong with it whatever the record is said here.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        Expression::parse(text).map(Self).map_err(Wrong)
    }

    /// What it says of a record.
    #[must_use]
    pub fn judge(&self, record: &Record) -> Judged {
        self.0.judge(record)
    }
}

#[cfg(all(test, feature = "filter"))]
mod tests;
