variable "project_id" {
  description = "Google Cloud project. The project must exist and have billing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "Region of the gateway and the functions."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like us-central1."
  }
}

variable "name" {
  description = "Beginning of the name of every resource except topics and subscriptions. Several deployments can then share a project."
  type        = string
  default     = "parley"

  validation {
    # the name with "-personality" is the id of a service account, with a maximum of 30 characters
    condition     = can(regex("^[a-z][a-z0-9-]{3,15}[a-z0-9]$", var.name))
    error_message = "5 to 17 lower-case letters, digits and hyphens, a letter first, no hyphen last."
  }
}

variable "bus_prefix" {
  description = "Beginning of the name of every topic and subscription, with separator (\"staging.\"). Several deployments can then share a project."
  type        = string
  default     = ""

  validation {
    condition     = var.bus_prefix == "" || can(regex("^[A-Za-z][A-Za-z0-9._~-]{0,63}$", var.bus_prefix)) && !startswith(lower(var.bus_prefix), "goog")
    error_message = "A letter first (and not \"goog\"), then letters, digits or . - _ ~, 64 at most."
  }
}

variable "log_level" {
  description = "Minimum severity of the log."
  type        = string
  default     = "info"

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "debug, info, warn or error."
  }
}

variable "environment" {
  description = "Settings with values other than the defaults, by part: {personality = {REPLY_MAX_CHARS = \"500\"}}. environment.json lists the settings of each part."
  type        = map(map(string))
  default     = {}

  validation {
    condition = alltrue([
      for part, settings in var.environment : alltrue([
        for setting in keys(settings) : contains(try(jsondecode(file("${path.module}/environment.json"))[part], []), setting)
      ])
    ])
    error_message = "Unknown part or unknown setting, or a setting from another variable or a secret. environment.json lists the parts and their settings."
  }

  validation {
    # A gateway may begin a write just before the deadline. The write takes up to WS_WRITE_TIMEOUT, and settling takes 5 s
    # more; clocks differ, too. The fallback values are the defaults of the parts.
    condition = try(timecmp(
      timeadd("2000-01-01T00:00:00Z", lookup(lookup(var.environment, "dlq", {}), "SWEEP_GRACE", "20s")),
      timeadd(timeadd("2000-01-01T00:00:00Z", lookup(lookup(var.environment, "gateway", {}), "WS_WRITE_TIMEOUT", "10s")), "10s"),
    ) >= 0, false)
    error_message = "dlq.SWEEP_GRACE (20s if unset) must be at least 10s more than gateway.WS_WRITE_TIMEOUT (10s if unset). Otherwise answers written just before their deadline are dead-lettered although they arrive."
  }
}

# Data

variable "firestore_location" {
  description = "Location of the database: a region or a multi-region (nam5, eur3). Empty means var.region. The location can't change later."
  type        = string
  default     = ""

  validation {
    condition     = var.firestore_location == "" || can(regex("^[a-z]+-[a-z]+[0-9]+$|^(nam5|nam7|eur3)$", var.firestore_location))
    error_message = "A region, or one of nam5, nam7, eur3."
  }
}

variable "firestore_database" {
  description = "Name of the database. The first database of a project has Firestore's free quota."
  type        = string
  default     = "(default)"

  validation {
    condition     = var.firestore_database == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.firestore_database))
    error_message = "(default), or 4 to 63 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "protect_data" {
  description = "Protect the database from every destroy. To delete the database: set to false, apply, then destroy."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "Retention of the daily backups in days. 0 means no backups; point-in-time recovery covers 7 days in any case."
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 0 && var.backup_days <= 98 && floor(var.backup_days) == var.backup_days
    error_message = "0 to 98 whole days: Firestore keeps a backup for at most 14 weeks."
  }
}

# Gateway

variable "gateway_image" {
  description = "The gateway's image, by digest. Empty means no gateway: the first apply creates the repository for the image."
  type        = string
  default     = ""

  validation {
    condition     = var.gateway_image == "" || can(regex("^[a-z0-9.-]+/[A-Za-z0-9._/-]+@sha256:[0-9a-f]{64}$", var.gateway_image))
    error_message = "HOST/PATH@sha256:DIGEST. A tag can move to another image; a digest can not."
  }
}

variable "gateway_public" {
  description = "Make the gateway public. Sockets need a token of Parley in any case. Without this, callers also need the role run.invoker."
  type        = bool
  default     = true
}

variable "gateway_min_instances" {
  description = "Minimum number of gateway instances. With 0, a gateway without clients costs nothing, and the first client waits for a start."
  type        = number
  default     = 0

  validation {
    condition     = var.gateway_min_instances >= 0 && floor(var.gateway_min_instances) == var.gateway_min_instances
    error_message = "A whole number, at least 0."
  }
}

variable "gateway_max_instances" {
  description = "Maximum number of gateway instances. The product with gateway_concurrency is the maximum number of sockets."
  type        = number
  default     = 10

  validation {
    condition     = var.gateway_max_instances >= 1 && var.gateway_max_instances >= var.gateway_min_instances && floor(var.gateway_max_instances) == var.gateway_max_instances
    error_message = "A whole number, at least 1 and not less than gateway_min_instances."
  }
}

variable "gateway_concurrency" {
  description = "Maximum of concurrent sockets and requests per instance."
  type        = number
  default     = 1000

  validation {
    condition     = var.gateway_concurrency >= 1 && var.gateway_concurrency <= 1000 && floor(var.gateway_concurrency) == var.gateway_concurrency
    error_message = "1 to 1000, the maximum of Cloud Run."
  }
}

variable "gateway_cpu" {
  description = "vCPUs of a gateway instance."
  type        = string
  default     = "1"

  validation {
    condition     = contains(["1", "2", "4", "8"], var.gateway_cpu)
    error_message = "1, 2, 4 or 8: with less than 1, an instance handles one request at a time."
  }
}

variable "gateway_memory" {
  description = "Memory of a gateway instance."
  type        = string
  default     = "512Mi"

  validation {
    condition     = can(regex("^[0-9]+(Mi|Gi)$", var.gateway_memory))
    error_message = "Of the form 512Mi or 1Gi."
  }

  validation {
    # https://cloud.google.com/run/docs/configuring/services/cpu; the second generation of execution environments,
    # used by the gateway, requires at least 512 MiB.
    condition = try(alltrue([
      for mib in [tonumber(substr(var.gateway_memory, 0, length(var.gateway_memory) - 2)) * (endswith(var.gateway_memory, "Gi") ? 1024 : 1)] :
      mib >= { "1" = 512, "2" = 512, "4" = 2048, "8" = 4096 }[var.gateway_cpu] && mib <= tonumber(var.gateway_cpu) * 4096
    ]), true) # invalid values fail another validation
    error_message = "Cloud Run allows at most 4 GiB per vCPU (gateway_cpu). The minimum is 512 MiB, with 4 vCPUs 2 GiB, and with 8 vCPUs 4 GiB."
  }
}

variable "metrics_token_version" {
  description = "Version of the secret NAME-metrics-token: a number, or latest. The token has 24 to 512 printable characters and opens the gateway's /metrics. Empty means that the gateway serves no /metrics."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9]+|latest)?$", var.metrics_token_version))
    error_message = "A number, or latest, or nothing."
  }
}

variable "domain" {
  description = "Domain of the gateway, with verified ownership. Empty means the address from Cloud Run. Only some regions support domains: https://cloud.google.com/run/docs/mapping-custom-domains#limitations"
  type        = string
  default     = ""

  validation {
    condition     = var.domain == "" || can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "A domain name in lower case."
  }
}

# Functions

variable "functions_runtime" {
  description = "Runtime of the functions: not older than the Go version in go.mod."
  type        = string
  default     = "go126"

  validation {
    condition     = can(regex("^go1[0-9]{2}$", var.functions_runtime))
    error_message = "Of the form go126."
  }
}

variable "functions_min_instances" {
  description = "Minimum number of instances of each function. With 0, an idle function costs nothing, and the first event waits for a start."
  type        = number
  default     = 0

  validation {
    condition     = var.functions_min_instances >= 0 && floor(var.functions_min_instances) == var.functions_min_instances
    error_message = "A whole number, at least 0."
  }
}

variable "functions_max_instances" {
  description = "Maximum number of instances of each function. It limits the cost of a flood of events; more events wait in Pub/Sub."
  type        = number
  default     = 20

  validation {
    condition     = var.functions_max_instances >= 1 && var.functions_max_instances >= var.functions_min_instances && floor(var.functions_max_instances) == var.functions_max_instances
    error_message = "A whole number, at least 1 and not less than functions_min_instances."
  }
}

variable "functions_concurrency" {
  description = "Concurrent events per instance of a function."
  type        = number
  default     = 50

  validation {
    condition     = var.functions_concurrency >= 1 && var.functions_concurrency <= 1000 && floor(var.functions_concurrency) == var.functions_concurrency
    error_message = "1 to 1000."
  }
}

variable "functions_memory" {
  description = "Memory of an instance of a function."
  type        = string
  default     = "512Mi"

  validation {
    condition     = can(regex("^[0-9]+(Mi|Gi)$", var.functions_memory))
    error_message = "Of the form 512Mi or 1Gi."
  }

  validation {
    condition = try(alltrue([
      for mib in [tonumber(substr(var.functions_memory, 0, length(var.functions_memory) - 2)) * (endswith(var.functions_memory, "Gi") ? 1024 : 1)] :
      mib >= 128 && mib <= 4096
    ]), true)
    error_message = "128Mi to 4Gi: a function has one vCPU."
  }
}

# Model

variable "model_provider" {
  description = "Provider of the model: embedded (needs no network and understands nothing), gemini, or openai (any endpoint with OpenAI's protocol)."
  type        = string
  default     = "embedded"

  validation {
    condition     = contains(["embedded", "gemini", "openai"], var.model_provider)
    error_message = "embedded, gemini or openai."
  }
}

variable "model_name" {
  description = "Name of the model at the provider."
  type        = string
  default     = ""

  validation {
    condition     = var.model_provider == "embedded" || var.model_name != ""
    error_message = "Required for every provider but embedded."
  }
}

variable "model_key_version" {
  description = "Version of the secret NAME-model-key with the provider's API key: a number, or latest. Empty means no key; Gemini then works through Vertex AI with the function's service account."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9]+|latest)?$", var.model_key_version))
    error_message = "A number, or latest, or nothing."
  }

  validation {
    condition     = var.model_key_version == "" || var.model_provider != "embedded"
    error_message = "The embedded model has no key."
  }
}

# Platforms

variable "platforms" {
  description = "Chat platforms in addition to the gateway's sockets: twitch, discord. Terraform creates the empty secrets of each platform; README.md has the next steps."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.platforms, ["twitch", "discord"])) == 0
    error_message = "twitch or discord."
  }
}

variable "twitch_client_id" {
  description = "Client id of the application registered at dev.twitch.tv/console."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[a-z0-9]*$", var.twitch_client_id))
    error_message = "Lower-case letters and digits."
  }

  validation {
    condition     = var.twitch_client_id == "" || contains(var.platforms, "twitch")
    error_message = "platforms does not name twitch."
  }
}

variable "twitch_client_secret_version" {
  description = "Version of the secret NAME-twitch-client-secret with the application's client secret: a number, or latest. Empty turns Twitch off."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9]+|latest)?$", var.twitch_client_secret_version))
    error_message = "A number, or latest, or nothing."
  }

  validation {
    condition     = var.twitch_client_secret_version == "" || var.twitch_client_id != "" && var.twitch_bot_user_id != ""
    error_message = "Twitch also needs twitch_client_id and twitch_bot_user_id."
  }
}

variable "twitch_bot_user_id" {
  description = "Numeric Twitch user id of the bot, the account for messages and whispers. The bot must be logged in."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[0-9]{0,20}$", var.twitch_bot_user_id))
    error_message = "A number, not a login name."
  }
}

variable "twitch_channels" {
  description = "Names of the Twitch channels where Parley reads and writes."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.twitch_channels : can(regex("^[a-z0-9_]{1,25}$", c))])
    error_message = "A channel's name has 1 to 25 lower-case letters, digits and _."
  }

  validation {
    condition     = length(var.twitch_channels) == 0 || var.twitch_client_secret_version != ""
    error_message = "twitch_channels requires twitch_client_secret_version."
  }

  validation {
    condition     = length(var.twitch_channels) == 0 || var.gateway_min_instances > 0
    error_message = "The gateway must listen also without open sockets: set gateway_min_instances to at least 1."
  }
}

variable "oauth_allowed_users" {
  description = "Users who may log in in addition to the bot, so that Parley can act for these users: twitch:123. Login names are not accepted, because they can change owners."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for u in var.oauth_allowed_users : can(regex("^twitch:[0-9]{1,20}$", u))])
    error_message = "Of the form twitch:123."
  }
}

variable "oauth_operator_secret_version" {
  description = "Version of the secret NAME-oauth-operator-secret: a number, or latest. The secret has at least 24 characters and allows logins with any account. Empty means no such logins."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9]+|latest)?$", var.oauth_operator_secret_version))
    error_message = "A number, or latest, or nothing."
  }

  validation {
    condition     = var.oauth_operator_secret_version == "" || contains(var.platforms, "twitch")
    error_message = "platforms does not name twitch."
  }
}

variable "public_url" {
  description = "Address of the gateway for browsers, if neither domain nor the address from Cloud Run: https://chat.example.com."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(https://[A-Za-z0-9.-]+(:[0-9]+)?)?$", var.public_url))
    error_message = "Of the form https://chat.example.com, without a path."
  }
}

variable "discord_bot_token_version" {
  description = "Version of the secret NAME-discord-bot-token with the bot's token: a number, or latest. Empty turns Discord off."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9]+|latest)?$", var.discord_bot_token_version))
    error_message = "A number, or latest, or nothing."
  }

  validation {
    condition     = var.discord_bot_token_version == "" || contains(var.platforms, "discord")
    error_message = "platforms does not name discord."
  }

  validation {
    condition     = var.discord_bot_token_version == "" || var.gateway_min_instances > 0
    error_message = "The gateway must listen also without open sockets: set gateway_min_instances to at least 1."
  }
}

variable "discord_roles" {
  description = "Parley's role for each Discord role, by name or id: {Moderators = \"moderator\"}. Other Discord roles have no effect."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, role in var.discord_roles : can(regex("^[^,=]*[^,= ][^,=]*$", name)) && can(regex("^[^,=]*[^,= ][^,=]*$", role))])
    error_message = "Names and roles must not be empty and must not contain a comma or =. Use the id of such a Discord role."
  }
}

variable "kms_location" {
  description = "Location of the key for users' OAuth tokens. Empty means var.region. The location can't change later."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z]+-[a-z]+[0-9]+|global|us|europe|asia|[a-z]+[0-9]+)?$", var.kms_location))
    error_message = "A location of Cloud KMS: a region, or a multi-region such as us or europe."
  }
}

# Monitoring

variable "alert_emails" {
  description = "E-mail addresses for alerts. Without addresses, alerts show only in the console."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", a))])
    error_message = "Not an e-mail address."
  }
}

variable "alert_unacked_seconds" {
  description = "Age of a waiting message that raises an alert. Use more than the time of all retries of one invalid message; otherwise a single such message raises the alert."
  type        = number
  default     = 600

  validation {
    condition     = var.alert_unacked_seconds >= 60
    error_message = "At least 60."
  }
}

variable "budget" {
  description = "Monthly budget: the id of the billing account, and the amount in whole units of the account's currency. The account's administrators get e-mails at 50, 90 and 100 %. A budget stops nothing."
  type = object({
    billing_account = string
    amount          = number
  })
  default = null

  validation {
    condition     = var.budget == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.budget.billing_account)) && try(var.budget.amount > 0, false)
    error_message = "billing_account of the form 012345-ABCDEF-678901, amount more than 0."
  }
}
