package deadletter_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"parley.internal/shared/deadletter"
)

var update = flag.Bool("update", false, "rewrite the table of reasons in README.md")

func TestReadmeListsAllReasons(t *testing.T) {
	const path, begin, end = "../../README.md", "<!-- reasons -->\n", "<!-- /reasons -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %s and %s", path, strings.TrimSpace(begin), end)
	}
	var table strings.Builder
	table.WriteString("| reason | meaning |\n|---|---|\n")
	for _, r := range deadletter.Reasons {
		fmt.Fprintf(&table, "| `%s` | %s |\n", r.Reason, r.Meaning)
	}
	want := string(before) + begin + table.String() + end + string(after)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("the table of reasons in %s is stale; run: go generate ./shared/deadletter", path)
	}
}
