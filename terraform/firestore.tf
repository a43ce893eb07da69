locals {
  # The indexes for the queries of shared/store, shared/delivery and shared/deadletter: first the compared fields, then
  # the sort field. A query without its index fails. A test therefore runs every query and compares with the plan.
  indexes = {
    "deliveries-backlog"         = { collection = "deliveries", equal = ["userId", "destination", "state"], by = "openedAt", order = "ASCENDING" }
    "deliveries-overdue"         = { collection = "deliveries", equal = ["shard", "state"], by = "deadline", order = "ASCENDING" }
    "deliveries-abandoned"       = { collection = "deliveries", equal = ["shard", "state"], by = "leaseUntil", order = "ASCENDING" }
    "deliveries-silent"          = { collection = "deliveries", equal = ["state", "announced"], by = "settledAt", order = "ASCENDING" }
    "deadletters-reason"         = { collection = "deadletters", equal = ["reason"], by = "at", order = "DESCENDING" }
    "deadletters-status"         = { collection = "deadletters", equal = ["status"], by = "at", order = "DESCENDING" }
    "deadletters-reason-status"  = { collection = "deadletters", equal = ["reason", "status"], by = "at", order = "DESCENDING" }
    "personalities-active-named" = { collection = "personalities", equal = ["name"], by = "status", order = "ASCENDING" }
  }

  # Fields without a single-field index, for one of three reasons. An indexed time that only grows would limit the
  # collection to about 500 writes per second (https://cloud.google.com/firestore/docs/best-practices#hotspots). Bytes and
  # long texts would be stored again in the index. A map or an array would have an index entry per element. A composite
  # index above may still contain such a field.
  unindexed = {
    deliveries    = ["event", "message", "createdAt", "openedAt", "deadline", "leaseUntil", "settledAt"]
    deadletters   = ["data", "preview", "message", "attributes", "redrives", "slipSummary", "firstAt"]
    parts         = ["data"]
    conversations = ["turns", "updatedAt"]
    personalities = ["text", "updatedAt"]
    tokens        = ["created_at", "expires_at", "last_used_at", "revoked_at"]
    credentials   = ["sealed", "scopes", "issuedAt", "expiresAt", "retryAt", "leaseUntil", "revokedAt"]
    leases        = ["at", "vacant"]
    leaseMembers  = ["beat"]
    gaps          = ["from", "to"]
    watermarks    = ["at"]
    moderation    = ["at", "tries"]
    identities    = ["linkedAt"]
    whispers      = ["sent", "new", "heldUntil"]
    recipients    = ["firstAt", "lastAt", "wroteAt"]
    users = [
      "firstSeenAt", "lastSeenAt", "lastMessageAt", "lastSessionStartedAt", "lastSessionActivityAt",
      "messageCountAllTime", "sessionCount", "lastSessionId", "recent", "recentPacked", "cooldowns", "rolesMeta", "rolesIn", "profile", "notes",
    ]
  }

  # Collections with a TTL policy: Firestore deletes documents some time after expireAt. expireAt has no index either.
  expiring = toset([
    "deliveries", "deadletters", "parts", "conversations", "leases", "leaseMembers", "gaps", "watermarks", "logins",
    "whispers", "recipients",
  ])

  unindexed_fields = {
    for pair in flatten([for c, fields in local.unindexed : [for f in fields : { collection = c, field = f }]]) :
    "${pair.collection}.${pair.field}" => pair
  }
}

resource "google_firestore_database" "this" {
  name        = var.firestore_database
  location_id = var.firestore_location == "" ? var.region : var.firestore_location
  type        = "FIRESTORE_NATIVE"

  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"

  # Two protections: Google refuses the deletion, and Terraform only removes the database from the state.
  delete_protection_state = var.protect_data ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy         = var.protect_data ? "ABANDON" : "DELETE"

  depends_on = [google_project_service.api]
}

resource "google_firestore_index" "index" {
  for_each = local.indexes

  database   = google_firestore_database.this.name
  collection = each.value.collection

  dynamic "fields" {
    for_each = each.value.equal
    content {
      field_path = fields.value
      order      = "ASCENDING"
    }
  }
  fields {
    field_path = each.value.by
    order      = each.value.order
  }
}

resource "google_firestore_field" "unindexed" {
  for_each = local.unindexed_fields

  database   = google_firestore_database.this.name
  collection = each.value.collection
  field      = each.value.field

  index_config {} # none
}

resource "google_firestore_field" "expiry" {
  for_each = local.expiring

  database   = google_firestore_database.this.name
  collection = each.key
  field      = "expireAt"

  index_config {} # none
  ttl_config {}
}

resource "google_firestore_backup_schedule" "daily" {
  count = var.backup_days > 0 ? 1 : 0

  database  = google_firestore_database.this.name
  retention = "${var.backup_days * 86400}s"

  daily_recurrence {}
}
