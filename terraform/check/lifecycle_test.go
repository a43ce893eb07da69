package check

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"parley.internal/terraform/check/schema"
)

func TestFormatted(t *testing.T) {
	need(t)
	args := []string{"fmt", "-check", "-diff"}
	for _, pattern := range []string{"*.tf", "tests/*.tftest.hcl"} { // but not the operator's terraform.tfvars
		files, err := filepath.Glob(filepath.Join(root, "terraform", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		args = append(args, files...)
	}
	if out, err := terraform(t.Context(), root, args...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// fresh returns a new workspace for one test.
func fresh(t *testing.T) string {
	t.Helper()
	need(t)
	dir, err := workspace(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestValid(t *testing.T) {
	t.Parallel()
	dir := fresh(t)
	if _, err := terraform(t.Context(), dir, "validate", "-no-color"); err != nil {
		t.Error(err)
	}
	// the workspaces of all tests leave out backend.tf
	data, err := os.ReadFile(filepath.Join(root, "terraform", "backend.tf"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `backend "gcs" {}`) || strings.Contains(string(data), "resource") {
		t.Errorf("backend.tf has more than the backend:\n%s", data)
	}
}

// TestTerraformTests runs terraform/tests.
func TestTerraformTests(t *testing.T) {
	need(t)
	files, err := filepath.Glob(filepath.Join(root, "terraform", "tests", "*.tftest.hcl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("terraform/tests: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".tftest.hcl"), func(t *testing.T) {
			t.Parallel()
			out, err := terraform(t.Context(), fresh(t), "test", "-no-color", "-filter=tests/"+filepath.Base(file))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(out)
			if !strings.Contains(out, " 0 failed") || strings.Contains(out, " 0 passed") {
				t.Error("no test was run")
			}
		})
	}
}

func TestExampleOfVariablesCanBePlanned(t *testing.T) {
	t.Parallel()
	dir := fresh(t)
	data, err := os.ReadFile(filepath.Join(root, "terraform", "terraform.tfvars.example"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("\n# ", "\n", "…\"\n\n# model", "\"\n\n# model").Replace(string(data))
	text = strings.ReplaceAll(text, "gateway@sha256:…", image[strings.Index(image, "gateway@"):])
	// the first line is prose
	_, text, _ = strings.Cut(text, "\n")
	if err := os.WriteFile(filepath.Join(dir, "terraform.tfvars"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := terraform(t.Context(), dir, "plan", "-no-color"); err != nil {
		t.Errorf("with every line of terraform.tfvars.example: %v", err)
	}
}

// A second plan must change nothing, and a destroy must succeed.
func TestSecondPlanIsEmptyAndDestroySucceeds(t *testing.T) {
	t.Parallel()
	d := minimal(t)
	dir := withState(t, d)
	if out, err := terraform(t.Context(), dir, append([]string{"plan", "-detailed-exitcode"}, d.args...)...); err != nil {
		t.Errorf("a second plan changes something: %v\n%s", err, out)
	}
	out, err := terraform(t.Context(), dir, append([]string{"destroy", "-auto-approve", "-parallelism=64"}, d.args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "Destroy complete!") {
		t.Errorf("destroy: %s", out)
	}
}

// The test follows README.md, "Destroy a deployment", for a deployment with users' tokens.
func TestDestroyKeepsTheKeyOfTheTokens(t *testing.T) {
	t.Parallel()
	d := full(t)
	dir := withState(t, d)
	destroy := append([]string{"destroy", "-auto-approve", "-parallelism=64"}, d.args...)
	if out, err := terraform(t.Context(), dir, destroy...); err == nil || !strings.Contains(out, `google_kms_crypto_key.tokens["twitch"]`) {
		t.Fatalf("the destroy of the tokens' key was not refused: %v\n%s", err, out)
	}
	forget := regexp.MustCompile(`terraform state rm '([^']+)' '([^']+)'`).FindStringSubmatch(readme(t))
	if forget == nil {
		t.Fatal("README.md has no command to remove the key from the state")
	}
	if _, err := terraform(t.Context(), dir, "state", "rm", forget[1], forget[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := terraform(t.Context(), dir, destroy...); err != nil {
		t.Error(err)
	}
}

// The test follows README.md, "Restore". Resources of the old database in the state would be destroyed there, and created on
// the restored database although they exist.
func TestRestoreRemovesTheOldDatabaseFromTheState(t *testing.T) {
	t.Parallel()
	dir := withState(t, minimal(t))
	forget := regexp.MustCompile(`terraform state rm (google_firestore_[^\n\\]*(?:\\\n[^\n\\]*)*)`).FindStringSubmatch(readme(t))
	if forget == nil {
		t.Fatal("README.md has no command to remove the database from the state")
	}
	addresses := strings.Fields(strings.ReplaceAll(forget[1], "\\\n", " "))
	if _, err := terraform(t.Context(), dir, append([]string{"state", "rm"}, addresses...)...); err != nil {
		t.Fatal(err)
	}
	left, err := terraform(t.Context(), dir, "state", "list")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(left, "google_firestore_") || !strings.Contains(left, "google_pubsub_topic") {
		t.Errorf("after %s the state has\n%s", forget[0], left)
	}
}

// withState returns a new workspace with a copy of a deployment's state. Other tests use the original.
func withState(t *testing.T, d *deployment) string {
	t.Helper()
	dir := fresh(t)
	state, err := os.ReadFile(filepath.Join(d.dir, "terraform.tfstate"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "terraform.tfstate"), state, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOutputNextNamesTheNextStep(t *testing.T) {
	for name, d := range map[string]*deployment{"step 4": minimal(t), "step 5": full(t)} {
		if next, _ := d.outputs["next"].(string); !strings.Contains(next, name) {
			t.Errorf("next = %q; want %s", next, name)
		}
	}
	if url, _ := full(t).outputs["gateway_url"].(string); !strings.HasPrefix(url, "https://parley-staging-gateway-") {
		t.Errorf("gateway_url = %q", url)
	}
}

// The test adds a function: a subscription in the topology and a source folder.
func TestNewFunctionNeedsOnlyTopologyAndSource(t *testing.T) {
	t.Parallel()
	dir := fresh(t)
	file := filepath.Join(dir, "..", "shared", "topology", "topology.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), `"subscriptions": [`, `"subscriptions": [
    {
      "name": "another", "topic": "internal.egress.v1", "function": "another",
      "filter": "attributes.route = \"another\"",
      "ackDeadlineSeconds": 30, "minBackoffSeconds": 1, "maxBackoffSeconds": 60, "maxDeliveryAttempts": 5
    },`, 1)
	if text == string(data) {
		t.Fatal("topology.json has no list of subscriptions")
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "..", "functions", "another")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "another.go"), []byte("package another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := terraform(t.Context(), dir, "plan", "-no-color", "-var=project_id="+project)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`google_cloudfunctions2_function.function["another"]`,
		`google_pubsub_subscription.subscription["another"]`,
		`google_service_account.part["another"]`,
		`google_cloud_run_v2_service_iam_member.push["another"]`,
		`google_project_iam_member.firestore["another"]`,
		`google_pubsub_topic_iam_member.publisher["another/internal.deadletter.v1"]`,
		`google_pubsub_subscription_iam_member.dead_letter["another"]`,
	} {
		if !strings.Contains(out, "# "+want+" will be created") {
			t.Errorf("%s is not planned", want)
		}
	}
}

// After adding a resource, extract the schema again: see package schema.
func TestSchemaHasExactlyTheUsedResources(t *testing.T) {
	used := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(root, "terraform", "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range usage.FindAllStringSubmatch(string(data), -1) {
			used[m[1]+" "+m[2]] = true
		}
	}
	has := map[string]bool{}
	p, err := schema.Google()
	if err != nil {
		t.Fatal(err)
	}
	for name := range p.Resources {
		has["resource "+name] = true
	}
	for name := range p.DataSources {
		has["data "+name] = true
	}
	if !maps.Equal(used, has) {
		t.Errorf("check/schema/google.json is stale; see package schema\n got %v\nwant %v",
			slices.Sorted(maps.Keys(has)), slices.Sorted(maps.Keys(used)))
	}
	if p.Version != "6.50.0" {
		t.Errorf("the schema is of version %s", p.Version)
	}
}

var usage = regexp.MustCompile(`(?m)^(resource|data) "(google_\w+)"`)
