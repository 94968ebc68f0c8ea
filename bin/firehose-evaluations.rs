//! Publishes every Nomad evaluation, whenever it changes.

use std::process::ExitCode;

use nomad_firehose::{run, streams::Evaluations};

fn main() -> ExitCode {
    run::run::<Evaluations>()
}
