//! Publishes Nomad's changes to a sink, once elected, from where it left off.
//!
//! ```text
//! bin/* → run → pipeline ─┬─ watch ── streams ── api (generated)
//!                         ├─ deliver ── sink
//!                         └─ leader ── api (generated)
//! ```
//!
//! Read in this order: `streams` (what is watched), `watch` (how a list becomes records), `sink`
//! and `deliver` (how records are published), `leader` (who may publish, and from where),
//! `pipeline` (the loop that joins them), `run` (the process around it). `cursor` and `dedupe` are
//! where it is decided that nothing is lost and little is repeated.

pub mod api;
pub mod streams;
pub mod watch;

pub mod deliver;
pub mod filter;
pub mod sink;

pub mod leader;

pub mod pipeline;
pub mod run;

pub mod admin;
pub mod backoff;
pub mod cursor;
pub mod dedupe;
pub mod env;
pub mod error;
pub mod failpoint;
pub mod finding;
pub mod metrics;
pub mod record;
pub mod shutdown;
pub mod telemetry;

#[cfg(feature = "demo")]
pub mod standin;

/// The version of this package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, or `unknown`; `build.rs` finds it out.
pub const COMMIT: &str = match option_env!("NOMAD_FIREHOSE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
