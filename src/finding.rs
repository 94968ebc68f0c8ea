//! What a check has found: a row for each thing that was tried, and the table of them.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    future::Future,
    io::ErrorKind,
    path::Path,
    time::Duration,
};

use tokio::time::timeout;

/// A server that does not answer holds a row up for so long.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What became of something that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works, or there is nothing to say against it.
    Works,
    /// It does not work.
    Fails,
    /// It was not tried, since there is no need, or something before it does not work.
    Skipped,
    /// Only doing it would tell, and that would change something.
    NotTestable,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::Fails => "FAILED",
            Self::Skipped => "skipped",
            Self::NotTestable => "not testable",
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub what: &'static str,
    /// On what: an address or a name, without secrets.
    pub at: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What is there, or what to do.
    pub detail: String,
}

impl Finding {
    fn new(
        what: &'static str,
        at: impl Into<String>,
        outcome: Outcome,
        detail: impl Into<String>,
    ) -> Self {
        // Two spaces part the columns.
        let detail = detail.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { what, at: at.into(), outcome, detail }
    }

    /// It works.
    pub fn works(what: &'static str, at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, at, Outcome::Works, detail)
    }

    /// It does not work.
    pub fn fails(what: &'static str, at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, at, Outcome::Fails, detail)
    }

    /// It was not tried.
    pub fn skipped(what: &'static str, at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, at, Outcome::Skipped, detail)
    }

    /// Only doing it would tell.
    pub fn not_testable(
        what: &'static str,
        at: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(what, at, Outcome::NotTestable, detail)
    }
}

/// Waits for something to be tried; for `limit` at most.
pub async fn within(
    what: &'static str,
    at: &str,
    limit: Duration,
    work: impl Future<Output = Finding>,
) -> Finding {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Finding::fails(what, at, format!("there was no answer within {} s", limit.as_secs()))
    })
}

/// Whether a file can be written: one that is there is opened to add to it, and nothing is added;
/// of one that is not, only its directory can be looked at.
#[must_use]
pub fn file(what: &'static str, path: &Path) -> Finding {
    let at = path.display().to_string();
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => Finding::works(what, at, "it can be written"),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let dir = path.parent().filter(|it| !it.as_os_str().is_empty());
            let dir = dir.unwrap_or(Path::new("."));
            match fs::metadata(dir) {
                Ok(found) if !found.is_dir() => {
                    Finding::fails(what, at, format!("`{}` is no directory", dir.display()))
                }
                Ok(found) if found.permissions().readonly() => {
                    Finding::fails(what, at, format!("nobody may write in `{}`", dir.display()))
                }
                Ok(_) => Finding::not_testable(
                    what,
                    at,
                    "without making it: it is not there yet, and its directory is",
                ),
                Err(err) => Finding::fails(what, at, format!("`{}`: {err}", dir.display())),
            }
        }
        Err(err) => Finding::fails(what, at, err.to_string()),
    }
}

/// Whether a directory is there, or could be made.
#[must_use]
pub fn directory(what: &'static str, path: &Path) -> Finding {
    let at = path.display().to_string();
    // What is missing of the path is made at the start.
    let nearest = path.ancestors().find_map(|it| fs::metadata(it).ok().map(|found| (it, found)));
    match nearest {
        Some((dir, found)) if !found.is_dir() => {
            Finding::fails(what, at, format!("`{}` is no directory", dir.display()))
        }
        Some((dir, found)) if found.permissions().readonly() => {
            Finding::fails(what, at, format!("nobody may write in `{}`", dir.display()))
        }
        Some((dir, _)) if dir == path => Finding::works(what, at, "it is there"),
        Some(_) | None => Finding::not_testable(what, at, "without making it: it is not there yet"),
    }
}

/// Whether nothing has failed.
#[must_use]
pub fn all_work(findings: &[Finding]) -> bool {
    findings.iter().all(|it| it.outcome != Outcome::Fails)
}

/// The findings as text: a line with the names of the columns, one for each row, and one that sums
/// them up.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|it| [it.what, &it.at, it.outcome.word(), &it.detail]);
    let rows: Vec<[&str; 4]> =
        std::iter::once(["WHAT", "WHERE", "RESULT", "DETAIL"]).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max();
    let [what, at, outcome] = [0, 1, 2].map(|it| width(it).unwrap_or_default());
    let mut text = String::new();
    for [a, b, c, d] in rows {
        let line = format!("{a:what$}  {b:at$}  {c:outcome$}  {d}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let failed = findings.iter().filter(|it| it.outcome == Outcome::Fails).count();
    let _ = match failed {
        0 => writeln!(text, "\nNothing has failed."),
        failed => writeln!(text, "\n{failed} of {} rows FAILED.", findings.len()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let findings = [
            Finding::works("sink", "ü", ""),
            Finding::fails("a longer name", "there", "why\n  so"),
            Finding::not_testable("x", "y", "z"),
        ];
        let expected = "\
WHAT           WHERE  RESULT        DETAIL
sink           ü      ok
a longer name  there  FAILED        why so
x              y      not testable  z

1 of 3 rows FAILED.
";
        assert_eq!(table(&findings), expected);
        assert!(!all_work(&findings) && all_work(&findings[..1]));
        assert!(table(&findings[..1]).ends_with("\nNothing has failed.\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_has_failed() {
        let found = within("sink", "there", LIMIT, std::future::pending()).await;
        assert_eq!(found, Finding::fails("sink", "there", "there was no answer within 10 s"));
    }
}
