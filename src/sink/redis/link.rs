//! A connection to one node. Nothing is sent on it, or read from it, but while it is asked.

use std::{io, time::Duration};

use futures::FutureExt;
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
        split,
    },
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::TlsConnector;

use super::{
    address::Node,
    answer::{Meaning, Refusal},
    connect::Tls,
    resp::{self, Answer, Commands},
};
use crate::sink::Again;

/// How long a node may take until it has let us in.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a node may take to answer to all commands of a call.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A connection. Dropping it cuts it: the system throws away what it has not sent yet.
pub(super) struct Link {
    reader: BufReader<ReadHalf<Stream>>,
    writer: WriteHalf<Stream>,
    node: Node,
    /// Whether as many replicas as are asked for had everything when they were last waited for.
    pub(super) replicas_follow: bool,
}

/// With TLS, or without.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}
type Stream = Box<dyn Socket>;

/// Why there is no connection, or none any more, or why nothing was done on it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to Redis at {node}; check SINK_REDIS_URL and the network")]
    Connect {
        node: Node,
        #[source]
        source: io::Error,
    },
    #[error(
        "cannot connect to Redis at {node} with TLS; check SINK_REDIS_CACERT, \
         SINK_REDIS_CLIENT_CERT and SINK_REDIS_TLS_SERVER_NAME"
    )]
    Handshake {
        node: Node,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to Redis at {0}: it did not let us in within {CONNECT_LIMIT:?}")]
    Slow(Node),
    #[error(
        "cannot read the password in {path}; mend the file that SINK_REDIS_PASSWORD_FILE names"
    )]
    Password {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("Redis at {node} ended the connection")]
    Ended {
        node: Node,
        #[source]
        source: io::Error,
    },
    #[error("Redis at {0} has not answered in time")]
    Silent(Node),
    #[error("Redis at {node} refused {what}")]
    Refused {
        node: Node,
        what: &'static str,
        #[source]
        source: Refusal,
    },
    #[error("Redis at {node} answered to {what} as no Redis would; check SINK_REDIS_URL")]
    Strange { node: Node, what: &'static str },
    #[error("no sentinel knows the master `{0}`; check its name in SINK_REDIS_URL")]
    UnknownMaster(String),
    #[error("the nodes of the cluster send us from one to the other")]
    Astray,
}

impl LinkError {
    /// A node that ends the connection before it has let us in was not connected to.
    pub(super) fn at_the_door(self) -> Self {
        match self {
            Self::Ended { node, source } => Self::Connect { node, source },
            other => other,
        }
    }

    /// When it makes sense to try again.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Refused { source, .. } => match source.meaning().0 {
                Meaning::Later(again) | Meaning::Elsewhere(again) => again,
                Meaning::TooLarge => Again::Seldom,
            },
            Self::Password { .. } | Self::UnknownMaster(_) | Self::Strange { .. } => Again::Seldom,
            Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Slow(_)
            | Self::Ended { .. }
            | Self::Silent(_)
            | Self::Astray => Again::Soon,
        }
    }
}

/// What commands were answered with, in their order, and why there is not an answer to each.
pub(super) struct Answers {
    pub(super) list: Vec<Answer>,
    pub(super) lost: Option<LinkError>,
}

impl Link {
    /// Connects to a node, without saying who we are.
    pub(super) async fn open(node: &Node, tls: Option<&Tls>) -> Result<Self, LinkError> {
        let refused = |source| LinkError::Connect { node: node.clone(), source };
        let socket = TcpStream::connect((node.host.as_str(), node.port)).await.map_err(refused)?;
        socket.set_nodelay(true).map_err(refused)?;
        // What the system has not sent when the connection is dropped is not to be sent later.
        socket.set_zero_linger().map_err(refused)?;
        let stream: Stream = match tls {
            None => Box::new(socket),
            Some(tls) => {
                let failed = |source| LinkError::Handshake { node: node.clone(), source };
                let name = tls.name_of(&node.host).map_err(failed)?;
                let connector = TlsConnector::from(tls.config.current());
                Box::new(connector.connect(name, socket).await.map_err(failed)?)
            }
        };
        let (reader, writer) = split(stream);
        let reader = BufReader::new(reader);
        Ok(Self { reader, writer, node: node.clone(), replicas_follow: false })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Whether the node has neither closed the connection nor said anything unasked.
    pub(super) fn is_usable(&mut self) -> bool {
        self.reader.fill_buf().now_or_never().is_none()
    }

    /// Sends commands, and waits for the answers: longer than usual where one of them waits.
    pub(super) async fn ask(&mut self, commands: &Commands, longer: Duration) -> Answers {
        let mut list = Vec::with_capacity(commands.count());
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let reading = async {
            while list.len() < commands.count() {
                list.push(resp::read(reader).await?);
            }
            Ok::<_, io::Error>(())
        };
        let writing = async {
            let sent = async {
                writer.write_all(commands.bytes()).await?;
                writer.flush().await
            };
            // A node that ends the connection while we write has often said why.
            let _: io::Result<()> = sent.await;
            std::future::pending::<()>().await;
        };
        let read = tokio::select! {
            read = reading => Some(read),
            () = writing => None,
            () = sleep(ANSWER_LIMIT + longer) => None,
        };
        let lost = match read {
            Some(Ok(())) => None,
            Some(Err(source)) => Some(LinkError::Ended { node: self.node.clone(), source }),
            None => Some(LinkError::Silent(self.node.clone())),
        };
        Answers { list, lost }
    }

    /// Sends one command whose refusal is an error: `what` says what it is for.
    pub(super) async fn tell(
        &mut self,
        parts: &[&[u8]],
        what: &'static str,
    ) -> Result<Answer, LinkError> {
        let Answers { mut list, lost } = self.ask(&Commands::one(parts), Duration::ZERO).await;
        match (list.pop(), lost) {
            (Some(Answer::Refused(source)), _) => Err(self.refused(what, source)),
            (Some(answer), _) => Ok(answer),
            (None, Some(lost)) => Err(lost),
            (None, None) => Err(self.strange(what)),
        }
    }

    /// An error of this node.
    pub(super) fn refused(&self, what: &'static str, source: Refusal) -> LinkError {
        LinkError::Refused { node: self.node.clone(), what, source }
    }

    pub(super) fn strange(&self, what: &'static str) -> LinkError {
        LinkError::Strange { node: self.node.clone(), what }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncReadExt,
        net::TcpListener,
        time::{pause, timeout},
    };

    use super::*;

    async fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let link = Link::open(&Node { host: "127.0.0.1".into(), port }, None).await.unwrap();
        (link, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_waits_when_a_call_is_dropped_is_never_sent() {
        let (mut link, mut peer) = pair().await;
        // More than any system takes while nobody reads.
        let commands = Commands::one(&[&vec![b'x'; 64 << 20]]);
        let call = link.ask(&commands, Duration::ZERO);
        assert!(timeout(Duration::from_millis(100), call).await.is_err());
        drop(link);
        let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
        // Neither the end of the connection nor its reset is waited for in vain.
        while let Ok(read @ 1..) = peer.read(&mut buffer).await {
            got += read;
        }
        assert!(got < commands.bytes().len() / 2, "{got} bytes came");
    }

    #[tokio::test]
    async fn a_node_that_is_silent_is_given_up() {
        let (mut link, _peer) = pair().await;
        pause();
        let error = link.tell(&[b"PING"], "to answer").await.unwrap_err();
        assert!(matches!(error, LinkError::Silent(_)), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_the_node_has_closed_is_not_used_again() {
        let (mut link, peer) = pair().await;
        assert!(link.is_usable());
        drop(peer);
        link.reader.fill_buf().await.unwrap();
        assert!(!link.is_usable());
    }

    #[tokio::test]
    async fn why_a_node_ends_the_connection_is_read_before_that_it_has() {
        let (mut link, mut peer) = pair().await;
        peer.write_all(b":1\r\n-ERR Protocol error: invalid bulk length\r\n").await.unwrap();
        drop(peer);
        let mut commands = Commands::default();
        (0..3).for_each(|_| commands.add(&[b"XADD"]));
        let answers = link.ask(&commands, Duration::ZERO).await;
        let refusal = Refusal::read("ERR Protocol error: invalid bulk length");
        assert_eq!(answers.list, [Answer::Number(1), Answer::Refused(refusal)]);
        assert!(matches!(answers.lost, Some(LinkError::Ended { .. })));
    }
}
