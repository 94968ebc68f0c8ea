//! A subscription to Nomad's event stream, until it is cut.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::lines::{Line, Lines};
use crate::{
    api::{ApiError, ByteStream, Nomad},
    cursor::Index,
    error::BoxError,
    streams::{Resource, Topic},
};

/// Nomad sends a line every 30 s at least. A stream that is silent for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(75);
/// So long may the first line take, which comes at once from 1.1.1 on.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// So much of a line that is not JSON is shown: it is an error's text.
const SHOWN: usize = 120;

/// A subscription, and how far it has come.
pub(super) struct Subscription {
    body: ByteStream,
    lines: Lines,
    since: Instant,
    deadline: Instant,
    /// Whether a list has been joined with it, so that from there on nothing is to be missing.
    pub(super) joined: bool,
    /// The first and the last index that it has shown.
    pub(super) first: Option<Index>,
    pub(super) last: Option<Index>,
}

/// What a line is.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing has happened.
    Heartbeat,
    /// A commit.
    Commit(Bytes),
    /// A line of so many bytes that was passed over.
    TooLong(usize),
}

/// Why there is no subscription, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// Nobody takes batches any more.
    #[error("nobody takes batches any more")]
    Closed,
    /// Nomad cannot be read at all.
    #[error(transparent)]
    Unreadable(ApiError),
    /// The stream was refused, or its server is away.
    #[error(transparent)]
    Refused(ApiError),
    #[error(
        "it answers with silence, as Nomad does since 1.11.2 where the token may not read all of \
         the stream, or where the stream is switched off: check the policies of the token (and \
         enable_event_broker), and any proxy that holds answers back"
    )]
    Mute,
    #[error("Nomad 1.0 encodes objects in its event stream in another way than elsewhere")]
    Version1_0,
    #[error("the server ended it")]
    Ended,
    #[error("the server ended it, saying `{0}`")]
    Said(String),
    #[error("it broke off")]
    Broken(#[source] BoxError),
    #[error("it was silent for {} s", DEAD_AFTER.as_secs())]
    Dead,
    #[error("there are other namespaces than when it began")]
    Namespaces,
    #[error("its server is behind the leader")]
    Behind,
    #[error("it has not shown what a list had")]
    Incomplete,
    #[error("Nomad was set back, or may have been")]
    SetBack,
}

impl Subscription {
    /// Subscribes to a topic, and waits for the first line.
    pub(super) async fn open(
        nomad: &Nomad,
        topic: Topic,
        namespace: &str,
        from: Index,
    ) -> Result<(Self, Heard), Cut> {
        let body = nomad.subscribe(topic.name(), namespace, from).await.map_err(Cut::Refused)?;
        let since = Instant::now();
        let (lines, deadline) = (Lines::default(), since + FIRST_LINE);
        let mut stream =
            Self { body, lines, since, deadline, joined: false, first: None, last: None };
        let first = stream.next().await?;
        Ok((stream, first))
    }

    /// How long it has been.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The next line. Nothing is lost where the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Heard, Cut> {
        loop {
            if let Some(line) = self.lines.next_line() {
                self.deadline = Instant::now() + DEAD_AFTER;
                let line = match line {
                    Line::TooLong(bytes) => return Ok(Heard::TooLong(bytes)),
                    Line::Whole(line) => line,
                };
                match line.trim_ascii() {
                    b"" => continue,
                    b"{}" => return Ok(Heard::Heartbeat),
                    [b'{', ..] => return Ok(Heard::Commit(line)),
                    text => return Err(Cut::Said(shown(text))),
                }
            }
            let silent = || match self.deadline <= self.since + FIRST_LINE {
                true => Cut::Mute,
                false => Cut::Dead,
            };
            let chunk = timeout_at(self.deadline, self.body.next()).await.map_err(|_| silent())?;
            match chunk {
                Some(Ok(chunk)) => self.lines.push(&chunk),
                Some(Err(err)) => return Err(Cut::Broken(err.without_url().into())),
                None => {
                    return Err(match self.lines.rest().trim_ascii() {
                        [] | [b'{', ..] => Cut::Ended,
                        text => Cut::Said(shown(text)),
                    });
                }
            }
        }
    }
}

/// The next line of a subscription; never comes where there is none.
pub(super) async fn heard(stream: &mut Option<Subscription>) -> Result<Heard, Cut> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Whether it is a Nomad 1.0; `None` where the token may not ask for the version.
pub(super) async fn is_1_0(nomad: &Nomad) -> Result<Option<bool>, Cut> {
    match nomad.version().await {
        Ok(version) => Ok(Some(version == "1.0" || version.starts_with("1.0."))),
        Err(err @ ApiError::Unreachable { .. }) => Err(Cut::Unreadable(err)),
        Err(_) => Ok(None),
    }
}

/// Tries whether the event stream of a resource can be had.
pub async fn try_stream<R: Resource>(nomad: &Nomad, namespace: &str) -> Result<(), BoxError> {
    if is_1_0(nomad).await? == Some(true) {
        return Err(Cut::Version1_0.into());
    }
    Subscription::open(nomad, R::TOPIC, namespace, Index(0)).await?;
    Ok(())
}

fn shown(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(SHOWN).collect();
    text.escape_debug().to_string()
}
