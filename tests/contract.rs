//! What is emitted: every answer that was recorded of a real Nomad goes through the code that
//! publishes, and what comes out is the contract.

pub mod emit;
mod ids;
mod passthrough;
mod schemas;
mod snapshots;
mod task_events;
mod text;

pub use emit::{Recording, emit_elements, lists, lists_of, objects};
