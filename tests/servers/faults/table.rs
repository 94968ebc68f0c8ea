//! What the suite prints at its end.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use super::world::Outcome;

pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let streams: Vec<_> = outcomes.iter().map(|it| it.kind.stream()).collect();
    row(&mut text, "Measured: faults", &streams);
    let mut faults: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        for (name, count) in &outcome.faults {
            faults.entry(name).or_insert_with(|| vec![0; outcomes.len()])[at] = *count;
        }
    }
    for (name, counts) in faults {
        row(&mut text, name, &counts);
    }
    let mut all = |name: &str, of: &dyn Fn(&Outcome) -> String| {
        row(&mut text, name, &outcomes.iter().map(of).collect::<Vec<_>>());
    };
    all("changes issued", &|it| it.issued.to_string());
    all("  delivered", &|it| it.verdict.delivered.to_string());
    all("  repeated", &|it| it.verdict.repeated.to_string());
    all("  lost", &|it| (it.issued - it.verdict.delivered - it.verdict.unseen).to_string());
    all("  gone from Nomad before", &|it| it.verdict.unseen.to_string());
    all("positions compared", &|it| it.verdict.positions.to_string());
    all("latest after a term", &|it| format!("{:.0?}", it.verdict.latest));
    all("longest overlap", &|it| format!("{:.0?}", it.verdict.overlap));
    all("SIGTERM to successor", &|it| spread(&it.stopped));
    all("kill -9 to successor", &|it| spread(&it.killed));
    all("fault to all delivered", &|it| spread(&it.recovered));
    text
}

/// The least, the one in the middle, and the greatest.
pub fn spread(all: &[Duration]) -> String {
    let mut all = all.to_vec();
    all.sort();
    match all[..] {
        [] => "-".to_owned(),
        _ => format!("{:.1?}/{:.1?}/{:.1?}", all[0], all[all.len() / 2], all[all.len() - 1]),
    }
}

fn row(text: &mut String, name: &str, cells: &[impl std::fmt::Display]) {
    let _ = write!(text, "{name:26}");
    for cell in cells {
        let _ = write!(text, "{cell:>26}");
    }
    text.push('\n');
}
