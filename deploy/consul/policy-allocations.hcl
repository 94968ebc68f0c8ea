# For the stream allocations alone: its lock, its position and its session.
key_prefix "nomad-firehose/allocations." {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
