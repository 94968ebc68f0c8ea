//! Everything that needs no server: one test binary, so that it links once.

#![cfg_attr(
    not(feature = "full"),
    allow(dead_code, unused_imports, reason = "what is for the sinks that a build lacks")
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, unreachable_pub)]

mod cloudevents;
mod connecting;
mod contract;
mod delivering;
mod deploy;
mod documentation;
mod environment;
mod failover;
#[cfg(feature = "filter")]
mod filtering;
#[allow(dead_code, reason = "the other test binary needs the rest")]
#[path = "support/process.rs"]
mod firehose;
mod following;
mod health;
mod hostile;
mod leaders;
mod migration;
mod once;
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
