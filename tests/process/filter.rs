//! What is published can be chosen by an expression.

use serde_json::json;

use super::{
    World,
    firehose::{CONFIGURATION, Program, bodies},
};
use crate::support::{Table, allocation};

const FAILED: &str = "type == \"nomad.allocation.task-event\" && data.TaskEvent.FailsTask";

#[tokio::test]
async fn only_the_events_that_fail_a_task_are_published() {
    let world = World::with(20).await;
    let mut failing = allocation("failing", &[9_001, 9_002]);
    failing["TaskStates"]["main"]["Events"][1]["FailsTask"] = json!(true);
    world.nomad.upsert(Table::Allocations, failing);
    let running = world.elected("allocations").set("NOMAD_FIREHOSE_FILTER", FAILED).start();
    running.publishes(1).await;
    let finished = running.stop().await;
    let published = bodies(&finished.out);
    assert_eq!(published.len(), 1);
    assert_eq!(published[0]["TaskEvent"]["Time"], 9_002);
    assert!(finished.log.contains("records_filtered=41"), "{}", finished.log);
}

#[tokio::test]
async fn a_wrong_expression_is_told_with_its_place_before_anything_begins() {
    let program = Program::stream("nodes").set("SINK_TYPE", "stdout");
    let finished =
        program.set("NOMAD_FIREHOSE_FILTER", "data.A == 1 &&\n  date.B == 2").run().await;
    assert_eq!((finished.code, finished.out.as_str()), (Some(CONFIGURATION), ""));
    let said = "NOMAD_FIREHOSE_FILTER: line 2, column 3, at `date.B == 2`: there is no variable \
                `date`; did you mean `data`?\n";
    assert!(finished.log.contains(said), "{}", finished.log);
}
