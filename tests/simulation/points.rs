//! Every point is reached, and a process may end at each, or lose the answer that it waits for.

use std::{fs, path::Path, sync::Arc, time::Duration};

use nomad_firehose::{
    env::Env,
    failpoint::{Fate, Plan, Point},
    record::Limits,
    streams::{Allocations, Jobs},
    watch::Source,
};

use super::{
    history::{History, Kind, Step},
    link::Loss,
    play::Simulation,
    sink::Fault,
    subject::Subject,
};
use crate::support::paused;

/// A fate is met at the first time, and at a later one.
const TIMES: [usize; 2] = [0, 2];
/// Sessions of the dead are gone after this.
const QUIET: Duration = Duration::from_secs(25);

/// A history without a crash that passes every point.
fn tour(sets_back: bool) -> History {
    let change = |objects: &[u8]| Step::Change(objects.to_vec(), false);
    let mut steps = vec![change(&[0, 1, 2, 3]), Step::Snapshot, Step::Wait(12_000)];
    for fault in [Fault::LoseFirst, Fault::RefuseFirst, Fault::Away] {
        steps.extend([Step::Sink(fault), change(&[0, 1]), Step::Wait(3_000)]);
    }
    // A save whose answer is lost is a conflict for the next one.
    for copy in 0..2 {
        steps.push(Step::Lose(copy, Kind::Transaction, Loss::Answer));
    }
    for copy in 0..3 {
        steps.extend([change(&[1, 2]), Step::Wait(12_000), change(&[2]), Step::Stop(copy)]);
    }
    steps.extend([change(&[3]), Step::Wait(3_000)]);
    if sets_back {
        steps.extend([Step::SetBack, Step::Wait(12_000), change(&[0, 3]), Step::Wait(5_000)]);
    }
    let (limits, latency) = (Limits { records: 3, ..Limits::default() }, Duration::from_millis(5));
    History { copies: 2, changes: Source::Poll, limits, latency, filters: false, steps }
}

/// Plays the tour; what is left of the plan in the end.
fn play<R: Subject>(plan: &Arc<Plan>, sets_back: bool, lossy: bool) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let letters = dir.path().join("dead-letters");
    paused(async {
        let history = tour(sets_back);
        let mut simulation = Simulation::<R>::new(&history);
        simulation.env = Env::from([("NOMAD_FIREHOSE_DEAD_LETTER", letters.to_str().unwrap())]);
        simulation.plan = Some(plan.clone());
        simulation.lossy = lossy;
        simulation.quiet = QUIET;
        simulation.go_on(&history).await?;
        let left = plan.left();
        simulation.finish().await?;
        Ok(left)
    })
}

/// A plan of nothing, which knows how often each point is reached.
fn reached<R: Subject>(sets_back: bool) -> Arc<Plan> {
    let plan = Arc::new(Plan::default());
    play::<R>(&plan, sets_back, false).unwrap();
    plan
}

/// Of these fates, those that were met at a point.
fn survives<R: Subject>(point: Point, plain: &Plan, set_back: &Plan) {
    let sets_back = plain.reached(point) == 0;
    let times = if sets_back { set_back.reached(point) } else { plain.reached(point) };
    let fates = [Fate::Crash, Fate::CrashAfter, Fate::LoseAnswer];
    for fate in fates.into_iter().take(if point.is_request() { 3 } else { 1 }) {
        for passed in TIMES.into_iter().filter(|it| *it < times) {
            let plan = Arc::new(Plan::default());
            plan.add(point, passed, fate);
            let lossy = point == Point::Deliver;
            match play::<R>(&plan, sets_back, lossy) {
                // The first time comes whatever the order in which two things happen at once.
                Ok(left) => assert!(left == 0 || passed > 0, "{point:?} is not reached"),
                Err(wrong) => panic!("{fate:?} at {point:?} after {passed}: {wrong}"),
            }
        }
    }
}

fn each_is_survived<R: Subject>() {
    let (plain, set_back) = (reached::<R>(false), reached::<R>(true));
    Point::ALL.iter().for_each(|it| survives::<R>(*it, &plain, &set_back));
}

#[test]
fn every_point_is_reached_in_a_history_without_a_crash() {
    let plans = [reached::<Allocations>(true), reached::<Jobs>(true)];
    let never = |point: &&Point| plans.iter().all(|it| it.reached(**point) == 0);
    let never: Vec<_> = Point::ALL.iter().filter(never).collect();
    assert!(never.is_empty(), "never reached: {never:?}");
}

#[test]
fn task_events_survive_a_crash_at_every_point_and_the_loss_of_every_answer() {
    each_is_survived::<Allocations>();
}

#[test]
fn objects_survive_a_crash_at_every_point_and_the_loss_of_every_answer() {
    each_is_survived::<Jobs>();
}

fn sources(dir: &Path, found: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_point_is_at_one_place_in_the_program() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    for point in Point::ALL {
        let count = text.matches(&format!("(Point::{point:?})")).count()
            + text.matches(&format!("(Point::{point:?},")).count();
        assert_eq!(count, 1, "{point:?}");
    }
}
