//! `SINK_SYSLOG_PROTO` and `SINK_SYSLOG_ADDR`: who receives.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::ClientConfig;

use crate::{
    api::{
        reload::Reloaded,
        socket::Place,
        tls::{Tls, Variables},
    },
    env::{Env, Noted, redacted},
    error::{BoxError, Chain},
};

const PROTO: &str = "SINK_SYSLOG_PROTO";
const ADDR: &str = "SINK_SYSLOG_ADDR";
/// Where programs find the syslog of their machine.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

const TLS: Variables = Variables {
    ca_cert: "SINK_SYSLOG_CACERT",
    ca_path: "SINK_SYSLOG_CAPATH",
    client_cert: "SINK_SYSLOG_CLIENT_CERT",
    client_key: "SINK_SYSLOG_CLIENT_KEY",
    server_name: "SINK_SYSLOG_TLS_SERVER_NAME",
};

/// Who receives.
#[derive(Clone)]
pub(super) enum Receiver {
    Tcp(Place, Family),
    Tls(Place, Secure),
    Udp(Place, Family),
    /// A socket of this machine.
    Local(PathBuf),
}

/// How TLS is spoken.
#[derive(Clone)]
pub(super) struct Secure {
    pub(super) config: Reloaded<Arc<ClientConfig>>,
    /// The name in the receiver's certificate.
    pub(super) name: String,
}

/// Which addresses of a host are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Receiver {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let tls = Tls::read(env, &TLS, Ok(true));
        let address = env.optional::<String>(ADDR);
        let proto = env.optional::<String>(PROTO);
        let (proto, address) = (proto?, address?);
        let place = || {
            let hint = "`host:port`, or the path of a socket with SINK_SYSLOG_PROTO=unix";
            let Some(text) = address.as_deref() else {
                return Err(env.note(ADDR, format!("is not set ({hint})")));
            };
            let wrong = |what| env.note(ADDR, format!("`{}` {what}", redacted(text)));
            Place::parse(text).map_err(wrong)
        };
        let receiver = match proto.as_deref() {
            // As for the Go tool, whose address counts for nothing then.
            None => Ok(Self::Local(local())),
            Some("unix" | "unixgram") => Ok(Self::Local(address.map_or_else(local, PathBuf::from))),
            Some("tcp") => place().map(|it| Self::Tcp(it, Family::Any)),
            Some("tcp4") => place().map(|it| Self::Tcp(it, Family::V4)),
            Some("tcp6") => place().map(|it| Self::Tcp(it, Family::V6)),
            Some("udp") => place().map(|it| Self::Udp(it, Family::Any)),
            Some("udp4") => place().map(|it| Self::Udp(it, Family::V4)),
            Some("udp6") => place().map(|it| Self::Udp(it, Family::V6)),
            Some("tls" | "tcp+tls") => place().and_then(|place| {
                let tls = tls?;
                let name = tls.server_name().unwrap_or(place.host()).to_owned();
                let wrong = |err: BoxError| env.note(TLS.ca_cert, Chain(&*err).to_string());
                Ok(Self::Tls(place, Secure { config: tls.config().map_err(wrong)?, name }))
            }),
            Some(other) => {
                let known = "tcp, tcp4, tcp6, tls, udp, udp4, udp6, unix, unixgram";
                Err(env.note(PROTO, format!("`{other}` is not one of: {known}")))
            }
        };
        match receiver {
            Ok(Self::Local(_)) if cfg!(not(unix)) => {
                Err(env.note(PROTO, "is that of a local socket, which this system does not have"))
            }
            receiver => receiver,
        }
    }

    /// Whether it is on this machine, and told apart from others by that.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Whether a message may be a packet.
    pub(super) fn has_packets(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Udp(..))
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(place, _) => write!(f, "{place} (tcp)"),
            Self::Tls(place, _) => write!(f, "{place} (tls)"),
            Self::Udp(place, _) => write!(f, "{place} (udp)"),
            Self::Local(path) => write!(f, "{} (unix)", path.display()),
        }
    }
}

impl Family {
    /// The addresses of a host that it allows.
    pub(super) async fn of(self, place: &Place) -> io::Result<Vec<SocketAddr>> {
        let mut addresses = place.addresses().await?;
        addresses.retain(|it| match self {
            Self::Any => true,
            Self::V4 => it.is_ipv4(),
            Self::V6 => it.is_ipv6(),
        });
        if addresses.is_empty() {
            let what = "the host has no address of this kind";
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, what));
        }
        Ok(addresses)
    }
}

fn local() -> PathBuf {
    let there = LOCAL.iter().find(|it| Path::new(it).exists());
    PathBuf::from(there.unwrap_or(&LOCAL[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(proto: &str, address: &str) -> Result<String, String> {
        let env = Env::from([(PROTO, proto), (ADDR, address)]);
        let receiver = Receiver::from_env(&env);
        env.check(receiver.map(|it| it.to_string())).map_err(|it| it[0].to_string())
    }

    #[test]
    fn the_values_of_the_go_tool_mean_the_same() {
        for proto in ["tcp", "tcp4", "tcp6"] {
            assert_eq!(receiver(proto, "logs:514").unwrap(), "logs:514 (tcp)");
        }
        for proto in ["udp", "udp4", "udp6"] {
            assert_eq!(receiver(proto, "[::1]:514").unwrap(), "[::1]:514 (udp)");
        }
        for proto in ["unix", "unixgram"] {
            assert_eq!(receiver(proto, "/run/x.sock").unwrap(), "/run/x.sock (unix)");
        }
        let own = receiver("", "logs:514").unwrap();
        assert!(own.ends_with("log (unix)"), "{own}");
        assert_eq!(receiver("tcp+tls", "logs:6514").unwrap(), "logs:6514 (tls)");
    }

    #[test]
    fn what_cannot_be_meant_is_a_problem() {
        for (proto, address) in
            [("tcp", ""), ("udp", "logs"), ("tls", "https://logs:1"), ("relp", "logs:1")]
        {
            let problem = receiver(proto, address).unwrap_err();
            assert!(problem.starts_with("SINK_SYSLOG_"), "{problem}");
        }
        assert!(!receiver("tcp", "me:planted@logs:1").unwrap_err().contains("planted"));
    }
}
