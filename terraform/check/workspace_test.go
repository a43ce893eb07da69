package check

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// project is the project of every plan here.
const project = "my-project"

// image is a gateway image that nobody pulls.
const image = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// shared is where the providers are, and what several tests look at.
var shared struct {
	dir       string
	providers func() error
	minimal   func() (*deployment, error)
	full      func() (*deployment, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-terraform-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.dir = dir
	shared.providers = sync.OnceValue(buildProviders)
	shared.minimal = sync.OnceValues(func() (*deployment, error) { return deploy("minimal") })
	shared.full = sync.OnceValues(func() (*deployment, error) {
		return deploy("full",
			"gateway_image="+image, "gateway_min_instances=2", "bus_prefix=staging.", "name=parley-staging",
			"firestore_database=staging", "domain=chat.example.com", `alert_emails=["me@example.com"]`,
			`budget={billing_account="012345-ABCDEF-678901",amount=20}`,
			"model_provider=gemini", "model_name=some-model",
			`platforms=["twitch","discord"]`, "discord_bot_token_version=4", "twitch_client_id=abc123", "twitch_client_secret_version=2", "twitch_bot_user_id=9",
			`twitch_channels=["ada","bob_"]`, `oauth_allowed_users=["twitch:7"]`, "oauth_operator_secret_version=latest",
			`discord_roles={"Server Booster"="subscriber",Mods="moderator"}`,
			`environment={personality={REPLY_MAX_CHARS="500"},gateway={WS_ORIGINS="https://chat.example.com"}}`)
	})
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// buildProviders builds the stand-ins and writes the configuration by which Terraform finds them: no registry is asked,
// and no init is needed.
func buildProviders() error {
	google, archive := filepath.Join(shared.dir, "terraform-provider-google"), filepath.Join(shared.dir, "terraform-provider-archive")
	build := exec.Command("go", "build", "-o", google, "parley.internal/terraform/check/standin")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the stand-in provider: %w\n%s", err, out)
	}
	if err := os.Link(google, archive); err != nil {
		return err
	}
	rc := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"hashicorp/google\" = %q\n    \"hashicorp/archive\" = %q\n  }\n  direct {}\n}\n", shared.dir, shared.dir)
	return os.WriteFile(filepath.Join(shared.dir, "terraform.rc"), []byte(rc), 0o600)
}

// need skips the test where Terraform is not installed, and makes the providers ready.
func need(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("Terraform is not installed: what it would create is not checked")
	}
	if err := shared.providers(); err != nil {
		t.Fatal(err)
	}
}

// terraform runs a command of Terraform's in a folder and returns what it printed.
func terraform(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + shared.dir, "TMPDIR=" + os.TempDir(), "TF_IN_AUTOMATION=1", "TF_INPUT=0",
		"CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE=" + filepath.Join(shared.dir, "terraform.rc"),
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), fmt.Errorf("terraform %s: %w\n%s%s", args[0], err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// workspace copies what Terraform reads of this repository, without its backend, and returns the folder in which
// Terraform is to be run.
func workspace(dir string) (string, error) {
	for _, from := range []string{"terraform", "functions", "shared", "go.mod", "go.sum"} {
		err := filepath.WalkDir(filepath.Join(root, from), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			switch {
			case e.IsDir() && (e.Name() == "check" || strings.HasPrefix(e.Name(), ".")):
				return fs.SkipDir
			case e.IsDir():
				return os.MkdirAll(filepath.Join(dir, name), 0o755)
			case e.Name() == "backend.tf", strings.HasSuffix(e.Name(), ".tfvars"), strings.HasPrefix(e.Name(), "."):
				return nil // of a real deployment
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name), data, 0o644)
		})
		if err != nil {
			return "", fmt.Errorf("copy the configuration: %w", err)
		}
	}
	return filepath.Join(dir, "terraform"), nil
}

// deployment is what an apply with the stand-ins leaves behind.
type deployment struct {
	dir       string // Terraform's
	args      []string
	resources []resource // of the state: every value is known
	outputs   map[string]any
}

type resource struct {
	Address string
	Mode    string
	Type    string
	Name    string
	Index   any
	Values  map[string]any
}

func deploy(name string, variables ...string) (*deployment, error) {
	ctx := context.Background() // several tests share it
	dir, err := workspace(filepath.Join(shared.dir, name))
	if err != nil {
		return nil, err
	}
	d := &deployment{dir: dir, args: []string{"-no-color", "-var=project_id=" + project}}
	for _, v := range variables {
		d.args = append(d.args, "-var="+v)
	}
	if _, err := terraform(ctx, dir, append([]string{"apply", "-auto-approve", "-parallelism=64"}, d.args...)...); err != nil {
		return nil, err
	}
	out, err := terraform(ctx, dir, "show", "-json")
	if err != nil {
		return nil, err
	}
	var shown struct {
		Values struct {
			Outputs    map[string]struct{ Value any }
			RootModule struct{ Resources []resource } `json:"root_module"`
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		return nil, fmt.Errorf("read what Terraform shows: %w", err)
	}
	d.resources, d.outputs = shown.Values.RootModule.Resources, map[string]any{}
	for name, o := range shown.Values.Outputs {
		d.outputs[name] = o.Value
	}
	return d, nil
}

// minimal is a deployment with every variable at its default.
func minimal(t *testing.T) *deployment { return get(t, shared.minimal) }

// full is a deployment with all that can be had.
func full(t *testing.T) *deployment { return get(t, shared.full) }

func get(t *testing.T, f func() (*deployment, error)) *deployment {
	t.Helper()
	need(t)
	d, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// each gives both deployments to a test.
func each(t *testing.T, run func(t *testing.T, d *deployment)) {
	t.Run("minimal", func(t *testing.T) { run(t, minimal(t)) })
	t.Run("full", func(t *testing.T) { run(t, full(t)) })
}

// all are the managed resources of a type.
func (d *deployment) all(typeName string) []resource {
	var found []resource
	for _, r := range d.resources {
		if r.Type == typeName && r.Mode == "managed" {
			found = append(found, r)
		}
	}
	return found
}

// one is the resource with an address; the test fails if there is none.
func (d *deployment) one(t *testing.T, address string) resource {
	t.Helper()
	for _, r := range d.resources {
		if r.Address == address {
			return r
		}
	}
	t.Fatalf("%s is not planned", address)
	return resource{}
}

// at is a value within a resource: "push_config.0.push_endpoint". It is nil where there is none.
func (r resource) at(path string) any {
	var v any = r.Values
	for _, step := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// text is the string at a path, "" where there is none.
func (r resource) text(path string) string {
	s, ok := r.at(path).(string)
	if !ok {
		return ""
	}
	return s
}

// number is the number at a path, 0 where there is none.
func (r resource) number(path string) int {
	n, ok := r.at(path).(float64)
	if !ok {
		return 0
	}
	return int(n)
}

// key is the resource's key in its for_each.
func (r resource) key() string { return fmt.Sprint(r.Index) }
