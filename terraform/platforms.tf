# Twitch and Discord. A deployment that names neither in var.platforms has nothing of what is here, and pays for nothing.

locals {
  twitch = contains(var.platforms, "twitch") ? toset(["twitch"]) : toset([])

  # The parts that speak to Twitch as somebody, and so read and renew the tokens of those who logged in.
  token_users = length(local.twitch) == 0 ? toset([]) : toset(["gateway", "whisper"])

  # The secrets of each platform: which variable of which parts has the value. The values are put in by a person
  # (README.md, "Twitch" and "Discord"): in Terraform they would stand in the state.
  platform_secrets = {
    for name, s in {
      "twitch-client-secret" = {
        platform = "twitch", variable = "TWITCH_CLIENT_SECRET", version = var.twitch_client_secret_version, parts = ["gateway", "whisper"]
      }
      "oauth-operator-secret" = {
        platform = "twitch", variable = "OAUTH_OPERATOR_SECRET", version = var.oauth_operator_secret_version, parts = ["gateway"]
      }
      "discord-bot-token" = {
        platform = "discord", variable = "DISCORD_BOT_TOKEN", version = var.discord_bot_token_version, parts = ["gateway"]
      }
    } : name => s if contains(var.platforms, s.platform)
  }
  secret_readers = {
    for pair in flatten([for name, s in local.platform_secrets : [for part in s.parts : { secret = name, part = part }]]) :
    "${pair.secret}/${pair.part}" => pair
  }

  # Twitch is on once its secret has a value.
  twitch_environment = length(local.twitch) == 0 || var.twitch_client_secret_version == "" ? {} : {
    TWITCH_CLIENT_ID   = var.twitch_client_id
    TWITCH_BOT_USER_ID = var.twitch_bot_user_id
    CREDENTIAL_KEY     = "gcp-kms://${google_kms_crypto_key.tokens["twitch"].id}"
  }

  # Where browsers reach the gateway. Cloud Run's own address of a service is known before there is one
  # (https://cloud.google.com/run/docs/triggering/https-request#deterministic).
  public_url = (
    var.public_url != "" ? var.public_url
    : var.domain != "" ? "https://${var.domain}"
    : "https://${var.name}-gateway-${data.google_project.this.number}.${var.region}.run.app"
  )

  gateway_platform_environment = length(local.twitch_environment) == 0 ? {} : merge(
    local.twitch_environment,
    { PUBLIC_URL = local.public_url },
    { for name, list in { TWITCH_CHANNELS = var.twitch_channels, OAUTH_ALLOWED_USERS = var.oauth_allowed_users } : name => join(",", list) if length(list) > 0 },
  )
}

resource "google_secret_manager_secret" "platform" {
  for_each = local.platform_secrets

  secret_id = "${var.name}-${each.key}"

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_iam_member" "platform" {
  for_each = local.secret_readers

  secret_id = google_secret_manager_secret.platform[each.value.secret].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.part[each.value.part].member
}

# What people's OAuth tokens are encrypted with before they go to the database. Without it nobody can open them, and all
# have to log in again. So neither `terraform destroy` nor taking Twitch out of var.platforms takes it along: Terraform
# refuses, until it is told to forget both (README.md, "The end of it").
resource "google_kms_key_ring" "this" {
  for_each = local.twitch

  name     = var.name
  location = var.kms_location == "" ? var.region : var.kms_location

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.api]
}

resource "google_kms_crypto_key" "tokens" {
  for_each = local.twitch

  name     = "oauth-tokens"
  key_ring = google_kms_key_ring.this[each.key].id
  purpose  = "ENCRYPT_DECRYPT"

  # 90 days, as Google recommends (https://cloud.google.com/kms/docs/key-rotation). Older versions still decrypt.
  rotation_period = "7776000s"

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "tokens" {
  for_each = local.token_users

  crypto_key_id = google_kms_crypto_key.tokens["twitch"].id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = google_service_account.part[each.key].member
}
