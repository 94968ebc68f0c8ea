//! Histories that went wrong once, as small as they could be made.

use std::time::Duration;

use nomad_firehose::{record::Limits, streams::Allocations, watch::Source};

use super::{
    history::{History, Kind, Step},
    link::Loss,
    play::play,
};

fn history(steps: Vec<Step>) -> History {
    let limits = Limits { records: 1, ..Limits::default() };
    History { copies: 1, changes: Source::Poll, limits, latency: Duration::ZERO, steps }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_arrives_late_does_not_take_the_place_of_a_newer_one() {
    let change = || Step::Change(vec![0], false);
    let late = Step::Lose(0, Kind::Transaction, Loss::Late(4));
    let steps = vec![late, change(), Step::Wait(1_000), change(), Step::Wait(1)];
    play::<Allocations>(&history(steps)).await.unwrap();
}
