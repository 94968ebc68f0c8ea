//! A firehose as a process of its own, with what it writes.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::{JoinHandle, spawn},
    time::{Duration, Instant},
};

use super::{Result, cluster, proc::Cpu};

/// More than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process; it is killed when this is dropped.
pub(crate) struct Firehose {
    process: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) pid: u32,
    pub(crate) cpu: Cpu,
    /// When each line was read, and the time of the task event in it.
    lines: Receiver<(Instant, u64)>,
    log: Option<JoinHandle<String>>,
}

impl Firehose {
    /// The binary, with these variables and no others.
    pub(crate) fn start(address: &str, variables: &[(&str, &str)]) -> Result<Self> {
        Self::run(Command::new(env!("CARGO_BIN_EXE_firehose-allocations")), address, variables)
    }

    pub(crate) fn run(
        mut command: Command,
        address: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let mut process = command
            .env_clear()
            .env("NOMAD_ADDR", address)
            .env("NOMAD_FIREHOSE_LEADER", "solo")
            .env("SINK_TYPE", "stdout")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().ok_or("no stdout")?;
        let mut log = process.stderr.take().ok_or("no stderr")?;
        let (sender, lines) = channel();
        spawn(move || {
            let mut out = BufReader::with_capacity(1 << 20, out);
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let time = cluster::time(&line).unwrap_or_default();
                if sender.send((Instant::now(), time)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let log = spawn(move || {
            let mut text = String::new();
            let _ = log.read_to_string(&mut text);
            text
        });
        let pid = process.id();
        let (stdin, cpu) = (process.stdin.take(), Cpu::of(pid));
        Ok(Self { process, stdin, pid, cpu, lines, log: Some(log) })
    }

    /// The next line, and when it was read.
    pub(crate) fn line(&mut self) -> Result<(Instant, u64)> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(err) => Err(format!("no line: {err}; {}", self.end("KILL")?).into()),
        }
    }

    /// When the last of so many lines was read.
    pub(crate) fn lines(&mut self, count: usize) -> Result<Instant> {
        let mut last = Instant::now();
        for i in 0..count {
            last = self.line()?.0;
            if i % 1_000 == 0 {
                self.cpu.now()?;
            }
        }
        Ok(last)
    }

    /// Stops it, and returns what it has counted.
    pub(crate) fn stop(mut self) -> Result<String> {
        let log = self.end("TERM")?;
        let counted = log.rsplit_once("counted=\"").and_then(|(_, rest)| rest.split_once('"'));
        let Some((counted, _)) = counted else { return Err(log.into()) };
        Ok(counted.to_owned())
    }

    /// Waits for its end, and returns what it has logged.
    pub(crate) fn finished(mut self) -> Result<String> {
        self.process.wait()?;
        Ok(self.log.take().and_then(|it| it.join().ok()).unwrap_or_default())
    }

    /// Ends it, and returns what it has logged.
    fn end(&mut self, signal: &str) -> Result<String> {
        let command = format!("kill -s {signal} {}", self.pid);
        Command::new("sh").args(["-c", &command]).status()?;
        self.process.wait()?;
        let log = self.log.take().and_then(|it| it.join().ok());
        Ok(log.unwrap_or_default())
    }
}

impl Drop for Firehose {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How often something was counted.
pub(crate) fn count(counted: &str, name: &str) -> u64 {
    let found = counted.split(' ').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|it| it.parse().ok()).unwrap_or(0)
}
