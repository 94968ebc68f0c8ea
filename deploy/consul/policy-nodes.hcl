# For the stream nodes alone: its lock, its position and its session.
key_prefix "nomad-firehose/nodes." {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
