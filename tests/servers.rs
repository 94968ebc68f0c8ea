//! The suite against a real Consul.
