//! A large list of allocations, published: memory, time and CPU, as ratios to a scan that only
//! splits the list. Each runs in processes of its own against a stand-in Nomad in this one, in
//! turns, so that the ratios mean something on a noisy machine; shown are medians.
//!
//! The list is as varied as a real one, and as compressible; the cost of receiving and inflating
//! it is in every row of the first table. The second table has neither: it says what the steps
//! after that take, on one thread of this process.
//!
//! `cargo bench --bench list`; Linux only, since it reads `/proc`.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it prints, and measures")]

use std::{
    error::Error,
    fs,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::RawQuery,
    http::{HeaderMap, Request, header},
    routing::get,
};
use bytes::Bytes;
use futures::StreamExt;
use nomad_firehose::{
    api::{Nomad, Query, connect},
    cursor::{Cursor, Index, Kind, Move},
    dedupe::Seen,
    env::Env,
    standin::{nomad, serve},
    streams::{Allocations, Mode, Resource},
    watch::split::{Element, Splitter},
};
use tower::ServiceExt;

#[path = "list/allocations.rs"]
mod allocations;
#[allow(dead_code, reason = "other benchmarks need the rest")]
#[path = "common/proc.rs"]
mod proc;

const ALLOCATIONS: usize = 10_000;
const TASKS: usize = 2;
const EVENTS: usize = 10;
/// The index of the list.
const INDEX: u64 = 2_000_000;
/// Of each measurement; the median counts.
const ROUNDS: usize = 5;
/// The most CPU and wall time, in those of a scan.
const TIME_TARGET: f64 = 3.0;
/// The peak that the list may cost, whatever its length.
const MEMORY_TARGET_KIB: u64 = 32 << 10;
/// As much as arrives at a time.
const CHUNK_BYTES: usize = 32 << 10;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a process cost.
#[derive(Clone, Copy)]
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
    let list = allocations::list(ALLOCATIONS, TASKS, EVENTS);
    let bytes = list.len();
    let standin = nomad::Nomad::new(nomad::Version::V2_0);
    let elements = list.slice(1..bytes - 1);
    standin.serve_generated(nomad::Table::Allocations, INDEX, move || {
        std::iter::once(elements.clone())
    });
    // Compressed once, and not while others are measured.
    let packed = packed(standin.router()).await?;
    println!(
        "{ALLOCATIONS} allocations x {TASKS} tasks x {EVENTS} events: {} MB, with gzip {:.1} MB",
        bytes / 1_000_000,
        packed.1.len() as f64 / 1e6,
    );
    let door = serve::bind().await?;
    let address = format!("http://{}", door.local_addr()?);
    let measured = tokio::task::spawn_blocking(move || {
        let lines = decode_all(&list)?;
        drop(list);
        measure(&address, bytes, lines)
    });
    let list = get(move |query| answer(query, packed.clone()));
    let router = Router::new().route("/v1/allocations", list).fallback_service(standin.router());
    tokio::select! {
        measured = measured => measured?,
        served = serve::serve(router, door, std::future::pending()) => {
            served?;
            Err("the stand-in stopped".into())
        }
    }
}

/// The stand-in's answer to whoever takes gzip.
async fn packed(router: Router) -> Result<(HeaderMap, Bytes)> {
    let request = Request::get("/v1/allocations?namespace=*").header("accept-encoding", "gzip");
    let (mut head, body) = router.oneshot(request.body(Body::empty())?).await?.into_parts();
    head.headers.remove(header::TRANSFER_ENCODING);
    Ok((head.headers, to_bytes(body, usize::MAX).await?))
}

/// The list; whoever waits for the next one waits for ever.
async fn answer(RawQuery(query): RawQuery, packed: (HeaderMap, Bytes)) -> (HeaderMap, Bytes) {
    if query.is_some_and(|it| it.contains(&format!("index={INDEX}"))) {
        std::future::pending::<()>().await;
    }
    packed
}

/// Runs each in a process of its own, again and again, and prints what they cost.
fn measure(address: &str, bytes: usize, lines: u64) -> Result<()> {
    let mut costs = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        costs[0].push(child("--download", address)?);
        costs[1].push(child("--scan", address)?);
        costs[2].push(firehose(address, lines, Stdio::null())?);
        costs[3].push(firehose(address, lines, piped()?)?);
    }
    let [download, scan, firehose, pipe] = costs.map(|it| median(&it));
    println!(
        "\n{:<30}{:>9}{:>9}{:>9}{:>10}{:>10}{:>10}",
        "received and inflated, then", "wall s", "CPU s", "MB/s", "peak MiB", "x wall", "x CPU"
    );
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    for (name, cost) in [
        ("dropped", download),
        ("split", scan),
        ("published to /dev/null", firehose),
        ("published to a pipe", pipe),
    ] {
        println!(
            "{name:<30}{:>9.3}{:>9.3}{:>9.0}{:>10.1}{:>10.2}{:>10.2}",
            cost.wall.as_secs_f64(),
            cost.cpu.as_secs_f64(),
            bytes as f64 / 1e6 / cost.wall.as_secs_f64(),
            cost.peak_kib as f64 / 1024.0,
            ratio(cost.wall, scan.wall),
            ratio(cost.cpu, scan.cpu),
        );
    }
    let time = ratio(firehose.wall, scan.wall).max(ratio(firehose.cpu, scan.cpu));
    println!("targets: {TIME_TARGET} x, {} MiB", MEMORY_TARGET_KIB >> 10);
    if time > TIME_TARGET {
        println!("MISSED: {time:.2} x");
    }
    match firehose.peak_kib.max(pipe.peak_kib) {
        peak if peak > MEMORY_TARGET_KIB => Err("too much memory".into()),
        _ => Ok(()),
    }
}

/// The median of each number.
fn median(costs: &[Cost]) -> Cost {
    fn middle<T: Ord + Copy>(costs: &[Cost], of: impl Fn(&Cost) -> T) -> T {
        let mut all: Vec<T> = costs.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    }
    Cost {
        wall: middle(costs, |it| it.wall),
        cpu: middle(costs, |it| it.cpu),
        peak_kib: middle(costs, |it| it.peak_kib),
    }
}

/// Runs this program in another mode, which reports its own cost.
fn child(mode: &str, address: &str) -> Result<Cost> {
    let since = Instant::now();
    let output = Command::new(std::env::current_exe()?).args([mode, address]).output()?;
    let wall = since.elapsed();
    let text = String::from_utf8(output.stdout)?;
    match text.split_once(' ') {
        Some((cpu, peak)) => Ok(Cost {
            wall,
            cpu: Duration::from_nanos(cpu.parse()?),
            peak_kib: peak.trim().parse()?,
        }),
        None => Err(format!("{mode}: {text} {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// A pipe whose reader throws away what arrives.
fn piped() -> Result<Stdio> {
    let (mut reader, writer) = std::io::pipe()?;
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    Ok(writer.into())
}

/// Runs the binary until it has written so many bytes.
fn firehose(address: &str, bytes: u64, stdout: Stdio) -> Result<Cost> {
    let since = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_firehose-allocations"))
        .env_clear()
        .env("NOMAD_ADDR", address)
        .env("NOMAD_FIREHOSE_LEADER", "solo")
        .env("SINK_TYPE", "stdout")
        .env("LOG_LEVEL", "warn")
        .stdout(stdout)
        .spawn()?;
    let cost = until_written(&mut process, bytes, since);
    process.kill()?;
    process.wait()?;
    cost
}

fn until_written(process: &mut Child, bytes: u64, since: Instant) -> Result<Cost> {
    let pid = process.id().to_string();
    while written(&pid)? < bytes {
        if let Some(status) = process.try_wait()? {
            return Err(format!("it ended early: {status}").into());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(Cost { wall: since.elapsed(), cpu: cpu(&pid)?, peak_kib: peak_kib(&pid)? })
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
    println!("{} {}", cpu("self")?.as_nanos(), peak_kib("self")?);
    Ok(())
}

/// Prints what the steps of decoding take; how many bytes all records have as lines.
fn decode_all(list: &[u8]) -> Result<u64> {
    println!("\n{:<30}{:>9}{:>9}{:>10}", "from memory, on one thread", "s", "MB/s", "x");
    let usual = Seen::new(&Cursor::new(Kind::TaskEvents));
    let mut above = Seen::new(&Cursor::new(Kind::TaskEvents));
    above.go(&Move::Reach(Index(INDEX)));
    let mut base = None;
    let mut row = |name: &str, step: &dyn Fn(&[u8]) -> Result<u64>| -> Result<u64> {
        let mut times = Vec::new();
        let mut lines = 0;
        for _ in 0..ROUNDS {
            let since = Instant::now();
            lines = decode(list, step)?;
            times.push(since.elapsed().as_secs_f64());
        }
        times.sort_unstable_by(f64::total_cmp);
        let time = times[ROUNDS / 2];
        let base = *base.get_or_insert(time);
        let rate = list.len() as f64 / 1e6 / time;
        println!("{name:<30}{time:>9.3}{rate:>9.0}{:>10.2}", time / base);
        Ok(lines)
    };
    let source: Arc<str> = "/nomad/global".into();
    row("split", &|_| Ok(0))?;
    row("split, found to be old", &|element| {
        Ok(Allocations::changes(element, &above, Mode::Usual)?.changes.len() as u64)
    })?;
    row("split, changes", &|element| {
        Ok(Allocations::changes(element, &usual, Mode::Usual)?.changes.len() as u64)
    })?;
    row("split, records", &|element| {
        let mut lines = 0;
        for mut change in Allocations::changes(element, &usual, Mode::Usual)?.changes {
            let body = change.body.take().ok_or("no body")?;
            lines += change.into_record::<Allocations>(body, &source)?.body.len() as u64 + 1;
        }
        Ok(lines)
    })
}

/// Splits the list and does something with each element.
fn decode(list: &[u8], step: &dyn Fn(&[u8]) -> Result<u64>) -> Result<u64> {
    let mut splitter = Splitter::default();
    let mut sum = 0;
    for mut chunk in list.chunks(CHUNK_BYTES) {
        while let Some(element) = splitter.next_element(&mut chunk)? {
            match element {
                Element::Whole(element) => sum += step(element)?,
                Element::TooLarge(_) => return Err("an element is too large".into()),
            }
        }
    }
    Ok(sum)
}

/// The CPU time of all threads of a process so far.
fn cpu(pid: &str) -> Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += stat.split(' ').next().ok_or("unexpected schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// How many bytes a process has written.
fn written(pid: &str) -> Result<u64> {
    proc::number(&format!("/proc/{pid}/io"), "wchar:")
}

/// The most memory that a process has had resident.
fn peak_kib(pid: &str) -> Result<u64> {
    proc::number(&format!("/proc/{pid}/status"), "VmHWM:")
}
