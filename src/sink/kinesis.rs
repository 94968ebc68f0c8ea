//! Puts records into a stream of Amazon Kinesis.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kinesis::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::put_records::{PutRecordsError, PutRecordsOutput},
    primitives::Blob,
    types::{PutRecordsRequestEntry, PutRecordsResultEntry},
};
use tokio::sync::OnceCell;

use super::{About, Connect, DeliverError, Failure, FailureKind, Sink, Summary, aws};
use crate::{
    env::{Env, Noted},
    error::BoxError,
    record::{Format, Limits, Record, shortened},
};

mod answer;

use answer::{EntryError, Miscounted, PutError, meaning};
use aws::Meaning;

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
    partition_key: Option<String>,
    record_bytes: usize,
    request_bytes: usize,
    workers: usize,
    format: Format,
    client: OnceCell<Client>,
}

/// A record that no stream takes.
#[derive(Debug, thiserror::Error)]
#[error(
    "the record has {size} bytes with its key, and SINK_KINESIS_MAX_RECORD_BYTES allows {most}; \
     raise it if the stream takes more"
)]
struct TooLarge {
    size: usize,
    most: usize,
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
        Ok(Self {
            stream: stream?,
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
        let (positions, entries, mut failures) = self.entries(records);
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
            Err(err) if err.code() == Some("AccessDeniedException") => Ok(()),
            Err(err) => Err(DeliverError::unavailable(err)),
        }
    }
}

impl Kinesis {
    /// The client, once there is a region: the machine that tells it may not be there at first.
    async fn client(&self) -> Result<&Client, DeliverError> {
        self.client
            .get_or_try_init(|| async {
                aws::config().await.map(|it| Client::new(&it)).map_err(DeliverError::unusable)
            })
            .await
    }

    fn arn(&self) -> Option<&str> {
        self.stream.starts_with("arn:").then_some(self.stream.as_str())
    }

    /// What to put, the positions of its records, and those that are too large.
    fn entries(&self, records: &[Record]) -> (Vec<usize>, Vec<Entry>, Vec<Failure>) {
        let (mut positions, mut entries, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            let entry = self.entry(record);
            if entry.size() > self.record_bytes {
                let source = TooLarge { size: entry.size(), most: self.record_bytes }.into();
                failures.push(Failure { position, kind: FailureKind::Rejected, source });
            } else {
                positions.push(position);
                entries.push(entry);
            }
        }
        (positions, entries, failures)
    }

    fn entry(&self, record: &Record) -> Entry {
        let key = match &self.partition_key {
            Some(key) => key.clone(),
            None => shortened(&record.key, MAX_KEY).into_owned(),
        };
        Entry { key, data: record.encoded(self.format) }
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
            Ok(answer) => Ok(self.failed_entries(positions, &answer)),
            Err(err) => self.failed(positions, err),
        }
    }

    /// The records that failed although the request did not.
    fn failed_entries(&self, positions: &[usize], answer: &PutRecordsOutput) -> Vec<Failure> {
        let results = answer.records();
        let failed = |position: &usize, source: BoxError| Failure {
            position: *position,
            kind: FailureKind::Transient,
            source,
        };
        if results.len() != positions.len() {
            let (sent, answered) = (positions.len(), results.len());
            let miscounted = |it| failed(it, Miscounted { sent, answered }.into());
            return positions.iter().map(miscounted).collect();
        }
        let stored =
            |it: &PutRecordsResultEntry| it.sequence_number().is_some_and(|it| !it.is_empty());
        let pairs = positions.iter().zip(results);
        pairs
            .filter(|(_, it)| it.error_code().is_some() || !stored(it))
            .map(|(position, it)| {
                let code = it.error_code().unwrap_or("no sequence number").to_owned();
                failed(position, EntryError { stream: self.stream.clone(), code }.into())
            })
            .collect()
    }

    /// The request failed as a whole.
    fn failed(
        &self,
        positions: &[usize],
        err: SdkError<PutRecordsError>,
    ) -> Result<Vec<Failure>, DeliverError> {
        let (meaning, hint) = meaning(&err);
        let source = Arc::new(PutError { stream: self.stream.clone(), hint, source: err });
        let kind = match meaning {
            Meaning::Unavailable(again) => {
                return Err(DeliverError::Unavailable { source: source.into(), again });
            }
            Meaning::Refused if positions.len() == 1 => FailureKind::Rejected,
            Meaning::Refused => FailureKind::Suspect,
        };
        let failure =
            |position: &usize| Failure { position: *position, kind, source: source.clone().into() };
        Ok(positions.iter().map(failure).collect())
    }
}

/// What one record becomes.
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
    use crate::record::tests::record;

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
        let (positions, entries, failures) = kinesis.entries(&records);
        assert_eq!((positions, entries.len()), (vec![0, 2], 2));
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    #[test]
    fn the_partition_key_is_the_configured_one_or_that_of_the_record() {
        let own = kinesis(&[]).unwrap();
        assert_eq!(own.entry(&record("a", 1)).key, "a");
        assert_eq!(own.entry(&record(&"k".repeat(300), 1)).key.len(), MAX_KEY);
        let constant = kinesis(&[("SINK_KINESIS_PARTITION_KEY", "nomad")]).unwrap();
        assert_eq!(constant.entry(&record("a", 1)).key, "nomad");
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
