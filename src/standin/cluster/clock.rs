//! Times as Nomad writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

const DAY: u64 = 24 * 60 * 60;
/// Two events are never closer than this many nanoseconds.
const BETWEEN_EVENTS: u64 = 48_611;

/// The wall clock at the beginning, and what `tokio` says has passed since.
#[derive(Debug)]
pub(super) struct Clock {
    begin: Duration,
    since: Instant,
    last: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let begin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begin, since: Instant::now(), last: 0 }
    }

    /// Unix time in nanoseconds, later than every one before.
    pub(super) fn now(&mut self) -> u64 {
        let now = (self.begin + self.since.elapsed()).as_nanos();
        self.last = u64::try_from(now).unwrap_or(u64::MAX).max(self.last + BETWEEN_EVENTS);
        self.last
    }
}

/// A time as text, with as many digits of a second as it has.
pub(super) fn rfc3339(nanoseconds: u64) -> String {
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds % DAY / 3600, seconds % 3600 / 60, seconds % 60);
    let fraction = format!(".{fraction:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The date of a day since 1970. Counts in years that begin in March, so that the leap day is the last one.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    const FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days + FROM_MARCH_OF_YEAR_0;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_written_as_nomad_writes_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_448_062_719_725_950), "2026-11-23T15:34:22.71972595Z");
        assert_eq!(rfc3339(1_798_761_599_100_000_000), "2026-12-31T23:59:59.1Z");
    }
}
