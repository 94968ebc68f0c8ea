//! A Nomad whose changes a process publishes through a sink that the test configures, and a place
//! for what the process keeps.

use std::{fs, ops::Range};

use nomad_firehose::standin::nomad::{Nomad, Table, Version};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::{
    firehose::{CONFIGURATION, Finished, Program, Served, bodies},
    support::{evaluation, uuid},
};

pub struct Source {
    pub nomad: Nomad,
    port: Served,
    dir: TempDir,
}

impl Source {
    pub async fn new() -> Self {
        let nomad = Nomad::new(Version::V2_0);
        let port = Served::new(nomad.router()).await;
        Self { nomad, port, dir: tempfile::tempdir().unwrap() }
    }

    /// The binary of a stream, without its sink.
    pub fn program(&self, stream: &str) -> Program {
        Program::stream(stream)
            .set("NOMAD_ADDR", &self.port.address)
            .set("NOMAD_FIREHOSE_LEADER", "solo")
            .set("NOMAD_FIREHOSE_STATE_DIR", self.path("state"))
            .set("NOMAD_FIREHOSE_DEAD_LETTER", self.path("dead-letters"))
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).into_os_string().into_string().unwrap()
    }

    /// A directory for a process of its own.
    pub fn directory(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file at once, as whatever rotates secrets does; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let (path, next) = (self.path(name), self.path(&format!("{name}.next")));
        fs::write(&next, text).unwrap();
        fs::rename(&next, &path).unwrap();
        path
    }

    /// The records that were given up.
    pub fn dead_letters(&self) -> Vec<Value> {
        bodies(&fs::read_to_string(self.path("dead-letters")).unwrap())
    }

    pub fn has_checkpoint(&self) -> bool {
        let entries = fs::read_dir(self.path("state")).unwrap();
        entries
            .map(|it| it.unwrap().path())
            .any(|it| it.extension().is_some_and(|it| it == "cursor"))
    }

    /// Evaluations of a job with these numbers, all at one index.
    pub fn evaluations(&self, job: &str, numbers: Range<usize>) {
        let row = |it| (Table::Evaluations, numbered(it, job));
        self.nomad.upsert_many(numbers.map(row).collect::<Vec<_>>());
    }
}

/// The evaluation with this number.
pub fn numbered(number: usize, job: &str) -> Map<String, Value> {
    let mut evaluation = evaluation(&format!("{number:05}"), "default", "pending");
    evaluation.insert("JobID".into(), job.into());
    evaluation
}

/// The id of the evaluation with this number.
pub fn id(number: usize) -> Value {
    uuid(&format!("{number:05}")).into()
}

/// Makes sure that a program is told of each of these settings that it is wrong, once and of all
/// together; what it wrote.
pub async fn each_problem_once(mut program: Program, wrong: &[(&str, &str)]) -> Finished {
    for (name, value) in wrong {
        program = program.set(name, value);
    }
    let finished = program.run().await;
    assert_eq!(finished.code, Some(CONFIGURATION));
    for (name, _) in wrong {
        let lines = finished.log.lines().filter(|it| it.starts_with(&format!("{name}: "))).count();
        assert_eq!(lines, 1, "{name}: {}", finished.log);
    }
    finished
}

/// Makes sure that these evaluations came, each once.
pub fn each_once(received: &[(String, Value)], numbers: Range<usize>) {
    let mut came: Vec<_> = received.iter().map(|(_, body)| body["ID"].to_string()).collect();
    came.sort();
    let mut wanted: Vec<_> = numbers.map(|it| id(it).to_string()).collect();
    wanted.sort();
    assert_eq!(came, wanted);
}
