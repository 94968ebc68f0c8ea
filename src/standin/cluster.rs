//! A small living cluster for the demo: jobs are deployed, tasks start, fail and restart, nodes drain and come back.
//!
//! What happens, and in which order, follows from the seed; only the times are those of the wall clock.

mod allocation;
mod clock;
mod jobs;
mod nodes;
mod objects;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde_json::Value;
use tokio::time::sleep;

use self::{
    allocation::{Allocation, Phase},
    clock::Clock,
    objects::{Fields, JobSpec, NodeSpec},
};
use super::{
    nomad::{Nomad, Table},
    random::Random,
};

/// The shortest time between two changes, and how much longer it may be.
const PAUSE: Duration = Duration::from_millis(220);
const PAUSE_SPREAD: usize = 160;
/// How many dead allocations, evaluations and deployments are kept before the oldest is collected.
const KEPT: usize = 40;

const NODES: [(&str, &str, &str); 3] = [
    ("client-one", "r1", "10.0.0.11"),
    ("client-two", "r2", "10.0.0.12"),
    ("client-three", "r3", "10.0.0.13"),
];

const JOBS: [JobSpec; 4] = [
    JobSpec {
        id: "web",
        namespace: "default",
        kind: "service",
        group: "frontend",
        task: "nginx",
        image: "nginx",
        count: 3,
    },
    JobSpec {
        id: "checkout",
        namespace: "shop",
        kind: "service",
        group: "api",
        task: "server",
        image: "shop/api",
        count: 2,
    },
    JobSpec {
        id: "report",
        namespace: "default",
        kind: "batch",
        group: "nightly",
        task: "render",
        image: "report",
        count: 1,
    },
    JobSpec {
        id: "team/resize",
        namespace: "shop",
        kind: "batch",
        group: "worker",
        task: "convert",
        image: "magick",
        count: 2,
    },
];

/// Drives the stand-in for ever.
pub async fn run(nomad: Nomad, seed: u64) {
    let mut cluster = Cluster::new(nomad, seed);
    loop {
        cluster.tick();
        let spread = cluster.random.below(PAUSE_SPREAD);
        sleep(PAUSE + Duration::from_millis(u64::try_from(spread).unwrap_or(0))).await;
    }
}

/// What is to happen.
enum Action {
    Register(usize),
    Place { job: usize, evaluation: Fields },
    Advance(String),
    Healthy(String),
    Drain(usize),
    Drained(usize),
    Eligible(usize),
}

struct Job {
    spec: &'static JobSpec,
    fields: Fields,
    version: u64,
    registered_at: u64,
    deployment: Option<Fields>,
    summary: Fields,
}

struct Node {
    id: String,
    fields: Fields,
    draining: bool,
}

struct Cluster {
    nomad: Nomad,
    random: Random,
    clock: Clock,
    tick: u64,
    agenda: BTreeMap<(u64, u64), Action>,
    planned: u64,
    nodes: Vec<Node>,
    jobs: Vec<Job>,
    allocations: BTreeMap<String, Allocation>,
    /// What garbage collection takes, oldest first.
    old: VecDeque<(Table, &'static str, String)>,
}

impl Cluster {
    fn new(nomad: Nomad, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut clock = Clock::new();
        nomad.add_namespace("shop");
        let nodes = NODES.iter().map(|&(name, class, address)| {
            let spec = NodeSpec { id: random.uuid(), name, class, address };
            let fields = objects::node(&spec, clock.now());
            nomad.upsert(Table::Nodes, fields.clone());
            Node { id: spec.id, fields, draining: false }
        });
        let nodes = nodes.collect();
        let jobs = JOBS.iter().map(|spec| Job {
            spec,
            fields: Fields::new(),
            version: 0,
            registered_at: 0,
            deployment: None,
            summary: Fields::new(),
        });
        let mut cluster = Self {
            nomad,
            random,
            clock,
            tick: 0,
            agenda: BTreeMap::new(),
            planned: 0,
            nodes,
            jobs: jobs.collect(),
            allocations: BTreeMap::new(),
            old: VecDeque::new(),
        };
        for job in 0..JOBS.len() {
            cluster.plan(job as u64 * 8, Action::Register(job));
        }
        cluster
    }

    fn plan(&mut self, in_ticks: u64, action: Action) {
        self.planned += 1;
        self.agenda.insert((self.tick + in_ticks, self.planned), action);
    }

    /// One change: the next one that is due, or else something new.
    fn tick(&mut self) {
        self.tick += 1;
        match self.agenda.first_entry() {
            Some(entry) if entry.key().0 <= self.tick => {
                let action = entry.remove();
                self.act(action);
            }
            _ => self.disturb(),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Register(job) => self.register(job),
            Action::Place { job, evaluation } => self.place(job, evaluation),
            Action::Advance(id) => self.advance(&id),
            Action::Healthy(id) => self.healthy(&id),
            Action::Drain(node) => self.drain(node),
            Action::Drained(node) => self.drained(node),
            Action::Eligible(node) => self.eligible(node),
        }
    }

    /// Things go wrong, or somebody deploys.
    fn disturb(&mut self) {
        let job = self.random.below(self.jobs.len());
        let node = self.random.below(self.nodes.len());
        if self.random.chance(50) {
            let running = self
                .allocations
                .iter()
                .filter(|(_, allocation)| allocation.phase == Phase::Running);
            let running: Vec<String> = running.map(|(id, _)| id.clone()).collect();
            if !running.is_empty() {
                let id = &running[self.random.below(running.len())];
                if let Some(allocation) = self.allocations.get_mut(id) {
                    allocation.phase = Phase::Failing;
                }
                return self.advance(id);
            }
        }
        if self.random.chance(25) && self.nodes.iter().all(|node| !node.draining) {
            return self.act(Action::Drain(node));
        }
        self.act(Action::Register(job));
    }
}

fn text(fields: &Fields, key: &str) -> String {
    fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        extract::Request,
    };
    use tower::ServiceExt;

    use super::*;
    use crate::standin::nomad::Version;

    async fn list(nomad: &Nomad, name: &str) -> Vec<Value> {
        let request = Request::get(format!("/v1/{name}?namespace=*")).body(Body::empty()).unwrap();
        let body = nomad.router().oneshot(request).await.unwrap().into_body();
        serde_json::from_slice(&to_bytes(body, usize::MAX).await.unwrap()).unwrap()
    }

    async fn after(seed: u64, time: Duration) -> Nomad {
        let nomad = Nomad::new(Version::V2_0);
        assert!(tokio::time::timeout(time, run(nomad.clone(), seed)).await.is_err());
        nomad
    }

    #[tokio::test(start_paused = true)]
    async fn within_two_seconds_every_list_shows_something() {
        let nomad = after(1, Duration::from_secs(2)).await;
        for name in ["allocations", "nodes", "evaluations", "jobs", "deployments"] {
            assert!(!list(&nomad, name).await.is_empty(), "{name}");
        }
        assert!(
            list(&nomad, "allocations")
                .await
                .iter()
                .any(|allocation| !allocation["TaskStates"].is_null())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_life_leaves_a_small_cluster_in_which_things_run() {
        let nomad = after(7, Duration::from_secs(900)).await;
        assert!(nomad.index() > 3000, "{}", nomad.index());
        for name in ["allocations", "evaluations", "deployments"] {
            let length = list(&nomad, name).await.len();
            assert!((1..100).contains(&length), "{name}: {length}");
        }
        assert!(
            list(&nomad, "allocations")
                .await
                .iter()
                .any(|allocation| allocation["ClientStatus"] == "running")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_life() {
        let story = async |seed| {
            let nomad = after(seed, Duration::from_secs(300)).await;
            let names = list(&nomad, "allocations").await;
            (
                nomad.index(),
                names.iter().map(|allocation| allocation["ID"].clone()).collect::<Vec<_>>(),
            )
        };
        let first = story(5).await;
        assert_eq!(first, story(5).await);
        assert_ne!(first, story(6).await);
    }
}
