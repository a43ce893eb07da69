# Topics and subscriptions are those of shared/topology/topology.json, which the code embeds: nothing is named here that
# is not there.

locals {
  topology = jsondecode(file("${path.module}/../shared/topology/topology.json"))

  topics        = { for t in local.topology.topics : t.name => t }
  subscriptions = { for s in local.topology.subscriptions : s.name => s }

  # Only a subscription that counts its attempts can hand on what used them up.
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
  filter                  = try(each.value.filter, null) # can't be changed later: another filter is another subscription
  ack_deadline_seconds    = try(each.value.ackDeadlineSeconds, 10)
  enable_message_ordering = try(each.value.ordered, false)

  # 7 days, the service's own default, written down because it is how long an outage may last without loss
  message_retention_duration = "${try(each.value.retentionSeconds, 604800)}s"

  # The default would delete a subscription that nobody used for 31 days, with all that is sent from then on. Empty
  # means never.
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
      # From this path the functions framework learns the topic; without it, a function would not know whether it got a
      # dead letter or a tick of the sweep. The host has to be Cloud Run's own: only by that may Pub/Sub pass where
      # ingress is internal.
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

# Pushing is done as this account, and it may do nothing else.
resource "google_service_account" "push" {
  account_id   = "${var.name}-push"
  display_name = "Parley: Pub/Sub's pushes to the functions"

  depends_on = [google_project_service.api]
}

resource "google_service_account_iam_member" "push_token" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.pubsub_agent

  # the agent comes into being with the first topic
  depends_on = [google_pubsub_topic.topic]
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  for_each = local.functions

  name     = google_cloudfunctions2_function.function[each.key].name # of the Cloud Run service underneath, too
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}

# A dead-letter policy is carried out by Pub/Sub itself: it takes the message from the one, and puts it on the other.
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
  description = "Every minute, overdue deliveries are settled."
  region      = var.region
  schedule    = "* * * * *"
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = google_pubsub_topic.topic["internal.sweep.v1"].id
    data       = base64encode("{}") # a tick says nothing, but an empty message is not allowed
  }
}
