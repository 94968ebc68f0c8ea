//! Tokens, keys and certificates that are replaced while a process runs.

mod certificates;
mod identity;
mod tokens;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, response::Response};
use nomad_firehose::{
    api::{Nomad, Query, connect},
    cursor::Index,
    env::Env,
};
use tempfile::TempDir;

use crate::firehose::Served;

/// A file with a secret, which is replaced as whatever rotates secrets does it.
struct SecretFile {
    dir: TempDir,
}

impl SecretFile {
    fn new(text: &str) -> Self {
        let it = Self { dir: tempfile::tempdir().unwrap() };
        it.replace(text);
        it
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("nomad_token")
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// Puts another file in its place.
    fn replace(&self, text: &str) {
        replace(&self.path(), text);
    }
}

fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, path).unwrap();
}

/// Nomad at an address, with the token in a file.
fn nomad(address: &str, token: &SecretFile) -> Nomad {
    let env = Env::from([("NOMAD_ADDR", address), ("NOMAD_FIREHOSE_TOKEN_FILE", &token.shown())]);
    nomad_of(env)
}

fn nomad_of(env: Env) -> Nomad {
    let endpoint = connect::nomad(&env);
    Nomad::new(env.check(endpoint).unwrap(), None)
}

/// A list of nodes that blocks, where there is an index that it is to be past.
fn nodes(past: Option<u64>) -> Query {
    Query {
        past: past.map(Index),
        wait: std::time::Duration::from_secs(300),
        stale: true,
        namespace: "*".to_owned(),
        prefix: None,
    }
}

/// A server that gives each request the answer of a function, and remembers method and token.
struct Scripted {
    served: Served,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn new(answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let router = Router::new().fallback(move |request: Request| {
            let token = ["x-nomad-token", "x-consul-token", "authorization"]
                .iter()
                .find_map(|it| request.headers().get(*it)?.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            noted.lock().unwrap().push(format!("{} {token}", request.method()));
            let answer = answer(&token);
            async move { answer }
        });
        Self { served: Served::new(router).await, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(status: u16, body: &'static str) -> Response {
    let answer = Response::builder().status(status).header("X-Nomad-Index", "7");
    answer.header("X-Consul-Index", "7").body(body.into()).unwrap()
}
