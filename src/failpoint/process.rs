//! A process within a test: what becomes of it at which point, and whether it runs at all.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, pending},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, time::Instant};

use super::Point;

tokio::task_local! {
    static PROCESS: Arc<Process>;
}

/// What becomes of a process at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ends there.
    Crash,
    /// It ends once the request is carried out, before it has the answer.
    CrashAfter,
    /// The request is carried out, and the answer does not arrive.
    LoseAnswer,
}

/// An answer did not arrive.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer was lost")]
pub struct Lost;

impl From<Lost> for io::Error {
    fn from(lost: Lost) -> Self {
        Self::other(lost)
    }
}

/// What is to happen at which point. Processes may share one: then it happens to whichever comes
/// there first.
#[derive(Debug, Default)]
pub struct Plan(Mutex<Planned>);

#[derive(Debug, Default)]
struct Planned {
    /// The point, how often it is passed before, and what happens then.
    next: Vec<(Point, usize, Fate)>,
    reached: BTreeMap<Point, usize>,
}

impl Plan {
    /// This happens at a point that was passed so often before, from now on.
    pub fn add(&self, point: Point, after: usize, fate: Fate) {
        lock(&self.0).next.push((point, after, fate));
    }

    /// How much of it has not happened yet.
    #[must_use]
    pub fn left(&self) -> usize {
        lock(&self.0).next.len()
    }

    /// Takes back what has not happened yet.
    pub fn clear(&self) {
        lock(&self.0).next.clear();
    }

    /// How often a point was reached.
    #[must_use]
    pub fn reached(&self, point: Point) -> usize {
        lock(&self.0).reached.get(&point).copied().unwrap_or_default()
    }

    fn arrive(&self, point: Point) -> Option<Fate> {
        let mut planned = lock(&self.0);
        *planned.reached.entry(point).or_default() += 1;
        let at = planned.next.iter().position(|it| it.0 == point)?;
        match &mut planned.next[at].1 {
            0 => Some(planned.next.remove(at).2),
            after => {
                *after -= 1;
                None
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Suspended,
    Dead,
}

/// A process within a test.
#[derive(Debug)]
pub struct Process {
    plan: Arc<Plan>,
    state: watch::Sender<State>,
    /// From which chances are drawn.
    random: Mutex<u64>,
    disturbed: Mutex<Option<Instant>>,
}

impl Process {
    /// A process with this plan, whose chances follow from the seed.
    #[must_use]
    pub fn new(plan: Arc<Plan>, seed: u64) -> Self {
        let state = watch::Sender::new(State::Running);
        Self { plan, state, random: Mutex::new(seed), disturbed: Mutex::default() }
    }

    /// It ends: nothing of it runs any more.
    pub fn end(&self) {
        self.state.send_replace(State::Dead);
    }

    /// It does not run for a while.
    pub fn suspend(&self) {
        self.state.send_if_modified(|it| {
            *it == State::Running && {
                *it = State::Suspended;
                true
            }
        });
    }

    /// It runs again.
    pub fn resume(&self) {
        let resumed = self.state.send_if_modified(|it| {
            *it == State::Suspended && {
                *it = State::Running;
                true
            }
        });
        if resumed {
            self.disturb();
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        *self.state.borrow() == State::Dead
    }

    /// Whether it does not run.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        *self.state.borrow() == State::Suspended
    }

    /// Waits until it runs; for ever where it has ended.
    pub async fn running(&self) {
        let _ = self.state.subscribe().wait_for(|it| *it == State::Running).await;
    }

    /// When it was last kept from running, or from an answer.
    #[must_use]
    pub fn disturbed(&self) -> Option<Instant> {
        *lock(&self.disturbed)
    }

    fn disturb(&self) {
        *lock(&self.disturbed) = Some(Instant::now());
    }

    async fn stopped(&self) {
        let _ = self.state.subscribe().wait_for(|it| *it != State::Running).await;
    }

    async fn crash(&self) -> Infallible {
        self.end();
        pending().await
    }

    /// The next of its numbers from 0 to 1.
    fn chance(&self) -> f64 {
        let mut random = lock(&self.random);
        // As SplitMix64 does.
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*random ^ (*random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Runs a process: while it is suspended, or once it has ended, nothing of it is looked at.
pub async fn run<T>(process: Arc<Process>, work: impl Future<Output = T>) -> T {
    let gate = process.clone();
    let gated = async move {
        let mut work = std::pin::pin!(work);
        loop {
            gate.running().await;
            tokio::select! {
                biased;
                () = gate.stopped() => (),
                done = &mut work => return done,
            }
        }
    };
    PROCESS.scope(process, gated).await
}

/// A task of the process that starts it.
pub fn inherit(
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let process = current();
    async move {
        match process {
            Some(process) => run(process, work).await,
            None => work.await,
        }
    }
}

/// The process gets to a point.
pub async fn reach(point: Point) {
    if let Some(process) = current()
        && process.plan.arrive(point).is_some()
    {
        match process.crash().await {}
    }
}

/// The process makes a request.
pub async fn around<T, E: From<Lost>>(
    point: Point,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(process) = current() else { return request.await };
    match process.plan.arrive(point) {
        None => request.await,
        Some(Fate::Crash) => match process.crash().await {},
        Some(Fate::CrashAfter) => {
            let _ = request.await;
            match process.crash().await {}
        }
        Some(Fate::LoseAnswer) => {
            let _ = request.await;
            process.disturb();
            Err(Lost.into())
        }
    }
}

/// A number from 0 to 1 that is drawn for the process, where it has numbers of its own.
pub fn chance() -> Option<f64> {
    current().map(|it| it.chance())
}

fn current() -> Option<Arc<Process>> {
    PROCESS.try_with(Arc::clone).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
