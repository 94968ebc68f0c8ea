//! Finds the node that takes the records, and logs in to it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::timeout;

use super::{
    address::{Address, Kind, Node},
    link::{Answers, CONNECT_LIMIT, Link, LinkError},
    resp::{Answer, Commands},
};
use crate::{
    api::{
        reload::Reloaded,
        tls::{self, Variables},
    },
    env::{Env, Noted},
    error::Chain,
};

/// Nodes of a cluster that send us on, one after the other.
const MAX_REDIRECTS: usize = 5;
/// The most that is read of a file with a password.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

const PASSWORD_FILE: &str = "SINK_REDIS_PASSWORD_FILE";
const TLS: Variables = Variables {
    ca_cert: "SINK_REDIS_CACERT",
    ca_path: "SINK_REDIS_CAPATH",
    client_cert: "SINK_REDIS_CLIENT_CERT",
    client_key: "SINK_REDIS_CLIENT_KEY",
    server_name: "SINK_REDIS_TLS_SERVER_NAME",
};

/// How to get to the node that has the key.
pub(super) struct Way {
    pub(super) address: Address,
    password_file: Option<PathBuf>,
    tls: Option<Tls>,
}

/// The certificates and keys of the moment, and the name in the node's.
pub(super) struct Tls {
    pub(super) config: Reloaded<Arc<ClientConfig>>,
    name: Option<String>,
}

impl Tls {
    /// The name that has to be in the certificate of a host.
    pub(super) fn name_of(&self, host: &str) -> io::Result<ServerName<'static>> {
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        ServerName::try_from(name).map_err(|it| io::Error::new(io::ErrorKind::InvalidInput, it))
    }
}

impl Way {
    pub(super) fn from_env(env: &Env, address: Result<Address, Noted>) -> Result<Self, Noted> {
        let tls = tls::Tls::read(env, &TLS, Ok(true));
        let file = env.optional::<PathBuf>(PASSWORD_FILE);
        let file = file.and_then(|it| match it.as_deref().map(read_password) {
            Some(Err(err)) => Err(env.note(PASSWORD_FILE, format!("cannot be read: {err}"))),
            Some(Ok(_)) | None => Ok(it),
        });
        let (address, tls, password_file) = (address?, tls?, file?);
        let tls = if address.secure {
            let name = tls.server_name().map(str::to_owned);
            let config =
                tls.config().map_err(|err| env.note(TLS.ca_cert, Chain(&*err).to_string()))?;
            Some(Tls { config, name })
        } else {
            None
        };
        let user = address.user.is_some();
        let way = Self { address, password_file, tls };
        match way.password() {
            Ok(None) if user => {
                let what = format!("names a user and no password; add it, or set {PASSWORD_FILE}");
                Err(env.note("SINK_REDIS_URL", what))
            }
            Ok(_) => Ok(way),
            Err(err) => Err(env.note(PASSWORD_FILE, Chain(&err).to_string())),
        }
    }

    /// Connects to the node that takes the records of this key.
    pub(super) async fn connect(&self, key: &str) -> Result<Link, LinkError> {
        let mut first = None;
        for node in &self.address.nodes {
            let led = match &self.address.kind {
                Kind::Server => self.enter(node).await,
                Kind::Sentinels(name) => self.master(node, name).await,
                Kind::Cluster => self.owner(node.clone(), key).await,
            };
            match (led, &first) {
                (Ok(link), _) => return Ok(link),
                // That one does not know the master says more than why another is not there.
                (Err(err @ LinkError::UnknownMaster(_)), _) | (Err(err), None) => first = Some(err),
                (Err(_), Some(_)) => (),
            }
        }
        // There is at least one node.
        Err(first.unwrap_or(LinkError::Astray))
    }

    /// Connects to a node, and logs in.
    async fn enter(&self, node: &Node) -> Result<Link, LinkError> {
        within(node, async {
            let mut link = Link::open(node, self.tls.as_ref()).await?;
            self.log_in(&mut link).await.map_err(LinkError::at_the_door)?;
            if self.address.database > 0 {
                let number = self.address.database.to_string();
                link.tell(&[b"SELECT", number.as_bytes()], "the database").await?;
            }
            Ok(link)
        })
        .await
    }

    /// Says who we are, where we are anybody.
    async fn log_in(&self, link: &mut Link) -> Result<(), LinkError> {
        let Some(password) = self.password()? else { return Ok(()) };
        let mut parts: Vec<&[u8]> = vec![b"AUTH"];
        parts.extend(self.address.user.as_ref().map(String::as_bytes));
        parts.push(password.as_bytes());
        link.tell(&parts, "to let us in").await.map(drop)
    }

    /// The password of this moment: that in the file, if there is any in it.
    fn password(&self) -> Result<Option<String>, LinkError> {
        let fixed = self.address.password.as_ref().map(|it| it.expose().to_owned());
        let Some(path) = &self.password_file else { return Ok(fixed) };
        let unusable = |source| LinkError::Password { path: path.display().to_string(), source };
        let empty = || unusable(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        match read_password(path).map_err(unusable)? {
            Some(password) => Ok(Some(password)),
            None => fixed.map(Some).ok_or_else(empty),
        }
    }

    /// Connects to the master, where a sentinel says that it is.
    async fn master(&self, sentinel: &Node, name: &str) -> Result<Link, LinkError> {
        let master = within(sentinel, async {
            let mut link = Link::open(sentinel, self.tls.as_ref()).await?;
            self.ask_sentinel(&mut link, name).await.map_err(LinkError::at_the_door)
        });
        self.enter(&master.await?).await
    }

    /// Asks a sentinel, and says who we are only if it wants to know.
    async fn ask_sentinel(&self, link: &mut Link, name: &str) -> Result<Node, LinkError> {
        const WHAT: &str = "to say where the master is";
        let question = [&b"SENTINEL"[..], b"get-master-addr-by-name", name.as_bytes()];
        let Answers { list, lost } = link.ask(&Commands::one(&question), Duration::ZERO).await;
        let answer = match list.into_iter().next() {
            Some(Answer::Refused(refusal)) if refusal.is("NOAUTH") => {
                self.log_in(link).await?;
                link.tell(&question, WHAT).await?
            }
            Some(Answer::Refused(refusal)) => return Err(link.refused(WHAT, refusal)),
            Some(answer) => answer,
            None => return Err(lost.unwrap_or_else(|| link.strange(WHAT))),
        };
        match answer.list() {
            [host, port] => {
                let port = port.text().and_then(|it| it.parse().ok());
                match (host.text(), port) {
                    (Some(host), Some(port)) => Ok(Node { host: host.to_owned(), port }),
                    _ => Err(link.strange(WHAT)),
                }
            }
            _ => Err(LinkError::UnknownMaster(name.to_owned())),
        }
    }

    /// Connects to the node that has the key, as this one and others say.
    async fn owner(&self, mut node: Node, key: &str) -> Result<Link, LinkError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut link = self.enter(&node).await?;
            let kind = [&b"TYPE"[..], key.as_bytes()];
            match within(&node, link.tell(&kind, "to say where the key is")).await {
                Ok(_) => return Ok(link),
                Err(LinkError::Refused { source, what, node: at }) => match source.moved() {
                    Some((host, port)) => {
                        let host = if host.is_empty() { at.host } else { host.to_owned() };
                        node = Node { host, port };
                    }
                    None => return Err(LinkError::Refused { source, what, node: at }),
                },
                Err(err) => return Err(err),
            }
        }
        Err(LinkError::Astray)
    }
}

/// What is in a file, but for the end of its line, where that is anything.
fn read_password(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    File::open(path)?.take(MAX_PASSWORD_BYTES).read_to_string(&mut text)?;
    let password = text.trim_end_matches(['\r', '\n']);
    Ok((!password.is_empty()).then(|| password.to_owned()))
}

/// What a node is asked while we connect to it.
pub(super) async fn within<T>(
    node: &Node,
    asked: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    timeout(CONNECT_LIMIT, asked).await.unwrap_or_else(|_| Err(LinkError::Slow(node.clone())))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::sink::{Again, redis::address};

    #[tokio::test]
    async fn a_sentinel_that_ends_the_connection_was_not_connected_to() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let sentinel = listener.local_addr().unwrap();
        let address = format!("redis+sentinel://{sentinel}/main");
        let env = Env::from([("SINK_REDIS_URL", address.as_str())]);
        let way = Way::from_env(&env, address::from_env(&env));
        let way = env.check(way).ok().unwrap();
        let closing = async { drop(listener.accept().await.unwrap()) };
        let (led, ()) = tokio::join!(way.connect("events"), closing);
        let error = led.err().unwrap();
        assert!(matches!(error, LinkError::Connect { .. }), "{error}");
        assert_eq!(error.again(), Again::Soon);
    }
}
