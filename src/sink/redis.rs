//! Appends records to a list or a stream of Redis: a server, what sentinels watch, or a cluster.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{About, Connect, DeliverError, Failure, FailureKind, Sink, Summary};
use crate::{
    env::{Env, Noted},
    record::{Format, Limits, Record},
};

mod address;
mod answer;
mod append;
mod call;
mod connect;
mod link;
mod resp;

use append::{TooFewReplicas, Unappended, try_transaction};
use call::{Entry, Mode, Wait};
use connect::{Way, within};
use link::{Link, LinkError};
use resp::Answer;

/// Records of one call, which Redis appends without doing anything else meanwhile.
const MAX_RECORDS: usize = 1024;
const MAX_BYTES: usize = 4 << 20;
/// What the attributes of an entry of a stream add to a payload, as a rule.
const BESIDE: usize = 1 << 10;
/// The most that a record may have: what Redis takes as one value, unless it is set up otherwise.
const RECORD_BYTES: usize = 512 << 20;
/// The most that it can be set to.
const MOST_BYTES: usize = 1 << 30;

/// A list or a stream.
///
/// Delivered means that Redis has answered to the command that appends the record, and that so
/// many replicas have it as are waited for.
pub(super) struct Redis {
    way: Way,
    key: String,
    mode: Mode,
    wait: Option<Wait>,
    record_bytes: usize,
    format: Format,
    link: Mutex<Option<Link>>,
    /// How many connections there have been to publish through.
    connected: AtomicU64,
}

/// A record that Redis would not take.
#[derive(Debug, thiserror::Error)]
#[error(
    "the record has {size} bytes, and SINK_REDIS_MAX_RECORD_BYTES allows {most}; raise it if \
     Redis's proto-max-bulk-len is larger"
)]
struct TooLarge {
    size: usize,
    most: usize,
}

/// The key holds what nothing of ours can be appended to.
#[derive(Debug, thiserror::Error)]
#[error(
    "the key `{key}` holds a {found}, and no {wanted}; check SINK_REDIS_KEY and SINK_REDIS_MODE"
)]
struct AnotherType {
    key: String,
    found: String,
    wanted: &'static str,
}

/// The node is not the one that takes records.
#[derive(Debug, thiserror::Error)]
#[error("Redis at {0} is a replica; name the master in SINK_REDIS_URL, or the sentinels")]
struct IsReplica(String);

impl Connect for Redis {
    const SUMMARY: Summary = Summary {
        delivered: "answered: Redis has it, and as many replicas as `SINK_REDIS_WAIT` asks for; \
                    whether a crash leaves it there is up to Redis's `appendfsync`",
        duplicate: "the CloudEvents `id`, in a stream the field `id`",
        set_by: &[],
    };

    fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let way = Way::from_env(env, address::from_env(env));
        let key = env.required::<String>("SINK_REDIS_KEY", "the name of a list or a stream");
        let mode = Mode::from_env(env);
        let wait = Wait::from_env(env);
        let record_bytes = env.within("SINK_REDIS_MAX_RECORD_BYTES", RECORD_BYTES, MOST_BYTES);
        Ok(Self {
            way: way?,
            key: key?,
            mode: mode?,
            wait: wait?,
            record_bytes: record_bytes?,
            format,
            link: Mutex::new(None),
            connected: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Sink for Redis {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let (entries, mut failures) = self.entries(records);
        if !entries.is_empty() {
            // There is one call at a time. Whoever drops it drops the connection, which is cut.
            let mut place = self.link.lock().await;
            let usable = place.as_mut().is_some_and(Link::is_usable);
            let mut link = match place.take().filter(|_| usable) {
                Some(link) => link,
                None => {
                    let link = self.connect().await?;
                    self.connected.fetch_add(1, Ordering::Relaxed);
                    link
                }
            };
            let appended = self.append(&mut link, &entries).await;
            if let Ok(()) | Err(Unappended::Stay(_)) = &appended {
                *place = Some(link);
            }
            match appended {
                Ok(()) => (),
                Err(Unappended::Cut(DeliverError::Failed(more))) => failures.extend(more),
                Err(Unappended::Stay(err) | Unappended::Cut(err)) => return Err(err),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(DeliverError::Failed(failures)) }
    }

    fn limits(&self) -> Limits {
        let beside = match self.mode {
            Mode::List => self.format.beside(),
            Mode::Stream { .. } => BESIDE,
        };
        // All records of a call are appended or none is, so that none can overtake another.
        Limits { calls: 1, records: MAX_RECORDS, bytes: MAX_BYTES, beside, one_per_key: false }
    }

    fn connections(&self) -> Option<u64> {
        Some(self.connected.load(Ordering::Relaxed))
    }

    async fn check(&self) -> Result<(), DeliverError> {
        let mut link = self.connect().await?;
        let node = link.node().to_string();
        let kind = link.tell(&[b"TYPE", self.key.as_bytes()], "to say what the key holds").await;
        if let Some(kind) = self.unless_forbidden(kind)?
            && let Some(found) = kind.text().filter(|it| ![self.mode.name(), "none"].contains(it))
        {
            let (key, found, wanted) = (self.key.clone(), found.to_owned(), self.mode.name());
            return Err(DeliverError::unusable(AnotherType { key, found, wanted }));
        }
        let role = link.tell(&[b"ROLE"], "to say what it is").await;
        let role = self.unless_forbidden(role)?;
        match role.as_ref().map(Answer::list) {
            Some([role, ..]) if role.text() == Some("slave") => {
                Err(DeliverError::unavailable(IsReplica(node)))
            }
            Some([_, _, Answer::List(replicas)]) => match self.wait {
                Some(wait) if replicas.len() < wait.replicas => {
                    Err(DeliverError::unavailable(TooFewReplicas { got: replicas.len(), wait }))
                }
                Some(_) | None => Ok(()),
            },
            Some(_) | None => Ok(()),
        }
    }

    fn about(&self) -> About {
        let at = format!("{}, {} {}", self.way.address, self.mode.name(), self.key);
        let untested = "not tested: whether the user may write to the key, and whether Redis has \
                        room";
        About { at, untested }
    }

    async fn close(&self) {
        // Everything was answered, so that there is nothing to say.
        drop(self.link.lock().await.take());
    }
}

impl Redis {
    async fn connect(&self) -> Result<Link, DeliverError> {
        let connected = async {
            let mut link = self.way.connect(&self.key).await?;
            if let Mode::Stream { .. } = self.mode {
                let node = link.node().clone();
                let tried = within(&node, try_transaction(&mut link)).await;
                tried.map_err(LinkError::at_the_door)?;
            }
            Ok(link)
        };
        connected.await.map_err(|err| self.unavailable(err))
    }

    /// What to append, and the records that are too large.
    fn entries<'a>(&self, records: &'a [Record]) -> (Vec<Entry<'a>>, Vec<Failure>) {
        let (mut entries, mut failures) = (Vec::new(), Vec::new());
        for (position, record) in records.iter().enumerate() {
            let data = record.encoded(self.format);
            if data.len() > self.record_bytes {
                let source = TooLarge { size: data.len(), most: self.record_bytes }.into();
                failures.push(Failure { position, kind: FailureKind::Rejected, source });
            } else {
                entries.push(Entry { position, record, data });
            }
        }
        (entries, failures)
    }

    /// What was answered, unless we may not ask.
    fn unless_forbidden(
        &self,
        asked: Result<Answer, LinkError>,
    ) -> Result<Option<Answer>, DeliverError> {
        match asked {
            Ok(answer) => Ok(Some(answer)),
            Err(LinkError::Refused { source, .. }) if source.is("NOPERM") => Ok(None),
            Err(err) => Err(self.unavailable(err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn redis(vars: &[(&str, &str)]) -> Result<Redis, Vec<String>> {
        let own = [("SINK_REDIS_URL", "redis://r"), ("SINK_REDIS_KEY", "events")];
        let env: Env = own.iter().chain(vars).map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let redis = Redis::from_env(&env, Format::Payload);
        env.check(redis).map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_record_that_is_too_large_is_not_sent() {
        let redis = redis(&[("SINK_REDIS_MAX_RECORD_BYTES", "10")]).unwrap();
        let records = [record("k", 1), record("k", 11), record("k", 10)];
        let (entries, failures) = redis.entries(&records);
        assert_eq!(entries.iter().map(|it| it.position).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((failures[0].position, failures[0].kind), (1, FailureKind::Rejected));
    }

    #[test]
    fn every_mistake_is_a_problem_at_once() {
        let problems = redis(&[
            ("SINK_REDIS_URL", "r:6379"),
            ("SINK_REDIS_KEY", ""),
            ("SINK_REDIS_MODE", "set"),
            ("SINK_REDIS_MAXLEN", "0"),
            ("SINK_REDIS_WAIT", "-1"),
            ("SINK_REDIS_WAIT_TIMEOUT", "0s"),
            ("SINK_REDIS_MAX_RECORD_BYTES", "0"),
            ("SINK_REDIS_PASSWORD_FILE", "/nowhere"),
            ("SINK_REDIS_CACERT", "/nowhere.pem"),
            ("SINK_REDIS_CLIENT_CERT", "/nowhere.pem"),
        ]);
        let problems = problems.err().unwrap().join("\n");
        for name in [
            "URL",
            "KEY",
            "MODE",
            "MAXLEN",
            "WAIT",
            "WAIT_TIMEOUT",
            "MAX_RECORD_BYTES",
            "PASSWORD_FILE",
            "CACERT",
            "CLIENT_KEY",
        ] {
            assert!(problems.contains(&format!("SINK_REDIS_{name}: ")), "{name}: {problems}");
        }
        assert!(redis(&[("SINK_REDIS_MAXLEN", "5")]).err().unwrap()[0].contains("is for streams"));
        let user = [("SINK_REDIS_URL", "redis://me@r")];
        assert!(redis(&user).err().unwrap()[0].contains("names a user and no password"));
        let file = [("SINK_REDIS_PASSWORD_FILE", "/nowhere")];
        assert!(
            redis(&file).err().unwrap()[0].contains("SINK_REDIS_PASSWORD_FILE: cannot be read")
        );
    }
}
