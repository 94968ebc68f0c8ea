//! `SINK_AMQP_CONNECTION`: one or more brokers, in the forms that AMQP clients take.

use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};
use url::{Host, Url};

use crate::env::{Env, Noted};

const NAME: &str = "SINK_AMQP_CONNECTION";

/// How long a connection may be silent before it is taken for dead, unless the address says
/// otherwise: the Go tool's value.
const HEARTBEAT_SECONDS: u16 = 10;

/// A node of the cluster to publish to.
#[derive(Clone, Debug)]
pub(super) struct Broker {
    /// Where, as whom and in which virtual host.
    pub(super) uri: AMQPUri,
    /// `host:port`, for messages.
    pub(super) shown: String,
}

impl Broker {
    pub(super) fn is_secure(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }
}

/// The brokers that the environment names, at least one.
pub(super) fn from_env(env: &Env) -> Result<Vec<Broker>, Noted> {
    let text: String = env.required(NAME, "an address such as amqp://user:password@host:5672/")?;
    // What is wrong is said without the address, which holds a password.
    let parsed: Result<Vec<Broker>, String> = addresses(&text).iter().map(|it| parse(it)).collect();
    match parsed {
        Ok(brokers) if brokers.is_empty() => Err(env.note(NAME, "names no broker")),
        Ok(brokers) => Ok(brokers),
        Err(why) => Err(env.note(NAME, why)),
    }
}

/// Splits a list of addresses, `amqp://a,amqp://b`, and an address with a list of hosts,
/// `amqp://user:password@a,b:5673/vhost`.
fn addresses(text: &str) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    for piece in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match whole.last_mut() {
            Some(last) if !piece.contains("://") => {
                last.push(',');
                last.push_str(piece);
            }
            _ => whole.push(piece.to_owned()),
        }
    }
    whole.iter().flat_map(|it| hosts(it)).collect()
}

/// An address for each host of an address.
fn hosts(address: &str) -> Vec<String> {
    let start = address.find("://").map_or(0, |at| at + "://".len());
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |at| start + at);
    let authority = &address[start..end];
    let (user, hosts) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let (scheme, rest) = (&address[..start], &address[end..]);
    hosts.split(',').map(|host| format!("{scheme}{user}{host}{rest}")).collect()
}

fn parse(address: &str) -> Result<Broker, String> {
    let url = Url::parse(address).map_err(|err| format!("is not an address: {err}"))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(format!("`{}` is neither amqp nor amqps", url.scheme()));
    }
    // What the library says of an address without a host shows all of it.
    let Some(host) = url.host() else {
        return Err("names no host; write amqp://user:password@host:5672/".to_owned());
    };
    let mut uri = AMQPUri::from_str(address)?;
    if let Host::Ipv6(host) = host {
        // The library knows no addresses of IPv6, and would connect to localhost.
        uri.authority.host = host.to_string();
    }
    if uri.vhost.is_empty() {
        // `amqp://host/` means the default one to all clients but this library.
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let shown = match url.host() {
        Some(Host::Ipv6(host)) => format!("[{host}]:{}", uri.authority.port),
        _ => format!("{}:{}", uri.authority.host, uri.authority.port),
    };
    Ok(Broker { uri, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(text: &str) -> Result<Vec<String>, String> {
        let env = Env::from([(NAME, text)]);
        let brokers = from_env(&env);
        let shown = |it: &Broker| {
            let AMQPUri { authority, vhost, query, .. } = &it.uri;
            let (user, heartbeat) = (&authority.userinfo, query.heartbeat.unwrap_or_default());
            let secure = if it.is_secure() { "s" } else { "" };
            let (name, password) = (&user.username, &user.password);
            format!("{secure} {name} {password} {} {vhost} {heartbeat}", it.shown)
        };
        match env.check(brokers) {
            Ok(brokers) => Ok(brokers.iter().map(shown).collect()),
            Err(problems) => Err(problems[0].to_string()),
        }
    }

    #[test]
    fn an_address_has_the_defaults_of_the_go_client() {
        assert_eq!(brokers("amqp://mq"), Ok(vec![" guest guest mq:5672 / 10".into()]));
        assert_eq!(
            brokers("amqps://u:p%40@mq/?heartbeat=5"),
            Ok(vec!["s u p@ mq:5671 / 5".into()])
        );
        assert_eq!(brokers("amqp://u:p@[::1]:7/v%2Fx"), Ok(vec![" u p [::1]:7 v/x 10".into()]));
    }

    #[test]
    fn several_hosts_are_a_list_of_addresses_or_of_hosts_in_one_address() {
        let both = Ok(vec![" u p a:1 v 10".into(), " u p b:5672 v 10".into()]);
        assert_eq!(brokers("amqp://u:p@a:1/v, amqp://u:p@b/v"), both);
        assert_eq!(brokers("amqp://u:p@a:1,b/v"), both);
    }

    #[test]
    fn a_wrong_address_is_a_problem_that_shows_no_password() {
        for text in [
            "mq:5672",
            "http://u:secret@mq",
            "amqp://u:secret@mq:x/",
            "amqp:///v",
            ",",
            "amqp:u:secret@a,b",
            " amqp:u:secret@a",
            "amqp:u:secret@a\n",
        ] {
            let problem = brokers(text).unwrap_err();
            assert!(problem.starts_with(NAME) && !problem.contains("secret"), "{problem}");
        }
    }
}
