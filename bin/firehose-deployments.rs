//! Publishes every Nomad deployment, whenever it changes.

use std::process::ExitCode;

use nomad_firehose::{run, streams::Deployments};

fn main() -> ExitCode {
    run::run::<Deployments>()
}
