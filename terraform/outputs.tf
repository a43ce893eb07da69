output "image_repository" {
  description = "Where the gateway's image is pushed to: KO_DOCKER_REPO."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "gateway_url" {
  description = "Where people chat; the WebSocket is at /ws/v1 there. Empty as long as there is no gateway."
  value       = one(google_cloud_run_v2_service.gateway[*].uri)
}

output "domain_records" {
  description = "DNS records to set for the domain."
  value       = flatten(google_cloud_run_domain_mapping.gateway[*].status[*].resource_records)
}

output "model_key_secret" {
  description = "Secret that takes the model's API key."
  value       = google_secret_manager_secret.model_key.secret_id
}

output "twitch_redirect_url" {
  description = "OAuth redirect URL to register with Twitch. Empty without Twitch."
  value       = one([for p in local.twitch : "${local.public_url}/oauth/twitch/callback"])
}

output "service_accounts" {
  description = "Who the parts are."
  value       = { for part, account in google_service_account.part : part => account.email }
}

output "next" {
  description = "What to do now."
  value = (
    length(local.gateway) == 0
    ? "Build the gateway's image and apply again with it: README.md, step 4."
    : length(local.twitch) > 0 && length(local.twitch_environment) == 0
    ? "Give Twitch's secret a value: README.md, \"Twitch\"."
    : contains(var.platforms, "discord") && var.discord_bot_token_version == ""
    ? "Give Discord's secret a value: README.md, \"Discord\"."
    : var.model_provider == "embedded"
    ? "Let somebody in and give it a rule (README.md, step 5 and step 6). The answers come from the embedded model: README.md, \"The model\", puts a real one in its place."
    : "Let somebody in and give it a rule (README.md, step 5 and step 6)."
  )
}
