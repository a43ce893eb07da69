# Values that the configuration refuses. "terraform test" runs this file with the real providers; terraform/check
# runs the same file with fake providers.

variables {
  project_id = "my-project"
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

# These validations compare several variables. The single values are valid here.
run "refused_combinations" {
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

# Cloud Run refuses some combinations of sizes.
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

run "a_key_without_a_model" {
  command = plan

  variables {
    model_key_version = "1"
  }

  expect_failures = [var.model_key_version]
}

run "secret_in_plain_text" {
  command = plan

  variables {
    environment = { personality = { OPENAI_API_KEY = "sk-…" } }
  }

  expect_failures = [var.environment]
}
