package check

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"parley.internal/shared/topology"
	"parley.internal/terraform/check/provider"
)

// project is the Google Cloud project of every plan.
const project = "my-project"

// image is the name of a gateway image. The tests never pull the image.
const image = "us-central1-docker.pkg.dev/my-project/parley/gateway@sha256:" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// shared holds the results that several tests use. Each result is made once, by the first test in need of the result.
var shared struct {
	dir      string
	minimal  func() (*deployment, error)
	full     func() (*deployment, error)
	archives func() (string, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-terraform-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// for the fake providers, which run in this process
	os.Setenv("TF_LOG_SDK", "off")
	os.Setenv("PLUGIN_UNIX_SOCKET_DIR", dir)
	shared.dir = dir
	shared.minimal = sync.OnceValues(func() (*deployment, error) { return deploy("minimal") })
	shared.full = sync.OnceValues(func() (*deployment, error) {
		return deploy("full",
			"gateway_image="+image, "gateway_min_instances=2", "metrics_token_version=5", "bus_prefix=staging.", "name=parley-staging",
			"firestore_database=staging", "domain=chat.example.com", `alert_emails=["me@example.com"]`,
			`budget={billing_account="012345-ABCDEF-678901",amount=20}`,
			"model_provider=gemini", "model_name=some-model",
			`platforms=["twitch","discord"]`, "discord_bot_token_version=4", "twitch_client_id=abc123", "twitch_client_secret_version=2", "twitch_bot_user_id=9",
			`twitch_channels=["ada","bob_"]`, `oauth_allowed_users=["twitch:7"]`, "oauth_operator_secret_version=latest",
			`discord_roles={"Server Booster"="subscriber",Mods="moderator"}`,
			`environment={personality={REPLY_MAX_CHARS="500"},gateway={WS_ORIGINS="https://chat.example.com"}}`)
	})
	shared.archives = sync.OnceValues(stageArchives)
	flag.Parse()
	if _, err := exec.LookPath("terraform"); err == nil && flag.Lookup("test.run").Value.String() == "" {
		// a whole run needs all three: make them at the same time
		go shared.minimal()
		go shared.full()
		go shared.archives()
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// need skips the test if Terraform is not installed.
func need(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("Terraform is not installed: the configuration is not checked")
	}
}

// terraform runs a Terraform command in a folder, with fake providers of its own, and returns the command's output. No
// registry is asked, and the folder needs no "terraform init".
func terraform(ctx context.Context, dir string, args ...string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	providers, err := provider.Serve(ctx, dir)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + shared.dir, "TMPDIR=" + os.TempDir(), "TF_IN_AUTOMATION=1", "TF_INPUT=0",
		"CHECKPOINT_DISABLE=1", "TF_REATTACH_PROVIDERS=" + providers,
		"GOGC=off", "GOMEMLIMIT=512MiB", // a quarter of Terraform's time would be garbage collection
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), fmt.Errorf("terraform %s: %w\n%s%s", args[0], err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// workspace copies the configuration into a folder, without its backend, and returns the folder for Terraform. Each
// function has one small file there instead of its source: with the real sources, Terraform would spend seconds of every
// plan on the archives. Only the tests of the archives need the real sources ([stageArchives]).
func workspace(dir string) (string, error) {
	if err := copyTree(dir, "terraform", "shared/topology/topology.json", "go.mod", "go.sum"); err != nil {
		return "", err
	}
	for _, s := range topology.Subscriptions() {
		if s.Function == "" {
			continue
		}
		source := filepath.Join(dir, "functions", s.Function)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(source, "source.go"), []byte("package "+s.Function+"\n"), 0o644); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "terraform"), nil
}

// stageArchives plans the whole repository with every variable at its default, and returns Terraform's folder. The plan
// writes the archives of the functions.
func stageArchives() (string, error) {
	dir := filepath.Join(shared.dir, "archives")
	if err := copyTree(dir, "terraform", "functions", "shared", "go.mod", "go.sum"); err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "terraform")
	_, err := terraform(context.Background(), dir, "plan", "-no-color", "-var=project_id="+project)
	return dir, err
}

// archive returns the path of a function's archive.
func archive(t *testing.T, function string) string {
	t.Helper()
	object := minimal(t).one(t, fmt.Sprintf("google_storage_bucket_object.source[%q]", function))
	dir, err := shared.archives()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, object.text("source"))
}

// copyTree copies files and folders of the repository, except the backend, the values of a real deployment,
// hidden files and this package.
func copyTree(dir string, from ...string) error {
	for _, from := range from {
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
			case e.IsDir(), e.Name() == "backend.tf", strings.HasSuffix(e.Name(), ".tfvars"), strings.HasPrefix(e.Name(), "."):
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			to := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, data, 0o644)
		})
		if err != nil {
			return fmt.Errorf("copy the configuration: %w", err)
		}
	}
	return nil
}

// deployment is the result of an apply with the fake providers.
type deployment struct {
	dir       string // the folder of Terraform
	args      []string
	resources []resource // the resources of the state; every value is known
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
	ctx := context.Background() // several tests share the deployment
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
		return nil, fmt.Errorf("read the output of terraform show: %w", err)
	}
	d.resources, d.outputs = shown.Values.RootModule.Resources, map[string]any{}
	for name, o := range shown.Values.Outputs {
		d.outputs[name] = o.Value
	}
	return d, nil
}

// minimal returns a deployment with every variable at its default.
func minimal(t *testing.T) *deployment { return get(t, shared.minimal) }

// full returns a deployment with every feature on.
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

// each runs a test on both deployments.
func each(t *testing.T, run func(t *testing.T, d *deployment)) {
	t.Run("minimal", func(t *testing.T) { run(t, minimal(t)) })
	t.Run("full", func(t *testing.T) { run(t, full(t)) })
}

// all returns the managed resources of a type.
func (d *deployment) all(typeName string) []resource {
	var found []resource
	for _, r := range d.resources {
		if r.Type == typeName && r.Mode == "managed" {
			found = append(found, r)
		}
	}
	return found
}

// one returns the resource with an address. The test fails if the deployment has no such resource.
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

// at returns a value within a resource by its path, such as "push_config.0.push_endpoint", or nil.
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

// text returns the string at a path, or "".
func (r resource) text(path string) string {
	s, ok := r.at(path).(string)
	if !ok {
		return ""
	}
	return s
}

// number returns the number at a path, or 0.
func (r resource) number(path string) int {
	n, ok := r.at(path).(float64)
	if !ok {
		return 0
	}
	return int(n)
}

// key returns the resource's key in its for_each.
func (r resource) key() string { return fmt.Sprint(r.Index) }
