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

# The numeric id of the project stands in the names of Google's own service agents.
data "google_project" "this" {
  project_id = var.project_id
}
