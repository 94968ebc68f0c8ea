//! One stream, from the request to its end.

use std::{collections::VecDeque, io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::BytesMut;
use futures::stream;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{
    super::{Nomad, Snapshot, Version, lock},
    Closing,
    buffer::At,
    wanted::{self, Wanted},
};
use crate::standin::{answer, query::Params};

/// The time between two heartbeats, on every version.
const HEARTBEAT: Duration = Duration::from_secs(30);

const NOTHING: Bytes = Bytes::from_static(b"{}");
const LINE_BREAK: Bytes = Bytes::from_static(b"\n");
const CLOSED: &str = "subscription closed by server, client should resubscribe";
const DROPPED: &str = "event dropped from buffer";

impl Nomad {
    /// The answer to a request for the stream; `older` is what the server has seen that answers it.
    pub(in crate::standin::nomad) fn stream(
        &self,
        params: &Params,
        token: Option<&str>,
        older: Option<&Snapshot>,
    ) -> Result<Response, Box<Response>> {
        let version = self.0.version;
        let index = wanted::index(params)?;
        let known = || self.state().namespaces.keys().cloned().collect();
        let wanted = Wanted::of(params, (version == Version::V2_0).then(known))?;
        let refused = if self.0.events.broker().disabled {
            Some("EventBroker not configured")
        } else if self.permits(token) {
            None
        } else {
            Some("Permission denied")
        };
        Ok(match (refused, version) {
            (None, _) => {
                respond(version, Subscription::new(self, index, wanted, token, older).body())
            }
            (Some(text), Version::V1_0) => {
                let mut response = respond(version, text.into());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
            // The headers are written before anything is looked at, and nothing follows them.
            (Some(_), Version::V2_0) => {
                respond(version, Body::from_stream(stream::pending::<io::Result<Bytes>>()))
            }
        })
    }

    fn permits(&self, token: Option<&str>) -> bool {
        lock(&self.0.token).as_deref().is_none_or(|required| token == Some(required))
    }
}

fn respond(version: Version, body: Body) -> Response {
    let mut response = answer::json(body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if version == Version::V2_0 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        // Without this the body would be sent in chunks, and have an end that can be told from a broken connection.
        *response.version_mut() = axum::http::Version::HTTP_10;
    }
    response
}

/// Which server a stream comes from.
#[derive(Clone, Copy)]
enum Server {
    Leading,
    /// One that has seen nothing beyond this index.
    Behind(u64),
    /// The one that follows, as long as there is one.
    Follower,
}

/// What a stream does next.
enum Step {
    Line(Bytes),
    Text(Bytes),
    Wait,
    End(End),
}

/// How a stream ends.
#[derive(Clone, Copy)]
enum End {
    /// With this text, where the version says something.
    Told(&'static str),
    Cut,
}

struct Subscription {
    nomad: Nomad,
    wanted: Wanted,
    token: Option<String>,
    server: Server,
    /// The position of the next batch; none if the stream is a recorded one.
    position: Option<u64>,
    /// How many of the texts were written, or were there before.
    texts: usize,
    closed: u64,
    heartbeat: Interval,
    changed: watch::Receiver<()>,
    ready: Pieces,
    ended: Option<End>,
}

impl Subscription {
    fn new(
        nomad: &Nomad,
        index: u64,
        wanted: Wanted,
        token: Option<&str>,
        older: Option<&Snapshot>,
    ) -> Self {
        let changed = nomad.0.events.changed.subscribe();
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let broker = nomad.0.events.broker();
        let (server, newest) = match (older, broker.follower) {
            (Some(Snapshot(state)), _) => (Server::Behind(state.index), state.index),
            (None, Some(newest)) => (Server::Follower, newest),
            (None, None) => (Server::Leading, u64::MAX),
        };
        let mut ready = Pieces::default();
        let position = match &broker.recorded {
            Some(recorded) => {
                ready.push(recorded.clone());
                None
            }
            None => {
                ready.line(NOTHING);
                Some(broker.buffer.start(index, newest))
            }
        };
        Self {
            nomad: nomad.clone(),
            wanted,
            token: token.map(str::to_owned),
            server,
            position,
            texts: broker.texts.len(),
            closed: broker.closed.0,
            heartbeat,
            changed,
            ready,
            ended: None,
        }
    }

    fn body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), async |subscription| {
            let mut subscription = subscription?;
            match subscription.next().await {
                Some(Ok(piece)) => Some((Ok(piece), Some(subscription))),
                Some(Err(err)) => Some((Err(err), None)),
                None => None,
            }
        }))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            self.changed.mark_unchanged();
            let silent = self.nomad.0.script.is_silent();
            let (stalled, split) = {
                let broker = self.nomad.0.events.broker();
                (silent || broker.stalled, broker.split)
            };
            if stalled {
                // Its sender is in the handle, so there always is one.
                let _ = self.changed.changed().await;
                continue;
            }
            if self.ready.has(split.unwrap_or(1)) {
                return self.ready.take(split).map(Ok);
            }
            let step = match self.ended {
                Some(how) => Step::End(how),
                None => self.step(),
            };
            match step {
                Step::Line(line) => self.ready.line(line),
                Step::Text(text) => self.ready.push(text),
                Step::Wait | Step::End(_) if self.ready.has(1) => {
                    return self.ready.take(split).map(Ok);
                }
                Step::Wait => {
                    tokio::select! {
                        biased;
                        _ = self.changed.changed() => {}
                        _ = self.heartbeat.tick() => self.ready.line(NOTHING),
                    }
                }
                Step::End(how) if self.ended.is_some() => return self.last(how).await,
                Step::End(how) => {
                    self.ended = Some(how);
                    if let (End::Told(text), Version::V1_0) = (how, self.nomad.0.version) {
                        self.ready.push(Bytes::from_static(text.as_bytes()));
                    }
                }
            }
        }
    }

    /// What comes after all that was sent: an error where the client can tell that a connection broke.
    async fn last(&self, how: End) -> Option<io::Result<Bytes>> {
        match (how, self.nomad.0.version) {
            (End::Cut, Version::V1_0) => {
                // Let the server write what it has before it gives the connection up.
                yield_now().await;
                Some(Err(io::ErrorKind::ConnectionReset.into()))
            }
            _ => None,
        }
    }

    fn step(&mut self) -> Step {
        if !self.nomad.permits(self.token.as_deref()) {
            return Step::End(End::Told(CLOSED));
        }
        loop {
            let batch = {
                let broker = self.nomad.0.events.broker();
                if broker.closed.0 != self.closed {
                    return Step::End(match broker.closed.1 {
                        Closing::Told => End::Told(CLOSED),
                        Closing::Cut => End::Cut,
                    });
                }
                let newest = match self.server {
                    Server::Leading => u64::MAX,
                    Server::Behind(newest) => newest,
                    Server::Follower => broker.follower.unwrap_or(u64::MAX),
                };
                let text = broker.texts.get(self.texts);
                let position =
                    self.position.filter(|here| text.is_none_or(|(before, _)| here < before));
                match position.map_or(At::Wait, |position| broker.buffer.at(position, newest)) {
                    At::Batch(batch) => batch,
                    At::Dropped => return Step::End(End::Told(DROPPED)),
                    At::Wait => {
                        let Some((_, text)) = text else { return Step::Wait };
                        self.texts += 1;
                        return Step::Text(text.clone());
                    }
                }
            };
            self.position = self.position.map(|position| position + 1);
            if let Some(line) = batch.line(self.nomad.0.version, &self.wanted) {
                return Step::Line(line);
            }
        }
    }
}

/// What is to be sent, in the pieces in which it was written.
#[derive(Default)]
struct Pieces(VecDeque<Bytes>);

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }

    /// The line break is written apart from the line.
    fn line(&mut self, line: Bytes) {
        self.0.extend([line, LINE_BREAK]);
    }

    fn has(&self, bytes: usize) -> bool {
        let mut left = bytes;
        self.0.iter().any(|piece| {
            left = left.saturating_sub(piece.len());
            left == 0
        })
    }

    /// The next piece, or as much as there is of `split` bytes.
    fn take(&mut self, split: Option<usize>) -> Option<Bytes> {
        let Some(size) = split else { return self.0.pop_front() };
        let mut taken = BytesMut::new();
        while let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(size - taken.len()));
            taken.extend_from_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            if taken.len() == size {
                break;
            }
        }
        Some(taken.freeze()).filter(|taken| !taken.is_empty())
    }
}
