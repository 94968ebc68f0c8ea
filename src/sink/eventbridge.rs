//! Puts records onto an event bus of Amazon EventBridge.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_eventbridge::Client;
use tokio::{
    sync::{Mutex, OnceCell},
    time::Instant,
};

use super::{
    About, Again, Connect, DeliverError, Failure, Sink, Summary,
    aws::{self, Batch, Service, TooLarge},
};
use crate::{
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record},
};

mod answer;
mod entry;
mod names;

use entry::{Entry, Labels};

/// What PutEvents takes.
const MAX_RECORDS: usize = 10;
/// What a request takes by default, and an entry alone.
const REQUEST_BYTES: usize = 1 << 20;
/// The most that it can be set to.
const MOST_BYTES: usize = 10 << 20;
/// Requests under way at once, which hides that each takes its time.
const WORKERS: usize = 8;
const MAX_WORKERS: usize = 64;
/// PutEvents also takes events for a bus that is not there, and drops them. So the bus is looked
/// for, and again once this time has passed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// An event bus.
///
/// Delivered means that the service has answered with an event id; which rules match is its own
/// business.
pub(super) struct EventBridge {
    bus: String,
    service: Service,
    labels: Labels,
    request_bytes: usize,
    workers: usize,
    format: Format,
    client: OnceCell<Client>,
    looked: Mutex<Looked>,
}

/// What was found out about the bus.
#[derive(Default)]
struct Looked {
    /// When it was last seen, or seen to be hidden from us, or could not be looked for again.
    seen: Option<Instant>,
    failed: Option<(Instant, Again, Arc<dyn Error + Send + Sync>)>,
}

impl Connect for EventBridge {
    const SUMMARY: Summary = Summary {
        delivered: "answered with an event id: the service has it, and matches it to the rules of \
                    the bus",
        duplicate: "`resources`, whose one entry is the CloudEvents `id`",
        set_by: &["SINK_EVENT_BUS_WORKERS", "SINK_EVENT_BUS_MAX_REQUEST_BYTES"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let bus = names::bus(env);
        let detail_type = names::detail_type(env);
        let source = names::source(env);
        let request_bytes =
            env.within("SINK_EVENT_BUS_MAX_REQUEST_BYTES", REQUEST_BYTES, MOST_BYTES);
        let workers = env.within("SINK_EVENT_BUS_WORKERS", WORKERS, MAX_WORKERS);
        let bus = bus?;
        let receiver = format!("EventBridge bus `{bus}`");
        Ok(Self {
            bus,
            service: Service { receiver, own: answer::meaning },
            labels: Labels { detail_type: detail_type?, source: source? },
            request_bytes: request_bytes?,
            workers: workers?,
            format,
            client: OnceCell::new(),
            looked: Mutex::default(),
        })
    }
}

#[async_trait]
impl Sink for EventBridge {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let Batch { positions, entries, mut failures } = Batch::of(records, |it| self.entry(it));
        if !entries.is_empty() {
            failures.extend(self.put(&positions, entries).await?);
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        Limits {
            calls: self.workers,
            records: MAX_RECORDS,
            bytes: self.request_bytes,
            beside: self.labels.beside() + self.format.beside(),
            // Any entry of a request can fail alone.
            one_per_key: true,
        }
    }

    fn about(&self) -> About {
        let untested = "not tested: `events:PutEvents`; whether the bus is there is only told with \
                        `events:DescribeEventBus`";
        About { at: format!("bus {}", self.bus), untested }
    }

    async fn check(&self) -> Result<(), DeliverError> {
        self.look(self.client().await?).await
    }
}

impl EventBridge {
    async fn client(&self) -> Result<&Client, DeliverError> {
        aws::client(&self.client, Client::new).await
    }

    /// Makes sure that the bus was there a short while ago, where we may know.
    async fn look(&self, client: &Client) -> Result<(), DeliverError> {
        let since = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.seen.is_some_and(|it| it.elapsed() < LOOK_AGAIN) {
            return Ok(());
        }
        // Those that waited for a look that failed do not each take one of their own.
        if let Some((at, again, source)) = &looked.failed
            && *at >= since
        {
            return Err(DeliverError::Unavailable { source: source.clone().into(), again: *again });
        }
        match client.describe_event_bus().name(&self.bus).send().await {
            Ok(_) => {}
            // Who may put events need not have this right, and has it seldom for another account.
            Err(err) if aws::is_denied(&err) => {}
            // It was there, and what keeps us from looking need not keep us from putting.
            Err(err) if looked.seen.is_some() && !aws::is_missing(&err) => {}
            Err(err) => {
                looked.seen = None;
                let err = self.service.unavailable("look for", err);
                let DeliverError::Unavailable { source, again } = err else { return Err(err) };
                let source: Arc<dyn Error + Send + Sync> = source.into();
                looked.failed = Some((Instant::now(), again, source.clone()));
                return Err(DeliverError::Unavailable { source: source.into(), again });
            }
        }
        looked.seen = Some(Instant::now());
        Ok(())
    }

    fn entry(&self, record: &Record) -> Result<Entry, BoxError> {
        let entry = Entry::of(record, self.format)?;
        let (size, most) = (entry.size(&self.labels), self.request_bytes);
        if size > most {
            return Err(
                TooLarge { size, most, variable: "SINK_EVENT_BUS_MAX_REQUEST_BYTES" }.into()
            );
        }
        Ok(entry)
    }

    /// Puts the records at these positions; which of them failed.
    async fn put(
        &self,
        positions: &[usize],
        entries: Vec<Entry>,
    ) -> Result<Vec<Failure>, DeliverError> {
        let client = self.client().await?;
        self.look(client).await?;
        let entries = entries.into_iter().map(|it| it.request(&self.labels, &self.bus)).collect();
        match client.put_events().set_entries(Some(entries)).send().await {
            Ok(answer) => {
                let answers = answer::about(answer.entries(), &self.service.receiver)?;
                Ok(self.service.failed_entries(positions, answers))
            }
            Err(err) => self.service.failed(positions, err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::tests::record, sink::FailureKind};

    fn sink(format: Format) -> EventBridge {
        let env = Env::from([
            ("SINK_EVENT_BUS_NAME", "nomad"),
            ("SINK_EVENT_BUS_DETAIL_TYPE", "Nomad"),
            ("SINK_EVENT_BUS_SOURCE", "example.nomad"),
        ]);
        let sink = EventBridge::from_env(&env, format);
        env.check(sink).unwrap()
    }

    #[test]
    fn a_record_that_is_too_large_with_what_is_beside_it_is_not_sent() {
        let sink = sink(Format::Payload);
        // This record has no time.
        let most = REQUEST_BYTES - "Nomad".len() - "example.nomad".len() - "nodes//n\"1/7/00".len();
        let records = [record("k", 1), record("k", most + 1), record("k", most)];
        let Batch { positions, entries, failures } = Batch::of(&records, |it| sink.entry(it));
        assert_eq!((positions, entries.len()), (vec![0, 2], 2));
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    /// A client of a service that nobody can reach.
    fn nobody() -> Client {
        let config = aws_sdk_eventbridge::Config::builder()
            .behavior_version(aws_sdk_eventbridge::config::BehaviorVersion::latest())
            .region(aws_sdk_eventbridge::config::Region::new("eu-west-1"))
            .retry_config(aws_sdk_eventbridge::config::retry::RetryConfig::disabled())
            .build();
        Client::from_conf(config)
    }

    #[tokio::test]
    async fn a_bus_that_was_there_is_put_to_where_it_cannot_be_looked_for() {
        let (sink, client) = (sink(Format::Payload), nobody());
        assert!(sink.look(&client).await.is_err());
        let long_ago = Instant::now().checked_sub(LOOK_AGAIN * 2).unwrap();
        sink.looked.lock().await.seen = Some(long_ago);
        assert!(sink.look(&client).await.is_ok());
        assert!(sink.looked.lock().await.seen.is_some_and(|it| it.elapsed() < LOOK_AGAIN));
    }

    #[tokio::test]
    async fn those_that_wait_for_a_look_that_fails_fail_with_it() {
        let (sink, client) = (sink(Format::Payload), nobody());
        let looked = sink.looked.lock().await;
        let waiting = sink.look(&client);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let mut looked = looked;
        looked.failed = Some((Instant::now(), Again::Soon, Arc::new(aws::NoRegion)));
        drop(looked);
        let Err(DeliverError::Unavailable { source, .. }) = waiting.await else { panic!() };
        assert!(source.to_string().contains("no AWS region is known"), "{source}");
    }

    #[test]
    fn ten_records_of_any_size_are_counted_as_the_service_counts_them() {
        for format in [Format::Payload, Format::CloudEvents] {
            let sink = sink(format);
            let mut record = record("k", 100);
            record.meta.time = Some("2026-01-01T00:00:00Z".into());
            let size = sink.entry(&record).unwrap().size(&sink.labels);
            assert!(size <= sink.limits().size(&record), "{format:?}: {size}");
        }
    }
}
