package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type build struct {
	Substitutions map[string]string
	Options       struct {
		AutomapSubstitutions bool `yaml:"automapSubstitutions"`
		DynamicSubstitutions bool `yaml:"dynamicSubstitutions"`
		Logging              string
		MachineType          string `yaml:"machineType"`
		Env                  []string
	}
	Timeout string
	Steps   []step
}

type step struct {
	ID      string
	Name    string
	Dir     string
	Script  string
	Env     []string
	WaitFor []string `yaml:"waitFor"`
	Volumes []struct{ Name, Path string }
}

func readBuild(t *testing.T) build {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "cloudbuild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	var b build
	if err := dec.Decode(&b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuildIsSound(t *testing.T) {
	b := readBuild(t)
	var ids []string
	uses := map[string]bool{}
	for _, s := range b.Steps {
		for _, w := range s.WaitFor {
			if w != "-" && !slices.Contains(ids, w) {
				t.Errorf("%s waits for %s, but %[2]s is no earlier step", s.ID, w)
			}
		}
		ids = append(ids, s.ID)
		if image, tag, ok := strings.Cut(s.Name, ":"); !ok || tag == "latest" {
			t.Errorf("%s runs in %s without a fixed version", s.ID, image)
		}
		for _, m := range regexp.MustCompile(`\$\{?(_[A-Z_]+)`).FindAllStringSubmatch(s.Script, -1) {
			uses[m[1]] = true
			if _, ok := b.Substitutions[m[1]]; !ok {
				t.Errorf("%s uses %s, which is not declared", s.ID, m[1])
			}
		}
		shell := "sh"
		if strings.HasPrefix(s.Script, "#!/usr/bin/env bash") {
			shell = "bash"
		}
		cmd := exec.CommandContext(t.Context(), shell, "-n")
		cmd.Stdin = strings.NewReader(s.Script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", s.ID, err, out)
		}
	}
	for name := range b.Substitutions {
		if !uses[name] {
			t.Errorf("%s is declared and not used", name)
		}
	}
	// Cloud Build refuses undeclared substitutions
	for _, m := range regexp.MustCompile(`\b(_[A-Z_]+)=`).FindAllStringSubmatch(readme(t), -1) {
		if _, ok := b.Substitutions[m[1]]; !ok {
			t.Errorf("README.md sets %s, which is not declared", m[1])
		}
	}
	if b.Substitutions["_MODE"] != "plan" {
		t.Error("the default mode of a build must be plan")
	}
	if !b.Options.AutomapSubstitutions {
		t.Error("scripts don't see the substitutions")
	}
}

// The caches must be outside the source: gofmt -l . reads every folder while another step fills the caches. Cloud Build
// requires two steps per volume (https://cloud.google.com/build/docs/build-config-file-schema#volumes).
func TestBuildKeepsItsCachesAwayFromTheSource(t *testing.T) {
	b := readBuild(t)
	used := map[string]int{}
	for _, s := range b.Steps {
		for _, v := range s.Volumes {
			used[v.Path]++
		}
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		i := slices.IndexFunc(b.Options.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if i < 0 {
			t.Errorf("%s is not shared by the steps", name)
			continue
		}
		_, dir, _ := strings.Cut(b.Options.Env[i], "=")
		if volume := filepath.Dir(dir); used[volume] < 2 || strings.HasPrefix(dir, "/workspace") {
			t.Errorf("%s is in %s, which %d steps have as a volume", name, dir, used[volume])
		}
	}
}

// The test runs the scripts with fake programs that record their arguments.
func TestBuildAppliesOnlyInApplyMode(t *testing.T) {
	for mode, want := range map[string][]string{
		"plan":  {"terraform init", "terraform output", "go run --push=false", "terraform plan -lock=false"},
		"apply": {"terraform init", "terraform output", "go run --push=true", "terraform plan -lock=true", "terraform apply"},
		"aplly": {"terraform init", "terraform output", "go run --push=false", "terraform plan -lock=false"},
	} {
		t.Run(mode, func(t *testing.T) {
			work := t.TempDir()
			bin := filepath.Join(work, "bin")
			calls := filepath.Join(work, "calls")
			for _, dir := range []string{bin, filepath.Join(work, ".cache"), filepath.Join(work, "terraform")} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			fakes := map[string]string{
				"terraform": "#!/bin/sh\necho \"terraform $*\" >>" + calls + "\n" +
					"if [ $1 = output ]; then printf r-docker.pkg.dev/p/parley; fi\n",
				"go": "#!/bin/sh\necho \"go $*\" >>" + calls + "\n" +
					"echo $KO_DOCKER_REPO:abc@sha256:0123 >.cache/image\n",
				"gcloud": "#!/bin/sh\necho \"# $3\" >\"$4\"\n", // gcloud storage cp FROM TO
			}
			for name, script := range fakes {
				if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range readBuild(t).Steps {
				if s.ID == "check" {
					continue
				}
				if s.ID == "plan" {
					if _, err := os.Stat(filepath.Join(work, "terraform", "terraform.tfvars")); err == nil || !slices.Contains(s.WaitFor, "check") {
						t.Error("the values of a deployment are copied into the source before the checks")
					}
				}
				cmd := exec.CommandContext(t.Context(), "bash")
				cmd.Stdin = strings.NewReader(s.Script)
				cmd.Dir = filepath.Join(work, s.Dir)
				cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "PROJECT_ID=p", "SHORT_SHA=abc",
					"_MODE=" + mode, "_STATE_BUCKET=b", "_STATE_PREFIX=parley"}, s.Env...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", s.ID, err, out)
				}
			}
			data, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
				words := strings.Fields(line)
				call := words[0] + " " + words[1]
				for _, w := range words {
					if strings.HasPrefix(w, "--push=") || strings.HasPrefix(w, "-lock=") {
						call += " " + w
					}
					// a plan with another project, region or name would replace the whole deployment
					if strings.HasPrefix(w, "-var") && w != "-var=gateway_image=r-docker.pkg.dev/p/parley/gateway@sha256:0123" {
						t.Errorf("the plan has the argument %s: all values except the image must come from the deployment's terraform.tfvars", w)
					}
				}
				got = append(got, call)
				if words[1] == "plan" && !strings.Contains(line, "-var=gateway_image=") {
					t.Errorf("the plan is not for the image that was built: %s", line)
				}
			}
			values, err := os.ReadFile(filepath.Join(work, "terraform", "terraform.tfvars"))
			if err != nil || string(values) != "# gs://b/parley/terraform.tfvars\n" {
				t.Errorf("the plan used %q, %v; want the file beside the state", values, err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("_MODE=%s ran\n%q\nwant\n%q", mode, got, want)
			}
		})
	}
}
