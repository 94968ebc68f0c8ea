//! Whatever is in the environment.

use std::{collections::BTreeSet, ffi::OsString};

use nomad_firehose::{
    env::{DOCUMENTED, Env},
    run::Config,
    streams::Nodes,
    telemetry::{Layout, Logs},
};

/// No problem shows it, wherever it is put.
const PLANTED: &str = "pl4nted";

/// Variables of others that are read as well.
const OTHERS: [&str; 31] = [
    "LOG_LEVEL",
    "LOG_FORMAT",
    "NOMAD_ADDR",
    "NOMAD_UNIX_ADDR",
    "NOMAD_REGION",
    "NOMAD_NAMESPACE",
    "NOMAD_ALLOC_ID",
    "NOMAD_SECRETS_DIR",
    "NOMAD_TOKEN",
    "NOMAD_HTTP_AUTH",
    "NOMAD_CACERT",
    "NOMAD_CAPATH",
    "NOMAD_CLIENT_CERT",
    "NOMAD_CLIENT_KEY",
    "NOMAD_TLS_SERVER_NAME",
    "NOMAD_SKIP_VERIFY",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_SSL",
    "CONSUL_HTTP_SSL_VERIFY",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "CONSUL_HTTP_AUTH",
    "CONSUL_CACERT",
    "CONSUL_CAPATH",
    "CONSUL_CLIENT_CERT",
    "CONSUL_CLIENT_KEY",
    "CONSUL_NAMESPACE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SINK_UNKNOWN",
];

/// Each stands alone: no other means anything else because of it.
const ALONE: [&str; 12] = [
    "LOG_LEVEL",
    "LOG_FORMAT",
    "NOMAD_FIREHOSE_GRACE",
    "NOMAD_FIREHOSE_CHECKPOINT",
    "NOMAD_FIREHOSE_RESYNC",
    "NOMAD_FIREHOSE_START",
    "NOMAD_FIREHOSE_SOURCE",
    "NOMAD_FIREHOSE_REJECTED",
    "NOMAD_FIREHOSE_FORMAT",
    "NOMAD_SKIP_VERIFY",
    "SINK_HTTP_GZIP",
    "SINK_AMQP_WORKERS",
];

type Vars = Vec<(&'static str, OsString)>;

fn names() -> Vec<&'static str> {
    DOCUMENTED.iter().chain(&OTHERS).copied().collect()
}

/// A line of the input is a variable: a byte that names it, and its value.
fn vars(input: &[u8]) -> Vars {
    let names = names();
    let mut found: Vars = Vec::new();
    for line in input.split(|it| *it == b'\n').take(64) {
        let Some((which, value)) = line.split_first() else { continue };
        let name = names[usize::from(*which) % names.len()];
        if value.contains(&0) || found.iter().any(|(it, _)| *it == name) {
            continue;
        }
        let text = String::from_utf8_lossy(value);
        found.push((name, planted(name, &text).into()));
    }
    found
}

/// A value with a secret where one can be. Nothing is written to where the input likes.
fn planted(name: &str, text: &str) -> String {
    let is = |parts: &[&str]| parts.iter().any(|it| name.contains(it));
    if is(&["_FILE", "CACERT", "CAPATH", "CLIENT_", "_DIR", "DEAD_LETTER"]) {
        return format!("/dev/null/{}", text.replace(['/', '.'], "_"));
    }
    if is(&["TOKEN", "_AUTH", "HEADERS", "SECRET"]) {
        return format!("{text}{PLANTED}");
    }
    if is(&["ADDR", "PROXY", "CONNECTION"]) && name != "NO_PROXY" {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        return format!("{scheme}://me:{PLANTED}@{}", rest.replace(['@', '?', '/', ','], "."));
    }
    text.to_owned()
}

/// Everything that is said of an environment.
fn said(vars: &Vars) -> BTreeSet<String> {
    let env: Env = vars.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    let layout = Layout::from_env(&env, "nodes", None);
    let logs = Logs::from_env(&env, None, layout);
    let config = Config::from_env::<Nodes>(&env);
    assert!(!format!("{env:?}").contains(PLANTED));
    let unknown = env.unknown();
    let problems = match env.check(logs.and(config)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    let count = problems.len();
    let all: BTreeSet<String> = problems.into_iter().collect();
    assert_eq!(all.len(), count, "a problem is said twice");
    for text in all.iter().chain(&unknown) {
        assert!(!text.contains(PLANTED), "{text}");
        assert!(names().iter().any(|it| text.starts_with(it)), "{text}");
    }
    all
}

/// No problem hides another one, and none has a secret in it.
pub fn environment(input: &[u8]) {
    let vars = vars(input);
    let all = said(&vars);
    for alone in ALONE {
        let without: Vars = vars.iter().filter(|(name, _)| *name != alone).cloned().collect();
        if without.len() < vars.len() {
            let others = all.iter().filter(|it| !it.starts_with(&format!("{alone}:")));
            assert_eq!(said(&without), others.cloned().collect());
            return;
        }
    }
}
