//! A large list of allocations, published: memory, time and CPU, as ratios to a plain download and
//! to a scan that only splits the list. Everything runs in processes of its own against a stand-in
//! Nomad in this one, in one run, so that the ratios mean something on a noisy machine.
//!
//! `cargo bench --bench list`; Linux only, since it reads `/proc`.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it prints, and measures")]

use std::{
    error::Error,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use nomad_firehose::{
    api::{Nomad, Query, connect},
    env::Env,
    standin::{nomad, serve},
    streams::{Allocations, Resource},
    watch::split::Splitter,
};

const ALLOCATIONS: usize = 10_000;
const TASKS: usize = 2;
const EVENTS: usize = 10;
/// The peak that the list may cost, whatever its length.
const MEMORY_TARGET_KIB: u64 = 32 << 10;
/// Linux counts the CPU time of a process in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a process cost.
struct Cost {
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--download", address] => read(address, false),
        ["--scan", address] => read(address, true),
        _ => compare(),
    }
}

#[tokio::main]
async fn compare() -> Result<()> {
    let standin = nomad::Nomad::new(nomad::Version::V2_0);
    let element = element();
    let bytes = ALLOCATIONS * element.len();
    standin.serve_generated(nomad::Table::Allocations, 2_000_000, move || {
        let element = element.clone();
        (0..ALLOCATIONS).map(move |i| {
            let (id, index) = (format!("{i:012x}"), format!("{}", 1_000_001 + i));
            Bytes::from(element.replace("@@@@@@@@@@@@", &id).replace("1234567", &index))
        })
    });
    let door = serve::bind().await?;
    let address = format!("http://{}", door.local_addr()?);
    let work = tokio::task::spawn_blocking(move || measure(&address));
    let (download, scan, firehose) = tokio::select! {
        costs = work => costs?.map_err(|err| -> Box<dyn Error> { err.into() })?,
        served = serve::serve(standin.router(), door, std::future::pending()) => {
            served?;
            return Err("the stand-in stopped".into());
        }
    };
    println!(
        "{ALLOCATIONS} allocations x {TASKS} tasks x {EVENTS} events: {} MB, {} records; gzip on the wire",
        bytes / 1_000_000,
        ALLOCATIONS * TASKS * EVENTS
    );
    println!(
        "{:<22}{:>10}{:>10}{:>12}{:>12}{:>12}",
        "", "wall s", "CPU s", "MB/s", "peak MiB", "CPU ratio"
    );
    for (name, cost) in [
        ("plain download", &download),
        ("splitter only", &scan),
        ("firehose-allocations", &firehose),
    ] {
        println!(
            "{name:<22}{:>10.2}{:>10.2}{:>12.0}{:>12.1}{:>12.2}",
            cost.wall.as_secs_f64(),
            cost.cpu.as_secs_f64(),
            bytes as f64 / 1e6 / cost.wall.as_secs_f64(),
            cost.peak_kib as f64 / 1024.0,
            cost.cpu.as_secs_f64() / scan.cpu.as_secs_f64(),
        );
    }
    println!(
        "CPU to a plain download: {:.2}",
        firehose.cpu.as_secs_f64() / download.cpu.as_secs_f64()
    );
    if firehose.peak_kib > MEMORY_TARGET_KIB {
        return Err(format!("peak memory is over {} MiB", MEMORY_TARGET_KIB >> 10).into());
    }
    Ok(())
}

fn measure(address: &str) -> std::result::Result<(Cost, Cost, Cost), String> {
    let all = || -> Result<_> {
        Ok((child("--download", address)?, child("--scan", address)?, firehose(address)?))
    };
    all().map_err(|err| err.to_string())
}

/// Runs this program in another mode, which reports its own cost.
fn child(mode: &str, address: &str) -> Result<Cost> {
    let since = Instant::now();
    let output = Command::new(std::env::current_exe()?).args([mode, address]).output()?;
    let wall = since.elapsed();
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> =
        text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
    match numbers.as_slice() {
        [ticks, peak_kib] => {
            Ok(Cost { wall, cpu: TICK * u32::try_from(*ticks)?, peak_kib: *peak_kib })
        }
        _ => Err(format!("{mode}: {text} {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Runs the binary until the last record is out.
fn firehose(address: &str) -> Result<Cost> {
    let since = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_firehose-allocations"))
        .env_clear()
        .env("NOMAD_ADDR", address)
        .env("NOMAD_FIREHOSE_LEADER", "solo")
        .env("SINK_TYPE", "stdout")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::with_capacity(1 << 20, process.stdout.take().ok_or("no stdout")?);
    let mut buffer = Vec::new();
    let wanted = ALLOCATIONS * TASKS * EVENTS;
    for line in 0..wanted {
        buffer.clear();
        if lines.read_until(b'\n', &mut buffer)? == 0 {
            return Err(format!("ended after {line} of {wanted} records").into());
        }
    }
    let wall = since.elapsed();
    let pid = process.id().to_string();
    let cost = Cost { wall, cpu: TICK * u32::try_from(ticks(&pid)?)?, peak_kib: peak_kib(&pid)? };
    process.kill()?;
    process.wait()?;
    Ok(cost)
}

/// Downloads the list as the firehose does, and at most splits it.
#[tokio::main]
async fn read(address: &str, split: bool) -> Result<()> {
    connect::install_crypto();
    let env = Env::from([("NOMAD_ADDR", address)]);
    let endpoint = connect::nomad(&env);
    let endpoint = env.check(endpoint).map_err(|problems| format!("{problems:?}"))?;
    let nomad = Nomad::new(endpoint, None);
    let (wait, namespace) = (Duration::ZERO, "*".to_owned());
    let query = Query { past: None, wait, stale: true, namespace, prefix: None };
    let mut body = Allocations::list(&nomad, &query).await?.body;
    let mut splitter = Splitter::default();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        let mut rest = &chunk[..];
        while split && splitter.next_element(&mut rest)?.is_some() {}
    }
    println!("{} {}", ticks("self")?, peak_kib("self")?);
    Ok(())
}

/// User and system time of a process so far.
fn ticks(pid: &str) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').ok_or("unexpected stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |at: usize| -> Result<u64> { Ok(fields.get(at).ok_or("short stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

/// The most memory that a process has had resident.
fn peak_kib(pid: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// An allocation as a list shows it, with places for its id and index.
fn element() -> String {
    let event = |task: usize, i: usize| {
        let time = 1_795_448_062_000_000_000_u64 + (task * EVENTS + i) as u64;
        let kind = if i == 0 { "Received" } else { "Driver" };
        format!(
            r#"{{"Type":"{kind}","Time":{time},"Message":"","DisplayMessage":"Downloading image","Details":{{"image":"registry/app:1.{i}"}},"FailsTask":false,"RestartReason":"","SetupError":"","DriverError":"","ExitCode":0,"Signal":0,"KillTimeout":0,"KillError":"","KillReason":"","StartDelay":0,"DownloadError":"","ValidationError":"","DiskLimit":0,"FailedSibling":"","VaultError":"","TaskSignalReason":"","TaskSignal":"","DriverMessage":"Downloading image","GenericSource":""}}"#
        )
    };
    let state = |task: usize| {
        let events: Vec<String> = (0..EVENTS).map(|i| event(task, i)).collect();
        format!(
            r#""task-{task}":{{"State":"running","Failed":false,"Restarts":0,"LastRestart":null,"StartedAt":"2026-11-23T15:34:22.719775267Z","FinishedAt":null,"Events":[{}],"Paused":""}}"#,
            events.join(",")
        )
    };
    let states: Vec<String> = (0..TASKS).map(state).collect();
    format!(
        r#"{{"ID":"737d4f49-0bab-62de-dc2f-@@@@@@@@@@@@","EvalID":"1619bb0b-1c55-1e33-65b4-f8948b7d0af4","Name":"app.web[0]","Namespace":"default","NodeID":"a32c4b1f-3875-4a04-0782-24d813eb3335","NodeName":"vm","JobID":"app","JobType":"service","JobVersion":0,"TaskGroup":"web","AllocatedResources":null,"DesiredStatus":"run","DesiredDescription":"","ClientStatus":"running","ClientDescription":"Tasks are running","DesiredTransition":{{"Migrate":null,"Reschedule":null,"ForceReschedule":null,"NoShutdownDelay":null,"MigrateDisablePlacement":null}},"TaskStates":{{{}}},"DeploymentStatus":null,"FollowupEvalID":"","NextAllocation":"","RescheduleTracker":null,"PreemptedAllocations":null,"PreemptedByAllocation":"","CreateIndex":13,"ModifyIndex":1234567,"CreateTime":1795448062424016312,"ModifyTime":1795448064209078243}}"#,
        states.join(",")
    )
}
