//! An allocation of one task, and what happens to it.

use serde_json::{Value, json};

use super::{
    clock::rfc3339,
    objects::{Fields, JobSpec, fields},
};

/// Nomad keeps this many events per task.
const EVENTS_KEPT: usize = 10;
const KILL_TIMEOUT: u64 = 5_000_000_000;
const RESTART_DELAY: u64 = 15_000_000_000;

/// Where an allocation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Received,
    SetUp,
    Running,
    /// About to end with an error and to be restarted.
    Failing,
    Restarting,
    /// About to be killed.
    Stopping,
    Killing,
    Dead,
}

pub(super) struct Allocation {
    pub(super) job: usize,
    pub(super) node: usize,
    pub(super) slot: usize,
    pub(super) phase: Phase,
    pub(super) fields: Fields,
    task: &'static str,
    state: Fields,
    events: Vec<Value>,
    restarts: u64,
}

/// What an allocation is made of.
pub(super) struct Placement<'a> {
    pub(super) id: &'a str,
    pub(super) eval: &'a str,
    pub(super) job: usize,
    pub(super) version: u64,
    pub(super) slot: usize,
    pub(super) node: usize,
    pub(super) node_id: &'a str,
    pub(super) node_name: &'a str,
}

impl Allocation {
    pub(super) fn new(spec: &JobSpec, placement: &Placement<'_>, now: u64) -> Self {
        let Placement { id, eval, job, version, slot, node, node_id, node_name } = placement;
        let fields = fields(json!({
            "ID": id,
            "EvalID": eval,
            "Name": format!("{}.{}[{slot}]", spec.id, spec.group),
            "Namespace": spec.namespace,
            "NodeID": node_id,
            "NodeName": node_name,
            "JobID": spec.id,
            "JobType": spec.kind,
            "JobVersion": version,
            "TaskGroup": spec.group,
            "AllocatedResources": null,
            "ClientDescription": "",
            "ClientStatus": "pending",
            "DeploymentStatus": null,
            "DesiredDescription": "",
            "DesiredStatus": "run",
            "DesiredTransition": transition(None),
            "FollowupEvalID": "",
            "NextAllocation": "",
            "PreemptedAllocations": null,
            "PreemptedByAllocation": "",
            "RescheduleTracker": null,
            "TaskStates": null,
            "CreateTime": now,
            "ModifyTime": now,
        }));
        let state = json!({
            "Failed": false,
            "FinishedAt": null,
            "LastRestart": null,
            "Paused": "",
            "StartedAt": null,
            "State": "pending",
        });
        Self {
            job: *job,
            node: *node,
            slot: *slot,
            phase: Phase::Pending,
            fields,
            task: spec.task,
            state: self::fields(state),
            events: Vec::new(),
            restarts: 0,
        }
    }

    pub(super) fn alive(&self) -> bool {
        self.phase != Phase::Dead
    }

    /// The servers want it to stop.
    pub(super) fn stop(&mut self, why: &str, next: &str, migrate: bool, now: u64) {
        self.phase = Phase::Stopping;
        self.set("DesiredStatus", "stop");
        self.set("DesiredDescription", why);
        self.set("NextAllocation", next);
        self.set("DesiredTransition", transition(migrate.then_some(true)));
        self.set("ModifyTime", now);
    }

    pub(super) fn healthy(&mut self, now: u64) {
        let status = json!({ "Canary": false, "Healthy": true, "ModifyIndex": 0, "Timestamp": rfc3339(now) });
        self.set("DeploymentStatus", status);
        self.set("ModifyTime", now);
    }

    /// The next thing that the client reports.
    pub(super) fn advance(&mut self, mut now: impl FnMut() -> u64) {
        match self.phase {
            Phase::Pending => {
                self.event(
                    now(),
                    "Received",
                    json!({ "DisplayMessage": "Task received by client" }),
                );
                self.phase = Phase::Received;
            }
            Phase::Received => {
                let text = "Building Task Directory";
                let event = json!({ "Message": text, "DisplayMessage": text, "Details": { "message": text } });
                self.event(now(), "Task Setup", event);
                self.phase = Phase::SetUp;
            }
            Phase::SetUp => self.start(now()),
            Phase::Running => {
                self.terminated(now(), 0, 0);
                self.finish(now(), "All tasks have completed");
            }
            Phase::Failing => {
                self.terminated(now(), 1, 0);
                let reason = "Restart within policy";
                let event = json!({
                    "DisplayMessage": format!("{reason} - Task restarting in 15s"),
                    "RestartReason": reason,
                    "StartDelay": RESTART_DELAY,
                    "Details": { "restart_reason": reason, "start_delay": RESTART_DELAY.to_string() },
                });
                let time = now();
                self.event(time, "Restarting", event);
                self.restarts += 1;
                self.task("State", "pending");
                self.task("LastRestart", rfc3339(time));
                self.client("pending", "Tasks are restarting");
                self.phase = Phase::Restarting;
            }
            Phase::Restarting => self.start(now()),
            Phase::Stopping => {
                let event = json!({
                    "DisplayMessage": "Sent interrupt. Waiting 5s before force killing",
                    "KillTimeout": KILL_TIMEOUT,
                    "Details": { "kill_timeout": "5s" },
                });
                self.event(now(), "Killing", event);
                self.phase = Phase::Killing;
            }
            Phase::Killing => {
                self.terminated(now(), 130, 2);
                let time = now();
                self.event(time, "Killed", json!({ "DisplayMessage": "Task successfully killed" }));
                self.finish(time, "All tasks have completed");
            }
            Phase::Dead => return,
        }
        let modified = now();
        self.set("ModifyTime", modified);
        self.show();
    }

    fn start(&mut self, now: u64) {
        self.event(now, "Started", json!({ "DisplayMessage": "Task started by client" }));
        self.task("State", "running");
        self.task("StartedAt", rfc3339(now));
        self.client("running", "Tasks are running");
        self.phase = Phase::Running;
    }

    fn finish(&mut self, now: u64, description: &str) {
        self.task("State", "dead");
        self.task("FinishedAt", rfc3339(now));
        self.client("complete", description);
        self.phase = Phase::Dead;
    }

    fn terminated(&mut self, now: u64, code: u64, signal: u64) {
        let shown = if signal > 0 {
            format!("Exit Code: {code}, Signal: {signal}")
        } else {
            format!("Exit Code: {code}")
        };
        let details = json!({
            "exit_code": code.to_string(),
            "oom_killed": "false",
            "signal": signal.to_string(),
        });
        let event = json!({ "DisplayMessage": shown, "ExitCode": code, "Signal": signal, "Details": details });
        self.event(now, "Terminated", event);
    }

    fn event(&mut self, now: u64, kind: &str, special: Value) {
        let mut event = fields(json!({
            "Type": kind,
            "Time": now,
            "Details": {},
            "DiskLimit": 0,
            "DisplayMessage": "",
            "DownloadError": "",
            "DriverError": "",
            "DriverMessage": "",
            "ExitCode": 0,
            "FailedSibling": "",
            "FailsTask": false,
            "GenericSource": "",
            "KillError": "",
            "KillReason": "",
            "KillTimeout": 0,
            "Message": "",
            "RestartReason": "",
            "SetupError": "",
            "Signal": 0,
            "StartDelay": 0,
            "TaskSignal": "",
            "TaskSignalReason": "",
            "ValidationError": "",
            "VaultError": "",
        }));
        event.extend(fields(special));
        if self.events.len() == EVENTS_KEPT {
            self.events.remove(0);
        }
        self.events.push(Value::Object(event));
    }

    /// Puts the task's state where the list shows it.
    fn show(&mut self) {
        let mut state = self.state.clone();
        state.insert("Restarts".to_owned(), self.restarts.into());
        state.insert("Events".to_owned(), self.events.clone().into());
        self.set("TaskStates", json!({ self.task: state }));
    }

    fn client(&mut self, status: &str, description: &str) {
        self.set("ClientStatus", status);
        self.set("ClientDescription", description);
    }

    fn task(&mut self, key: &str, value: impl Into<Value>) {
        self.state.insert(key.to_owned(), value.into());
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }
}

fn transition(migrate: Option<bool>) -> Value {
    json!({
        "ForceReschedule": null,
        "Migrate": migrate,
        "MigrateDisablePlacement": null,
        "NoShutdownDelay": null,
        "Reschedule": null,
    })
}
