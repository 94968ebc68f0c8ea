//! A claim on leadership that is kept alive, and the instant up to which it can be relied on.
//!
//! A server ends a claim no sooner than its TTL after the last renewal. So until the TTL after the
//! last renewal was *sent*, less a margin, nobody else can have the lock, whatever became of the
//! network since.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{api, backoff::Trouble, error::Chain, failpoint, metrics::Metrics};

/// A claim is renewed so many times within its TTL.
const RENEWALS_PER_TTL: u32 = 3;
/// A renewal has this part of the TTL to be answered: packets may be dropped without a word, and
/// there is to be time for another try.
const RENEWAL_LIMIT: u32 = 10;
/// This part of the TTL is kept as a margin for clocks that run at different speeds.
const MARGIN: u32 = 10;
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// What keeps a lease alive.
pub(super) trait Renew: Send + Sync + 'static {
    /// Renews the claim, within the limit; false where it is gone.
    fn renew(&self, limit: Duration) -> impl Future<Output = api::Result<bool>> + Send;
}

/// A claim that is kept alive in the background. Dropped, it expires.
#[derive(Debug)]
pub(super) struct Lease {
    state: watch::Sender<State>,
    _renewal: Task,
}

/// What can end a lease before its time.
#[derive(Clone, Debug)]
pub(super) struct End(watch::Sender<State>);

/// When a request was sent, by two clocks.
pub(super) type Sent = (Instant, SystemTime);

/// The present.
pub(super) fn now() -> Sent {
    (Instant::now(), SystemTime::now())
}

/// How long a lease can be relied on.
#[derive(Clone, Copy, Debug)]
struct State {
    /// By the clock that cannot be set, which may stand still while the machine is suspended.
    until: Instant,
    /// By the clock that goes on then.
    until_wall: SystemTime,
    ended: bool,
}

/// Whether a claim can be relied on that was made or renewed by what was sent then.
pub(super) fn holds(sent: Sent, ttl: Duration) -> bool {
    State::renewed(sent, ttl).holds()
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    /// A task of its own, so that the lock is renewed whatever the pipeline is busy with.
    #[expect(clippy::disallowed_methods, reason = "owned: it is aborted when it is dropped")]
    pub(super) fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(failpoint::inherit(work)))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl State {
    fn renewed(sent: Sent, ttl: Duration) -> Self {
        let lasts = ttl - ttl / MARGIN;
        Self { until: sent.0 + lasts, until_wall: sent.1 + lasts, ended: false }
    }

    fn holds(&self) -> bool {
        !self.ended && Instant::now() < self.until && SystemTime::now() < self.until_wall
    }
}

impl Lease {
    /// Keeps alive a claim that was made or renewed by what was `sent` then.
    pub(super) fn start(
        claim: impl Renew,
        sent: Sent,
        ttl: Duration,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (state, _) = watch::channel(State::renewed(sent, ttl));
        let renewal = Task::start(renew(claim, sent.0, ttl, state.clone(), metrics.clone()));
        Self { state, _renewal: renewal }
    }

    /// Whether nobody else can have the lock at this instant.
    pub(super) fn holds(&self) -> bool {
        self.state.borrow().holds()
    }

    /// What can end it.
    pub(super) fn end(&self) -> End {
        End(self.state.clone())
    }

    /// Resolves once the lease has ended or can no longer be relied on.
    pub(super) async fn over(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if !state.holds() {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(state.until) => (),
            }
        }
    }
}

impl End {
    /// Ends the lease at once.
    pub(super) fn now(&self, why: &str) {
        end(&self.0, why);
    }
}

fn end(state: &watch::Sender<State>, why: &str) {
    state.send_if_modified(|state| {
        let news = !state.ended;
        state.ended = true;
        if news {
            tracing::warn!(
                error = why,
                "the lock is lost: nothing is published on it any more, and this process competes \
                 again. If it recurs, look at the load and network of what elects"
            );
        }
        news
    });
}

async fn renew(
    claim: impl Renew,
    sent: Instant,
    ttl: Duration,
    state: watch::Sender<State>,
    metrics: Arc<Metrics>,
) {
    let mut trouble = Trouble::new(RETRY, MAX_RETRY);
    let interval = ttl / RENEWALS_PER_TTL;
    let mut next = sent + interval;
    loop {
        sleep_until(next).await;
        let sent = now();
        match claim.renew(ttl / RENEWAL_LIMIT).await {
            Ok(true) => {
                // A lease that has ended stays ended, although the session lives. It can be ended
                // by another task at any instant, so looking and renewing is one step.
                let renewed = state.send_if_modified(|state| {
                    let holds = state.holds();
                    if holds {
                        *state = State::renewed(sent, ttl);
                    }
                    holds
                });
                if !renewed {
                    return end(&state, "it could not be renewed in time");
                }
                next = sent.0 + interval;
                metrics.health.leader.works();
                if let Some((after, attempts)) = trouble.over() {
                    tracing::info!(?after, attempts, "the lock is renewed again");
                }
            }
            Ok(false) => return end(&state, "it is gone: its time was over, or somebody ended it"),
            Err(err) => {
                if !state.borrow().holds() {
                    return end(&state, "it could not be renewed in time");
                }
                let reason = Chain(&err).to_string();
                metrics.health.leader.fails(&reason);
                if trouble.is_news(reason.clone()) {
                    tracing::warn!(
                        error = reason,
                        "the lock could not be renewed; publishing stops before it can expire. Mend \
                         what the error says"
                    );
                }
                next = Instant::now() + trouble.backoff.next_wait();
            }
        }
    }
}
