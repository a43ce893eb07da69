output "image_repository" {
  description = "Repository of the gateway's image, for KO_DOCKER_REPO."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "gateway_url" {
  description = "Address of the chat page; the WebSocket is at /ws/v1. Empty without a gateway."
  value       = one(google_cloud_run_v2_service.gateway[*].uri)
}

output "domain_records" {
  description = "DNS records to set for the domain."
  value       = flatten(google_cloud_run_domain_mapping.gateway[*].status[*].resource_records)
}

output "model_key_secret" {
  description = "Secret for the model's API key."
  value       = google_secret_manager_secret.model_key.secret_id
}

output "twitch_redirect_url" {
  description = "OAuth redirect URL to register with Twitch. Empty without Twitch."
  value       = one([for p in local.twitch : "${local.public_url}/oauth/twitch/callback"])
}

output "service_accounts" {
  description = "Service account of each part."
  value       = { for part, account in google_service_account.part : part => account.email }
}

output "next" {
  description = "The next step."
  value = (
    length(local.gateway) == 0
    ? "Build the gateway's image and apply again: README.md, step 4."
    : length(local.twitch) > 0 && length(local.twitch_environment) == 0
    ? "Add the value of Twitch's secret: README.md, \"Twitch\"."
    : contains(var.platforms, "discord") && var.discord_bot_token_version == ""
    ? "Add the value of Discord's secret: README.md, \"Discord\"."
    : var.model_provider == "embedded"
    ? "Create a token and a rule (README.md, step 5 and step 6). The embedded model answers; for a real model see README.md, \"The model\"."
    : "Create a token and a rule (README.md, step 5 and step 6)."
  )
}
