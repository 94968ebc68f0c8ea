//! Puts records into a stream of Amazon Kinesis.

use async_trait::async_trait;
use aws_sdk_kinesis::{Client, primitives::Blob, types::PutRecordsRequestEntry};
use tokio::sync::OnceCell;

use super::{
    About, Connect, DeliverError, Failure, Sink, Summary,
    aws::{self, Batch, Service, TooLarge},
};
use crate::{
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record, shortened},
};

mod answer;

/// What PutRecords takes, in records and in characters of a partition key.
const MAX_RECORDS: usize = 500;
const MAX_KEY: usize = 256;
/// What every stream takes: a record with its partition key, and a request. The service takes more
/// where a stream is set up for it.
const RECORD_BYTES: usize = 1 << 20;
const REQUEST_BYTES: usize = 5 << 20;
/// The most that either can be set to.
const MOST_BYTES: usize = 10 << 20;
/// Requests under way at once, which hides that each takes its time.
const WORKERS: usize = 8;
const MAX_WORKERS: usize = 64;

/// A stream.
///
/// Delivered means that the service has answered with a sequence number: it has stored the record
/// in three places.
pub(super) struct Kinesis {
    stream: String,
    service: Service,
    partition_key: Option<String>,
    record_bytes: usize,
    request_bytes: usize,
    workers: usize,
    format: Format,
    client: OnceCell<Client>,
}

impl Connect for Kinesis {
    const SUMMARY: Summary = Summary {
        delivered: "answered with a sequence number: the service has stored it",
        duplicate: "the CloudEvents `id`",
        set_by: &["SINK_KINESIS_WORKERS", "SINK_KINESIS_MAX_REQUEST_BYTES"],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let stream = stream(env);
        let partition_key = env.optional::<String>("SINK_KINESIS_PARTITION_KEY");
        let partition_key = partition_key.and_then(|key| match key {
            Some(key) if key.chars().count() > MAX_KEY => {
                let what = format!("is longer than {MAX_KEY} characters");
                Err(env.note("SINK_KINESIS_PARTITION_KEY", what))
            }
            key => Ok(key),
        });
        let record_bytes = env.within("SINK_KINESIS_MAX_RECORD_BYTES", RECORD_BYTES, MOST_BYTES);
        let request_bytes = env.within("SINK_KINESIS_MAX_REQUEST_BYTES", REQUEST_BYTES, MOST_BYTES);
        let sizes = (record_bytes, request_bytes);
        let (record_bytes, request_bytes) = match sizes {
            (Ok(record), Ok(request)) if record > request => {
                let what = format!("`{record}` is more than SINK_KINESIS_MAX_REQUEST_BYTES");
                (Err(env.note("SINK_KINESIS_MAX_RECORD_BYTES", what)), Ok(request))
            }
            sizes => sizes,
        };
        let workers = env.within("SINK_KINESIS_WORKERS", WORKERS, MAX_WORKERS);
        let stream = stream?;
        let receiver = format!("Kinesis stream `{stream}`");
        Ok(Self {
            stream,
            service: Service { receiver, own: answer::meaning },
            partition_key: partition_key?,
            record_bytes: record_bytes?,
            request_bytes: request_bytes?,
            workers: workers?,
            format,
            client: OnceCell::new(),
        })
    }
}

/// A name or an ARN.
fn stream(env: &Env) -> Result<String, Noted> {
    let name = "SINK_KINESIS_STREAM_NAME";
    let stream: String = env.required(name, "the name or the ARN of a stream")?;
    let known = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-');
    let is_name = |it: &str| (1..=128).contains(&it.len()) && it.chars().all(known);
    let is_arn = match stream.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", partition, "kinesis", region, account, resource] => {
            let digits = account.len() == 12 && account.bytes().all(|it| it.is_ascii_digit());
            let name = resource.strip_prefix("stream/").is_some_and(is_name);
            !partition.is_empty() && !region.is_empty() && digits && name
        }
        _ => false,
    };
    if is_arn || is_name(&stream) {
        return Ok(stream);
    }
    let what = "is neither the name of a stream, of at most 128 letters, digits, `_`, `.` or `-`, \
                nor an ARN";
    Err(env.note(name, format!("`{stream}` {what}")))
}

#[async_trait]
impl Sink for Kinesis {
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
            beside: MAX_KEY + self.format.beside(),
            // Those of one shard can fail while those of another do not.
            one_per_key: true,
        }
    }

    fn about(&self) -> About {
        let untested = "not tested: `kinesis:PutRecords`; whether the stream is there is only told \
                        with `kinesis:DescribeStreamSummary`";
        About { at: format!("stream {}", self.stream), untested }
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let request = self.client().await?.describe_stream_summary();
        let request = match self.arn() {
            Some(arn) => request.stream_arn(arn),
            None => request.stream_name(&self.stream),
        };
        match request.send().await {
            Ok(_) => Ok(()),
            // Who may put records need not have this right.
            Err(err) if aws::is_denied(&err) => Ok(()),
            Err(err) => Err(self.service.unavailable("look for", err)),
        }
    }
}

impl Kinesis {
    async fn client(&self) -> Result<&Client, DeliverError> {
        aws::client(&self.client, Client::new).await
    }

    fn arn(&self) -> Option<&str> {
        self.stream.starts_with("arn:").then_some(self.stream.as_str())
    }

    fn entry(&self, record: &Record) -> Result<Entry, BoxError> {
        let key = match &self.partition_key {
            Some(key) => key.clone(),
            None => shortened(&record.key, MAX_KEY).into_owned(),
        };
        let entry = Entry { key, data: record.encoded(self.format) };
        let (size, most) = (entry.size(), self.record_bytes);
        if size > most {
            let variable = "SINK_KINESIS_MAX_RECORD_BYTES";
            return Err(TooLarge { size, most, variable }.into());
        }
        Ok(entry)
    }

    /// Puts the records at these positions; which of them failed.
    async fn put(
        &self,
        positions: &[usize],
        entries: Vec<Entry>,
    ) -> Result<Vec<Failure>, DeliverError> {
        let request = self.client().await?.put_records();
        let request = match self.arn() {
            Some(arn) => request.stream_arn(arn),
            None => request.stream_name(&self.stream),
        };
        let entries = entries.into_iter().filter_map(Entry::request).collect();
        match request.set_records(Some(entries)).send().await {
            Ok(answer) => {
                let answers = answer.records().iter().map(answer::about).collect();
                Ok(self.service.failed_entries(positions, answers))
            }
            Err(err) => self.service.failed(positions, err),
        }
    }
}

/// What one record becomes.
#[derive(Debug)]
struct Entry {
    key: String,
    data: bytes::Bytes,
}

impl Entry {
    fn size(&self) -> usize {
        self.key.len() + self.data.len()
    }

    /// `None` where a part is missing, which does not happen.
    fn request(self) -> Option<PutRecordsRequestEntry> {
        let entry = PutRecordsRequestEntry::builder();
        entry.partition_key(self.key).data(Blob::new(self.data)).build().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::tests::record, sink::FailureKind};

    fn kinesis(vars: &[(&str, &str)]) -> Result<Kinesis, String> {
        let name = [("SINK_KINESIS_STREAM_NAME", "events")];
        let vars = name.iter().chain(vars).map(|(k, v)| ((*k).into(), (*v).into()));
        let env: Env = vars.collect();
        let kinesis = Kinesis::from_env(&env, Format::Payload);
        env.check(kinesis).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn a_record_that_is_too_large_is_not_sent() {
        let kinesis = kinesis(&[]).unwrap();
        let most = RECORD_BYTES - 1;
        let records = [record("k", 1), record("k", most + 1), record("k", most)];
        let Batch { positions, entries, failures } = Batch::of(&records, |it| kinesis.entry(it));
        assert_eq!((positions, entries.len()), (vec![0, 2], 2));
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    #[test]
    fn the_partition_key_is_the_configured_one_or_that_of_the_record() {
        let own = kinesis(&[]).unwrap();
        assert_eq!(own.entry(&record("a", 1)).unwrap().key, "a");
        assert_eq!(own.entry(&record(&"k".repeat(300), 1)).unwrap().key.len(), MAX_KEY);
        let constant = kinesis(&[("SINK_KINESIS_PARTITION_KEY", "nomad")]).unwrap();
        assert_eq!(constant.entry(&record("a", 1)).unwrap().key, "nomad");
    }

    #[test]
    fn a_stream_is_a_name_or_an_arn() {
        for name in ["nomad_events.v1-a", "arn:aws:kinesis:eu-west-1:123456789012:stream/nomad"] {
            assert!(kinesis(&[("SINK_KINESIS_STREAM_NAME", name)]).is_ok(), "{name}");
        }
        for name in [
            "nomad events",
            "a/b",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/",
            "arn:aws:sqs:eu-west-1:123456789012:stream/nomad",
            "arn:aws:kinesis:eu-west-1:1:stream/nomad",
        ] {
            let problem = kinesis(&[("SINK_KINESIS_STREAM_NAME", name)]).err().unwrap();
            assert!(problem.contains("neither the name"), "{problem}");
        }
    }
}
