# Reads every stream in every namespace, and nothing else.
namespace "*" {
  capabilities = ["list-jobs", "read-job"]
}

node {
  policy = "read"
}
