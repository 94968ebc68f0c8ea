//! Histories that went wrong once, as small as they could be made.

use std::time::Duration;

use nomad_firehose::{
    record::Limits,
    streams::{Allocations, Jobs},
    watch::Source,
};

use super::{
    history::{History, Kind, Step},
    link::Loss,
    play::play,
};
use crate::support::NomadFault;

fn history(steps: Vec<Step>) -> History {
    let limits = Limits { records: 1, ..Limits::default() };
    History {
        copies: 1,
        changes: Source::Poll,
        limits,
        latency: Duration::ZERO,
        filters: false,
        steps,
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_arrives_late_does_not_take_the_place_of_a_newer_one() {
    let change = || Step::Change(vec![0], false);
    let late = Step::Lose(0, Kind::Transaction, Loss::Late(4));
    let steps = vec![late, change(), Step::Wait(1_000), change(), Step::Wait(1)];
    play::<Allocations>(&history(steps)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_second_commit_that_a_list_showed_first_is_not_followed_by_the_first() {
    let cut = || Step::Nomad(NomadFault::Cut(0));
    let changes = [Step::Burst(3, 2), Step::Again(3)];
    let steps = [vec![Step::Change(vec![0], false), cut(), cut()], changes.to_vec()].concat();
    let history = History { copies: 3, changes: Source::Auto, ..history(steps) };
    play::<Jobs>(&history).await.unwrap();
}
