//! Tests of packed tails.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cursor::{allocation, task::halves};

fn tail(index: u64, time: Nanos, terminal: bool) -> Tail {
    Tail { index: Index(index), time, kind: 3, hash: 4, terminal }
}

fn task(allocation: u16, name: u8) -> Task {
    Task { allocation: halves(allocation.into()), name: name.into() }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u16, u8, u64, bool),
    List(Vec<u16>),
    Sweep(u64),
    Lower(u64),
    Save,
    Split,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0..2_000_u16, 0..3_u8, 0..20_u64, any::<bool>());
    let step = prop_oneof![
        900 => put.prop_map(|(a, n, i, t)| Step::Put(a, n, i, t)),
        20 => proptest::collection::vec(0..2_000_u16, 0..500).prop_map(Step::List),
        20 => (0..20_u64).prop_map(Step::Sweep),
        10 => (0..20_u64).prop_map(Step::Lower),
        20 => Just(Step::Save),
        3 => Just(Step::Split),
    ];
    proptest::collection::vec(step, 1..3_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn packed_tails_are_those_of_a_map(steps in steps()) {
        let mut tails = Tails::default();
        let mut model: BTreeMap<Task, (Tail, u32)> = BTreeMap::new();
        // What is saved, by shard.
        let mut saved: BTreeMap<u32, BTreeMap<Task, Tail>> = BTreeMap::new();
        let mut generation = 0;
        for (time, step) in (0..).zip(steps) {
            match step {
                Step::Put(allocation, name, index, terminal) => {
                    let (task, tail) = (task(allocation, name), tail(index, time, terminal));
                    tails.put(task, tail, None);
                    model.entry(task).or_insert((tail, 0)).0 = tail;
                }
                Step::List(listed) => {
                    generation += 1;
                    for allocation in listed {
                        let of = halves(allocation.into());
                        tails.of_mut(of).iter_mut().for_each(|it| it.list(generation));
                        let all = task(allocation, 0)..=task(allocation, u8::MAX);
                        prop_assert_eq!(tails.of(of).len(), model.range(all.clone()).count());
                        model.range_mut(all).for_each(|(_, it)| it.1 = generation);
                    }
                }
                Step::Sweep(floor) => {
                    tails.sweep(generation, Index(floor));
                    model.retain(|_, (tail, listed)| tail.index.0 > floor || *listed >= generation);
                }
                Step::Lower(floor) => {
                    tails.lower(Index(floor));
                    model.values_mut().for_each(|it| it.0.index = it.0.index.min(Index(floor)));
                }
                Step::Save => {
                    let count = tails.shards();
                    let dirty: Vec<u32> = tails.dirty().collect();
                    for number in dirty {
                        let all = tails.shard(number).map(|it| (it.task(), it.tail()));
                        saved.insert(number, all.collect());
                    }
                    tails.saved();
                    let read = saved.iter().flat_map(|(number, all)| {
                        all.iter().filter(move |(it, _)| shard(**it, count) == *number)
                    });
                    let read: BTreeMap<_, _> = read.map(|(task, tail)| (*task, *tail)).collect();
                    let all: BTreeMap<_, _> = model.iter().map(|(k, v)| (*k, v.0)).collect();
                    prop_assert_eq!(read, all);
                }
                Step::Split => tails.split_shards(100, 8),
            }
            prop_assert_eq!(tails.len(), model.len());
        }
        prop_assert_eq!(tails.iter().count(), model.len());
        for (task, (tail, listed)) in &model {
            let entry = tails.get(*task);
            prop_assert_eq!(entry.map(|it| (it.tail(), it.listed())), Some((*tail, *listed)));
        }
        prop_assert_eq!(tails.get(task(2_001, 0)).map(Entry::tail), None);
    }
}

#[test]
fn an_entry_has_56_bytes_and_chunks_are_nearly_full() {
    assert_eq!(size_of::<Entry>(), 56);
    let mut tails = Tails::default();
    for i in 0..100_000 {
        let id = format!("737d4f49-0bab-62de-dc2f-{i:012x}");
        tails.put(Task { allocation: halves(allocation(&id)), name: 1 }, tail(1, 1, false), None);
    }
    let room: usize = tails.chunks.iter().map(Vec::capacity).sum();
    assert!(room < 115_000, "{room}");
    assert!(tails.chunks.iter().all(|it| it.len() < 2 * CHUNK_TAILS));
}

#[test]
fn only_the_tails_that_are_needed_are_dropped_and_the_ended_and_oldest_first() {
    let mut tails = Tails::default();
    tails.bound(640);
    for i in 0..700_u16 {
        tails.put(task(i, 0), tail(u64::from(i), 1, i >= 300), None);
    }
    assert!(tails.is_full());
    tails.trim(Index(650));
    // Room is made for more than the one that comes next.
    assert_eq!((tails.len(), tails.take_dropped()), (629, 71));
    assert!(!tails.is_full());
    let there =
        |from: u16, to: u16| (from..to).filter(|it| tails.get(task(*it, 0)).is_some()).count();
    assert_eq!((there(0, 300), there(300, 371), there(371, 700)), (300, 0, 329));
}

#[test]
fn where_nothing_has_ended_the_oldest_below_the_floor_are_dropped() {
    let mut tails = Tails::default();
    tails.bound(64);
    for i in 0..70_u16 {
        tails.put(task(i, 0), tail(7, 1, false), None);
    }
    tails.trim(Index(7));
    assert_eq!((tails.len(), tails.take_dropped()), (70, 0));
    // It is not tried again before there are more.
    assert!(!tails.is_full() && tails.is_above_bound());
    tails.trim(Index(8));
    assert_eq!((tails.len(), tails.take_dropped()), (62, 8));
}
