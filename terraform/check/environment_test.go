package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/config"
	"parley.internal/shared/topology"
	"parley.internal/terraform/check/parts"
)

func TestEnvironmentFileIsFresh(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "terraform", "environment.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string][]string
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parts.Settable(), got); diff != "" {
		t.Errorf("terraform/environment.json is stale; run: go run ./terraform/check/environment > terraform/environment.json\n%s", diff)
	}
}

func TestEveryPartGetsExactlyItsVariables(t *testing.T) {
	variables := parts.Variables()
	for _, s := range topology.Subscriptions() {
		if variables[s.Function] == nil {
			t.Errorf("package parts has no configuration of the function %s", s.Function)
		}
	}
	for part, vars := range variables {
		for _, v := range vars {
			if parts.Reserved[v.Name] == parts.Platform && v.Required {
				t.Errorf("%s requires %s, but the variable is never set", part, v.Name)
			}
		}
	}
	each(t, func(t *testing.T, d *deployment) {
		for part, env := range environments(d) {
			known := map[string]config.Variable{}
			for _, v := range variables[part] {
				known[v.Name] = v
			}
			for name := range env {
				if _, ok := known[name]; !ok {
					t.Errorf("%s gets %s, but does not read the variable", part, name)
				}
				if parts.Reserved[name] == parts.Platform {
					t.Errorf("%s gets %s, but Terraform must not set the variable", part, name)
				}
				if secret := parts.Reserved[name] == parts.Secret; secret != strings.HasPrefix(env[name], "secret ") {
					t.Errorf("%s gets %s as %q; secret: %v", part, name, env[name], secret)
				}
			}
			for name, v := range known {
				if _, set := env[name]; v.Required && !set {
					t.Errorf("%s requires %s, but does not get the variable", part, name)
				}
			}
		}
	})
}

// variables.tf has copies of some defaults of the parts. The copies must be up to date.
func TestDefaultsInVariablesAreThoseOfTheParts(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "terraform", "variables.tf"))
	if err != nil {
		t.Fatal(err)
	}
	copies := regexp.MustCompile(`lookup\(lookup\(var\.environment, "(\w+)", \{\}\), "(\w+)", "([^"]*)"\)`).FindAllStringSubmatch(string(data), -1)
	if len(copies) == 0 {
		t.Error("variables.tf has no copies of defaults")
	}
	for _, m := range copies {
		part, name, value := m[1], m[2], m[3]
		i := slices.IndexFunc(parts.Variables()[part], func(v config.Variable) bool { return v.Name == name })
		if i < 0 {
			t.Errorf("%s does not read %s", part, name)
		} else if v := parts.Variables()[part][i]; v.Default != value {
			t.Errorf("the default of %s is %s, not %s", name, v.Default, value)
		}
	}
}

// With every Terraform variable set, each part must get all its variables.
func TestFullDeploymentSetsEveryVariable(t *testing.T) {
	for part, env := range environments(full(t)) {
		for _, v := range parts.Variables()[part] {
			if _, set := env[v.Name]; parts.Reserved[v.Name] == parts.Terraform && !set {
				t.Errorf("%s reads %s, but does not get the variable", part, v.Name)
			}
		}
	}
}

func TestEnvironmentsAreValidConfigurations(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		for part, env := range environments(d) {
			var environ []string
			for name, value := range env {
				if strings.HasPrefix(value, "secret ") { // stands for the value of the secret
					value = strings.ReplaceAll(value, " ", "-")
				}
				environ = append(environ, name+"="+value)
			}
			if err := parts.Validate(part, environ); err != nil {
				t.Errorf("%s would not start: %v", part, err)
			}
		}
	})
}

func TestPlatformAlertMatchesTheCode(t *testing.T) {
	filter := full(t).one(t, "google_monitoring_alert_policy.platform[0]").text("conditions.0.condition_matched_log.0.filter")
	_, list, _ := strings.Cut(filter, "jsonPayload.message=(")
	messages := regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(list, -1)
	if len(messages) == 0 {
		t.Fatalf("the filter names no message:\n%s", filter)
	}
	for _, m := range messages {
		if len(filesWith(t, regexp.QuoteMeta(strconv.Quote(m[1])))) == 0 {
			t.Errorf("the code does not log %q", m[1])
		}
	}
}

// environments returns the environment variables of each deployed part. The value of a secret is "secret NAME VERSION".
func environments(d *deployment) map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, f := range d.all("google_cloudfunctions2_function") {
		env := map[string]string{}
		vars, _ := f.at("service_config.0.environment_variables").(map[string]any)
		for name, value := range vars {
			env[name] = fmt.Sprint(value)
		}
		secrets, _ := f.at("service_config.0.secret_environment_variables").([]any)
		for i := range secrets {
			at := fmt.Sprintf("service_config.0.secret_environment_variables.%d.", i)
			env[f.text(at+"key")] = "secret " + f.text(at+"secret") + " " + f.text(at+"version")
		}
		all[f.key()] = env
	}
	for _, s := range d.all("google_cloud_run_v2_service") {
		env := map[string]string{}
		vars, _ := s.at("template.0.containers.0.env").([]any)
		for i := range vars {
			at := fmt.Sprintf("template.0.containers.0.env.%d.", i)
			env[s.text(at+"name")] = s.text(at + "value")
			if secret := s.text(at + "value_source.0.secret_key_ref.0.secret"); secret != "" {
				env[s.text(at+"name")] = "secret " + secret + " " + s.text(at+"value_source.0.secret_key_ref.0.version")
			}
		}
		all["gateway"] = env
	}
	return all
}
