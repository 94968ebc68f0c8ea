//! The documentation as whoever follows it finds it: its commands are run, what it quotes of their
//! output is compared, its links lead somewhere, and what the program knows itself is not written
//! twice. What a page has to do for that is in CONTRIBUTING.md.

mod cargo;
mod commands;
mod examples;
mod figures;
mod follow;
mod generated;
mod links;
mod pages;
mod quotes;
#[allow(dead_code, reason = "the other test binary needs the rest")]
mod stage;
