//! Tests of what is saved.

use proptest::prelude::*;

use super::*;
use crate::cursor::{Mark, Tail, Task};

const NOW: Nanos = 1_000_000;

fn tail(index: u64, time: Nanos) -> Tail {
    Tail { index: Index(index), time, kind: 7, hash: 9, terminal: index == 9 }
}

fn tasks(count: u32) -> Cursor {
    let mut cursor = Cursor::new(Kind::TaskEvents);
    for i in 0..count {
        cursor.apply(Mark::Task(Task::new(&format!("alloc-{i}"), "web"), tail(5, i.into())));
    }
    cursor.reach(Index(5));
    cursor
}

/// Saves as a leader does, over what was saved before.
fn save(cursor: &mut Cursor, shards: &mut Vec<Option<Vec<u8>>>) -> (Vec<u8>, String) {
    let Encoded { shards: changed, head, value } = cursor.encode(NOW);
    for number in changed {
        let bytes = cursor.shard(number);
        let number = number as usize;
        shards.resize(shards.len().max(number + 1), None);
        shards[number] = Some(bytes);
    }
    cursor.saved();
    (head, value)
}

fn ours(saved: Saved) -> Cursor {
    match saved {
        Saved::Ours(cursor) => *cursor,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cursor_comes_back_as_it_was_saved() {
    let mut cursor = Cursor::new(Kind::Objects);
    cursor.apply(Mark::Object { key: u64::MAX, index: Index(12), hash: 3 });
    cursor.reach(Index(11));
    let (head, value) = save(&mut cursor, &mut Vec::new());
    assert_eq!(value, "11");
    let (saved, damaged) = decode(Some(&head), &[], Some(b"11"));
    let back = ours(saved);
    assert_eq!((back.floor(), back.object(u64::MAX)), (Index(11), Some((Index(12), 3))));
    assert!(back.floor_is_known() && damaged == 0);
}

#[test]
fn states_that_take_turns_at_one_index_are_remembered_once_each() {
    let mut cursor = Cursor::new(Kind::Objects);
    for hash in [1, 2, 1, 2, 1, 1] {
        cursor.apply(Mark::Object { key: 7, index: Index(5), hash });
    }
    let (head, _) = save(&mut cursor, &mut Vec::new());
    let text = String::from_utf8(head).unwrap();
    assert!(text.contains(r#""above":[["7",5,"2"],["7",5,"1"]]"#), "{text}");
}

#[test]
fn the_last_of_several_states_at_one_index_is_still_the_last_once_it_was_saved() {
    for states in [[8, 16, 24], [24, 16, 8], [16, 24, 8]] {
        let mut cursor = Cursor::at(Index(7));
        for hash in states {
            cursor.apply(Mark::Object { key: 1, index: Index(7), hash });
        }
        let (head, _) = save(&mut cursor, &mut Vec::new());
        let back = ours(decode(Some(&head), &[], None).0);
        assert_eq!(back.object(1), Some((Index(7), states[2])));
        assert!(states.iter().all(|hash| back.has(1, *hash)));
    }
}

#[test]
fn many_tails_are_spread_over_shards_that_fit_a_transaction() {
    let (mut cursor, mut shards) = (tasks(20_000), Vec::new());
    let (head, value) = save(&mut cursor, &mut shards);
    assert!(shards.iter().flatten().all(|it| it.len() <= SHARD_BYTES));
    assert_eq!(shards.len(), Loading::new(Some(&head)).shards() as usize);
    let back = ours(decode(Some(&head), &shards, Some(value.as_bytes())).0);
    assert_eq!(back.tails(), 20_000);
    assert_eq!(back.value(NOW), cursor.value(NOW));
}

#[test]
fn where_shards_must_be_small_there_are_more_of_them() {
    const SMALL: usize = 45 << 10;
    let mut cursor = tasks(20_000);
    let Encoded { shards: changed, head, .. } = cursor.encode_within(NOW, SMALL);
    let mut shards = vec![None; changed.len()];
    for number in changed {
        shards[number as usize] = Some(cursor.shard_within(number, SMALL));
    }
    assert!(shards.iter().flatten().all(|it| it.len() <= SMALL), "{}", shards.len());
    let back = ours(decode(Some(&head), &shards, None).0);
    assert_eq!((back.tails(), shards.len()), (20_000, 32));
}

#[test]
fn only_shards_that_changed_are_written_again() {
    let (mut cursor, mut shards) = (tasks(20_000), Vec::new());
    save(&mut cursor, &mut shards);
    cursor.apply(Mark::Task(Task::new("alloc-7", "web"), tail(9, 99)));
    assert_eq!(cursor.encode(NOW).shards.len(), 1);
}

#[test]
fn a_lost_or_damaged_shard_is_reported_and_the_rest_is_kept() {
    let (mut cursor, mut shards) = (tasks(20_000), Vec::new());
    let (head, value) = save(&mut cursor, &mut shards);
    shards[0].as_mut().unwrap().truncate(100);
    let (saved, damaged) = decode(Some(&head), &shards, Some(value.as_bytes()));
    assert_eq!(damaged, 1);
    assert!((10_000..20_000).contains(&ours(saved).tails()));
}

#[test]
fn a_shard_of_an_older_format_counts_as_damaged() {
    let (mut cursor, mut shards) = (tasks(10), Vec::new());
    let (head, value) = save(&mut cursor, &mut shards);
    let shard = shards[0].as_mut().unwrap();
    let at = shard.iter().position(|it| *it == b'2').unwrap();
    shard[at] = b'1';
    let (saved, damaged) = decode(Some(&head), &shards, Some(value.as_bytes()));
    assert_eq!((ours(saved).tails(), damaged), (0, 1));
}

#[test]
fn more_shards_are_made_without_writing_those_again_that_have_not_changed() {
    let (mut cursor, mut shards) = (tasks(15_000), Vec::new());
    save(&mut cursor, &mut shards);
    let before = shards.len();
    let full = tails::shard(Task::new("alloc-0", "web"), before as u32);
    for i in 15_000.. {
        let task = Task::new(&format!("alloc-{i}"), "web");
        if tails::shard(task, before as u32) == full {
            cursor.apply(Mark::Task(task, tail(9, i)));
        }
        if cursor.tails() == 15_000 + shard::room(SHARD_BYTES) {
            break;
        }
    }
    let (head, value) = save(&mut cursor, &mut shards);
    assert_eq!(shards.len(), 2 * before);
    let back = ours(decode(Some(&head), &shards, Some(value.as_bytes())).0);
    assert_eq!(back.tails(), cursor.tails());
    let task = Task::new("alloc-0", "web");
    assert_eq!(back.tail(task), cursor.tail(task));
}

#[test]
fn nothing_saved_means_the_configured_start() {
    let (saved, _) = decode(None, &[], None);
    let (cursor, resumed) = Cursor::resume(Kind::Objects, saved, Start::Latest, "*", NOW);
    assert_eq!((cursor.since(), resumed), (Since::Now, Resumed::FirstStart(Start::Latest)));
}

#[test]
fn a_checkpoint_of_another_scope_is_told_from_one_of_this() {
    let resume = |saved, scope| Cursor::resume(Kind::Objects, saved, Start::Earliest, scope, NOW);
    let (mut cursor, _) = resume(Saved::Nothing, "default");
    let (head, _) = save(&mut cursor, &mut Vec::new());
    let again = |scope| resume(decode(Some(&head), &[], None).0, scope).1;
    assert_eq!(again("default"), Resumed::Checkpoint);
    assert_eq!(again("*"), Resumed::OtherScope { was: "default".into() });
}

#[test]
fn an_index_stream_takes_up_where_the_go_tool_left_off() {
    let (head, _) = save(&mut Cursor::at(Index(11)), &mut Vec::new());
    for head in [None, Some(&*head)] {
        let (saved, _) = decode(head, &[], Some(b"40\n"));
        let (cursor, resumed) = Cursor::resume(Kind::Objects, saved, Start::Earliest, "*", NOW);
        assert_eq!(cursor.floor(), Index(40));
        assert_eq!(resumed, Resumed::GoTool { value: 40, keeps_tails: false });
    }
}

#[test]
fn task_events_keep_their_tails_when_the_go_tool_has_run_since() {
    let (mut cursor, mut shards) = (tasks(10), Vec::new());
    let (head, _) = save(&mut cursor, &mut shards);
    let (saved, _) = decode(Some(&head), &shards, Some(b"77"));
    let (cursor, resumed) = Cursor::resume(Kind::TaskEvents, saved, Start::Earliest, "*", NOW);
    assert_eq!((cursor.tails(), cursor.floor()), (10, Index(5)));
    assert_eq!(resumed, Resumed::GoTool { value: 77, keeps_tails: true });
}

#[test]
fn without_tails_task_events_begin_after_the_lower_of_the_go_tools_time_and_now() {
    for (value, since) in [("77", 77), ("99999999999999", NOW)] {
        let (saved, _) = decode(None, &[], Some(value.as_bytes()));
        let (cursor, _) = Cursor::resume(Kind::TaskEvents, saved, Start::Latest, "*", NOW);
        assert_eq!((cursor.since(), cursor.floor()), (Since::Time(since), Index(0)));
    }
}

#[test]
fn a_cursor_that_is_cut_damaged_or_of_a_newer_version_is_said_to_be() {
    let (head, _) = save(&mut Cursor::at(Index(11)), &mut Vec::new());
    let text = String::from_utf8(head).unwrap();
    let cut = text[..text.len() / 2].to_owned();
    let damaged = text.replacen("\"floor\":11", "\"floor\":12", 1);
    let newer = text.replacen("cursor-1", "cursor-2", 1);
    for (bytes, why) in [(cut, "checksum"), (damaged, "checksum"), (newer, "cursor-2")] {
        let saved = || decode(Some(bytes.as_bytes()), &[], Some(b"8")).0;
        let Saved::Corrupt { value: Some(8), why: said } = saved() else { panic!("{:?}", saved()) };
        assert!(said.contains(why), "{said}");
        let (cursor, _) = Cursor::resume(Kind::Objects, saved(), Start::Latest, "*", NOW);
        assert_eq!(cursor.floor(), Index(8));
        let (cursor, _) = Cursor::resume(Kind::TaskEvents, saved(), Start::Latest, "*", NOW);
        assert_eq!((cursor.floor(), cursor.since()), (Index(0), Since::Floor));
    }
}

#[test]
fn a_value_that_is_not_a_number_is_ignored_beside_a_good_cursor_and_reported_without_one() {
    let (head, _) = save(&mut Cursor::at(Index(11)), &mut Vec::new());
    assert_eq!(ours(decode(Some(&head), &[], Some(b"eleven")).0).floor(), Index(11));
    assert!(matches!(decode(None, &[], Some(b"eleven")).0, Saved::Corrupt { value: None, .. }));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        head in proptest::collection::vec(any::<u8>(), 0..200),
        shard in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = decode(Some(&head), &[Some(shard)], Some(&head));
    }
}
