// Package repository tests the repository as a whole: the import rules between its folders, and the links and the
// generated tables in its README files. The rules keep each function deployable on its own, and the emulators usable on their own.
package repository

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "parley.internal/"

// rule forbids imports. Folders are relative to the module's root; a folder includes the folders below.
type rule struct {
	name   string
	tests  bool // the rule also applies to the imports of tests
	breaks func(importer, imported string) bool
}

var rules = []rule{
	{"functions never import gateway: a function is deployed without the gateway's source", true,
		func(importer, imported string) bool { return in(importer, "functions") && in(imported, "gateway") }},
	{"a function imports no other function: each is deployed without the source of the others", false,
		func(importer, imported string) bool {
			function := strings.Join(strings.SplitN(importer, "/", 3)[:min(2, strings.Count(importer, "/")+1)], "/")
			return in(importer, "functions") && in(imported, "functions") && !in(imported, function)
		}},
	{"shared imports neither functions nor gateway", true,
		func(importer, imported string) bool {
			return in(importer, "shared") && in(imported, "functions", "gateway")
		}},
	{"only emulator, gateway/gatewaytest and tests import emulator", false,
		func(importer, imported string) bool {
			return !in(importer, "emulator", "gateway/gatewaytest") && in(imported, "emulator")
		}},
	{"emulator/pubsub imports nothing of Parley but emulator/wal", false,
		func(importer, imported string) bool {
			return in(importer, "emulator/pubsub") && !in(imported, "emulator/pubsub", "emulator/wal")
		}},
	{"emulator/firestore imports nothing of Parley but emulator/wal", false,
		func(importer, imported string) bool {
			return in(importer, "emulator/firestore") && !in(imported, "emulator/firestore", "emulator/wal")
		}},
	{"emulator/wal imports nothing else of Parley", false,
		func(importer, imported string) bool {
			return in(importer, "emulator/wal") && !in(imported, "emulator/wal")
		}},
}

// in reports whether a package is in one of the folders.
func in(path string, folders ...string) bool {
	for _, f := range folders {
		if path == f || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	return false
}

// check returns the name of the first rule that an import breaks, or "".
func check(importer, imported string, test bool) string {
	for _, r := range rules {
		if (r.tests || !test) && r.breaks(importer, imported) {
			return r.name
		}
	}
	return ""
}

func TestImportsFollowTheRules(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f",
		`{{.ImportPath}}|{{join .Imports " "}}|{{join .TestImports " "}} {{join .XTestImports " "}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		importer := strings.TrimPrefix(fields[0], module)
		packages++
		for i, list := range fields[1:] {
			for _, imported := range strings.Fields(list) {
				imported, ours := strings.CutPrefix(imported, module)
				if !ours {
					continue
				}
				if broken := check(importer, imported, i == 1); broken != "" {
					t.Errorf("%s imports %s; rule: %s", importer, imported, broken)
				}
			}
		}
	}
	if packages < 20 {
		t.Errorf("go list found %d packages; want the whole module", packages)
	}
}

func TestRulesForbid(t *testing.T) {
	for _, tt := range []struct {
		importer, imported string
		test, forbidden    bool
	}{
		{"functions/dlq", "gateway/outbox", false, true},
		{"functions/dlq", "gateway/outbox", true, true},
		{"functions/dlq", "functions/whisper", false, true},
		{"functions/personality", "functions/personality/model", false, false},
		{"functions/dlq", "shared/bus", false, false},
		{"shared/bus", "functions/dlq", false, true},
		{"shared/bus", "gateway/outbox", true, true},
		{"shared/bus", "emulator/emulatortest", true, false},
		{"shared/bus", "emulator/emulatortest", false, true},
		{"gateway", "emulator/pubsub", false, true},
		{"gateway/gatewaytest", "emulator/pubsub", false, false},
		{"emulator/load", "emulator/pubsub", false, false},
		{"emulator/pubsub", "shared/topology", false, true},
		{"emulator/firestore/query", "emulator/firestore", false, false},
		{"emulator/firestore", "emulator/pubsub", false, true},
		{"emulator/pubsub", "emulator/wal", false, false},
		{"emulator/wal", "shared/retry", false, true},
		{"terraform/check/parts", "functions/dlq", false, false},
	} {
		if got := check(tt.importer, tt.imported, tt.test) != ""; got != tt.forbidden {
			t.Errorf("%s imports %s (test: %v): forbidden = %v", tt.importer, tt.imported, tt.test, got)
		}
	}
}
