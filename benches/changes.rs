//! What one change costs, by the number of allocations: CPU time of the firehose, and time from
//! the change to its line, with the event stream and with lists. Also memory, and what is done
//! when nothing happens.
//!
//! The firehose is a process of its own, against a stand-in Nomad in this one.
//!
//! `cargo bench --bench changes`, with `-- 1000` for that number of allocations alone; Linux only,
//! since it reads `/proc`.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it prints, and measures")]

use std::{
    alloc::System,
    io::Write,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nomad_firehose::{
    api::connect,
    env::Env,
    run::{Config, lead},
    shutdown,
    streams::Allocations,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod common;

use common::{
    Result, Table, Times,
    cluster::{Cluster, EVENTS, TASKS},
    firehose::{Firehose, count},
    plot::Plot,
    proc, thousands,
};

/// Counts what the mode `--publish` takes.
#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many allocations there are.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Where there are more than the first, only as many as the second have all events that Nomad
/// keeps, and change; the others have one of each task. Otherwise the stand-in would take 8 GB.
const MOST_FULL: usize = 10_000;
const FULL_OF_MANY: usize = 1_000;
/// The size that targets are for.
const TARGET_SIZE: usize = SIZES[1];

const WARM_UP: usize = 20;
const CHANGES: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);
const POLLED_CHANGES: usize = 10;
const POLLED_PAUSE: Duration = Duration::from_secs(2);
/// Long enough for all changes to be between two lists.
const RESYNC: &str = "30s";
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(30);

const CPU_TARGET: Duration = Duration::from_millis(1);
const LATENCY_TARGET_MS: f64 = 20.0;
/// The cost with the most allocations, to that with the fewest.
const GROWTH_TARGET: f64 = 2.0;
const IDLE_TARGET_MIB: f64 = 16.0;

/// What a change cost.
struct Cost {
    size: usize,
    source: &'static str,
    changes: usize,
    /// Of one change.
    cpu: Duration,
    latency: Times,
    /// Of one list beside the stream.
    resync: Option<Duration>,
}

fn main() -> Result<()> {
    if std::env::args().any(|it| it == "--publish") {
        return publish();
    }
    let given: Vec<usize> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let sizes = if given.is_empty() { &SIZES[..] } else { &given };
    let mut costs = Vec::new();
    let mut stages = None;
    let mut memory = None;
    for &size in sizes {
        let mut cluster = Cluster::new()?;
        let full = if size > MOST_FULL { FULL_OF_MANY } else { size };
        cluster.fill(full, EVENTS);
        cluster.fill(size - full, 1);
        costs.push(with_events(&mut cluster, full)?);
        if size <= MOST_FULL {
            costs.push(with_lists(&mut cluster)?);
        }
        if size == TARGET_SIZE {
            memory = Some(allocated(&mut cluster)?);
            stages = Some(by_stage(&mut cluster)?);
        }
    }
    println!(
        "## One change\n\n\
         Allocations have {TASKS} tasks with {EVENTS} events; of {} allocations only {} do, the \
         others have one event of each task, so that a list of them is not ten times as long. \
         A change is one more task event, {} a second, each alone. \
         The time is from the write in the stand-in, with all that the stand-in does, to the line \
         on standard output. A resync is one list beside the stream, by default every 5 minutes.\n",
        thousands(SIZES[2]),
        thousands(FULL_OF_MANY),
        1_000 / PAUSE.as_millis()
    );
    println!("{}", table(&mut costs));
    if let Some((count, bytes)) = memory {
        println!(
            "With the event stream and {} allocations, a change takes {count:.0} allocations of \
             memory with {:.1} KiB in all.\n",
            thousands(TARGET_SIZE),
            bytes / 1024.0
        );
    }
    let idle = stages.map(|stages| show_stages(&stages));
    if !given.is_empty() {
        return Ok(());
    }
    plot(&costs)?;
    check(&mut costs, idle.unwrap_or_default())
}

/// With the event stream, and then one list beside it.
fn with_events(cluster: &mut Cluster, full: usize) -> Result<Cost> {
    let variables = [("NOMAD_FIREHOSE_SOURCE", "events"), ("NOMAD_FIREHOSE_RESYNC", RESYNC)];
    let mut firehose = Firehose::start(&cluster.address, &variables)?;
    firehose.lines(cluster.events())?;
    cluster.settle(&mut firehose)?;
    let lists = cluster.lists();
    let spread = |i: usize| i * 7 % full;
    change(cluster, &mut firehose, (0..WARM_UP).map(spread), PAUSE)?;
    let numbers = (WARM_UP..WARM_UP + CHANGES).map(spread);
    let (cpu, latency) = change(cluster, &mut firehose, numbers, PAUSE)?;
    if cluster.lists() != lists {
        return Err("a list was read between the changes".into());
    }
    let before = firehose.cpu.now()?;
    while cluster.lists() == lists {
        sleep(PAUSE);
    }
    cluster.settle(&mut firehose)?;
    let resync = Some(firehose.cpu.now()? - before);
    let counted = firehose.stop()?;
    for wrong in ["missed_in_stream", "missed_between_streams", "stream_errors"] {
        if count(&counted, wrong) > 0 {
            return Err(counted.into());
        }
    }
    let size = cluster.allocations();
    Ok(Cost { size, source: "events", changes: CHANGES, cpu, latency, resync })
}

/// With lists alone.
fn with_lists(cluster: &mut Cluster) -> Result<Cost> {
    let mut firehose = Firehose::start(&cluster.address, &[("NOMAD_FIREHOSE_SOURCE", "poll")])?;
    firehose.lines(cluster.events())?;
    cluster.settle(&mut firehose)?;
    let (cpu, latency) = change(cluster, &mut firehose, 0..POLLED_CHANGES, POLLED_PAUSE)?;
    let size = cluster.allocations();
    Ok(Cost { size, source: "poll", changes: POLLED_CHANGES, cpu, latency, resync: None })
}

/// Makes one change after the other: the CPU time of each, and how long it took to come through.
fn change(
    cluster: &mut Cluster,
    firehose: &mut Firehose,
    allocations: impl ExactSizeIterator<Item = usize>,
    pause: Duration,
) -> Result<(Duration, Times)> {
    let changes = u32::try_from(allocations.len())?;
    let mut latency = Times::default();
    let before = firehose.cpu.now()?;
    for allocation in allocations {
        let (time, object) = cluster.change(allocation);
        let since = Instant::now();
        cluster.write(vec![object]);
        let (read, found) = firehose.line()?;
        if found != time {
            return Err(format!("a record of {found}, and {time} was written").into());
        }
        latency.add(read - since);
        sleep(pause.saturating_sub(since.elapsed()).max(pause / 10));
        firehose.cpu.now()?;
    }
    Ok(((firehose.cpu.now()? - before) / changes, latency))
}

/// Publishes in this process, and says how much memory was taken so far whenever it is asked.
fn publish() -> Result<()> {
    connect::install_crypto();
    std::thread::spawn(|| {
        let mut asked = String::new();
        while std::io::stdin().read_line(&mut asked).is_ok_and(|bytes| bytes > 0) {
            let taken = MEMORY.stats();
            eprintln!(
                "taken {} {}",
                taken.allocations + taken.reallocations,
                taken.bytes_allocated
            );
        }
        std::process::exit(0);
    });
    let env = Env::process();
    let config = Config::from_env::<Allocations>(&env);
    let config = env.check(config).map_err(|problems| format!("{problems:?}"))?;
    let (_trigger, stop) = shutdown::channel();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(lead::<Allocations>(&config, &stop)).map_err(|err| err.to_string().into())
}

/// How many allocations of memory a change takes, and how many bytes.
fn allocated(cluster: &mut Cluster) -> Result<(f64, f64)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--publish");
    let variables = [("NOMAD_FIREHOSE_SOURCE", "events")];
    let mut firehose = Firehose::run(command, &cluster.address, &variables)?;
    firehose.lines(cluster.events())?;
    cluster.settle(&mut firehose)?;
    change(cluster, &mut firehose, 0..WARM_UP, PAUSE)?;
    let mut stdin = firehose.stdin.take().ok_or("no stdin")?;
    writeln!(stdin)?;
    change(cluster, &mut firehose, 0..CHANGES, PAUSE)?;
    writeln!(stdin)?;
    drop(stdin);
    let log = firehose.finished()?;
    let taken = log.lines().filter_map(|it| it.strip_prefix("taken "));
    let numbers: Vec<f64> = taken.flat_map(|it| it.split(' ')).flat_map(str::parse).collect();
    let [count, bytes, count_then, bytes_then] = numbers[..] else { return Err(log.into()) };
    let changes = CHANGES as f64;
    Ok(((count_then - count) / changes, (bytes_then - bytes) / changes))
}

/// A process at some point: what it was, its memory in MiB and the most that this was so far.
struct Stage(&'static str, f64, f64);

struct Stages {
    stages: Vec<Stage>,
    wake_ups: u64,
    cpu: Duration,
}

fn by_stage(cluster: &mut Cluster) -> Result<Stages> {
    let variables = [("NOMAD_FIREHOSE_SOURCE", "events")];
    let stage = |name, firehose: &Firehose| -> Result<Stage> {
        Ok(Stage(name, proc::mib(firehose.pid, "VmRSS:")?, proc::mib(firehose.pid, "VmHWM:")?))
    };
    let mut stages = Vec::new();
    let empty = Cluster::new()?;
    let firehose = Firehose::start(&empty.address, &variables)?;
    sleep(Duration::from_secs(3));
    stages.push(stage("started, with nothing in Nomad", &firehose)?);
    drop(firehose);
    let mut firehose = Firehose::start(&cluster.address, &variables)?;
    firehose.lines(cluster.events())?;
    cluster.settle(&mut firehose)?;
    stages.push(stage("after the first list", &firehose)?);
    change(cluster, &mut firehose, 0..1_000, PAUSE / 5)?;
    stages.push(stage("after 1,000 changes", &firehose)?);
    cluster.settle(&mut firehose)?;
    let (before, cpu) = (proc::wake_ups(firehose.pid)?, firehose.cpu.now()?);
    sleep(IDLE);
    stages.push(stage("30 s later", &firehose)?);
    let wake_ups = proc::between(&before, &proc::wake_ups(firehose.pid)?);
    Ok(Stages { stages, wake_ups, cpu: firehose.cpu.now()? - cpu })
}

/// Prints them; how much memory was resident at last.
fn show_stages(Stages { stages, wake_ups, cpu }: &Stages) -> f64 {
    let mut table = Table::new(["", "resident MiB", "peak MiB"]);
    for Stage(name, resident, peak) in stages {
        table.row([(*name).to_owned(), format!("{resident:.1}"), format!("{peak:.1}")]);
    }
    println!("## Memory\n\nWith the event stream and {} allocations.\n", thousands(TARGET_SIZE));
    println!("{table}");
    println!(
        "In {} s without a change it woke up {wake_ups} times and took {:.1} ms of CPU.\n",
        IDLE.as_secs(),
        cpu.as_secs_f64() * 1e3
    );
    stages.last().map_or(0.0, |it| it.1)
}

fn table(costs: &mut [Cost]) -> Table {
    let mut table = Table::new([
        "allocations",
        "source",
        "changes",
        "CPU ms each",
        "p50 ms",
        "p99 ms",
        "max ms",
        "resync CPU ms",
    ]);
    for cost in costs {
        table.row([
            thousands(cost.size),
            cost.source.to_owned(),
            cost.changes.to_string(),
            format!("{:.3}", cost.cpu.as_secs_f64() * 1e3),
            format!("{:.2}", cost.latency.within(0.5)),
            format!("{:.2}", cost.latency.within(0.99)),
            format!("{:.2}", cost.latency.within(1.0)),
            cost.resync.map_or(String::new(), |it| format!("{:.0}", it.as_secs_f64() * 1e3)),
        ]);
    }
    table
}

fn plot(costs: &[Cost]) -> Result<()> {
    let of = |source: &str, cost: fn(&Cost) -> Option<Duration>| -> Vec<(f64, f64)> {
        let costs = costs.iter().filter(|it| it.source == source);
        costs.filter_map(|it| Some((it.size as f64, cost(it)?.as_secs_f64() * 1e3))).collect()
    };
    let plot = Plot {
        title: "What one change costs",
        across: "allocations in the cluster",
        up: "CPU ms",
        lines: vec![
            ("event stream".to_owned(), of("events", |it| Some(it.cpu))),
            ("lists".to_owned(), of("poll", |it| Some(it.cpu))),
            ("one resync".to_owned(), of("events", |it| it.resync)),
        ],
    };
    plot.save("changes.svg")
}

/// Compares with the targets.
fn check(costs: &mut [Cost], idle: f64) -> Result<()> {
    let mut wrong = Vec::new();
    let of = |size| costs.iter().position(|it| it.size == size && it.source == "events");
    let [Some(fewest), Some(target), Some(most)] = SIZES.map(of) else {
        return Err("not all was measured".into());
    };
    if costs[target].cpu > CPU_TARGET {
        wrong.push(format!("a change takes {:?} of CPU", costs[target].cpu));
    }
    let latency = costs[target].latency.within(0.5);
    if latency > LATENCY_TARGET_MS {
        wrong.push(format!("a change takes {latency} ms to come through"));
    }
    let growth = costs[most].cpu.as_secs_f64() / costs[fewest].cpu.as_secs_f64();
    println!("CPU of a change, with the most allocations to the fewest: {growth:.2}");
    if growth > GROWTH_TARGET {
        wrong.push(format!("a change costs {growth:.2} times as much with more allocations"));
    }
    println!("Resident when idle: {idle:.1} MiB; the target is {IDLE_TARGET_MIB} MiB.");
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}
