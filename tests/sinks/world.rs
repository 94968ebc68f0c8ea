//! What the contract of sinks is tested in.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nomad_firehose::standin::nomad::{Nomad, Table, Version};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    contract::{LARGE, Receiver},
    proxy::Proxy,
};
use crate::{
    firehose::{Process, Program, Served},
    support::allocation,
};

/// A Nomad, a receiver behind a proxy, and a place for a checkpoint.
pub struct World<R> {
    pub nomad: Nomad,
    nomad_port: Served,
    pub receiver: R,
    pub proxy: Proxy,
    pub dir: TempDir,
    pub made: BTreeMap<String, Vec<i64>>,
}

impl<R: Receiver> World<R> {
    pub async fn new() -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let nomad_port = Served::new(nomad.router()).await;
        let receiver = R::start().await;
        let proxy = Proxy::to(receiver.port()).await;
        let dir = tempfile::tempdir().unwrap();
        Self { nomad, nomad_port, receiver, proxy, dir, made: BTreeMap::new() }
    }

    pub fn program(&self) -> Program {
        Program::stream("allocations")
            .set("NOMAD_ADDR", &self.nomad_port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("NOMAD_FIREHOSE_STATE_DIR", self.dir.path().to_str().unwrap())
            .set("NOMAD_FIREHOSE_DEAD_LETTER", self.dead_letters().to_str().unwrap())
    }

    pub fn start(&self) -> Process {
        self.receiver.configure(self.program(), self.proxy.port()).start()
    }

    pub fn dead_letters(&self) -> PathBuf {
        self.dir.path().join("dead-letters")
    }

    /// So many more events of a task of this job.
    pub fn events(&mut self, job: &str, name: &str, count: usize) {
        let times = self.made.entry(format!("{job}/{name}")).or_default();
        let next = times.last().copied().unwrap_or_default();
        times.extend((0..count as i64).map(|it| next + it + 1));
        assert!(times.len() <= 10, "Nomad keeps ten");
        let mut allocation = allocation(name, times);
        allocation.insert("JobID".into(), job.into());
        self.nomad.upsert(Table::Allocations, allocation);
    }

    /// An event whose payload is larger than the receiver takes.
    pub fn large_event(&mut self, name: &str) {
        let mut allocation = allocation(name, &[1]);
        allocation.insert("ClientDescription".into(), "x".repeat(LARGE + 1).into());
        self.nomad.upsert(Table::Allocations, allocation);
    }

    fn count(&self) -> usize {
        self.made.values().map(Vec::len).sum()
    }

    /// Waits until all events that were made have come.
    pub async fn all_received(&mut self) -> Vec<(String, Value)> {
        let count = self.count();
        wait_received(&mut self.receiver, &format!("{count} events come"), |it| it.len() >= count)
            .await
    }

    /// Makes sure that every event of these jobs came, in order for each task; how many came more
    /// than once.
    pub fn check(&self, received: &[(String, Value)]) -> usize {
        check(&self.made, received)
    }
}

pub async fn wait_received<R: Receiver>(
    receiver: &mut R,
    what: &str,
    enough: impl Fn(&[(String, Value)]) -> bool,
) -> Vec<(String, Value)> {
    let since = Instant::now();
    loop {
        let asked = Instant::now();
        let received = receiver.received().await;
        let ids: HashSet<_> = received.iter().map(|(id, _)| id.clone()).collect();
        let first: Vec<_> = {
            let mut left = ids;
            received.iter().filter(|(id, _)| left.remove(id)).cloned().collect()
        };
        if enough(&first) {
            return received;
        }
        assert!(
            since.elapsed() < Duration::from_secs(90),
            "not in time: {what}; {} came",
            first.len()
        );
        // Looking at many records takes its time, which is nobody else's meanwhile.
        sleep(Duration::from_millis(50).max(4 * asked.elapsed())).await;
    }
}

pub fn task(body: &Value) -> String {
    let name = body["Name"].as_str().unwrap();
    format!("{}/{}", body["JobID"].as_str().unwrap(), name.split('.').next().unwrap())
}

fn time(body: &Value) -> i64 {
    body["TaskEvent"]["Time"].as_i64().unwrap()
}

fn check(made: &BTreeMap<String, Vec<i64>>, received: &[(String, Value)]) -> usize {
    let mut seen: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut repeated = 0;
    let mut came: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (id, body) in received {
        if let Some(before) = seen.insert(id, body) {
            assert_eq!(before, body, "one id, two payloads");
            repeated += 1;
            continue;
        }
        came.entry(task(body)).or_default().push(time(body));
    }
    assert_eq!(came, *made, "what came first of each, against what was made");
    repeated
}

/// Whether there is a checkpoint of `solo` in a directory.
pub fn floor(dir: &Path) -> Option<()> {
    let entries = fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name());
    let names: Vec<String> = entries.map(|it| it.into_string().unwrap()).collect();
    names.iter().any(|it| it.ends_with(".cursor")).then_some(())
}

/// A text that does not compress, the same for the same number.
pub fn noise(number: usize) -> String {
    let mut state = number as u64 + 1;
    let step = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    (0..1_000).map(step).collect()
}
