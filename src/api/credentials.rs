//! Who we are, on every request: tokens and headers, from the environment or from files that are
//! read again.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::env::{Env, Noted, Secret};

/// The most that is read of a token file. Tokens are a few hundred bytes.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Whoever waits for another token looks for it this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where Nomad puts the identity of a task that asks for it as a file, below the directory of its
/// secrets.
const IDENTITY_FILE: &str = "nomad_token";

/// What a request carries to be let in: a token, and for a proxy before the API a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    header: HeaderName,
    token: Token,
    basic: Option<HeaderValue>,
}

/// Where the token comes from.
pub(crate) type Token = Secrets<HeaderValue>;

/// Something that nobody may see, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) enum Secrets<T> {
    None,
    Fixed(T),
    File(Arc<SecretFile<T>>),
}

/// A file that something else may replace at any time, as `consul-template` and Nomad do.
#[derive(Debug)]
pub(crate) struct SecretFile<T> {
    path: PathBuf,
    parse: Parse<T>,
    latest: Mutex<Latest<T>>,
}

#[derive(Debug)]
struct Latest<T> {
    value: Option<T>,
    /// How often it was another one.
    changes: u64,
    /// The last attempt to read failed, and the operator was told so.
    warned: bool,
}

type Parse<T> = fn(&str) -> Result<T, TokenError>;

/// A secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it holds characters that no header can carry, such as a line break")]
    NotAHeader,
    #[cfg(feature = "http")]
    #[error("line {0} is not of the form `Name: value`")]
    NotALine(usize),
}

impl Credentials {
    pub(super) fn new(header: HeaderName, token: Token, basic: Option<HeaderValue>) -> Self {
        Self { header, token, basic }
    }

    /// Puts the credentials of this moment into the headers of a request; whether they are others
    /// than those that it had.
    pub fn apply(&self, headers: &mut HeaderMap) -> bool {
        let mut others = false;
        if let Some(token) = self.token.current() {
            others =
                headers.insert(self.header.clone(), token.clone()).is_none_or(|it| it != token);
        }
        if let Some(basic) = &self.basic {
            headers.insert(AUTHORIZATION, basic.clone());
        }
        others
    }

    /// Whether the token can be replaced while the process runs.
    pub(super) fn may_change(&self) -> bool {
        matches!(self.token, Token::File(_))
    }

    /// How often the token was replaced.
    pub(super) fn changes(&self) -> u64 {
        match &self.token {
            Token::File(file) => file.latest().changes,
            Token::None | Token::Fixed(_) => 0,
        }
    }

    /// Resolves once there is another token than that in these headers.
    pub(super) async fn replaced(&self, headers: &HeaderMap) {
        if !self.may_change() {
            return std::future::pending().await;
        }
        let used = headers.get(&self.header);
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if self.token.current().as_ref() != used {
                return;
            }
        }
    }

    /// Resolves once there is another token than now.
    pub(super) async fn changed(&self) {
        let mut now = HeaderMap::new();
        self.apply(&mut now);
        self.replaced(&now).await;
    }

    /// Where the token comes from, for messages.
    pub(super) fn source(&self, variable: &str) -> String {
        match &self.token {
            Token::None => "none".to_owned(),
            Token::Fixed(_) => variable.to_owned(),
            Token::File(file) => format!("the file {}", file.path.display()),
        }
    }
}

/// Resolves once there is another token than now.
pub(super) async fn changed(credentials: Option<&Credentials>) {
    match credentials {
        Some(credentials) => credentials.changed().await,
        None => std::future::pending().await,
    }
}

impl Token {
    /// The token in the file, if there is any in it, else the one in the environment.
    pub(crate) fn read(env: &Env, value: &'static str, file: &'static str) -> Result<Self, Noted> {
        Self::read_as(env, value, file, "the token", header_value)
    }

    /// The same; and in a task of Nomad that asked for its identity as a file, that file where
    /// neither is set, or where the variable holds what is in it: Nomad sets that once, and renews
    /// the file.
    pub(super) fn read_in_task(
        env: &Env,
        value: &'static str,
        file: &'static str,
    ) -> Result<Self, Noted> {
        let secrets = env.optional::<PathBuf>("NOMAD_SECRETS_DIR");
        let (token, secrets) = (Self::read(env, value, file)?, secrets?);
        let given = match &token {
            Self::None => None,
            Self::Fixed(given) => Some(given),
            Self::File(_) => return Ok(token),
        };
        let Some(path) = secrets.map(|it| it.join(IDENTITY_FILE)) else { return Ok(token) };
        Ok(match read(&path, header_value) {
            Ok(identity) if given.is_none_or(|it| *it == identity) => {
                Self::file(path, header_value, Some(identity))
            }
            // Most tasks have none.
            Ok(_) | Err(_) => token,
        })
    }

    /// The same as the value of `Authorization`.
    #[cfg(feature = "http")]
    pub(super) fn read_bearer(
        env: &Env,
        value: &'static str,
        file: &'static str,
    ) -> Result<Self, Noted> {
        Self::read_as(env, value, file, "the token", |token| {
            header_value(&format!("Bearer {}", token.trim()))
        })
    }
}

#[cfg(feature = "http")]
impl Secrets<HeaderMap> {
    /// Lines of the form `Name: value`.
    pub(crate) fn read_headers(
        env: &Env,
        value: &'static str,
        file: &'static str,
    ) -> Result<Self, Noted> {
        Self::read_as(env, value, file, "the headers", header_lines)
    }
}

impl<T: Clone + PartialEq> Secrets<T> {
    /// What is in the file, if there is anything in it, else what is in the environment.
    fn read_as(
        env: &Env,
        value: &'static str,
        file: &'static str,
        what: &str,
        parse: Parse<T>,
    ) -> Result<Self, Noted> {
        let fixed = env.optional::<Secret>(value)?;
        let fixed = fixed.map(|it| parse(it.expose())).transpose();
        let fixed = fixed.map_err(|err| env.note(value, format!("cannot use {what}: {err}")));
        let path = env.optional::<PathBuf>(file)?;
        let Some(path) = path else {
            return Ok(fixed?.map_or(Self::None, Self::Fixed));
        };
        let value = match read(&path, parse) {
            Ok(value) => Some(value),
            Err(TokenError::Empty) => fixed?,
            Err(err) => {
                let problem = format!("cannot use {what} in {}: {err}", path.display());
                return Err(env.note(file, problem));
            }
        };
        Ok(Self::file(path, parse, value))
    }

    fn file(path: PathBuf, parse: Parse<T>, value: Option<T>) -> Self {
        let latest = Mutex::new(Latest { value, changes: 0, warned: false });
        Self::File(Arc::new(SecretFile { path, parse, latest }))
    }

    /// The one of this moment, if there is any.
    pub(crate) fn current(&self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Fixed(value) => Some(value.clone()),
            Self::File(file) => file.current(),
        }
    }
}

impl<T> SecretFile<T> {
    fn latest(&self) -> MutexGuard<'_, Latest<T>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + PartialEq> SecretFile<T> {
    /// What is in the file now, or the last that was.
    ///
    /// The file is read each time. It is small and local, and its time and size do not always
    /// tell that it changed.
    fn current(&self) -> Option<T> {
        let read = read(&self.path, self.parse);
        let mut latest = self.latest();
        let path = self.path.display();
        match read {
            Ok(value) => {
                if latest.value.as_ref() != Some(&value) {
                    tracing::info!(file = %path, "the file with the token or headers has changed");
                    latest.value = Some(value);
                    latest.changes += 1;
                }
                latest.warned = false;
            }
            Err(err) if !latest.warned => {
                tracing::warn!(
                    file = %path,
                    error = %err,
                    "cannot use the file with the token or headers; what was last in it stays in \
                     use until the file is mended"
                );
                latest.warned = true;
            }
            Err(_) => {}
        }
        latest.value.clone()
    }
}

fn read<T>(path: &PathBuf, parse: Parse<T>) -> Result<T, TokenError> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(TokenError::Empty),
        text => parse(text),
    }
}

/// Headers, one a line, as `curl` reads them.
#[cfg(feature = "http")]
fn header_lines(text: &str) -> Result<HeaderMap, TokenError> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, it)| !it.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or(TokenError::NotALine(number + 1))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        let name = name.map_err(|_| TokenError::NotALine(number + 1))?;
        headers.append(name, header_value(value.trim())?);
    }
    Ok(headers)
}

fn header_value(token: &str) -> Result<HeaderValue, TokenError> {
    let mut value = HeaderValue::from_str(token).map_err(|_| TokenError::NotAHeader)?;
    value.set_sensitive(true);
    Ok(value)
}
