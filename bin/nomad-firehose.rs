//! Publishes a stream named on the command line, as the Go tool of the same name does.

use std::process::ExitCode;

use nomad_firehose::run;

fn main() -> ExitCode {
    run::run_named()
}
