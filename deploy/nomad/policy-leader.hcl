# Beside the policy of the stream, for NOMAD_FIREHOSE_LEADER=nomad: the lock and the checkpoints.
# Nothing is listed or deleted.
namespace "default" {
  variables {
    path "nomad-firehose/*" {
      capabilities = ["read", "write"]
    }
  }
}
