//! What is published of a task event, in the shape of the Go tool.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::nomad::types;

/// A task event, with the allocation and the task it belongs to as they were read: a status may be
/// later than the event.
#[derive(Debug, JsonSchema, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskUpdate {
    /// Name of the allocation: job, group and number.
    pub name: String,
    /// Node that the allocation is on.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// The allocation.
    #[serde(rename = "AllocationID")]
    pub allocation_id: String,
    /// What the servers want of the allocation.
    pub desired_status: String,
    /// Why they want it.
    pub desired_description: String,
    /// What the node says of the allocation.
    pub client_status: String,
    /// More of what the node says.
    pub client_description: String,
    /// Job of the allocation.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Task group of the allocation.
    pub group_name: String,
    /// The task.
    pub task_name: String,
    /// Evaluation that placed the allocation.
    #[serde(rename = "EvalID")]
    pub eval_id: String,
    /// State of the task: pending, running or dead.
    pub task_state: String,
    /// Whether the task has failed.
    pub task_failed: bool,
    /// When the task started, in RFC 3339; year 1 before that.
    pub task_started_at: String,
    /// When the task finished, in RFC 3339; year 1 before that.
    pub task_finished_at: String,
    /// The event as Nomad sent it.
    pub task_event: types::TaskEvent,
    /// Namespace of the job.
    pub namespace: String,
}

/// Every key of a task event that the Go tool documents, with its zero value: it is there although
/// a server leaves it out. Nomad itself never sends `DiskSize`.
pub(super) const DOCUMENTED: [(&str, &str); 22] = [
    ("Type", r#""""#),
    ("Time", "0"),
    ("FailsTask", "false"),
    ("RestartReason", r#""""#),
    ("SetupError", r#""""#),
    ("DriverError", r#""""#),
    ("DriverMessage", r#""""#),
    ("ExitCode", "0"),
    ("Signal", "0"),
    ("Message", r#""""#),
    ("KillReason", r#""""#),
    ("KillTimeout", "0"),
    ("KillError", r#""""#),
    ("StartDelay", "0"),
    ("DownloadError", r#""""#),
    ("ValidationError", r#""""#),
    ("DiskLimit", "0"),
    ("DiskSize", "0"),
    ("FailedSibling", r#""""#),
    ("VaultError", r#""""#),
    ("TaskSignalReason", r#""""#),
    ("TaskSignal", r#""""#),
];
