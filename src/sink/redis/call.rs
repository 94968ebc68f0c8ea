//! What a call asks of Redis, and what its answers make of the records.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;

use super::{
    answer::Refusal,
    resp::{Answer, Commands},
};
use crate::{
    env::{Env, Noted},
    record::{Format, Record},
};

/// More replicas to wait for than this are a mistake.
const MAX_REPLICAS: usize = 100;
/// How long replicas are waited for, and the most that can be set.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_WAIT_TIMEOUT: Duration = Duration::from_secs(30);

const MODE: &str = "SINK_REDIS_MODE";
const MAXLEN: &str = "SINK_REDIS_MAXLEN";
const WAIT: &str = "SINK_REDIS_WAIT";
const TIMEOUT: &str = "SINK_REDIS_WAIT_TIMEOUT";

/// What the key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A list, at whose end each record is an element.
    List,
    /// A stream in which each record is an entry, and about how many it keeps.
    Stream { keeps: Option<u64> },
}

/// The replicas that have to have everything before it counts as delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) replicas: usize,
    pub(super) timeout: Duration,
}

/// A record of a call.
pub(super) struct Entry<'a> {
    /// Where it is among the records that are to be delivered.
    pub(super) position: usize,
    pub(super) record: &'a Record,
    pub(super) data: Bytes,
}

/// What became of the entries of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    /// None was.
    Refused(Refusal),
    /// These were not; the others were.
    Partly(Vec<(usize, Refusal)>),
    Unanswered,
    Strange,
}

impl Mode {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let keeps = env.optional::<u64>(MAXLEN);
        let keeps = keeps.and_then(|it| match it {
            Some(0) => Err(env.note(MAXLEN, "is zero: the stream could keep nothing")),
            it => Ok(it),
        });
        match env.or(MODE, "list".to_owned())?.as_str() {
            "stream" => Ok(Self::Stream { keeps: keeps? }),
            "list" => match keeps? {
                None => Ok(Self::List),
                Some(_) => Err(env.note(MAXLEN, format!("is for streams: {MODE} is `list`"))),
            },
            other => Err(env.note(MODE, format!("`{other}` is not one of: list, stream"))),
        }
    }

    /// What `TYPE` says of such a key.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Stream { .. } => "stream",
        }
    }

    /// The commands that append these entries, all or none.
    pub(super) fn commands(self, key: &str, entries: &[Entry<'_>], format: Format) -> Commands {
        let mut commands = Commands::default();
        match self {
            Self::List => {
                commands.begin(2 + entries.len());
                commands.part(b"RPUSH");
                commands.part(key.as_bytes());
                entries.iter().for_each(|it| commands.part(&it.data));
            }
            Self::Stream { keeps } => {
                commands.add(&[b"MULTI"]);
                for entry in entries {
                    add_entry(&mut commands, key, keeps, &entry.fields(format));
                }
                commands.add(&[b"EXEC"]);
            }
        }
        commands
    }

    /// How many answers there are to the commands that append so many entries.
    pub(super) fn answers(self, count: usize) -> usize {
        match self {
            Self::List => 1,
            Self::Stream { .. } => count + 2,
        }
    }

    /// What the answers to these commands, or as many as there were, say of so many entries.
    pub(super) fn outcome(self, answers: &[Answer], count: usize) -> Outcome {
        let answers = &answers[..answers.len().min(self.answers(count))];
        // The first one says why; what follows is that nothing was done.
        let refused = |it: &Answer| match it {
            Answer::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        };
        // Within a transaction nothing has an id before its end.
        if matches!(self, Self::Stream { .. })
            && answers.iter().any(|it| matches!(it, Answer::Value(_)))
        {
            return Outcome::Strange;
        }
        if let Some(refusal) = answers.iter().find_map(refused) {
            return Outcome::Refused(refusal);
        }
        match (self, answers.last()) {
            _ if answers.len() < self.answers(count) => Outcome::Unanswered,
            (Self::List, Some(Answer::Number(length)))
                if usize::try_from(*length).is_ok_and(|it| it >= count) =>
            {
                Outcome::Taken
            }
            (Self::Stream { .. }, Some(Answer::List(list))) if list.len() == count => {
                let each = list.iter().enumerate();
                let failed: Vec<_> = each.filter_map(|(at, it)| Some((at, refused(it)?))).collect();
                let taken = list.iter().filter(|it| it.text().is_some()).count();
                match failed.first() {
                    _ if taken + failed.len() != count => Outcome::Strange,
                    None => Outcome::Taken,
                    Some((_, refusal)) if taken == 0 => Outcome::Refused(refusal.clone()),
                    Some(_) => Outcome::Partly(failed),
                }
            }
            _ => Outcome::Strange,
        }
    }
}

impl Wait {
    /// `None` where no replica is waited for.
    pub(super) fn from_env(env: &Env) -> Result<Option<Self>, Noted> {
        let replicas = env.or(WAIT, 0).and_then(|it: usize| match it {
            ..=MAX_REPLICAS => Ok(it),
            _ => Err(env.note(WAIT, format!("`{it}` is not 0 to {MAX_REPLICAS}"))),
        });
        let timeout = env.duration(TIMEOUT, WAIT_TIMEOUT).and_then(|it| {
            // Redis takes zero for ever, and counts in milliseconds.
            let known = Duration::from_millis(1)..=MAX_WAIT_TIMEOUT;
            if known.contains(&it) {
                return Ok(it);
            }
            Err(env.note(TIMEOUT, format!("is not 1ms to {}s", MAX_WAIT_TIMEOUT.as_secs())))
        });
        let (replicas, timeout) = (replicas?, timeout?);
        Ok((replicas > 0).then_some(Self { replicas, timeout }))
    }

    /// Adds the command that waits for all that was sent before it on the connection.
    pub(super) fn add_to(self, commands: &mut Commands) {
        let (replicas, timeout) = (self.replicas.to_string(), self.timeout.as_millis().to_string());
        commands.add(&[b"WAIT", replicas.as_bytes(), timeout.as_bytes()]);
    }
}

impl Entry<'_> {
    /// The names and the values of an entry of a stream.
    fn fields(&self, format: Format) -> Vec<(&'static str, Cow<'_, [u8]>)> {
        let bytes = |text| match text {
            Cow::Borrowed(text) => Cow::Borrowed(str::as_bytes(text)),
            Cow::Owned(text) => Cow::Owned(String::into_bytes(text)),
        };
        let attributes = self.record.meta.attributes();
        let attributes = attributes.filter(|(name, _)| format == Format::Payload || *name == "id");
        let mut fields: Vec<_> = attributes.map(|(name, text)| (name, bytes(text))).collect();
        fields.push(("datacontenttype", Cow::Borrowed(format.media_type().as_bytes())));
        fields.push(("data", Cow::Borrowed(&self.data)));
        fields
    }
}

fn add_entry(
    commands: &mut Commands,
    key: &str,
    keeps: Option<u64>,
    fields: &[(&'static str, Cow<'_, [u8]>)],
) {
    let most = keeps.map(|it| it.to_string());
    let trimming = if most.is_some() { 3 } else { 0 };
    commands.begin(3 + trimming + 2 * fields.len());
    commands.part(b"XADD");
    commands.part(key.as_bytes());
    if let Some(most) = &most {
        [&b"MAXLEN"[..], b"~", most.as_bytes()].iter().for_each(|it| commands.part(it));
    }
    commands.part(b"*");
    for (name, value) in fields {
        commands.part(name.as_bytes());
        commands.part(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    const STREAM: Mode = Mode::Stream { keeps: None };

    fn commands(mode: Mode, format: Format) -> Vec<String> {
        let records = [record("a", 1), record("b", 2)];
        let entry = |(position, record)| {
            let data = Record::encoded(record, Format::Payload);
            Entry { position, record, data }
        };
        let entries: Vec<_> = records.iter().enumerate().map(entry).collect();
        let commands = mode.commands("k", &entries, format);
        assert_eq!(commands.count(), mode.answers(2));
        let text = String::from_utf8(commands.bytes().to_vec()).unwrap();
        let commands = text.split('*').filter(|it| it.contains('$'));
        // Every second line is a length.
        let parts = |it: &str| it.lines().skip(2).step_by(2).collect::<Vec<_>>().join(" ");
        commands.map(parts).collect()
    }

    #[test]
    fn a_call_is_one_command_for_a_list_and_a_transaction_for_a_stream() {
        assert_eq!(commands(Mode::List, Format::Payload), ["RPUSH k 1 11"]);
        let keeps = Mode::Stream { keeps: Some(9) };
        let stream = commands(keeps, Format::CloudEvents).join(" ");
        assert!(stream.starts_with("MULTI XADD k MAXLEN ~ 9"), "{stream}");
        assert!(stream.ends_with("EXEC"), "{stream}");
    }

    #[test]
    fn only_what_is_answered_as_it_should_be_counts_as_taken() {
        let number = Answer::Number;
        let refusal = || Refusal::read("OOM no");
        let no = || Answer::Refused(refusal());
        assert_eq!(Mode::List.outcome(&[number(2)], 2), Outcome::Taken);
        assert_eq!(Mode::List.outcome(&[number(1)], 2), Outcome::Strange);
        assert_eq!(Mode::List.outcome(&[no(), number(0)], 2), Outcome::Refused(refusal()));
        assert_eq!(Mode::List.outcome(&[], 2), Outcome::Unanswered);

        let ok = || Answer::Text("OK".into());
        let id = || Answer::Value(b"1-1".to_vec());
        let stream = |executed| STREAM.outcome(&[ok(), ok(), ok(), executed, number(1)], 2);
        assert_eq!(stream(Answer::List(vec![id(), id()])), Outcome::Taken);
        assert_eq!(stream(Answer::List(vec![id(), no()])), Outcome::Partly(vec![(1, refusal())]));
        assert_eq!(stream(Answer::List(vec![no(), no()])), Outcome::Refused(refusal()));
        assert_eq!(stream(Answer::List(vec![id(), number(1)])), Outcome::Strange);
        assert_eq!(stream(Answer::List(vec![id()])), Outcome::Strange);
        assert_eq!(stream(Answer::Nothing), Outcome::Strange);
        let aborted = || Answer::Refused(Refusal::read("EXECABORT discarded"));
        let outcome = STREAM.outcome(&[ok(), no(), ok(), aborted()], 2);
        assert_eq!(outcome, Outcome::Refused(refusal()));
        assert_eq!(STREAM.outcome(&[ok(), ok(), ok()], 2), Outcome::Unanswered);
        // The records were appended, and without a transaction.
        assert_eq!(STREAM.outcome(&[no(), id(), id(), no()], 2), Outcome::Strange);
    }

    #[test]
    fn what_is_waited_for_has_limits() {
        let wait = |replicas, timeout| {
            let env = Env::from([(WAIT, replicas), (TIMEOUT, timeout)]);
            let wait = Wait::from_env(&env);
            env.check(wait).map(|it| it.map(|it| (it.replicas, it.timeout.as_millis())))
        };
        assert_eq!(wait("", ""), Ok(None));
        assert_eq!(wait("2", ""), Ok(Some((2, 1_000))));
        assert_eq!(wait("1", "1ms"), Ok(Some((1, 1))));
        assert!(wait("1", "0s").is_err() && wait("1", "31s").is_err() && wait("101", "").is_err());
    }
}
