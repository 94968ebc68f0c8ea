use super::*;

fn listed(index: u64, listed: Listed) -> Move {
    Move::ReachListed { floor: Index(index), list: Index(index), listed }
}

fn object(key: u64, index: u64) -> Mark {
    Mark::Object { key, index: Index(index), hash: key }
}

#[test]
fn what_is_below_the_floor_is_forgotten_and_what_is_at_it_is_kept() {
    let mut cursor = Cursor::new(Kind::Objects);
    for (key, index) in [(1, 5), (2, 6), (3, 7)] {
        cursor.apply(object(key, index));
    }
    cursor.reach(Index(6));
    assert_eq!(cursor.object(1), None);
    assert_eq!(cursor.object(2), Some((Index(6), 2)));
    assert_eq!(cursor.object(3), Some((Index(7), 3)));
    cursor.reach(Index(4));
    assert_eq!(cursor.floor(), Index(6));
}

#[test]
fn a_floor_goes_back_only_when_told_to() {
    let mut cursor = Cursor::at(Index(9));
    cursor.apply(object(1, 12));
    cursor.go(&Move::Lower(Index(3)));
    assert_eq!((cursor.floor(), cursor.object(1)), (Index(3), None));
}

fn tail(index: u64, time: Nanos, terminal: bool) -> Tail {
    Tail { index: Index(index), time, kind: 0, hash: 0, terminal }
}

#[test]
fn tails_of_allocations_that_are_gone_are_forgotten() {
    let mut cursor = Cursor::new(Kind::TaskEvents);
    let [kept, gone, newer] = ["a", "b", "c"].map(|it| Task::new(it, "t"));
    for (task, index) in [(kept, 5), (gone, 5), (newer, 6)] {
        cursor.apply(Mark::Task(task, tail(index, 1, false)));
    }
    let (_, mut reader) = cursor.ahead();
    reader.begin_list();
    reader.list(allocation("a"));
    cursor.go(&listed(5, reader.listed()));
    assert_eq!([kept, gone, newer].map(|it| cursor.tail(it).is_some()), [true, false, true]);
}

#[test]
fn an_object_that_is_newer_than_the_list_is_kept() {
    let mut cursor = Cursor::new(Kind::Objects);
    for (key, index) in [(1, 5), (2, 5), (3, 6)] {
        cursor.apply(object(key, index));
    }
    cursor.go(&listed(5, Listed::Objects(HashSet::from([1]))));
    assert_eq!([1, 2, 3].map(|it| cursor.object(it).is_some()), [true, false, true]);
}

#[test]
fn a_cursor_without_space_drops_tails_once_the_floor_has_passed_them() {
    let mut cursor = Cursor::new(Kind::TaskEvents).with_most_tails(100);
    let task = |index: u64| Task::new("a", &index.to_string());
    for index in 1..=150 {
        cursor.apply(Mark::Task(task(index), tail(index, 1, index % 2 == 0)));
    }
    assert_eq!((cursor.tails(), cursor.take_dropped()), (150, 0));
    cursor.reach(Index(201));
    assert!(cursor.tails() <= 100);
    assert_eq!(cursor.tails() + cursor.take_dropped(), 150);
    let there = |range: std::ops::RangeInclusive<u64>, odd| {
        range.filter(|it| it % 2 == odd).filter(|it| cursor.tail(task(*it)).is_some()).count()
    };
    assert_eq!((there(1..=150, 1), there(1..=100, 0)), (75, 0));
    assert!(there(106..=150, 0) > 20);
}

#[test]
fn the_go_tools_value_is_never_beyond_now() {
    let mut cursor = Cursor::new(Kind::TaskEvents);
    cursor.apply(Mark::Task(Task::new("a", "t"), tail(5, 1_000, false)));
    assert_eq!((cursor.value(900), cursor.value(2_000)), (900, 1_000));
}
