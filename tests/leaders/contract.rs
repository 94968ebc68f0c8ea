//! What every backend has to keep, from outside: by whom it is elected, and what becomes of a
//! checkpoint.

use std::{collections::BTreeMap, time::Duration};

use nomad_firehose::{
    cursor::{Index, Mark, Saved},
    leader::{Leader, LeaderError, Term},
    shutdown,
};
use tokio::time::Instant;

pub use super::outages::*;
use super::steps::{Link, above, elected, moved, standby, tail, tails, task};
use crate::support::pass;

/// With which every backend is set up.
pub const TTL: Duration = Duration::from_secs(10);
pub const LOCK_DELAY: Duration = Duration::from_secs(1);
/// From a crash to the next term: the servers wait for twice the TTL.
pub const CRASH_LIMIT: Duration = Duration::from_secs(22);
pub const CLEAN_LIMIT: Duration = Duration::from_secs(1);

/// What elects, and where the checkpoint is.
pub trait Backend: Send + Sync + Sized {
    fn new() -> impl Future<Output = Self> + Send;

    /// Another process of the stream.
    fn leader(&self, link: &Link) -> Box<dyn Leader>;

    /// All that a checkpoint consists of, by name.
    fn saved(&self) -> BTreeMap<String, Vec<u8>>;

    /// Whether nothing is held, and nothing is left that would have to expire.
    fn is_free(&self) -> bool;

    /// Overwrites the head, or one shard of tails, with something else.
    fn damage_head(&self);
    fn damage_shard(&self);

    /// While it is on, the checkpoint is there and cannot be read.
    fn unreadable(&self, on: bool);

    /// What can be done to the servers; or why there are none.
    fn servers(&self) -> Result<&dyn Servers, &'static str>;
}

/// Servers that elect, and what can happen to them.
pub trait Servers {
    /// The request after so many others is carried out, and its answer is lost.
    fn lose_answer(&self, after: usize);

    /// Forgets what was not lost yet; how many that were.
    fn lose_no_more(&self) -> bool;

    /// Ends whoever holds the lock, so that it is soon free.
    fn expire(&self);
}

/// Lets the lease be renewed: it counts the time that work takes, although the clock stands still.
pub async fn renewed() {
    pass(4).await;
}

pub async fn floor(term: &dyn Term) -> Index {
    match term.load().await.unwrap() {
        Saved::Ours(cursor) => cursor.floor(),
        other => panic!("not a checkpoint: {other:?}"),
    }
}

pub async fn one_is_elected_and_the_others_stand_by<B: Backend>() {
    let backend = B::new().await;
    let first = elected(&*backend.leader(&Link::default())).await;
    let others = [(); 2].map(|()| standby(backend.leader(&Link::default())));
    pass(120).await;
    assert!(first.holds() && others.iter().all(|it| !it.is_finished()));
    others.iter().for_each(tokio::task::JoinHandle::abort);
}

pub async fn a_resignation_lets_the_next_one_in_within_a_second<B: Backend>() {
    let backend = B::new().await;
    let mut term = elected(&*backend.leader(&Link::default())).await;
    for _ in 0..3 {
        let next = standby(backend.leader(&Link::default()));
        pass(30).await;
        let asked = Instant::now();
        term.resign().await;
        term = next.await.unwrap();
        assert!(asked.elapsed() <= CLEAN_LIMIT, "{:?}", asked.elapsed());
        assert!(term.holds());
    }
    term.resign().await;
    assert!(backend.is_free(), "something is left behind");
}

pub async fn a_crash_lets_the_next_one_in_within_two_ttls_and_the_delay<B: Backend>() {
    let backend = B::new().await;
    let first = elected(&*backend.leader(&Link::default())).await;
    let next = standby(backend.leader(&Link::default()));
    pass(33).await;
    let crashed = Instant::now();
    drop(first);
    let next = next.await.unwrap();
    assert!(next.holds() && crashed.elapsed() <= CRASH_LIMIT, "{:?}", crashed.elapsed());
}

pub async fn a_standby_stops_at_once_and_leaves_nothing_behind<B: Backend>() {
    let backend = B::new().await;
    let first = elected(&*backend.leader(&Link::default())).await;
    let leader = backend.leader(&Link::default());
    let (trigger, stop) = shutdown::channel();
    let waiting = tokio::spawn(async move { leader.elect(&stop).await.map(|it| it.is_none()) });
    pass(20).await;
    let asked = Instant::now();
    trigger.stop();
    assert!(waiting.await.unwrap().unwrap(), "it was elected");
    assert!(asked.elapsed() < CLEAN_LIMIT);
    first.resign().await;
    assert!(backend.is_free(), "something is left behind");
}

pub async fn a_checkpoint_outlives_its_term<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    assert!(matches!(term.load().await.unwrap(), Saved::Nothing));
    let mut cursor = moved(5);
    term.save(&mut cursor).await.unwrap();
    cursor.reach(Index(8));
    term.save(&mut cursor).await.unwrap();
    assert_eq!(floor(&*term).await, Index(8));
    term.resign().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    assert_eq!(floor(&*term).await, Index(8));
    // Without a save in between it is still the same.
    term.resign().await;
    assert_eq!(floor(&*elected(&*backend.leader(&Link::default())).await).await, Index(8));
}

pub async fn many_tails_come_back_however_they_are_cut<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let mut cursor = tails(4_000);
    term.save(&mut cursor).await.unwrap();
    renewed().await;
    // So many more that they are cut anew, and some that change.
    (4_000..9_000).for_each(|it| cursor.apply(Mark::Task(task(it), tail(6))));
    (0..100).for_each(|it| cursor.apply(Mark::Task(task(it), tail(7))));
    term.save(&mut cursor).await.unwrap();
    renewed().await;
    cursor.apply(Mark::Task(task(0), tail(8)));
    term.save(&mut cursor).await.unwrap();
    term.resign().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
    assert_eq!((back.tails(), back.floor()), (9_000, Index(5)));
    for (number, index) in [(0, 8), (1, 7), (99, 7), (100, 5), (8_999, 6)] {
        assert_eq!(back.tail(task(number)), Some(tail(index)), "{number}");
    }
}

pub async fn many_objects_above_the_floor_come_back<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let mut cursor = above(3_999);
    term.save(&mut cursor).await.unwrap();
    renewed().await;
    term.save(&mut cursor).await.unwrap();
    term.resign().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
    assert!(back.floor_is_known());
    for key in [1, u64::MAX, u64::MAX - 1_000, u64::MAX - 3_998] {
        assert_eq!(back.object(key), cursor.object(key), "{key}");
    }
    // Fewer again.
    let mut cursor = above(3);
    term.save(&mut cursor).await.unwrap();
    let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
    assert_eq!((back.object(u64::MAX - 5), back.highest()), (None, cursor.highest()));
}

pub async fn a_damaged_head_is_told_from_one_that_is_not_there<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    term.save(&mut moved(5)).await.unwrap();
    term.resign().await;
    backend.damage_head();
    // Nothing is saved in the first two terms.
    for _ in 0..2 {
        let term = elected(&*backend.leader(&Link::default())).await;
        let saved = term.load().await.unwrap();
        assert!(matches!(saved, Saved::Corrupt { .. }), "{saved:?}");
        term.resign().await;
    }
    let term = elected(&*backend.leader(&Link::default())).await;
    term.load().await.unwrap();
    term.save(&mut moved(6)).await.unwrap();
    assert_eq!(floor(&*term).await, Index(6));
}

pub async fn a_damaged_shard_costs_its_own_tails_only<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    term.save(&mut tails(6_000)).await.unwrap();
    backend.damage_shard();
    let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
    assert!((1..6_000).contains(&back.tails()), "{}", back.tails());
}

pub async fn a_checkpoint_that_cannot_be_read_is_an_error_and_never_nothing<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    term.save(&mut moved(5)).await.unwrap();
    backend.unreadable(true);
    for _ in 0..3 {
        let failed = term.load().await;
        assert!(matches!(failed, Err(LeaderError::Unavailable { .. })), "{failed:?}");
    }
    backend.unreadable(false);
    assert_eq!(floor(&*term).await, Index(5));
}

/// Runs the contract, or the part that a backend without servers has.
#[macro_export]
macro_rules! leader_contract {
    ($backend:ty) => {
        $crate::leader_contract!($backend:
            one_is_elected_and_the_others_stand_by
            a_resignation_lets_the_next_one_in_within_a_second
            a_crash_lets_the_next_one_in_within_two_ttls_and_the_delay
            a_standby_stops_at_once_and_leaves_nothing_behind
            a_checkpoint_outlives_its_term
            many_tails_come_back_however_they_are_cut
            many_objects_above_the_floor_come_back
            a_damaged_head_is_told_from_one_that_is_not_there
            a_damaged_shard_costs_its_own_tails_only
            a_checkpoint_that_cannot_be_read_is_an_error_and_never_nothing
            a_save_after_the_term_is_over_fails_and_changes_nothing
            a_holder_that_is_cut_off_has_stopped_when_the_next_one_is_elected
            a_term_outlasts_a_cut_that_is_shorter_than_the_ttl
            a_holder_that_was_suspended_does_not_hold_when_it_wakes
            an_answer_that_is_lost_while_competing_costs_no_more_than_a_crash
            an_answer_that_is_lost_while_saving_is_saved_by_the_next_attempt
            an_answer_that_is_lost_while_resigning_costs_no_more_than_a_crash
            a_checkpoint_that_was_overwritten_by_hand_is_saved_again
        );
    };
    ($backend:ty: without servers, since $why:literal) => {
        $crate::leader_contract!($backend:
            one_is_elected_and_the_others_stand_by
            a_resignation_lets_the_next_one_in_within_a_second
            a_crash_lets_the_next_one_in_within_two_ttls_and_the_delay
            a_standby_stops_at_once_and_leaves_nothing_behind
            a_checkpoint_outlives_its_term
            many_tails_come_back_however_they_are_cut
            many_objects_above_the_floor_come_back
            a_damaged_head_is_told_from_one_that_is_not_there
            a_damaged_shard_costs_its_own_tails_only
            a_checkpoint_that_cannot_be_read_is_an_error_and_never_nothing
        );

        /// What needs servers does not apply, and this is what holds instead.
        #[tokio::test(start_paused = true)]
        async fn nothing_but_itself_ends_a_term() {
            use $crate::leaders::{contract::Backend, steps::{Link, elected}};
            let backend = <$backend>::new().await;
            assert_eq!(backend.servers().err(), Some($why));
            let term = elected(&*backend.leader(&Link::default())).await;
            let day = std::time::Duration::from_secs(86_400);
            assert!(tokio::time::timeout(day, term.over()).await.is_err());
            assert!(term.holds());
        }
    };
    ($backend:ty: in real time, $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::leaders::contract::$name::<$backend>().await;
            }
        )*
    };
    ($backend:ty: $($name:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                $crate::leaders::contract::$name::<$backend>().await;
            }
        )*
    };
}
