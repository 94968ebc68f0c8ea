# For the stream evaluations alone: its lock, its position and its session.
key_prefix "nomad-firehose/evaluations." {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
