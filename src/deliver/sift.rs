//! Which records are published, where a filter says so.

use std::{collections::HashSet, sync::Arc};

use tokio::task::yield_now;

use super::Delivery;
use crate::{
    cursor::{Index, Mark},
    filter::Filter,
    metrics::Metrics,
    record::Record,
};

/// After so much work, others get their turn: what is to be said to the receiver, and the request
/// to stop.
const TURN: u64 = 20_000;

/// So many reasons are said of why it cannot be told whether a record is to be published.
const MOST_REASONS: usize = 16;

/// Records to be published, and those between them that are not.
#[derive(Debug, Default)]
pub struct Sifted {
    pub(super) records: Vec<Record>,
    pub(super) passed: Vec<Passed>,
}

/// A record that is not published: only its position is left.
#[derive(Debug)]
pub(super) struct Passed {
    /// So many records to be published come before it.
    pub(super) after: usize,
    pub(super) key: Arc<str>,
    pub(super) mark: Mark,
    pub(super) below: Index,
}

impl From<Vec<Record>> for Sifted {
    fn from(records: Vec<Record>) -> Self {
        Self { records, passed: Vec::new() }
    }
}

/// A filter, and what was said of it.
#[derive(Debug)]
pub(super) struct Sieve {
    filter: Filter,
    said: std::sync::Mutex<HashSet<String>>,
}

impl Sieve {
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, said: std::sync::Mutex::default() }
    }

    /// Whether a record is to be published, and the work of finding out. Where it cannot be told it
    /// is, since what is left out does not come again.
    fn keeps(&self, record: &Record, metrics: &Metrics) -> (bool, u64) {
        let judged = self.filter.judge(record);
        let kept = judged.verdict.unwrap_or_else(|reason| {
            metrics.filter_errors.one();
            let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if said.len() < MOST_REASONS && !said.contains(&reason) {
                tracing::warn!(
                    error = reason,
                    record = crate::error::brief(&record.meta.id),
                    "the filter cannot tell whether a record is to be published, so it is; mend \
                     NOMAD_FIREHOSE_FILTER, as with has() for what may be missing"
                );
                said.insert(reason);
            }
            true
        });
        (kept, judged.work)
    }
}

impl Delivery {
    /// Whether there is a filter.
    #[must_use]
    pub fn filters(&self) -> bool {
        self.sieve.is_some()
    }

    /// The same, but only what the filter lets through.
    #[must_use]
    pub fn with_filter(self, filter: Option<Filter>) -> Self {
        Self { sieve: filter.map(Sieve::new), ..self }
    }

    /// Tells what of some records is to be published.
    pub async fn sift(&self, records: Vec<Record>) -> Sifted {
        let Some(sieve) = &self.sieve else { return records.into() };
        let mut sifted = Sifted::default();
        let mut work = 0;
        for record in records {
            let (kept, own) = sieve.keeps(&record, &self.metrics);
            if kept {
                sifted.records.push(record);
            } else {
                self.metrics.settled(record.body.len());
                let Record { key, mark, below, .. } = record;
                sifted.passed.push(Passed { after: sifted.records.len(), key, mark, below });
            }
            work += own;
            if work >= TURN {
                work = 0;
                yield_now().await;
            }
        }
        self.metrics.records_filtered.add(sifted.passed.len());
        sifted
    }
}
