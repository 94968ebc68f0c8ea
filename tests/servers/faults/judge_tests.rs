//! The judge finds what it looks for.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    issuer::{Change, Kind},
    judge::{Evidence, LATE, LEASE},
    leases::Lease,
    oracle::Arrival,
    wire::Heard,
};

const MS: Duration = Duration::from_millis(1);

/// A run of two changes of one evaluation and one of another, which all came as they should.
struct Run {
    began: Instant,
    evidence: Evidence,
}

fn id(index: u64) -> String {
    format!("evaluations/default/e/{index}/0")
}

fn change(object: &str, index: u64) -> Change {
    let body = json!({"ID": object, "ModifyIndex": index});
    Change { object: object.to_owned(), index, mark: index, body, until: None }
}

impl Run {
    fn new() -> Self {
        let began = Instant::now();
        let mut changes = vec![change("a", 1), change("b", 2), change("a", 3)];
        changes[0].until = Some(began + 200 * MS);
        let lease = |copy, renewed| Lease { copy, renewed: vec![renewed], acquired: vec![renewed] };
        let evidence = Evidence {
            kind: Kind::Evaluations,
            bodies: changes.iter().map(|it| (id(it.index), it.body.to_string().into())).collect(),
            changes,
            arrivals: Vec::new(),
            wire: Heard::default(),
            leases: HashMap::from([
                ("s0".to_owned(), lease(0, began)),
                ("s1".to_owned(), lease(1, began + 15_000 * MS)),
            ]),
            holders: vec![(began, Some("s0".to_owned()))],
            cursors: Vec::new(),
            values: Vec::new(),
            woken: Vec::new(),
            backs: Vec::new(),
            log: String::new(),
        };
        let mut run = Self { began, evidence };
        for (number, index) in [(1, 1), (2, 2), (3, 3)] {
            run.publish(100 * number, 0, index);
        }
        run
    }

    /// After so many milliseconds.
    fn publish(&mut self, after: u32, copy: usize, index: u64) {
        let at = self.began + after * MS;
        self.evidence.wire.published.push((at, copy, id(index)));
        self.evidence.wire.confirmed.entry(id(index)).or_insert(at + 10 * MS);
        self.evidence.arrivals.push(Arrival { at, id: id(index), again: false });
    }

    /// The change never came.
    fn lose(&mut self, index: u64) {
        self.evidence.bodies.remove(&id(index));
        self.evidence.arrivals.retain(|it| it.id != id(index));
    }

    fn value(&mut self, after: u32, value: u64) {
        let value = Some(value.to_string().into_bytes());
        self.evidence.values.push((self.began + after * MS, value));
    }

    fn floor(&mut self, after: u32, floor: u64) {
        use nomad_firehose::cursor::{Cursor, Index, Kind as Of};
        let mut cursor = Cursor::new(Of::Objects);
        cursor.reach(Index(floor));
        let head = cursor.encode(nomad_firehose::cursor::now()).head;
        self.evidence.cursors.push((self.began + after * MS, Some(head)));
    }

    fn finds(&self, what: &str) {
        let wrong = self.evidence.judge().wrong;
        assert!(wrong.len() == 1 && wrong[0].contains(what), "{what}: {wrong:#?}");
    }

    fn finds_nothing(&self) {
        assert_eq!(self.evidence.judge().wrong, [""; 0]);
    }
}

#[test]
fn the_judge_finds_nothing_in_a_run_without_fault() {
    let mut run = Run::new();
    run.floor(150, 1);
    run.floor(350, 3);
    run.value(150, 1);
    run.value(350, 3);
    run.finds_nothing();
    let verdict = run.evidence.judge();
    assert_eq!((verdict.delivered, verdict.repeated, verdict.positions), (3, 0, 4));
}

#[test]
fn the_judge_finds_what_is_lost_but_not_what_nomad_replaced() {
    let mut run = Run::new();
    run.lose(1);
    run.finds_nothing();
    assert_eq!(run.evidence.judge().unseen, 1);
    run.lose(2);
    run.finds("change 1 never came");
}

#[test]
fn the_judge_finds_a_gap_in_task_events_that_nobody_reported() {
    let mut run = Run::new();
    run.evidence.kind = Kind::TaskEvents;
    for (object, at) in [("a", 1), ("b", 2), ("a", 3)] {
        let event = run.evidence.bodies[&id(at)].clone();
        let event: Value = serde_json::from_slice(&event).unwrap();
        let record = json!({"AllocationID": object, "TaskName": "main", "TaskState": "running",
            "TaskEvent": event});
        run.evidence.bodies.insert(id(at), record.to_string().into());
    }
    run.finds_nothing();
    run.lose(1);
    run.finds("gap that nobody reported");
    run.evidence.log = "WARN Nomad dropped events of a task before a=a".to_owned();
    run.finds_nothing();
}

#[test]
fn the_judge_finds_what_is_unknown_and_what_was_altered() {
    let mut run = Run::new();
    run.evidence.bodies.insert(id(9), b"{}".to_vec());
    run.finds("nobody knows why");
    let mut run = Run::new();
    run.evidence.bodies.insert(id(2), b"{}".to_vec());
    run.finds("differs");
}

#[test]
fn the_judge_finds_what_comes_out_of_order_and_a_last_state_that_is_not_the_last() {
    let mut run = Run::new();
    run.evidence.arrivals.swap(0, 2);
    let wrong = run.evidence.judge().wrong;
    assert!(wrong[0].contains("change 0 came after 2"), "{wrong:?}");
    assert!(wrong[1].contains("of a, 0 came last, and not 2"), "{wrong:?}");
    let mut run = Run::new();
    run.publish(400, 0, 1);
    run.finds("of a, 0 came last");
    // As a crash of a publisher does it.
    run.publish(500, 0, 3);
    run.finds_nothing();
    assert_eq!(run.evidence.judge().repeated, 2);
}

#[test]
fn the_judge_lets_the_next_copy_publish_what_the_last_had_skipped_unless_that_was_saved() {
    let mut run = Run::new();
    run.lose(1);
    run.evidence.wire.published.retain(|(.., it)| *it != id(1));
    run.evidence.bodies.insert(id(1), run.evidence.changes[0].body.to_string().into());
    run.publish(15_100, 1, 1);
    let wrong = run.evidence.judge().wrong;
    assert!(wrong[0].contains("change 0 came after 2") && wrong.len() == 2, "{wrong:?}");
    run.publish(15_200, 1, 3);
    run.finds_nothing();
    run.floor(400, 3);
    run.finds("change 0 came after 2");
}

#[test]
fn the_judge_finds_a_position_beyond_what_is_confirmed() {
    let mut run = Run::new();
    run.floor(205, 2);
    run.finds("the floor is 2, and change 1 unconfirmed");
}

#[test]
fn the_judge_finds_a_position_that_goes_back_without_a_reason() {
    let mut run = Run::new();
    run.floor(350, 3);
    run.floor(400, 2);
    run.finds("the floor went back from 3 to 2");
    run.evidence.backs.push(run.began + 380 * MS);
    run.finds_nothing();
    run.floor(450, 1);
    run.finds("the floor went back from 2 to 1");
    let mut run = Run::new();
    run.value(350, 3);
    run.value(400, 2);
    run.finds("the value went back from 3 to 2");
}

#[test]
fn the_judge_finds_what_is_published_after_a_lease_has_run_out() {
    let late = u32::try_from((LEASE + LATE).as_millis()).unwrap();
    let mut run = Run::new();
    run.publish(late, 0, 3);
    run.finds_nothing();
    run.publish(late + 1, 0, 3);
    run.finds("copy 0 published");
    run.evidence.leases.get_mut("s0").unwrap().renewed.push(run.began + 3_000 * MS);
    run.finds_nothing();
}

#[test]
fn the_judge_finds_what_is_published_after_the_lock_is_lost() {
    let mut run = Run::new();
    run.evidence.holders.push((run.began + 1_000 * MS, None));
    run.publish(2_000, 0, 3);
    run.finds_nothing();
    run.publish(2_001, 0, 3);
    run.finds("copy 0 published");
    // It was suspended, and sent what it was about to send.
    run.evidence.woken.push((run.began + 1_500 * MS, 0));
    run.finds_nothing();
}

#[test]
fn the_judge_finds_what_is_published_without_a_lock() {
    let mut run = Run::new();
    run.publish(1_000, 1, 3);
    run.finds("without a lock");
}

#[test]
fn the_judge_finds_two_copies_that_publish_at_a_time() {
    let mut run = Run::new();
    run.evidence.leases.get_mut("s1").unwrap().acquired = vec![run.began + 1_000 * MS];
    run.evidence.leases.get_mut("s1").unwrap().renewed = vec![run.began + 1_000 * MS];
    run.publish(1_000, 1, 3);
    run.publish(2_000, 0, 3);
    run.finds_nothing();
    run.publish(2_001, 0, 3);
    run.finds("into the term of copy 1");
}
