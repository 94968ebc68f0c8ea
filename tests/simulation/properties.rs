//! What must hold for every history.

use std::env;

use nomad_firehose::streams::{Allocations, Evaluations, Jobs};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{history::histories, play::play, subject::Subject};
use crate::support::paused;

/// How many histories are played of each stream, unless `SIMULATION_SEEDS` says otherwise.
const SEEDS: u64 = 100;
/// How often one is played again that `SIMULATION_SEED` names: which of two things that happen at
/// one instant comes first is not in the seed.
const REPLAYS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Plays the history of every seed. One that goes wrong is made as small as it can be.
fn hold<R: Subject>(test: &str) {
    let (seed, seeds) = (number("SIMULATION_SEED"), number("SIMULATION_SEEDS"));
    let count = seeds.unwrap_or(if seed.is_some() { 1 } else { SEEDS });
    let first = seed.unwrap_or_default();
    let times = if seed.is_some() && count == 1 { REPLAYS } else { 1 };
    for seed in first..first + count {
        for _ in 0..times {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            let config = ProptestConfig {
                max_shrink_iters: 300,
                failure_persistence: None,
                ..ProptestConfig::default()
            };
            let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
            let mut runner = TestRunner::new_with_rng(config, random);
            let history = histories().new_tree(&mut runner).unwrap();
            let played = runner.run_one(history, |history| {
                paused(play::<R>(&history)).map_err(TestCaseError::fail)
            });
            if let Err(wrong) = played {
                panic!(
                    "{wrong}\nplay it again with SIMULATION_SEED={seed} \
                     cargo test --test all simulation::properties::{test}"
                );
            }
        }
    }
}

#[test]
fn task_events_survive_every_history() {
    hold::<Allocations>("task_events_survive_every_history");
}

#[test]
fn objects_survive_every_history() {
    hold::<Evaluations>("objects_survive_every_history");
}

#[test]
fn objects_that_are_read_by_id_survive_every_history() {
    hold::<Jobs>("objects_that_are_read_by_id_survive_every_history");
}
