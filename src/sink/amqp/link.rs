//! A connection to a broker, with a channel for each call that may be under way.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind,
    options::{ConfirmSelectOptions, ExchangeDeclareOptions},
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    runtime::default_runtime,
    tcp::RustlsConnector,
    types::{FieldTable, ShortString},
};
use rustls::ClientConfig;
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};

use super::address::Broker;
use crate::sink::Again;

/// How long a connection may take until messages can be published.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// A broker that neither takes nor confirms anything for so long, and does not say why, is given
/// up.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether a broker that is silent has said why.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a broker may take to answer a goodbye.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// A connection that messages can be published on. Dropping it cuts it.
pub(super) struct Link {
    connection: Connection,
    /// Those that no call has. A message that comes back is told together with any confirm of its
    /// channel, so that no two calls may share one.
    free: Mutex<Vec<Channel>>,
    broker: String,
    /// The broker takes nothing, and that was said.
    blocked: AtomicBool,
    socket: Socket,
}

/// A call's channel. Dropping it before [`Turn::end`] cuts the connection, so that nothing is sent
/// any more that waits in it.
pub(super) struct Turn {
    link: Arc<Link>,
    channel: Channel,
    ended: bool,
}

/// The socket of a connection that is made or being made, to cut it: the library has no way to end
/// one without sending what waits in it.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<TcpStream>>>);

/// Cuts the connection when it is dropped.
struct Socket(Slot);

/// Why there is no connection, or no longer one.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to RabbitMQ at {broker}")]
    Connect {
        broker: String,
        #[source]
        source: lapin::Error,
    },
    #[error("RabbitMQ at {0} did not let us in within {CONNECT_LIMIT:?}")]
    Slow(String),
    #[error("RabbitMQ at {broker} closed the channel or the connection")]
    Closed {
        broker: String,
        #[source]
        source: lapin::Error,
    },
    #[error("every channel to RabbitMQ is in use; this is a defect in the sink")]
    Busy,
    #[error("RabbitMQ at {0} has confirmed nothing for {SILENCE_LIMIT:?}")]
    Silent(String),
}

impl LinkError {
    /// When it makes sense to try again.
    pub(super) fn again(&self) -> Again {
        use AMQPErrorKind::{Hard, Soft};
        use AMQPHardError::NOTALLOWED;
        use AMQPSoftError::{ACCESSREFUSED, NOTFOUND};
        match self.protocol_error() {
            // No such exchange or virtual host, a wrong password, no permission.
            Some((Soft(NOTFOUND | ACCESSREFUSED) | Hard(NOTALLOWED), _)) => Again::Seldom,
            _ => Again::Soon,
        }
    }

    /// How large a message was that the broker found too large, where it is that which ended the
    /// channel, and the broker said so in words that we know.
    pub(super) fn too_large(&self) -> Option<Option<usize>> {
        let (kind, text) = self.protocol_error()?;
        let refused = matches!(kind, AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED));
        if !refused || !text.contains("message size") {
            return None;
        }
        let digits = text.split("message size ").nth(1)?.split(' ').next()?;
        Some(digits.parse().ok())
    }

    fn protocol_error(&self) -> Option<(&AMQPErrorKind, &str)> {
        let (Self::Connect { source, .. } | Self::Closed { source, .. }) = self else {
            return None;
        };
        match source.kind() {
            ErrorKind::ProtocolError(err) => Some((err.kind(), err.get_message().as_str())),
            _ => None,
        }
    }
}

impl Link {
    /// Connects, and opens so many channels with confirms.
    pub(super) async fn connect(
        broker: &Broker,
        tls: Option<(Arc<ClientConfig>, Option<String>)>,
        channels: usize,
    ) -> Result<Self, LinkError> {
        let shown = broker.shown.clone();
        match timeout(CONNECT_LIMIT, Self::open(broker, tls, channels)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(source)) => Err(LinkError::Connect { broker: shown, source }),
            Err(_) => Err(LinkError::Slow(shown)),
        }
    }

    async fn open(
        broker: &Broker,
        tls: Option<(Arc<ClientConfig>, Option<String>)>,
        channels: usize,
    ) -> lapin::Result<Self> {
        let slot = Slot::default();
        let socket = Socket(slot.clone());
        let connection = Connection::connector(
            broker.uri.clone(),
            default_runtime()?,
            async move |uri, runtime| {
                let authority = &uri.authority;
                let addresses = lookup_host((authority.host.as_str(), authority.port)).await?;
                let addresses: Vec<_> = addresses.collect();
                let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    plain.get_ref().set_nodelay(true)?;
                    slot.put(duplicate(plain.get_ref())?);
                }
                Ok(match &tls {
                    Some((config, name)) => {
                        let name = name.as_ref().unwrap_or(&authority.host);
                        stream.into_rustls(&RustlsConnector::from(config.clone()), name).await?
                    }
                    None => stream,
                })
            },
            ConnectionProperties::default().with_connection_name("nomad-firehose".into()),
        )
        .await?;
        let mut opened = Vec::with_capacity(channels);
        for _ in 0..channels {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            opened.push(channel);
        }
        let broker = broker.shown.clone();
        let blocked = AtomicBool::new(false);
        Ok(Self { connection, free: Mutex::new(opened), broker, blocked, socket })
    }

    /// A channel that no other call has.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let channel = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Turn { link: self.clone(), channel, ended: false })
    }

    /// Whether messages can still be published.
    pub(super) fn is_usable(&self) -> bool {
        self.socket.0.is_there() && self.connection.status().connected()
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        self.socket.0.cut();
    }

    /// An error of this connection.
    pub(super) fn closed(&self, source: lapin::Error) -> LinkError {
        LinkError::Closed { broker: self.broker.clone(), source }
    }

    /// Never resolves while the broker is heard of: returns an error once it has been silent for
    /// too long. A broker that is short of memory or disk says so and takes nothing until it has
    /// room again; then there is nothing to do but to wait, since on another connection it would
    /// get everything twice.
    pub(super) async fn silent(&self, progress: impl Fn() -> usize) -> LinkError {
        let mut seen = progress();
        let mut silence = Duration::ZERO;
        loop {
            sleep(LOOK_AGAIN).await;
            let blocked = self.connection.status().blocked();
            if blocked && !self.blocked.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    sink = self.broker,
                    "RabbitMQ takes no messages, since it is short of memory or disk; make room \
                     there. Publishing goes on then"
                );
            }
            let now = progress();
            silence = if blocked || now != seen { Duration::ZERO } else { silence + LOOK_AGAIN };
            seen = now;
            if silence >= SILENCE_LIMIT {
                return LinkError::Silent(self.broker.clone());
            }
        }
    }

    /// The broker has confirmed something.
    pub(super) fn is_heard_of(&self) {
        let blocked = self.connection.status().blocked();
        if !blocked && self.blocked.swap(false, Ordering::Relaxed) {
            tracing::info!(sink = self.broker, "RabbitMQ takes messages again");
        }
    }

    /// Asks whether an exchange is there.
    pub(super) async fn find(&self, exchange: &str) -> Result<(), LinkError> {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let channel = self.connection.create_channel().await.map_err(|err| self.closed(err))?;
        let kind = lapin::ExchangeKind::Topic;
        let found = channel.exchange_declare(exchange.into(), kind, options, FieldTable::default());
        found.await.map_err(|err| self.closed(err))
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        let bye = self.connection.close(200, ShortString::from("stopped"));
        // Whether the broker heard it does not matter: nothing is unconfirmed.
        let _ = timeout(CLOSE_LIMIT, bye).await;
    }
}

impl Turn {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Everything that was published on it is confirmed.
    pub(super) fn end(mut self) {
        self.ended = true;
        let mut free = self.link.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.channel.clone());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.ended {
            self.link.cut();
        }
    }
}

impl Slot {
    fn put(&self, socket: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    }

    fn is_there(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn cut(&self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails where the other side was faster.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Of two errors the one that tells more: what the broker said, and not what follows from it.
pub(super) fn telling(one: lapin::Error, other: lapin::Error) -> lapin::Error {
    match (one.kind(), other.kind()) {
        (ErrorKind::ProtocolError(_), _) => one,
        (_, ErrorKind::ProtocolError(_)) => other,
        (ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_), _) => other,
        _ => one,
    }
}

#[cfg(unix)]
fn duplicate(stream: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    use std::os::fd::AsFd;
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn duplicate(stream: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    use std::os::windows::io::AsSocket;
    Ok(stream.as_socket().try_clone_to_owned()?.into())
}
