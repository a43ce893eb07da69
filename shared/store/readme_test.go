package store_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"parley.internal/shared/store"
)

var update = flag.Bool("update", false, "rewrite the table of collections in shared/README.md")

// collectionTable returns the Markdown table of all collections.
func collectionTable() string {
	var b strings.Builder
	b.WriteString("| document | content | owner | retention | TTL field | composite indexes |\n|---|---|---|---|---|---|\n")
	for _, c := range store.Collections {
		var indexes []string
		for _, i := range c.Indexes {
			order := ""
			if i.Descending {
				order = " desc"
			}
			indexes = append(indexes, strings.Join(i.Equal, ", ")+"; "+i.By+order)
		}
		ttl := cmp.Or(c.TTLField, "none")
		fmt.Fprintf(&b, "| `%s` | %s | `%s`, type `%s` | %s | %s | %s |\n",
			c.Document, c.Content, c.Owner, c.Struct, c.Retention, ttl, cmp.Or(strings.Join(indexes, "<br>"), "none"))
	}
	return b.String()
}

func TestReadmeListsAllCollections(t *testing.T) {
	const path, begin, end = "../README.md", "<!-- collections -->\n", "<!-- /collections -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %s and %s", path, strings.TrimSpace(begin), end)
	}
	want := string(before) + begin + collectionTable() + end + string(after)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("the table of collections in %s is stale; run: go generate ./shared/store", path)
	}
}
