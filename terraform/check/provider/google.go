package provider

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// projectNumber is the number of the fictional project.
const projectNumber = "123456789012"

// computeGoogle invents the values for references between resources, in the format of the real provider.
func computeGoogle(config map[string]string, typeName string, path []string, o map[string]tftypes.Value) string {
	name := strings.Join(path, ".")
	project := text(o, "project")
	if project == "" {
		project = config["project"]
	}
	location := text(o, "location")
	own := text(o, "name")
	email := text(o, "account_id") + "@" + project + ".iam.gserviceaccount.com"
	url := "https://" + own + "-" + projectNumber + "." + location + ".run.app"
	switch typeName + "." + name {
	case "google_project.number":
		return projectNumber
	case "google_project.project_id":
		return project
	case "google_service_account.email":
		return email
	case "google_service_account.member":
		return "serviceAccount:" + email
	case "google_service_account.name", "google_service_account.id":
		return "projects/" + project + "/serviceAccounts/" + email
	case "google_pubsub_topic.id":
		return "projects/" + project + "/topics/" + own
	case "google_pubsub_subscription.id":
		return "projects/" + project + "/subscriptions/" + own
	case "google_firestore_database.id":
		return "projects/" + project + "/databases/" + own
	case "google_secret_manager_secret.id", "google_secret_manager_secret.name":
		return "projects/" + project + "/secrets/" + text(o, "secret_id")
	case "google_kms_key_ring.id":
		return "projects/" + project + "/locations/" + location + "/keyRings/" + own
	case "google_kms_crypto_key.id":
		return text(o, "key_ring") + "/cryptoKeys/" + own
	case "google_artifact_registry_repository.id":
		return "projects/" + project + "/locations/" + location + "/repositories/" + text(o, "repository_id")
	case "google_project_iam_custom_role.id", "google_project_iam_custom_role.name":
		return "projects/" + project + "/roles/" + text(o, "role_id")
	case "google_cloudfunctions2_function.service_config.uri", "google_cloud_run_v2_service.uri":
		return url
	case "google_cloudfunctions2_function.url":
		return "https://" + location + "-" + project + ".cloudfunctions.net/" + own
	case "google_cloudfunctions2_function.service_config.service", "google_cloud_run_v2_service.id":
		return "projects/" + project + "/locations/" + location + "/services/" + own
	}
	if len(path) == 1 && (path[0] == "id" || path[0] == "name") {
		return typeName + "/" + own
	}
	return "computed"
}

// denyGoogle answers like the budgets API: user credentials without a quota project are refused.
func denyGoogle(config map[string]string, typeName string) error {
	if typeName == "google_billing_budget" && (config["billing_project"] == "" || config["user_project_override"] != "true") {
		return errors.New("403: the billingbudgets.googleapis.com API requires a quota project")
	}
	return nil
}

// refuseGoogle refuses the same deletions as the real provider.
func refuseGoogle(typeName string, o map[string]tftypes.Value) error {
	var protected bool
	if v, ok := o["deletion_protection"]; ok && v.IsKnown() && !v.IsNull() {
		if err := v.As(&protected); err != nil {
			return err
		}
	}
	if protected {
		return fmt.Errorf("%s %q has deletion_protection", typeName, text(o, "name"))
	}
	if text(o, "delete_protection_state") == "DELETE_PROTECTION_ENABLED" && text(o, "deletion_policy") == "DELETE" {
		return errors.New("the database is protected from being deleted (delete_protection_state)")
	}
	return nil
}
