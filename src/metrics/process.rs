//! What every process shows of itself, by the names that are usual. Linux only.

/// Name, type and help of each.
pub(super) const METRICS: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "CPU time that the process has used, in seconds."),
    ("process_resident_memory_bytes", "gauge", "Memory that the process has resident, in bytes."),
    ("process_virtual_memory_bytes", "gauge", "Size of the process's address space, in bytes."),
    ("process_open_fds", "gauge", "File descriptors that are open."),
    ("process_max_fds", "gauge", "File descriptors that may be open."),
    ("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970."),
    ("process_threads", "gauge", "Threads of the process."),
];

/// Those of them that can be told.
#[cfg(not(target_os = "linux"))]
pub(super) fn values() -> Vec<(&'static str, f64)> {
    Vec::new()
}

/// Those of them that can be told.
#[cfg(target_os = "linux")]
pub(super) fn values() -> Vec<(&'static str, f64)> {
    let mut found = Vec::with_capacity(METRICS.len());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // The name of the process stands before the last bracket, and can have any characters.
    let stat = read("/proc/self/stat");
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|it| it.parse().unwrap_or_default())
        .collect();
    // proc(5) counts from 1, and the first here is its third.
    let field = |number: usize| fields.get(number - 3).copied();
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        found.push(("process_cpu_seconds_total", (user + system) / TICKS));
    }
    found.extend(field(20).map(|it| ("process_threads", it)));
    let boot = named(&read("/proc/stat"), "btime");
    if let (Some(start), Some(boot)) = (field(22), boot) {
        found.push(("process_start_time_seconds", boot + start / TICKS));
    }
    found.extend(field(23).map(|it| ("process_virtual_memory_bytes", it)));
    let resident = named(&read("/proc/self/status"), "VmRSS:");
    found.extend(resident.map(|kib| ("process_resident_memory_bytes", kib * 1024.0)));
    let most = named(&read("/proc/self/limits"), "Max open files");
    found.extend(most.map(|it| ("process_max_fds", it)));
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory's own.
        found.push(("process_open_fds", open.count().saturating_sub(1) as f64));
    }
    found
}

/// Linux shows times in these to every program, whatever its own clock has.
#[cfg(target_os = "linux")]
const TICKS: f64 = 100.0;

/// The number after a name at the beginning of a line.
#[cfg(target_os = "linux")]
fn named(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|it| it.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}
