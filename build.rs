//! Generates the clients of Nomad and Consul from their OpenAPI documents, and finds out which commit is built.
//!
//! The documents say what the servers answer; what this program needs otherwise is changed here, on a copy.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use progenitor::{GenerationSettings, Generator, HooksMode, InterfaceStyle};
use serde_json::Value;

/// Answers that are JSON but read as bytes: objects that are passed through as Nomad sent them, lists and the event
/// stream, which are split while they arrive, and the refusals of a transaction and of a variable, because an operation
/// has one type of error.
const RAW: [(&str, &str); 10] = [
    ("list_allocations", "200"),
    ("list_nodes", "200"),
    ("list_evaluations", "200"),
    ("list_jobs", "200"),
    ("list_deployments", "200"),
    ("get_node", "200"),
    ("get_job", "200"),
    ("stream_events", "200"),
    ("transaction", "409"),
    ("write_variable", "409"),
];

/// Names the commit, for `--version`; set where there is no git, as in a container's build.
const COMMIT: &str = "NOMAD_FIREHOSE_COMMIT";
/// How many digits of it are shown.
const COMMIT_DIGITS: usize = 12;

#[expect(clippy::disallowed_methods, reason = "there is no `Env` here yet")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let given = env::var(COMMIT).ok().filter(|it| !it.is_empty());
    let commit = given.or_else(head).unwrap_or_else(|| "unknown".to_owned());
    let is_hash = commit.bytes().all(|it| it.is_ascii_hexdigit());
    let shown = if is_hash { commit.get(..COMMIT_DIGITS).unwrap_or(&commit) } else { &commit };
    println!("cargo::rustc-env={COMMIT}={shown}");
    // A static program brings what relocates it, so that it can have the short form, half a megabyte less.
    if env::var_os("CARGO_CFG_TARGET_ENV").is_some_and(|it| it == "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; Cargo sets it")?);
    for name in ["nomad", "consul"] {
        let document = format!("openapi/{name}.yaml");
        println!("cargo::rerun-if-changed={document}");
        let code = generate(&document).map_err(|error| format!("{document}: {error}"))?;
        let target = out_dir.join(format!("{name}.rs"));
        fs::write(&target, code).map_err(|error| format!("write {}: {error}", target.display()))?;
    }
    Ok(())
}

/// The commit that is checked out, if this package is what the repository around it is of.
///
/// Changes that are not committed are not looked for: that would take reading every file for every build.
fn head() -> Option<String> {
    // A package that was unpacked within another's repository is not of its commits.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let mut watched = vec!["HEAD".to_owned(), "logs/HEAD".to_owned()];
    if !path_of("logs/HEAD").is_some_and(|it| it.is_file()) {
        // Without that log, which has a line for each commit, what HEAD names tells of them.
        watched.extend(git(&["symbolic-ref", "--quiet", "HEAD"]));
        watched.push("packed-refs".to_owned());
    }
    // Cargo takes a file that is not there for one that has changed.
    for path in watched.iter().filter_map(|it| path_of(it)).filter(|it| it.is_file()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    git(&["rev-parse", "HEAD"])
}

/// Where a file of the repository is, which for a worktree is elsewhere.
fn path_of(name: &str) -> Option<PathBuf> {
    git(&["rev-parse", "--git-path", name]).map(PathBuf::from)
}

/// What git says, on one line; nothing where there is no git, or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The Rust code of the client that a document describes.
fn generate(document: &str) -> Result<String, Box<dyn Error>> {
    let mut document: Value = yaml_serde::from_str(&fs::read_to_string(document)?)?;
    read_times_as_text(&mut document);
    read_raw(&mut document);
    let document = serde_json::from_value(document)?;

    let mut settings = GenerationSettings::default();
    settings
        .with_interface(InterfaceStyle::Builder)
        .with_map_type("::std::collections::BTreeMap")
        .with_derive("schemars::JsonSchema")
        .with_inner_type("crate::api::State".parse()?)
        .with_hooks(HooksMode::Expected);
    let tokens = Generator::new(&settings).generate_tokens(&document)?;
    Ok(prettyplease::unparse(&syn::parse2(tokens)?))
}

/// Drops the format of times and of base64: parsed and printed again, either could differ from what was sent.
fn read_times_as_text(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let format = fields.get("format").and_then(Value::as_str);
            if matches!(format, Some("date-time" | "byte")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(read_times_as_text);
        }
        Value::Array(items) => items.iter_mut().for_each(read_times_as_text),
        _ => {}
    }
}

/// Declares the answers in `RAW` to be bytes, which the client hands out as they arrive.
fn read_raw(document: &mut Value) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    let paths = paths.into_iter().flat_map(|paths| paths.values_mut());
    for operation in paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut()) {
        let id = operation.get("operationId").and_then(Value::as_str);
        let Some((_, status)) = RAW.iter().find(|raw| Some(raw.0) == id) else { continue };
        operation["responses"][status]["content"] = serde_json::json!({
            "application/octet-stream": { "schema": { "type": "string", "format": "binary" } }
        });
    }
}
