//! Firehoses as processes of their own: started, read, signalled, and never left behind.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle as Thread},
    time::Duration,
};

use axum::Router;
use nomad_firehose::standin::{
    nomad::{Nomad, Table},
    serve,
};
use serde_json::Value;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::support::{allocation, node};

/// Far more than anything here takes, on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The exit codes of the process.
pub const FAILED: i32 = 1;
pub const USAGE: i32 = 64;
pub const CONFIGURATION: i32 = 78;

/// A binary to be started, in an environment that holds nothing but what the test puts there.
pub struct Program {
    name: &'static str,
    command: Command,
}

/// A binary that runs; it is killed when this is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    /// What it writes to standard output.
    pub out: Lines,
    /// What it writes to standard error.
    pub log: Lines,
}

/// The lines that came through a pipe so far.
#[derive(Clone, Default)]
pub struct Lines {
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
    reader: Arc<Mutex<Option<Thread<()>>>>,
}

/// How a process ended, and everything it wrote.
#[derive(Debug, Default)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub log: String,
}

impl Program {
    /// The binary of a stream.
    pub fn stream(name: &str) -> Self {
        match name {
            "allocations" => {
                Self::new("firehose-allocations", env!("CARGO_BIN_EXE_firehose-allocations"))
            }
            "deployments" => {
                Self::new("firehose-deployments", env!("CARGO_BIN_EXE_firehose-deployments"))
            }
            "evaluations" => {
                Self::new("firehose-evaluations", env!("CARGO_BIN_EXE_firehose-evaluations"))
            }
            "jobliststubs" => {
                Self::new("firehose-jobliststubs", env!("CARGO_BIN_EXE_firehose-jobliststubs"))
            }
            "jobs" => Self::new("firehose-jobs", env!("CARGO_BIN_EXE_firehose-jobs")),
            "nodes" => Self::new("firehose-nodes", env!("CARGO_BIN_EXE_firehose-nodes")),
            other => panic!("no such stream: {other}"),
        }
    }

    /// The binary with the Go tool's command line.
    pub fn named() -> Self {
        Self::new("nomad-firehose", env!("CARGO_BIN_EXE_nomad-firehose"))
    }

    pub fn new(name: &'static str, path: &str) -> Self {
        let mut command = Command::new(path);
        command.env_clear().stdin(Stdio::null());
        Self { name, command }
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn set(mut self, variable: &str, value: impl AsRef<str>) -> Self {
        self.command.env(variable, value.as_ref());
        self
    }

    /// Starts it; both its outputs are read.
    pub fn start(self) -> Process {
        let (process, out) = self.start_unread();
        process.out.read(out);
        process
    }

    /// Starts it; its standard output is the caller's to read, or not.
    pub fn start_unread(mut self) -> (Process, ChildStdout) {
        self.command.stdout(Stdio::piped());
        let mut process = self.spawn();
        let out = process.child.stdout.take().unwrap();
        (process, out)
    }

    /// Starts it with standard output going to a file.
    pub fn start_into(mut self, file: File) -> Process {
        self.command.stdout(file);
        self.spawn()
    }

    /// Runs it to its end.
    pub async fn run(self) -> Finished {
        self.start().finished().await
    }

    fn spawn(mut self) -> Process {
        let mut child = self.command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::default();
        log.read(child.stderr.take().unwrap());
        Process { name: self.name, child, out: Lines::default(), log }
    }
}

impl Process {
    /// As the shell's `kill`.
    pub fn signal(&self, signal: &str) {
        let command = format!("kill -s {signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }

    /// As `kill -9`, and waits for it.
    pub fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).unwrap();
        self.out.end();
        self.log.end();
    }

    /// The most memory that it has had resident so far.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended by itself, and for the rest of what it wrote.
    pub async fn finished(mut self) -> Finished {
        let status: ExitStatus =
            wait(&format!("{} ends", self.name), async || self.child.try_wait().unwrap()).await;
        self.out.end();
        self.log.end();
        Finished { code: status.code(), out: self.out.text(), log: self.log.text() }
    }

    /// Asks it to stop, and waits until it has: it must say that all went well.
    pub async fn stop(self) -> Finished {
        self.signal("TERM");
        let finished = self.finished().await;
        assert_eq!(finished.code, Some(0), "{}", finished.log);
        finished
    }

    /// Waits until it has logged this text.
    pub async fn logs(&self, text: &str) {
        self.logs_times(1, text).await;
    }

    /// Waits until it has logged this text so many times.
    pub async fn logs_times(&self, times: usize, text: &str) {
        let what = format!("{} logs {text:?} {times} times", self.name);
        when(&what, || self.log.text().matches(text).count() >= times).await;
    }

    /// Waits until it has published so many records.
    pub async fn publishes(&self, count: usize) {
        let what = format!("{} publishes {count} records", self.name);
        when(&what, || self.out.count() >= count).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // Past the capture of the test harness, which knows nothing of threads and processes.
            let (records, log) = (self.out.count(), self.log.text());
            let _ = writeln!(std::io::stderr(), "-- {} wrote {records} records\n{log}", self.name);
        }
    }
}

impl Lines {
    fn read(&self, pipe: impl Read + Send + 'static) {
        let lines = self.lines.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().unwrap().push((Instant::now(), line));
            }
        });
        *self.reader.lock().unwrap() = Some(reader);
    }

    /// Waits for the rest, once the process has ended.
    fn end(&self) {
        if let Some(reader) = self.reader.lock().unwrap().take() {
            reader.join().unwrap();
        }
    }

    pub fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    pub fn text(&self) -> String {
        self.lines.lock().unwrap().iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    /// When the first line came.
    pub fn began(&self) -> Option<Instant> {
        self.lines.lock().unwrap().first().map(|(at, _)| *at)
    }

    pub fn bodies(&self) -> Vec<Value> {
        bodies(&self.text())
    }

    /// What each record tells of the numbered change that it is.
    pub fn names(&self) -> Vec<String> {
        names(&self.text())
    }
}

/// Each line is a JSON document.
pub fn bodies(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .collect()
}

/// The number of each change: the name of the node, or the time of the task event.
pub fn names(text: &str) -> Vec<String> {
    let name = |body: &Value| match &body["TaskEvent"]["Time"] {
        Value::Null => body["Name"].as_str().unwrap().to_owned(),
        time => time.to_string(),
    };
    bodies(text).iter().map(name).collect()
}

/// Waits until `look` finds something.
pub async fn wait<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(LOOK_AGAIN).await;
    }
}

/// Waits for a condition.
pub async fn when(what: &str, mut condition: impl FnMut() -> bool) {
    wait(what, async || condition().then_some(())).await;
}

/// A stand-in behind a port of this machine, until it is dropped.
pub struct Served {
    pub address: String,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub async fn new(router: Router) -> Self {
        let listener = serve::bind().await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(serve::serve(router, listener, std::future::pending()));
        Self { address, task }
    }

    /// Closes the port and cuts every connection.
    pub async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Changes of a Nomad that goes on by itself: each makes a node, and an allocation with two task
/// events, and all have numbers, so that whatever is lost or repeated has a name.
pub struct Changes {
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

const BETWEEN_CHANGES: Duration = Duration::from_millis(20);

impl Changes {
    pub fn of(nomad: &Nomad) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let nomad = nomad.clone();
        let task = tokio::spawn(async move {
            let mut ticks = interval(BETWEEN_CHANGES);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0.. {
                tokio::select! {
                    biased;
                    _ = &mut stopped => return number,
                    _ = ticks.tick() => change(&nomad, number),
                }
            }
            unreachable!("there is always another number")
        });
        Self { stop, task }
    }

    /// Ends them; how many there were.
    pub async fn end(self) -> usize {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

/// Makes the change with this number.
pub fn change(nomad: &Nomad, number: usize) {
    nomad.upsert(Table::Nodes, node(&node_name(number), "ready"));
    let name = format!("a{number:05}");
    nomad.upsert(Table::Allocations, allocation(&name, &event_times(number)));
}

/// The nodes that the first so many changes make.
pub fn nodes(changes: usize) -> Vec<String> {
    (0..changes).map(node_name).collect()
}

/// The times of the task events of the first so many changes.
pub fn events(changes: usize) -> Vec<String> {
    (0..changes).flat_map(event_times).map(|it| it.to_string()).collect()
}

fn node_name(number: usize) -> String {
    format!("n{number:05}")
}

fn event_times(number: usize) -> [i64; 2] {
    let first = (i64::try_from(number).unwrap() + 1) * 1_000 + 1;
    [first, first + 1]
}

/// Whether a process has published all of these but those that others had before it. With the
/// event stream the last change is not the last that is published.
pub fn published_all(expected: &[String], before: &[String], process: &Process) -> bool {
    let names = process.out.names();
    let published: HashSet<_> = names.iter().chain(before).collect();
    expected.iter().all(|it| published.contains(it))
}

/// What was published more than once, after making sure that nothing is missing or unheard of.
pub fn repeated(expected: &[String], published: &[String]) -> Vec<String> {
    let known: HashSet<_> = expected.iter().collect();
    let mut seen = HashSet::new();
    let again = published.iter().filter(|it| !seen.insert(*it)).cloned().collect();
    let missing: Vec<_> = expected.iter().filter(|it| !seen.contains(it)).collect();
    assert!(missing.is_empty(), "never published: {missing:?}");
    let strange: Vec<_> = seen.iter().filter(|it| !known.contains(*it)).collect();
    assert!(strange.is_empty(), "published, and nobody knows why: {strange:?}");
    again
}
