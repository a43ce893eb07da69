package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each of these mistakes must fail: this shows that Terraform checks configurations against the schema of the fakes.
func TestBrokenConfigurationsAreRefused(t *testing.T) {
	need(t)
	const head = `
terraform {
  required_providers {
    google  = { source = "hashicorp/google" }
    archive = { source = "hashicorp/archive" }
  }
}
provider "google" {
  project = "my-project"
}
`
	for _, tt := range []struct{ name, config, want string }{
		{"misspelt argument", `resource "google_pubsub_topic" "t" {
  nane = "t"
}`, `An argument named "nane" is not expected here`},
		{"missing argument", `resource "google_pubsub_subscription" "s" {
  name = "s"
}`, `The argument "topic" is required`},
		{"wrong type", `resource "google_pubsub_subscription" "s" {
  name                 = "s"
  topic                = "t"
  ack_deadline_seconds = "soon"
}`, "a number is required"},
		{"list for a map", `resource "google_pubsub_topic" "t" {
  name   = "t"
  labels = ["a"]
}`, "map of string required"},
		{"misspelt block", `resource "google_pubsub_subscription" "s" {
  name  = "s"
  topic = "t"
  retry {
    minimum_backoff = "1s"
  }
}`, `Blocks of type "retry" are not expected here`},
		{"misspelt argument in a block", `resource "google_pubsub_subscription" "s" {
  name  = "s"
  topic = "t"
  push_config {
    push_endpoint = "https://example.com"
    oidc_token {
      service_account = "a"
    }
  }
}`, `An argument named "service_account" is not expected here`},
		{"missing argument in a block", `resource "google_pubsub_subscription" "s" {
  name  = "s"
  topic = "t"
  push_config {}
}`, `The argument "push_endpoint" is required`},
		{"missing block", `resource "google_firestore_index" "i" {
  collection = "c"
}`, `At least 1 "fields" blocks are required`},
		{"a block too many", `resource "google_pubsub_subscription" "s" {
  name  = "s"
  topic = "t"
  retry_policy {}
  retry_policy {}
}`, `No more than 1 "retry_policy" blocks are allowed`},
		{"block as argument", `resource "google_pubsub_subscription" "s" {
  name         = "s"
  topic        = "t"
  retry_policy = { minimum_backoff = "1s" }
}`, "Did you mean to define a block of type"},
		{"set by the provider alone", `resource "google_service_account" "a" {
  account_id = "account"
  email      = "me@example.com"
}`, `its value will be decided automatically`},
		{"reference to nothing", `resource "google_pubsub_topic" "t" {
  name = google_pubsub_topic.other.name
}`, `Reference to undeclared resource`},
		{"reference to a misspelt attribute", `resource "google_service_account" "a" {
  account_id = "account"
}
output "o" {
  value = google_service_account.a.mail
}`, "This object has no argument, nested block, or exported attribute named"},
		{"misspelt attribute of what is computed in a block", `resource "google_cloudfunctions2_function" "f" {
  name     = "f"
  location = "us-central1"
  service_config {}
}
output "o" {
  value = google_cloudfunctions2_function.f.service_config[0].url
}`, "Unsupported attribute"},
		{"misspelt resource", `resource "google_pubsub_topics" "t" {
  name = "t"
}`, "does not support resource type"},
		{"misspelt data source", `data "google_projects" "p" {}`, "does not support data source"},
		{"misspelt argument of the provider", `provider "google" {
  alias = "other"
  proyect = "p"
}
resource "google_pubsub_topic" "t" {
  provider = google.other
  name     = "t"
}`, `An argument named "proyect" is not expected here`},
		{"archive without its path", `data "archive_file" "a" {
  type = "zip"
  source {
    content  = ""
    filename = "a"
  }
}`, `The argument "output_path" is required`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(head+tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := terraform(t.Context(), dir, "validate", "-no-color")
			if err == nil {
				t.Fatal("Terraform accepted the configuration")
			}
			if !strings.Contains(strings.Join(strings.Fields(out), " "), tt.want) {
				t.Errorf("output of Terraform\n%s\nwant %q", out, tt.want)
			}
		})
	}
}

// Terraform finds these mistakes in the real configuration only in a plan.
func TestPlanFindsMistakesBeyondTheSchema(t *testing.T) {
	for _, tt := range []struct{ name, file, old, new, want string }{
		{"unknown topic", "pubsub.tf", `["internal.sweep.v1"]`, `["internal.swept.v1"]`, "Invalid index"},
		{"unknown function", "iam.tf", `google_service_account.part["personality"].member`, `google_service_account.part["persona"].member`, "Invalid index"},
		{"unknown setting", "variables.tf", "map(map(string))\n  default     = {}", "map(map(string))\n  default     = { dlq = { SWEEP_GRAZE = \"1s\" } }", "Unknown part or unknown setting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := fresh(t)
			file := filepath.Join(dir, tt.file)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(data), tt.old, tt.new)
			if text == string(data) {
				t.Fatalf("%s has no %s", tt.file, tt.old)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := terraform(t.Context(), dir, "plan", "-no-color", "-var=project_id="+project)
			if err == nil || !strings.Contains(strings.Join(strings.Fields(out), " "), tt.want) {
				t.Errorf("Terraform: %v\n%s\nwant %q", err, out, tt.want)
			}
		})
	}
}
