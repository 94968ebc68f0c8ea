# For the stream jobs alone: its lock, its position and its session.
key_prefix "nomad-firehose/jobs." {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
