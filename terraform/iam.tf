# The permissions of the parts. Each part has its own account; README.md has a picture. A role is granted on the single
# resource if Google Cloud supports a role there. Otherwise the comment gives the reason.

locals {
  parts = setunion(local.functions, ["gateway"])
}

resource "google_service_account" "part" {
  for_each = local.parts

  account_id   = "${var.name}-${each.key}"
  display_name = "Parley: ${each.key}"

  depends_on = [google_project_service.api]
}

resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = local.publishers

  topic  = google_pubsub_topic.topic[each.value.topic].name
  role   = "roles/pubsub.publisher"
  member = google_service_account.part[each.value.part].member
}

# Roles on a single database do not exist; a condition on the database's name has the same effect
# (https://cloud.google.com/firestore/docs/manage-databases#per-database-access).
resource "google_project_iam_member" "firestore" {
  for_each = local.parts

  project = var.project_id
  role    = "roles/datastore.user"
  member  = google_service_account.part[each.key].member

  condition {
    title      = "database of ${var.name}"
    expression = "resource.name == \"projects/${var.project_id}/databases/${google_firestore_database.this.name}\""
  }
}

# Each gateway instance creates its own subscription to the answers, and deletes the subscription at its end. This role
# allows an instance to attach a subscription to this topic only.
resource "google_pubsub_topic_iam_member" "gateway" {
  topic  = google_pubsub_topic.topic[local.topology.gateway.topic].name
  role   = "roles/pubsub.subscriber"
  member = google_service_account.part["gateway"].member
}

# A role on a subscription needs an existing subscription, and Pub/Sub does not evaluate conditions on names
# (https://cloud.google.com/iam/docs/conditions-resource-attributes). These three permissions are therefore on the
# project: the gateway could read or delete any subscription of the project. The gateway can neither change nor list
# subscriptions, nor attach a subscription to another topic. If that risk is too high, use a separate project.
resource "google_project_iam_custom_role" "gateway" {
  role_id     = "${replace(var.name, "-", "_")}_gateway_subscriptions"
  title       = "Parley: the gateway's own subscriptions"
  description = "Create, read and delete the subscription of a gateway instance."
  permissions = [
    "pubsub.subscriptions.consume",
    "pubsub.subscriptions.create",
    "pubsub.subscriptions.delete",
  ]

  depends_on = [google_project_service.api]
}

resource "google_project_iam_member" "gateway" {
  project = var.project_id
  role    = google_project_iam_custom_role.gateway.id
  member  = google_service_account.part["gateway"].member
}

# An operator adds the value of the secret (README.md, "The model"). A value in Terraform would be visible in the state.
resource "google_secret_manager_secret" "model_key" {
  secret_id = "${var.name}-model-key"

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_iam_member" "model_key" {
  secret_id = google_secret_manager_secret.model_key.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.part["personality"].member
}

# An operator adds the value of the secret (README.md, "Metrics").
resource "google_secret_manager_secret" "metrics_token" {
  secret_id = "${var.name}-metrics-token"

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_iam_member" "metrics_token" {
  secret_id = google_secret_manager_secret.metrics_token.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.part["gateway"].member
}

# The models of Vertex AI are Google's resources: the role must be on the project.
resource "google_project_iam_member" "vertex" {
  count = local.vertex ? 1 : 0

  project = var.project_id
  role    = "roles/aiplatform.user"
  member  = google_service_account.part["personality"].member
}
