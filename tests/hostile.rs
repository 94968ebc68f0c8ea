//! What arrives from outside, damaged in every way that comes to mind. A fuzzer tries the same
//! functions for longer; see `fuzz/`.

mod corpus;
mod limits;
mod targets;

use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};

use corpus::seeds;
use targets::{ALL, Target};

/// Pieces of what is read, from which more is put together than from any bytes.
const WORDS: [&str; 32] = [
    "{}",
    "[]",
    "{\"",
    "\":",
    ",",
    "]",
    "}",
    "null",
    "\"ID\":\"a\"",
    "\"ModifyIndex\":",
    "18446744073709551615",
    "-1",
    "1e400",
    "\\u0000",
    "\\ud800",
    "\n",
    "\"Events\":[",
    "\"Topic\":\"Job\"",
    "\"Payload\":{",
    "\"Job\":{}",
    "\"Value\":\"AA==\"",
    "\"Flags\":3304740253564472344",
    "http://",
    "%",
    "data.",
    ".map(x,x+x)",
    ".all(x,",
    "((",
    "))",
    " && !",
    "[0]",
    "'\\\\",
];

/// One step of damage.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Drop(usize, usize),
    Repeat(usize, usize),
    Insert(usize, usize),
    Splice(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || 0..4096_usize;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        at().prop_map(Damage::Cut),
        (at(), 1..64_usize).prop_map(|(at, size)| Damage::Drop(at, size)),
        (at(), 1..64_usize).prop_map(|(at, size)| Damage::Repeat(at, size)),
        (at(), 0..WORDS.len()).prop_map(|(at, word)| Damage::Insert(at, word)),
        (at(), at()).prop_map(|(at, seed)| Damage::Splice(at, seed)),
    ]
}

fn damaged(mut bytes: Vec<u8>, steps: &[Damage], seeds: &[Vec<u8>]) -> Vec<u8> {
    for step in steps {
        let size = bytes.len();
        let place = |at: usize| at % (size + 1);
        match *step {
            Damage::Flip(at, bit) if size > 0 => bytes[at % size] ^= 1 << bit,
            Damage::Flip(..) => (),
            Damage::Cut(at) => bytes.truncate(place(at)),
            Damage::Drop(at, count) => {
                bytes.drain(place(at)..size.min(place(at) + count));
            }
            Damage::Repeat(at, count) => {
                let piece = bytes[place(at)..size.min(place(at) + count)].to_vec();
                bytes.splice(place(at)..place(at), piece);
            }
            Damage::Insert(at, word) => {
                bytes.splice(place(at)..place(at), WORDS[word].bytes());
            }
            Damage::Splice(at, seed) => {
                let other = &seeds[seed % seeds.len()];
                let from = at % (other.len() + 1);
                bytes.truncate(place(at));
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Tries what is known, damages of it, and bytes that are nothing.
fn try_all(name: &str, cases: u32) {
    let target: Target = ALL.iter().find(|(it, _)| *it == name).unwrap().1;
    let seeds = seeds(name);
    seeds.iter().for_each(|it| target(it));
    // As many times more as of other properties.
    let wanted = std::env::var("PROPTEST_CASES").map_or(256, |it| it.parse::<u32>().unwrap());
    let cases = (cases * wanted).div_ceil(256);
    // The same cases in every run: what fails is to fail again.
    let config = Config { failure_persistence: None, cases, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let steps = proptest::collection::vec(damage(), 1..5);
    let known = (0..seeds.len(), steps)
        .prop_map(|(seed, steps)| damaged(seeds[seed].clone(), &steps, &seeds));
    let unknown = proptest::collection::vec(any::<u8>(), 0..96);
    let run = runner.run(&prop_oneof![4 => known, 1 => unknown], |input| {
        target(&input);
        Ok(())
    });
    match run {
        Err(TestError::Fail(why, input)) => panic!("{name}: {why}: b\"{}\"", input.escape_ascii()),
        other => other.unwrap(),
    }
}

#[test]
fn properties_of_lists_hold_for_any_bytes() {
    try_all("splitter", 4_000);
}

#[test]
fn properties_of_the_event_stream_hold_for_any_bytes() {
    try_all("lines", 4_000);
}

#[test]
fn properties_of_checkpoints_hold_for_any_bytes() {
    try_all("cursor", 4_000);
}

#[test]
fn properties_of_the_configuration_hold_for_any_environment() {
    try_all("environment", 60);
}

#[test]
fn properties_of_answers_of_consul_hold_for_any_bytes() {
    try_all("consul", 1_000);
}

#[test]
fn properties_of_what_nomad_shows_hold_for_any_bytes() {
    try_all("nomad", 3_000);
}

#[cfg(feature = "filter")]
#[test]
fn properties_of_filters_hold_for_any_expression_and_payload() {
    try_all("filter", 6_000);
}
