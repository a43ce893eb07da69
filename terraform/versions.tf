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

  # The label shows in the console and on the bill.
  default_labels = {
    app = var.name
  }
}

# The API of budgets needs a quota project for user credentials, and otherwise answers 403
# (https://cloud.google.com/docs/authentication/adc-troubleshooting/user-creds). The user needs the permission
# serviceusage.services.use.
provider "google" {
  alias = "budget"

  project               = var.project_id
  billing_project       = var.project_id
  user_project_override = true
}

# The number of the project is part of the names of Google's service agents.
data "google_project" "this" {
  project_id = var.project_id
}
