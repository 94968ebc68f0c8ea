//! See `tests/hostile/targets.rs`. Without a fuzzer it tries the files that it is given.

#![cfg_attr(fuzzing, no_main)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, dead_code)]

#[path = "../tests/hostile/targets.rs"]
mod targets;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::cursor(input));

#[cfg(not(fuzzing))]
fn main() {
    targets::replay(targets::cursor);
}
