//! Sends records to a queue of Amazon SQS.

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use tokio::sync::OnceCell;

use super::{
    About, Connect, DeliverError, Failure, Sink, Summary,
    aws::{self, Batch, Service, TooLarge},
};
use crate::{
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record},
};

mod answer;
mod message;
mod queue;

use message::Message;
use queue::{Group, Queue, QueueType};

/// What SendMessageBatch takes.
const MAX_RECORDS: usize = 10;
/// What a request takes by default, and a message alone.
const REQUEST_BYTES: usize = 1 << 20;
/// The most that it can be set to.
const MOST_BYTES: usize = 10 << 20;
/// What a record counts for beside its body: its attributes, or its envelope.
const BESIDE: usize = 1 << 10;
/// Requests under way at once, which hides that each takes its time.
const WORKERS: usize = 8;
const MAX_WORKERS: usize = 64;

/// A queue.
///
/// Delivered means that the service has answered with a message id: it has stored the message on
/// several servers.
pub(super) struct Sqs {
    queue: Queue,
    service: Service,
    /// How records are grouped, where the queue is a FIFO queue.
    group: Option<Group>,
    request_bytes: usize,
    workers: usize,
    format: Format,
    client: OnceCell<Client>,
    /// Where the queue is, once the service has told.
    url: OnceCell<String>,
}

impl Connect for Sqs {
    const SUMMARY: Summary = Summary {
        delivered: "answered with a message id: the service has stored it",
        duplicate: "the attribute `ce-id`, or the CloudEvents `id`; a FIFO queue drops what comes \
                    again within five minutes",
        set_by: &["SINK_SQS_WORKERS", "SINK_SQS_MAX_REQUEST_BYTES"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let queue = Queue::from_env(env);
        let group = Group::from_env(env, queue.as_ref().ok());
        let request_bytes = env.within("SINK_SQS_MAX_REQUEST_BYTES", REQUEST_BYTES, MOST_BYTES);
        let workers = env.within("SINK_SQS_WORKERS", WORKERS, MAX_WORKERS);
        let (queue, group) = (queue?, group?);
        let group = match queue.queue_type() {
            QueueType::Standard => None,
            QueueType::Fifo => Some(group),
        };
        let receiver = format!("SQS queue `{}`", queue.shown());
        Ok(Self {
            queue,
            service: Service { receiver, own: answer::meaning },
            group,
            request_bytes: request_bytes?,
            workers: workers?,
            format,
            client: OnceCell::new(),
            url: OnceCell::new(),
        })
    }
}

#[async_trait]
impl Sink for Sqs {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let Batch { positions, entries, mut failures } = Batch::of(records, |it| self.message(it));
        if !entries.is_empty() {
            failures.extend(self.send(&positions, entries).await?);
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        Limits {
            calls: self.workers,
            records: MAX_RECORDS,
            bytes: self.request_bytes,
            beside: BESIDE,
            // Any message of a request can fail alone, those of one group included.
            one_per_key: true,
        }
    }

    fn about(&self) -> About {
        let untested = "not tested: `sqs:SendMessage`; of a queue named by its URL, whether it is \
                        there is only told with `sqs:GetQueueAttributes`";
        About { at: format!("queue {}", self.queue.shown()), untested }
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let url = self.url().await?;
        match self.client().await?.get_queue_attributes().queue_url(url).send().await {
            Ok(_) => Ok(()),
            // Who may send need not have this right.
            Err(err) if aws::is_denied(&err) => Ok(()),
            Err(err) => Err(self.service.unavailable("look for", err)),
        }
    }
}

impl Sqs {
    async fn client(&self) -> Result<&Client, DeliverError> {
        aws::client(&self.client, Client::new).await
    }

    /// The URL of the queue, which stays the same if the queue is deleted and made again.
    async fn url(&self) -> Result<&str, DeliverError> {
        let name = match &self.queue {
            Queue::Url(url) => return Ok(url),
            Queue::Name(name) => name,
        };
        let url = self.url.get_or_try_init(|| async {
            let answer = self.client().await?.get_queue_url().queue_name(name).send().await;
            let answer = answer.map_err(|err| {
                let own = answer::meaning_of_looking;
                Service { own, ..self.service.clone() }.unavailable("look for", err)
            })?;
            answer.queue_url().map(str::to_owned).ok_or_else(|| {
                DeliverError::unavailable(answer::NoUrl { receiver: self.service.receiver.clone() })
            })
        });
        url.await.map(String::as_str)
    }

    fn message(&self, record: &Record) -> Result<Message, BoxError> {
        let message = Message::of(record, self.format, self.group)?;
        let (size, most) = (message.size(), self.request_bytes);
        if size > most {
            return Err(TooLarge { size, most, variable: "SINK_SQS_MAX_REQUEST_BYTES" }.into());
        }
        Ok(message)
    }

    /// Sends the records at these positions; which of them failed.
    async fn send(
        &self,
        positions: &[usize],
        messages: Vec<Message>,
    ) -> Result<Vec<Failure>, DeliverError> {
        let request = self.client().await?.send_message_batch().queue_url(self.url().await?);
        let entries = messages.into_iter().enumerate();
        let entries = entries.filter_map(|(number, message)| message.entry(number)).collect();
        match request.set_entries(Some(entries)).send().await {
            Ok(answer) => {
                let answers = answer::about(positions.len(), &answer);
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

    fn sqs(vars: &[(&str, &str)]) -> Result<Sqs, Vec<String>> {
        let env: Env = vars.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let sqs = Sqs::from_env(&env, Format::Payload);
        env.check(sqs).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_record_that_is_too_large_with_its_attributes_is_not_sent() {
        let sqs = sqs(&[("SINK_SQS_QUEUE_NAME", "events")]).unwrap();
        let beside = Message::of(&record("k", 1), Format::Payload, None).unwrap().size() - 1;
        let most = REQUEST_BYTES - beside;
        let records = [record("k", 1), record("k", most + 1), record("k", most)];
        let Batch { positions, entries, failures } = Batch::of(&records, |it| sqs.message(it));
        assert_eq!((positions, entries.len()), (vec![0, 2], 2));
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
        let text = failures[0].source.to_string();
        assert!(text.contains("SINK_SQS_MAX_REQUEST_BYTES allows 1048576"), "{text}");
    }

    #[test]
    fn only_a_fifo_queue_has_groups() {
        let group = |vars: &[(&str, &str)]| sqs(vars).map(|it| it.group);
        let (standard, fifo) =
            (("SINK_SQS_QUEUE_NAME", "events"), ("SINK_SQS_QUEUE_NAME", "events.fifo"));
        assert_eq!(group(&[standard]).unwrap(), None);
        assert_eq!(group(&[fifo]).unwrap(), Some(Group::Stream));
        assert_eq!(group(&[fifo, ("SINK_SQS_GROUP", "key")]).unwrap(), Some(Group::Key));
        let problems = group(&[standard, ("SINK_SQS_GROUP", "key")]).unwrap_err();
        assert!(problems[0].contains("is for FIFO queues"), "{problems:?}");
        let problems = group(&[fifo, ("SINK_SQS_GROUP", "job")]).unwrap_err();
        assert!(problems[0].contains("not one of: stream, key"), "{problems:?}");
    }
}
