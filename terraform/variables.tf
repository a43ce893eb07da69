variable "project_id" {
  description = "Google Cloud project to run in. It has to exist and to have billing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "Region of everything that runs."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like us-central1."
  }
}

variable "name" {
  description = "Begins the name of every resource but topics and subscriptions, so that several deployments can share a project."
  type        = string
  default     = "parley"

  validation {
    # with "-personality" behind it, it is the id of a service account, which has at most 30 characters
    condition     = can(regex("^[a-z][a-z0-9-]{3,15}[a-z0-9]$", var.name))
    error_message = "5 to 17 lower-case letters, digits and hyphens, a letter first, no hyphen last."
  }
}

variable "bus_prefix" {
  description = "Begins the name of every topic and subscription, separator included (\"staging.\"), so that several deployments can share a project."
  type        = string
  default     = ""

  validation {
    condition     = var.bus_prefix == "" || can(regex("^[A-Za-z][A-Za-z0-9._~-]{0,63}$", var.bus_prefix)) && !startswith(lower(var.bus_prefix), "goog")
    error_message = "A letter first (and not \"goog\"), then letters, digits or . - _ ~, 64 at most."
  }
}

variable "log_level" {
  description = "The least severity that is logged."
  type        = string
  default     = "info"

  validation {
    condition     = contains(["debug", "info", "warn", "error"], var.log_level)
    error_message = "debug, info, warn or error."
  }
}

variable "environment" {
  description = "Settings of a part that differ from their defaults: {personality = {REPLY_MAX_CHARS = \"500\"}}. environment.json lists what each part knows."
  type        = map(map(string))
  default     = {}

  validation {
    condition = alltrue([
      for part, settings in var.environment : alltrue([
        for setting in keys(settings) : contains(try(jsondecode(file("${path.module}/environment.json"))[part], []), setting)
      ])
    ])
    error_message = "A part is not known, or does not know one of its settings, or gets that one from another variable or from a secret. environment.json lists the parts and their settings."
  }

  validation {
    # What a gateway begins to write just before the deadline may take it so long, settling that 5 s more; and clocks
    # differ. Unset is what the parts themselves take.
    condition = try(timecmp(
      timeadd("2000-01-01T00:00:00Z", lookup(lookup(var.environment, "dlq", {}), "SWEEP_GRACE", "20s")),
      timeadd(timeadd("2000-01-01T00:00:00Z", lookup(lookup(var.environment, "gateway", {}), "WS_WRITE_TIMEOUT", "10s")), "10s"),
    ) >= 0, false)
    error_message = "dlq.SWEEP_GRACE (20s if unset) has to be at least 10s more than gateway.WS_WRITE_TIMEOUT (10s if unset): otherwise answers that are written just before their deadline are dead-lettered although they arrive."
  }
}

# Data

variable "firestore_location" {
  description = "Where the database is, a region or a multi-region (nam5, eur3); the region of everything else if empty. It can't be changed later."
  type        = string
  default     = ""

  validation {
    condition     = var.firestore_location == "" || can(regex("^[a-z]+-[a-z]+[0-9]+$|^(nam5|nam7|eur3)$", var.firestore_location))
    error_message = "A region, or one of nam5, nam7, eur3."
  }
}

variable "firestore_database" {
  description = "Name of the database. The first one of a project has Firestore's free quota."
  type        = string
  default     = "(default)"

  validation {
    condition     = var.firestore_database == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.firestore_database))
    error_message = "(default), or 4 to 63 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "protect_data" {
  description = "Keep the database whatever is destroyed. To be rid of it: set to false, apply, then destroy."
  type        = bool
  default     = true
}

variable "backup_days" {
  description = "For how many days a daily backup of the database is kept; 0 for no backups beside the 7 days of point-in-time recovery."
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 0 && var.backup_days <= 98 && floor(var.backup_days) == var.backup_days
    error_message = "0 to 98 whole days: Firestore keeps a backup for at most 14 weeks."
  }
}

# Gateway

variable "gateway_image" {
  description = "The gateway's image, by digest. Empty for no gateway yet: the first apply makes the repository that the image is pushed to."
  type        = string
  default     = ""

  validation {
    condition     = var.gateway_image == "" || can(regex("^[a-z0-9.-]+/[A-Za-z0-9._/-]+@sha256:[0-9a-f]{64}$", var.gateway_image))
    error_message = "HOST/PATH@sha256:DIGEST. A tag can be moved to another image, so it does not say what runs."
  }
}

variable "gateway_public" {
  description = "Let anybody reach the gateway. Sockets need a token of Parley's in any case; without this, nothing but what has the role run.invoker gets as far."
  type        = bool
  default     = true
}

variable "gateway_min_instances" {
  description = "Instances that run even with nobody connected. With 0, an empty gateway costs nothing and the first client waits for a start."
  type        = number
  default     = 0

  validation {
    condition     = var.gateway_min_instances >= 0 && floor(var.gateway_min_instances) == var.gateway_min_instances
    error_message = "A whole number, at least 0."
  }
}

variable "gateway_max_instances" {
  description = "Instances at most: times gateway_concurrency, this many sockets."
  type        = number
  default     = 10

  validation {
    condition     = var.gateway_max_instances >= 1 && var.gateway_max_instances >= var.gateway_min_instances && floor(var.gateway_max_instances) == var.gateway_max_instances
    error_message = "A whole number, at least 1 and not less than gateway_min_instances."
  }
}

variable "gateway_concurrency" {
  description = "Sockets and requests that one instance takes at a time."
  type        = number
  default     = 1000

  validation {
    condition     = var.gateway_concurrency >= 1 && var.gateway_concurrency <= 1000 && floor(var.gateway_concurrency) == var.gateway_concurrency
    error_message = "1 to 1000: Cloud Run gives an instance no more."
  }
}

variable "gateway_cpu" {
  description = "vCPUs of a gateway instance."
  type        = string
  default     = "1"

  validation {
    condition     = contains(["1", "2", "4", "8"], var.gateway_cpu)
    error_message = "1, 2, 4 or 8: with less than one, an instance takes one request at a time."
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
    # https://cloud.google.com/run/docs/configuring/services/cpu; an execution environment of the second generation,
    # which the gateway has, takes no less than 512 MiB.
    condition = try(alltrue([
      for mib in [tonumber(substr(var.gateway_memory, 0, length(var.gateway_memory) - 2)) * (endswith(var.gateway_memory, "Gi") ? 1024 : 1)] :
      mib >= { "1" = 512, "2" = 512, "4" = 2048, "8" = 4096 }[var.gateway_cpu] && mib <= tonumber(var.gateway_cpu) * 4096
    ]), true) # what makes this fail is refused by itself
    error_message = "Cloud Run gives at most 4 GiB for each of gateway_cpu, and at least 512 MiB: 2 GiB with 4 vCPUs, 4 GiB with 8."
  }
}

variable "domain" {
  description = "Domain under which clients reach the gateway, verified as yours; empty for the address that Cloud Run gives it. Only some regions can: https://cloud.google.com/run/docs/mapping-custom-domains#limitations"
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
  description = "Instances of each function that wait for events. With 0, an idle function costs nothing and the first event waits for a start."
  type        = number
  default     = 0

  validation {
    condition     = var.functions_min_instances >= 0 && floor(var.functions_min_instances) == var.functions_min_instances
    error_message = "A whole number, at least 0."
  }
}

variable "functions_max_instances" {
  description = "Instances of each function at most: bounds what a flood of events can cost. What they can't take yet waits in Pub/Sub."
  type        = number
  default     = 20

  validation {
    condition     = var.functions_max_instances >= 1 && var.functions_max_instances >= var.functions_min_instances && floor(var.functions_max_instances) == var.functions_max_instances
    error_message = "A whole number, at least 1 and not less than functions_min_instances."
  }
}

variable "functions_concurrency" {
  description = "Events that one instance of a function works on at a time."
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
  description = "Who words the answers: embedded (needs nothing, understands nothing), gemini, or openai (any endpoint of that protocol)."
  type        = string
  default     = "embedded"

  validation {
    condition     = contains(["embedded", "gemini", "openai"], var.model_provider)
    error_message = "embedded, gemini or openai."
  }
}

variable "model_name" {
  description = "The model, as its provider calls it."
  type        = string
  default     = ""

  validation {
    condition     = var.model_provider == "embedded" || var.model_name != ""
    error_message = "Required for every provider but embedded."
  }
}

variable "model_key_version" {
  description = "Version of the secret NAME-model-key that holds the provider's API key: its number, or latest. Empty for none; Gemini is then reached through Vertex AI as the function's service account."
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
  description = "Chat platforms beside the gateway's own sockets: twitch, discord. Naming one makes what its secrets are kept in; README.md says how to go on."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.platforms, ["twitch", "discord"])) == 0
    error_message = "twitch or discord."
  }
}

variable "twitch_client_id" {
  description = "Client id of the application that is registered at dev.twitch.tv/console."
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
  description = "Version of the secret NAME-twitch-client-secret that holds the application's client secret: its number, or latest. Twitch is off without."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([0-9]+|latest)?$", var.twitch_client_secret_version))
    error_message = "A number, or latest, or nothing."
  }

  validation {
    condition     = var.twitch_client_secret_version == "" || var.twitch_client_id != "" && var.twitch_bot_user_id != ""
    error_message = "Twitch needs twitch_client_id and twitch_bot_user_id, too."
  }
}

variable "twitch_bot_user_id" {
  description = "Twitch's number of the account that Parley speaks and whispers as; somebody has to have logged in as it."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[0-9]{0,20}$", var.twitch_bot_user_id))
    error_message = "A number; a login name is not one."
  }
}

variable "twitch_channels" {
  description = "Names of the Twitch channels in which Parley listens and speaks."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.twitch_channels : can(regex("^[a-z0-9_]{1,25}$", c))])
    error_message = "A channel's name has 1 to 25 lower-case letters, digits and _."
  }

  validation {
    condition     = length(var.twitch_channels) == 0 || var.twitch_client_secret_version != ""
    error_message = "Nobody can listen without twitch_client_secret_version."
  }

  validation {
    condition     = length(var.twitch_channels) == 0 || var.gateway_min_instances > 0
    error_message = "Somebody has to listen also while no socket is open: gateway_min_instances of at least 1."
  }
}

variable "oauth_allowed_users" {
  description = "Who may log in beside the bot, so that Parley acts for them: twitch:123. Login names are not taken, because they change hands."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for u in var.oauth_allowed_users : can(regex("^twitch:[0-9]{1,20}$", u))])
    error_message = "Of the form twitch:123."
  }
}

variable "oauth_operator_secret_version" {
  description = "Version of the secret NAME-oauth-operator-secret: its number, or latest. Whoever knows that secret, of at least 24 characters, may log in with any account. Nobody may without."
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
  description = "Where browsers reach the gateway, if neither by domain nor by the address that Cloud Run gives it: https://chat.example.com."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(https://[A-Za-z0-9.-]+(:[0-9]+)?)?$", var.public_url))
    error_message = "Of the form https://chat.example.com, without a path."
  }
}

variable "discord_bot_token_version" {
  description = "Version of the secret NAME-discord-bot-token that holds the bot's token: its number, or latest. Discord is off without."
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
    error_message = "Somebody has to listen also while no socket is open: gateway_min_instances of at least 1."
  }
}

variable "discord_roles" {
  description = "What roles on Discord mean, by their names or ids: {Moderators = \"moderator\"}. Others mean nothing."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, role in var.discord_roles : can(regex("^[^,=]*[^,= ][^,=]*$", name)) && can(regex("^[^,=]*[^,= ][^,=]*$", role))])
    error_message = "Neither a name nor a role may be empty or have a comma or = in it; such a role is named by its id."
  }
}

variable "kms_location" {
  description = "Where the key is that people's OAuth tokens are encrypted with; the region of everything else if empty. It can't be changed later."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z]+-[a-z]+[0-9]+|global|us|europe|asia|[a-z]+[0-9]+)?$", var.kms_location))
    error_message = "A location of Cloud KMS: a region, or a multi-region such as us or europe."
  }
}

# Watching

variable "alert_emails" {
  description = "Addresses that alerts are sent to. Without any, they show in the console only."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", a))])
    error_message = "One of them is not an e-mail address."
  }
}

variable "alert_unacked_seconds" {
  description = "An alert is raised when a message waits for longer than this. More than the retries of one poisoned message take, or that alone raises it."
  type        = number
  default     = 600

  validation {
    condition     = var.alert_unacked_seconds >= 60
    error_message = "At least 60."
  }
}

variable "budget" {
  description = "Monthly budget: who pays (a billing account's id), and how much in whole units of its currency. E-mails go to the billing account's administrators at half, nine tenths and all of it. A budget only tells; it stops nothing."
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
