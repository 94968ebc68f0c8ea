//! Who we are: a login in the address, a token, credentials or an nkey.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use async_nats::ConnectOptions;

use super::address::{InAddress, Server};
use crate::{
    api::credentials::Token,
    env::{Env, Noted},
};

const TOKEN: &str = "SINK_NATS_TOKEN";
const TOKEN_FILE: &str = "SINK_NATS_TOKEN_FILE";
const CREDENTIALS: &str = "SINK_NATS_CREDENTIALS_FILE";
const NKEY: &str = "SINK_NATS_NKEY_FILE";
/// The most that is read of a file. Credentials are a few kilobytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// How the seed of a user begins.
const USER_SEED: &str = "SU";

/// How to log in.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// As each address says, or not at all.
    InAddress,
    Token(Token),
    /// A JWT with its key.
    Credentials(PathBuf),
    /// The seed of a key.
    Nkey(PathBuf),
}

/// A file that holds no login.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}, which {variable} names", .path.display())]
pub(super) struct LoginError {
    variable: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Login {
    /// The one that the environment has; the files are read again for each connection.
    pub(super) fn from_env(env: &Env, servers: &[Server]) -> Result<Self, Noted> {
        let token = Token::read(env, TOKEN, TOKEN_FILE);
        let credentials = env.optional::<PathBuf>(CREDENTIALS);
        let nkey = env.optional::<PathBuf>(NKEY);
        let usable = |login: Option<Self>, name| match login {
            Some(login) => login.usable().map_err(|err| env.note(name, err.source.to_string())),
            None => Ok(()),
        };
        let credentials = credentials.map(|it| it.map(Self::Credentials));
        let nkey = nkey.map(|it| it.map(Self::Nkey));
        let can_use = [
            credentials.as_ref().map_or(Ok(()), |it| usable(it.clone(), CREDENTIALS)),
            nkey.as_ref().map_or(Ok(()), |it| usable(it.clone(), NKEY)),
        ];
        let token = token.map(|it| match it {
            Token::None => None,
            token => Some(Self::Token(token)),
        });
        let given = [(TOKEN, token?), (CREDENTIALS, credentials?), (NKEY, nkey?)];
        can_use.into_iter().collect::<Result<(), Noted>>()?;
        let mut given = given.into_iter().filter_map(|(name, login)| Some((name, login?)));
        let Some((name, login)) = given.next() else { return Ok(Self::InAddress) };
        if let Some((other, _)) = given.next() {
            return Err(env.note(other, format!("is set beside {name}: set one of them")));
        }
        if servers.iter().any(|it| it.login.is_some()) {
            return Err(env.note(name, "is set, and SINK_NATS_URL has a login: use one of them"));
        }
        Ok(login)
    }

    fn usable(&self) -> Result<(), LoginError> {
        self.apply(ConnectOptions::new(), None).map(drop)
    }

    /// Puts it into the options of a connection.
    pub(super) fn apply(
        &self,
        options: ConnectOptions,
        in_address: Option<&InAddress>,
    ) -> Result<ConnectOptions, LoginError> {
        let wrong = |variable, path: &Path| {
            let path = path.to_owned();
            move |source| LoginError { variable, path, source }
        };
        Ok(match (self, in_address) {
            (Self::InAddress, None) => options,
            (Self::InAddress, Some(InAddress::Token(token))) => {
                options.token(token.expose().to_owned())
            }
            (Self::InAddress, Some(InAddress::Password(user, password))) => {
                options.user_and_password(user.clone(), password.expose().to_owned())
            }
            (Self::Token(token), _) => match token.current() {
                Some(token) => options.token(String::from_utf8_lossy(token.as_bytes()).into()),
                None => options,
            },
            (Self::Credentials(path), _) => {
                let text = read(path).map_err(wrong(CREDENTIALS, path))?;
                options.credentials(&text).map_err(wrong(CREDENTIALS, path))?
            }
            (Self::Nkey(path), _) => {
                let text = read(path).map_err(wrong(NKEY, path))?;
                options.nkey(seed(&text).map_err(wrong(NKEY, path))?)
            }
        })
    }
}

/// The text of a file, and a line break after it, without which the library finds no key in it.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    text.push('\n');
    Ok(text)
}

/// The seed among the lines of a file.
fn seed(text: &str) -> io::Result<String> {
    let base32 = |it: u8| it.is_ascii_uppercase() || (b'2'..=b'7').contains(&it);
    let is_seed = |it: &&str| it.starts_with(USER_SEED) && it.bytes().all(base32);
    let what = "it has no line with the seed of a user, which begins with SU";
    let found = text.lines().map(str::trim).find(is_seed);
    found.map(str::to_owned).ok_or_else(|| io::Error::other(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::nats::address;

    fn login(vars: &[(&str, &str)]) -> Result<Login, String> {
        let vars = vars.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let env: Env = vars.collect();
        let servers = address::from_env(&env).unwrap();
        let login = Login::from_env(&env, &servers);
        env.check(login).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn there_is_one_login() {
        let plain = ("SINK_NATS_URL", "nats://a");
        assert!(matches!(login(&[plain]), Ok(Login::InAddress)));
        assert!(matches!(login(&[plain, (TOKEN, "planted")]), Ok(Login::Token(_))));
        let with_login = ("SINK_NATS_URL", "nats://me:planted@a");
        let both = login(&[with_login, (TOKEN, "planted")]).unwrap_err();
        assert!(both.contains("SINK_NATS_URL has a login"), "{both}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        std::fs::write(&path, "-----\n SUAFNA2\n").unwrap();
        let nkey = (NKEY, path.to_str().unwrap());
        assert!(matches!(login(&[plain, nkey]), Ok(Login::Nkey(_))));
        let two = login(&[plain, nkey, (TOKEN, "planted")]).unwrap_err();
        assert!(two.contains("set one of them"), "{two}");
        assert!(![both, two].concat().contains("planted"));
    }

    #[test]
    fn a_file_without_a_login_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("planted");
        std::fs::write(&path, "SAplanted").unwrap();
        for name in [NKEY, CREDENTIALS] {
            let problem = login(&[("SINK_NATS_URL", "a"), (name, path.to_str().unwrap())]);
            let problem = problem.unwrap_err();
            assert!(problem.starts_with(name) && !problem.contains("SAplanted"), "{problem}");
        }
    }
}
