//! Nodes, and what happens to their tasks when they drain.

use serde_json::{Value, json};

use super::{
    Action, Cluster,
    clock::rfc3339,
    objects::{self, node_event},
};
use crate::standin::nomad::Table;

const EVENTS_KEPT: usize = 10;
const DEADLINE: u64 = 3_600_000_000_000;
const DRAIN_TICKS: u64 = 12;
const BACK_AFTER_TICKS: u64 = 8;

impl Cluster {
    /// An operator drains a node: its tasks move to the others.
    pub(super) fn drain(&mut self, index: usize) {
        let now = self.clock.now();
        let strategy = json!({
            "Deadline": DEADLINE,
            "ForceDeadline": rfc3339(now + DEADLINE),
            "IgnoreSystemJobs": false,
            "StartedAt": rfc3339(now),
        });
        self.nodes[index].draining = true;
        self.set_node(index, "Drain", true);
        self.set_node(index, "DrainStrategy", strategy);
        self.set_node(index, "LastDrain", last_drain("draining", now, now));
        self.set_node(index, "SchedulingEligibility", "ineligible");
        self.node_happened(index, "Drain", "Node drain strategy set", now);
        for job in 0..self.jobs.len() {
            self.migrate(index, job);
        }
        self.plan(DRAIN_TICKS, Action::Drained(index));
    }

    pub(super) fn drained(&mut self, index: usize) {
        let now = self.clock.now();
        self.set_node(index, "Drain", false);
        self.set_node(index, "DrainStrategy", Value::Null);
        self.set_node(index, "LastDrain", last_drain("complete", now, now));
        self.node_happened(index, "Drain", "Node drain complete", now);
        self.plan(BACK_AFTER_TICKS, Action::Eligible(index));
    }

    pub(super) fn eligible(&mut self, index: usize) {
        let now = self.clock.now();
        self.nodes[index].draining = false;
        self.set_node(index, "SchedulingEligibility", "eligible");
        self.node_happened(index, "Cluster", "Node marked as eligible for scheduling", now);
    }

    /// Moves what a job runs on a node, at one index.
    fn migrate(&mut self, node: usize, job: usize) {
        let here = self.allocations.iter().filter(|(_, allocation)| {
            allocation.job == job
                && allocation.node == node
                && allocation.fields["DesiredStatus"] == "run"
        });
        let here = here.filter(|(_, allocation)| allocation.alive());
        let here: Vec<(String, usize)> =
            here.map(|(id, allocation)| (id.clone(), allocation.slot)).collect();
        if here.is_empty() {
            return;
        }
        let spec = self.jobs[job].spec;
        let evaluation_id = self.random.uuid();
        let mut evaluation =
            objects::evaluation(&evaluation_id, spec, "node-drain", self.clock.now());
        evaluation["Status"] = "complete".into();
        let mut changes = vec![(Table::Evaluations, evaluation)];
        for (old, slot) in here {
            let id = self.random.uuid();
            changes.push(self.new_allocation(&id, &evaluation_id, job, slot));
            changes.extend(self.stop(&old, "alloc is being migrated", &id, true));
        }
        self.nomad.upsert_many(changes);
        self.outdated(Table::Evaluations, spec, evaluation_id);
    }

    fn set_node(&mut self, index: usize, key: &str, value: impl Into<Value>) {
        self.nodes[index].fields.insert(key.to_owned(), value.into());
    }

    fn node_happened(&mut self, index: usize, subsystem: &str, message: &str, now: u64) {
        let fields = &mut self.nodes[index].fields;
        if let Some(Value::Array(events)) = fields.get_mut("Events") {
            events.push(node_event(subsystem, message, now));
            events.drain(..events.len().saturating_sub(EVENTS_KEPT));
        }
        self.nomad.upsert(Table::Nodes, fields.clone());
    }
}

fn last_drain(status: &str, started: u64, updated: u64) -> Value {
    json!({
        "AccessorID": "",
        "Meta": null,
        "StartedAt": rfc3339(started),
        "Status": status,
        "UpdatedAt": rfc3339(updated),
    })
}
