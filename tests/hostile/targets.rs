//! What arrives from outside, each kind as a function of bytes that says what must hold of it,
//! whatever the bytes are. Property tests and a fuzzer call the same, the latter by its path.

#[path = "targets/consul.rs"]
mod consul;
#[path = "targets/cursor.rs"]
mod cursor;
#[path = "targets/environment.rs"]
mod environment;
#[cfg(feature = "filter")]
#[path = "targets/filter.rs"]
mod filter;
#[path = "targets/nomad.rs"]
mod nomad;
#[path = "targets/text.rs"]
mod text;

pub use consul::consul;
pub use cursor::cursor;
pub use environment::environment;
#[cfg(feature = "filter")]
pub use filter::filter;
pub use nomad::nomad;
pub use text::{lines, splitter};

/// A function of bytes that panics where something does not hold.
pub type Target = fn(&[u8]);

pub const ALL: &[(&str, Target)] = &[
    ("splitter", splitter),
    ("lines", lines),
    ("cursor", cursor),
    ("environment", environment),
    ("consul", consul),
    ("nomad", nomad),
    #[cfg(feature = "filter")]
    ("filter", filter),
];

/// Tries the files that the command line names, such as those that a fuzzer has left behind.
#[allow(dead_code, reason = "it is the fuzzer's binaries that have a command line")]
pub fn replay(target: Target) {
    for path in std::env::args().skip(1) {
        target(&std::fs::read(path).unwrap());
    }
}

/// What is said of anything is short and one line, whatever a server has sent.
fn is_brief(text: &str) {
    assert!(text.chars().count() < 1_500, "{} bytes: {text:.1000}", text.len());
    assert!(!text.contains(['\n', '\r']), "{text:?}");
}
