locals {
  gateway = var.gateway_image == "" ? [] : [var.gateway_image]

  gateway_environment = merge(
    local.deployment_environment,
    # The maximum of concurrent requests per instance. An open socket counts as a request.
    { WS_MAX_CONNECTIONS = tostring(var.gateway_concurrency) },
    local.gateway_platform_environment,
    lookup(var.environment, "gateway", {}),
  )
}

resource "google_cloud_run_v2_service" "gateway" {
  count = length(local.gateway)

  name     = "${var.name}-gateway"
  location = var.region
  ingress  = "INGRESS_TRAFFIC_ALL"

  # The service holds no data, and can be created again.
  deletion_protection = false

  # Explicit, because the traffic would otherwise stay on the revision of a manual rollback, also after an apply.
  traffic {
    type    = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    percent = 100
  }

  template {
    service_account                  = google_service_account.part["gateway"].email
    timeout                          = "3600s" # a socket is a request; Cloud Run's maximum
    max_instance_request_concurrency = var.gateway_concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = var.gateway_min_instances
      max_instance_count = var.gateway_max_instances
    }

    containers {
      image = local.gateway[count.index]

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = var.gateway_cpu
          memory = var.gateway_memory
        }
        # Answers arrive by subscription, without a request, so the CPU must stay allocated.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = local.gateway_environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secret_environment["gateway"]
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value.secret
              version = env.value.version
            }
          }
        }
      }

      # An instance is ready when its subscription exists and Firestore answers.
      startup_probe {
        http_get {
          path = "/readyz"
        }
        period_seconds    = 2
        timeout_seconds   = 2
        failure_threshold = 30
      }

      # Checks only the process: a restart solves no other problem.
      liveness_probe {
        http_get {
          path = "/healthz"
        }
        period_seconds    = 15
        timeout_seconds   = 5
        failure_threshold = 4
      }
    }
  }

  depends_on = [
    google_project_iam_member.firestore,
    google_project_iam_member.gateway,
    google_pubsub_topic_iam_member.gateway,
    google_pubsub_topic_iam_member.publisher,
    google_secret_manager_secret_iam_member.metrics_token,
    google_secret_manager_secret_iam_member.platform,
    google_kms_crypto_key_iam_member.tokens,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "public" {
  count = var.gateway_public ? length(local.gateway) : 0

  name     = google_cloud_run_v2_service.gateway[0].name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

resource "google_cloud_run_domain_mapping" "gateway" {
  count = var.domain == "" ? 0 : length(local.gateway)

  name     = var.domain
  location = var.region

  metadata {
    namespace = var.project_id
  }
  spec {
    route_name = google_cloud_run_v2_service.gateway[0].name
  }

  # Google adds metadata. Each difference would replace the mapping, and the domain would wait for a new certificate
  # (https://github.com/hashicorp/terraform-provider-google/issues/8053).
  lifecycle {
    ignore_changes = [metadata]
  }
}
