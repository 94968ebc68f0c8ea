//! Who publishes, and from where: what every backend has to keep, and what is of one only.

pub mod backends;
pub mod contract;
mod nomad;
mod nomad_rights;
mod outages;
pub mod steps;
