# For the stream nodes alone.
node {
  policy = "read"
}
