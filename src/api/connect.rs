//! Clients from the variables of the official ones: `NOMAD_*`, `CONSUL_*`, and the proxies'; and
//! one for a sink that speaks HTTP.

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::{
    Client, ClientBuilder, NoProxy, Proxy, RequestBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use tokio::net::lookup_host;

pub use super::credentials::Credentials;
use super::{
    address::{self, Address, Web},
    credentials::Token,
    reload::Reloaded,
    tls::{self, Tls},
};
use crate::{
    env::{Env, Noted, Secret},
    error::{BoxError, Chain},
};

/// How long a connection may take to be made. What the answer may take is the request's business.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is waiting for an answer is probed this often. NAT gateways forget sooner
/// than a blocking query ends.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// An idle connection is kept this long for the next request.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// The host of every request over a unix socket, where it has no meaning.
const UNIX_BASE: &str = "http://127.0.0.1";

const USER_AGENT: &str = concat!("nomad-firehose/", env!("CARGO_PKG_VERSION"));
const X_NOMAD_TOKEN: HeaderName = HeaderName::from_static("x-nomad-token");
const X_CONSUL_TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// An API to talk to.
#[derive(Clone)]
pub struct Endpoint {
    /// What paths are appended to, without a slash at its end.
    pub base: String,
    /// The whole address as configured, with its query and without user info.
    pub target: String,
    pub(super) clients: Reloaded<Client>,
    /// For every request.
    pub credentials: Credentials,
    /// The address as configured, for messages: without user info.
    pub shown: String,
}

impl Endpoint {
    /// Connects as configured, with the certificates of this moment. It has no total timeout and
    /// follows no redirects, since the headers of [`Credentials`] would go along.
    #[must_use]
    pub fn client(&self) -> Client {
        self.clients.current()
    }
}

/// Where in an enterprise Consul the keys and sessions are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsulScope {
    /// `CONSUL_NAMESPACE`, the query parameter `ns`.
    pub namespace: Option<String>,
    /// `CONSUL_PARTITION`, the query parameter `partition`.
    pub partition: Option<String>,
}

/// Nomad, as `NOMAD_*` says.
pub fn nomad(env: &Env) -> Result<Endpoint, Noted> {
    let skip_verify = env.switch("NOMAD_SKIP_VERIFY", false);
    let tls = Tls::read(env, &tls::NOMAD, skip_verify.map(|skip| !skip));
    let token = Token::read_in_task(env, "NOMAD_TOKEN", "NOMAD_FIREHOSE_TOKEN_FILE");
    let login = env.optional("NOMAD_HTTP_AUTH");
    let proxies = proxies(env);
    let address = address::nomad(env);
    let (tls, token, login, proxies) = (tls?, token?, login?, proxies?);
    Settings { tls, token, header: X_NOMAD_TOKEN, login, proxies }.connect(env, address?)
}

/// `NOMAD_REGION`, the query parameter `region`.
pub fn nomad_region(env: &Env) -> Result<Option<String>, Noted> {
    env.optional("NOMAD_REGION")
}

/// Consul, as `CONSUL_*` says.
pub fn consul(env: &Env) -> Result<Endpoint, Noted> {
    let verify = env.switch("CONSUL_HTTP_SSL_VERIFY", true);
    let tls = Tls::read(env, &tls::CONSUL, verify);
    let token = Token::read(env, "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE");
    let login = env.optional("CONSUL_HTTP_AUTH");
    let proxies = proxies(env);
    let address = address::consul(env);
    let (tls, token, login, proxies) = (tls?, token?, login?, proxies?);
    Settings { tls, token, header: X_CONSUL_TOKEN, login, proxies }.connect(env, address?)
}

/// `CONSUL_NAMESPACE` and `CONSUL_PARTITION`.
pub fn consul_scope(env: &Env) -> Result<ConsulScope, Noted> {
    let namespace = env.optional("CONSUL_NAMESPACE");
    let partition = env.optional("CONSUL_PARTITION");
    Ok(ConsulScope { namespace: namespace?, partition: partition? })
}

/// The receiver of a sink that speaks HTTP, as `SINK_HTTP_*` says.
#[cfg(feature = "http")]
pub fn receiver(env: &Env) -> Result<Endpoint, Noted> {
    let skip_verify = env.switch("SINK_HTTP_SKIP_VERIFY", false);
    let tls = Tls::read(env, &tls::SINK_HTTP, skip_verify.map(|skip| !skip));
    let token = Token::read_bearer(env, "SINK_HTTP_TOKEN", "SINK_HTTP_TOKEN_FILE");
    let proxies = proxies(env);
    let address = address::receiver(env, "SINK_HTTP_ADDRESS");
    let (tls, token, proxies, address) = (tls?, token?, proxies?, address?);
    if let (Address::Web(Web { login: Some(_), .. }), Token::Fixed(_) | Token::File(_)) =
        (&address, &token)
    {
        let what = "has a user, and there is a token as well: one header cannot hold both";
        return Err(env.note("SINK_HTTP_ADDRESS", what));
    }
    Settings { tls, token, header: AUTHORIZATION, login: None, proxies }.connect(env, address)
}

/// Chooses the cryptography of this process. Clients need it; further calls have no effect.
pub fn install_crypto() {
    // The error is that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Everything but the address.
struct Settings {
    tls: Tls,
    token: Token,
    header: HeaderName,
    login: Option<Secret>,
    proxies: Vec<Proxy>,
}

impl Settings {
    fn connect(self, env: &Env, address: Address) -> Result<Endpoint, Noted> {
        install_crypto();
        let shown = address.shown();
        let trust_variable = self.tls.trust_variable();
        let (base, target, login_url, clients) = match address {
            Address::Unix(path) => {
                let clients = Tls::plain_client(over_socket(path));
                (UNIX_BASE.to_owned(), UNIX_BASE.to_owned(), None, clients)
            }
            Address::Web(mut web) => {
                let clients = route(self.tls, self.proxies, &mut web);
                (web.base(), web.target(), web.login, clients)
            }
        };
        let clients = clients.map_err(|err| {
            // All files were checked, so that only the system's certificates are left to fail.
            let what = "is not set, and the system has no certificates that can be used instead";
            env.note(trust_variable, format!("{what}: {}", Chain(&*err)))
        })?;
        let client = clients.current();
        let login = match (login_url, self.login) {
            (Some(url), _) => authorization(client.get(url)),
            (None, Some(login)) => {
                let (user, password) =
                    login.expose().split_once(':').unwrap_or((login.expose(), ""));
                authorization(client.get(&base).basic_auth(user, Some(password)))
            }
            (None, None) => None,
        };
        let credentials = Credentials::new(self.header, self.token, login);
        Ok(Endpoint { base, target, clients, credentials, shown })
    }
}

/// What all clients have.
fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .pool_idle_timeout(POOL_IDLE)
        // The environment of the process is not asked again: `proxies` are from `Env`.
        .no_proxy()
}

/// What a client has that speaks over a socket.
#[cfg(unix)]
fn over_socket(path: PathBuf) -> ClientBuilder {
    builder().unix_socket(path)
}

/// Never asked for: where there are no such sockets, no address is one.
#[cfg(not(unix))]
fn over_socket(_: PathBuf) -> ClientBuilder {
    builder()
}

/// Leads a client to `web`, whose host may be another one afterwards.
fn route(tls: Tls, proxies: Vec<Proxy>, web: &mut Web) -> Result<Reloaded<Client>, BoxError> {
    let name = tls.server_name().filter(|it| web.is_secure() && *it != web.host());
    if let Some(name) = name.map(str::to_owned) {
        // The client has no setting for it. So the name becomes the host of the address, which a
        // resolver leads to the true one. A proxy would look up the name itself.
        let (host, renamed) = (web.host_header(), Renamed { host: web.host().to_owned() });
        web.rename(&name);
        let headers: HeaderMap = host.map(|it| (HOST, it)).into_iter().collect();
        return tls.client(move || {
            builder().dns_resolver(renamed.clone()).default_headers(headers.clone())
        });
    }
    let proxies = if web.is_local() { Vec::new() } else { proxies };
    let secure = web.is_secure() || !proxies.is_empty();
    let routed =
        move || proxies.iter().fold(builder(), |builder, proxy| builder.proxy(proxy.clone()));
    if secure { tls.client(routed) } else { Tls::plain_client(routed()) }
}

/// Resolves any name to the addresses that `host` has at this moment.
#[derive(Clone)]
struct Renamed {
    host: String,
}

impl Resolve for Renamed {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // Port 0 stands for the one in the address of the request.
            let found: Vec<_> = lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The header that the client would send for the user info of a request.
fn authorization(request: RequestBuilder) -> Option<HeaderValue> {
    request.build().ok()?.headers_mut().remove(AUTHORIZATION)
}

/// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in upper case or lower case.
fn proxies(env: &Env) -> Result<Vec<Proxy>, Noted> {
    let except = either(env, "NO_PROXY", "no_proxy");
    let http = proxy(env, "HTTP_PROXY", "http_proxy", Proxy::http);
    let https = proxy(env, "HTTPS_PROXY", "https_proxy", Proxy::https);
    let except = except?.and_then(|(_, hosts)| NoProxy::from_string(&hosts));
    let found = [http?, https?].into_iter().flatten();
    Ok(found.map(|it| it.no_proxy(except.clone())).collect())
}

fn proxy(
    env: &Env,
    upper: &'static str,
    lower: &'static str,
    of: fn(Url) -> reqwest::Result<Proxy>,
) -> Result<Option<Proxy>, Noted> {
    let Some((name, text)) = either(env, upper, lower)? else { return Ok(None) };
    let text = if text.contains("://") { text } else { format!("http://{text}") };
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            of(url).map(Some).map_err(|err| env.note(name, Chain(&err.without_url()).to_string()))
        }
        Ok(_) => Err(env.note(name, format!("`{text}` is neither http nor https"))),
        Err(err) => Err(env.note(name, format!("`{text}`: {err}"))),
    }
}

/// The first that is set, with its name.
fn either(
    env: &Env,
    upper: &'static str,
    lower: &'static str,
) -> Result<Option<(&'static str, String)>, Noted> {
    match env.optional(upper)? {
        Some(value) => Ok(Some((upper, value))),
        None => Ok(env.optional(lower)?.map(|value| (lower, value))),
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("shown", &self.shown).finish_non_exhaustive()
    }
}
