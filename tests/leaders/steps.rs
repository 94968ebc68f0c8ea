//! What the tests of leaders are made of.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, extract::Request, middleware};
use nomad_firehose::{
    cursor::{Cursor, Index, Kind, Mark, Tail, Task},
    leader::{Leader, Term},
    shutdown,
};

/// The way from one process to its servers.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<AtomicBool>);

impl Link {
    /// What is sent from now on gets nowhere.
    pub fn cut(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn mend(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// The servers at the other end.
    pub fn to(&self, router: Router) -> Router {
        let link = self.clone();
        router.layer(middleware::from_fn(move |request: Request, next: middleware::Next| {
            let cut = link.0.load(Ordering::Relaxed);
            async move {
                if cut {
                    std::future::pending::<()>().await;
                }
                next.run(request).await
            }
        }))
    }
}

pub async fn elected(leader: &dyn Leader) -> Box<dyn Term> {
    let (_trigger, stop) = shutdown::channel();
    leader.elect(&stop).await.unwrap().unwrap()
}

/// Waits in the background to be elected.
pub fn standby(leader: Box<dyn Leader>) -> tokio::task::JoinHandle<Box<dyn Term>> {
    tokio::spawn(async move { elected(&*leader).await })
}

/// A position in a stream of objects.
pub fn moved(floor: u64) -> Cursor {
    let mut cursor = Cursor::new(Kind::Objects);
    cursor.apply(Mark::Object { key: 1, index: Index(floor), hash: 1 });
    cursor.reach(Index(floor));
    cursor
}

/// A position with so many objects above the floor.
pub fn above(count: u64) -> Cursor {
    let mut cursor = moved(7);
    for key in 0..count {
        let (key, index) = (u64::MAX - key, Index(u64::MAX / 2 + key));
        cursor.apply(Mark::Object { key, index, hash: key << 2 });
    }
    cursor
}

/// A task of an allocation with this number.
pub fn task(number: u64) -> Task {
    Task::new(&format!("allocation-{number}"), "web")
}

/// A tail at this index.
pub fn tail(index: u64) -> Tail {
    let time = i64::try_from(index).unwrap();
    Tail { index: Index(index), time, kind: 7, hash: 9, terminal: false }
}

/// A position in a stream of task events, with so many tails.
pub fn tails(count: u64) -> Cursor {
    let mut cursor = Cursor::new(Kind::TaskEvents);
    (0..count).for_each(|it| cursor.apply(Mark::Task(task(it), tail(5))));
    cursor.reach(Index(5));
    cursor
}
