//! What the benchmarks of running processes share. Linux only, since `/proc` is read.

pub(crate) mod cluster;
pub(crate) mod firehose;
pub(crate) mod plot;
pub(crate) mod proc;

use std::{error::Error, iter::once, time::Duration};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long things took, to be asked for a quantile.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time within which this part of them was done, in milliseconds.
    pub(crate) fn within(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        self.0.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

/// A table as Markdown has it, which is legible as it is.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let lengths = |column: usize| self.rows.iter().map(move |row| row[column].chars().count());
        let widths: Vec<usize> =
            (0..columns).map(|column| lengths(column).max().unwrap_or(0)).collect();
        let line: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(i, width)| if i == 0 { "-".repeat(*width) } else { "-".repeat(width - 1) + ":" })
            .collect();
        let (head, body) = self.rows.split_at(self.rows.len().min(1));
        for row in head.iter().chain(once(&line)).chain(body) {
            write!(f, "|")?;
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match i {
                    0 => write!(f, " {cell:<width$} |")?,
                    _ => write!(f, " {cell:>width$} |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number with commas.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
