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

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is this now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! metrics {
    ($($(#[doc = $about:literal])+ $name:ident,)+ gauges: $($(#[doc = $gauge_about:literal])+ $gauge:ident,)+) => {
        /// Everything that is counted, since the process began.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $about])+ pub $name: Counter,)+
            $($(#[doc = $gauge_about])+ pub $gauge: Gauge,)+
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
    /// Records that the filter has left out.
    records_filtered,
    /// Records of which the filter could not tell, and that were published.
    filter_errors,
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
    /// Subscriptions to the event stream.
    subscriptions,
    /// Subscriptions that could not be had, or were cut.
    stream_errors,
    /// Changes that a list has shown after the event stream had passed over them. Task events
    /// count as what they are, changes of objects as one each.
    missed_in_stream,
    /// Changes that a list has shown because the event stream no longer had them when it was
    /// subscribed to again.
    missed_between_streams,
    /// Tails of task events that were dropped for want of space.
    tails_dropped,
    /// Checkpoints saved.
    checkpoints_saved,
    /// Checkpoints that could not be saved and were tried again.
    checkpoint_errors,
    /// Terms as the publisher.
    terms,
    gauges:
    /// 1 while changes come from the event stream, 0 while they come from lists or do not come.
    streaming,
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
