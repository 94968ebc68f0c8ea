//! Stand-ins for Nomad and Consul: what the tests, the benchmarks and the demo run against.
//!
//! Each stand-in is an [`axum::Router`] and a handle. The router answers as the real server was recorded to answer:
//! texts, status codes, headers, blocking reads, and the traps (index 0, the index that goes back, a list that is empty
//! because a token is wrong). The handle changes the state, scripts [`Fault`]s and tells what was asked.
//!
//! All waiting uses `tokio::time`, and nothing here spawns a task, so that a test which calls the router in-process under
//! a paused clock is deterministic. Over TCP, [`serve`] is the door.

pub mod cluster;
pub mod consul;
pub mod nomad;
pub mod serve;

mod answer;
mod fault;
mod query;
mod random;

pub use fault::{Fault, Request};
