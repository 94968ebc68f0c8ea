//! Jobs, from their registration to the collection of what is left of them.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{
    Action, Cluster, Job, KEPT,
    allocation::{Allocation, Phase, Placement},
    objects::{self, Fields, JobSpec},
    text,
};
use crate::standin::nomad::Table;

impl Cluster {
    pub(super) fn register(&mut self, index: usize) {
        let now = self.clock.now();
        let evaluation_id = self.random.uuid();
        let job = &mut self.jobs[index];
        if job.registered_at > 0 {
            job.version += 1;
        }
        job.fields = objects::job(job.spec, job.version, now);
        let mut evaluation = objects::evaluation(&evaluation_id, job.spec, "job-register", now);
        let changes = [(Table::Jobs, job.fields.clone()), (Table::Evaluations, evaluation.clone())];
        job.registered_at = self.nomad.upsert_many(changes);
        evaluation.insert("JobModifyIndex".to_owned(), job.registered_at.into());
        self.plan(1, Action::Place { job: index, evaluation });
    }

    /// The plan of a scheduler: what runs is replaced, all at one index.
    pub(super) fn place(&mut self, index: usize, mut evaluation: Fields) {
        let Job { spec, version, registered_at, .. } = self.jobs[index];
        let evaluation_id = text(&evaluation, "ID");
        let mut changes = Vec::new();
        if spec.kind == "service" {
            let id = self.random.uuid();
            let deployment =
                objects::deployment(&id, spec, version, registered_at, self.clock.now());
            changes.push((Table::Deployments, deployment.clone()));
            evaluation.insert("DeploymentID".to_owned(), id.into());
            if let Some(previous) = self.jobs[index].deployment.replace(deployment) {
                changes.extend(self.superseded(spec, previous));
            }
        }
        let replaced = self
            .allocations
            .iter()
            .filter(|(_, old)| old.job == index && old.fields["DesiredStatus"] == "run");
        let replaced = replaced.filter(|(_, old)| old.alive()).map(|(id, _)| id.clone());
        let mut replaced: VecDeque<String> = replaced.collect();
        for slot in 0..spec.count {
            let id = self.random.uuid();
            changes.push(self.new_allocation(&id, &evaluation_id, index, slot));
            if let Some(old) = replaced.pop_front() {
                changes.extend(self.stop(
                    &old,
                    "alloc is being updated due to job update",
                    &id,
                    false,
                ));
            }
        }
        for old in replaced {
            changes.extend(self.stop(&old, "alloc not needed due to job update", "", false));
        }
        self.nomad.upsert_many(changes);
        evaluation.insert("Status".to_owned(), "complete".into());
        evaluation.insert("ModifyTime".to_owned(), self.clock.now().into());
        evaluation.insert("QueuedAllocations".to_owned(), json!({ spec.group: 0 }));
        evaluation.insert("SnapshotIndex".to_owned(), registered_at.into());
        self.nomad.upsert(Table::Evaluations, evaluation);
        self.outdated(Table::Evaluations, spec, evaluation_id);
        self.job_status(index, "running");
    }

    pub(super) fn new_allocation(
        &mut self,
        id: &str,
        eval: &str,
        job: usize,
        slot: usize,
    ) -> (Table, Fields) {
        let free: Vec<usize> =
            (0..self.nodes.len()).filter(|node| !self.nodes[*node].draining).collect();
        let node = free.get(self.random.below(free.len())).copied().unwrap_or(0);
        let Job { spec, version, .. } = self.jobs[job];
        let node_name = text(&self.nodes[node].fields, "Name");
        let node_id = &self.nodes[node].id;
        let placement =
            Placement { id, eval, job, version, slot, node, node_id, node_name: &node_name };
        let allocation = Allocation::new(spec, &placement, self.clock.now());
        let fields = allocation.fields.clone();
        self.allocations.insert(id.to_owned(), allocation);
        self.plan(1, Action::Advance(id.to_owned()));
        (Table::Allocations, fields)
    }

    pub(super) fn stop(
        &mut self,
        id: &str,
        why: &str,
        next: &str,
        migrate: bool,
    ) -> Option<(Table, Fields)> {
        let now = self.clock.now();
        let allocation = self.allocations.get_mut(id)?;
        allocation.stop(why, next, migrate, now);
        let fields = allocation.fields.clone();
        self.plan(1, Action::Advance(id.to_owned()));
        Some((Table::Allocations, fields))
    }

    /// The client reports what became of a task.
    pub(super) fn advance(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get_mut(id).filter(|allocation| allocation.alive())
        else {
            return;
        };
        allocation.advance(|| self.clock.now());
        let (job, phase) = (allocation.job, allocation.phase);
        self.nomad.upsert(Table::Allocations, allocation.fields.clone());
        // Since 1.5 every such report touches the nodes too, and nothing of a node changes.
        self.nomad.touch(Table::Nodes);
        let spec = self.jobs[job].spec;
        match phase {
            Phase::Running if spec.kind == "service" => {
                self.plan(2, Action::Healthy(id.to_owned()))
            }
            Phase::Running => self.plan(6, Action::Advance(id.to_owned())),
            Phase::Dead => {
                self.outdated(Table::Allocations, spec, id.to_owned());
                let over =
                    !self.allocations.values().any(|other| other.job == job && other.alive());
                if over {
                    self.job_status(job, "dead");
                }
            }
            Phase::Restarting => self.plan(4, Action::Advance(id.to_owned())),
            _ => self.plan(1, Action::Advance(id.to_owned())),
        }
        self.summarise(job);
    }

    /// A task has run long enough to count for its deployment.
    pub(super) fn healthy(&mut self, id: &str) {
        let now = self.clock.now();
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let job = allocation.job;
        let current = allocation.fields["JobVersion"] == self.jobs[job].version;
        if allocation.phase != Phase::Running
            || !current
            || !allocation.fields["DeploymentStatus"].is_null()
        {
            return;
        }
        allocation.healthy(now);
        let mut changes = vec![(Table::Allocations, allocation.fields.clone())];
        let Job { spec, ref mut deployment, .. } = self.jobs[job];
        let mut successful = false;
        if let Some(deployment) =
            deployment.as_mut().filter(|deployment| deployment["Status"] == "running")
        {
            let group = &mut deployment["TaskGroups"][spec.group];
            let healthy = group["HealthyAllocs"].as_u64().unwrap_or(0) + 1;
            group["HealthyAllocs"] = healthy.into();
            if healthy >= spec.count as u64 {
                successful = true;
                deployment["Status"] = "successful".into();
                deployment["StatusDescription"] = "Deployment completed successfully".into();
            }
            deployment["ModifyTime"] = now.into();
            changes.push((Table::Deployments, deployment.clone()));
        }
        self.nomad.upsert_many(changes);
        if successful {
            self.jobs[job].fields.insert("Stable".to_owned(), true.into());
            self.job_status(job, "running");
        }
    }

    /// A deployment makes room for the next one of its job.
    fn superseded(
        &mut self,
        spec: &'static JobSpec,
        mut deployment: Fields,
    ) -> Option<(Table, Fields)> {
        self.outdated(Table::Deployments, spec, text(&deployment, "ID"));
        if deployment["Status"] != "running" {
            return None;
        }
        deployment["Status"] = "cancelled".into();
        deployment["StatusDescription"] = "Cancelled due to newer version of job".into();
        deployment["ModifyTime"] = self.clock.now().into();
        Some((Table::Deployments, deployment))
    }

    fn job_status(&mut self, index: usize, status: &str) {
        let job = &mut self.jobs[index];
        job.fields.insert("Status".to_owned(), status.into());
        self.nomad.upsert(Table::Jobs, job.fields.clone());
        self.summarise(index);
    }

    /// Counts the allocations of a job anew, and says so if that changed.
    fn summarise(&mut self, index: usize) {
        let statuses = self.allocations.values().filter(|allocation| allocation.job == index);
        let statuses: Vec<&Value> =
            statuses.map(|allocation| &allocation.fields["ClientStatus"]).collect();
        let count = |status: &str| statuses.iter().filter(|other| **other == status).count();
        let job = &mut self.jobs[index];
        let summary = objects::fields(json!({
            "Children": { "Dead": 0, "Pending": 0, "Running": 0 },
            "Summary": {
                job.spec.group: {
                    "Complete": count("complete"),
                    "Failed": 0,
                    "Lost": 0,
                    "Queued": 0,
                    "Running": count("running"),
                    "Starting": count("pending"),
                    "Unknown": 0,
                },
            },
        }));
        if job.summary != summary {
            job.summary = summary.clone();
            self.nomad.set_summary(job.spec.namespace, job.spec.id, summary);
        }
    }

    /// Something is of no more use; what has been so for longest is collected.
    pub(super) fn outdated(&mut self, table: Table, spec: &JobSpec, id: String) {
        self.old.push_back((table, spec.namespace, id));
        while self.old.len() > KEPT
            && let Some((table, namespace, id)) = self.old.pop_front()
        {
            self.nomad.delete(table, namespace, &id);
            self.allocations.remove(&id);
        }
    }
}
