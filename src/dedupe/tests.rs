use super::*;
use crate::cursor::Kind;

fn seal(time: Nanos) -> Seal {
    Seal { time, kind: 1, hash: time as u64 }
}

fn seals(times: &[Nanos]) -> Vec<Seal> {
    times.iter().map(|it| seal(*it)).collect()
}

fn at(floor: u64) -> Seen {
    let mut cursor = Cursor::new(Kind::Objects);
    cursor.reach(Index(floor));
    Seen::new(&cursor)
}

fn task() -> Task {
    Task::new("a", "t")
}

fn after(times: &[Nanos], index: u64) -> Seen {
    let mut seen = Seen::new(&Cursor::new(Kind::TaskEvents));
    for time in times {
        seen.note(Mark::Task(task(), seal(*time).tail(Index(index), false)));
    }
    seen.go(&Move::Reach(Index(index)));
    seen
}

fn new(seen: &Seen, index: u64, times: &[Nanos]) -> (usize, bool) {
    let NewEvents { from, gap, .. } = seen.events(task(), Index(index), &seals(times));
    (from, gap)
}

#[test]
fn an_object_is_new_above_the_floor_and_once() {
    let mut seen = at(10);
    assert_eq!(seen.object(1, Index(9), || 7), Verdict::Old);
    assert_eq!(seen.object(1, Index(11), || 7), Verdict::New { hash: 7 });
    seen.note(Mark::Object { key: 1, index: Index(11), hash: 7 });
    assert_eq!(seen.object(1, Index(11), || 7), Verdict::Old);
    assert_eq!(seen.object(1, Index(12), || 7), Verdict::New { hash: 7 });
}

#[test]
fn a_second_commit_at_the_floor_is_new() {
    let mut seen = at(10);
    seen.note(Mark::Object { key: 1, index: Index(11), hash: 7 });
    seen.go(&Move::Reach(Index(11)));
    assert_eq!(seen.object(1, Index(11), || 7), Verdict::Old);
    assert_eq!(seen.object(1, Index(11), || 9), Verdict::New { hash: 9 });
    assert_eq!(seen.object(2, Index(11), || 1), Verdict::New { hash: 1 });
}

#[test]
fn a_floor_of_which_only_the_number_is_known_repeats_nothing() {
    let seen = Seen::new(&Cursor::at(Index(11)));
    assert_eq!(seen.object(2, Index(11), || 1), Verdict::Old);
    assert_eq!(seen.object(2, Index(12), || 1), Verdict::New { hash: 1 });
}

#[test]
fn an_object_that_goes_back_is_noticed_although_it_is_below_the_floor() {
    let mut seen = at(10);
    seen.list(1, Index(9));
    seen.read_at(Index(10));
    assert_eq!(seen.object(1, Index(4), || 7), Verdict::Reverted);
}

#[test]
fn after_a_regression_what_differs_from_the_last_list_is_new() {
    let mut seen = at(10);
    seen.list(1, Index(9));
    seen.list(2, Index(3));
    seen.go(&Move::Lower(Index(3)));
    assert_eq!(seen.object_after_regression(1, Index(4), || 7), Verdict::New { hash: 7 });
    assert_eq!(seen.object_after_regression(2, Index(3), || 7), Verdict::Old);
}

#[test]
fn new_events_are_those_after_the_tail_whatever_their_time() {
    let seen = after(&[100, 200], 5);
    assert_eq!(new(&seen, 6, &[100, 200, 150, 300]), (2, false));
    assert_eq!(new(&seen, 5, &[100, 200]), (2, false));
}

#[test]
fn an_older_state_of_the_allocation_is_ignored() {
    assert_eq!(new(&after(&[100, 200], 5), 4, &[100]), (1, false));
}

#[test]
fn a_tail_that_nomad_has_dropped_is_a_gap_and_all_that_is_left_is_published() {
    assert_eq!(new(&after(&[100], 5), 6, &[300, 400]), (0, true));
}

#[test]
fn an_event_that_a_newer_server_shows_with_more_fields_is_the_same_event() {
    let seen = after(&[100, 200], 5);
    let mut events = seals(&[100, 200, 300]);
    events.iter_mut().for_each(|it| it.hash += 1);
    assert_eq!(seen.events(task(), Index(6), &events).from, 2);
}

#[test]
fn an_allocation_without_a_tail_is_new_above_the_floor_only() {
    let mut seen = Seen::new(&Cursor::new(Kind::TaskEvents));
    seen.go(&Move::Lower(Index(5)));
    assert_eq!(new(&seen, 6, &[1, 2]), (0, false));
    assert_eq!(new(&seen, 5, &[1, 2]), (2, false));
}
