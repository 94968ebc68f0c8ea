//! What `deploy/` has fits the program and itself. What can be tried without a container engine or
//! a real Nomad is tried; the rights in Consul and the broker of the try-out are in the suite
//! against real servers.

mod alerts;
mod files;
mod image;
mod metrics;
mod scripts;
mod units;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A path below `deploy/`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// A file below `deploy/`.
fn file(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Every file below `deploy/`, with its name there.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![path("")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                left.push(entry);
                continue;
            }
            let name = entry.strip_prefix(path("")).unwrap().to_str().unwrap().to_owned();
            let text = file(&name);
            found.push((name, text));
        }
    }
    assert!(found.len() > 20, "only {} files were found", found.len());
    found
}

/// Says past the test harness that something could not be tried here.
fn not_checked(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "{what}: NOT CHECKED, {why}");
}

/// Runs a command; `None` where there is no such program.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        Err(err) => panic!("{command:?}: {err}"),
    }
}

/// What a command wrote, to whichever output.
fn written(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}
