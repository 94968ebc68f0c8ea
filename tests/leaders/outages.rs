//! What every backend with servers has to keep, whatever becomes of these.

use std::time::Duration;

use nomad_firehose::{
    cursor::{Index, Mark, Saved},
    leader::LeaderError,
};
use tokio::time::{Instant, advance, sleep, timeout};

use super::{
    contract::{Backend, CLEAN_LIMIT, CRASH_LIMIT, Servers, TTL, floor, renewed},
    steps::{Link, elected, moved, standby, tail, tails, task},
};
use crate::support::pass;

/// More requests than any step makes.
const MOST_REQUESTS: usize = 12;

fn servers<B: Backend>(backend: &B) -> &dyn Servers {
    backend.servers().unwrap_or_else(|why| panic!("it has servers: {why}"))
}

pub async fn a_save_after_the_term_is_over_fails_and_changes_nothing<B: Backend>() {
    let backend = B::new().await;
    let first = elected(&*backend.leader(&Link::default())).await;
    let mut cursor = tails(10);
    first.load().await.unwrap();
    first.save(&mut cursor).await.unwrap();
    servers(&backend).expire();
    let second = elected(&*backend.leader(&Link::default())).await;
    second.load().await.unwrap();
    second.save(&mut tails(12)).await.unwrap();
    let before = backend.saved();
    cursor.apply(Mark::Task(task(3), tail(6)));
    for _ in 0..2 {
        assert!(matches!(first.save(&mut cursor).await, Err(LeaderError::Over)));
        assert!(!first.holds());
    }
    assert_eq!(backend.saved(), before);
    timeout(CLEAN_LIMIT, first.over()).await.unwrap();
    first.resign().await;
    assert!(second.holds(), "the old one took the new one's lock along");
    second.save(&mut tails(13)).await.unwrap();
}

pub async fn a_holder_that_is_cut_off_has_stopped_when_the_next_one_is_elected<B: Backend>() {
    let backend = B::new().await;
    let link = Link::default();
    let first = elected(&*backend.leader(&link)).await;
    first.save(&mut moved(5)).await.unwrap();
    let next = standby(backend.leader(&Link::default()));
    pass(31).await;
    link.cut();
    let cut = Instant::now();
    let mut held = Duration::ZERO;
    while !next.is_finished() {
        assert!(cut.elapsed() <= CRASH_LIMIT, "nobody is elected");
        if first.holds() {
            held = cut.elapsed();
        }
        sleep(Duration::from_millis(50)).await;
    }
    let next = next.await.unwrap();
    // Nine tenths of the TTL from the last renewal on, which is a third of it ago at most.
    assert!(held < TTL && held >= TTL / 2, "it held for {held:?}");
    timeout(CLEAN_LIMIT, first.over()).await.unwrap();
    next.save(&mut moved(9)).await.unwrap();
    // Its network is back, and it knows nothing of the other.
    link.mend();
    pass(5).await;
    assert!(!first.holds());
    assert!(matches!(first.save(&mut moved(7)).await, Err(LeaderError::Over)));
    first.resign().await;
    assert_eq!(floor(&*next).await, Index(9));
    assert!(next.holds());
}

pub async fn a_term_outlasts_a_cut_that_is_shorter_than_the_ttl<B: Backend>() {
    let backend = B::new().await;
    let link = Link::default();
    let term = elected(&*backend.leader(&link)).await;
    for _ in 0..5 {
        pass(20).await;
        link.cut();
        pass(4).await;
        assert!(term.holds());
        link.mend();
    }
    pass(20).await;
    term.save(&mut moved(5)).await.unwrap();
}

pub async fn a_holder_that_was_suspended_does_not_hold_when_it_wakes<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    assert!(term.holds());
    // The servers still keep the lock, and would renew it.
    advance(TTL - Duration::from_millis(500)).await;
    assert!(!term.holds());
    pass(60).await;
    assert!(!term.holds());
    assert!(matches!(term.save(&mut moved(5)).await, Err(LeaderError::Over)));
    assert!(backend.saved().is_empty());
}

pub async fn an_answer_that_is_lost_while_competing_costs_no_more_than_a_crash<B: Backend>() {
    for after in 0..MOST_REQUESTS {
        let backend = B::new().await;
        let leader = backend.leader(&Link::default());
        servers(&backend).lose_answer(after);
        let begun = Instant::now();
        let term = elected(&*leader).await;
        assert!(term.holds() && begun.elapsed() <= CRASH_LIMIT, "{after}: {:?}", begun.elapsed());
        let reached = servers(&backend).lose_no_more();
        term.save(&mut moved(5)).await.unwrap();
        pass(60).await;
        assert!(term.holds(), "{after}: it did not last");
        term.resign().await;
        let term = elected(&*backend.leader(&Link::default())).await;
        assert_eq!(floor(&*term).await, Index(5));
        assert!(reached || after > 1, "no request was made");
    }
}

pub async fn an_answer_that_is_lost_while_saving_is_saved_by_the_next_attempt<B: Backend>() {
    for after in 0..MOST_REQUESTS {
        let backend = B::new().await;
        let term = elected(&*backend.leader(&Link::default())).await;
        term.load().await.unwrap();
        let mut cursor = tails(2_000);
        term.save(&mut cursor).await.unwrap();
        servers(&backend).lose_answer(after);
        renewed().await;
        (0..2_000).for_each(|it| cursor.apply(Mark::Task(task(it), tail(6))));
        cursor.reach(Index(6));
        let mut attempts = 0;
        while let Err(err) = term.save(&mut cursor).await {
            assert!(matches!(err, LeaderError::Unavailable { .. }), "{after}: {err:?}");
            attempts += 1;
            assert!(attempts < 3, "{after}");
        }
        servers(&backend).lose_no_more();
        let Saved::Ours(back) = term.load().await.unwrap() else { panic!("not ours") };
        assert_eq!((back.floor(), back.tail(task(7))), (Index(6), Some(tail(6))), "{after}");
        assert!(term.holds());
    }
}

pub async fn an_answer_that_is_lost_while_resigning_costs_no_more_than_a_crash<B: Backend>() {
    for after in 0..3 {
        let backend = B::new().await;
        let term = elected(&*backend.leader(&Link::default())).await;
        let next = standby(backend.leader(&Link::default()));
        pass(10).await;
        servers(&backend).lose_answer(after);
        let begun = Instant::now();
        term.resign().await;
        next.await.unwrap();
        assert!(begun.elapsed() <= CRASH_LIMIT, "{after}: {:?}", begun.elapsed());
    }
}

pub async fn a_checkpoint_that_was_overwritten_by_hand_is_saved_again<B: Backend>() {
    let backend = B::new().await;
    let term = elected(&*backend.leader(&Link::default())).await;
    term.load().await.unwrap();
    term.save(&mut tails(10)).await.unwrap();
    backend.damage_head();
    backend.damage_shard();
    let mut cursor = tails(20);
    cursor.reach(Index(7));
    term.save(&mut cursor).await.unwrap();
    assert_eq!(floor(&*term).await, Index(7));
    assert!(term.holds());
}
