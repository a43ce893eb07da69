# The topics and subscriptions of shared/topology/topology.json. The code embeds the same file.

locals {
  topology = jsondecode(file("${path.module}/../shared/topology/topology.json"))

  topics        = { for t in local.topology.topics : t.name => t }
  subscriptions = { for s in local.topology.subscriptions : s.name => s }

  # Subscriptions with a limit of attempts: Pub/Sub moves their undeliverable messages to the dead-letter topic.
  counting = { for name, s in local.subscriptions : name => s if try(s.maxDeliveryAttempts, 0) > 0 }

  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic" "topic" {
  for_each = local.topics

  name = "${var.bus_prefix}${each.key}"

  depends_on = [google_project_service.api]
}

resource "google_pubsub_subscription" "subscription" {
  for_each = local.subscriptions

  name                    = "${var.bus_prefix}${each.key}"
  topic                   = google_pubsub_topic.topic[each.value.topic].id
  filter                  = try(each.value.filter, null) # can't change: a new filter needs a new subscription
  ack_deadline_seconds    = try(each.value.ackDeadlineSeconds, 10)
  enable_message_ordering = try(each.value.ordered, false)

  # 7 days, Pub/Sub's default. The value is explicit because it is the longest outage without loss.
  message_retention_duration = "${try(each.value.retentionSeconds, 604800)}s"

  # By default, Pub/Sub deletes a subscription after 31 days without use, and later messages are lost. Empty means never.
  expiration_policy {
    ttl = try("${each.value.expirationSeconds}s", "")
  }

  retry_policy {
    minimum_backoff = "${try(each.value.minBackoffSeconds, 10)}s"
    maximum_backoff = "${try(each.value.maxBackoffSeconds, 600)}s"
  }

  dynamic "dead_letter_policy" {
    for_each = try(each.value.maxDeliveryAttempts, 0) > 0 ? [each.value.maxDeliveryAttempts] : []
    content {
      dead_letter_topic     = google_pubsub_topic.topic[local.topology.deadLetterTopic].id
      max_delivery_attempts = dead_letter_policy.value
    }
  }

  dynamic "push_config" {
    for_each = [for f in compact([try(each.value.function, "")]) : google_cloudfunctions2_function.function[f].service_config[0].uri]
    content {
      # The path names the topic: shared/trigger reads the topic there, and dlq needs the topic to distinguish a dead letter
      # from a tick of the sweep. The host must be Cloud Run's own: internal ingress accepts Pub/Sub only there.
      push_endpoint = "${push_config.value}/${google_pubsub_topic.topic[each.value.topic].id}"
      oidc_token {
        service_account_email = google_service_account.push.email
        audience              = push_config.value
      }
    }
  }

  depends_on = [
    google_service_account_iam_member.push_token,
    google_cloud_run_v2_service_iam_member.push,
    google_pubsub_topic_iam_member.dead_letter,
  ]
}

# Pub/Sub pushes with this account. The account has no other permission.
resource "google_service_account" "push" {
  account_id   = "${var.name}-push"
  display_name = "Parley: Pub/Sub's pushes to the functions"

  depends_on = [google_project_service.api]
}

resource "google_service_account_iam_member" "push_token" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.pubsub_agent

  # the first topic creates the agent
  depends_on = [google_pubsub_topic.topic]
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  for_each = local.functions

  name     = google_cloudfunctions2_function.function[each.key].name # the same name as the function's Cloud Run service
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}

# Pub/Sub's agent executes a dead-letter policy: it pulls from the subscription and publishes on the dead-letter topic.
resource "google_pubsub_topic_iam_member" "dead_letter" {
  topic  = google_pubsub_topic.topic[local.topology.deadLetterTopic].name
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  for_each = local.counting

  subscription = google_pubsub_subscription.subscription[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

resource "google_cloud_scheduler_job" "sweep" {
  name        = "${var.name}-sweep"
  description = "Starts the sweep of overdue deliveries every minute."
  region      = var.region
  schedule    = "* * * * *"
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = google_pubsub_topic.topic["internal.sweep.v1"].id
    data       = base64encode("{}") # a tick has no content, but Pub/Sub refuses an empty message
  }
}
