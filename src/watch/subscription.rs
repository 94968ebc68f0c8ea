//! A subscription to Nomad's event stream, until it is cut.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::lines::{Line, Lines};
use crate::{
    api::{ApiError, ByteStream, Nomad},
    cursor::Index,
    error::BoxError,
    metrics::Metrics,
    streams::{Resource, Topic},
};

/// Nomad sends a line every 30 s at least. A stream that is silent for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(75);
/// So long may the first line take, which comes at once from 1.1.1 on.
const FIRST_LINE: Duration = Duration::from_secs(5);
/// Why some versions are not followed.
pub(super) const OF_1_0: &str =
    "Nomad 1.0 encodes objects in its event stream in another way than elsewhere";
const NO_WILDCARD: &str = "Nomad before 1.1.6 shows no events for namespace `*`";
/// So much of a line that is not JSON is shown: it is an error's text.
const SHOWN: usize = 120;

/// A subscription, and how far it has come.
pub(super) struct Subscription {
    body: ByteStream,
    lines: Lines,
    since: Instant,
    deadline: Instant,
    /// Whether the first line has come.
    spoken: bool,
    metrics: Arc<Metrics>,
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
    #[error("{0}")]
    Version(&'static str),
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
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Heard), Cut> {
        let body = nomad.subscribe(topic.name(), namespace, from).await.map_err(Cut::Refused)?;
        let since = Instant::now();
        let mut stream = Self {
            body,
            lines: Lines::default(),
            since,
            deadline: since + FIRST_LINE,
            spoken: false,
            metrics,
            joined: false,
            first: None,
            last: None,
        };
        let first = stream.next().await?;
        stream.metrics.subscriptions.one();
        stream.metrics.streaming.set(1);
        stream.metrics.polling.set(0);
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
                if !std::mem::replace(&mut self.spoken, true) {
                    self.deadline = Instant::now() + DEAD_AFTER;
                }
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
            // What has arrived while nobody read is there at once.
            let chunk = timeout_at(self.deadline, self.body.next()).await;
            match chunk.map_err(|_| if self.spoken { Cut::Dead } else { Cut::Mute })? {
                Some(Ok(chunk)) => {
                    self.metrics.health.nomad.heard();
                    self.lines.push(&chunk);
                    if self.spoken {
                        self.deadline = Instant::now() + DEAD_AFTER;
                    }
                }
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

impl Drop for Subscription {
    fn drop(&mut self) {
        self.metrics.streaming.set(0);
    }
}

/// Whether the stream of a version of Nomad is of use.
pub(super) enum Fitness {
    Fit,
    Unfit(Cut),
    /// The token may not ask for the version.
    Unknown,
}

/// Asks for the version of Nomad.
pub(super) async fn fitness(nomad: &Nomad, topic: Topic, namespace: &str) -> Result<Fitness, Cut> {
    let version = match nomad.version().await {
        Ok(version) => version,
        Err(err @ ApiError::Unreachable { .. }) => return Err(Cut::Unreadable(err)),
        Err(_) => return Ok(Fitness::Unknown),
    };
    let mut numbers = version.split(['.', '-', '+']).map(|it| it.parse().unwrap_or(0));
    let number: [u32; 3] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
    let all = namespace == "*" && topic != Topic::Carries("Node");
    Ok(match number {
        [1, 0, _] => Fitness::Unfit(Cut::Version(OF_1_0)),
        [1, 1, ..=5] if all => Fitness::Unfit(Cut::Version(NO_WILDCARD)),
        _ => Fitness::Fit,
    })
}

/// There is no event stream to be had.
#[derive(Debug, thiserror::Error)]
#[error("there is no event stream")]
pub struct NoStream {
    /// Whether it may be the token, or the stream is switched off.
    pub denied: bool,
    /// Why.
    #[source]
    pub source: BoxError,
}

impl From<Cut> for NoStream {
    fn from(cut: Cut) -> Self {
        let denied = match &cut {
            Cut::Mute => true,
            Cut::Refused(err) => err.is_no_stream(),
            _ => false,
        };
        Self { denied, source: cut.into() }
    }
}

/// Tries whether the event stream of a resource can be had.
pub async fn try_stream<R: Resource>(nomad: &Nomad, namespace: &str) -> Result<(), NoStream> {
    if let Fitness::Unfit(cut) = fitness(nomad, R::TOPIC, namespace).await? {
        return Err(cut.into());
    }
    Subscription::open(nomad, R::TOPIC, namespace, Index(0), Arc::default()).await?;
    Ok(())
}

/// What of an error's text can be shown: what begins like JSON may be a payload.
fn shown(text: &[u8]) -> String {
    let json = |it: &u8| matches!(it, b'{' | b'[' | b'"');
    let text = &text[..text.iter().position(json).unwrap_or(text.len())];
    let text: String = String::from_utf8_lossy(text).chars().take(SHOWN).collect();
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(body: ByteStream) -> Subscription {
        let since = Instant::now();
        Subscription {
            body,
            lines: Lines::default(),
            since,
            deadline: since + FIRST_LINE,
            spoken: false,
            metrics: Arc::default(),
            joined: false,
            first: None,
            last: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_nobody_reads_is_no_silence() {
        let (send, receive) = futures::channel::mpsc::unbounded();
        let mut stream = stream(ByteStream::new(Box::pin(receive)));
        send.unbounded_send(Ok(Bytes::from_static(b"{}\n"))).unwrap();
        stream.next().await.unwrap();
        send.unbounded_send(Ok(Bytes::from_static(b"{\"Index\":5}"))).unwrap();
        tokio::time::sleep(2 * DEAD_AFTER).await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            send.unbounded_send(Ok(Bytes::from_static(b"\n"))).unwrap();
        };
        let (heard, ()) = tokio::join!(stream.next(), later);
        assert!(matches!(heard, Ok(Heard::Commit(_))), "{heard:?}");
    }

    #[test]
    fn what_may_be_a_payload_is_not_shown() {
        assert_eq!(shown(b"data: {\"secret\":1}"), "data: ");
        assert_eq!(shown(b"subscription closed by server"), "subscription closed by server");
    }
}
