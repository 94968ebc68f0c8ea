//! Flags, what they print, and the exit codes.

use nomad_firehose::{COMMIT, streams};

use super::{
    World,
    firehose::{Program, USAGE},
};

#[tokio::test]
async fn help_names_the_flags_the_variable_one_cannot_do_without_and_the_exit_codes() {
    for program in [Program::stream("nodes"), Program::named()] {
        let help = program.arguments(&["--help"]).run().await;
        assert_eq!((help.code, help.log.as_str()), (Some(0), ""));
        for word in [
            "--check",
            "--once",
            "--dry-run",
            "--health",
            "--schema",
            "--version",
            "--log-level",
            "SINK_TYPE",
            "64",
            "78",
        ] {
            assert!(help.out.contains(word), "{word} is not in:\n{}", help.out);
        }
    }
    let help = Program::named().arguments(&["--help"]).run().await;
    for (name, ..) in streams::ALL {
        assert!(help.out.contains(name), "{name} is not in:\n{}", help.out);
    }
}

#[tokio::test]
async fn the_version_is_that_of_the_package_with_the_commit_that_was_built() {
    let built = format!("{} (commit {COMMIT})\n", env!("CARGO_PKG_VERSION"));
    let version = Program::stream("jobs").arguments(&["--version"]).run().await;
    assert_eq!(version.out, format!("firehose-jobs {built}"));
    let version = Program::named().arguments(&["-V"]).run().await;
    assert_eq!(version.out, format!("nomad-firehose {built}"));
}

#[tokio::test]
async fn the_schema_printed_is_the_one_in_the_repository_and_needs_no_configuration() {
    for (name, ..) in streams::ALL {
        let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let schema = std::fs::read_to_string(path).unwrap();
        let own = Program::stream(name).arguments(&["--schema"]).run().await;
        assert_eq!((own.code, own.log.as_str()), (Some(0), ""));
        assert!(own.out == schema, "--schema of {name} differs from the repository's");
        let named = Program::named().arguments(&[name, "--schema"]).run().await;
        assert!(named.out == schema, "--schema of nomad-firehose {name} differs");
    }
}

#[tokio::test]
async fn an_unknown_flag_or_stream_is_a_wrong_command_line() {
    let lines: [(Program, &[&str], &str); 6] = [
        (Program::stream("nodes"), &["--loud"], "--loud"),
        (Program::stream("nodes"), &["jobs"], "jobs"),
        (Program::named(), &["pods"], "pods"),
        (Program::named(), &["nodes", "jobs"], "nodes jobs"),
        (Program::named(), &[], "allocations"),
        (Program::named(), &["--log-level"], "log-level"),
    ];
    for (program, arguments, named) in lines {
        let finished = program.arguments(arguments).run().await;
        assert_eq!((finished.code, finished.out.as_str()), (Some(USAGE), ""), "{arguments:?}");
        assert!(finished.log.contains(named), "{arguments:?}: {}", finished.log);
        assert!(finished.log.contains("--help"), "{arguments:?}: {}", finished.log);
    }
}

#[tokio::test]
async fn the_go_tools_command_line_publishes_the_stream_that_it_names() {
    let world = World::with(2).await;
    let program = world.set(Program::named()).set("LOG_LEVEL", "error");
    let running = program.arguments(&["--log-level=debug", "nodes"]).start();
    running.publishes(2).await;
    assert_eq!(running.out.names(), ["n00000", "n00001"]);
    let finished = running.stop().await;
    assert!(finished.log.contains("elected"), "the flag does not win: {}", finished.log);
}

#[tokio::test]
async fn flags_that_make_no_sense_together_are_a_wrong_command_line() {
    for flag in ["--check", "--once", "--dry-run"] {
        let finished = Program::stream("nodes").arguments(&["--schema", flag]).run().await;
        assert_eq!((finished.code, finished.out.as_str()), (Some(USAGE), ""), "{flag}");
        assert!(finished.log.contains(flag), "{}", finished.log);
    }
}
