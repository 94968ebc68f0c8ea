//! `--health`: asks another process, which is mostly the one beside it in its container. It is no
//! client for anything else, and needs no runtime.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::Address;

/// For connecting, for the question, and for each piece of the answer.
const LIMIT: Duration = Duration::from_secs(3);
/// Far more than the answer has.
const MOST_BYTES: u64 = 64 << 10;

/// What `/ready` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Whether it is ready.
    pub ready: bool,
    /// The body.
    pub body: String,
}

/// There was no answer to be understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot ask {asked} for its health; does a process with the same NOMAD_FIREHOSE_LISTEN run?"
)]
pub struct AskError {
    asked: SocketAddr,
    #[source]
    source: io::Error,
}

/// Asks `/ready` of the process that listens there; on loopback where it listens everywhere.
pub fn ask(Address(listens): Address) -> Result<Answered, AskError> {
    let asked = SocketAddr::new(reachable(listens.ip()), listens.port());
    exchange(asked).map_err(|source| AskError { asked, source })
}

fn reachable(listens: IpAddr) -> IpAddr {
    match listens {
        IpAddr::V4(it) if it.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(it) if it.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        it => it,
    }
}

fn exchange(asked: SocketAddr) -> io::Result<Answered> {
    let mut stream = TcpStream::connect_timeout(&asked, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    // By HTTP 1.0 the answer comes in one piece, and the connection ends after it.
    stream.write_all(format!("GET /ready HTTP/1.0\r\nHost: {asked}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    understand(&String::from_utf8_lossy(&answer)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "it does not answer as this does")
    })
}

fn understand(answer: &str) -> Option<Answered> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    let ready = match status {
        "200" => true,
        "503" => false,
        _ => return None,
    };
    // Whatever else listens there has no such answer.
    body.starts_with("{\"ready\":").then(|| Answered { ready, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        let asked = |it: &str| reachable(it.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0"), "127.0.0.1");
        assert_eq!(asked("::"), "::1");
        assert_eq!(asked("10.1.2.3"), "10.1.2.3");
    }

    #[test]
    fn only_an_answer_of_ours_is_understood() {
        let ready = understand("HTTP/1.0 200 OK\r\na: b\r\n\r\n{\"ready\":true}\n").unwrap();
        assert!(ready.ready && ready.body == "{\"ready\":true}\n");
        assert!(!understand("HTTP/1.1 503 No\r\n\r\n{\"ready\":false}").unwrap().ready);
        for other in
            ["", "HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.0 404 No\r\n\r\n{\"ready\":1}", "x"]
        {
            assert_eq!(understand(other), None, "{other}");
        }
    }
}
