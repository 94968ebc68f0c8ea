//! `SINK_MONGODB_CONNECTION`, and the password that may be in a file beside it.

use std::{fs::File, io::Read, path::PathBuf, time::Duration};

use ::mongodb::{
    error::ErrorKind,
    options::{ClientOptions, ConnectionString, HostInfo},
};
use futures::FutureExt;

use super::answer::NotThere;
use crate::env::{Env, Noted, Secret};

const CONNECTION: &str = "SINK_MONGODB_CONNECTION";
const PASSWORD_FILE: &str = "SINK_MONGODB_PASSWORD_FILE";

/// How long a connection may take to be made, and a heartbeat, unless the address says otherwise.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a call waits for a primary to be found, unless the address says otherwise.
const SELECTION_LIMIT: Duration = Duration::from_secs(5);
/// The most that either may be. Both together, and an answer, have to fit into a call: one that is
/// cut off does not tell that addresses, passwords and certificates are to be read again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The most that is read of the file with the password.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// Where the servers are, and how to log in.
pub(super) struct Address {
    text: Secret,
    password: Option<PathBuf>,
    /// The hosts, for messages.
    pub(super) shown: String,
}

/// A file without a password that could be used.
#[derive(Debug, thiserror::Error)]
#[error("read the password of MongoDB in {path}; mend the file, or SINK_MONGODB_PASSWORD_FILE")]
pub(super) struct PasswordError {
    path: String,
    #[source]
    source: std::io::Error,
}

impl Address {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let hint = "an address such as mongodb://user:password@host:27017/?replicaSet=rs0";
        let text = env.required::<Secret>(CONNECTION, hint);
        let password = env.optional::<PathBuf>(PASSWORD_FILE);
        let checked = text.and_then(|text| match parsed(text.expose()) {
            Ok(parsed) => Ok((text, parsed)),
            Err(what) => Err(env.note(CONNECTION, what)),
        });
        let password = password.and_then(|path| match path.as_ref().map(read).transpose() {
            Ok(_) => Ok(path),
            Err(err) => {
                let path = path.unwrap_or_default();
                let what = format!("cannot use the password in {}: {err}", path.display());
                Err(env.note(PASSWORD_FILE, what))
            }
        });
        let (text, parsed) = checked?;
        let password = password?;
        let user = parsed.credential.as_ref().and_then(|it| it.username.as_ref());
        if password.is_some() && user.is_none() {
            let what = format!("is a password, and {CONNECTION} names no user");
            return Err(env.note(PASSWORD_FILE, what));
        }
        Ok(Self { text, password, shown: shown(&parsed.host_info) })
    }

    /// What a client is made of, as names are resolved and files are at this moment.
    pub(super) async fn options(&self, workers: usize) -> Result<ClientOptions, NotThere> {
        let options = ClientOptions::parse(adapted(self.text.expose())).await;
        let mut options = options.map_err(NotThere::Said)?;
        if let (Some(path), Some(credential)) = (&self.password, &mut options.credential) {
            let password = read(path).map_err(|source| {
                NotThere::Password(PasswordError { path: path.display().to_string(), source })
            })?;
            credential.password = Some(password);
        }
        // Whatever fails is tried again by those who know what else waits for it.
        options.retry_writes = Some(false);
        options.retry_reads = Some(false);
        options.max_adaptive_retries = Some(0);
        options.connect_timeout = Some(bounded(options.connect_timeout, CONNECT_LIMIT));
        options.server_selection_timeout =
            Some(bounded(options.server_selection_timeout, SELECTION_LIMIT));
        options.max_pool_size = u32::try_from(workers).ok();
        options.min_pool_size = None;
        options.app_name.get_or_insert_with(|| "nomad-firehose".to_owned());
        Ok(options)
    }
}

/// A wait that ends: zero stands for one that does not.
fn bounded(set: Option<Duration>, default: Duration) -> Duration {
    match set {
        None => default,
        Some(Duration::ZERO) => LONGEST_WAIT,
        Some(set) => set.min(LONGEST_WAIT),
    }
}

/// An address as the library takes it: without what has no effect here, and with what the Go
/// tool's library calls `connect` under the name that all have for it.
fn adapted(text: &str) -> String {
    let Some((place, options)) = text.split_once('?') else { return text.to_owned() };
    let adapt = |option| match <str>::to_ascii_lowercase(option).split_once('=') {
        Some((
            "compressors" | "zlibcompressionlevel" | "zstdcompressionlevel" | "sockettimeoutms",
            _,
        ))
        | Some(("connect", "automatic")) => None,
        Some(("connect", "direct")) => Some("directConnection=true"),
        _ => Some(option),
    };
    let options: Vec<&str> = options.split('&').filter_map(adapt).collect();
    if options.is_empty() { place.to_owned() } else { format!("{place}?{}", options.join("&")) }
}

/// What an address says, or what is wrong with it.
fn parsed(text: &str) -> Result<ConnectionString, String> {
    let adapted = adapted(text);
    let parsed = ConnectionString::parse(&adapted).map_err(|err| said(text, &err.kind))?;
    // The rest is looked at where that asks no name server, so that nothing has to be waited for.
    if matches!(parsed.host_info, HostInfo::HostIdentifiers(_)) {
        let options = async { ClientOptions::parse(&adapted).await }.now_or_never();
        if let Some(Err(err)) = options {
            return Err(said(text, &err.kind));
        }
    }
    Ok(parsed)
}

/// What the library says of an address, unless that has something in it that nobody may see.
fn said(text: &str, kind: &ErrorKind) -> String {
    let said = kind.to_string();
    if secrets(text).any(|it| said.contains(it)) {
        return "is not an address that the library can read; special characters in a user or a \
                password have to be percent-encoded"
            .to_owned();
    }
    format!("cannot be used: {said}")
}

/// Pieces of an address that may be of a secret, as whoever cannot read it may cut it.
fn secrets(text: &str) -> impl Iterator<Item = &str> {
    let start = text.find("://").map_or(0, |at| at + "://".len());
    let user = text.rfind('@').filter(|at| *at >= start).map_or("", |at| &text[start..at]);
    let options = text.split_once('?').map_or("", |(_, options)| options).split('&');
    let options = options.filter_map(|it| it.split_once('=')).filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name.contains("password") || name.contains("properties")
    });
    let all = std::iter::once(user).chain(options.map(|(_, value)| value));
    all.flat_map(|it| it.split([':', '@', '/', '?', ',', '&', '=', '#', '[', ']']))
        .filter(|it| !it.is_empty())
}

fn shown(hosts: &HostInfo) -> String {
    match hosts {
        HostInfo::HostIdentifiers(hosts) => {
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        HostInfo::DnsRecord(name) => name.clone(),
        _ => String::new(),
    }
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_PASSWORD_BYTES).read_to_string(&mut text)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(std::io::Error::other("it is empty")),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, String> {
        let env = Env::from([(CONNECTION, text)]);
        let address = Address::from_env(&env);
        env.check(address).map(|it| it.shown).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn an_address_is_shown_by_its_hosts() {
        assert_eq!(address("mongodb://db"), Ok("db:27017".into()));
        let set = "mongodb://u:secret@a:1,b:2/admin?replicaSet=rs0&tls=true";
        assert_eq!(address(set), Ok("a:1,b:2".into()));
        assert_eq!(address("mongodb+srv://u:secret@db.example/"), Ok("db.example".into()));
    }

    #[tokio::test]
    async fn options_that_only_go_knows_or_that_have_no_effect_are_no_mistake() {
        let text =
            "mongodb://db/?compressors=zstd,snappy&connect=Direct&socketTimeoutMS=5&tls=true";
        assert_eq!(adapted(text), "mongodb://db/?directConnection=true&tls=true");
        assert_eq!(address(text), Ok("db:27017".into()));
        assert_eq!(address("mongodb://db/?socketTimeoutMS=5"), Ok("db:27017".into()));
        let with = async |options: &str| {
            let env = Env::from([(CONNECTION, &*format!("mongodb://db/?{options}"))]);
            let address = Address::from_env(&env);
            let Ok(options) = env.check(address).unwrap().options(1).await else { panic!() };
            let waits = [options.connect_timeout, options.server_selection_timeout];
            (options.direct_connection, waits.map(|it| it.unwrap().as_millis()))
        };
        assert_eq!(with("connect=direct").await, (Some(true), [5_000, 5_000]));
        let longer = "connectTimeoutMS=0&serverSelectionTimeoutMS=30000&connect=automatic";
        assert_eq!(with(longer).await, (None, [10_000, 10_000]));
        let shorter = "connectTimeoutMS=700&serverSelectionTimeoutMS=800";
        assert_eq!(with(shorter).await, (None, [700, 800]));
    }

    #[test]
    fn a_wrong_address_is_a_problem_that_shows_no_password() {
        for text in [
            "db:27017",
            "http://u:secret@db",
            "mongodb://u:secret@db:x",
            "mongodb://u:se/secret@db",
            "mongodb://u:se?secret@db",
            "mongodb://u:12345secret?x@db",
            "mongodb://u:secret@db/?tls=perhaps",
            "mongodb://u:secret@db/?connect=perhaps",
            "mongodb://u:secret@a,b/?connect=direct",
            "mongodb://u:secret@db/?w=0&journal=true",
            "mongodb://u:secret@db/?authMechanism=SECRET-1",
            "mongodb://db/?proxyHost=p&proxyPassword=secret",
            "mongodb+srv://u:secret@a,b",
            "mongodb://",
        ] {
            let problem = address(text).unwrap_err();
            assert!(problem.starts_with(CONNECTION) && !problem.contains("secret"), "{problem}");
        }
    }
}
