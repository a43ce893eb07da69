# What a deployment may be told, and what becomes of it. Run by `terraform test`, with the real providers or, as
# terraform/check does, with the stand-ins.

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
    error_message = "An idle function is to cost nothing."
  }
  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.function : f.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"])
    error_message = "A function is not to be reached from outside."
  }
  assert {
    condition     = google_storage_bucket.source.public_access_prevention == "enforced"
    error_message = "The sources are not to be public."
  }
  assert {
    condition     = length(google_firestore_backup_schedule.daily) == 1
    error_message = "There are to be backups."
  }
  assert {
    condition     = length(google_kms_key_ring.this) + length(google_secret_manager_secret.platform) == 0 && !contains(keys(google_project_service.api), "cloudkms.googleapis.com")
    error_message = "Something of a platform is made that nobody asked for."
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
    error_message = "A socket is to last as long as Cloud Run lets it."
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].max_instance_request_concurrency == 250
    error_message = "gateway_concurrency has no effect."
  }
  assert {
    condition     = one([for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env : e.value if e.name == "WS_MAX_CONNECTIONS"]) == "250"
    error_message = "The gateway is not told how many sockets it gets."
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].containers[0].resources[0].cpu_idle == false
    error_message = "Without a processor between requests, answers would wait for one."
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway[0].template[0].containers[0].startup_probe[0].http_get[0].path == "/readyz"
    error_message = "Clients are to wait until the instance is ready."
  }
  assert {
    condition     = one([for t in google_cloud_run_v2_service.gateway[0].traffic : "${t.type} ${t.percent}"]) == "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST 100"
    error_message = "What is applied is to reach people, also after a rollback by hand."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.public) == 1 && length(google_monitoring_alert_policy.no_gateway) == 1
    error_message = "A gateway that always runs is to be public, and missed."
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
    error_message = "A key reaches a function that has no use for it."
  }
  assert {
    condition     = length(google_project_iam_member.vertex) == 0
    error_message = "Vertex AI is not used."
  }
}

run "twitch_before_its_secret_has_a_value" {
  command = plan

  variables {
    platforms        = ["twitch"]
    twitch_client_id = "abc123"
  }

  assert {
    condition     = google_kms_crypto_key.tokens["twitch"].rotation_period == "7776000s" && length(google_secret_manager_secret.platform) == 2
    error_message = "What Twitch needs is not made."
  }
  assert {
    condition     = !contains(keys(google_cloudfunctions2_function.function["whisper"].service_config[0].environment_variables), "TWITCH_CLIENT_ID")
    error_message = "Without the client secret, a part with a client id would not start."
  }
}

run "twitch" {
  command = plan

  variables {
    platforms                    = ["twitch"]
    twitch_client_id             = "abc123"
    twitch_client_secret_version = "2"
    twitch_bot_user_id           = "9"
    twitch_channels              = ["ada", "bob"]
    kms_location                 = "global"
    gateway_image                = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    gateway_min_instances        = 1
  }

  assert {
    condition = one([
      for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env :
      "${e.value_source[0].secret_key_ref[0].secret} ${e.value_source[0].secret_key_ref[0].version}" if e.name == "TWITCH_CLIENT_SECRET"
    ]) == "parley-twitch-client-secret 2"
    error_message = "The client secret does not reach the gateway."
  }
  assert {
    condition     = one([for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env : e.value if e.name == "TWITCH_CHANNELS"]) == "ada,bob"
    error_message = "The channels do not reach the gateway."
  }
  assert {
    condition     = length([for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env : e if e.name == "OAUTH_OPERATOR_SECRET"]) == 0
    error_message = "A secret without a value keeps the gateway from starting."
  }

  assert {
    condition = one([
      for s in google_cloudfunctions2_function.function["whisper"].service_config[0].secret_environment_variables : "${s.key} ${s.secret} ${s.version}"
    ]) == "TWITCH_CLIENT_SECRET parley-twitch-client-secret 2"
    error_message = "The client secret does not reach the function."
  }
  assert {
    condition     = alltrue([for name, f in google_cloudfunctions2_function.function : length(f.service_config[0].secret_environment_variables) == 0 if name != "whisper"])
    error_message = "The client secret reaches a function that has no use for it."
  }
  assert {
    condition     = google_kms_key_ring.this["twitch"].location == "global"
    error_message = "kms_location has no effect."
  }
}

run "data_can_be_given_up" {
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

run "refused" {
  command = plan

  variables {
    project_id              = "My Project"
    region                  = "somewhere"
    name                    = "-"
    bus_prefix              = "google."
    log_level               = "chatty"
    environment             = { personality = { REPLY_MAX_CHAR = "500" } }
    firestore_location      = "eu"
    firestore_database      = "X"
    backup_days             = 99
    gateway_image           = "gateway:latest"
    gateway_min_instances   = -1
    gateway_concurrency     = 1001
    gateway_cpu             = "0.5"
    domain                  = "https://chat.example.com"
    functions_runtime       = "python312"
    functions_min_instances = 0.5
    functions_concurrency   = 0
    functions_memory        = "512"
    model_provider          = "oracle"
    platforms               = ["irc"]
    twitch_bot_user_id      = "parley"
    oauth_allowed_users     = ["ada"]
    public_url              = "http://chat.example.com"
    discord_roles           = { "a,b" = "moderator" }
    kms_location            = "Here"
    alert_emails            = ["me"]
    alert_unacked_seconds   = 1
    budget                  = { billing_account = "mine", amount = 20 }
  }

  expect_failures = [
    var.project_id, var.region, var.name, var.bus_prefix, var.log_level, var.environment, var.firestore_location,
    var.firestore_database, var.backup_days, var.gateway_image, var.gateway_min_instances, var.gateway_concurrency,
    var.gateway_cpu, var.domain, var.functions_runtime,
    var.functions_min_instances, var.functions_concurrency, var.functions_memory, var.model_provider,
    var.platforms, var.twitch_bot_user_id, var.oauth_allowed_users, var.public_url, var.discord_roles, var.kms_location, var.alert_emails, var.alert_unacked_seconds, var.budget,
  ]
}

run "swept_before_it_can_be_settled" {
  command = plan

  variables {
    environment = { dlq = { SWEEP_GRACE = "0s" } }
  }

  expect_failures = [var.environment]
}

run "swept_before_a_slow_write_can_be_settled" {
  command = plan

  variables {
    environment = { gateway = { WS_WRITE_TIMEOUT = "11s" } }
  }

  expect_failures = [var.environment]
}

run "swept_after_a_slow_write" {
  command = plan

  variables {
    environment = { gateway = { WS_WRITE_TIMEOUT = "1m" }, dlq = { SWEEP_GRACE = "1m10s" } }
  }
}

# These look at other variables, which have to be right for that.
run "refused_together" {
  command = plan

  variables {
    gateway_min_instances   = 11
    gateway_max_instances   = 10
    gateway_memory          = "lots"
    functions_min_instances = 2
    functions_max_instances = 1
    model_provider          = "gemini"
    model_key_version       = "one"
    platforms               = ["twitch"]
    twitch_client_id        = "My Bot"
  }

  expect_failures = [var.gateway_max_instances, var.gateway_memory, var.functions_max_instances, var.model_name, var.model_key_version, var.twitch_client_id]
}

# Cloud Run has sizes that don't go together.
run "too_little_memory_for_four_cpus" {
  command = plan

  variables {
    gateway_cpu      = "4"
    gateway_memory   = "1Gi"
    functions_memory = "64Mi"
  }

  expect_failures = [var.gateway_memory, var.functions_memory]
}

run "too_much_memory_for_one_cpu" {
  command = plan

  variables {
    gateway_memory   = "4097Mi"
    functions_memory = "5Gi"
  }

  expect_failures = [var.gateway_memory, var.functions_memory]
}

run "too_little_memory_for_the_second_generation" {
  command = plan

  variables {
    gateway_memory = "256Mi"
  }

  expect_failures = [var.gateway_memory]
}

run "the_largest_sizes" {
  command = plan

  variables {
    gateway_cpu      = "8"
    gateway_memory   = "32Gi"
    functions_memory = "4Gi"
  }
}

run "discord" {
  command = plan

  variables {
    platforms                 = ["discord"]
    discord_bot_token_version = "1"
    discord_roles             = { Mods = "moderator", "Server Booster" = "subscriber" }
    gateway_image             = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    gateway_min_instances     = 1
  }

  assert {
    condition = one([
      for e in google_cloud_run_v2_service.gateway[0].template[0].containers[0].env :
      "${e.value_source[0].secret_key_ref[0].secret} ${e.value_source[0].secret_key_ref[0].version}" if e.name == "DISCORD_BOT_TOKEN"
    ]) == "parley-discord-bot-token 1"
    error_message = "The bot's token does not reach the gateway."
  }
  assert {
    condition     = google_cloudfunctions2_function.function["enrichment"].service_config[0].environment_variables["DISCORD_ROLES"] == "Mods=moderator,Server Booster=subscriber"
    error_message = "What roles mean does not reach enrichment."
  }
  assert {
    condition     = length(google_kms_key_ring.this) == 0
    error_message = "Discord has no tokens of people that would need a key."
  }
}

run "discord_without_its_platform" {
  command = plan

  variables {
    discord_bot_token_version = "1"
    gateway_min_instances     = 1
  }

  expect_failures = [var.discord_bot_token_version]
}

run "twitch_without_its_platform" {
  command = plan

  variables {
    twitch_client_id = "abc123"
  }

  expect_failures = [var.twitch_client_id]
}

run "no_name_of_a_channel" {
  command = plan

  variables {
    platforms                    = ["twitch"]
    twitch_client_id             = "abc123"
    twitch_client_secret_version = "2"
    twitch_bot_user_id           = "9"
    twitch_channels              = ["#Ada"]
    gateway_min_instances        = 1
  }

  expect_failures = [var.twitch_channels]
}

run "nobody_listens" {
  command = plan

  variables {
    platforms                    = ["twitch"]
    twitch_client_id             = "abc123"
    twitch_client_secret_version = "2"
    twitch_bot_user_id           = "9"
    twitch_channels              = ["ada"]
  }

  expect_failures = [var.twitch_channels]
}

run "a_secret_of_nobody" {
  command = plan

  variables {
    platforms                    = ["twitch"]
    twitch_client_secret_version = "1"
  }

  expect_failures = [var.twitch_client_secret_version]
}

run "a_key_without_a_model" {
  command = plan

  variables {
    model_key_version = "1"
  }

  expect_failures = [var.model_key_version]
}

run "a_secret_in_the_clear_is_refused" {
  command = plan

  variables {
    environment = { personality = { OPENAI_API_KEY = "sk-…" } }
  }

  expect_failures = [var.environment]
}
