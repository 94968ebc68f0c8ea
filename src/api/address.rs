//! Addresses, in every form that the official clients take.

use std::{net::IpAddr, path::PathBuf};

use reqwest::{Url, header::HeaderValue};

use crate::env::{Env, Noted, redacted};

/// What the official clients connect to by default.
const NOMAD_DEFAULT: &str = "http://127.0.0.1:4646";
const CONSUL_DEFAULT: &str = "127.0.0.1:8500";

/// Where to connect to.
pub(super) enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A host, with TLS or without it, and perhaps a path before every other.
    Web(Web),
}

/// An address of the web.
pub(super) struct Web {
    /// Without user info.
    pub(super) url: Url,
    /// With it, if there is any.
    pub(super) login: Option<Url>,
    /// The query, which may be a secret and is not part of `url`.
    query: Option<String>,
}

/// `NOMAD_ADDR`; else what Nomad sets in a task whose identity is in its environment.
pub(super) fn nomad(env: &Env) -> Result<Address, Noted> {
    for name in ["NOMAD_ADDR", "NOMAD_UNIX_ADDR"] {
        let Some(text) = env.optional::<String>(name)? else { continue };
        let address = parse(env, name, &text)?;
        return Ok(match address {
            Address::Web(web) => Address::Web(web.without_path()),
            unix @ Address::Unix(_) => unix,
        });
    }
    parse(env, "NOMAD_ADDR", NOMAD_DEFAULT)
}

/// `CONSUL_HTTP_ADDR`, with TLS if either it or `CONSUL_HTTP_SSL` asks for it.
pub(super) fn consul(env: &Env) -> Result<Address, Noted> {
    const NAME: &str = "CONSUL_HTTP_ADDR";
    let tls = env.switch("CONSUL_HTTP_SSL", false);
    let text = env.or(NAME, CONSUL_DEFAULT.to_owned());
    let (tls, text) = (tls?, text?);
    let address = match (text.split_once("://"), tls) {
        (None, false) => parse(env, NAME, &format!("http://{text}")),
        (None, true) => parse(env, NAME, &format!("https://{text}")),
        (Some(("http", rest)), true) => parse(env, NAME, &format!("https://{rest}")),
        (Some(_), _) => parse(env, NAME, &text),
    }?;
    match address {
        Address::Unix(_) if tls => {
            let what = format!("is on, but {NAME} is a unix socket, which has no TLS");
            Err(env.note("CONSUL_HTTP_SSL", what))
        }
        address => Ok(address),
    }
}

/// The address of a sink that speaks HTTP.
#[cfg(feature = "http")]
pub(super) fn receiver(env: &Env, name: &'static str) -> Result<Address, Noted> {
    let text: String = env.required(name, "an address such as https://host/path")?;
    parse(env, name, &text)
}

/// An address for messages, whether or not it is one: the query may be a secret, as the user info
/// is.
fn shown(text: &str) -> String {
    match (text.find('?'), text.rfind('@')) {
        // The one may be part of the other.
        (Some(query), Some(user)) if query < user => "***".to_owned(),
        _ => redacted(text).split('?').next().unwrap_or_default().to_owned(),
    }
}

fn parse(env: &Env, name: &'static str, text: &str) -> Result<Address, Noted> {
    let shown = shown(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        let what = format!("`{shown}` has no scheme; write http://{shown} or https://{shown}");
        return Err(env.note(name, what));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "unix" if cfg!(not(unix)) => {
            Err(env.note(name, "is a unix socket, which this system does not have; write http://…"))
        }
        "unix" if rest.is_empty() => {
            Err(env.note(name, "names no socket; write unix:///path/to/the.sock"))
        }
        "unix" => Ok(Address::Unix(rest.into())),
        "http" | "https" => match Url::parse(text) {
            Ok(url) => Ok(Address::Web(Web::new(url))),
            Err(err) => Err(env.note(name, format!("`{shown}`: {err}"))),
        },
        _ => Err(env.note(name, format!("`{shown}` is neither http, https nor unix"))),
    }
}

impl Address {
    /// The address for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Web(web) => web.base(),
        }
    }
}

impl Web {
    fn new(url: Url) -> Self {
        let mut bare = url.clone();
        // These fail for URLs without a host only, which these schemes do not allow.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        bare.set_query(None);
        bare.set_fragment(None);
        let query = url.query().map(str::to_owned);
        let login = (bare.username() != url.username() || url.password().is_some()).then_some(url);
        Self { url: bare, login, query }
    }

    fn without_path(mut self) -> Self {
        self.url.set_path("");
        self
    }
    /// What paths are appended to.
    pub(super) fn base(&self) -> String {
        self.url.origin().ascii_serialization() + self.url.path().trim_end_matches('/')
    }

    /// The whole of it.
    pub(super) fn target(&self) -> String {
        let query = self.query.as_ref().map(|it| format!("?{it}")).unwrap_or_default();
        self.url.origin().ascii_serialization() + self.url.path() + &query
    }

    /// The host, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        let host = self.url.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What the header `Host` has to say.
    pub(super) fn host_header(&self) -> Option<HeaderValue> {
        let host = self.url.host_str()?;
        let host = self.url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        HeaderValue::from_str(&host).ok()
    }

    /// Puts another name in place of the host.
    pub(super) fn rename(&mut self, name: &str) {
        // It fails for what cannot be a host, which `Tls` has already refused.
        let _ = self.url.set_host(Some(name));
    }

    /// Whether TLS is spoken.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the host is this machine, which no proxy leads to.
    pub(super) fn is_local(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
    }
}
