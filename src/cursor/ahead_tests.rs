//! Tests of what the reader knows, ahead of what is durable.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::cursor::{Cursor, Kind, Mark};

const ALLOCATIONS: u8 = 3;
const TASKS: u8 = 2;

fn task(allocation: u8, name: u8) -> Task {
    Task { allocation: halves(allocation.into()), name: name.into() }
}

fn tasks() -> impl Iterator<Item = (u8, Task)> {
    (0..ALLOCATIONS).flat_map(|it| (0..TASKS).map(move |name| (it, task(it, name))))
}

/// The tails of one side, where each has a copy of all of them.
#[derive(Clone, Default)]
struct Copied(HashMap<Task, Tail>);

impl Copied {
    fn sweep(&mut self, floor: Index, listed: &BTreeSet<u8>) {
        let listed: BTreeSet<_> = listed.iter().map(|it| halves((*it).into())).collect();
        self.0.retain(|task, tail| tail.index > floor || listed.contains(&task.allocation));
    }

    fn lower(&mut self, floor: Index) {
        self.0.values_mut().for_each(|it| it.index = it.index.min(floor));
    }
}

/// What has been read and is not durable yet, in order.
#[derive(Clone, Debug)]
enum Waiting {
    Mark(Task, Tail),
    Sweep(Move, Index, BTreeSet<u8>),
    Lower(Index),
}

/// The first that waits becomes durable.
fn publish(waiting: &mut VecDeque<(bool, Waiting)>, cursor: &mut Cursor, durable: &mut Copied) {
    let Some((early, next)) = waiting.pop_front() else { return };
    let apply = |cursor: &mut Cursor, durable: &mut Copied, task, tail| {
        cursor.apply(Mark::Task(task, tail));
        durable.0.insert(task, tail);
    };
    match next {
        Waiting::Mark(task, tail) if !early => return apply(cursor, durable, task, tail),
        Waiting::Mark(..) => return,
        Waiting::Sweep(to, floor, listed) => {
            cursor.go(&to);
            durable.sweep(floor, &listed);
        }
        Waiting::Lower(floor) => {
            cursor.go(&Move::Lower(floor));
            durable.lower(floor);
        }
    }
    // A step undoes nothing that came after it.
    for (early, it) in waiting {
        if let (true, Waiting::Mark(task, tail)) = (*early, it) {
            apply(cursor, durable, *task, *tail);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A list of these allocations, with new events of those that have some: so many of each task.
    List {
        listed: BTreeSet<u8>,
        events: Vec<(u8, u8, u8)>,
        completed: bool,
    },
    /// Changes that no list has shown yet.
    Newer(u8, u8),
    Lower,
    /// So many of what waits become durable.
    Publish(u8),
    /// One that waits becomes durable before those of other allocations and moves that come first,
    /// and once more when it is its turn.
    PublishEarly(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let listed = proptest::collection::btree_set(0..ALLOCATIONS, 0..=ALLOCATIONS as usize);
    let events = proptest::collection::vec((0..ALLOCATIONS, 0..TASKS, 1..4_u8), 0..4);
    let list = (listed, events, prop::bool::weighted(0.8))
        .prop_map(|(listed, events, completed)| Step::List { listed, events, completed });
    let step = prop_oneof![
        5 => list,
        2 => (0..ALLOCATIONS, 0..TASKS).prop_map(|(allocation, name)| Step::Newer(allocation, name)),
        1 => Just(Step::Lower),
        6 => (1..6_u8).prop_map(Step::Publish),
        2 => any::<u8>().prop_map(Step::PublishEarly),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_that_shares_the_durable_tails_knows_what_one_with_a_copy_would(
        steps in steps(),
    ) {
        let mut cursor = Cursor::new(Kind::TaskEvents);
        let (_, mut reader) = cursor.ahead();
        let (mut read, mut durable) = (Copied::default(), Copied::default());
        let mut waiting: VecDeque<(bool, Waiting)> = VecDeque::new();
        let (mut index, mut time) = (10, 0);
        for step in steps {
            let mut note = |reader: &mut Ahead, read: &mut Copied, allocation, name, index| {
                time += 1;
                let tail = Tail { index: Index(index), time, kind: 0, hash: 0, terminal: false };
                let task = task(allocation, name);
                reader.note(task, tail);
                read.0.insert(task, tail);
                Waiting::Mark(task, tail)
            };
            match step {
                Step::List { listed, events, completed } => {
                    index += 1;
                    reader.begin_list();
                    listed.iter().for_each(|it| reader.list((*it).into()));
                    for (allocation, name, count) in events {
                        for _ in 0..if listed.contains(&allocation) { count } else { 0 } {
                            let mark = note(&mut reader, &mut read, allocation, name, index);
                            waiting.push_back((false, mark));
                        }
                    }
                    if completed {
                        let to = Move::ReachListed { floor: Index(index), list: Index(index), listed: reader.listed() };
                        reader.go(&to);
                        read.sweep(Index(index), &listed);
                        waiting.push_back((false, Waiting::Sweep(to, Index(index), listed)));
                    }
                }
                Step::Newer(allocation, name) => {
                    let mark = note(&mut reader, &mut read, allocation, name, index + 1);
                    waiting.push_back((false, mark));
                }
                Step::Lower => {
                    reader.go(&Move::Lower(Index(0)));
                    read.lower(Index(0));
                    waiting.push_back((false, Waiting::Lower(Index(0))));
                    index = 5;
                }
                Step::Publish(count) => {
                    for _ in 0..count {
                        publish(&mut waiting, &mut cursor, &mut durable);
                    }
                }
                Step::PublishEarly(at) => {
                    // Nothing passes a step back, nor what comes before it of its allocation.
                    let bar = waiting.iter().position(|(_, it)| matches!(it, Waiting::Lower(_)));
                    let free = bar.unwrap_or(waiting.len());
                    let at = if free == 0 { continue } else { usize::from(at) % free };
                    // What is durable already does not become so again.
                    let (false, Waiting::Mark(task, tail)) = waiting[at].clone() else { continue };
                    let of = |it: &Waiting| match it {
                        Waiting::Mark(it, _) => it.allocation == task.allocation,
                        Waiting::Sweep(..) | Waiting::Lower(_) => false,
                    };
                    if waiting.iter().take(at).any(|(early, it)| of(it) && !early) {
                        continue;
                    }
                    waiting[at].0 = true;
                    cursor.apply(Mark::Task(task, tail));
                    durable.0.insert(task, tail);
                }
            }
            for (allocation, task) in tasks() {
                prop_assert_eq!(reader.tail(task), read.0.get(&task).copied(), "{:?}", task);
                for index in 0..20 {
                    let of = |it: &&Task| it.allocation == task.allocation;
                    let mut known = read.0.keys().filter(of).map(|it| read.0[it].index.0);
                    prop_assert_eq!(
                        reader.is_set_back(allocation.into(), Index(index), Index(u64::MAX)),
                        known.any(|it| index < it)
                    );
                }
            }
            prop_assert_eq!(reader.is_empty(), read.0.is_empty());
        }
        // Once all of it is durable, nothing is kept beside.
        while !waiting.is_empty() {
            publish(&mut waiting, &mut cursor, &mut durable);
        }
        let known = cursor.tails.lock();
        prop_assert!(known.read.is_empty() && known.pending.is_empty());
        drop(known);
        for (_, task) in tasks() {
            prop_assert_eq!(cursor.tail(task), durable.0.get(&task).copied());
            prop_assert_eq!(cursor.tail(task), read.0.get(&task).copied());
        }
    }
}

#[test]
fn one_reader_takes_the_place_of_another() {
    let mut cursor = Cursor::new(Kind::TaskEvents);
    let tail = |time| Tail { index: Index(5), time, kind: 0, hash: 0, terminal: false };
    cursor.apply(Mark::Task(task(1, 1), tail(1)));
    let (_, mut first) = cursor.ahead();
    first.note(task(1, 1), tail(2));
    first.go(&Move::Lower(Index(0)));
    let (_, second) = cursor.ahead();
    assert_eq!(second.tail(task(1, 1)), Some(tail(1)));
}
