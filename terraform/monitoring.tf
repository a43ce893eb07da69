locals {
  # the function that stores dead letters writes one log line per dead letter
  keeper = one([for s in local.topology.subscriptions : s.function if s.topic == local.topology.deadLetterTopic])

  subscription_names = join(", ", [for name in keys(local.subscriptions) : "\"${var.bus_prefix}${name}\""])
  # Without whisper: a whisper that waits for Twitch's limits is answered with an error, so that Pub/Sub pushes again. The
  # error is no failure, and failed whispers are dead letters.
  prompt_names = join(", ", [for f in setsubtract(local.functions, ["whisper"]) : "\"${var.name}-${f}\""])

  function_names = join(", ", [for f in local.functions : "\"${var.name}-${f}\""])

  # The time without data after which an incident ends. A count of failures has no data without failures. By default, the
  # incident would stay open for a week and hide new failures. 30 minutes is the minimum
  # (https://cloud.google.com/monitoring/alerts/incidents-events).
  quiet = "1800s"

  channels = [for c in google_monitoring_notification_channel.email : c.id]

  metric_prefix      = replace(var.name, "-", "_")
  dead_letter_metric = "logging.googleapis.com/user/${google_logging_metric.dead_letters.name}"
}

resource "google_logging_metric" "dead_letters" {
  name        = "${local.metric_prefix}_dead_letters"
  description = "Dead letters, each counted once, by reason."
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name="${var.name}-${local.keeper}"
    severity=ERROR
    jsonPayload.message="dead letter"
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
    labels {
      key         = "reason"
      value_type  = "STRING"
      description = "A reason of package shared/deadletter."
    }
  }
  label_extractors = {
    reason = "EXTRACT(jsonPayload.reason)"
  }

  depends_on = [google_project_service.api]
}

# Requests refused by a gateway are not counted here, but in the metric parley_gateway_frames_refused_total.
resource "google_logging_metric" "refused_requests" {
  name        = "${local.metric_prefix}_refused_requests"
  description = "Moderation requests refused by the enrichment. Only the first of a user in an hour is a dead letter."
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name="${var.name}-enrichment"
    severity=WARNING
    jsonPayload.message="moderation request refused"
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alert_emails)

  display_name = "${var.name}: ${each.key}"
  type         = "email"
  labels = {
    email_address = each.key
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "dead_letters" {
  display_name          = "${var.name}: dead letters"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "there is a new dead letter"
    condition_threshold {
      filter          = "metric.type=\"${local.dead_letter_metric}\" AND resource.type=\"cloud_run_revision\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["metric.label.reason"]
      }
    }
  }

  alert_strategy {
    auto_close = local.quiet
  }

  documentation {
    mime_type = "text/markdown"
    content   = "There are dead letters with the reason `$${metric.label.reason}`. See \"Troubleshooting\" in terraform/README.md; `go run ./gateway deadletters` lists and redrives dead letters."
  }
}

resource "google_monitoring_alert_policy" "unacked" {
  display_name          = "${var.name}: messages wait"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "the oldest message of a subscription is too old"
    condition_threshold {
      filter          = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.type=\"pubsub_subscription\" AND resource.label.subscription_id = one_of(${local.subscription_names})"
      comparison      = "COMPARISON_GT"
      threshold_value = var.alert_unacked_seconds
      duration        = "60s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_MAX"
        group_by_fields      = ["resource.label.subscription_id"]
      }
    }
  }

  alert_strategy {
    auto_close = local.quiet
  }

  documentation {
    mime_type = "text/markdown"
    content   = "The subscription `$${resource.label.subscription_id}` has old messages: its function fails, or has more events than its instances can handle (functions_max_instances)."
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "function_errors" {
  display_name          = "${var.name}: a function fails"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "pushes are answered with errors"
    condition_threshold {
      filter          = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.label.service_name = one_of(${local.prompt_names}) AND metric.label.response_code_class = \"5xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 10 # a few errors are normal: Pub/Sub retries
      duration        = "0s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["resource.label.service_name"]
      }
    }
  }

  alert_strategy {
    auto_close = local.quiet
  }

  documentation {
    mime_type = "text/markdown"
    content   = "`$${resource.label.service_name}` answers with errors. Pub/Sub retries, then dead-letters the messages. The log of the function has the errors."
  }

  depends_on = [google_project_service.api]
}

# Only with a minimum of instances: otherwise no instance is a normal state.
resource "google_monitoring_alert_policy" "no_gateway" {
  count = var.gateway_min_instances > 0 ? length(local.gateway) : 0

  display_name          = "${var.name}: no gateway runs"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels

  conditions {
    display_name = "there is no instance"
    condition_threshold {
      filter                  = "metric.type=\"run.googleapis.com/container/instance_count\" AND resource.type=\"cloud_run_revision\" AND resource.label.service_name = \"${google_cloud_run_v2_service.gateway[0].name}\""
      comparison              = "COMPARISON_LT"
      threshold_value         = 1
      duration                = "180s"
      evaluation_missing_data = "EVALUATION_MISSING_DATA_ACTIVE"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "No client can connect. An instance needs its subscription and Firestore to start. The service's log names the failed part."
  }
}

# Cloud Run checks the readiness of an instance only at the start. An instance that loses a dependency later keeps its
# sockets and retries. Only the log shows the problem.
resource "google_monitoring_alert_policy" "gateway_cut_off" {
  count = length(local.gateway)

  display_name          = "${var.name}: a gateway is cut off"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "an instance has lost its subscription or can't reach Firestore"
    condition_matched_log {
      filter = <<-EOT
        resource.type="cloud_run_revision"
        resource.labels.service_name="${var.name}-gateway"
        severity>=WARNING
        jsonPayload.message=("${join("\" OR \"", local.gateway_cut_off)}")
      EOT
    }
  }

  alert_strategy {
    auto_close = local.quiet
    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "The clients of that instance receive no answers until it recovers. See \"Troubleshooting\" in terraform/README.md."
  }

  depends_on = [google_project_service.api]
}

# The connection to a platform has ended, and needs an operator to start again.
resource "google_monitoring_alert_policy" "platform" {
  count = length(var.platforms) > 0 ? length(local.gateway) : 0

  display_name          = "${var.name}: a platform is lost"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "a login is withdrawn, or Discord refuses the bot"
    condition_matched_log {
      filter = <<-EOT
        resource.type="cloud_run_revision"
        resource.labels.service_name=("${var.name}-gateway" OR "${var.name}-whisper")
        severity=ERROR
        jsonPayload.message=("${join("\" OR \"", local.platform_lost)}")
      EOT
    }
  }

  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "The log names the account or the reason. See \"Troubleshooting\" in terraform/README.md."
  }

  depends_on = [google_project_service.api]
}

locals {
  # the log messages for this alert
  gateway_cut_off = [
    "subscription lost",
    "creating the subscription failed",
    "store unreachable",
    "token lookup failed",
    "leases lost",
  ]

  # the log messages for this alert; Discord's message has the severity ERROR only if a retry is useless
  platform_lost = [
    "credential revoked: a new login is needed",
    "no connection to Discord",
  ]

  charts = [
    {
      title  = "Publish requests per second, by topic"
      filter = "metric.type=\"pubsub.googleapis.com/topic/send_request_count\" resource.type=\"pubsub_topic\""
      align  = "ALIGN_RATE", reduce = "REDUCE_SUM", by = ["resource.label.topic_id"]
    },
    {
      title  = "Age of the oldest unacknowledged message, by subscription (s)"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" resource.type=\"pubsub_subscription\""
      align  = "ALIGN_MAX", reduce = "REDUCE_MAX", by = ["resource.label.subscription_id"]
    },
    {
      title  = "Dead letters in 5 min, by reason"
      filter = "metric.type=\"${local.dead_letter_metric}\" resource.type=\"cloud_run_revision\""
      align  = "ALIGN_SUM", reduce = "REDUCE_SUM", by = ["metric.label.reason"]
    },
    {
      title  = "Moderation requests refused by the enrichment in 5 min"
      filter = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.refused_requests.name}\" resource.type=\"cloud_run_revision\""
      align  = "ALIGN_SUM", reduce = "REDUCE_SUM", by = []
    },
    {
      title  = "Pushes to functions per second, by response class"
      filter = "metric.type=\"run.googleapis.com/request_count\" resource.type=\"cloud_run_revision\" resource.label.service_name=one_of(${local.function_names})"
      align  = "ALIGN_RATE", reduce = "REDUCE_SUM", by = ["resource.label.service_name", "metric.label.response_code_class"]
    },
    {
      title  = "Time of a push, 95th percentile (ms)"
      filter = "metric.type=\"run.googleapis.com/request_latencies\" resource.type=\"cloud_run_revision\" resource.label.service_name=one_of(${local.function_names})"
      align  = "ALIGN_PERCENTILE_95", reduce = "REDUCE_MAX", by = ["resource.label.service_name"]
    },
    {
      title  = "Instances, by service"
      filter = "metric.type=\"run.googleapis.com/container/instance_count\" resource.type=\"cloud_run_revision\" resource.label.service_name=starts_with(\"${var.name}-\")"
      align  = "ALIGN_MAX", reduce = "REDUCE_SUM", by = ["resource.label.service_name"]
    },
    {
      title  = "Concurrent sockets and requests per gateway instance, 99th percentile"
      filter = "metric.type=\"run.googleapis.com/container/max_request_concurrencies\" resource.type=\"cloud_run_revision\" resource.label.service_name=\"${var.name}-gateway\""
      align  = "ALIGN_PERCENTILE_99", reduce = "REDUCE_MAX", by = ["resource.label.service_name"]
    },
    {
      title  = "Documents written per second"
      filter = "metric.type=\"firestore.googleapis.com/document/write_ops_count\" resource.type=\"firestore.googleapis.com/Database\""
      align  = "ALIGN_RATE", reduce = "REDUCE_SUM", by = ["metric.label.op"]
    },
  ]
}

resource "google_monitoring_dashboard" "this" {
  dashboard_json = jsonencode({
    displayName = "Parley (${var.name})"
    mosaicLayout = {
      columns = 48
      tiles = [
        for i, c in local.charts : {
          width = 24, height = 16, xPos = i % 2 * 24, yPos = floor(i / 2) * 16
          widget = {
            title = c.title
            xyChart = {
              dataSets = [{
                plotType = "LINE"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = c.filter
                    aggregation = {
                      alignmentPeriod    = c.align == "ALIGN_SUM" ? "300s" : "60s"
                      perSeriesAligner   = c.align
                      crossSeriesReducer = c.reduce
                      groupByFields      = c.by
                    }
                  }
                }
              }]
            }
          }
        }
      ]
    }
  })

  depends_on = [google_project_service.api]
}

resource "google_billing_budget" "monthly" {
  provider = google.budget
  count    = var.budget == null ? 0 : 1

  billing_account = var.budget.billing_account
  display_name    = "${var.name}, monthly"

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
  }
  amount {
    specified_amount {
      units = tostring(floor(var.budget.amount))
    }
  }
  threshold_rules {
    threshold_percent = 0.5
  }
  threshold_rules {
    threshold_percent = 0.9
  }
  threshold_rules {
    threshold_percent = 1.0
  }

  depends_on = [google_project_service.api]
}
