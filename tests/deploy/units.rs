//! The unit of systemd, which its own tools look at where there are any.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::{file, not_checked, run, written};

const UNIT: &str = "nomad-firehose@.service";
/// Of 10, as `systemd-analyze security` counts; it is 1.0 now, and what is left is the network.
const MOST_EXPOSURE: &str = "11";

/// The unit with its drop-in, whose program is one that is there.
fn installed() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_nomad-firehose");
    let unit = file(&format!("systemd/{UNIT}"));
    assert!(unit.contains("ExecStart=/usr/local/bin/nomad-firehose %i\n"));
    let path = dir.path().join(UNIT);
    fs::write(&path, unit.replace("/usr/local/bin/nomad-firehose", program)).unwrap();
    let drop_ins = dir.path().join(format!("{UNIT}.d"));
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("credentials.conf"), file("systemd/credentials.conf")).unwrap();
    (dir, path)
}

#[test]
fn the_unit_is_understood_and_leaves_the_program_little() {
    let (_dir, path) = installed();
    let Some(verified) = run(Command::new("systemd-analyze").arg("verify").arg(&path)) else {
        return not_checked("unit of systemd", "as there is no systemd-analyze");
    };
    let said = written(&verified);
    // What it has to say of other units of this machine is not about ours.
    let ours: Vec<_> = said.lines().filter(|it| it.contains("nomad-firehose")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");

    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let command = ["security", "--offline=true", "--no-pager", &threshold];
    let secured = run(Command::new("systemd-analyze").args(command).arg(&path)).unwrap();
    let said = written(&secured);
    assert!(said.contains("Overall exposure level"), "{said}");
    assert!(secured.status.success(), "{said}");

    // A line that it does not know is said.
    let misspelt = fs::read_to_string(&path).unwrap().replace("ProtectHome=", "ProtektHome=");
    fs::write(&path, misspelt).unwrap();
    let said = written(&run(Command::new("systemd-analyze").arg("verify").arg(&path)).unwrap());
    assert!(said.contains("ProtektHome"), "{said}");
}

#[test]
fn the_unit_is_stopped_later_than_the_program_stops_by_itself() {
    let unit = file(&format!("systemd/{UNIT}"));
    let setting = |name: &str| {
        let prefix = format!("{name}=");
        unit.lines().find_map(|it| it.strip_prefix(&prefix)).unwrap().to_owned()
    };
    assert_eq!(setting("TimeoutStopSec"), "10s");
    // What another start does not mend.
    assert_eq!(setting("RestartPreventExitStatus"), "64 78");
    assert_eq!(setting("Restart"), "on-failure");
}
