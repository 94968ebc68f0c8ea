//! How often the same place in the source may log (pure). Whatever a server or a receiver does, it
//! cannot fill a disk with it.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;
use tracing::Level;

use super::layout::{Entry, Value};
use crate::error::brief;

/// So many lines of one place are written in a window; the others are counted.
pub(super) const MOST_LINES: u32 = 20;
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// What is said of the others. Its fields have their message, and how many there were.
const MORE: &str = "more lines like this one were left out; the first of them are above";

/// What each place has logged of late. There are only so many places.
#[derive(Debug)]
pub(super) struct Limit<K>(HashMap<K, Window>);

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: Option<LeftOut>,
}

/// Lines of one place that were not written.
#[derive(Debug)]
pub(super) struct LeftOut {
    level: Level,
    module: String,
    message: String,
    count: u64,
}

impl<K> Default for Limit<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Limit<K> {
    /// Whether an entry of this place is to be written. Who asks for details gets all of them, and
    /// what names a record that is given up, or a task whose events are lost, is never left out.
    pub(super) fn admits(&mut self, place: K, entry: &Entry, now: Instant) -> bool {
        let has = |field: &str| entry.fields.iter().any(|(name, _)| *name == field);
        let names_a_loss = match entry.level {
            Level::ERROR => has("record"),
            Level::WARN => has("task"),
            _ => false,
        };
        if entry.level > Level::INFO || names_a_loss {
            return true;
        }
        let new = || Window { since: now, lines: 0, left_out: None };
        let window = self.0.entry(place).or_insert_with(new);
        if window.lines < MOST_LINES {
            window.lines += 1;
            return true;
        }
        let left_out = window.left_out.get_or_insert_with(|| LeftOut {
            level: entry.level,
            module: entry.module.clone(),
            message: brief(&entry.message),
            count: 0,
        });
        left_out.count += 1;
        false
    }

    /// What was left out in the windows that are over.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<LeftOut> {
        let over = |window: &Window| now.duration_since(window.since) >= WINDOW;
        self.0.extract_if(|_, window| over(window)).filter_map(|(_, it)| it.left_out).collect()
    }

    /// All that was left out and not said yet.
    pub(super) fn take_all(&mut self) -> Vec<LeftOut> {
        self.0.drain().filter_map(|(_, it)| it.left_out).collect()
    }
}

impl LeftOut {
    pub(super) fn into_entry(self) -> Entry {
        let mut entry = Entry::new(self.level, &self.module, MORE.to_owned());
        entry.fields.push(("like", Value::Text(self.message)));
        entry.fields.push(("lines", Value::Number(self.count.into())));
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(level: Level) -> Entry {
        Entry::new(level, "deliver", "it failed".to_owned())
    }

    #[test]
    fn the_first_lines_of_a_place_are_written_and_the_others_counted() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let error = entry(Level::ERROR);
        let written = (0..1_000).filter(|_| limit.admits("here", &error, start)).count();
        assert_eq!(written, MOST_LINES as usize);
        assert!(limit.admits("there", &error, start), "another place has its own lines");
        assert!(limit.take_over(start).is_empty());
        let left_out = limit.take_over(start + WINDOW);
        assert_eq!((left_out.len(), left_out[0].count), (1, 980));
        assert!(limit.admits("here", &error, start + WINDOW), "a new window has begun");
        assert!(limit.take_over(start + 3 * WINDOW).is_empty(), "it was said");
    }

    #[test]
    fn what_was_left_out_last_is_not_lost_and_details_are_not_limited() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        assert!((0..1_000).all(|_| limit.admits("here", &entry(Level::DEBUG), start)));
        (0..25).for_each(|_| _ = limit.admits("here", &entry(Level::WARN), start));
        let rest: Vec<Entry> = limit.take_all().into_iter().map(LeftOut::into_entry).collect();
        assert_eq!((rest.len(), rest[0].level, &*rest[0].module), (1, Level::WARN, "deliver"));
        assert!(limit.take_all().is_empty());
    }

    #[test]
    fn everything_that_is_lost_is_named() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let mut gap = entry(Level::WARN);
        gap.fields.push(("task", Value::Text("web".to_owned())));
        assert!((0..1_000).all(|_| limit.admits("there", &gap, start)));
        let mut loss = entry(Level::ERROR);
        loss.fields.push(("record", Value::Text("an id".to_owned())));
        assert!((0..1_000).all(|_| limit.admits("here", &loss, start)));
        loss.level = Level::WARN;
        assert_eq!((0..1_000).filter(|_| limit.admits("here", &loss, start)).count(), 20);
    }
}
