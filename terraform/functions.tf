# One Cloud Function for each function in the topology. To add a function, add a subscription to topology.json and a
# package below functions/.

locals {
  root      = "${path.module}/.."
  functions = toset(compact([for s in local.topology.subscriptions : try(s.function, "")]))

  # The source of a function: its own package and the shared packages, without tests. A change of another function or of
  # a test therefore deploys nothing.
  sources = {
    for f in local.functions : f => [
      for path in setunion(fileset(local.root, "functions/${f}/**"), fileset(local.root, "shared/**"), ["go.mod", "go.sum"]) :
      path if !can(regex("_test\\.go$|\\.test$|(^|/)testdata/|(^|/)\\.", path))
    ]
  }

  # A function must answer before the acknowledgement deadline. After the deadline, Pub/Sub pushes the message again.
  timeouts = {
    for f in local.functions : f => max([for s in local.topology.subscriptions : try(s.ackDeadlineSeconds, 10) if try(s.function, "") == f]...)
  }

  # The topics of each publisher. Every part also publishes dead letters.
  publishes = {
    gateway     = ["internal.ingress.v1", "internal.egress.v1"] # an instance announces a login to all instances
    enrichment  = ["internal.user.enriched.v1", "internal.egress.v1"]
    personality = ["internal.egress.v1"]
    dlq         = ["internal.ingress.v1", "internal.user.enriched.v1", "internal.egress.v1"] # the sweep finishes redrives
  }
  publishers = {
    for pair in flatten([
      for part in concat(["gateway"], tolist(local.functions)) : [
        for topic in concat(lookup(local.publishes, part, []), [local.topology.deadLetterTopic]) : { part = part, topic = topic }
      ]
    ]) : "${pair.part}/${pair.topic}" => pair
  }

  deployment_environment = {
    GOOGLE_CLOUD_PROJECT = var.project_id
    FIRESTORE_DATABASE   = var.firestore_database
    BUS_PREFIX           = var.bus_prefix
    LOG_LEVEL            = var.log_level
  }

  part_environment = {
    whisper    = local.twitch_environment
    enrichment = length(var.discord_roles) == 0 ? {} : { DISCORD_ROLES = join(",", [for name, role in var.discord_roles : "${name}=${role}"]) }
    personality = {
      MODEL_PROVIDER = var.model_provider
      MODEL_NAME     = var.model_name
    }
  }

  key_variables = { gemini = "GEMINI_API_KEY", openai = "OPENAI_API_KEY" }
  model_secret = var.model_key_version == "" ? {} : {
    (local.key_variables[var.model_provider]) = { secret = google_secret_manager_secret.model_key.secret_id, version = var.model_key_version }
  }
  metrics_secret = var.metrics_token_version == "" ? {} : {
    METRICS_TOKEN = { secret = google_secret_manager_secret.metrics_token.secret_id, version = var.metrics_token_version }
  }
  secret_environment = {
    for part in local.parts : part => merge(
      part == "personality" ? local.model_secret : {},
      part == "gateway" ? local.metrics_secret : {},
      {
        for name, s in local.platform_secrets : s.variable => { secret = google_secret_manager_secret.platform[name].secret_id, version = s.version }
        if s.version != "" && contains(s.parts, part)
      },
    )
  }
}

data "archive_file" "function" {
  for_each = local.functions

  type        = "zip"
  output_path = "${path.module}/.staging/${each.key}.zip"

  dynamic "source" {
    for_each = local.sources[each.key]
    content {
      filename = source.value
      content  = file("${local.root}/${source.value}")
    }
  }

  # Google's Go buildpack requires one package at the root, other than main. The package must import the framework's
  # package functions: the import tells the buildpack that entry points are registered by name. Without the import, the
  # buildpack looks for an exported Go function with the name of the entry point.
  source {
    filename = "function.go"
    content  = <<-EOT
      // Package function is the root package for Cloud Functions. It registers the entry point ${each.key}.
      package function

      import (
      	_ "github.com/GoogleCloudPlatform/functions-framework-go/functions"

      	_ "parley.internal/functions/${each.key}"
      )
    EOT
  }
}

resource "google_storage_bucket" "source" {
  name                        = "${var.project_id}-${var.name}-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # Terraform can make all objects again

  depends_on = [google_project_service.api]
}

resource "google_storage_bucket_object" "source" {
  for_each = local.functions

  # The name contains the hash of the archive: changed source gives a new object, and a new object a new deployment.
  name   = "${each.key}-${data.archive_file.function[each.key].output_sha256}.zip"
  bucket = google_storage_bucket.source.name
  source = data.archive_file.function[each.key].output_path
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.functions

  name     = "${var.name}-${each.key}"
  location = var.region

  build_config {
    runtime           = var.functions_runtime
    entry_point       = each.key
    service_account   = google_service_account.build.id
    docker_repository = google_artifact_registry_repository.images.id
    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source[each.key].name
      }
    }
  }

  service_config {
    service_account_email = google_service_account.part[each.key].email

    # Only Pub/Sub of this project reaches the function, and only with the account that has the role run.invoker.
    ingress_settings               = "ALLOW_INTERNAL_ONLY"
    all_traffic_on_latest_revision = true

    available_cpu                    = "1" # with less, an instance handles one event at a time
    available_memory                 = var.functions_memory
    max_instance_request_concurrency = var.functions_concurrency
    min_instance_count               = var.functions_min_instances
    max_instance_count               = var.functions_max_instances
    timeout_seconds                  = local.timeouts[each.key]

    environment_variables = merge(
      local.deployment_environment,
      lookup(local.part_environment, each.key, {}),
      lookup(var.environment, each.key, {}),
    )

    dynamic "secret_environment_variables" {
      for_each = local.secret_environment[each.key]
      content {
        key        = secret_environment_variables.key
        project_id = var.project_id
        secret     = secret_environment_variables.value.secret
        version    = secret_environment_variables.value.version
      }
    }
  }

  # A new role takes effect after some minutes. The build and the first start need their roles before the deployment.
  depends_on = [
    google_artifact_registry_repository_iam_member.build,
    google_storage_bucket_iam_member.build,
    google_project_iam_member.build_source,
    google_project_iam_member.build_log,
    google_secret_manager_secret_iam_member.model_key,
    google_secret_manager_secret_iam_member.platform,
    google_kms_crypto_key_iam_member.tokens,
  ]
}

# The builds of functions use a separate account: the default account of the project has far more permissions.
resource "google_service_account" "build" {
  account_id   = "${var.name}-build"
  display_name = "Parley: builds of the functions"

  depends_on = [google_project_service.api]
}

resource "google_artifact_registry_repository" "images" {
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of the gateway and of the functions."

  # Ten images are enough for a rollback; older images are deleted. Each image of the gateway counts as two versions,
  # because its list of contents (SBOM) is a version, too.
  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"
    most_recent_versions {
      keep_count = 20
    }
  }
  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_artifact_registry_repository_iam_member" "build" {
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# Cloud Functions copies a source to a bucket of Google's before the build.
resource "google_project_iam_member" "build_source" {
  project = var.project_id
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title      = "sources of functions"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-${var.region}\")"
  }
}

resource "google_project_iam_member" "build_log" {
  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = google_service_account.build.member
}
