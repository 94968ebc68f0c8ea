//! The records of a request, and those that cannot be in one.

use crate::{
    error::BoxError,
    record::Record,
    sink::{Failure, FailureKind},
};

/// What the records of a call become.
#[derive(Debug)]
pub(in crate::sink) struct Batch<E> {
    /// The positions of those that are sent.
    pub(in crate::sink) positions: Vec<usize>,
    /// What is sent of them.
    pub(in crate::sink) entries: Vec<E>,
    /// Those that are not sent.
    pub(in crate::sink) failures: Vec<Failure>,
}

/// What a service has answered about one record of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) enum Answer {
    /// It has the record for good.
    Stored,
    /// It does not, and has said why.
    Failed(FailureKind, String),
}

/// A record that is larger than the service takes.
#[derive(Debug, thiserror::Error)]
#[error(
    "the record has {size} bytes with what is beside it, and {variable} allows {most}; raise it \
     if the service takes more"
)]
pub(in crate::sink) struct TooLarge {
    /// Its size, as the service counts it.
    pub(in crate::sink) size: usize,
    /// What it may have.
    pub(in crate::sink) most: usize,
    /// What says so.
    pub(in crate::sink) variable: &'static str,
}

impl<E> Batch<E> {
    /// What each record becomes; one that becomes nothing is refused for good.
    pub(in crate::sink) fn of(
        records: &[Record],
        entry: impl Fn(&Record) -> Result<E, BoxError>,
    ) -> Self {
        let (mut positions, mut entries, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            match entry(record) {
                Ok(entry) => {
                    positions.push(position);
                    entries.push(entry);
                }
                Err(source) => {
                    failures.push(Failure { position, kind: FailureKind::Rejected, source });
                }
            }
        }
        Self { positions, entries, failures }
    }
}
