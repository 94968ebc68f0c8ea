//! What becomes of the records of a request, by what the service answers.

use std::{fmt::Debug, sync::Arc};

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::{Answer, Hint, Meaning, meaning};
use crate::{
    error::BoxError,
    sink::{Again, DeliverError, Failure, FailureKind},
};

/// A receiver of Amazon, as errors speak of it.
#[derive(Clone, Debug)]
pub(in crate::sink) struct Service {
    /// What it is and its name.
    pub(in crate::sink) receiver: String,
    /// What those codes mean that only this service has.
    pub(in crate::sink) own: fn(&str) -> Option<Hint>,
}

/// A request failed as a whole.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    /// What the service says beside its code may quote a record, and is left out.
    #[error("put records into {receiver}: {code}{hint}")]
    Refused { receiver: String, code: String, hint: &'static str },
    #[error("{doing} {receiver}{hint}")]
    Unavailable {
        doing: &'static str,
        receiver: String,
        hint: &'static str,
        #[source]
        source: BoxError,
    },
}

/// A record of a request that failed while others did not.
#[derive(Debug, thiserror::Error)]
#[error("{receiver} did not take a record: {code}")]
struct EntryError {
    receiver: String,
    code: String,
}

/// An answer that does not fit its request.
#[derive(Debug, thiserror::Error)]
#[error("{receiver} answered for {answered} of {sent} records")]
struct Miscounted {
    receiver: String,
    sent: usize,
    answered: usize,
}

impl Service {
    /// What becomes of the records at these positions, since the request with them failed as a
    /// whole.
    pub(in crate::sink) fn failed<E, R>(
        &self,
        positions: &[usize],
        err: SdkError<E, R>,
    ) -> Result<Vec<Failure>, DeliverError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        let (Meaning::Refused, hint) = meaning(&err, self.own) else {
            return Err(self.unavailable("put records into", err));
        };
        let (receiver, code) = (self.receiver.clone(), err.code().unwrap_or_default().to_owned());
        let source = Arc::new(RequestError::Refused { receiver, code, hint });
        let kind = if positions.len() == 1 { FailureKind::Rejected } else { FailureKind::Suspect };
        let failure = |it: &usize| Failure { position: *it, kind, source: source.clone().into() };
        Ok(positions.iter().map(failure).collect())
    }

    /// A request could not be made that has no records, or that cannot be made with any.
    pub(in crate::sink) fn unavailable<E, R>(
        &self,
        doing: &'static str,
        err: SdkError<E, R>,
    ) -> DeliverError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        let (meaning, hint) = meaning(&err, self.own);
        let again = match meaning {
            Meaning::Unavailable(again) => again,
            Meaning::Refused => Again::Seldom,
        };
        let receiver = self.receiver.clone();
        let source = RequestError::Unavailable { doing, receiver, hint, source: err.into() };
        DeliverError::Unavailable { source: source.into(), again }
    }

    /// The records at these positions that failed although their request did not; there is an
    /// answer for each, in their order.
    pub(in crate::sink) fn failed_entries(
        &self,
        positions: &[usize],
        answers: Vec<Answer>,
    ) -> Vec<Failure> {
        let (sent, answered) = (positions.len(), answers.len());
        if sent != answered {
            let kind = FailureKind::Transient;
            let miscounted = || Miscounted { receiver: self.receiver.clone(), sent, answered };
            let failure = |it: &usize| Failure { position: *it, kind, source: miscounted().into() };
            return positions.iter().map(failure).collect();
        }
        let pairs = positions.iter().zip(answers);
        let failed = pairs.filter_map(|(position, answer)| match answer {
            Answer::Stored => None,
            Answer::Failed(kind, code) => {
                let source = EntryError { receiver: self.receiver.clone(), code }.into();
                Some(Failure { position: *position, kind, source })
            }
        });
        failed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service { receiver: "queue `x`".into(), own: |_| None }
    }

    #[test]
    fn only_what_failed_is_named() {
        let answers = vec![
            Answer::Stored,
            Answer::Failed(FailureKind::Transient, "Busy".into()),
            Answer::Failed(FailureKind::Rejected, "Malformed".into()),
        ];
        let failed = service().failed_entries(&[1, 4, 7], answers);
        let failed: Vec<_> =
            failed.iter().map(|it| (it.position, it.kind, it.source.to_string())).collect();
        let text = |code| format!("queue `x` did not take a record: {code}");
        assert_eq!(
            failed,
            [
                (4, FailureKind::Transient, text("Busy")),
                (7, FailureKind::Rejected, text("Malformed"))
            ]
        );
    }

    #[test]
    fn an_answer_for_another_number_of_records_is_for_none_of_them() {
        let failed = service().failed_entries(&[1, 4], vec![Answer::Stored]);
        assert_eq!(failed.iter().map(|it| it.position).collect::<Vec<_>>(), [1, 4]);
        assert!(failed.iter().all(|it| it.kind == FailureKind::Transient));
        assert_eq!(failed[0].source.to_string(), "queue `x` answered for 1 of 2 records");
    }
}
