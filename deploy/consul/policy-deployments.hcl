# For the stream deployments alone: its lock, its position and its session.
key_prefix "nomad-firehose/deployments." {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
