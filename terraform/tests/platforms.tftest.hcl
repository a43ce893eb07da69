# The effect of the variables of Twitch and Discord. "terraform test" runs this file with the real providers;
# terraform/check runs the same file with fake providers.

variables {
  project_id = "my-project"
}

run "twitch_before_its_secret_has_a_value" {
  command = plan

  variables {
    platforms        = ["twitch"]
    twitch_client_id = "abc123"
  }

  assert {
    condition     = google_kms_crypto_key.tokens["twitch"].rotation_period == "7776000s" && length(google_secret_manager_secret.platform) == 2
    error_message = "The key or the secrets of Twitch are missing."
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
    error_message = "A secret without a version prevents the start of the gateway."
  }

  assert {
    condition = one([
      for s in google_cloudfunctions2_function.function["whisper"].service_config[0].secret_environment_variables : "${s.key} ${s.secret} ${s.version}"
    ]) == "TWITCH_CLIENT_SECRET parley-twitch-client-secret 2"
    error_message = "The client secret does not reach the function."
  }
  assert {
    condition     = alltrue([for name, f in google_cloudfunctions2_function.function : length(f.service_config[0].secret_environment_variables) == 0 if name != "whisper"])
    error_message = "The client secret reaches a function without use for the secret."
  }
  assert {
    condition     = google_kms_key_ring.this["twitch"].location == "global"
    error_message = "kms_location has no effect."
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
    error_message = "The mapping of roles does not reach enrichment."
  }
  assert {
    condition     = length(google_kms_key_ring.this) == 0
    error_message = "Discord needs no key: Parley stores no user tokens of Discord."
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

run "invalid_channel_name" {
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

run "channels_without_a_running_instance" {
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

run "client_secret_without_client_id" {
  command = plan

  variables {
    platforms                    = ["twitch"]
    twitch_client_secret_version = "1"
  }

  expect_failures = [var.twitch_client_secret_version]
}
