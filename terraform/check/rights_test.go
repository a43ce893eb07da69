package check

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"parley.internal/shared/topology"
)

// call is a call to Google Cloud, with the caller, the required permission and the resource.
type call struct {
	who        string // a part, "push", "build", "pubsub agent" or "everyone"
	does       string
	permission string
	on         string // "topic NAME", "subscription NAME", "service NAME", "database", "project", …
	api        string
	only       func(d *deployment) bool // nil for every deployment
}

// calls returns all calls of the deployed code, and the calls of Google's agents for the deployment. The sources of the
// permissions: https://cloud.google.com/pubsub/docs/access-control#required_permissions,
// https://cloud.google.com/firestore/docs/security/iam, https://cloud.google.com/vertex-ai/docs/general/iam-permissions,
// https://cloud.google.com/secret-manager/docs/access-control, https://cloud.google.com/kms/docs/reference/permissions-and-roles.
func calls() []call {
	const pubsub, firestore = "pubsub.googleapis.com", "firestore.googleapis.com"
	publish := func(who string, topics ...topology.Topic) []call {
		var all []call
		for _, t := range topics {
			all = append(all, call{who: who, does: "bus.Client publishes", permission: "pubsub.topics.publish", on: "topic " + string(t), api: pubsub})
		}
		return all
	}
	all := slices.Concat(
		publish("gateway", topology.Ingress, topology.Egress, topology.DeadLetter),
		publish("enrichment", topology.Enriched, topology.Egress, topology.DeadLetter),
		publish("personality", topology.Egress, topology.DeadLetter),
		publish("dlq", topology.Ingress, topology.Enriched, topology.Egress, topology.DeadLetter),
		publish("whisper", topology.DeadLetter),
		[]call{
			{who: "gateway", does: "bus.Client.Subscribe", permission: "pubsub.subscriptions.create", on: "project", api: pubsub},
			{who: "gateway", does: "bus.Client.Subscribe", permission: "pubsub.topics.attachSubscription", on: "topic " + string(topology.Gateway("x").Topic), api: pubsub},
			{who: "gateway", does: "bus.Subscription.Receive", permission: "pubsub.subscriptions.consume", on: "project", api: pubsub},
			{who: "gateway", does: "bus.Subscription.Delete", permission: "pubsub.subscriptions.delete", on: "project", api: pubsub},

			{who: "personality", does: "model.NewGemini by Vertex AI", permission: "aiplatform.endpoints.predict", on: "project", api: "aiplatform.googleapis.com",
				only: func(d *deployment) bool { return environments(d)["personality"]["MODEL_PROVIDER"] == "gemini" }},
			{who: "personality", does: "its key is read when an instance starts", permission: "secretmanager.versions.access", on: "secret model-key", api: "secretmanager.googleapis.com"},
			{who: "gateway", does: "the token of /metrics is read when an instance starts", permission: "secretmanager.versions.access", on: "secret metrics-token", api: "secretmanager.googleapis.com"},

			{who: "build", does: "reads the staged source", permission: "storage.objects.get", on: "bucket", api: "storage.googleapis.com"},
			{who: "build", does: "reads Cloud Functions' copy of it", permission: "storage.objects.get", on: "project", api: "storage.googleapis.com"},
			{who: "build", does: "pushes the image", permission: "artifactregistry.repositories.uploadArtifacts", on: "repository", api: "artifactregistry.googleapis.com"},
			{who: "build", does: "writes its log", permission: "logging.logEntries.create", on: "project", api: "logging.googleapis.com"},

			{who: "pubsub agent", does: "publishes an undeliverable message", permission: "pubsub.topics.publish", on: "topic " + string(topology.DeadLetter), api: pubsub},
			{who: "pubsub agent", does: "makes the token of a push", permission: "iam.serviceAccounts.getOpenIdToken", on: "account push", api: "iam.googleapis.com"},
			{who: "everyone", does: "opens a socket", permission: "run.routes.invoke", on: "service gateway", api: "run.googleapis.com",
				only: func(d *deployment) bool { return len(d.all("google_cloud_run_v2_service")) > 0 }},
		},
	)
	for _, s := range topology.Subscriptions() {
		if s.MaxDeliveryAttempts > 0 {
			all = append(all, call{who: "pubsub agent", does: "removes an undeliverable message", permission: "pubsub.subscriptions.consume", on: "subscription " + s.Name, api: pubsub})
		}
	}
	for _, part := range []string{"gateway", "whisper"} {
		for _, use := range []string{"Encrypt", "Decrypt"} {
			all = append(all, call{who: part, does: "credential.Key", permission: "cloudkms.cryptoKeyVersions.useTo" + use, on: "key oauth-tokens", api: "cloudkms.googleapis.com", only: has("twitch-client-secret")})
		}
		all = append(all, call{who: part, does: "Twitch's client secret is read when an instance starts", permission: "secretmanager.versions.access", on: "secret twitch-client-secret", api: "secretmanager.googleapis.com", only: has("twitch-client-secret")})
	}
	all = append(all, call{who: "gateway", does: "the operator's secret is read when an instance starts", permission: "secretmanager.versions.access", on: "secret oauth-operator-secret", api: "secretmanager.googleapis.com", only: has("oauth-operator-secret")})
	all = append(all, call{who: "gateway", does: "the Discord bot's token is read when an instance starts", permission: "secretmanager.versions.access", on: "secret discord-bot-token", api: "secretmanager.googleapis.com", only: has("discord-bot-token")})
	functions := map[string]bool{}
	for _, s := range topology.Subscriptions() {
		functions[s.Function] = true
	}
	for _, f := range slices.Sorted(maps.Keys(functions)) {
		all = append(all, call{who: "push", does: "pushes", permission: "run.routes.invoke", on: "service " + f, api: "run.googleapis.com"})
	}
	for _, part := range append(slices.Sorted(maps.Keys(functions)), "gateway") {
		for _, permission := range []string{"datastore.entities.get", "datastore.entities.list", "datastore.entities.create", "datastore.entities.update"} {
			all = append(all, call{who: part, does: "package store, egress or deadletter", permission: permission, on: "database", api: firestore})
		}
	}
	return all
}

// has returns a condition for deployments with a secret of a platform.
func has(secret string) func(*deployment) bool {
	return func(d *deployment) bool {
		return slices.ContainsFunc(d.all("google_secret_manager_secret"), func(r resource) bool { return strings.HasSuffix(r.text("secret_id"), secret) })
	}
}

// roles has the allowed roles with their relevant permissions (https://cloud.google.com/iam/docs/roles-permissions). No part
// needs any other role.
var roles = map[string][]string{
	"roles/pubsub.publisher":                     {"pubsub.topics.publish"},
	"roles/pubsub.subscriber":                    {"pubsub.subscriptions.consume", "pubsub.topics.attachSubscription"},
	"roles/datastore.user":                       {"datastore.entities.get", "datastore.entities.list", "datastore.entities.create", "datastore.entities.update", "datastore.entities.delete"},
	"roles/run.invoker":                          {"run.routes.invoke"},
	"roles/iam.serviceAccountOpenIdTokenCreator": {"iam.serviceAccounts.getOpenIdToken"},
	"roles/secretmanager.secretAccessor":         {"secretmanager.versions.access"},
	"roles/cloudkms.cryptoKeyEncrypterDecrypter": {"cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeyVersions.useToDecrypt"},
	"roles/aiplatform.user":                      {"aiplatform.endpoints.predict"},
	"roles/storage.objectViewer":                 {"storage.objects.get", "storage.objects.list"},
	"roles/artifactregistry.writer":              {"artifactregistry.repositories.uploadArtifacts"},
	"roles/logging.logWriter":                    {"logging.logEntries.create"},
}

// grant is a role of an account on a resource.
type grant struct {
	address, who, role, on string
	permissions            []string
	used                   bool
}

func grants(t *testing.T, d *deployment) []*grant {
	t.Helper()
	accounts := map[string]string{"allUsers": "everyone"}
	for _, a := range d.all("google_service_account") {
		who := a.Name
		if a.Index != nil {
			who = a.key()
		}
		accounts[a.text("member")] = who
	}
	accounts["serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"] = "pubsub agent"
	custom := map[string][]string{}
	for _, r := range d.all("google_project_iam_custom_role") {
		for _, p := range r.at("permissions").([]any) {
			custom[r.text("id")] = append(custom[r.text("id")], fmt.Sprint(p))
		}
	}
	services := map[string]string{}
	for _, f := range d.all("google_cloudfunctions2_function") {
		services[f.text("name")] = f.key()
	}
	for _, s := range d.all("google_cloud_run_v2_service") {
		services[s.text("name")] = "gateway"
	}
	busPrefix := prefix(t, d).String()
	name := strings.TrimSuffix(d.one(t, "google_service_account.push").text("account_id"), "-push")
	var all []*grant
	for _, r := range d.resources {
		kind, isGrant := strings.CutSuffix(r.Type, "_iam_member")
		if !isGrant {
			continue
		}
		g := &grant{address: r.Address, who: accounts[r.text("member")], role: r.text("role")}
		switch kind {
		case "google_pubsub_topic":
			g.on = "topic " + strings.TrimPrefix(r.text("topic"), busPrefix)
		case "google_pubsub_subscription":
			g.on = "subscription " + strings.TrimPrefix(r.text("subscription"), busPrefix)
		case "google_cloud_run_v2_service":
			g.on = "service " + services[r.text("name")]
		case "google_service_account":
			g.on = "account " + accounts["serviceAccount:"+r.text("service_account_id")[strings.LastIndexByte(r.text("service_account_id"), '/')+1:]]
		case "google_secret_manager_secret":
			g.on = "secret " + strings.TrimPrefix(r.text("secret_id"), name+"-")
		case "google_kms_crypto_key":
			g.on = "key " + r.text("crypto_key_id")[strings.LastIndexByte(r.text("crypto_key_id"), '/')+1:]
		case "google_storage_bucket":
			g.on = "bucket"
		case "google_artifact_registry_repository":
			g.on = "repository"
		case "google_project":
			g.on = "project"
			if g.role == "roles/datastore.user" { // on the one database, by a condition
				if want := `resource.name == "projects/` + project + `/databases/` + d.one(t, "google_firestore_database.this").text("name") + `"`; r.text("condition.0.expression") == want {
					g.on = "database"
				}
			}
		default:
			t.Errorf("%s: this test does not know grants on %s", r.Address, kind)
		}
		if g.permissions = custom[g.role]; g.permissions == nil {
			g.permissions = roles[g.role]
		}
		if len(g.permissions) == 0 {
			t.Errorf("%s grants %s, but no part needs the role", r.Address, g.role)
		}
		if g.who == "" {
			t.Errorf("%s grants a role to the unknown account %q", r.Address, r.text("member"))
		}
		all = append(all, g)
	}
	return all
}

func TestEveryCallIsAllowedAndEveryRoleIsUsed(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		all := grants(t, d)
		given := map[*grant]map[string]bool{}
		for _, c := range calls() {
			if c.only != nil && !c.only(d) {
				continue
			}
			allowed := false
			for _, g := range all {
				if g.who == c.who && g.on == c.on && slices.Contains(g.permissions, c.permission) {
					allowed, g.used = true, true
					if given[g] == nil {
						given[g] = map[string]bool{}
					}
					given[g][c.permission] = true
				}
			}
			if !allowed {
				t.Errorf("%s: %s requires %s on %s, but no role grants the permission", c.who, c.does, c.permission, c.on)
			}
		}
		for _, g := range all {
			if !g.used {
				t.Errorf("%s: %s has %s on %s without using the role", g.address, g.who, g.role, g.on)
			}
			if strings.HasPrefix(g.role, "projects/") && len(given[g]) != len(g.permissions) {
				t.Errorf("%s: of %v only %v are used", g.address, g.permissions, slices.Sorted(maps.Keys(given[g])))
			}
		}
	})
}

// Each Google client library in a part must have its calls in the table.
func TestTableOfCallsCoversTheLinkedClients(t *testing.T) {
	t.Parallel()
	clients := map[string]string{
		"cloud.google.com/go/pubsub/v2": "pubsub.googleapis.com",
		"cloud.google.com/go/firestore": "firestore.googleapis.com",
		"google.golang.org/genai":       "aiplatform.googleapis.com",
		"cloud.google.com/go/kms":       "cloudkms.googleapis.com",
	}
	// linked libraries without calls of their own: the metadata server, credentials, common code
	plumbing := []string{
		"cloud.google.com/go", "cloud.google.com/go/auth", "cloud.google.com/go/civil", "cloud.google.com/go/compute/metadata",
		"cloud.google.com/go/iam", "cloud.google.com/go/internal", "cloud.google.com/go/longrunning", "cloud.google.com/go/httpreplay",
	}
	packages := map[string]string{"gateway": "parley.internal/gateway"}
	for _, s := range topology.Subscriptions() {
		packages[s.Function] = "parley.internal/functions/" + s.Function
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-f", `{{.ImportPath}} {{join .Deps " "}}`}, slices.Collect(maps.Values(packages))...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := map[string][]string{} // by package
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		deps[fields[0]] = fields[1:]
	}
	for part, pkg := range packages {
		if len(deps[pkg]) == 0 {
			t.Errorf("go list: no dependencies of %s", pkg)
		}
		got := map[string]bool{}
		for _, dep := range deps[pkg] {
			if !strings.HasPrefix(dep, "cloud.google.com/") && dep != "google.golang.org/genai" {
				continue
			}
			known := false
			for client, api := range clients {
				if dep == client || strings.HasPrefix(dep, client+"/") {
					known, got[api] = true, true
				}
			}
			for _, p := range plumbing {
				known = known || dep == p || p != "cloud.google.com/go" && strings.HasPrefix(dep, p+"/")
			}
			if !known {
				t.Errorf("%s is linked with %s: add its calls and permissions to the table of calls", part, dep)
			}
		}
		want := map[string]bool{}
		for _, c := range calls() {
			if c.who == part && c.api != "secretmanager.googleapis.com" { // Cloud Run calls Secret Manager for the part
				want[c.api] = true
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s is linked with %v; the table of calls has %v", part, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}

// apiOf has the API of each resource type, by prefix.
var apiOf = map[string]string{
	"google_artifact_registry_repository": "artifactregistry.googleapis.com",
	"google_billing_budget":               "billingbudgets.googleapis.com",
	"google_cloud_run":                    "run.googleapis.com",
	"google_cloud_scheduler_job":          "cloudscheduler.googleapis.com",
	"google_cloudfunctions2_function":     "cloudfunctions.googleapis.com",
	"google_firestore":                    "firestore.googleapis.com",
	"google_kms":                          "cloudkms.googleapis.com",
	"google_logging":                      "logging.googleapis.com",
	"google_monitoring":                   "monitoring.googleapis.com",
	"google_project_iam_custom_role":      "iam.googleapis.com",
	"google_project_iam_member":           "cloudresourcemanager.googleapis.com",
	"google_pubsub":                       "pubsub.googleapis.com",
	"google_secret_manager":               "secretmanager.googleapis.com",
	"google_service_account":              "iam.googleapis.com",
	"google_storage":                      "storage.googleapis.com",
}

func TestExactlyTheUsedAPIsAreEnabled(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		enabled := map[string]bool{}
		for _, r := range d.all("google_project_service") {
			enabled[r.text("service")] = true
		}
		want := map[string]bool{"cloudbuild.googleapis.com": true} // Cloud Functions builds with Cloud Build
		for _, c := range calls() {
			if c.only == nil || c.only(d) {
				want[c.api] = true
			}
		}
		for _, r := range d.resources {
			if r.Mode != "managed" || r.Type == "google_project_service" {
				continue
			}
			api, length := "", 0
			for prefix, a := range apiOf {
				if strings.HasPrefix(r.Type, prefix) && len(prefix) > length {
					api, length = a, len(prefix)
				}
			}
			if api == "" {
				t.Errorf("%s: this test does not know its API", r.Type)
				continue
			}
			want[api] = true
		}
		if !maps.Equal(enabled, want) {
			t.Errorf("enabled\n%v\nneeded\n%v", slices.Sorted(maps.Keys(enabled)), slices.Sorted(maps.Keys(want)))
		}
	})
}

func TestEveryPartHasItsOwnAccount(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		seen := map[string]string{}
		note := func(account, what string) {
			if account == "" || seen[account] != "" {
				t.Errorf("%s and %[3]q have the same account %[2]q", what, account, seen[account])
			}
			seen[account] = what
		}
		for _, f := range d.all("google_cloudfunctions2_function") {
			note(f.text("service_config.0.service_account_email"), f.Address)
			if f.text("build_config.0.service_account") == "" {
				t.Errorf("%s is built as the project's default account", f.Address)
			}
		}
		for _, s := range d.all("google_cloud_run_v2_service") {
			note(s.text("template.0.service_account"), s.Address)
		}
		for _, a := range d.all("google_service_account") {
			if id := a.text("account_id"); len(id) < 6 || len(id) > 30 {
				t.Errorf("service account id %q has %d characters; want 6 to 30", id, len(id))
			}
		}
	})
}
