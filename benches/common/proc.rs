//! What the kernel knows of a process.

use std::{collections::HashMap, fs, time::Duration};

use super::Result;

/// The CPU time of a process. Threads that have ended are no longer in `/proc`, so it is to be
/// looked at often enough.
pub(crate) struct Cpu {
    pid: u32,
    threads: HashMap<u32, u64>,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid, threads: HashMap::new() }
    }

    /// How much it has been so far.
    pub(crate) fn now(&mut self) -> Result<Duration> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let thread = thread?;
            // It may end in between.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
            let id = thread.file_name().to_string_lossy().parse()?;
            self.threads.insert(id, nanos);
        }
        Ok(Duration::from_nanos(self.threads.values().sum()))
    }
}

/// A line of `/proc/<pid>/status` that is in KiB, in MiB.
pub(crate) fn mib(pid: u32, name: &str) -> Result<f64> {
    let kib = number(&format!("/proc/{pid}/status"), name)?;
    Ok(kib as f64 / 1024.0)
}

/// How often each of its threads has woken up.
pub(crate) fn wake_ups(pid: u32) -> Result<HashMap<u32, u64>> {
    let mut all = HashMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        let Ok(text) = fs::read_to_string(thread.path().join("status")) else { continue };
        let id = thread.file_name().to_string_lossy().parse()?;
        all.insert(id, field(&text, "voluntary_ctxt_switches:")?);
    }
    Ok(all)
}

/// How often threads have woken up in between; of those that have ended meanwhile it is not known.
pub(crate) fn between(before: &HashMap<u32, u64>, after: &HashMap<u32, u64>) -> u64 {
    after.iter().map(|(id, count)| count - before.get(id).unwrap_or(&0).min(count)).sum()
}

/// The number in a line of a file, such as `/proc/<pid>/status`.
pub(crate) fn number(path: &str, name: &str) -> Result<u64> {
    field(&fs::read_to_string(path)?, name)
}

fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
