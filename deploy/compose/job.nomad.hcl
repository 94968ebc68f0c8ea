# Something to watch: a task that ends again and again, and one that stays. They need no container
# engine, and Nomad in development mode runs them.
job "try-out" {
  type = "service"

  group "try-out" {
    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "delay"
    }

    task "ends" {
      driver = "raw_exec"

      config {
        command = "/bin/sleep"
        args    = ["20"]
      }
    }

    task "stays" {
      driver = "raw_exec"

      config {
        command = "/bin/sleep"
        args    = ["86400"]
      }
    }
  }
}
