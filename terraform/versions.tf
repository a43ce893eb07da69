terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.7"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  # Whose a resource is can be seen in the console and on the bill.
  default_labels = {
    app = var.name
  }
}

# The one API here that asks whose quota a person's requests count for, and otherwise answers 403
# (https://cloud.google.com/docs/authentication/adc-troubleshooting/user-creds). Who applies, needs serviceusage.services.use.
provider "google" {
  alias = "budget"

  project               = var.project_id
  billing_project       = var.project_id
  user_project_override = true
}

# The numeric id of the project stands in the names of Google's own service agents.
data "google_project" "this" {
  project_id = var.project_id
}
