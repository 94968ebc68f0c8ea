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
            (Outcome::Refused(refusal), _) => return Err(self.refused(link, entries, refusal)),
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

    /// Redis did nothing of a call.
    fn refused(&self, link: &Link, entries: &[Entry<'_>], refusal: Refusal) -> Unappended {
        let meaning = refusal.meaning().0;
        let err = link.refused(RECORDS, refusal);
        let kind = match meaning {
            Meaning::Later(_) => return Unappended::Stay(self.unavailable(err)),
            Meaning::Elsewhere(_) => return Unappended::Cut(self.unavailable(err)),
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
