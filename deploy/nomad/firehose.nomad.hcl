# Every stream as a group of two copies, of which Consul elects the one that publishes.
#
#   nomad job run -var image=images.example/nomad-firehose:0.1.0 deploy/nomad/firehose.nomad.hcl
#
# Needs Nomad 1.9.6 or newer for the event stream by the task's identity; with 1.7 and newer lists are
# polled. The policy is attached to the job once, and Consul is to trust Nomad's identities:
#
#   nomad acl policy apply -namespace default -job firehose nomad-firehose deploy/nomad/policy-all.hcl
#   nomad setup consul

variable "image" {
  type        = string
  description = "The image with all programs, as the Dockerfile's stage nomad-firehose makes it"
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "streams" {
  type        = list(string)
  description = "What to publish; each stream is independent of the others"
  default     = ["allocations", "nodes", "evaluations", "jobs", "jobliststubs", "deployments"]
}

variable "consul_address" {
  type        = string
  description = "The Consul agent as a container reaches it"
  default     = "http://172.17.0.1:8500"
}

variable "exchange" {
  type        = string
  description = "An exchange of RabbitMQ that exists"
  default     = "nomad"
}

job "firehose" {
  type        = "service"
  datacenters = var.datacenters

  # One copy after the other, so that the other can take over meanwhile.
  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "3m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  dynamic "group" {
    for_each = var.streams
    labels   = [group.value]

    content {
      count = 2

      # Two copies on one machine would go down with it.
      constraint {
        operator = "distinct_hosts"
        value    = "true"
      }

      network {
        port "http" {
          to = 9464
        }
      }

      # What it cannot go on without is waited for, so that an end is a defect or a wrong setting.
      restart {
        attempts = 5
        interval = "10m"
        delay    = "15s"
        mode     = "delay"
      }

      service {
        name = "nomad-firehose-${group.value}"
        port = "http"
        tags = ["metrics"]

        check {
          name     = "live"
          type     = "http"
          path     = "/live"
          interval = "10s"
          timeout  = "3s"

          # A process that does not answer for a minute is started again; one that waits for Consul
          # or for the receiver does answer.
          check_restart {
            limit = 6
            grace = "30s"
          }
        }

        check {
          name     = "ready"
          type     = "http"
          path     = "/ready"
          interval = "10s"
          timeout  = "3s"
        }
      }

      task "firehose" {
        driver = "docker"

        config {
          image = var.image
          args  = [group.value]
          ports = ["http"]

          readonly_rootfs = true
          cap_drop        = ["all"]
          # Nomad writes secrets/consul_token for root and its group only.
          group_add = ["0"]
        }

        # Rights in Nomad: the task's own identity, over the socket of the Task API.
        identity {
          env  = true
          file = true
        }

        # Rights in Consul: a token that Nomad gets for this identity, kept in secrets/consul_token.
        identity {
          name = "consul_default"
          aud  = ["consul.io"]
          ttl  = "1h"
        }

        consul {}

        env {
          NOMAD_ADDR              = "unix://${NOMAD_SECRETS_DIR}/api.sock"
          NOMAD_FIREHOSE_LISTEN   = "0.0.0.0:9464"
          NOMAD_FIREHOSE_FORMAT   = "cloudevents"
          CONSUL_HTTP_ADDR        = var.consul_address
          CONSUL_HTTP_TOKEN_FILE  = "${NOMAD_SECRETS_DIR}/consul_token"
          SINK_TYPE               = "amqp"
          SINK_AMQP_EXCHANGE      = var.exchange
          SINK_AMQP_ROUTING_KEY   = "{stream}.{namespace}.{job}"
          LOG_FORMAT              = "json"
        }

        # The password of the broker is in a Nomad variable that only this job reads:
        #   nomad var put nomad/jobs/firehose amqp=amqp://firehose:secret@mq.example/nomad
        template {
          destination = "${NOMAD_SECRETS_DIR}/sink.env"
          env         = true
          data        = <<-TEMPLATE
            {{ with nomadVar "nomad/jobs/firehose" }}SINK_AMQP_CONNECTION={{ .amqp }}{{ end }}
          TEMPLATE
        }

        # More than NOMAD_FIREHOSE_GRACE (3 s) and the half second after it, so that the lock is given
        # back and what was confirmed is saved.
        kill_signal  = "SIGTERM"
        kill_timeout = "10s"

        resources {
          cpu        = 100
          memory     = 64
          memory_max = 256
        }
      }
    }
  }
}
