//! Counters, gauges, times and histograms: atomics, so that a record costs a few of them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// When something last happened, by the wall clock, in milliseconds; 0 is never.
#[derive(Debug, Default)]
pub struct Stamp(AtomicU64);

/// How many values are up to each bound, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    per: f64,
    /// One for each bound, and one for what is beyond the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What is shown of one of these.
pub(super) enum Value<'a> {
    Counter(u64),
    /// Nothing where it has never been.
    Gauge(Option<f64>),
    Histogram(&'a Histogram),
}

impl Counter {
    pub(super) const KIND: &'static str = "counter";

    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn value(&self) -> Value<'_> {
        Value::Counter(self.get())
    }

    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Somebody else counts, and is there.
    pub fn reach(&self, count: u64) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    pub(super) const KIND: &'static str = "gauge";

    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn value(&self) -> Value<'_> {
        Value::Gauge(Some(self.get() as f64))
    }

    /// It is this now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// So much more.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// So much less, and never less than nothing.
    pub fn subtract(&self, count: usize) {
        let less = |it: u64| Some(it.saturating_sub(count as u64));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stamp {
    pub(super) const KIND: &'static str = "gauge";

    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn value(&self) -> Value<'_> {
        Value::Gauge(self.get().map(|it| it as f64 / 1e3))
    }

    /// It happens now.
    pub fn now(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.store(since.as_millis() as u64, Ordering::Relaxed);
    }

    /// When it happened, in milliseconds since 1970, if it did.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|it| *it > 0)
    }
}

impl Histogram {
    pub(super) const KIND: &'static str = "histogram";

    /// Bounds in order, and what they and the sum are divided by where they are shown.
    pub(super) fn new(bounds: &'static [u64], per: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, per, counts, sum: AtomicU64::default() }
    }

    pub(super) fn value(&self) -> Value<'_> {
        Value::Histogram(self)
    }

    /// Adds a value.
    pub fn observe(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|it| it.load(Ordering::Relaxed)).sum()
    }

    /// What they add up to.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.per
    }

    /// How many values are up to each bound; the last is no bound.
    pub(super) fn cumulative(&self) -> Vec<(Option<f64>, u64)> {
        let bounds = self.bounds.iter().map(|it| Some(*it as f64 / self.per)).chain([None]);
        let mut sum = 0;
        let counts = self.counts.iter().map(|it| {
            sum += it.load(Ordering::Relaxed);
            sum
        });
        bounds.zip(counts).collect()
    }
}
