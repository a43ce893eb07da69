locals {
  # Gemini without a key works through Vertex AI.
  vertex = var.model_provider == "gemini" && var.model_key_version == ""

  apis = concat(
    [
      "artifactregistry.googleapis.com", # images of the gateway and of the functions
      "cloudbuild.googleapis.com",       # builds the functions
      "cloudfunctions.googleapis.com",
      "cloudresourcemanager.googleapis.com", # roles on the project
      "cloudscheduler.googleapis.com",       # the tick of the sweep
      "firestore.googleapis.com",
      "iam.googleapis.com", # service accounts and the custom role
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "pubsub.googleapis.com",
      "run.googleapis.com", # the gateway and the functions
      "secretmanager.googleapis.com",
      "storage.googleapis.com", # sources of the functions
    ],
    length(local.twitch) > 0 ? ["cloudkms.googleapis.com"] : [], # the key of users' tokens
    local.vertex ? ["aiplatform.googleapis.com"] : [],
    var.budget == null ? [] : ["billingbudgets.googleapis.com"],
  )
}

resource "google_project_service" "api" {
  for_each = toset(local.apis)

  service = each.key

  # Other systems in the project may need the API.
  disable_on_destroy = false
}
