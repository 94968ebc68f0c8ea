//! A connection to nsqd.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    error::LinkError,
    frame::{self, Frame},
};
use crate::api::{
    credentials::Token,
    reload::Reloaded,
    socket::{Place, Stream, is_about_tls},
};

/// How long a connection may take until messages can be published.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long nsqd may take to answer a call.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to say what was wrong, where it has taken no more.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);
/// How long a goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// What it takes to connect.
pub(super) struct Nsqd {
    pub(super) place: Place,
    /// The certificates and keys of the moment, and the name in the certificate of nsqd.
    pub(super) tls: Option<(Reloaded<Arc<ClientConfig>>, String)>,
    pub(super) secret: Token,
}

/// A connection on which nothing is under way. Dropping it cuts it.
pub(super) struct Link {
    stream: Stream,
    came: BytesMut,
    at: String,
}

/// What nsqd says of itself.
#[derive(Deserialize)]
struct Features {
    #[serde(default)]
    tls_v1: bool,
    #[serde(default)]
    auth_required: bool,
}

impl Nsqd {
    /// Connects, and says who we are.
    pub(super) async fn connect(&self) -> Result<Link, LinkError> {
        let at = self.place.to_string();
        let slow = || LinkError::Slow { at: at.clone(), limit: CONNECT_LIMIT };
        timeout(CONNECT_LIMIT, self.open(&at)).await.map_err(|_| slow())?
    }

    async fn open(&self, at: &str) -> Result<Link, LinkError> {
        let stream = async {
            let stream = Stream::connect(&self.place.addresses().await?, CONNECT_LIMIT).await?;
            // Everything that was published is answered, so that it takes nothing along.
            stream.cut_when_dropped()?;
            Ok(stream)
        };
        let stream =
            stream.await.map_err(|source| LinkError::Connect { at: at.to_owned(), source })?;
        let mut link = Link { stream, came: BytesMut::new(), at: at.to_owned() };
        let version = env!("CARGO_PKG_VERSION");
        let identify = frame::identify(version, self.tls.is_some());
        link.write(&[frame::MAGIC, &identify].concat()).await?;
        let features = match link.answer().await? {
            Frame::Answer(text) => serde_json::from_slice::<Features>(&text).ok(),
            _ => None,
        };
        let Some(features) = features else { return Err(link.malformed(frame::Malformed)) };
        if let Some((config, name)) = &self.tls {
            if !features.tls_v1 {
                return Err(LinkError::NoTls(link.at));
            }
            link = link.secure(config.current(), name).await?;
        }
        if features.auth_required {
            let Some(secret) = self.secret.current() else {
                return Err(LinkError::NoSecret(link.at));
            };
            link.write(&frame::auth(secret.as_bytes())).await?;
            link.answer().await?;
        }
        Ok(link)
    }
}

impl Link {
    /// The connection, unless it is known by now that it is of no use. What came since the last
    /// call can only be a heartbeat.
    pub(super) async fn if_usable(mut self) -> Option<Self> {
        loop {
            match self.stream.read_buf(&mut self.came).now_or_never() {
                None => return Some(self),
                Some(Ok(0) | Err(_)) => return None,
                Some(Ok(_)) => {}
            }
            while let Some(frame) = frame::take(&mut self.came).ok()? {
                if frame != Frame::Heartbeat {
                    return None;
                }
                let alive = timeout(CLOSE_LIMIT, self.write(frame::NOP)).await;
                alive.ok()?.ok()?;
            }
        }
    }

    /// Publishes messages, and waits until nsqd has them.
    pub(super) async fn publish(
        &mut self,
        topic: &str,
        messages: &[Bytes],
    ) -> Result<(), LinkError> {
        let at = self.at.clone();
        let publishing = async {
            let written = self.write(&frame::publish(topic, messages)).await;
            let answer = match written {
                Ok(()) => self.answer().await?,
                // It may have said why before it closed the connection.
                Err(err) => match timeout(LAST_WORD_LIMIT, self.answer()).await {
                    Ok(Err(said @ LinkError::Said { .. })) => return Err(said),
                    _ => return Err(err),
                },
            };
            match answer {
                Frame::Ok => Ok(()),
                _ => Err(self.malformed(frame::Malformed)),
            }
        };
        let published = timeout(ANSWER_LIMIT, publishing).await;
        published.map_err(|_| LinkError::Slow { at, limit: ANSWER_LIMIT })?
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        // Whether anybody hears it does not matter.
        let _ = timeout(CLOSE_LIMIT, self.stream.shutdown()).await;
    }

    async fn secure(self, config: Arc<ClientConfig>, name: &str) -> Result<Self, LinkError> {
        let Self { stream, came, at } = self;
        let stream = match stream.secure(config, name).await {
            Ok(stream) if came.is_empty() => stream,
            Ok(_) => return Err(LinkError::Malformed { at, source: frame::Malformed }),
            Err(source) => return Err(LinkError::Tls { at, source }),
        };
        let mut link = Self { stream, came, at };
        // It says so once more, to whoever can read it.
        match link.answer().await? {
            Frame::Ok => Ok(link),
            _ => Err(link.malformed(frame::Malformed)),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        written.await.map_err(|source| self.closed(source))
    }

    /// The next thing that nsqd says but for heartbeats, which are answered.
    async fn answer(&mut self) -> Result<Frame, LinkError> {
        loop {
            match frame::take(&mut self.came).map_err(|err| self.malformed(err))? {
                Some(Frame::Heartbeat) => self.write(frame::NOP).await?,
                Some(Frame::Error(error)) => {
                    return Err(LinkError::Said { at: self.at.clone(), error });
                }
                Some(frame) => return Ok(frame),
                None => match self.stream.read_buf(&mut self.came).await {
                    Ok(0) => return Err(self.closed(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(source) => return Err(self.closed(source)),
                },
            }
        }
    }

    fn closed(&self, source: io::Error) -> LinkError {
        let at = self.at.clone();
        // With TLS 1.3, that a certificate is refused is only told after the handshake.
        match is_about_tls(&source) {
            true => LinkError::Tls { at, source },
            false => LinkError::Closed { at, source },
        }
    }

    fn malformed(&self, source: frame::Malformed) -> LinkError {
        LinkError::Malformed { at: self.at.clone(), source }
    }
}
