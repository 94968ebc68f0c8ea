//! Publishes every Nomad job, whenever it changes.

use std::process::ExitCode;

use nomad_firehose::{run, streams::Jobs};

fn main() -> ExitCode {
    run::run::<Jobs>()
}
