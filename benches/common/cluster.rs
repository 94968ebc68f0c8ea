//! A stand-in Nomad with many allocations, behind a port of this machine.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use nomad_firehose::standin::{
    nomad::{Nomad, Table, Version},
    serve,
};
use serde_json::{Map, Value};
use tokio::runtime::{Builder, Runtime};

use super::{Result, firehose::Firehose};

/// As many events of a task as Nomad keeps.
pub(crate) const EVENTS: usize = 10;
pub(crate) const TASKS: usize = 2;

/// A cluster, and what was written to it.
pub(crate) struct Cluster {
    pub(crate) nomad: Nomad,
    pub(crate) address: String,
    runtime: Runtime,
    /// The events of each allocation's tasks, oldest first.
    allocations: Vec<[VecDeque<Event>; TASKS]>,
    /// The time of the last event. Each has one of its own.
    time: u64,
}

#[derive(Clone, Copy)]
struct Event {
    time: u64,
    kind: &'static str,
}

impl Cluster {
    /// A cluster without anything.
    pub(crate) fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let nomad = Nomad::new(Version::V2_0);
        let door = runtime.block_on(serve::bind())?;
        let address = format!("http://{}", door.local_addr()?);
        runtime.spawn(serve::serve(nomad.router(), door, std::future::pending()));
        let time = 1_795_448_062_000_000_000;
        Ok(Self { nomad, address, runtime, allocations: Vec::new(), time })
    }

    /// Adds allocations with so many events of each task.
    pub(crate) fn fill(&mut self, allocations: usize, events: usize) {
        for _ in 0..allocations {
            let tasks = [(); TASKS].map(|()| (0..events).map(|i| self.event(i)).collect());
            self.allocations.push(tasks);
            let last = self.allocations.len() - 1;
            self.nomad.upsert(Table::Allocations, self.object(last));
        }
    }

    pub(crate) fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// How many task events there are.
    pub(crate) fn events(&self) -> usize {
        self.allocations.iter().flatten().map(VecDeque::len).sum()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Makes a task event of this allocation: its time, and the allocation as it is then.
    pub(crate) fn change(&mut self, allocation: usize) -> (u64, Map<String, Value>) {
        let event = self.event(EVENTS);
        let events = &mut self.allocations[allocation][0];
        events.push_back(event);
        if events.len() > EVENTS {
            events.pop_front();
        }
        (event.time, self.object(allocation))
    }

    /// Writes what was changed, at one index.
    pub(crate) fn write(&self, changed: Vec<Map<String, Value>>) {
        self.nomad.upsert_many(changed.into_iter().map(|it| (Table::Allocations, it)));
    }

    /// How many lists were asked for.
    pub(crate) fn lists(&self) -> usize {
        let requests = self.nomad.requests();
        let all = |query: &str| !query.contains("prefix=");
        requests.iter().filter(|it| it.path == "/v1/allocations" && all(&it.query)).count()
    }

    /// Waits until no list is asked for and the process does nothing.
    pub(crate) fn settle(&self, firehose: &mut Firehose) -> Result<()> {
        let still = Duration::from_secs(2);
        let (mut since, mut last) = (Instant::now(), (0, Duration::ZERO));
        while since.elapsed() < still {
            std::thread::sleep(Duration::from_millis(100));
            let now = (self.lists(), firehose.cpu.now()?);
            if now.0 != last.0 || now.1.saturating_sub(last.1) > Duration::from_millis(1) {
                since = Instant::now();
            }
            last = now;
        }
        Ok(())
    }

    fn event(&mut self, i: usize) -> Event {
        self.time += 1;
        let kind = ["Received", "Task Setup", "Started"].get(i).unwrap_or(&"Driver");
        Event { time: self.time, kind }
    }

    /// The allocation as a list shows it.
    fn object(&self, number: usize) -> Map<String, Value> {
        let states = self.allocations[number].iter().enumerate().map(|(task, events)| {
            let events: Vec<String> = events.iter().map(text).collect();
            format!(
                r#""task-{task}":{{"State":"running","Failed":false,"Restarts":0,"LastRestart":null,"StartedAt":"2026-11-23T15:34:22.719775267Z","FinishedAt":null,"Events":[{}],"Paused":""}}"#,
                events.join(",")
            )
        });
        let states: Vec<String> = states.collect();
        let text = format!(
            r#"{{"ID":"737d4f49-0bab-62de-dc2f-{number:012x}","EvalID":"1619bb0b-1c55-1e33-65b4-f8948b7d0af4","Name":"app.web[0]","Namespace":"default","NodeID":"a32c4b1f-3875-4a04-0782-24d813eb3335","NodeName":"vm","JobID":"app","JobType":"service","JobVersion":0,"TaskGroup":"web","AllocatedResources":null,"DesiredStatus":"run","DesiredDescription":"","ClientStatus":"running","ClientDescription":"Tasks are running","DesiredTransition":{{"Migrate":null,"Reschedule":null,"ForceReschedule":null,"NoShutdownDelay":null,"MigrateDisablePlacement":null}},"TaskStates":{{{}}},"DeploymentStatus":null,"FollowupEvalID":"","NextAllocation":"","RescheduleTracker":null,"PreemptedAllocations":null,"PreemptedByAllocation":"","CreateTime":1795448062424016312,"ModifyTime":1795448064209078243}}"#,
            states.join(",")
        );
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => fields,
            other => unreachable!("{other:?}"),
        }
    }
}

fn text(event: &Event) -> String {
    let Event { time, kind } = event;
    format!(
        r#"{{"Type":"{kind}","Time":{time},"Message":"","DisplayMessage":"Downloading image","Details":{{"image":"registry/app:1.{time}"}},"FailsTask":false,"RestartReason":"","SetupError":"","DriverError":"","ExitCode":0,"Signal":0,"KillTimeout":0,"KillError":"","KillReason":"","StartDelay":0,"DownloadError":"","ValidationError":"","DiskLimit":0,"FailedSibling":"","VaultError":"","TaskSignalReason":"","TaskSignal":"","DriverMessage":"Downloading image","GenericSource":""}}"#
    )
}

/// The time of the task event in a record.
pub(crate) fn time(record: &[u8]) -> Option<u64> {
    let (event, name) = (&b"\"TaskEvent\":"[..], &b"\"Time\":"[..]);
    let rest = &record[memchr::memmem::find(record, event)?..];
    let rest = &rest[memchr::memmem::find(rest, name)? + name.len()..];
    let digits = rest.iter().take_while(|it| it.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
