//! What the environment says of the brokers and the topic.

use std::{fs::File, io::Read, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use krafka::auth::{AuthConfig, TlsConfig};

use crate::{
    api::{
        reload::Reloaded,
        tls::{Pem, Tls, Variables},
    },
    env::{Env, Noted, Secret, Switch},
    error::Chain,
};

/// Calls under way at once, which hides that each takes its time.
const WORKERS: usize = 4;
const MAX_WORKERS: usize = 64;
/// What a broker takes in one batch unless it is set up otherwise.
const MESSAGE_BYTES: usize = 1 << 20;
const MOST_MESSAGE_BYTES: usize = 64 << 20;
/// How long brokers may take for the messages of a call, and for any other request.
const TIMEOUT: Duration = Duration::from_secs(10);
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
const MOST_TIMEOUT: Duration = Duration::from_secs(120);
/// What Kafka allows for the name of a topic.
const MAX_TOPIC: usize = 249;
/// The most that is read of a file with a password.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

const USER: &str = "SINK_KAFKA_USER";
const PASSWORD: &str = "SINK_KAFKA_PASSWORD";
const PASSWORD_FILE: &str = "SINK_KAFKA_PASSWORD_FILE";
const MECHANISM: &str = "SINK_KAFKA_SASL_MECHANISM";

const TLS: Variables = Variables {
    ca_cert: "SINK_KAFKA_CA_CERT_PATH",
    ca_path: "SINK_KAFKA_CAPATH",
    client_cert: "SINK_KAFKA_CLIENT_CERT",
    client_key: "SINK_KAFKA_CLIENT_KEY",
    server_name: "SINK_KAFKA_TLS_SERVER_NAME",
};

/// Where and how to produce.
pub(super) struct Settings {
    /// As `host:port`, with commas between them.
    pub(super) brokers: String,
    pub(super) topic: String,
    tls: Option<Trust>,
    login: Option<Login>,
    pub(super) idempotent: bool,
    pub(super) message_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) workers: usize,
}

/// The certificates and keys of the moment, and the name in the brokers'.
type Trust = (Reloaded<Arc<Pem>>, Option<String>);

/// Who we are.
struct Login {
    mechanism: Mechanism,
    user: String,
    password: Password,
}

/// How that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

enum Password {
    Fixed(Secret),
    /// Read again for each connection.
    File(PathBuf),
}

/// A file without a password.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the password in {}, which SINK_KAFKA_PASSWORD_FILE names", .path.display())]
pub(super) struct PasswordError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Text that is no mechanism of ours.
#[derive(Debug, thiserror::Error)]
#[error("is not one of: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")]
struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "PLAIN" => Ok(Self::Plain),
            "SCRAM-SHA-256" => Ok(Self::ScramSha256),
            "SCRAM-SHA-512" => Ok(Self::ScramSha512),
            _ => Err(UnknownMechanism),
        }
    }
}

impl Settings {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let brokers = brokers(env);
        let topic = topic(env);
        let tls = tls(env);
        let login = Login::from_env(env);
        let idempotent = env.switch("SINK_KAFKA_IDEMPOTENT", true);
        let name = "SINK_KAFKA_MAX_MESSAGE_BYTES";
        let message_bytes = env.within(name, MESSAGE_BYTES, MOST_MESSAGE_BYTES);
        let timeout = env.duration("SINK_KAFKA_TIMEOUT", TIMEOUT).and_then(|it| {
            if (LEAST_TIMEOUT..=MOST_TIMEOUT).contains(&it) {
                return Ok(it);
            }
            let what = format!("`{it:?}` is not {LEAST_TIMEOUT:?} to {MOST_TIMEOUT:?}");
            Err(env.note("SINK_KAFKA_TIMEOUT", what))
        });
        let workers = env.within("SINK_KAFKA_WORKERS", WORKERS, MAX_WORKERS);
        Ok(Self {
            brokers: brokers?,
            topic: topic?,
            tls: tls?,
            login: login?,
            idempotent: idempotent?,
            message_bytes: message_bytes?,
            timeout: timeout?,
            workers: workers?,
        })
    }

    /// TLS and SASL as the library takes them, with the files as they are now.
    pub(super) fn security(&self) -> Result<AuthConfig, PasswordError> {
        let auth = match &self.login {
            None => AuthConfig::plaintext(),
            Some(Login { mechanism, user, password }) => {
                let password = password.current()?;
                let password = password.expose();
                match mechanism {
                    Mechanism::Plain => AuthConfig::sasl_plain(user, password),
                    Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
                    Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
                }
            }
        };
        let Some((pem, name)) = &self.tls else { return Ok(auth) };
        let Pem { authorities, client } = &*pem.current();
        let config = match authorities {
            Some(pem) => TlsConfig::new().with_ca_cert_pem(pem.clone()),
            None => TlsConfig::new().with_native_roots(),
        };
        let config = match client {
            Some((chain, key)) => config.with_client_cert_pem(chain.clone(), key.clone()),
            None => config,
        };
        Ok(auth.with_tls(match name {
            Some(name) => config.with_sni_hostname(name),
            None => config,
        }))
    }
}

/// The brokers to begin with, as `host:port`.
fn brokers(env: &Env) -> Result<String, Noted> {
    let name = "SINK_KAFKA_BROKERS";
    let list: String = env.required(name, "such as kafka-1:9092,kafka-2:9092")?;
    let parts: Vec<&str> = list.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    // What is wrong is not shown, since it could be anything.
    match parts.iter().position(|it| !is_address(it)) {
        Some(at) => Err(env.note(name, format!("broker {} is not of the form host:port", at + 1))),
        None if parts.is_empty() => Err(env.note(name, "names no broker")),
        None => Ok(parts.join(",")),
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let good = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let known = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
            !host.is_empty() && host.chars().all(known)
        }
    };
    good && port.parse::<u16>().is_ok_and(|it| it != 0)
}

fn topic(env: &Env) -> Result<String, Noted> {
    let name = "SINK_KAFKA_TOPIC";
    let topic: String = env.required(name, "the name of a topic")?;
    let known = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    if topic.len() <= MAX_TOPIC && topic.chars().all(known) && !matches!(&*topic, "." | "..") {
        return Ok(topic);
    }
    let what = "is not the name of a topic, of at most 249 letters, digits, `.`, `_` or `-`";
    Err(env.note(name, format!("`{topic}` {what}")))
}

/// TLS where it is asked for, or where certificates are given, as with the Go tool.
fn tls(env: &Env) -> Result<Option<Trust>, Noted> {
    let name = "SINK_KAFKA_TLS";
    let tls = Tls::read(env, &TLS, Ok(true));
    let wanted = env.optional::<Switch>(name);
    let named = [TLS.ca_cert, TLS.ca_path, TLS.client_cert].into_iter().find(|it| {
        // That it is not UTF-8 is said already.
        env.optional::<String>(it).is_ok_and(|it| it.is_some())
    });
    let (tls, wanted) = (tls?, wanted?);
    match (wanted, named) {
        (Some(Switch(false)), Some(named)) => {
            Err(env.note(name, format!("is off, and {named} is set: unset one of them")))
        }
        (Some(Switch(false)) | None, None) => Ok(None),
        (Some(Switch(true)), _) | (None, Some(_)) => {
            let server_name = tls.server_name().map(str::to_owned);
            let pem = tls.pem().map_err(|err| env.note(TLS.ca_cert, Chain(&*err).to_string()))?;
            Ok(Some((pem, server_name)))
        }
    }
}

impl Login {
    fn from_env(env: &Env) -> Result<Option<Self>, Noted> {
        let user = env.optional::<String>(USER);
        let password = env.optional::<Secret>(PASSWORD);
        let file = env.optional::<PathBuf>(PASSWORD_FILE);
        let mechanism = env.optional::<Mechanism>(MECHANISM);
        let (user, password, file, mechanism) = (user?, password?, file?, mechanism?);
        let password = match (password, file) {
            (_, Some(path)) => Some(Password::File(path)),
            (Some(password), None) => Some(Password::Fixed(password)),
            (None, None) => None,
        };
        if let Some(password @ Password::File(_)) = &password {
            password
                .current()
                .map_err(|err| env.note(PASSWORD_FILE, format!("{}", Chain(&err))))?;
        }
        let what = |other: &str| format!("is not set, and {other} is: set both or neither");
        match (user, password) {
            (Some(user), Some(password)) => {
                let mechanism = mechanism.unwrap_or(Mechanism::Plain);
                Ok(Some(Self { mechanism, user, password }))
            }
            (Some(_), None) => Err(env.note(PASSWORD, what(USER))),
            (None, Some(Password::Fixed(_))) => Err(env.note(USER, what(PASSWORD))),
            (None, Some(Password::File(_))) => Err(env.note(USER, what(PASSWORD_FILE))),
            (None, None) if mechanism.is_some() => Err(env.note(USER, what(MECHANISM))),
            (None, None) => Ok(None),
        }
    }
}

impl Password {
    fn current(&self) -> Result<Secret, PasswordError> {
        let path = match self {
            Self::Fixed(password) => return Ok(password.clone()),
            Self::File(path) => path,
        };
        let failed = |source| PasswordError { path: path.clone(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_PASSWORD_BYTES).read_to_string(&mut text).map_err(failed)?;
        // Most editors end a file with a line break.
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(failed(std::io::Error::other("it is empty"))),
            text => text.parse().map_err(|never: std::convert::Infallible| match never {}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::kafka;

    fn problem(vars: &[(&str, &str)]) -> String {
        kafka(vars).err().unwrap_or_default().join("; ")
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for good in ["a:1", "a:1, b.c:2,", "[::1]:9092", "10.0.0.1:65535"] {
            assert_eq!(problem(&[("SINK_KAFKA_BROKERS", good)]), "", "{good}");
        }
        for bad in ["a", "a:0", "a:b", "kafka://a:1", "me:planted@a:1", "::1:9092", "a:1/x", ","] {
            let problem = problem(&[("SINK_KAFKA_BROKERS", bad)]);
            assert!(problem.contains("broker") && !problem.contains("planted"), "{bad}: {problem}");
        }
        let second = problem(&[("SINK_KAFKA_BROKERS", "a:1,b")]);
        assert!(second.contains("broker 2 is not of the form"), "{second}");
    }

    #[test]
    fn a_topic_has_the_name_of_one() {
        let long = "t".repeat(250);
        for bad in ["a b", "a/b", "..", &long] {
            let problem = problem(&[("SINK_KAFKA_TOPIC", bad)]);
            assert!(problem.contains("is not the name of a topic"), "{problem}");
        }
    }

    #[test]
    fn a_login_is_whole() {
        let said = problem(&[("SINK_KAFKA_USER", "me")]);
        assert!(said.starts_with("SINK_KAFKA_PASSWORD: is not set, and SINK_KAFKA_USER is"));
        let said = problem(&[("SINK_KAFKA_PASSWORD", "planted")]);
        assert!(said.starts_with("SINK_KAFKA_USER: is not set, and SINK_KAFKA_PASSWORD is"));
        let said = problem(&[("SINK_KAFKA_SASL_MECHANISM", "PLAIN")]);
        assert!(said.starts_with("SINK_KAFKA_USER: is not set, and SINK_KAFKA_SASL_MECHANISM is"));
        let said = problem(&[("SINK_KAFKA_SASL_MECHANISM", "GSSAPI")]);
        assert!(said.contains("`GSSAPI`: is not one of: PLAIN, SCRAM-SHA-256"), "{said}");
    }

    #[test]
    fn tls_is_on_where_it_is_asked_for() {
        let tls = |set: &[(&str, &str)]| kafka(set).unwrap().settings.tls.is_some();
        assert!(!tls(&[]));
        assert!(tls(&[("SINK_KAFKA_TLS", "true")]));
        assert!(!tls(&[("SINK_KAFKA_TLS", "false")]));
    }
}
