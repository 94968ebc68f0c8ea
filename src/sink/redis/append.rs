//! Appends the records of one call, and waits for replicas.

use std::{sync::Arc, time::Duration};

use super::{
    Redis,
    answer::{Meaning, Refusal},
    call::{Entry, Outcome, Wait},
    link::{Answers, Link, LinkError},
    resp::{Answer, Commands},
};
use crate::sink::{DeliverError, Failure, FailureKind};

/// What the records and the replicas are, in what is said of refusals.
const RECORDS: &str = "the records";
const WAITING: &str = "to wait for replicas";
const TRANSACTION: &str = "a transaction";

/// What became of a call that was not appended as a whole, and of its connection.
pub(super) enum Unappended {
    /// The connection can be used again.
    Stay(DeliverError),
    /// It is of no use any more.
    Cut(DeliverError),
}

/// Records were not appended.
#[derive(Debug, thiserror::Error)]
#[error("cannot append to the {kind} `{key}`")]
pub(super) struct AppendError {
    kind: &'static str,
    key: String,
    #[source]
    source: LinkError,
}

/// Fewer replicas than are asked for have everything.
#[derive(Debug, thiserror::Error)]
#[error(
    "{got} of {} replicas have everything within {:?}; start them, raise \
     SINK_REDIS_WAIT_TIMEOUT, or lower SINK_REDIS_WAIT",
    .wait.replicas, .wait.timeout
)]
pub(super) struct TooFewReplicas {
    pub(super) got: usize,
    pub(super) wait: Wait,
}

/// Makes a transaction of nothing. Where there are none, each record of a call would be appended
/// by itself, and the call seem to be refused.
pub(super) async fn try_transaction(link: &mut Link) -> Result<(), LinkError> {
    let mut commands = Commands::one(&[b"MULTI"]);
    commands.add(&[b"EXEC"]);
    let Answers { list, lost } = link.ask(&commands, Duration::ZERO).await;
    for answer in &list {
        if let Answer::Refused(refusal) = answer {
            return Err(link.refused(TRANSACTION, refusal.clone()));
        }
    }
    match (&list[..], lost) {
        (_, Some(lost)) => Err(lost),
        ([Answer::Text(begun), Answer::List(done)], None) if begun == "OK" && done.is_empty() => {
            Ok(())
        }
        (_, None) => Err(link.strange(TRANSACTION)),
    }
}

impl Redis {
    /// Appends the entries of a call.
    pub(super) async fn append(
        &self,
        link: &mut Link,
        entries: &[Entry<'_>],
    ) -> Result<(), Unappended> {
        if let Some(wait) = self.wait.filter(|_| !link.replicas_follow) {
            // With too few replicas, every attempt would append all of it again.
            let mut commands = Commands::default();
            wait.add_to(&mut commands);
            let answers = link.ask(&commands, wait.timeout).await;
            self.follow(link, wait, answers)?;
        }
        let mut commands = self.mode.commands(&self.key, entries, self.format);
        let own = commands.count();
        let longer = self.wait.map_or(Duration::ZERO, |it| it.timeout);
        if let Some(wait) = self.wait {
            wait.add_to(&mut commands);
        }
        let Answers { mut list, lost } = link.ask(&commands, longer).await;
        let failed = match (self.mode.outcome(&list, entries.len()), lost) {
            (Outcome::Refused(refusal), lost) => {
                return Err(self.refused(link, entries, refusal, lost.is_none()));
            }
            (Outcome::Strange, _) | (Outcome::Unanswered, None) => {
                return Err(Unappended::Cut(self.unavailable(link.strange(RECORDS))));
            }
            (_, Some(lost)) => return Err(Unappended::Cut(self.unavailable(lost))),
            (Outcome::Taken, None) => Vec::new(),
            (Outcome::Partly(failed), None) => failed,
        };
        if let Some(wait) = self.wait {
            let list = list.split_off(own.min(list.len()));
            self.follow(link, wait, Answers { list, lost: None })?;
        }
        if failed.is_empty() {
            return Ok(());
        }
        let failure = |(at, refusal): (usize, Refusal)| Failure {
            position: entries[at].position,
            kind: FailureKind::Transient,
            source: self.failed(link.refused(RECORDS, refusal)).into(),
        };
        let failures = failed.into_iter().map(failure).collect();
        Err(Unappended::Cut(DeliverError::Failed(failures)))
    }

    /// Whether so many replicas have everything as are asked for.
    fn follow(
        &self,
        link: &mut Link,
        wait: Wait,
        Answers { mut list, lost }: Answers,
    ) -> Result<(), Unappended> {
        let err = match (list.pop(), lost) {
            (Some(Answer::Number(got)), _) => {
                let got = usize::try_from(got).unwrap_or_default();
                link.replicas_follow = got >= wait.replicas;
                if link.replicas_follow {
                    return Ok(());
                }
                // Asked again on this connection, Redis counts those that have what is appended.
                return Err(Unappended::Stay(DeliverError::unavailable(TooFewReplicas {
                    got,
                    wait,
                })));
            }
            (Some(Answer::Refused(refusal)), _) => link.refused(WAITING, refusal),
            (None, Some(lost)) => lost,
            (_, _) => link.strange(WAITING),
        };
        Err(Unappended::Cut(self.unavailable(err)))
    }

    /// Redis did nothing of a call, to all of which it has answered or not.
    fn refused(
        &self,
        link: &Link,
        entries: &[Entry<'_>],
        refusal: Refusal,
        answered: bool,
    ) -> Unappended {
        let meaning = refusal.meaning().0;
        let err = link.refused(RECORDS, refusal);
        let kind = match meaning {
            Meaning::Later(_) if answered => return Unappended::Stay(self.unavailable(err)),
            // An answer that is still to come would be taken for one to the next call.
            Meaning::Later(_) | Meaning::Elsewhere(_) => {
                return Unappended::Cut(self.unavailable(err));
            }
            Meaning::TooLarge if entries.len() == 1 => FailureKind::Rejected,
            Meaning::TooLarge => FailureKind::Suspect,
        };
        let source = Arc::new(self.failed(err));
        let failure =
            |it: &Entry<'_>| Failure { position: it.position, kind, source: source.clone().into() };
        Unappended::Cut(DeliverError::Failed(entries.iter().map(failure).collect()))
    }

    fn failed(&self, source: LinkError) -> AppendError {
        AppendError { kind: self.mode.name(), key: self.key.clone(), source }
    }

    /// Nothing was appended, and nothing can be now.
    pub(super) fn unavailable(&self, err: LinkError) -> DeliverError {
        let again = err.again();
        DeliverError::Unavailable { source: self.failed(err).into(), again }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        iter,
        net::TcpListener,
        sync::Mutex,
        thread,
    };

    use super::*;
    use crate::{
        env::Env,
        record::{Format, tests::record},
        sink::{Again, Connect, Sink},
    };

    /// A sink that adds to a stream. On each connection its peer says these one after the other,
    /// and the last one for ever, whatever it is sent; and what it is sent.
    fn answered(answers: &'static [&'static str]) -> (Redis, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let seen = sent.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut buffer) = (stream.unwrap(), vec![0; 64 << 10]);
                let mut answers = answers.iter().chain(iter::repeat(answers.last().unwrap()));
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    seen.lock().unwrap().extend_from_slice(&buffer[..read]);
                    // A connection that was cut meanwhile shows when it is read.
                    let _ = stream.write_all(answers.next().unwrap().as_bytes());
                }
            }
        });
        let env = Env::from([
            ("SINK_REDIS_URL", address.as_str()),
            ("SINK_REDIS_KEY", "events"),
            ("SINK_REDIS_MODE", "stream"),
        ]);
        let redis = Redis::from_env(&env, Format::Payload);
        (env.check(redis).ok().unwrap(), sent)
    }

    /// When to ask again, and why.
    fn unavailable(result: Result<(), DeliverError>) -> (Again, String) {
        match result {
            Err(DeliverError::Unavailable { source, again }) => {
                (again, crate::error::Chain(&*source).to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn where_there_are_no_transactions_no_record_is_sent() {
        for (answers, why) in [
            (&["-NOPERM no\r\n-ERR EXEC without MULTI\r\n"], "refused a transaction: NOPERM"),
            (&["+OK\r\n-NOPERM no\r\n"], "refused a transaction: NOPERM"),
            (&["+OK\r\n+OK\r\n"], "answered to a transaction as no Redis would"),
        ] {
            let (redis, sent) = answered(answers);
            for result in [redis.deliver(&[record("a", 1)]).await, redis.check().await] {
                let (again, said) = unavailable(result);
                assert!(again == Again::Seldom && said.contains(why), "{said}");
            }
            let sent = String::from_utf8(sent.lock().unwrap().clone()).unwrap();
            assert!(sent.contains("MULTI") && !sent.contains("XADD"), "{sent}");
        }
    }

    #[tokio::test]
    async fn a_connection_on_which_answers_are_missing_is_not_used_again() {
        let (redis, _) = answered(&["+OK\r\n*0\r\n", "+OK\r\n-OOM full\r\n?\r\n"]);
        for connections in 1..=2 {
            let (again, why) = unavailable(redis.deliver(&[record("a", 1)]).await);
            assert!(again == Again::Soon && why.contains("OOM full"), "{why}");
            assert_eq!(redis.connections(), Some(connections));
        }
    }
}
