# For the stream jobliststubs alone: its lock, its position and its session.
key_prefix "nomad-firehose/jobliststub." {
  policy = "write"
}

session_prefix "" {
  policy = "write"
}
