//! Many changes: how long each takes to a receiver that confirms it, at several rates, and how
//! fast all task events of a cluster are published at a first start.
//!
//! The firehose is a process of its own; a stand-in Nomad and the receiver are in this one.
//!
//! `cargo bench --bench rates`; Linux only, since it reads `/proc`.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it prints, and measures")]

use std::{
    collections::HashMap,
    sync::mpsc::{Receiver, Sender, channel},
    thread::sleep,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use nomad_firehose::standin::serve;
use tokio::runtime::Runtime;

#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod common;

use common::{
    Result, Table, Times,
    cluster::{self, Cluster, EVENTS, TASKS},
    firehose::{Firehose, count},
    plot::Plot,
    proc::{self, Cpu},
    thousands,
};

const ALLOCATIONS: usize = 10_000;
/// Events of a task that has started and runs. It gets more here, up to ten.
const FEW_EVENTS: usize = 3;
const RATES: [usize; 4] = [10, 100, 1_000, 5_000];
/// Nomad's servers gather what clients report for so long into one commit.
const COMMIT: Duration = Duration::from_millis(50);
/// How many of them there are at each rate.
const COMMITS: usize = 200;
/// Nothing comes any more after so long.
const SILENCE: Duration = Duration::from_secs(5);

/// What the receiver got: when it answered, and the time of a task event.
type Got = Receiver<(Instant, u64)>;

/// A run at one rate.
struct Run {
    rate: usize,
    achieved: f64,
    latency: Times,
    cpu_percent: f64,
    /// Of this process.
    own_percent: f64,
    resident: f64,
    dropped: u64,
    lost: usize,
    repeated: usize,
}

fn main() -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.fill(ALLOCATIONS, FEW_EVENTS);
    let mut runs = Vec::new();
    for rate in RATES {
        runs.push(run(&mut cluster, rate)?);
    }
    println!(
        "## Many changes\n\n\
         {} allocations, of which each has {TASKS} tasks with {FEW_EVENTS} to {EVENTS} events. A \
         change is one more task event. Changes come every {} ms, as many at one index as make \
         the rate, for {} s. The time is from the write in the stand-in to the answer of the \
         receiver, which takes requests of NDJSON, one at a time. The stand-in and the receiver \
         share the machine with the firehose. Lost and repeated are task events; dropped is how \
         often the stream was cut.\n",
        thousands(ALLOCATIONS),
        COMMIT.as_millis(),
        COMMIT.as_secs() + (COMMIT * u32::try_from(COMMITS)?).as_secs()
    );
    println!("{}", table(&mut runs));
    plot(&mut runs)?;
    drop(cluster);
    first_start()?;
    let wrong = runs.iter().filter(|it| it.lost + it.repeated > 0).count();
    if wrong == 0 { Ok(()) } else { Err("events were lost or repeated".into()) }
}

fn run(cluster: &mut Cluster, rate: usize) -> Result<Run> {
    let (address, got) = receive(cluster.runtime())?;
    let mut firehose = Firehose::start(&cluster.address, &to(&address))?;
    for _ in 0..cluster.events() {
        got.recv_timeout(SILENCE * 4)?;
    }
    cluster.settle(&mut firehose)?;
    let mut sent = HashMap::new();
    let mut allocation = 0;
    let mut own = Cpu::of(std::process::id());
    let (since, cpu, own_before) = (Instant::now(), firehose.cpu.now()?, own.now()?);
    for commit in 0..COMMITS {
        let until = |commits: usize| rate * commits * COMMIT.as_millis() as usize / 1_000;
        let changes = (until(commit)..until(commit + 1)).map(|_| {
            allocation = (allocation + 1) % ALLOCATIONS;
            cluster.change(allocation)
        });
        let (times, objects): (Vec<u64>, Vec<_>) = changes.unzip();
        sleep((COMMIT * u32::try_from(commit)?).saturating_sub(since.elapsed()));
        let now = Instant::now();
        if !objects.is_empty() {
            cluster.write(objects);
        }
        sent.extend(times.into_iter().map(|it| (it, now)));
        if commit % 20 == 0 {
            firehose.cpu.now()?;
        }
    }
    let wall = since.elapsed();
    let percent = |cpu: Duration| cpu.as_secs_f64() / wall.as_secs_f64() * 100.0;
    let cpu_percent = percent(firehose.cpu.now()? - cpu);
    let own_percent = percent(own.now()? - own_before);
    let resident = proc::mib(firehose.pid, "VmRSS:")?;
    let (mut latency, mut repeated, total) = (Times::default(), 0, sent.len());
    while let Ok((at, time)) = got.recv_timeout(SILENCE) {
        match sent.remove(&time) {
            Some(since) => latency.add(at - since),
            None => repeated += 1,
        }
        if sent.is_empty() && latency.count() == total {
            // Whatever is repeated comes soon.
            sleep(Duration::from_secs(1));
            repeated += got.try_iter().count();
            break;
        }
    }
    let counted = firehose.stop()?;
    Ok(Run {
        rate,
        achieved: total as f64 / wall.as_secs_f64(),
        latency,
        cpu_percent,
        own_percent,
        resident,
        dropped: count(&counted, "subscriptions").saturating_sub(1),
        lost: sent.len(),
        repeated,
    })
}

/// All task events of a cluster, from the start of the process to the last of them.
fn first_start() -> Result<()> {
    let mut cluster = Cluster::new()?;
    cluster.fill(ALLOCATIONS, EVENTS);
    let events = cluster.events();
    let mut table =
        Table::new(["receiver", "wall s", "CPU s", "events/s", "CPU us/event", "peak MiB"]);
    let mut row = |name: &str, wall: Duration, cpu: Duration, peak: f64| {
        table.row([
            name.to_owned(),
            format!("{:.2}", wall.as_secs_f64()),
            format!("{:.2}", cpu.as_secs_f64()),
            thousands((events as f64 / wall.as_secs_f64()) as usize),
            format!("{:.1}", cpu.as_secs_f64() * 1e6 / events as f64),
            format!("{peak:.1}"),
        ]);
    };
    let since = Instant::now();
    let mut firehose = Firehose::start(&cluster.address, &[])?;
    let last = firehose.lines(events)?;
    row("stdout", last - since, firehose.cpu.now()?, proc::mib(firehose.pid, "VmHWM:")?);
    drop(firehose);
    let (address, got) = receive(cluster.runtime())?;
    let since = Instant::now();
    let mut firehose = Firehose::start(&cluster.address, &to(&address))?;
    let mut last = since;
    for _ in 0..events {
        last = got.recv_timeout(SILENCE * 4)?.0;
    }
    row("http, NDJSON", last - since, firehose.cpu.now()?, proc::mib(firehose.pid, "VmHWM:")?);
    println!(
        "## A first start\n\n\
         {} allocations x {TASKS} tasks x {EVENTS} events, from the start of the process to the \
         last of {} task events.\n",
        thousands(ALLOCATIONS),
        thousands(events)
    );
    println!("{table}");
    Ok(())
}

fn to(receiver: &str) -> [(&str, &str); 4] {
    [
        ("NOMAD_FIREHOSE_SOURCE", "events"),
        ("SINK_TYPE", "http"),
        ("SINK_HTTP_ADDRESS", receiver),
        ("SINK_HTTP_BATCH", "ndjson"),
    ]
}

/// A receiver that takes everything: its address, and what it gets.
fn receive(runtime: &Runtime) -> Result<(String, Got)> {
    let (sender, got) = channel();
    let door = runtime.block_on(serve::bind())?;
    let address = format!("http://{}", door.local_addr()?);
    let router = Router::new()
        .fallback(post(take))
        .with_state(sender)
        .layer(DefaultBodyLimit::max(16 << 20));
    runtime.spawn(serve::serve(router, door, std::future::pending()));
    Ok((address, got))
}

async fn take(State(sender): State<Sender<(Instant, u64)>>, body: Bytes) {
    let now = Instant::now();
    for line in body.split(|it| *it == b'\n').filter(|it| !it.is_empty()) {
        // Nobody listens at the end.
        let _ = sender.send((now, cluster::time(line).unwrap_or_default()));
    }
}

fn table(runs: &mut [Run]) -> Table {
    let mut table = Table::new([
        "changes/s",
        "achieved",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU %",
        "stand-in CPU %",
        "resident MiB",
        "dropped",
        "lost",
        "repeated",
    ]);
    for run in runs {
        table.row([
            thousands(run.rate),
            format!("{:.0}", run.achieved),
            format!("{:.1}", run.latency.within(0.5)),
            format!("{:.1}", run.latency.within(0.99)),
            format!("{:.1}", run.latency.within(1.0)),
            format!("{:.1}", run.cpu_percent),
            format!("{:.1}", run.own_percent),
            format!("{:.1}", run.resident),
            run.dropped.to_string(),
            run.lost.to_string(),
            run.repeated.to_string(),
        ]);
    }
    table
}

fn plot(runs: &mut [Run]) -> Result<()> {
    let mut line = |part: f64| -> Vec<(f64, f64)> {
        runs.iter_mut().map(|it| (it.achieved, it.latency.within(part))).collect()
    };
    let plot = Plot {
        title: "From a change to its confirmation",
        across: "changes per second",
        up: "ms",
        lines: vec![("p50".to_owned(), line(0.5)), ("p99".to_owned(), line(0.99))],
    };
    plot.save("rates.svg")
}
