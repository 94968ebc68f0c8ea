//! The binaries as processes: what they print, how they end, and what they leave behind.

mod check;
mod check_rights;
mod checkpoints;
mod command_line;
mod configuration;
mod dry_run;
#[cfg(feature = "filter")]
mod filter;
mod health;
mod logs;
mod metrics;
mod nomad_leader;
mod once;
mod output;
mod scrape;
mod secrets;
mod signals;

use std::path::Path;

use nomad_firehose::{
    cursor::{Saved, decode},
    standin::{consul::Consul, nomad::Nomad},
};

use self::firehose::{Program, Served, change};
use crate::{firehose, support::Version};

/// A Nomad with so many nodes and allocations, and a Consul, both behind ports.
struct World {
    nomad: Nomad,
    consul: Consul,
    nomad_port: Served,
    consul_port: Served,
}

impl World {
    async fn with(changes: usize) -> Self {
        let (nomad, consul) = (Nomad::new(Version::V2_0), Consul::new());
        (0..changes).for_each(|number| change(&nomad, number));
        let nomad_port = Served::new(nomad.router()).await;
        let consul_port = Served::new(consul.router()).await;
        Self { nomad, consul, nomad_port, consul_port }
    }

    /// The binary of a stream, elected by Consul.
    fn elected(&self, stream: &str) -> Program {
        self.set(Program::stream(stream))
    }

    /// The binary of a stream, alone, with its checkpoint in a directory.
    fn solo(&self, stream: &str, dir: &Path) -> Program {
        let program = self.set(Program::stream(stream)).set("NOMAD_FIREHOSE_LEADER", "solo");
        program.set("NOMAD_FIREHOSE_STATE_DIR", dir.to_str().unwrap())
    }

    /// The binary of a stream, elected by Nomad's own variables.
    fn by_nomad(&self, stream: &str) -> Program {
        let program = Program::stream(stream).set("NOMAD_FIREHOSE_LEADER", "nomad");
        program.set("SINK_TYPE", "stdout").set("NOMAD_ADDR", &self.nomad_port.address)
    }

    fn set(&self, program: Program) -> Program {
        let program =
            program.set("SINK_TYPE", "stdout").set("NOMAD_ADDR", &self.nomad_port.address);
        program.set("CONSUL_HTTP_ADDR", &self.consul_port.address)
    }
}

/// The index up to which the checkpoint in a directory says that nodes are published.
fn saved_floor(dir: &Path) -> Option<u64> {
    let head = std::fs::read(dir.join("nodes.cursor")).ok()?;
    match decode(Some(&head), &[], None).0 {
        Saved::Ours(cursor) => Some(cursor.floor().0),
        other => panic!("not a checkpoint: {other:?}"),
    }
}
