//! Positions of many tasks: what they cost in memory, and how long it takes to move, load and save
//! them. Each number of them is held by a process of its own, which loads them from files that this
//! one wrote; and the binary publishes as many allocations, and takes up again where it left off.
//!
//! `cargo bench --bench positions`; Linux only, since it reads `/proc`.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it prints, and measures")]

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nomad_firehose::{
    api::{self, connect},
    cursor::{
        Cursor, Encoded, Index, Kind, Loading, Mark, Move, Saved, Tail, Task, allocation, now,
    },
    dedupe::{Seal, Seen},
    leader, shutdown,
    standin::{consul, nomad, serve},
};

#[allow(dead_code, reason = "other benchmarks need the rest")]
#[path = "common/proc.rs"]
mod proc;

/// How many tails are held. The targets are for the second.
const COUNTS: [u64; 3] = [10_000, 200_000, 1_000_000];
const TARGET_COUNT: u64 = COUNTS[1];
const MEMORY_TARGET_KIB: u64 = 32 << 10;
const SAVE_TARGET: Duration = Duration::from_millis(100);
/// So many of each operation are timed.
const TIMED: u64 = 10_000;
const FLOOR: Index = Index(1_000_000);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const COLUMNS: [&str; 11] = [
    "RSS MiB",
    "peak MiB",
    "load ms",
    "mark ns",
    "look up ns",
    "apply ns",
    "encode 1",
    "save 1",
    "encode all",
    "save all",
    "shards",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--hold", count, dir] => hold(count.parse()?, Path::new(dir)),
        _ => compare(),
    }
}

fn compare() -> Result<()> {
    println!("encode and save in ms; 1: one shard has changed; save: to a stand-in Consul\n");
    print!("{:>10}", "tails");
    COLUMNS.iter().for_each(|it| print!("{it:>11}"));
    println!();
    let mut wrong = Vec::new();
    for count in COUNTS {
        let dir = tempfile::tempdir()?;
        write(count, dir.path())?;
        let output = Command::new(std::env::current_exe()?)
            .args(["--hold", &count.to_string()])
            .arg(dir.path())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
        if numbers.len() != COLUMNS.len() {
            return Err(format!("{text} {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        print!("{count:>10}");
        numbers.iter().for_each(|it| print!("{it:>11.1}"));
        println!();
        if count == TARGET_COUNT {
            wrong.extend(check("a process with its tails", numbers[1]));
        }
        if numbers[6] + numbers[7] > SAVE_TARGET.as_secs_f64() * 1e3 {
            wrong.push(format!("with {count} tails one shard takes too long to save"));
        }
    }
    let [first, second] = firehose()?;
    println!("\nfirehose-allocations, {TARGET_COUNT} allocations with a task each: peak MiB");
    for (name, peak) in [("published", first), ("taken up again", second)] {
        println!("{name:>20}{peak:>11.1}");
    }
    wrong.extend(check("firehose-allocations", second));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

fn check(what: &str, peak: f64) -> Option<String> {
    let target = MEMORY_TARGET_KIB >> 10;
    (peak > target as f64).then(|| format!("{what} took {peak:.1} MiB, and {target} is the target"))
}

/// An id like those that Nomad makes.
fn uuid(number: u64) -> String {
    let [high, low] = [1_u64, 2].map(|it| {
        let mixed = (number ^ (it << 60)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    });
    let text = format!("{high:016x}{low:016x}");
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

fn task(number: u64) -> Task {
    Task::new(&uuid(number), "web")
}

fn tail(number: u64) -> Tail {
    let time = i64::try_from(number).unwrap_or_default();
    Tail { index: Index(number.min(FLOOR.0)), time, kind: 1, hash: number, terminal: false }
}

/// Writes a checkpoint.
fn write(count: u64, dir: &Path) -> Result<()> {
    let mut cursor = Cursor::new(Kind::TaskEvents);
    for number in 0..count {
        cursor.apply(Mark::Task(task(number), tail(number)));
    }
    cursor.reach(FLOOR);
    let Encoded { shards, head, .. } = cursor.encode(now());
    for number in shards {
        fs::write(dir.join(number.to_string()), cursor.shard(number))?;
    }
    Ok(fs::write(dir.join("head"), head)?)
}

/// Loads a checkpoint as a leader does.
fn load(dir: &Path) -> Result<Cursor> {
    let mut loading = Loading::new(Some(&fs::read(dir.join("head"))?));
    for number in 0..loading.shards() {
        loading.add(number, Some(&fs::read(dir.join(number.to_string()))?));
    }
    match loading.finish(None) {
        (Saved::Ours(cursor), 0) => Ok(*cursor),
        other => Err(format!("{other:?}").into()),
    }
}

/// Holds so many tails, and says what that costs.
fn hold(count: u64, dir: &Path) -> Result<()> {
    let since = Instant::now();
    let mut cursor = load(dir)?;
    let load = since.elapsed();
    let mut seen = Seen::new(&cursor);
    // A list that shows nothing new, and forgets nothing.
    let since = Instant::now();
    seen.begin_allocations();
    for number in 0..count {
        seen.list_allocation(allocation(&uuid(number)));
    }
    let list = Index(FLOOR.0 + 1);
    let then = Move::ReachListed { floor: list, list, listed: seen.listed_allocations() };
    seen.go(&then);
    cursor.go(&then);
    let mark = each(since.elapsed(), count);
    if cursor.tails() as u64 != count {
        return Err("tails were forgotten".into());
    }
    let (resident, peak) = (kib("VmRSS:", "self")?, kib("VmHWM:", "self")?);

    let step = count / TIMED.min(count);
    let numbers = (0..TIMED.min(count)).map(|it| it * step);
    let tasks: Vec<Task> = numbers.clone().map(task).collect();
    let seal = |Tail { time, kind, hash, .. }| Seal { time, kind, hash };
    let seals: Vec<Seal> = numbers.map(|it| seal(tail(it))).collect();
    let since = Instant::now();
    let found = |task: &Task, seal: Seal| seen.events(*task, FLOOR, &[seal]).from == 1;
    let found = tasks.iter().zip(&seals).filter(|(task, seal)| found(task, **seal)).count();
    let look_up = each(since.elapsed(), TIMED);
    if found != tasks.len() {
        return Err("tails were not found".into());
    }
    let newer = Tail { index: Index(FLOOR.0 + 2), ..tail(1) };
    let since = Instant::now();
    tasks.iter().for_each(|it| cursor.apply(Mark::Task(*it, newer)));
    let apply = each(since.elapsed(), TIMED);
    let shards = cursor.encode(now()).shards.len();

    cursor.saved();
    let [(encode_one, save_one), (encode_all, save_all)] = save(&mut cursor, tasks[0])?;
    for number in [resident as f64 / 1024.0, peak as f64 / 1024.0, load.as_secs_f64() * 1e3] {
        print!("{number} ");
    }
    println!("{mark} {look_up} {apply} {encode_one} {save_one} {encode_all} {save_all} {shards}");
    Ok(())
}

fn each(all: Duration, count: u64) -> f64 {
    all.as_nanos() as f64 / count as f64
}

/// Milliseconds to encode and to save, with one shard that changed, and with all.
#[tokio::main]
async fn save(cursor: &mut Cursor, one: Task) -> Result<[(f64, f64); 2]> {
    connect::install_crypto();
    let client = reqwest::Client::builder().tls_certs_only([]).build()?;
    let standin = consul::Consul::new();
    let consul = api::Consul::stand_in(standin.router(), client);
    let (ttl, delay) = (Duration::from_secs(3_600), Duration::ZERO);
    let leader = leader::consul(consul, "bench", "allocations", ttl, delay);
    let (_trigger, stop) = shutdown::channel();
    let term = leader.elect(&stop).await?.ok_or("not elected")?;
    term.load().await?;
    let mut costs = Vec::new();
    for all in [false, true] {
        if all {
            cursor.go(&Move::Lower(Index(FLOOR.0 + 3)));
        } else {
            cursor.apply(Mark::Task(one, tail(1)));
        }
        let since = Instant::now();
        let shards = cursor.encode(now()).shards;
        let bytes: usize = shards.iter().map(|it| cursor.shard(*it).len()).sum();
        let encode = since.elapsed().as_secs_f64() * 1e3;
        if bytes == 0 || (!all && shards.len() != 1) {
            return Err(format!("{} shards of {bytes} bytes", shards.len()).into());
        }
        let since = Instant::now();
        term.save(cursor).await?;
        costs.push((encode, since.elapsed().as_secs_f64() * 1e3));
    }
    term.resign().await;
    Ok([costs[0], costs[1]])
}

/// Publishes as many allocations, and then takes up where that ended: the peak of each, in MiB.
#[tokio::main]
async fn firehose() -> Result<[f64; 2]> {
    let standin = nomad::Nomad::new(nomad::Version::V2_0);
    standin.serve_generated(nomad::Table::Allocations, FLOOR.0, || {
        (0..TARGET_COUNT).map(|it| Bytes::from(element(it)))
    });
    let door = serve::bind().await?;
    let address = format!("http://{}", door.local_addr()?);
    let work = tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().map_err(|err| err.to_string())?;
        let run = |wanted| run(&address, dir.path(), wanted).map_err(|err| err.to_string());
        Ok::<_, String>([run(TARGET_COUNT)?, run(0)?])
    });
    tokio::select! {
        peaks = work => Ok(peaks??),
        served = serve::serve(standin.router(), door, std::future::pending()) => {
            served?;
            Err("the stand-in stopped".into())
        }
    }
}

/// Runs the binary until it has published so much, has read all of the list, and has saved.
fn run(address: &str, dir: &Path, wanted: u64) -> Result<f64> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_firehose-allocations"))
        .env_clear()
        .env("NOMAD_ADDR", address)
        .env("NOMAD_FIREHOSE_LEADER", "solo")
        .env("NOMAD_FIREHOSE_STATE_DIR", dir)
        .env("NOMAD_FIREHOSE_CHECKPOINT", "1s")
        .env("SINK_TYPE", "stdout")
        .stdout(Stdio::piped())
        .spawn()?;
    let peak = follow(&mut process, dir, wanted);
    process.kill()?;
    process.wait()?;
    peak
}

fn follow(process: &mut Child, dir: &Path, wanted: u64) -> Result<f64> {
    let mut lines = BufReader::with_capacity(1 << 20, process.stdout.take().ok_or("no stdout")?);
    let mut buffer = Vec::new();
    for line in 0..wanted {
        buffer.clear();
        if lines.read_until(b'\n', &mut buffer)? == 0 {
            return Err(format!("ended after {line} of {wanted} records").into());
        }
    }
    // The list is read again and again, since the stand-in does not hold a query for it.
    sleep(Duration::from_secs(10));
    let head = fs::read_to_string(dir.join("allocations.cursor"))?;
    if !head.contains(&format!("\"floor\":{FLOOR}")) {
        return Err(format!("the checkpoint is {head}").into());
    }
    Ok(kib("VmHWM:", &process.id().to_string())? as f64 / 1024.0)
}

/// An allocation as short as it can be.
fn element(number: u64) -> String {
    format!(
        r#"{{"ID":"{}","Name":"app.web[0]","Namespace":"default","NodeID":"a32c4b1f-3875-4a04-0782-24d813eb3335","JobID":"app","TaskGroup":"web","EvalID":"1619bb0b-1c55-1e33-65b4-f8948b7d0af4","DesiredStatus":"run","ClientStatus":"running","TaskStates":{{"web":{{"State":"running","Failed":false,"Events":[{{"Type":"Received","Time":{}}}]}}}},"ModifyIndex":{}}}"#,
        uuid(number),
        number + 1,
        number + 1
    )
}

/// A line of `/proc/<pid>/status`.
fn kib(name: &str, pid: &str) -> Result<u64> {
    proc::number(&format!("/proc/{pid}/status"), name)
}
