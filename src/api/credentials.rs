//! Who we are, on every request.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::env::{Env, Noted, Secret};

/// The most that is read of a token file. Tokens are a few hundred bytes.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// What a request carries to be let in: a token, and for a proxy before the API a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    header: HeaderName,
    token: Token,
    basic: Option<HeaderValue>,
}

/// Where the token comes from.
#[derive(Clone, Debug)]
pub(super) enum Token {
    None,
    Fixed(HeaderValue),
    File(Arc<TokenFile>),
}

/// A file that something else may replace at any time, as `consul-template` and Nomad do.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    token: Option<HeaderValue>,
    /// The last attempt to read failed, and the operator was told so.
    warned: bool,
}

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it holds characters that no header can carry, such as a line break")]
    NotAHeader,
}

impl Credentials {
    pub(super) fn new(header: HeaderName, token: Token, basic: Option<HeaderValue>) -> Self {
        Self { header, token, basic }
    }

    /// Puts the credentials of this moment into the headers of a request.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let token = match &self.token {
            Token::None => None,
            Token::Fixed(token) => Some(token.clone()),
            Token::File(file) => file.current(),
        };
        if let Some(token) = token {
            headers.insert(self.header.clone(), token);
        }
        if let Some(basic) = &self.basic {
            headers.insert(AUTHORIZATION, basic.clone());
        }
    }
}

impl Token {
    /// The token in the file, if there is any in it, else the one in the environment.
    pub(super) fn read(env: &Env, value: &'static str, file: &'static str) -> Result<Self, Noted> {
        let fixed = env.optional::<Secret>(value)?;
        let fixed = fixed.map(|it| header_value(it.expose())).transpose();
        let fixed = fixed.map_err(|err| env.note(value, format!("cannot use the token: {err}")));
        let path = env.optional::<PathBuf>(file)?;
        let Some(path) = path else {
            return Ok(fixed?.map_or(Self::None, Self::Fixed));
        };
        let token = match read(&path) {
            Ok(token) => Some(token),
            Err(TokenError::Empty) => fixed?,
            Err(err) => {
                let what = format!("cannot use the token in {}: {err}", path.display());
                return Err(env.note(file, what));
            }
        };
        let latest = Mutex::new(Latest { token, warned: false });
        Ok(Self::File(Arc::new(TokenFile { path, latest })))
    }
}

impl TokenFile {
    /// The token in the file now, or the last one that was.
    ///
    /// The file is read each time. It is small and local, and its time and size do not always
    /// tell that it changed.
    fn current(&self) -> Option<HeaderValue> {
        let read = read(&self.path);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.display();
        match read {
            Ok(token) => {
                if latest.token.as_ref() != Some(&token) {
                    tracing::info!(%path, "the token file has a new token");
                    latest.token = Some(token);
                }
                latest.warned = false;
            }
            Err(err) if !latest.warned => {
                tracing::warn!(%path, %err, "cannot read the token file; the last token stays in use");
                latest.warned = true;
            }
            Err(_) => {}
        }
        latest.token.clone()
    }
}

fn read(path: &PathBuf) -> Result<HeaderValue, TokenError> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(TokenError::Empty),
        token => header_value(token),
    }
}

fn header_value(token: &str) -> Result<HeaderValue, TokenError> {
    let mut value = HeaderValue::from_str(token).map_err(|_| TokenError::NotAHeader)?;
    value.set_sensitive(true);
    Ok(value)
}
