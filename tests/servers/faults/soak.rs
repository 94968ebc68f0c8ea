//! Processes that live on while they take turns at publishing, at a thousand changes a second.

use std::{collections::HashMap, time::Duration};

use nomad_firehose::{api::Entry, standin::nomad::Nomad};
use reqwest::Method;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    copies::{Copies, Place, QUEUE, broker, each_has_a_session},
    issuer::{Issuer, Kind},
    judge::{Evidence, Verdict},
    leases::{Followed, holder},
    oracle::Oracle,
    table::spread,
};
use crate::{
    consul::Agent,
    firehose::{Process, Served, wait},
    print,
    sinks::proxy::Way,
    support::Version,
};

const CHANGES: usize = 100_000;
/// Allocations, in which one event follows the other. Nomad keeps ten of each, so that it forgets an
/// event after 20 s: long after the next copy has read it.
const OBJECTS: usize = 2_000;
/// So many changes every so often.
const AT_ONCE: usize = 10;
const TICK: Duration = Duration::from_millis(10);
/// Within the lock-delay, in which nobody is elected.
const HEARD: Duration = Duration::from_millis(300);
const TERM: Duration = Duration::from_secs(10);
/// Each copy has led by then, and stood by, and has what it needs.
const WARM: Duration = Duration::from_secs(25);
/// The most memory is compared that it had in so long: each copy leads for about half of it, and
/// gives much back when it stands by.
const COMPARED: Duration = Duration::from_secs(25);
type Of = fn(&Held) -> u64;

/// What may grow by how much. Between the two times each copy publishes 25,000 changes: memory would
/// grow as much if 670 bytes of each were not given back. The pipeline may hold 16 MiB, and how much
/// of that a copy has needed so far depends on how late the machine has let it be. Connections that
/// are kept for the next request and threads that wait for work come and go; what were not given
/// back once a term, or with any of the dozens of renewals and checkpoints, would be more.
const HELD: [(&str, Of, u64); 4] = [
    ("KiB resident", |it| it.resident_kib, 16 << 10),
    ("threads", |it| it.threads, 2),
    ("files", |it| it.files, 4),
    ("sockets", |it| it.sockets, 4),
];
/// As it is where nobody sets it.
const RESYNC: &str = "5m";
/// The last change comes within this time.
const RECOVERY: Duration = Duration::from_secs(60);

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: Duration,
    resident_kib: u64,
    threads: u64,
    files: u64,
    sockets: u64,
}

impl Held {
    fn of(process: &Process, at: Duration) -> Self {
        let dir = format!("/proc/{}", process.id());
        let status = std::fs::read_to_string(format!("{dir}/status")).unwrap();
        let figure = |name: &str| -> u64 {
            let line = status.lines().find_map(|it| it.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let files = std::fs::read_dir(format!("{dir}/fd")).unwrap().flatten();
        let names: Vec<_> = files.filter_map(|it| std::fs::read_link(it.path()).ok()).collect();
        let is_socket = |it: &&std::path::PathBuf| it.to_string_lossy().starts_with("socket:");
        let sockets = names.iter().filter(is_socket).count() as u64;
        let (resident_kib, threads) = (figure("VmRSS:"), figure("Threads:"));
        Self { at, resident_kib, threads, files: names.len() as u64, sockets }
    }
}

/// The least and the most of something that there was in a time.
fn range(all: &[Held], from: Duration, of: impl Fn(&Held) -> u64) -> (u64, u64) {
    let within = all.iter().filter(|it| it.at >= from && it.at < from + COMPARED);
    let within: Vec<_> = within.map(of).collect();
    (*within.iter().min().unwrap(), *within.iter().max().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_changes_in_ten_terms_lose_nothing_and_leave_nothing_behind() {
    let kind = Kind::TaskEvents;
    let nomad = Nomad::new(Version::V2_0);
    let port = Served::new(nomad.router()).await;
    let (consul, broker) = tokio::join!(Agent::start(), broker(kind));
    let place = Place::new(kind, port.address.clone(), &consul, &broker, RESYNC);
    let lock = Followed::new(consul.api.clone(), place.key("lock"), holder);
    let bytes = |_, entry: Option<Entry>| entry.map(|it| it.value);
    let saves = Followed::new(consul.api.clone(), place.key("cursor"), bytes);
    let values = Followed::new(consul.api.clone(), place.key("value"), bytes);
    let oracle = Oracle::new(broker.port(), QUEUE);
    let issuer = Issuer::new(kind, nomad.clone(), 1);
    let mut copies = Copies::default();
    for _ in 0..2 {
        copies.start(&place).await;
    }
    wait("a copy has the lock", async || lock.last().flatten()).await;

    let began = Instant::now();
    let mut samples: HashMap<usize, Vec<Held>> = HashMap::new();
    let (mut unsaved, mut ended) = (0, Vec::new());
    let issuing = async {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for tick in 0..CHANGES / AT_ONCE {
            ticks.tick().await;
            for number in 0..AT_ONCE {
                issuer.happen_in((tick * AT_ONCE + number) % OBJECTS);
            }
        }
        began.elapsed()
    };
    let ending = async {
        loop {
            sleep(TERM).await;
            let session = wait("a copy has the lock", async || lock.last().flatten()).await;
            let path = format!("/v1/session/destroy/{session}");
            let from = place.leases.copy(&session).unwrap();
            let copy = copies.running.iter().find(|it| it.number == from).unwrap();
            consul.ask(Method::PUT, &path, "").await.expect("Consul ends the session");
            let at = Instant::now();
            // What the last checkpoint of the term knows was confirmed before it was sent, which
            // is at least when the one before it was answered.
            let sent = saves.times().iter().rev().nth(1).copied();
            ended.push((at, session, sent));
            // It has heard of it by then, and is slow to compete, so that the others take their turn.
            sleep(HEARD).await;
            copy.consul.set(Way::Slow);
            let other =
                async || lock.last().flatten().filter(|it| place.leases.copy(it) != Some(from));
            wait("the other copy has the lock", other).await;
            copy.consul.set(Way::Open);
        }
    };
    let sampling = async {
        loop {
            for copy in &copies.running {
                let held = Held::of(&copy.process, began.elapsed());
                samples.entry(copy.number).or_default().push(held);
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    let took = tokio::select! {
        took = issuing => took,
        () = async { tokio::join!(ending, sampling); } => unreachable!("they go on for ever"),
    };

    let last = Instant::now();
    wait("the last states came", async || {
        sleep(Duration::from_millis(200)).await;
        let came = oracle.came(&issuer);
        issuer.missing(CHANGES, &came).is_empty().then_some(())
    })
    .await;
    let recovered = last.elapsed();
    each_has_a_session(&consul, copies.running.len()).await;
    copies.all_run();

    let heard = place.wire.heard();
    let mut taken = Vec::new();
    for (at, session, sent) in &ended {
        let from = place.leases.copy(session).unwrap();
        let after = |it: &Instant| sent.is_none_or(|sent| *it > sent);
        unsaved += heard
            .published
            .iter()
            .filter(|(when, copy, _)| {
                *copy == from && after(when) && when <= &(*at + Duration::from_secs(1))
            })
            .count();
        let next = heard.published.iter().find(|(when, copy, _)| when > at && *copy != from);
        taken.extend(next.map(|(when, ..)| *when - *at));
    }
    copies.stop().await;
    let (arrivals, bodies, wrong) =
        oracle.with(|it| (it.arrivals.clone(), it.bodies.clone(), it.wrong.clone()));
    let evidence = Evidence {
        kind,
        changes: issuer.changes(),
        arrivals,
        bodies,
        wire: heard,
        leases: place.leases.all(),
        holders: lock.seen(),
        cursors: saves.seen(),
        values: values.seen(),
        woken: Vec::new(),
        backs: Vec::new(),
        log: copies.logs(),
    };
    let mut verdict = evidence.judge();
    verdict.wrong.extend(wrong);
    let Verdict { delivered, repeated, positions, latest, .. } = verdict;
    print(&format!(
        "Measured: {CHANGES} changes in {took:.1?}, {delivered} delivered, {repeated} repeated of \
         {unsaved} unsaved, {} terms ended, the next began after {}, all came {recovered:.1?} \
         after the last; {positions} positions compared, latest after a term {latest:.0?}",
        ended.len(),
        spread(&taken),
    ));
    for (number, samples) in &samples {
        let last = samples[samples.len() - 1].at - COMPARED;
        for (what, of, _) in HELD {
            let (warm, end) = (range(samples, WARM, of), range(samples, last, of));
            print(&format!("Measured: copy {number}, {what}: {warm:?} at first, {end:?} at last"));
        }
    }

    let some = super::some_of_each(&verdict.wrong);
    assert!(verdict.wrong.is_empty(), "{some:#?}");
    assert_eq!(delivered, CHANGES, "lost");
    assert!(recovered < RECOVERY, "{recovered:?}");
    assert!(repeated <= unsaved, "{repeated} repeated of {unsaved}");
    assert!(ended.len() >= 9, "only {} terms", ended.len());
    for (number, samples) in &samples {
        let last = samples[samples.len() - 1].at - COMPARED;
        for (what, of, growth) in HELD {
            let (warm, end) = (range(samples, WARM, of), range(samples, last, of));
            // The least is what a copy has when it stands by, which allocators give back or not.
            let grew = end.1 > warm.1 + growth;
            assert!(!grew, "copy {number}, {what}: from {warm:?} to {end:?}");
        }
    }
}
