# For every stream: its lock, its position and its session.
key_prefix "nomad-firehose/" {
  policy = "write"
}

# About the name of the agent's node; name that node where every copy speaks to the same one.
session_prefix "" {
  policy = "write"
}
