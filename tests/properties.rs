//! For any history of changes, faults, restarts and crashes: everything is published, in order per
//! object, and nothing twice without a reason.

use std::collections::{BTreeMap, BTreeSet};

use nomad_firehose::{
    record::Limits,
    streams::{Allocations, Evaluations, Jobs, Resource},
    watch::Source,
};
use proptest::prelude::*;

use crate::support::{
    Fault, NomadFault, Running, StreamFault, Table, Version, World, allocation, disturb,
    evaluation, fail, job, nomad_faults, pass, paused, stream_faults, times, uuid,
};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// These objects change, at one index.
    Change(Vec<u8>),
    /// An object changes again at the index of its last change.
    ChangeAgain(u8),
    /// So many seconds go by.
    Wait(u8),
    Nomad(NomadFault),
    Stream(StreamFault),
    Sink(SinkFault),
    /// The session of the holder ends.
    Expire,
    /// A clean stop, and a new process.
    Restart,
    /// A crash, and a new process.
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum SinkFault {
    LoseFirst,
    /// The records of an object fail in so many calls.
    FailObject(u8, u8),
    FailAfter,
    Away,
}

const OBJECTS: u8 = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = proptest::collection::vec(0..OBJECTS, 1..4).prop_map(Step::Change);
    let sink = prop_oneof![
        Just(SinkFault::LoseFirst),
        (0..OBJECTS, 1..5_u8).prop_map(|(object, calls)| SinkFault::FailObject(object, calls)),
        Just(SinkFault::FailAfter),
        Just(SinkFault::Away),
    ];
    let step = prop_oneof![
        6 => change,
        1 => (0..OBJECTS).prop_map(Step::ChangeAgain),
        4 => (0u8..12).prop_map(Step::Wait),
        2 => nomad_faults().prop_map(Step::Nomad),
        3 => stream_faults().prop_map(Step::Stream),
        2 => sink.prop_map(Step::Sink),
        1 => Just(Step::Expire),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What a sink takes in a call, and an object whose records it refuses without saying which of a
/// call are at fault.
fn sinks() -> impl Strategy<Value = (Limits, Option<u8>)> {
    let records = prop_oneof![1..5_usize, Just(Limits::default().records)];
    // A call has two or three records of this size, or all.
    let bytes = prop_oneof![Just(1_000), Just(Limits::default().bytes)];
    let limits = (records, bytes, any::<bool>()).prop_map(|(records, bytes, one_per_key)| Limits {
        records,
        bytes,
        one_per_key,
        ..Limits::default()
    });
    (limits, proptest::option::of(0..OBJECTS))
}

/// Every history is to come out right whatever changes come from.
fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![1 => Just(Source::Poll), 3 => Just(Source::Auto), 1 => Just(Source::Events)]
}

/// Whether a history may make duplicates, and what it did to each object.
#[derive(Default)]
struct Told {
    may_repeat: bool,
    /// The number of the last change of each object.
    last: BTreeMap<u8, i64>,
    /// Every change of each object, in order.
    all: BTreeMap<u8, Vec<i64>>,
    changes: i64,
}

/// Plays a history against one stream, and lets it settle.
async fn play<R: Resource>(
    world: &World,
    steps: &[Step],
    change: impl Fn(&World, &[(u8, Vec<i64>)], bool),
) -> Told {
    let mut told = Told::default();
    let mut running: Running = world.start::<R>();
    for step in steps {
        match step {
            Step::Change(objects) => {
                let objects: BTreeSet<u8> = objects.iter().copied().collect();
                let states: Vec<_> = objects.into_iter().map(|it| told.change(it)).collect();
                change(world, &states, false);
            }
            Step::ChangeAgain(object) if told.last.contains_key(object) => {
                let state = told.change(*object);
                change(world, &[state], true);
            }
            Step::ChangeAgain(_) => (),
            Step::Wait(seconds) => pass((*seconds).into()).await,
            Step::Nomad(fault) => fail(&world.nomad, *fault),
            Step::Stream(fault) => disturb(&world.nomad, *fault),
            Step::Sink(SinkFault::FailObject(object, calls)) => {
                let name = name(*object);
                // One of these is its key, whatever the stream.
                let keys =
                    [uuid(&name), format!("default/{}", uuid(&name)), format!("default/{name}")];
                keys.iter().for_each(|it| world.sink.fail(it, (*calls).into()));
            }
            Step::Sink(fault) => {
                told.may_repeat |= matches!(fault, SinkFault::FailAfter);
                world.sink.fault(match fault {
                    SinkFault::FailAfter => Fault::FailAfter,
                    SinkFault::Away => Fault::Away,
                    SinkFault::LoseFirst | SinkFault::FailObject(..) => Fault::LoseFirst,
                });
            }
            Step::Expire => {
                told.may_repeat = true;
                let lock = format!("nomad-firehose/{}.lock", R::LOCK);
                if let Some(session) = world.consul.entry(&lock).and_then(|it| it.session) {
                    world.consul.expire(&session);
                }
            }
            Step::Restart => {
                running.stop().await;
                running = world.start::<R>();
            }
            Step::Crash => {
                told.may_repeat = true;
                running.kill().await;
                running = world.start::<R>();
            }
        }
    }
    for fault in [StreamFault::Mute(false), StreamFault::Stall(false), StreamFault::CatchUp] {
        disturb(&world.nomad, fault);
    }
    // Longer than a wait for a list that nothing wakes.
    pass(1_000).await;
    running.stop().await;
    told
}

impl Told {
    fn change(&mut self, object: u8) -> (u8, Vec<i64>) {
        self.changes += 1;
        self.last.insert(object, self.changes);
        let all = self.all.entry(object).or_default();
        all.push(self.changes);
        (object, all.clone())
    }
}

fn name(object: u8) -> String {
    format!("o{object}")
}

/// The last state of every object came last, and without a reason to repeat none went back.
fn check(world: &World, told: &Told, id: impl Fn(u8) -> String) -> Result<(), TestCaseError> {
    let bodies = world.sink.bodies();
    for (object, last) in &told.last {
        let id = id(*object);
        let of = bodies.iter().filter(|it| it["ID"] == id.as_str());
        let seen: Vec<i64> = of.map(|it| it["Status"].as_str().unwrap().parse().unwrap()).collect();
        prop_assert_eq!(seen.last(), Some(last), "object {}: {:?}", object, seen);
        prop_assert!(told.may_repeat || seen.is_sorted(), "object {}: {:?}", object, seen);
    }
    Ok(())
}

fn unique(ids: &[String]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_last_state_of_every_object_is_published_and_none_goes_back(steps in steps(), changes in sources()) {
        paused(async {
            let world = World { changes, ..World::new(Version::V2_0) };
            let told = play::<Evaluations>(&world, &steps, |world, states, again| {
                let rows: Vec<_> = states
                    .iter()
                    .map(|(object, all)| {
                        let status = all.last().unwrap().to_string();
                        (Table::Evaluations, evaluation(&name(*object), "default", &status))
                    })
                    .collect();
                if again {
                    let index = world.nomad.index();
                    for (table, row) in rows {
                        world.nomad.upsert_at(index, table, row);
                    }
                } else {
                    world.nomad.upsert_many(rows);
                }
            })
            .await;
            check(&world, &told, |object| uuid(&name(object)))?;
            prop_assert!(told.may_repeat || unique(&world.sink.ids()), "{:?}", world.sink.ids());
            prop_assert_eq!(world.consul.sessions().len(), 0);
            Ok(())
        })?;
    }

    #[test]
    fn the_last_state_of_every_object_that_is_read_by_id_is_published(steps in steps(), changes in sources()) {
        paused(async {
            let world = World { changes, ..World::new(Version::V2_0) };
            let told = play::<Jobs>(&world, &steps, |world, states, _| {
                let rows = states.iter().map(|(object, all)| {
                    let status = all.last().unwrap().to_string();
                    (Table::Jobs, job(&name(*object), "default", &status))
                });
                world.nomad.upsert_many(rows.collect::<Vec<_>>());
            })
            .await;
            check(&world, &told, name)?;
            prop_assert!(told.may_repeat || unique(&world.sink.ids()), "{:?}", world.sink.ids());
            Ok(())
        })?;
    }

    #[test]
    fn every_task_event_is_published_in_order_but_for_those_that_are_refused(
        steps in steps(),
        changes in sources(),
        (limits, culprit) in sinks(),
    ) {
        paused(async {
            let mut world = World { changes, ..World::new(Version::V2_0) };
            world.sink.limits = limits;
            culprit.iter().for_each(|it| world.sink.suspect(uuid(&name(*it))));
            let told = play::<Allocations>(&world, &steps, |world, states, again| {
                let rows: Vec<_> = states
                    .iter()
                    // Nomad keeps ten events; more would be gaps, which are another test.
                    .map(|(object, all)| {
                        let kept = all.len().min(10);
                        (Table::Allocations, allocation(&name(*object), &all[..kept]))
                    })
                    .collect();
                if again {
                    let index = world.nomad.index();
                    for (table, row) in rows {
                        world.nomad.upsert_at(index, table, row);
                    }
                } else {
                    world.nomad.upsert_many(rows);
                }
            })
            .await;
            let published = times(&world.sink);
            for (object, all) in &told.all {
                let kept = &all[..all.len().min(10)];
                if culprit == Some(*object) {
                    prop_assert!(!kept.iter().any(|it| published.contains(it)));
                    continue;
                }
                let mut seen: Vec<i64> = published.iter().copied().filter(|it| kept.contains(it)).collect();
                if told.may_repeat {
                    // The first time that each was published.
                    let mut known = BTreeSet::new();
                    seen.retain(|it| known.insert(*it));
                }
                prop_assert_eq!(&seen[..], kept, "object {}", object);
            }
            Ok(())
        })?;
    }
}
