//! What an error, or an answer, means.

use std::time::Duration;

use ::mongodb::{
    bson::{Bson, Document},
    error::{Error, ErrorKind},
};

use crate::sink::Again;

/// Characters that are shown of what a server or the library says.
const MOST_SHOWN: usize = 400;

/// The index that every collection has.
const ID_INDEX: &str = "_id_";

/// A command that failed as a whole.
#[derive(Debug, thiserror::Error)]
#[error("{doing} MongoDB {at}{hint}")]
pub(super) struct CallError {
    doing: &'static str,
    at: String,
    hint: &'static str,
    #[source]
    source: Said,
}

/// What a server or the library says, without what may be of a record.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(String);

/// A call without an end.
#[derive(Debug, thiserror::Error)]
#[error(
    "{doing} MongoDB {at}: no answer within {limit:?}; check the network and the load of the servers"
)]
pub(super) struct Late {
    pub(super) doing: &'static str,
    pub(super) at: String,
    pub(super) limit: Duration,
}

/// A document that was not inserted.
#[derive(Debug, thiserror::Error)]
#[error("MongoDB {at} did not take a record: {what}")]
pub(super) struct DocumentError {
    at: String,
    what: String,
}

/// Documents that were there, and are not any more.
#[derive(Debug, thiserror::Error)]
#[error("MongoDB {at} has {found} of {sent} documents that it said are there; they are sent again")]
pub(super) struct Unconfirmed {
    pub(super) at: String,
    pub(super) sent: usize,
    pub(super) found: usize,
}

/// Why there is no client.
pub(super) enum NotThere {
    Said(Error),
    Password(super::address::PasswordError),
}

/// What an error of a whole command means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Unavailable(Again),
    /// It is the documents.
    Refused,
}

/// What became of a document that was not inserted.
#[derive(Debug)]
pub(super) enum Outcome {
    /// One with its `_id` is there.
    There,
    Rejected(DocumentError),
    Failed(DocumentError),
    /// Somebody has to mend it, and it is not this document.
    Unusable(DocumentError),
}

const REACH: &str = "; check SINK_MONGODB_CONNECTION, the network, TLS, and that the replica set \
                     has a primary";
const LOGIN: &str = "; check the user, the password and authSource in SINK_MONGODB_CONNECTION, or \
                     SINK_MONGODB_PASSWORD_FILE";
const RIGHTS: &str = "; the user needs insert and update in this collection, as the role readWrite \
                      of its database gives them";
const MAJORITY: &str = "; too few members of the replica set have it, so that it could still be \
                        lost: see that a majority of them is up and not far behind";

const UNKNOWN: &str = "; it is tried again: where it stays so, see what this code says of the \
                       collection, its indexes and its shards";

impl CallError {
    pub(super) fn new(
        doing: &'static str,
        at: String,
        hint: &'static str,
        kind: &ErrorKind,
    ) -> Self {
        Self { doing, at, hint, source: Said(said(kind)) }
    }
}

/// Only what is known to have nothing of a document in it.
fn said(kind: &ErrorKind) -> String {
    let all = match kind {
        ErrorKind::Command(it) => format!("{} ({}): {}", it.code_name, it.code, it.message),
        kind => kind.to_string(),
    };
    let mut shown: String = all.chars().take(MOST_SHOWN).collect();
    if shown.len() < all.len() {
        shown.push_str("...");
    }
    shown
}

/// What an error means, and what the operator can do.
pub(super) fn meaning(kind: &ErrorKind) -> (Meaning, &'static str) {
    use Again::{Seldom, Soon};
    use Meaning::Unavailable;
    match kind {
        ErrorKind::Command(it) => command(it.code),
        ErrorKind::Authentication { .. } => (Unavailable(Seldom), LOGIN),
        // Whoever waited for the same connection is told in these words only.
        ErrorKind::ConnectionPoolCleared { message, .. } if message.contains(" failure: ") => {
            (Unavailable(Seldom), LOGIN)
        }
        ErrorKind::InvalidTlsConfig { .. } => (
            Unavailable(Seldom),
            "; check tlsCAFile and tlsCertificateKeyFile in SINK_MONGODB_CONNECTION",
        ),
        ErrorKind::InvalidArgument { .. } => {
            (Unavailable(Seldom), "; check the options in SINK_MONGODB_CONNECTION")
        }
        ErrorKind::IncompatibleServer { .. } => {
            (Unavailable(Seldom), "; it has to be MongoDB 4.4 or newer")
        }
        ErrorKind::DnsResolve { .. } => {
            (Unavailable(Soon), "; check the name in SINK_MONGODB_CONNECTION, and the name servers")
        }
        _ => (Unavailable(Soon), REACH),
    }
}

/// What the code of a command that failed means.
fn command(code: i32) -> (Meaning, &'static str) {
    use Again::{Seldom, Soon};
    use Meaning::{Refused, Unavailable};
    match code {
        18 => (Unavailable(Seldom), LOGIN),
        13 => (Unavailable(Seldom), RIGHTS),
        73 => (Unavailable(Seldom), "; check SINK_MONGODB_DATABASE and SINK_MONGODB_COLLECTION"),
        166 => (Unavailable(Seldom), "; it is a view: name a collection"),
        22 | 10334 => (Refused, "; a record is not as MongoDB wants it"),
        79 | 100 => (Unavailable(Seldom), MAJORITY),
        8000 | 14031 => {
            (Unavailable(Seldom), "; see whether the disk is full, or what was paid for is used up")
        }
        2 | 9 | 14 | 20 | 59 | 72 | 40415 => (
            Unavailable(Seldom),
            "; it does not take the command: it has to be MongoDB 4.4 or newer",
        ),
        // It is not the primary, or not for long; another one is asked next time.
        91 | 189 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436 => (
            Unavailable(Soon),
            "; it is not the primary of the replica set, and is not asked again \
                                 before there is one",
        ),
        _ => (Unavailable(Soon), ""),
    }
}

/// Whether addresses, passwords and certificates are to be read again.
pub(super) fn needs_another_client(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::Command(it) => it.code == 18,
        ErrorKind::ConnectionPoolCleared { message, .. } => message.contains(" failure: "),
        ErrorKind::Authentication { .. }
        | ErrorKind::InvalidTlsConfig { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Shutdown => true,
        _ => false,
    }
}

/// An error, and when to ask again.
pub(super) type Unsure = (DocumentError, Again);

/// What became of each of the documents that were not inserted; an error where it is not known that
/// a majority has the others, or where none was and somebody has to mend it.
pub(super) fn outcomes(
    reply: &Document,
    sent: usize,
    doing: &str,
    at: &str,
) -> Result<Vec<(usize, Outcome)>, Unsure> {
    concern(reply, doing, at)?;
    let errors: Vec<&Document> = errors(reply).collect();
    let inserted = number(reply.get("n")).unwrap_or_default();
    if inserted + errors.len() != sent {
        let what =
            format!("{doing}: it answered for {} of {sent} documents", inserted + errors.len());
        return Err((DocumentError { at: at.to_owned(), what }, Again::Soon));
    }
    let mut outcomes: Vec<_> =
        errors.into_iter().map(|it| outcome(it, sent, at)).collect::<Result<_, _>>()?;
    if sent > 0
        && outcomes.len() == sent
        && outcomes.iter().all(|(_, it)| matches!(it, Outcome::Unusable(_)))
        && let Some((_, Outcome::Unusable(err))) = outcomes.pop()
    {
        return Err((err, Again::Seldom));
    }
    Ok(outcomes)
}

/// How many documents an update has found.
pub(super) fn found(reply: &Document, doing: &str, at: &str) -> Result<usize, Unsure> {
    if let Some(err) = errors(reply).next() {
        let code = code(err);
        let (again, hint) = match command(code) {
            (Meaning::Unavailable(again), hint) => (again, hint),
            (Meaning::Refused, hint) => (Again::Soon, hint),
        };
        let what = format!("{doing}: code {code}{hint}");
        return Err((DocumentError { at: at.to_owned(), what }, again));
    }
    concern(reply, doing, at)?;
    Ok(number(reply.get("n")).unwrap_or_default())
}

/// That a majority has what was written; what the answer says otherwise.
fn concern(reply: &Document, doing: &str, at: &str) -> Result<(), Unsure> {
    let Ok(err) = reply.get_document("writeConcernError") else { return Ok(()) };
    let code = code(err);
    let again = match command(code) {
        (Meaning::Unavailable(again), _) => again,
        (Meaning::Refused, _) => Again::Soon,
    };
    let name = err.get_str("codeName").unwrap_or("write concern");
    let what = format!("{doing}: {name} ({code}){MAJORITY}");
    Err((DocumentError { at: at.to_owned(), what }, again))
}

fn errors(reply: &Document) -> impl Iterator<Item = &Document> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(Bson::as_document)
}

fn outcome(err: &Document, sent: usize, at: &str) -> Result<(usize, Outcome), Unsure> {
    let failed = |what: String| DocumentError { at: at.to_owned(), what };
    let code = code(err);
    let Some(index) = number(err.get("index")).filter(|it| *it < sent) else {
        let what = "it answered for a document that it was not sent".to_owned();
        return Err((failed(what), Again::Soon));
    };
    let outcome = match code {
        11000 | 11001 | 12582 if is_of_the_id(err) => Outcome::There,
        11000 | 11001 | 12582 => Outcome::Rejected(failed(format!(
            "a unique index other than that of `_id` has its value already ({code})"
        ))),
        121 => Outcome::Rejected(failed(format!("the collection's validator refuses it ({code})"))),
        2 | 9 | 14 | 15 | 22 | 52 | 53 | 55 | 57 | 66 | 10334 | 16755 | 17280 => {
            Outcome::Rejected(failed(format!("it cannot be stored as it is ({code})")))
        }
        61 | 171 | 16766 | 17261 | 17262 => Outcome::Rejected(failed(format!(
            "the shard key or an index of the collection cannot be of such a document ({code})"
        ))),
        _ => match command(code) {
            (Meaning::Unavailable(Again::Seldom), hint) => {
                Outcome::Unusable(failed(format!("code {code}{hint}")))
            }
            (_, "") => Outcome::Failed(failed(format!("code {code}{UNKNOWN}"))),
            (_, hint) => Outcome::Failed(failed(format!("code {code}{hint}"))),
        },
    };
    Ok((index, outcome))
}

/// Whether a duplicate is one of `_id`. What a server says of it ends in the document's own values.
fn is_of_the_id(err: &Document) -> bool {
    if let Ok(pattern) = err.get_document("keyPattern") {
        return pattern.len() == 1 && pattern.contains_key("_id");
    }
    let said = err.get_str("errmsg").unwrap_or_default();
    let said = said.split_once(" dup key:").map_or("", |(before, _)| before);
    said.rsplit(' ').next() == Some(ID_INDEX)
}

fn code(err: &Document) -> i32 {
    number(err.get("code")).and_then(|it| i32::try_from(it).ok()).unwrap_or_default()
}

/// A number of things, in whatever type it comes.
fn number(value: Option<&Bson>) -> Option<usize> {
    match value? {
        Bson::Int32(it) => usize::try_from(*it).ok(),
        Bson::Int64(it) => usize::try_from(*it).ok(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole")]
        Bson::Double(it) if it.fract() == 0.0 && (0.0..=1e9).contains(it) => Some(*it as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ::mongodb::bson::doc;

    use super::*;

    fn of(err: Document) -> Result<Outcome, Unsure> {
        let reply = doc! { "n": 1, "writeErrors": [err], "ok": 1 };
        outcomes(&reply, 2, "insert", "at").map(|mut it| it.remove(0).1)
    }

    #[test]
    fn only_a_duplicate_of_the_id_is_there_already() {
        let id = "E11000 duplicate key error collection: n.e index: _id_ dup key: { _id: \"a\" }";
        let other = "E11000 duplicate key error collection: n.e index: ID_1 dup key: \
                     { ID: \"index: _id_ dup key: \" }";
        let there = |it| matches!(of(it), Ok(Outcome::There));
        assert!(there(
            doc! { "index": 1, "code": 11000, "keyPattern": { "_id": 1 }, "errmsg": id }
        ));
        assert!(there(doc! { "index": 1, "code": 11000, "errmsg": id }));
        for err in [
            doc! { "index": 1, "code": 11000, "errmsg": other },
            doc! { "index": 1, "code": 11000 },
            doc! { "index": 1, "code": 11000, "keyPattern": { "ID": 1 }, "errmsg": id },
            doc! { "index": 1, "code": 11000, "keyPattern": { "_id": 1, "ID": 1 }, "errmsg": id },
        ] {
            assert!(matches!(of(err.clone()), Ok(Outcome::Rejected(_))), "{err}");
        }
    }

    #[test]
    fn what_nobody_knows_is_tried_again_and_what_has_to_be_mended_stops_everything() {
        assert!(matches!(of(doc! { "index": 0, "code": 133 }), Ok(Outcome::Failed(_))));
        assert!(matches!(of(doc! { "index": 0_i64, "code": 4_242_i64 }), Ok(Outcome::Failed(_))));
        assert!(matches!(of(doc! { "index": 0, "code": 121 }), Ok(Outcome::Rejected(_))));
        let of_an_index = [61, 171, 16766, 17261, 17262];
        for code in of_an_index {
            assert!(matches!(of(doc! { "index": 0, "code": code }), Ok(Outcome::Rejected(_))));
        }
        let Ok(Outcome::Failed(err)) = of(doc! { "index": 0, "code": 4_242 }) else { panic!() };
        assert!(err.to_string().contains("see what this code says"), "{err}");
    }

    #[test]
    fn a_right_that_is_missing_for_all_is_no_fault_of_a_document() {
        // Of two shards one has it.
        let denied = |index: i32| doc! { "index": index, "code": 13 };
        let Ok(Outcome::Unusable(err)) = of(denied(1)) else { panic!() };
        assert!(err.to_string().contains(RIGHTS), "{err}");
        let reply = doc! { "n": 0, "writeErrors": [denied(0), denied(1)], "ok": 1 };
        assert!(matches!(outcomes(&reply, 2, "insert", "at"), Err((_, Again::Seldom))));
    }

    #[test]
    fn an_update_that_fails_says_why() {
        let reply = doc! { "n": 0, "writeErrors": [{ "index": 0, "code": 13 }], "ok": 1 };
        let (err, again) = found(&reply, "confirm documents in", "at").unwrap_err();
        assert_eq!(again, Again::Seldom);
        assert!(err.to_string().contains("code 13; the user needs insert and update"), "{err}");
    }

    #[test]
    fn an_answer_that_does_not_say_that_a_majority_has_it_says_nothing() {
        let late = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "timed out" };
        let reply = doc! { "n": 2, "ok": 1, "writeConcernError": late };
        assert!(matches!(outcomes(&reply, 2, "insert", "at"), Err((_, Again::Soon))));
        assert!(found(&reply, "confirm", "at").is_err());
        for reply in [doc! { "n": 1, "ok": 1 }, doc! { "ok": 1 }] {
            assert!(outcomes(&reply, 2, "insert", "at").is_err(), "{reply}");
        }
        let beyond = doc! { "n": 1, "writeErrors": [{ "index": 7, "code": 121 }] };
        assert!(outcomes(&beyond, 2, "insert", "at").is_err());
        assert!(outcomes(&doc! { "n": 2.0, "ok": 1 }, 2, "insert", "at").unwrap().is_empty());
    }
}
