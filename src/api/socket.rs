//! Connections over TCP for what is not HTTP, with TLS or without it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where somebody listens: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    host: String,
    port: u16,
}

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Place {
    /// Reads it, or says what is wrong with it, without the text itself.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") || text.contains(['/', '@']) {
            return Err("is not `host:port`: it has no scheme, no path and no user");
        }
        let (host, port) = text.rsplit_once(':').ok_or("has no port; write `host:port`")?;
        let port = port.parse().ok().filter(|it| *it > 0).ok_or("has no port from 1 to 65535")?;
        let host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(host) => host,
            None if host.contains(':') => {
                return Err("has several colons; write an address of IPv6 as `[::1]:port`");
            }
            None => host,
        };
        // Without a host, Go connects to this machine.
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Self { host: host.to_owned(), port })
    }

    /// The host alone.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The addresses that it has at the moment.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((self.host.as_str(), self.port)).await?.collect())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Stream {
    /// Connects to the first of these addresses that takes the connection.
    ///
    /// Each has an equal share of the limit, so that one that does not answer does not use up what
    /// the next one needs. The last has whatever the caller has left.
    pub(crate) async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<Self> {
        let no_address = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let (last, others) = addresses.split_last().ok_or_else(no_address)?;
        let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in others {
            if let Ok(Ok(tcp)) = timeout(share, TcpStream::connect(address)).await {
                return Self::of(tcp);
            }
        }
        Self::of(TcpStream::connect(last).await?)
    }

    fn of(tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        Ok(Self::Plain(tcp))
    }

    /// From now on, what waits to be sent is thrown away when the connection is dropped.
    pub(crate) fn cut_when_dropped(&self) -> io::Result<()> {
        self.tcp().set_zero_linger()
    }

    /// Goes on with TLS, with whoever has a certificate for this name.
    pub(crate) async fn secure(self, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let Self::Plain(tcp) = self else { return Ok(self) };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let secure = TlsConnector::from(config).connect(name, tcp).await?;
        Ok(Self::Secure(Box::new(secure)))
    }

    /// What it runs on.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => secure.get_ref().0,
        }
    }

    /// The same, where there will be no more TLS.
    #[cfg(feature = "syslog")]
    pub(crate) fn into_tcp(self) -> TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => secure.into_inner().0,
        }
    }
}

/// Whether an error is about certificates, names or the protocol, and not about the network.
pub(crate) fn is_about_tls(err: &io::Error) -> bool {
    err.get_ref().is_some_and(|it| it.is::<rustls::Error>())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Secure(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Secure(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Secure(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Secure(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux does not answer whoever wants to connect where nobody accepts what waits already.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        const LIMIT: Duration = Duration::from_secs(1);
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let full = full.listen(1).unwrap();
        let dead = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(tcp) = timeout(LIMIT / 5, TcpStream::connect(dead)).await {
            waiting.push(tcp.unwrap());
        }
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let alive = listener.local_addr().unwrap();
        let addresses = [dead, alive];
        let connecting = Stream::connect(&addresses, LIMIT);
        let stream = timeout(LIMIT, connecting).await.expect("it is in time").unwrap();
        assert_eq!(stream.tcp().peer_addr().unwrap(), alive);
        assert!(Stream::connect(&[], LIMIT).await.is_err());
    }

    #[test]
    fn a_place_is_a_host_and_a_port() {
        let shown = |text| Place::parse(text).map(|it| it.to_string());
        assert_eq!(shown("logs.example:514").unwrap(), "logs.example:514");
        assert_eq!(shown("[::1]:6514").unwrap(), "[::1]:6514");
        assert_eq!(shown(":514").unwrap(), "localhost:514");
        for text in ["logs", "logs:0", "logs:x", "logs:70000", "::1:514", "tcp://l:1", "u:p@l:1"] {
            assert!(shown(text).is_err(), "{text}");
        }
    }
}
