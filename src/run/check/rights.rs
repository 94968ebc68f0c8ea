//! The rules of Nomad's policies that a stream needs (pure).

use crate::streams::{Resource, Topic};

const NODES: &str = "`node { policy = \"read\" }`";

/// Whether its objects are in namespaces.
pub(super) fn has_namespaces<R: Resource>() -> bool {
    R::TOPIC != Topic::Carries("Node")
}

/// Whether what it publishes is read by id, since its list has it in short.
pub(super) fn reads_by_id<R: Resource>() -> bool {
    matches!(R::TOPIC, Topic::Carries("Node" | "Job"))
}

/// What the list needs.
pub(super) fn to_list<R: Resource>(namespace: &str) -> String {
    match R::TOPIC.name() {
        "Node" => NODES.to_owned(),
        "Job" => capability(namespace, "list-jobs"),
        _ => capability(namespace, "read-job"),
    }
}

/// What an object by its id, and an event of it, need.
pub(super) fn to_read<R: Resource>(namespace: &str) -> String {
    match R::TOPIC.name() {
        "Node" => NODES.to_owned(),
        _ => capability(namespace, "read-job"),
    }
}

fn capability(namespace: &str, capability: &str) -> String {
    format!("`namespace \"{namespace}\" {{ capabilities = [\"{capability}\"] }}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Allocations, JobListStubs, Jobs, Nodes};

    #[test]
    fn a_stream_needs_what_nomad_asks_of_its_list_its_objects_and_its_events() {
        let read_job = "`namespace \"a\" { capabilities = [\"read-job\"] }`";
        let list_jobs = "`namespace \"*\" { capabilities = [\"list-jobs\"] }`";
        assert_eq!(to_list::<Nodes>("*"), NODES);
        assert_eq!(to_read::<Nodes>("*"), NODES);
        assert_eq!(to_list::<Allocations>("a"), read_job);
        assert_eq!(to_list::<Jobs>("*"), list_jobs);
        assert_eq!(to_read::<Jobs>("a"), read_job);
        assert_eq!(to_list::<JobListStubs>("*"), list_jobs);
        assert!(reads_by_id::<Nodes>() && reads_by_id::<Jobs>());
        assert!(!reads_by_id::<JobListStubs>() && !reads_by_id::<Allocations>());
        assert!(!has_namespaces::<Nodes>() && has_namespaces::<Jobs>());
    }
}
