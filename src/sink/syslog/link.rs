//! Sockets to a receiver: how they are made, what is written to them, and how it is known that it
//! was read.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::FutureExt;
#[cfg(unix)]
use tokio::net::{UnixDatagram, UnixStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Mutex,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    address::{Family, Receiver, Secure},
    error::{Doing, LinkError},
    message::Framing,
    packet::{self, Progress},
};
use crate::{
    api::socket::{Place, Stream, is_about_tls},
    sink::Failure,
};

/// How long a connection may take to be made, TLS and all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a receiver may take to let a call be written.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take from then on to have read it all, and to close the connection.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Connections are made this far apart at least: each is remembered for a minute by the side that
/// closes it first, which has about 28,000 of them to give.
const APART: Duration = Duration::from_millis(10);
/// How often it is looked whether a connection that was closed is acknowledged.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long a goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// How it is known that a receiver has what was written to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirm {
    /// Each call is a connection: we close our side, and whoever reads closes theirs once they
    /// have read all of it.
    Close,
    /// It is not known; the connection is kept.
    Nothing,
}

/// The way to a receiver.
pub(super) struct Link {
    receiver: Receiver,
    framing: Framing,
    confirm: Confirm,
    kept: Mutex<Kept>,
    /// How many sockets there have been that are kept.
    connected: AtomicU64,
}

#[derive(Default)]
struct Kept {
    socket: Option<Socket>,
    last: Option<Instant>,
}

enum Socket {
    Stream(Stream),
    Packets(UdpSocket),
    #[cfg(unix)]
    LocalStream(UnixStream),
    #[cfg(unix)]
    LocalPackets(UnixDatagram),
}

impl Link {
    pub(super) fn new(receiver: Receiver, framing: Framing, confirm: Confirm) -> Self {
        let (kept, connected) = (Mutex::default(), AtomicU64::new(0));
        Self { receiver, framing, confirm, kept, connected }
    }

    pub(super) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    pub(super) fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Writes messages; which of them were not sent where others were, which only packets tell.
    /// Where it is dropped, so is the socket.
    pub(super) async fn send(&self, messages: &[Vec<u8>]) -> Result<Vec<Failure>, LinkError> {
        let mut kept = self.kept.lock().await;
        let mut socket = match kept.socket.take().and_then(Socket::if_open) {
            Some(socket) => socket,
            None => {
                if let Some(last) = kept.last {
                    sleep_until(last + APART).await;
                }
                kept.last = Some(Instant::now());
                let socket = self.connect().await?;
                if !(self.is_confirmed() && socket.is_stream()) {
                    self.connected.fetch_add(1, Ordering::Relaxed);
                }
                socket
            }
        };
        let mut progress = Progress::default();
        let writing = socket.write(messages, self.framing, &mut progress);
        let written = self.within(WRITE_LIMIT, Doing::Write, writing).await;
        let at = || self.receiver.to_string();
        match written {
            Ok(()) => (),
            Err(err) if progress.is_nothing() => return Err(err),
            Err(err) => return Ok(progress.unsent(messages, &at(), err)),
        }
        if self.is_confirmed() && socket.is_stream() {
            self.within(READ_LIMIT, Doing::Read, socket.confirmed()).await?;
            return Ok(Vec::new());
        }
        let closed = io::ErrorKind::ConnectionReset;
        let open = socket.if_open().ok_or_else(|| self.failed(Doing::Write, closed.into()))?;
        kept.socket = Some(open);
        Ok(progress.refused(messages, &at()))
    }

    /// Connects, and closes again.
    pub(super) async fn check(&self) -> Result<(), LinkError> {
        let socket = self.connect().await?;
        if self.is_confirmed() && socket.is_stream() {
            return self.within(READ_LIMIT, Doing::Read, socket.confirmed()).await;
        }
        socket.end().await;
        Ok(())
    }

    pub(super) async fn close(&self) {
        if let Some(socket) = self.kept.lock().await.socket.take() {
            socket.end().await;
        }
    }

    /// Whether a call is a connection of its own, where connections there are.
    fn is_confirmed(&self) -> bool {
        self.confirm == Confirm::Close
    }

    async fn connect(&self) -> Result<Socket, LinkError> {
        let connecting = async {
            match &self.receiver {
                Receiver::Tcp(place, family) => self.stream(place, *family, None).await,
                Receiver::Tls(place, tls) => self.stream(place, Family::Any, Some(tls)).await,
                Receiver::Udp(place, family) => {
                    packet::connect(place, *family).await.map(Socket::Packets)
                }
                #[cfg(unix)]
                Receiver::Local(path) => local(path).await,
                #[cfg(not(unix))]
                Receiver::Local(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        };
        self.within(CONNECT_LIMIT, Doing::Connect, connecting).await
    }

    async fn stream(
        &self,
        place: &Place,
        family: Family,
        tls: Option<&Secure>,
    ) -> io::Result<Socket> {
        let stream = Stream::connect(&family.of(place).await?, CONNECT_LIMIT).await?;
        // On a connection that is kept, what waits to be sent may be of a call that is settled.
        if self.confirm == Confirm::Close {
            stream.cut_when_dropped()?;
        }
        Ok(Socket::Stream(match tls {
            Some(tls) => stream.secure(tls.config.current(), &tls.name).await?,
            None => stream,
        }))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        doing: Doing,
        what: impl Future<Output = io::Result<T>>,
    ) -> Result<T, LinkError> {
        match timeout(limit, what).await {
            Ok(done) => done.map_err(|err| self.failed(doing, err)),
            Err(_) => Err(LinkError::Slow { at: self.receiver.to_string(), doing, limit }),
        }
    }

    fn failed(&self, doing: Doing, source: io::Error) -> LinkError {
        LinkError::new(self.receiver.to_string(), doing, source)
    }
}

impl Socket {
    fn is_stream(&self) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Packets(_) => false,
            #[cfg(unix)]
            Self::LocalStream(_) => true,
            #[cfg(unix)]
            Self::LocalPackets(_) => false,
        }
    }

    /// The socket, unless it is known by now that nobody reads from it.
    fn if_open(mut self) -> Option<Self> {
        let open = match &mut self {
            Self::Stream(stream) => is_open(stream),
            Self::Packets(socket) => matches!(socket.take_error(), Ok(None)),
            #[cfg(unix)]
            Self::LocalStream(stream) => is_open(stream),
            #[cfg(unix)]
            Self::LocalPackets(socket) => matches!(socket.take_error(), Ok(None)),
        };
        open.then_some(self)
    }

    async fn write(
        &mut self,
        messages: &[Vec<u8>],
        framing: Framing,
        progress: &mut Progress,
    ) -> io::Result<()> {
        match self {
            Self::Stream(stream) => match write(stream, messages, framing).await {
                Ok(()) => Ok(()),
                Err(err) => Err(telling(stream, err).await),
            },
            Self::Packets(socket) => packet::send(socket, messages, progress).await,
            #[cfg(unix)]
            Self::LocalStream(stream) => write(stream, messages, framing).await,
            #[cfg(unix)]
            Self::LocalPackets(socket) => packet::send_locally(socket, messages, progress).await,
        }
    }

    /// Closes our side of a stream, and waits until the other side has read it to its end.
    async fn confirmed(self) -> io::Result<()> {
        match self {
            Self::Stream(mut stream) => {
                if let Err(err) = stream.shutdown().await {
                    return Err(telling(&mut stream, err).await);
                }
                read_to_end(&mut stream).await?;
                let mut tcp = stream.into_tcp();
                // TLS has an end of its own, which may come before that of the connection.
                read_to_end(&mut tcp).await?;
                acknowledged(&tcp).await
            }
            #[cfg(unix)]
            Self::LocalStream(mut stream) => {
                stream.shutdown().await?;
                read_to_end(&mut stream).await
            }
            Self::Packets(_) => Ok(()),
            #[cfg(unix)]
            Self::LocalPackets(_) => Ok(()),
        }
    }

    /// Says goodbye. Whether anybody hears it does not matter.
    async fn end(self) {
        if let Self::Stream(mut stream) = self {
            let _ = timeout(CLOSE_LIMIT, stream.shutdown()).await;
        }
    }
}

/// A socket of either kind: which of them it is, only the attempt tells.
#[cfg(unix)]
async fn local(path: &std::path::Path) -> io::Result<Socket> {
    let socket = UnixDatagram::unbound()?;
    match socket.connect(path) {
        Ok(()) => Ok(Socket::LocalPackets(socket)),
        Err(err) if is_other_kind(&err) => UnixStream::connect(path).await.map(Socket::LocalStream),
        Err(err) => Err(err),
    }
}

/// Whether a socket is a stream where packets were meant, for which there is no name in `std`.
#[cfg(unix)]
fn is_other_kind(err: &io::Error) -> bool {
    !matches!(
        err.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
    )
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    messages: &[Vec<u8>],
    framing: Framing,
) -> io::Result<()> {
    stream.write_all(&framing.frame(messages)).await?;
    stream.flush().await
}

/// Whether the other side has not closed it yet, as far as that is known here. A receiver has
/// nothing to say, and whatever it says means nothing.
fn is_open(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut said = [0; 512];
    loop {
        match stream.read(&mut said).now_or_never() {
            None => return true,
            Some(Ok(1..)) => (),
            Some(Ok(0) | Err(_)) => return false,
        }
    }
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut said = [0; 512];
    loop {
        match stream.read(&mut said).await {
            Ok(0) => return Ok(()),
            Ok(_) => (),
            Err(err) => return Err(err),
        }
    }
}

/// Of an error and what the other side may have said before it the one that tells more: which
/// certificate it does not like.
async fn telling(stream: &mut Stream, err: io::Error) -> io::Error {
    match timeout(CLOSE_LIMIT, read_to_end(stream)).await {
        Ok(Err(said)) if is_about_tls(&said) => said,
        _ => err,
    }
}

/// Waits until the other side has acknowledged all that was sent, the end included.
///
/// It may have closed its side before it knew of what was on its way: then it answers that with a
/// reset, and until then it looks as if it had read everything. Linux says of a socket that it is
/// not connected any more once either has come. Whoever shuts their side down without having read
/// what was there already cannot be told from one that has.
async fn acknowledged(tcp: &TcpStream) -> io::Result<()> {
    while cfg!(target_os = "linux") && tcp.peer_addr().is_ok() {
        sleep(LOOK_AGAIN).await;
    }
    tcp.take_error()?.map_or(Ok(()), Err)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn link(path: &std::path::Path) -> Link {
        Link::new(Receiver::Local(path.to_owned()), Framing::Newline, Confirm::Close)
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_never_closes_is_one_for_no_confirmation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let link = link(&path);
        let err = link.send(&[b"text".to_vec()]).await.unwrap_err();
        assert!(err.to_string().contains("set SINK_SYSLOG_CONFIRM to none"), "{err}");
        assert_eq!(link.connected(), 0, "a call that is confirmed is counted as a connection");
        drop(listener);
    }

    #[tokio::test]
    async fn a_message_without_room_in_a_packet_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let link = link(&path);
        let messages = [b"a".to_vec(), vec![b'x'; 8 << 20], b"b".to_vec()];
        let failures = link.send(&messages).await.unwrap();
        assert_eq!(failures.len(), 1);
        let Failure { position, kind, source } = &failures[0];
        assert_eq!((*position, *kind), (1, crate::sink::FailureKind::Rejected));
        assert!(source.to_string().contains("has 8388608 bytes"), "{source}");
        let mut came = [0; 8];
        for text in [b"a", b"b"] {
            let size = socket.recv(&mut came).await.unwrap();
            assert_eq!(&came[..size], text);
        }
        assert_eq!(link.connected(), 1, "a socket that is kept is not counted");
    }
}
