//! A list of allocations as Nomad 2.0 sends it, of which no two are alike.

use std::fmt::Write as _;

use bytes::Bytes;

/// What may happen to a task: type, message, details.
const LIFE: [(&str, &str, &str); 10] = [
    ("Received", "Task received by client", ""),
    ("Task Setup", "Building Task Directory", r#""message":"Building Task Directory""#),
    ("Driver", "Downloading image", r#""image":"registry.example.com/team/app:1.@""#),
    ("Started", "Task started by client", ""),
    (
        "Terminated",
        "Exit Code: @, Signal: 0",
        r#""exit_code":"@","oom_killed":"false","signal":"0""#,
    ),
    (
        "Restarting",
        "Task restarting in 15.@s",
        r#""restart_reason":"Restart within policy","start_delay":"15@""#,
    ),
    ("Started", "Task started by client", ""),
    ("Signaling", "Template with change_mode \"signal\" re-rendered", r#""signal":"SIGHUP""#),
    ("Killing", "Sent interrupt. Waiting 5s before force killing", r#""kill_timeout":"5s""#),
    ("Killed", "Task successfully killed", ""),
];

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn uuid(&mut self) -> String {
        let digits = format!("{:016x}{:016x}", self.next(), self.next());
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
    }
}

/// The list: so many allocations, of so many tasks each, of so many events each.
pub(crate) fn list(allocations: usize, tasks: usize, events: usize) -> Bytes {
    let mut numbers = Numbers(0);
    let nodes: Vec<String> = (0..200).map(|_| numbers.uuid()).collect();
    let mut out = "[".to_owned();
    for i in 0..allocations {
        if i > 0 {
            out.push(',');
        }
        let node = numbers.next() as usize % nodes.len();
        push_allocation(
            &mut out,
            &mut numbers,
            1_000_001 + i,
            (&nodes[node], node),
            (tasks, events),
        );
    }
    out.push(']');
    out.into()
}

fn push_allocation(
    out: &mut String,
    numbers: &mut Numbers,
    index: usize,
    (node_id, node): (&str, usize),
    (tasks, events): (usize, usize),
) {
    let (id, eval, job) = (numbers.uuid(), numbers.uuid(), index / 7);
    let created =
        1_795_448_062_000_000_000 + index as u64 * 7_000_000_000 + numbers.next() % 1_000_000_000;
    let _ = write!(
        out,
        r#"{{"ID":"{id}","EvalID":"{eval}","Name":"app-{job}.web[{}]","Namespace":"default","NodeID":"{node_id}","NodeName":"worker-{node}","JobID":"app-{job}","JobType":"service","JobVersion":{},"TaskGroup":"web","AllocatedResources":null,"DesiredStatus":"run","DesiredDescription":"","ClientStatus":"running","ClientDescription":"Tasks are running","DesiredTransition":{{"Migrate":null,"Reschedule":null,"ForceReschedule":null,"NoShutdownDelay":null,"MigrateDisablePlacement":null}},"TaskStates":{{"#,
        index % 7,
        job % 5,
    );
    for task in 0..tasks {
        let comma = if task > 0 { "," } else { "" };
        let _ = write!(
            out,
            r#"{comma}"task-{task}":{{"State":"running","Failed":false,"Restarts":{task},"LastRestart":null,"StartedAt":"2026-11-23T15:34:22.{:09}Z","FinishedAt":null,"Events":["#,
            numbers.next() % 1_000_000_000
        );
        let mut time = created;
        for i in 0..events {
            time += numbers.next() % 3_000_000_000;
            out.push_str(if i > 0 { "," } else { "" });
            push_event(out, numbers, i, time);
        }
        out.push_str(r#"],"Paused":""}"#);
    }
    let _ = write!(
        out,
        r#"}},"DeploymentStatus":null,"FollowupEvalID":"","NextAllocation":"","RescheduleTracker":null,"PreemptedAllocations":null,"PreemptedByAllocation":"","CreateIndex":{},"ModifyIndex":{index},"CreateTime":{created},"ModifyTime":{}}}"#,
        index - 1_000,
        created + 9_000_000_000,
    );
}

fn push_event(out: &mut String, numbers: &mut Numbers, i: usize, time: u64) {
    let kind = if i == 0 { 0 } else { 1 + numbers.next() as usize % (LIFE.len() - 1) };
    let (kind, message, details) = LIFE[kind];
    let number = numbers.next() % 1000;
    let filled = |text: &str| text.replace('@', &number.to_string());
    let message = filled(message).replace('"', "\\\"");
    let (details, exit) = (filled(details), if kind == "Terminated" { number } else { 0 });
    let _ = write!(
        out,
        r#"{{"Type":"{kind}","Time":{time},"Message":"","DisplayMessage":"{message}","Details":{{{details}}},"FailsTask":false,"RestartReason":"","SetupError":"","DriverError":"","ExitCode":{exit},"Signal":0,"KillTimeout":0,"KillError":"","KillReason":"","StartDelay":0,"DownloadError":"","ValidationError":"","DiskLimit":0,"FailedSibling":"","VaultError":"","TaskSignalReason":"","TaskSignal":"","DriverMessage":"","GenericSource":""}}"#
    );
}
