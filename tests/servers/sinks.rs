//! What the sinks share with the suite that needs no servers.

#[path = "../sinks/contract.rs"]
pub mod contract;
#[path = "../sinks/kafka/wire.rs"]
pub mod kafka_wire;
#[path = "../sinks/proxy.rs"]
pub mod proxy;
#[path = "../sinks/source.rs"]
pub mod source;
#[path = "../sinks/web.rs"]
pub mod web;
#[path = "../sinks/world.rs"]
pub mod world;
