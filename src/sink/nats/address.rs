//! `SINK_NATS_URL`: one or more servers, in the form that NATS clients take.

use async_nats::ServerAddr;
use url::Url;

use crate::env::{Env, Noted, Secret};

const NAME: &str = "SINK_NATS_URL";
const PORT: u16 = 4222;

/// A server of the cluster to publish to.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Where it is, without a login.
    pub(super) at: ServerAddr,
    pub(super) login: Option<InAddress>,
    /// `host:port`, for messages.
    pub(super) shown: String,
}

/// A login that an address has.
#[derive(Clone, Debug)]
pub(super) enum InAddress {
    Password(String, Secret),
    Token(Secret),
}

impl Server {
    /// Whether its address asks for TLS. Without that a server can still ask for it.
    pub(super) fn is_secure(&self) -> bool {
        self.at.tls_required()
    }
}

/// The servers that the environment names, at least one.
pub(super) fn from_env(env: &Env) -> Result<Vec<Server>, Noted> {
    let text: Secret = env.required(NAME, "an address such as nats://user:password@host:4222")?;
    let pieces = text.expose().split(',').map(str::trim).filter(|it| !it.is_empty());
    // What is wrong is said without the address, which holds a password.
    match pieces.map(parse).collect::<Result<Vec<_>, _>>() {
        Ok(servers) if servers.is_empty() => Err(env.note(NAME, "names no server")),
        Ok(servers) => Ok(servers),
        Err(why) => Err(env.note(NAME, why)),
    }
}

fn parse(address: &str) -> Result<Server, String> {
    let whole =
        if address.contains("://") { address.to_owned() } else { format!("nats://{address}") };
    let mut url = Url::parse(&whole).map_err(|err| format!("is not an address: {err}"))?;
    if !matches!(url.scheme(), "nats" | "tls") {
        return Err(format!("`{}` is neither nats nor tls", url.scheme()));
    }
    let Some(host) = url.host_str().filter(|it| !it.is_empty()).map(str::to_owned) else {
        return Err("names no host; write nats://user:password@host:4222".to_owned());
    };
    let secret =
        |text: &str| decoded(text).parse::<Secret>().unwrap_or_else(|never| match never {});
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (token, None) => Some(InAddress::Token(secret(token))),
        (user, Some(password)) => Some(InAddress::Password(decoded(user), secret(password))),
    };
    // It has a host, and can have a login or none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let shown = format!("{host}:{}", url.port().unwrap_or(PORT));
    let at = ServerAddr::from_url(url).map_err(|err| err.to_string())?;
    Ok(Server { at, login, shown })
}

/// The text without percent-encoding. What is no such encoding stays as it is.
fn decoded(text: &str) -> String {
    let hex = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let encoded = match more {
            [high, low, after @ ..] if *first == b'%' => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = encoded.unwrap_or((*first, more));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Result<Vec<String>, String> {
        let env = Env::from([(NAME, text)]);
        let servers = from_env(&env);
        let shown = |it: &Server| {
            let login = match &it.login {
                None => String::new(),
                Some(InAddress::Token(token)) => token.expose().to_owned(),
                Some(InAddress::Password(user, word)) => format!("{user}:{}", word.expose()),
            };
            assert!(!it.at.has_user_pass() && it.at.password().is_none());
            format!("{login} {} {}", it.shown, it.is_secure())
        };
        match env.check(servers) {
            Ok(servers) => Ok(servers.iter().map(shown).collect()),
            Err(problems) => Err(problems[0].to_string()),
        }
    }

    #[test]
    fn a_list_has_addresses_each_with_its_login() {
        let two = "nats://me:p%40%2Cq@a:1, tls://b,c:7";
        let wanted = ["me:p@,q a:1 false", " b:4222 true", " c:7 false"];
        assert_eq!(servers(two), Ok(wanted.map(str::to_owned).into()));
        assert_eq!(servers("nats://t%zz@[::1]"), Ok(vec!["t%zz [::1]:4222 false".into()]));
    }

    #[test]
    fn a_wrong_address_is_a_problem_that_shows_no_password() {
        for text in ["http://u:secret@a", "nats://u:secret@a:x", "nats://u:secret@", ",", "nats://"]
        {
            let problem = servers(text).unwrap_err();
            assert!(problem.starts_with(NAME) && !problem.contains("secret"), "{problem}");
        }
    }
}
