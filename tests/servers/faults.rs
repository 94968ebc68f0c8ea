//! Whatever goes wrong: copies of a stream that meet every kind of fault, one after the other and
//! at the same time, by schedules that are the same for the same seed.
//!
//! `FAULTS_SEED` chooses the schedules, and `FAULTS_SECONDS` how long they go on.

#[path = "faults/copies.rs"]
mod copies;
#[path = "faults/issuer.rs"]
mod issuer;
#[path = "faults/judge.rs"]
mod judge;
#[path = "faults/judge_tests.rs"]
mod judge_tests;
#[path = "faults/lanes.rs"]
mod lanes;
#[path = "faults/leases.rs"]
mod leases;
#[path = "faults/oracle.rs"]
mod oracle;
#[path = "faults/random.rs"]
mod random;
#[path = "faults/schedule.rs"]
mod schedule;
#[path = "faults/soak.rs"]
mod soak;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/wire.rs"]
mod wire;
#[path = "faults/world.rs"]
mod world;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use self::{
    issuer::Kind,
    schedule::{Schedule, every_kind},
    world::World,
};
use crate::print;

/// What is run where nobody asks for something else.
const SEED: u64 = 1;
/// More slots than there is time for.
const MANY: usize = 10_000;
/// The median of clean hand-overs; a single one may meet a machine that is busy.
const CLEAN_LIMIT: Duration = Duration::from_secs(1);
const CRASH_LIMIT: Duration = Duration::from_secs(25);

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// A seed that was hardly ever there before.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_millis() as u64 % 1_000_000_000
}

#[test]
fn a_schedule_is_the_same_for_the_same_seed_and_another_for_another() {
    for kind in [Kind::TaskEvents, Kind::Evaluations] {
        let schedule = |seed| Schedule::longer(kind, seed, 20).slots;
        assert!(schedule(7) == schedule(7));
        assert!(schedule(7) != schedule(8));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_meet_every_fault_lose_nothing_and_never_publish_beyond_their_terms() {
    let lasts = variable("FAULTS_SECONDS").map(Duration::from_secs);
    let seed =
        variable("FAULTS_SEED").unwrap_or_else(|| if lasts.is_some() { fresh() } else { SEED });
    print(&format!("faults: the seed is {seed}"));
    let until = lasts.map(|it| Instant::now() + it);
    let kinds = [Kind::TaskEvents, Kind::Evaluations];
    let schedules = kinds.map(|kind| match lasts {
        None => Schedule::of(kind, seed),
        Some(_) => Schedule::longer(kind, seed, MANY),
    });
    let _printed = Printed(schedules.clone(), lasts);
    let [events, objects] = &schedules;
    let outcomes: [_; 2] = tokio::join!(
        async { World::new(Kind::TaskEvents, seed).await.run(events, until).await },
        async { World::new(Kind::Evaluations, seed).await.run(objects, until).await },
    )
    .into();
    print(&table::table(&outcomes));

    for outcome in &outcomes {
        let wrong = &outcome.verdict.wrong;
        let some = some_of_each(wrong);
        assert!(wrong.is_empty(), "{}: {} things: {some:#?}", outcome.kind.stream(), wrong.len());
        assert!(outcome.verdict.positions > 0, "no position was compared");
    }
    let occurred: HashSet<_> = outcomes.iter().flat_map(|it| it.faults.keys().copied()).collect();
    let absent: Vec<_> =
        every_kind().into_iter().map(|it| it.name()).filter(|it| !occurred.contains(it)).collect();
    assert!(lasts.is_some() || absent.is_empty(), "these never occurred: {absent:?}");
    let mut stopped: Vec<_> = outcomes.iter().flat_map(|it| it.stopped.clone()).collect();
    stopped.sort();
    if lasts.is_none() || !stopped.is_empty() {
        assert!(stopped[stopped.len() / 2] < CLEAN_LIMIT, "{stopped:?}");
    }
    let killed: Vec<_> = outcomes.iter().flat_map(|it| it.killed.clone()).collect();
    assert!(killed.iter().all(|it| *it < CRASH_LIMIT), "{killed:?}");
}

/// A few of those that differ in figures only.
fn some_of_each(wrong: &[String]) -> Vec<&String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut is_new = |it: &&String| {
        let kind: String = it.chars().filter(|it| !it.is_ascii_hexdigit()).take(60).collect();
        let count = seen.entry(kind).or_default();
        *count += 1;
        *count <= 3
    };
    wrong.iter().filter(|it| is_new(it)).take(40).collect()
}

/// Prints what was to happen, and how to do it again, where a test fails.
struct Printed([Schedule; 2], Option<Duration>);

impl Drop for Printed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let [events, objects] = &self.0;
            let lasts = self.1.map(|it| format!(" FAULTS_SECONDS={}", it.as_secs()));
            let slots = |it: &Schedule| {
                let slots = it.slots.iter().take(60).cloned().collect();
                Schedule { seed: it.seed, slots }
            };
            print(&format!(
                "allocations, {}evaluations, {}Once more: FAULTS_SEED={}{} cargo test \
                 --features full --test servers faults::copies_that_meet",
                slots(events),
                slots(objects),
                events.seed,
                lasts.unwrap_or_default(),
            ));
        }
    }
}
