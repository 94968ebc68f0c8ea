//! Tests of the queue.

use super::*;
use crate::record::tests::record;

fn queue(keys: &[&str], size: usize, limits: Limits) -> Queue {
    let mut queue = Queue::new(limits);
    for key in keys {
        queue.add(record(key, size));
    }
    queue
}

fn limits(records: usize, bytes: usize, one_per_key: bool) -> Limits {
    Limits { calls: 2, records, bytes, one_per_key, beside: 0 }
}

fn shape(call: &Call) -> String {
    call.records.iter().map(|it| &*it.key).collect()
}

fn settle(queue: &mut Queue, call: Call) {
    for (place, record) in call.into_places() {
        queue.settle(place, &record);
    }
}

fn shapes(mut queue: Queue) -> Vec<String> {
    let now = Instant::now();
    let mut shapes = Vec::new();
    while let Some(call) = queue.next_call(now) {
        shapes.push(shape(&call));
        settle(&mut queue, call);
    }
    shapes
}

#[test]
fn a_call_holds_no_more_records_and_bytes_than_the_sink_takes() {
    assert_eq!(shapes(queue(&["a", "b", "c"], 10, limits(2, 100, false))), ["ab", "c"]);
    assert_eq!(shapes(queue(&["a", "b", "c"], 60, limits(2, 100, false))), ["a", "b", "c"]);
    let beside = Limits { beside: 50, ..limits(2, 100, false) };
    assert_eq!(shapes(queue(&["a", "b"], 10, beside)), ["a", "b"]);
}

#[test]
fn a_record_that_is_too_large_is_a_call_of_its_own() {
    assert_eq!(shapes(queue(&["a", "b"], 10, limits(9, 5, false))), ["a", "b"]);
}

#[test]
fn a_key_comes_once_in_a_call_where_records_can_fail_one_by_one() {
    let queue = queue(&["a", "a", "b", "a", "c"], 1, limits(3, 100, true));
    assert_eq!(shapes(queue), ["abc", "a", "a"]);
}

#[test]
fn what_failed_waits_and_keeps_its_place_while_other_keys_go_on() {
    let mut queue = queue(&["a", "b", "a", "c", "d"], 1, limits(2, 100, true));
    let now = Instant::now();
    let call = queue.next_call(now).unwrap();
    assert_eq!(shape(&call), "ab");
    let mut places = call.into_places();
    let (place, failed) = places.next().unwrap();
    queue.put_back(place, failed);
    let (place, delivered) = places.next().unwrap();
    queue.settle(place, &delivered);
    queue.hold(&HashSet::from(["a".into()]), now);
    let call = queue.next_call(now).unwrap();
    assert_eq!(shape(&call), "cd");
    settle(&mut queue, call);
    assert!(queue.next_call(now).is_none());
    let back = queue.next_at(now).unwrap();
    assert!(back > now && back <= now + LEAST_WAIT);
    let first = queue.next_call(back).unwrap();
    assert_eq!(first.places, [0]);
    settle(&mut queue, first);
    assert!(!queue.is_holding());
    assert_eq!(queue.next_call(now).unwrap().places, [2]);
}

#[test]
fn what_failed_comes_after_what_did_not_but_not_for_ever() {
    let mut queue = queue(&["a", "b", "c"], 1, limits(1, 100, false));
    let now = Instant::now();
    let (place, failed) = queue.next_call(now).unwrap().into_places().next().unwrap();
    queue.put_back(place, failed);
    queue.hold(&HashSet::from(["a".into()]), now);
    let back = now + LEAST_WAIT;
    let call = queue.next_call(back).unwrap();
    assert_eq!(shape(&call), "b");
    assert_eq!(shape(&queue.next_call(back + GREATEST_WAIT).unwrap()), "a");
}

#[test]
fn no_two_calls_at_once_have_records_of_one_key() {
    let mut queue = queue(&["a", "b", "a", "c"], 1, limits(2, 100, false));
    let now = Instant::now();
    let first = queue.next_call(now).unwrap();
    assert_eq!(shape(&first), "ab");
    let second = queue.next_call(now).unwrap();
    assert_eq!(shape(&second), "c");
    assert_eq!((queue.next_at(now), queue.calling(), queue.first()), (None, 3, 0));
    settle(&mut queue, first);
    assert_eq!(queue.first(), 2);
    settle(&mut queue, second);
    assert_eq!(shape(&queue.next_call(now).unwrap()), "a");
}

#[test]
fn a_position_never_passes_a_record_that_is_not_settled() {
    let mut queue = Queue::new(limits(1, 100, false));
    let keys = ["a", "b", "c"].iter().enumerate();
    let records = keys.map(|(i, key)| Record { below: Index(i as u64), ..record(key, 1) });
    for record in records {
        queue.add(record);
    }
    let now = Instant::now();
    let (first, second) = (queue.next_call(now).unwrap(), queue.next_call(now).unwrap());
    settle(&mut queue, second);
    assert_eq!(queue.below(), Some(Index(0)));
    let (place, failed) = first.into_places().next().unwrap();
    queue.put_back(place, failed);
    assert_eq!(queue.below(), Some(Index(0)));
    let again = queue.next_call(now).unwrap();
    settle(&mut queue, again);
    assert_eq!(queue.below(), Some(Index(2)));
}

#[test]
fn a_key_that_goes_on_failing_waits_longer_and_longer_within_bounds() {
    let mut queue = queue(&["a"], 1, limits(2, 100, true));
    let now = Instant::now();
    for least in [1, 2, 4, 8, 16, 32, 64, 60, 60] {
        queue.hold(&HashSet::from(["a".into()]), now);
        let wait = queue.held_for(now);
        assert!(wait >= LEAST_WAIT * least / 2 && wait <= GREATEST_WAIT, "{wait:?}");
    }
}

#[test]
fn a_call_with_a_culprit_is_halved_until_the_culprit_is_alone() {
    let mut queue = queue(&["a", "b", "c", "d"], 1, limits(4, 100, false));
    let now = Instant::now();
    let mut calls = Vec::new();
    while let Some(call) = queue.next_call(now) {
        calls.push(shape(&call));
        match shape(&call) {
            shape if shape.contains('c') && shape.len() > 1 => {
                queue.narrow(call.places.clone());
                call.into_places().for_each(|(place, record)| queue.put_back(place, record));
            }
            shape => {
                settle(&mut queue, call);
                if shape != "c" {
                    queue.widen();
                }
            }
        }
    }
    assert_eq!(calls, ["abcd", "ab", "cd", "c", "d"]);
}

#[test]
fn records_are_gathered_until_a_call_is_full() {
    assert!(queue(&["a", "b"], 1, limits(3, 100, false)).wants_more());
    assert!(!queue(&["a", "b", "c"], 1, limits(3, 100, false)).wants_more());
    assert!(!queue(&["a", "b"], 50, limits(3, 100, false)).wants_more());
    assert!(queue(&["a", "a", "a", "b"], 50, limits(3, 100, true)).wants_more());
    assert!(!queue(&["a", "a", "c", "b"], 1, limits(3, 100, true)).wants_more());
    assert!(!queue(&["a"], WINDOW_BYTES, limits(3, 100, true)).wants_more());
}
