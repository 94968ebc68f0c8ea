//! Packets: how they are sent, and what is known of those that were not.

use std::{io, sync::Arc, time::Duration};

#[cfg(unix)]
use tokio::net::UnixDatagram;
use tokio::{net::UdpSocket, time::sleep};

use super::{address::Family, error::LinkError};
use crate::{
    api::socket::Place,
    sink::{Failure, FailureKind},
};

/// Packets of UDP that are sent at once, and what passes until the next: whoever does not get to
/// read them in time has lost them, and nobody is told.
const BURST: usize = 32;
const BETWEEN_BURSTS: Duration = Duration::from_millis(1);
/// How the system says that a message has no room in a packet, for which there is no name in `std`.
const MESSAGE_TOO_LARGE: i32 = if cfg!(windows) {
    10_040
} else if cfg!(any(target_os = "linux", target_os = "android")) {
    90
} else {
    40
};
/// What became of the packets of a call so far.
#[derive(Default)]
pub(super) struct Progress {
    /// How many are sent or refused.
    done: usize,
    /// Those that have no room in a packet.
    refused: Vec<(usize, io::Error)>,
}

impl Progress {
    /// Whether nothing is settled.
    pub(super) fn is_nothing(&self) -> bool {
        self.done == 0
    }

    /// The messages that were refused, where all others are sent.
    pub(super) fn refused(self, messages: &[Vec<u8>], at: &str) -> Vec<Failure> {
        let failure = |(position, source): (usize, io::Error)| {
            let size = messages.get(position).map_or(0, Vec::len);
            let source = LinkError::TooLarge { at: at.to_owned(), size, source }.into();
            Failure { position, kind: FailureKind::Rejected, source }
        };
        self.refused.into_iter().map(failure).collect()
    }

    /// The same with all that was not sent. What is sent is settled, so that it does not come again
    /// as often as the rest fails.
    pub(super) fn unsent(self, messages: &[Vec<u8>], at: &str, err: LinkError) -> Vec<Failure> {
        let (done, source) = (self.done, Arc::new(err));
        let mut failures = self.refused(messages, at);
        failures.extend((done..messages.len()).map(|position| Failure {
            position,
            kind: FailureKind::Transient,
            source: source.clone().into(),
        }));
        failures
    }

    /// Counts a message that is sent, or will never be.
    fn settle(&mut self, sent: io::Result<usize>) -> io::Result<()> {
        match sent {
            Ok(_) => (),
            Err(err) if is_too_large(&err) => self.refused.push((self.done, err)),
            // The receiver is gone, and what it had not read yet is gone with it.
            Err(err) if is_gone(&err) => return Err(self.of_one_before(err)),
            Err(err) => return Err(err),
        }
        self.done += 1;
        Ok(())
    }

    /// Not even what was sent is known to have come.
    fn of_one_before(&mut self, err: io::Error) -> io::Error {
        self.done = 0;
        err
    }
}

fn is_too_large(err: &io::Error) -> bool {
    err.raw_os_error() == Some(MESSAGE_TOO_LARGE)
}

fn is_gone(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

/// A socket that sends to a host over UDP.
pub(super) async fn connect(place: &Place, family: Family) -> io::Result<UdpSocket> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for address in family.of(place).await? {
        let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let connected = async {
            let socket = UdpSocket::bind(own).await?;
            socket.connect(address).await.map(|()| socket)
        };
        match connected.await {
            Ok(socket) => return Ok(socket),
            Err(err) => failed = err,
        }
    }
    Err(failed)
}

/// Sends packets over UDP.
pub(super) async fn send(
    socket: &UdpSocket,
    messages: &[Vec<u8>],
    progress: &mut Progress,
) -> io::Result<()> {
    for burst in messages.chunks(BURST) {
        for message in burst {
            match socket.send(message).await {
                // It may be said of one before, which a router had no room for.
                Err(err) if is_too_large(&err) => match socket.send(message).await {
                    Ok(_) => return Err(progress.of_one_before(err)),
                    sent => progress.settle(sent)?,
                },
                sent => progress.settle(sent)?,
            }
        }
        sleep(BETWEEN_BURSTS).await;
    }
    // That nobody listens is told a while after something was sent.
    match socket.take_error()? {
        None => Ok(()),
        Some(err) => Err(progress.of_one_before(err)),
    }
}

/// Sends packets to a socket of this machine.
#[cfg(unix)]
pub(super) async fn send_locally(
    socket: &UnixDatagram,
    messages: &[Vec<u8>],
    progress: &mut Progress,
) -> io::Result<()> {
    for message in messages {
        progress.settle(socket.send(message).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_settled_unless_the_receiver_is_gone() {
        let sent = |end: io::ErrorKind| {
            let mut progress = Progress::default();
            progress.settle(Ok(1)).unwrap();
            progress.settle(Err(io::Error::from_raw_os_error(MESSAGE_TOO_LARGE))).unwrap();
            progress.settle(Err(end.into())).unwrap_err();
            progress
        };
        assert!(sent(io::ErrorKind::ConnectionRefused).is_nothing());
        let progress = sent(io::ErrorKind::NetworkUnreachable);
        assert!(!progress.is_nothing());
        let err = LinkError::new(
            String::new(),
            super::super::error::Doing::Write,
            io::ErrorKind::Other.into(),
        );
        let failures = progress.unsent(&[vec![1], vec![2], vec![3], vec![4]], "at", err);
        let failures: Vec<_> = failures.iter().map(|it| (it.position, it.kind)).collect();
        let (refused, later) = (FailureKind::Rejected, FailureKind::Transient);
        assert_eq!(failures, [(1, refused), (2, later), (3, later)]);
    }

    #[tokio::test]
    async fn a_message_that_is_larger_than_a_packet_of_udp_holds_up_no_other() {
        let receiver = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let at = receiver.local_addr().unwrap().to_string();
        let socket = connect(&Place::parse(&at).unwrap(), Family::Any).await.unwrap();
        let messages = [b"a".to_vec(), vec![b'x'; 66_000], b"b".to_vec()];
        let mut progress = Progress::default();
        send(&socket, &messages, &mut progress).await.unwrap();
        let failures = progress.refused(&messages, &at);
        assert_eq!(failures.iter().map(|it| it.position).collect::<Vec<_>>(), [1]);
        let mut came = [0; 8];
        for text in [b"a", b"b"] {
            let size = receiver.recv(&mut came).await.unwrap();
            assert_eq!(&came[..size], text);
        }
    }
}
