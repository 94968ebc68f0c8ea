//! `SINK_REDIS_URL`: a server, the sentinels that know it, or nodes of a cluster.

use std::fmt;

use url::{Host, Url};

use crate::env::{Env, Noted, Secret};

const NAME: &str = "SINK_REDIS_URL";
/// Where servers and sentinels listen unless the address says otherwise.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More hosts than this are a mistake, and each may have to be tried.
const MAX_HOSTS: usize = 16;

/// Where records go, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) kind: Kind,
    /// At least one; a server is one alone.
    pub(super) nodes: Vec<Node>,
    pub(super) secure: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: u32,
}

/// What the nodes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    /// They know where the master of this name is.
    Sentinels(String),
    /// Each knows which of them has a key.
    Cluster,
}

/// A host, and a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Address {
    /// Without the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(Node::to_string).collect();
        let nodes = nodes.join(",");
        match &self.kind {
            Kind::Server => write!(f, "{nodes}"),
            Kind::Sentinels(master) => write!(f, "{master} of the sentinels {nodes}"),
            Kind::Cluster => write!(f, "the cluster of {nodes}"),
        }
    }
}

/// The address that the environment has.
pub(super) fn from_env(env: &Env) -> Result<Address, Noted> {
    let text: String =
        env.required(NAME, "an address such as redis://user:password@host:6379/0")?;
    // What is wrong is said without the address, which holds a password.
    parse(text.trim()).map_err(|why| env.note(NAME, why))
}

fn parse(text: &str) -> Result<Address, String> {
    let (scheme, rest) = text.split_once("://").ok_or(
        "is not an address such as redis://user:password@host:6379/0, or \
         redis+sentinel://host:26379,host:26379/master-name",
    )?;
    let (secure, kind) = match scheme {
        "redis" | "redis+sentinel" | "redis+cluster" => (false, &scheme["redis".len()..]),
        "rediss" | "rediss+sentinel" | "rediss+cluster" => (true, &scheme["rediss".len()..]),
        _ => {
            return Err(
                "is none of redis://, redis+sentinel:// and redis+cluster://, nor of these \
                        with rediss, which is TLS"
                    .to_owned(),
            );
        }
    };
    if rest.contains(['?', '#']) {
        return Err(
            "has parameters, and takes none; percent-encode `?` and `#` in a password".to_owned()
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => ("", authority),
    };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let part = |it: &str| match decoded(it) {
        Some(it) => Ok(Some(it).filter(|it| !it.is_empty())),
        None => Err("has a user or a password that is not percent-encoded UTF-8".to_owned()),
    };
    let (user, password) = (part(user)?, part(password)?);
    let path: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    let (kind, port, database) = match (kind, &path[..]) {
        ("", []) => (Kind::Server, PORT, 0),
        ("", [number]) => (Kind::Server, PORT, database(number)?),
        ("+sentinel", [name]) => (Kind::Sentinels((*name).to_owned()), SENTINEL_PORT, 0),
        ("+sentinel", [name, number]) => {
            (Kind::Sentinels((*name).to_owned()), SENTINEL_PORT, database(number)?)
        }
        ("+cluster", [] | ["0"]) => (Kind::Cluster, PORT, 0),
        ("+cluster", _) => return Err("names a database, and a cluster has but one".to_owned()),
        ("+sentinel", []) => {
            return Err("names no master; write redis+sentinel://host:26379/master-name".to_owned());
        }
        _ => return Err("has more in its path than the number of a database".to_owned()),
    };
    let hosts = match kind {
        // The client of the Go tool takes no host for this one.
        Kind::Server if hosts.is_empty() || hosts.starts_with(':') => format!("localhost{hosts}"),
        _ => hosts.to_owned(),
    };
    let nodes: Vec<&str> = hosts.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    match nodes.len() {
        0 => return Err("names no host of a sentinel, or of a node of the cluster".to_owned()),
        1..=MAX_HOSTS => (),
        _ => return Err(format!("names more than {MAX_HOSTS} hosts")),
    }
    if kind == Kind::Server && nodes.len() > 1 {
        return Err("names several hosts: write redis+sentinel:// or redis+cluster://".to_owned());
    }
    let nodes = nodes.into_iter().map(|it| node(it, port)).collect::<Result<_, _>>()?;
    Ok(Address { kind, nodes, secure, user, password: password.map(secret), database })
}

fn node(text: &str, port: u16) -> Result<Node, String> {
    let wrong = "has a host that is none, or a port that is no number";
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| wrong)?;
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        Some(Host::Domain(_)) | None => return Err(wrong.to_owned()),
    };
    Ok(Node { host, port: url.port().unwrap_or(port) })
}

fn database(number: &str) -> Result<u32, String> {
    number.parse().map_err(|_| "has a database that is no number".to_owned())
}

fn secret(text: String) -> Secret {
    match text.parse() {
        Ok(secret) => secret,
        Err(never) => match never {},
    }
}

/// The text without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |it: &u8| char::from(*it).to_digit(16);
                let byte = digit(high)? * 16 + digit(low)?;
                bytes.push(u8::try_from(byte).ok()?);
                rest = tail;
            }
            (b'%', _) => return None,
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        let env = Env::from([(NAME, text)]);
        let address = from_env(&env);
        match env.check(address) {
            Ok(it) => {
                let user = it.user.as_deref().unwrap_or("-");
                let password = it.password.as_ref().map_or("-", Secret::expose);
                Ok(format!("{it} {} {user} {password} {}", it.secure, it.database))
            }
            Err(problems) => Err(problems[0].to_string()),
        }
    }

    #[test]
    fn an_address_is_that_of_a_server_of_sentinels_or_of_a_cluster() {
        for (text, expected) in [
            ("redis://r", "r:6379 false - - 0"),
            ("redis://", "localhost:6379 false - - 0"),
            ("redis://:6380/1", "localhost:6380 false - - 1"),
            ("redis://u:p@", "localhost:6379 false u p 0"),
            ("redis://r:1/2", "r:1 false - - 2"),
            ("rediss://:p%40%2f@[::1]/0", "[::1]:6379 true - p@/ 0"),
            ("redis://u:p:q@r:1/", "r:1 false u p:q 0"),
            ("redis://u@r", "r:6379 false u - 0"),
            ("redis+sentinel://u:p@a,b:2/main/3", "main of the sentinels a:26379,b:2 false u p 3"),
            ("rediss+cluster://a:1, b", "the cluster of a:1,b:6379 true - - 0"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_wrong_address_is_a_problem_that_shows_no_password() {
        for text in [
            "r:6379",
            "http://u:secret@r",
            "redis+cluster://u:secret@",
            "redis+sentinel://u:secret@/main",
            "redis://u:secret@r:x",
            "redis://u:secret@a,b",
            "redis://u:secret@r/x",
            "redis://u:secret@r/1/2",
            "redis://u:secret%zz@r",
            "redis://u:secret%f@r",
            "redis://u:secret@r?db=1",
            "redis+sentinel://u:secret@r",
            "redis+cluster://u:secret@r/1",
            "redis+cluster://u:secret@a,redis://u:secret@b",
        ] {
            let problem = address(text).unwrap_err();
            assert!(problem.starts_with(NAME) && !problem.contains("secret"), "{problem}");
        }
        let many = vec!["h"; MAX_HOSTS + 1].join(",");
        assert!(address(&format!("redis+cluster://{many}")).unwrap_err().contains("more than 16"));
    }
}
