//! What is built, how, and how large it may be.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use nomad_firehose::{COMMIT, streams};

use super::{file, run};

/// The most that a program may have, whatever the file with the sizes says.
const MOST: u64 = 10 << 20;

fn released() -> BTreeSet<String> {
    let streams = streams::ALL.iter().map(|(name, ..)| format!("firehose-{name}"));
    streams.chain(["nomad-firehose".to_owned()]).collect()
}

#[test]
fn every_program_is_built_and_has_a_bound_of_its_size() {
    let build = file("build");
    let list = build.split("PROGRAMS=(").nth(1).unwrap().split(')').next().unwrap();
    let built: BTreeSet<String> = list.split_whitespace().map(str::to_owned).collect();
    assert_eq!(built, released());

    let sizes = file("sizes");
    let mut bounded = BTreeSet::new();
    for line in sizes.lines().filter(|it| !it.starts_with('#')) {
        let (program, most) = line.split_once(' ').unwrap();
        let most: u64 = most.trim().parse().unwrap();
        assert!(most < MOST, "{program} may have {most} bytes");
        bounded.insert(program.to_owned());
    }
    assert_eq!(bounded, released());
}

/// The paths below the root of what the sources take into a program, outside tests.
fn taken_in(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            taken_in(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap();
        for taken in program.split("include_str!").skip(1) {
            let name = taken.split('"').nth(1).unwrap();
            let up = name.matches("../").count();
            let from = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            let folder = from.ancestors().nth(up + 1).unwrap();
            found.insert(folder.join(name.replace("../", "")).to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn the_build_of_an_image_sees_all_that_a_program_is_built_from() {
    let ignored = file("Dockerfile.dockerignore");
    let seen: Vec<&str> = ignored.lines().filter_map(|it| it.strip_prefix('!')).collect();
    let mut needed: BTreeSet<String> =
        ["Cargo.toml", "Cargo.lock", "build.rs", "bin/", "src/", "openapi/", "deploy/build"]
            .map(str::to_owned)
            .into();
    taken_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut needed);
    assert!(needed.contains("schemas/"), "the schemas are taken in: {needed:?}");
    needed.retain(|it| !seen.iter().any(|seen| Path::new(it).starts_with(seen)));
    assert!(needed.is_empty(), "not seen: {needed:?}");
}

#[test]
fn a_released_program_has_what_a_plain_build_has_and_no_stand_in() {
    let manifest = include_str!("../../Cargo.toml");
    let default = manifest.lines().find_map(|it| it.strip_prefix("default = [")).unwrap();
    let mut features: BTreeSet<&str> = default.split('"').skip(1).step_by(2).collect();
    assert!(features.remove("demo"));
    let build = file("build");
    let released = build.lines().find_map(|it| it.strip_prefix("readonly FEATURES=")).unwrap();
    assert_eq!(released.split(',').collect::<BTreeSet<_>>(), features);
}

#[test]
fn the_commit_is_one_of_this_repository() {
    let root = env!("CARGO_MANIFEST_DIR");
    let git = |arguments: &[&str]| {
        let output = run(Command::new("git").args(arguments).current_dir(root))?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    match git(&["rev-parse", "--show-prefix"]) {
        Some(prefix) if prefix.is_empty() => {
            let hash = COMMIT.len() == 12 && COMMIT.bytes().all(|it| it.is_ascii_hexdigit());
            assert!(hash, "{COMMIT}");
            let known = git(&["cat-file", "-t", COMMIT]);
            assert_eq!(known.as_deref(), Some("commit"), "{COMMIT} is not of this repository");
        }
        _ => assert_eq!(COMMIT, "unknown"),
    }
}
