//! Exponential backoff with jitter, and what is said of a trouble that lasts.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

use crate::failpoint;

/// Waits that double from a least to a greatest; each is drawn from the upper half of its step,
/// so that copies that failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    greatest: Duration,
    step: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts at `least` and never exceeds `greatest`.
    #[must_use]
    pub fn new(least: Duration, greatest: Duration) -> Self {
        Self { least, greatest, step: least, attempts: 0 }
    }

    /// The wait after so many others.
    #[must_use]
    pub fn wait_after(attempts: u32, least: Duration, greatest: Duration) -> Duration {
        jittered(least.saturating_mul(2_u32.saturating_pow(attempts)).min(greatest))
    }

    /// The waits from the next one on are no shorter than this.
    pub fn slow_down(&mut self, least: Duration) {
        self.step = self.step.max(least).min(self.greatest);
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.step;
        self.step = std::cmp::min(step.saturating_mul(2), self.greatest);
        self.attempts = self.attempts.saturating_add(1);
        jittered(step)
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// How many waits there have been since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.step = self.least;
        self.attempts = 0;
    }
}

/// A trouble that lasts: said once when it begins, once for each other reason, and once when it is
/// over, however many attempts that takes.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The waits between the attempts.
    pub backoff: Backoff,
    since: Option<Instant>,
    said: Vec<String>,
}

/// So many reasons of one trouble are remembered. A few that take turns are common, such as those
/// of a connection that ends now at this step and now at that one.
const MAX_REASONS: usize = 8;

impl Trouble {
    /// None so far.
    #[must_use]
    pub fn new(least: Duration, greatest: Duration) -> Self {
        Self { backoff: Backoff::new(least, greatest), since: None, said: Vec::new() }
    }

    /// It has this reason; whether that is to be said.
    pub fn is_news(&mut self, reason: String) -> bool {
        self.since.get_or_insert_with(Instant::now);
        if self.said.contains(&reason) {
            return false;
        }
        if self.said.len() == MAX_REASONS {
            self.said.remove(0);
        }
        self.said.push(reason);
        true
    }

    /// It is over; how long it took, and how many attempts, where there was any.
    pub fn over(&mut self) -> Option<(Duration, u32)> {
        let ended = self.since.take().map(|since| (since.elapsed(), self.backoff.attempts()));
        self.said.clear();
        self.backoff.reset();
        ended
    }
}

/// A wait from the upper half of a step.
fn jittered(step: Duration) -> Duration {
    step.mul_f64(0.5 + failpoint::chance().unwrap_or_else(jitter) / 2.0)
}

/// A number from 0 to 1. Seeding a hasher is the one source of randomness in `std`, and a wait
/// needs no better.
fn jitter() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_a_trouble_is_news_once() {
        let mut trouble = Trouble::new(Duration::ZERO, Duration::ZERO);
        let news = ["a", "b", "a", "b", "c"].map(|it| trouble.is_news(it.to_owned()));
        assert_eq!(news, [true, true, false, false, true]);
        assert!(trouble.over().is_some());
        assert!(trouble.is_news("a".to_owned()));
    }

    #[test]
    fn waits_double_within_their_bounds_and_start_over_after_a_success() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 4 * second);
        for greatest in [1, 2, 4, 4] {
            let wait = backoff.next_wait();
            assert!(wait >= second * greatest / 2 && wait <= second * greatest, "{wait:?}");
        }
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.next_wait() <= second);
    }
}
