# For every stream but nodes: allocations, evaluations, jobs, jobliststubs and deployments.
namespace "*" {
  capabilities = ["list-jobs", "read-job"]
}
