# What the parts may do, each as an account of its own. README.md has it as a picture. Rights are given on the resource
# wherever Google Cloud lets them be; where it does not, the comment says so.

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

# A database has no roles of its own; a condition on its name does the same
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

# Each gateway instance makes a subscription of its own to the answers and deletes it when it stops. On the topic this
# role lets it attach a subscription, to this topic and no other.
resource "google_pubsub_topic_iam_member" "gateway" {
  topic  = google_pubsub_topic.topic[local.topology.gateway.topic].name
  role   = "roles/pubsub.subscriber"
  member = google_service_account.part["gateway"].member
}

# A subscription that does not exist yet can have no role on it, and conditions on names don't hold for Pub/Sub
# (https://cloud.google.com/iam/docs/conditions-resource-attributes lists for what they do). So these three rights are
# on the project: the gateway could read or delete another subscription in it. It can neither change one, nor list
# them, nor attach one to another topic. Where that is too much, give Parley a project of its own.
resource "google_project_iam_custom_role" "gateway" {
  role_id     = "${replace(var.name, "-", "_")}_gateway_subscriptions"
  title       = "Parley: the gateway's own subscriptions"
  description = "Make, read and delete the subscription of a gateway instance."
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

# The secret's value is put in by a person (README.md, "The model"): in Terraform it would stand in the state.
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

# Vertex AI's models are Google's resources, not the project's: the role can only be on the project.
resource "google_project_iam_member" "vertex" {
  count = local.vertex ? 1 : 0

  project = var.project_id
  role    = "roles/aiplatform.user"
  member  = google_service_account.part["personality"].member
}
