//! What a call comes to (pure).

use super::{
    answer::{Meaning, PublishError},
    link::LinkError,
};
use crate::{
    error::BoxError,
    sink::{Again, DeliverError, Failure, FailureKind},
};

/// What became of a message.
pub(super) type Settled = Result<(), (Meaning, PublishError)>;

/// What a call comes to, where the connection was lost or not. Messages may all have the same
/// subject.
pub(super) fn outcome(
    settled: Vec<Option<Settled>>,
    lost: Option<LinkError>,
    constant: bool,
) -> Result<(), DeliverError> {
    let count = settled.len();
    let mut failures = Vec::new();
    // When to ask again, as long as it is no single message that is at fault.
    let mut again = Some(Again::Seldom);
    for (position, settled) in settled.into_iter().enumerate() {
        let (kind, when, source): (_, _, BoxError) = match settled {
            Some(Ok(())) => continue,
            Some(Err((Meaning::Rejected, err))) => (FailureKind::Rejected, None, err.into()),
            Some(Err((Meaning::Subject, err))) => {
                let when = constant.then_some(Again::Seldom);
                (FailureKind::Transient, when, err.into())
            }
            Some(Err((Meaning::Server(when), err))) => {
                (FailureKind::Transient, Some(when), err.into())
            }
            None => {
                // Without a loss all are settled.
                let lost = lost.clone().unwrap_or(LinkError::Nowhere);
                (FailureKind::Transient, Some(lost.again()), lost.into())
            }
        };
        again = match (again, when) {
            (Some(Again::Seldom), when) => when,
            (again, Some(_)) => again,
            (_, None) => None,
        };
        failures.push(Failure { position, kind, source });
    }
    let all = failures.len() == count;
    match (failures.pop(), again) {
        (None, _) => Ok(()),
        (Some(last), Some(again)) if all => {
            Err(DeliverError::Unavailable { source: last.source, again })
        }
        (Some(last), _) => {
            failures.push(last);
            Err(DeliverError::Failed(failures))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(meaning: Meaning) -> Option<Settled> {
        Some(Err((meaning, PublishError::NoStream("s".into()))))
    }

    fn shown(settled: Vec<Option<Settled>>, lost: bool, constant: bool) -> String {
        let lost = lost.then(|| LinkError::Lost { server: "a:4222".into(), said: None });
        match outcome(settled, lost, constant) {
            Ok(()) => "delivered".into(),
            Err(DeliverError::Failed(failures)) => {
                let shown = |it: &Failure| format!("{} {:?}", it.position, it.kind);
                failures.iter().map(shown).collect::<Vec<_>>().join(", ")
            }
            Err(DeliverError::Unavailable { again, .. }) => format!("{again:?}"),
            Err(DeliverError::Fatal(_)) => "fatal".into(),
        }
    }

    #[test]
    fn what_was_acknowledged_is_delivered_whatever_becomes_of_the_others() {
        use Meaning::{Rejected, Server, Subject};
        let ok = || Some(Ok(()));
        assert_eq!(shown(vec![ok(), ok()], false, true), "delivered");
        assert_eq!(shown(vec![ok(), ok()], true, true), "delivered");
        assert_eq!(shown(vec![ok(), None], true, true), "1 Transient");
        assert_eq!(shown(vec![ok(), failed(Subject)], false, true), "1 Transient");
        let both = vec![failed(Rejected), failed(Server(Again::Soon))];
        assert_eq!(shown(both, false, true), "0 Rejected, 1 Transient");
        assert_eq!(shown(vec![failed(Rejected)], false, true), "0 Rejected");
    }

    #[test]
    fn where_everything_fails_it_is_the_receiver_unless_each_message_has_its_subject() {
        use Meaning::{Server, Subject};
        assert_eq!(shown(vec![None, None], true, false), "Soon");
        assert_eq!(shown(vec![failed(Subject), failed(Subject)], false, true), "Seldom");
        assert_eq!(shown(vec![failed(Subject)], false, false), "0 Transient");
        assert_eq!(shown(vec![failed(Server(Again::Seldom))], false, false), "Seldom");
        let both = vec![failed(Server(Again::Seldom)), failed(Server(Again::Soon))];
        assert_eq!(shown(both, false, false), "Soon");
        let both = vec![failed(Subject), None];
        assert_eq!(shown(both, true, true), "Soon");
    }
}
