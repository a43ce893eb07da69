# The effect of variables on the parts. "terraform test" runs this file with the real providers; terraform/check
# runs the same file with fake providers.

variables {
  project_id = "my-project"
}

run "nothing_runs_and_nothing_is_open_by_default" {
  command = plan

  assert {
    condition     = length(google_cloud_run_v2_service.gateway) == 0
    error_message = "There can be no gateway without an image."
  }
  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.function : f.service_config[0].min_instance_count == 0])
    error_message = "An idle function must cost nothing."
  }
  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.function : f.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"])
    error_message = "A function must not be reachable from outside."
  }
  assert {
    condition     = google_storage_bucket.source.public_access_prevention == "enforced"
    error_message = "The sources must not be public."
  }
  assert {
    condition     = length(google_firestore_backup_schedule.daily) == 1
    error_message = "There must be backups."
  }
  assert {
    condition     = length(google_kms_key_ring.this) + length(google_secret_manager_secret.platform) == 0 && !contains(keys(google_project_service.api), "cloudkms.googleapis.com")
    error_message = "A resource of a platform is made, but no platform is on."
  }
}

run "metrics_need_a_token" {
  command = plan

  variables {
    gateway_image         = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    metrics_token_version = "3"
  }

  assert {
    condition = one([
      for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env :
      "${e.value_source[0].secret_key_ref[0].secret} ${e.value_source[0].secret_key_ref[0].version}" if e.name == "METRICS_TOKEN"
    ]) == "parley-metrics-token 3"
    error_message = "The token does not reach the gateway."
  }
}

run "gateway" {
  command = plan

  variables {
    gateway_image         = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    gateway_min_instances = 1
    gateway_concurrency   = 250
  }

  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].timeout == "3600s"
    error_message = "The request timeout must be the maximum of Cloud Run."
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].max_instance_request_concurrency == 250
    error_message = "gateway_concurrency has no effect."
  }
  assert {
    condition     = one([for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env : e.value if e.name == "WS_MAX_CONNECTIONS"]) == "250"
    error_message = "The gateway does not get its limit of sockets."
  }
  assert {
    condition     = length([for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env : e if e.name == "METRICS_TOKEN"]) == 0
    error_message = "A secret without a version prevents the start of the gateway."
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].containers[0].resources[0].cpu_idle == false
    error_message = "The CPU must stay allocated between requests: answers arrive without a request."
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].containers[0].startup_probe[0].http_get[0].path == "/readyz"
    error_message = "Clients must wait until the instance is ready."
  }
  assert {
    condition     = one([for t in google_cloud_run_v2_service.gateway[0].traffic : "${t.type} ${t.percent}"]) == "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST 100"
    error_message = "The latest revision must get all traffic, also after a manual rollback."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.public) == 1 && length(google_monitoring_alert_policy.no_gateway) == 1
    error_message = "A gateway that always runs must be public and have an alert."
  }
}

run "private_gateway" {
  command = plan

  variables {
    gateway_image  = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    gateway_public = false
  }

  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.public) == 0
    error_message = "gateway_public has no effect."
  }
}

run "model_with_a_key" {
  command = plan

  variables {
    model_provider    = "openai"
    model_name        = "some-model"
    model_key_version = "3"
  }

  assert {
    condition = one([
      for s in google_cloudfunctions2_function.function["personality"].service_config[0].secret_environment_variables : "${s.key} ${s.secret} ${s.version}"
    ]) == "OPENAI_API_KEY parley-model-key 3"
    error_message = "The key does not reach the function."
  }
  assert {
    condition     = alltrue([for name, f in google_cloudfunctions2_function.function : length(f.service_config[0].secret_environment_variables) == 0 if name != "personality"])
    error_message = "A key reaches a function without use for the key."
  }
  assert {
    condition     = length(google_project_iam_member.vertex) == 0
    error_message = "Vertex AI is not used."
  }
}

run "protection_and_backups_can_be_switched_off" {
  command = plan

  variables {
    protect_data = false
    backup_days  = 0
  }

  assert {
    condition     = google_firestore_database.this.delete_protection_state == "DELETE_PROTECTION_DISABLED" && google_firestore_database.this.deletion_policy == "DELETE"
    error_message = "protect_data has no effect."
  }
  assert {
    condition     = length(google_firestore_backup_schedule.daily) == 0
    error_message = "backup_days has no effect."
  }
}

run "the_largest_sizes" {
  command = plan

  variables {
    gateway_cpu      = "8"
    gateway_memory   = "32Gi"
    functions_memory = "4Gi"
  }
}

run "swept_after_a_slow_write" {
  command = plan

  variables {
    environment = { gateway = { WS_WRITE_TIMEOUT = "1m" }, dlq = { SWEEP_GRACE = "1m10s" } }
  }
}
