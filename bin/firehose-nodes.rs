//! Publishes every Nomad node, whenever it changes.

use std::process::ExitCode;

use nomad_firehose::{run, streams::Nodes};

fn main() -> ExitCode {
    run::run::<Nodes>()
}
