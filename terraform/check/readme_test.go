package check

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"parley.internal/shared/deadletter"
)

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "terraform", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReadmeNamesWhatExists(t *testing.T) {
	text := readme(t)
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		headings["#"+strings.ReplaceAll(anchor, " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		switch to := m[1]; {
		case strings.HasPrefix(to, "https://"):
		case strings.HasPrefix(to, "#"):
			if !headings[to] {
				t.Errorf("there is no heading for %s", to)
			}
		default:
			if _, err := os.Stat(filepath.Join(root, "terraform", to)); err != nil {
				t.Errorf("link to %s: %v", to, err)
			}
		}
	}
	var config strings.Builder
	files, err := filepath.Glob(filepath.Join(root, "terraform", "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		config.Write(data)
	}
	for _, m := range regexp.MustCompile(`terraform output -raw (\w+)`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(config.String(), fmt.Sprintf("output %q {", m[1])) {
			t.Errorf("there is no output %s", m[1])
		}
	}
	// lower case with an underscore, in backticks: a variable, a metric, or a word of notVariables
	for _, m := range regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`").FindAllStringSubmatch(text, -1) {
		name := m[1]
		if strings.HasPrefix(name, "parley_") {
			continue // a metric
		}
		if !strings.Contains(config.String(), fmt.Sprintf("variable %q {", name)) && !strings.Contains(notVariables, " "+name+" ") {
			t.Errorf("there is no variable %s", name)
		}
	}
}

// notVariables has other words of the same form: reasons of dead letters, and fields of a token.
var notVariables = func() string {
	words := " expires_at revoked_at "
	for _, r := range deadletter.Reasons {
		words += string(r.Reason) + " "
	}
	return words
}()

// The README's operations per message must agree with the counts of the emulator.
func TestReadmeCountsOfOperationsAreCorrect(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the emulator is left out with -short")
	}
	m := regexp.MustCompile(`(?m)^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| 1 \|$`).FindStringSubmatch(readme(t))
	if m == nil {
		t.Fatal("README.md has no line with counts of operations")
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "./emulator", "load", "--messages", "400")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go run ./emulator load: %v\n%s", err, out)
	}
	_, table, ok := strings.Cut(string(out), "per message")
	if !ok {
		t.Fatalf("no counts in the output:\n%s", out)
	}
	_, line, _ := strings.Cut(table, "\n")
	var got [5]float64
	if _, err := fmt.Sscan(line, &got[0], &got[1], &got[2], &got[3], &got[4]); err != nil {
		t.Fatalf("read %q: %v", line, err)
	}
	for i, what := range []string{"published", "pushed", "pulled", "read", "written"} {
		var want float64
		if _, err := fmt.Sscan(m[i+1], &want); err != nil {
			t.Fatal(err)
		}
		// the first messages also read the rules and the users
		if diff := got[i] - want; diff > 0.25 || diff < -0.25 {
			t.Errorf("%s: README.md has %.2f per message, the emulator counts %.2f", what, want, got[i])
		}
	}
}
