# The resources for Twitch and Discord. Without platforms in var.platforms, nothing here is created or paid for.

locals {
  twitch = contains(var.platforms, "twitch") ? toset(["twitch"]) : toset([])

  # The parts that call Twitch with users' tokens. They read and renew the tokens.
  token_users = length(local.twitch) == 0 ? toset([]) : toset(["gateway", "whisper"])

  # The secrets of each platform, with the environment variable and the parts that read it. An operator adds the values
  # (README.md, "Twitch" and "Discord"). Values in Terraform would be visible in the state.
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

  # Twitch is on when the version of its secret is set.
  twitch_environment = length(local.twitch) == 0 || var.twitch_client_secret_version == "" ? {} : {
    TWITCH_CLIENT_ID   = var.twitch_client_id
    TWITCH_BOT_USER_ID = var.twitch_bot_user_id
    CREDENTIAL_KEY     = "gcp-kms://${google_kms_crypto_key.tokens["twitch"].id}"
  }

  # The address for browsers. Cloud Run's address of a service is known before the service exists
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

# The key that encrypts users' OAuth tokens for the database. Without the key, the tokens are lost and all users must log
# in again. Terraform therefore refuses to destroy the key and the key ring, also when Twitch is removed from
# var.platforms. Remove both from the state first (README.md, "Destroy a deployment").
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
