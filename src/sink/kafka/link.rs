//! A producer with connections of its own, that can be cut.

use std::{io, sync::Arc, time::Duration};

use krafka::{
    KrafkaError, Record,
    producer::{Acks, Producer, RecordMetadata},
};
use tokio::{
    runtime::{self, Runtime},
    task::JoinError,
    time::timeout,
};

use super::{
    CALL_BYTES, MAX_RECORDS,
    answer::Doing,
    settings::{PasswordError, Settings},
};

/// As brokers see us in their logs and quotas.
const CLIENT_ID: &str = "nomad-firehose";
/// How long a connection to one broker may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What a wait may take beyond the limits of the library before the library is taken for stuck.
const STUCK_LIMIT: Duration = Duration::from_secs(5);
/// What is known of the cluster is asked for again after this, and a connection is closed that was
/// idle for so long: Azure cuts those that are idle for 4 minutes, without a word.
const IDLE_LIMIT: Duration = Duration::from_secs(180);
/// Messages for one partition are sent in batches of this size.
const BATCH_BYTES: usize = 256 << 10;
/// What a request has beside the messages.
const REQUEST_BESIDE: usize = 4 << 10;
/// What a message counts for in the library beside its body, at most as a rule.
const MESSAGE_BESIDE: usize = 4 << 10;

/// A producer. Dropping it cuts its connections at once, whatever waits in them: the library has
/// no way to take a message back, and so it lives in a runtime of its own, which ends with it.
pub(super) struct Link {
    /// Before the producer, which would send what it still has.
    island: Island,
    producer: Arc<Producer>,
    settings: Arc<Settings>,
}

/// A runtime that ends at once when it is dropped, with everything in it.
struct Island(Option<Runtime>);

/// Why there is no producer, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("Kafka failed")]
    Kafka(Doing, #[source] KrafkaError),
    #[error(transparent)]
    Password(PasswordError),
    #[error("cannot start a thread for a Kafka producer")]
    Runtime(#[source] io::Error),
    #[error("Kafka did not let a producer in, or did not answer it, within {0:?}")]
    Slow(Duration),
    #[error("the client library for Kafka has ended; this is a defect in it")]
    Ended,
}

/// The same, with the brokers that it is about.
#[derive(Debug, thiserror::Error)]
#[error(
    "no answer from Kafka at {brokers}; check SINK_KAFKA_BROKERS, the network, and the addresses \
     that the brokers advertise"
)]
pub(super) struct Unanswered {
    brokers: String,
    #[source]
    source: LinkError,
}

impl LinkError {
    pub(super) fn at(self, brokers: String) -> Unanswered {
        Unanswered { brokers, source: self }
    }
}

impl Link {
    /// Connects to the cluster, and gets the identity by which brokers tell duplicates apart.
    pub(super) async fn connect(settings: &Arc<Settings>) -> Result<Self, LinkError> {
        let security = settings.security().map_err(LinkError::Password)?;
        let island = Island::new().map_err(LinkError::Runtime)?;
        let set = settings.clone();
        // It first finds a broker, and then asks it for an identity.
        let limit = settings.timeout * 2 + STUCK_LIMIT;
        let opening = island.run(limit, async move {
            let kafka = krafka::Kafka::builder(&set.brokers)
                .client_id(CLIENT_ID)
                .security(security)
                .request_timeout(set.timeout)
                .connect_timeout(CONNECT_LIMIT.min(set.timeout))
                .metadata_max_age(IDLE_LIMIT)
                .connections_max_idle(Some(IDLE_LIMIT))
                .connect()
                .await?;
            kafka
                .producer()
                .acks(Acks::All)
                .idempotent(set.idempotent)
                // What there is to send is there at once, and the library can be kept neither from
                // trying again nor from waiting, but only from doing so for longer.
                .linger(Duration::ZERO)
                .delivery_timeout(set.timeout)
                .max_block(set.timeout)
                .batch_size(BATCH_BYTES.min(set.message_bytes))
                .max_request_size(set.message_bytes + REQUEST_BESIDE)
                .buffer_memory(CALL_BYTES + MAX_RECORDS * MESSAGE_BESIDE + set.message_bytes)
                .metrics_push(false)
                .build()
                .await
        });
        let producer = opening.await?.map_err(|err| LinkError::Kafka(Doing::Connect, err))?;
        Ok(Self { producer: Arc::new(producer), island, settings: settings.clone() })
    }

    /// Asks whether the topic is there.
    pub(super) async fn find(&self) -> Result<(), LinkError> {
        let (producer, settings) = (self.producer.clone(), self.settings.clone());
        let limit = settings.timeout + STUCK_LIMIT;
        let finding =
            self.island.run(limit, async move { producer.partitions_for(&settings.topic).await });
        finding.await?.map(drop).map_err(|err| LinkError::Kafka(Doing::Find, err))
    }

    /// Produces messages; what became of each of them.
    ///
    /// Where this is dropped, the link is to be dropped with it.
    pub(super) async fn produce(
        &self,
        messages: Vec<Record>,
    ) -> Result<Vec<Result<RecordMetadata, KrafkaError>>, LinkError> {
        let producer = self.producer.clone();
        let count = messages.len();
        // It first looks for the topic, and then waits for the answers.
        let limit = self.settings.timeout * 2 + STUCK_LIMIT;
        let sending = self.island.run(limit, async move {
            let mut sent = Vec::with_capacity(messages.len());
            for message in messages {
                match producer.enqueue(message).await {
                    Ok(handle) => sent.push(handle),
                    // What keeps one from being handed over keeps the next one from it as well.
                    Err(err) => return (sent, Some(err)),
                }
            }
            (sent, None)
        });
        let (sent, failed) = sending.await?;
        let mut answers = Vec::with_capacity(count);
        let waiting = async {
            for handle in sent {
                answers.push(handle.await);
            }
        };
        timeout(limit, waiting).await.map_err(|_| LinkError::Slow(limit))?;
        let rest = failed.unwrap_or_else(|| KrafkaError::illegal_state("it was not sent"));
        answers.resize_with(count, || Err(rest.clone()));
        Ok(answers)
    }
}

impl Island {
    fn new() -> io::Result<Self> {
        let mut builder = runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("kafka").enable_all();
        Ok(Self(Some(builder.build()?)))
    }

    /// Runs something in it, for so long at most.
    async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        what: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, LinkError> {
        let runtime = self.0.as_ref().ok_or(LinkError::Ended)?;
        match timeout(limit, runtime.spawn(what)).await {
            Ok(done) => done.map_err(|_: JoinError| LinkError::Ended),
            Err(_) => Err(LinkError::Slow(limit)),
        }
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
