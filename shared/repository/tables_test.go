package repository

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/store"
)

var update = flag.Bool("update", false, "rewrite the generated tables in the README files")

// table is a Markdown table made from a table of the code. In the README file, the table stands between the lines
// <!-- NAME --> and <!-- /NAME -->.
type table struct {
	name     string
	readme   string // relative to the module's root
	generate string // package with the table of the code; go generate rewrites the README file
	markdown func() string
}

var tables = []table{
	{"collections", "shared/README.md", "./shared/store", collections},
	{"reasons", "README.md", "./shared/deadletter", reasons},
}

func collections() string {
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

func reasons() string {
	var b strings.Builder
	b.WriteString("| reason | meaning |\n|---|---|\n")
	for _, r := range deadletter.Reasons {
		fmt.Fprintf(&b, "| `%s` | %s |\n", r.Reason, r.Meaning)
	}
	return b.String()
}

func TestReadmeTablesAreCurrent(t *testing.T) {
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			path := filepath.Join("..", "..", filepath.FromSlash(table.readme))
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			begin, end := "<!-- "+table.name+" -->\n", "<!-- /"+table.name+" -->"
			before, rest, ok := bytes.Cut(text, []byte(begin))
			_, after, ok2 := bytes.Cut(rest, []byte(end))
			if !ok || !ok2 {
				t.Fatalf("%s has no lines %s and %s", table.readme, strings.TrimSpace(begin), end)
			}
			want := string(before) + begin + table.markdown() + end + string(after)
			switch {
			case *update:
				if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			case string(text) != want:
				t.Errorf("the table of %s in %s is stale; run: go generate %s", table.name, table.readme, table.generate)
			}
		})
	}
}
