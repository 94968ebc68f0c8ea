//! Everything that needs no server: one test binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, unreachable_pub)]

mod connecting;
mod contract;
mod delivering;
mod deploy;
mod environment;
mod failover;
#[allow(dead_code, reason = "the other test binary needs the rest")]
#[path = "support/process.rs"]
mod firehose;
mod following;
mod hostile;
mod leaders;
mod migration;
mod openapi;
mod positions;
mod process;
mod properties;
mod publishing;
mod reading;
mod regression;
mod rotating;
mod simulation;
mod sinks;
mod support;
mod tidy;
mod watching;
