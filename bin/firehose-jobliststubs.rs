//! Publishes the short form of every Nomad job, whenever the job changes.

use std::process::ExitCode;

use nomad_firehose::{run, streams::JobListStubs};

fn main() -> ExitCode {
    run::run::<JobListStubs>()
}
