//! What `cargo` is asked for in a page: that there are such programs, features and tests.

use std::{collections::HashMap, fs, process::Command};

use super::pages::root;

/// What there is to build, from `Cargo.toml`.
#[derive(Default)]
pub struct Manifest {
    /// Programs, and the features that they need.
    pub bins: HashMap<String, Vec<String>>,
    pub tests: Vec<String>,
    pub benches: Vec<String>,
    /// Features, and whether they are in a plain build.
    pub features: HashMap<String, bool>,
}

const COMMANDS: [&str; 10] =
    ["bench", "build", "check", "clippy", "doc", "fmt", "fuzz", "insta", "run", "test"];
const FLAGS: [&str; 9] = [
    "--all-features",
    "--all-targets",
    "--check",
    "--lib",
    "--locked",
    "--no-default-features",
    "--no-deps",
    "--no-run",
    "--release",
];

impl Manifest {
    pub fn read() -> Self {
        let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let (mut manifest, mut section, mut name) = (Self::default(), String::new(), String::new());
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
                continue;
            }
            let Some((key, value)) = line.split_once(" = ") else { continue };
            let words = || value.split('"').skip(1).step_by(2).map(str::to_owned);
            match (section.as_str(), key) {
                (_, "name") => {
                    name = words().next().unwrap();
                    match section.as_str() {
                        "bin" => drop(manifest.bins.insert(name.clone(), Vec::new())),
                        "test" => manifest.tests.push(name.clone()),
                        "bench" => manifest.benches.push(name.clone()),
                        _ => {}
                    }
                }
                ("bin", "required-features") => {
                    manifest.bins.insert(name.clone(), words().collect());
                }
                ("features", "default") => {
                    manifest.features.extend(words().map(|it| (it, true)));
                }
                ("features", _) => drop(manifest.features.entry(key.to_owned()).or_default()),
                _ => {}
            }
        }
        assert!(manifest.bins.len() > 7 && manifest.features.len() > 3, "Cargo.toml is not read");
        manifest
    }

    /// What is wrong with a command line, given without `cargo`.
    pub fn judge(&self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        if !COMMANDS.contains(&command) {
            return Err(format!("`cargo {command}` is not known to this test"));
        }
        if command == "insta" {
            return Ok(());
        }
        let mut features: Vec<&str> = Vec::new();
        let (mut default, mut all, mut bin, mut suite) = (true, false, None, "all");
        let mut filters = Vec::new();
        while let Some(word) = words.next() {
            let mut value = |what: &str| words.next().ok_or(format!("{word} lacks {what}"));
            match word {
                "--" => break,
                "--bin" => bin = Some(value("a program")?),
                "--features" => features.extend(value("features")?.split(',')),
                "--test" => suite = value("a suite")?,
                "--bench" => {
                    let bench = value("a benchmark")?;
                    known(bench, &self.benches, "benchmark")?;
                }
                "--no-default-features" => default = false,
                "--all-features" => all = true,
                word if FLAGS.contains(&word) => {}
                word if word.starts_with('-') => return Err(format!("no flag {word}")),
                word => filters.push(word),
            }
        }
        for feature in &features {
            known(feature, self.features.keys(), "feature")?;
        }
        known(suite, &self.tests, "test suite")?;
        if let Some(bin) = bin {
            known(bin, self.bins.keys(), "program")?;
            let has = |it: &String| {
                all || features.contains(&it.as_str()) || (default && self.features[it])
            };
            if let Some(lacking) = self.bins[bin].iter().find(|it| !has(it)) {
                return Err(format!("{bin} needs the feature {lacking}"));
            }
        }
        match (command, filters.first()) {
            ("test", Some(filter)) => is_a_test(suite, filter),
            _ => Ok(()),
        }
    }
}

fn known<'a, T: AsRef<str> + 'a>(
    name: &str,
    all: impl IntoIterator<Item = &'a T>,
    what: &str,
) -> Result<(), String> {
    let found = all.into_iter().any(|it| it.as_ref() == name);
    if found { Ok(()) } else { Err(format!("there is no {what} {name}")) }
}

/// Whether a filter lets a test through: this suite tells all of them, of the other one there is
/// a file for each theme.
fn is_a_test(suite: &str, filter: &str) -> Result<(), String> {
    let found = if suite == "all" {
        let own = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
        String::from_utf8(own.stdout).unwrap().lines().any(|it| it.contains(filter))
    } else {
        let theme = filter.split("::").next().unwrap();
        root().join(format!("tests/{suite}/{theme}.rs")).exists()
    };
    if found { Ok(()) } else { Err(format!("{suite} has no test {filter}")) }
}

#[test]
fn what_cargo_cannot_do_is_found() {
    let manifest = Manifest::read();
    for (line, fine) in [
        ("run --bin firehose-demo -- --stream nodes", true),
        ("run --bin firehose-demon", false),
        ("run --no-default-features --bin firehose-demo", false),
        ("run --no-default-features --features demo --bin firehose-demo", true),
        ("run --features fuzz --bin fuzz-cursor FILE", true),
        ("build --release --features amqp,pigeon", false),
        ("build --release --faster", false),
        ("test --test all documentation::cargo", true),
        ("test --test all documentation::carg0", false),
        ("test --test servers kills", true),
        ("test --test servers dreams", false),
        ("test --test some", false),
        ("bench --bench rates", true),
        ("install nomad-firehose", false),
    ] {
        assert_eq!(manifest.judge(line).is_ok(), fine, "{line}: {:?}", manifest.judge(line));
    }
}
