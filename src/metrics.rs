//! What is counted. One struct, passed in; nothing is global.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($(#[doc = $about:literal])+ $name:ident,)+) => {
        /// Everything that is counted, since the process began.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $about])+ pub $name: Counter,)+
        }

        impl Metrics {
            /// Every counter that is not zero, with its name, for the log.
            #[must_use]
            pub fn counted(&self) -> String {
                let all = [$((stringify!($name), self.$name.get())),+];
                let some = all.iter().filter(|(_, count)| *count > 0);
                some.map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
            }
        }
    };
}

metrics! {
    /// Records that the sink has confirmed.
    records_delivered,
    /// Bytes of their payloads.
    bytes_delivered,
    /// Calls to the sink that did not deliver everything and were made again.
    delivery_retries,
    /// Records that the sink can never take.
    records_rejected,
    /// Lists read to their end.
    lists_read,
    /// Requests to Nomad that failed and were made again.
    nomad_errors,
    /// Elements of lists that could not be read.
    bad_elements,
    /// Reads of objects that were listed and not found: mostly they were deleted in between.
    objects_missing,
    /// Tasks of which Nomad dropped events before they could be read.
    gaps,
    /// Lists of servers that lagged behind what had been read.
    stale_lists,
    /// Times that Nomad's index went back.
    index_regressions,
    /// Tails of task events that were dropped for want of space.
    tails_dropped,
    /// Checkpoints saved.
    checkpoints_saved,
    /// Checkpoints that could not be saved and were tried again.
    checkpoint_errors,
    /// Terms as the publisher.
    terms,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_named() {
        let metrics = Metrics::default();
        metrics.gaps.one();
        metrics.records_delivered.add(3);
        assert_eq!(metrics.counted(), "records_delivered=3 gaps=1");
    }
}
