//! Publishes every new task event of every Nomad allocation.

use std::process::ExitCode;

use nomad_firehose::{run, streams::Allocations};

fn main() -> ExitCode {
    run::run::<Allocations>()
}
