package check

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"parley.internal/emulator/firestore"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/store"
)

// query has the parts of a Firestore query that decide its index.
type query struct {
	collection string
	equal      []string // in any order
	by         string   // the field of the sort order, or of a comparison with < or >; may be empty
	descending bool
}

func (q query) String() string {
	s := q.collection + " where " + strings.Join(q.equal, ", ")
	if q.by != "" {
		s += " by " + q.by
	}
	if q.descending {
		s += " descending"
	}
	return s
}

// composite reports whether a query needs a composite index. Otherwise single-field indexes are enough: for one field, or
// for several fields compared for equality.
func (q query) composite() bool { return q.by != "" && len(q.equal) > 0 }

// queriesOf runs every query of the code, and returns the queries seen by the server.
func queriesOf(t *testing.T) []query {
	t.Helper()
	var mu sync.Mutex
	var seen []query
	srv, err := firestore.New(firestore.WithStreamInterceptor(func(s any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(s, &watched{stream, func(q *firestorepb.StructuredQuery) {
			mu.Lock()
			defer mu.Unlock()
			read, err := read(q)
			if err != nil {
				t.Errorf("unsupported query: %v", err)
			}
			if !slices.ContainsFunc(seen, func(s query) bool { return s.String() == read.String() }) {
				seen = append(seen, read)
			}
		}})
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	t.Setenv("FIRESTORE_EMULATOR_HOST", srv.Addr())
	client, err := store.Connect(t.Context(), config.Deployment{Project: project, Database: "(default)"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })

	st, deadLetters, ledger := store.New(client), deadletter.NewStore(client, time.Now), delivery.NewLedger(client, "check", time.Now)
	user, err := identity.Parse("twitch:1")
	if err != nil {
		t.Fatal(err)
	}
	data, err := event.Encode(&event.Event{V: event.Version, Source: "check", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"d1", "d2"} {
		if _, _, err := ledger.Open(t.Context(), delivery.Entry{
			ID: id, State: delivery.Pending, UserID: "twitch:1", Destination: "api-gateway", Deadline: time.Now().Add(time.Hour), Event: data,
		}); err != nil {
			t.Fatal(err)
		}
	}
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	_, _, _, err = st.UserByEmail(t.Context(), "me@example.com")
	try(err)
	_, _, err = st.Personality(t.Context(), "sage")
	try(err)
	_, _, err = st.Rules(t.Context())
	try(err)
	_, err = st.Links(t.Context(), user)
	try(err)
	_, err = ledger.Resume(t.Context(), user, []string{"d1"})
	try(err)
	_, err = ledger.Pending(t.Context(), identity.Twitch, "twitch:ada")
	try(err)
	_, err = ledger.PendingOrAbandoned(t.Context(), identity.Twitch, "twitch:ada", event.EgressEvent)
	try(err)
	_, err = ledger.PendingOrAbandoned(t.Context(), identity.Discord, "", event.EgressEvent)
	try(err)
	_, err = ledger.Unsettled(t.Context(), identity.Discord)
	try(err)
	_, err = delivery.NewReaper(ledger, deadLetters, silent{}, "check", 0).Sweep(t.Context())
	try(err)
	for _, reason := range []deadletter.Reason{"", deadletter.NoText} {
		for _, status := range []deadletter.Status{"", deadletter.Open, deadletter.Unfinished} {
			for _, from := range []time.Time{{}, time.Now()} {
				try(deadLetters.List(t.Context(), deadletter.Filter{Reason: reason, Status: status, From: from, Until: from.Add(time.Hour)},
					func(deadletter.DeadLetter) error { return nil }))
			}
		}
	}
	try(credential.NewKeeper(credential.Dependencies{Firestore: client, Log: slog.New(slog.DiscardHandler), Now: time.Now}).Check(t.Context()))
	leases, err := lease.New(client, "check", "one", lease.Config{TTL: 3 * time.Second, Heartbeat: time.Second, MaxMembers: 1}, lease.Options{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	try(err)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	leases.Run(ctx, func() []string { return []string{"key"} }, func(context.Context, lease.Lease) { cancel() })
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(seen)
}

type silent struct{}

func (silent) Announce(context.Context, []byte, map[string]string, deadletter.Announcement) error {
	return nil
}

// watched reports each query of a stream.
type watched struct {
	grpc.ServerStream
	report func(*firestorepb.StructuredQuery)
}

func (w *watched) RecvMsg(m any) error {
	if err := w.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if r, ok := m.(*firestorepb.RunQueryRequest); ok {
		w.report(r.GetStructuredQuery())
	}
	return nil
}

func read(q *firestorepb.StructuredQuery) (query, error) {
	out := query{collection: q.GetFrom()[0].GetCollectionId()}
	var filters []*firestorepb.StructuredQuery_FieldFilter
	switch f := q.GetWhere().GetFilterType().(type) {
	case nil:
	case *firestorepb.StructuredQuery_Filter_FieldFilter:
		filters = append(filters, f.FieldFilter)
	case *firestorepb.StructuredQuery_Filter_CompositeFilter:
		for _, inner := range f.CompositeFilter.GetFilters() {
			if inner.GetFieldFilter() == nil {
				return out, fmt.Errorf("a filter in a filter: %v", q)
			}
			filters = append(filters, inner.GetFieldFilter())
		}
	default:
		return out, fmt.Errorf("a filter of another kind: %v", q)
	}
	for _, f := range filters {
		field := f.GetField().GetFieldPath()
		switch f.GetOp() {
		case firestorepb.StructuredQuery_FieldFilter_EQUAL, firestorepb.StructuredQuery_FieldFilter_IN:
			out.equal = append(out.equal, field)
		case firestorepb.StructuredQuery_FieldFilter_LESS_THAN, firestorepb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL,
			firestorepb.StructuredQuery_FieldFilter_GREATER_THAN, firestorepb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL:
			if out.by != "" && out.by != field {
				return out, fmt.Errorf("ranges over two fields: %v", q)
			}
			out.by = field
		default:
			return out, fmt.Errorf("a comparison of another kind: %v", q)
		}
	}
	for _, o := range q.GetOrderBy() {
		field := o.GetField().GetFieldPath()
		if field == "__name__" {
			continue // the order that breaks ties
		}
		if out.by != "" && out.by != field {
			return out, fmt.Errorf("sorted by several fields: %v", q)
		}
		out.by, out.descending = field, o.GetDirection() == firestorepb.StructuredQuery_DESCENDING
	}
	slices.Sort(out.equal)
	return out, nil
}

// The test finds the files with queries. queriesOf must run the queries of every file.
func TestEveryQueryIsRun(t *testing.T) {
	known := []string{
		"shared/credential/check.go", "shared/deadletter/store.go", "shared/delivery/backlog.go", "shared/delivery/pending.go",
		"shared/delivery/sweep.go", "shared/lease/member.go", "shared/store/identity.go", "shared/store/personality.go",
		"shared/store/rule.go", "shared/store/user.go",
	}
	// single-field indexes are enough for these files: one comparison, and no order
	alone := []string{"gateway/discord/watermark.go"}
	for _, name := range alone {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), ".Where(") != 1 || strings.Contains(string(text), ".OrderBy(") {
			t.Errorf("%s has more than one comparison: queriesOf must run its queries", name)
		}
	}
	known = append(known, alone...)
	slices.Sort(known)
	found := filesWith(t, `\.(Where|OrderBy)\(`)
	if !slices.Equal(found, known) {
		t.Errorf("queries of Firestore are in\n%v\nbut queriesOf runs the queries of\n%v", found, known)
	}
}

// indexesOf returns the planned composite indexes.
func indexesOf(d *deployment) []query {
	var indexes []query
	for _, r := range d.all("google_firestore_index") {
		fields, _ := r.at("fields").([]any)
		q := query{collection: r.text("collection")}
		for i := range fields {
			at := fmt.Sprintf("fields.%d.", i)
			if i == len(fields)-1 {
				q.by, q.descending = r.text(at+"field_path"), r.text(at+"order") == "DESCENDING"
				continue
			}
			q.equal = append(q.equal, r.text(at+"field_path"))
		}
		slices.Sort(q.equal)
		indexes = append(indexes, q)
	}
	return indexes
}

func TestEveryQueryHasItsIndex(t *testing.T) {
	d := minimal(t)
	unindexed := map[string]bool{}
	for _, f := range d.all("google_firestore_field") {
		unindexed[f.text("collection")+"."+f.text("field")] = true
	}
	indexes := indexesOf(d)
	used := map[string]bool{}
	queries := queriesOf(t)
	for _, q := range queries {
		t.Log(q)
		for _, index := range indexes {
			// the last field of an index may also be compared for equality
			all := append(slices.Clone(index.equal), index.by)
			slices.Sort(all)
			if index.collection == q.collection && (index.String() == q.String() || q.by == "" && slices.Equal(all, q.equal)) {
				used[index.String()] = true
			}
		}
		if q.composite() {
			if !used[q.String()] {
				t.Errorf("no index for: %s", q)
			}
			continue
		}
		for _, field := range append(slices.Clone(q.equal), q.by) {
			if unindexed[q.collection+"."+field] && !used[q.String()] {
				t.Errorf("%s has no index, but a query needs one: %s", field, q)
			}
		}
	}
	for _, index := range indexes {
		if !used[index.String()] {
			t.Errorf("no query needs the index: %s", index)
		}
	}
	if len(queries) < 10 {
		t.Errorf("%d queries were seen; are they still run?", len(queries))
	}
}

// fieldsOf returns the fields of a collection's documents. A field is true if a single-field index would be expensive.
func fieldsOf(t *testing.T, c store.Collection) map[string]bool {
	t.Helper()
	types := map[string]ast.Expr{}
	for _, file := range sources(t, c.Owner) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range decl.Specs {
				if spec, ok := s.(*ast.TypeSpec); ok {
					types[spec.Name.Name] = spec.Type
				}
			}
		}
	}
	isTime := func(e ast.Expr) bool {
		s, ok := e.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "Time"
	}
	heavy := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.MapType:
			return true
		case *ast.ArrayType:
			elem, named := e.Elt.(*ast.Ident)
			if !named {
				return isTime(e.Elt)
			}
			_, isStruct := types[elem.Name].(*ast.StructType)
			return isStruct || elem.Name == "byte"
		}
		return isTime(e)
	}
	doc, ok := types[c.Struct].(*ast.StructType)
	if !ok {
		t.Fatalf("package %s has no struct %s, the document of %s", c.Owner, c.Struct, c.Name)
	}
	fields := map[string]bool{}
	list := doc.Fields.List
	for _, f := range doc.Fields.List {
		if embedded, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 {
			list = append(list, types[embedded.Name].(*ast.StructType).Fields.List...)
		}
	}
	for _, f := range list {
		if f.Tag == nil {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("firestore"), ",")
		if name != "" && name != "-" {
			fields[name] = heavy(f.Type)
		}
	}
	if c.Name == "recipients" {
		fields[c.TTLField] = true // not in the struct: the code only writes this field
	}
	return fields
}

// sources returns the Go files below a folder of the repository, without tests.
func sources(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// filesWith returns the code files that match a pattern.
func filesWith(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	for _, path := range slices.Concat(sources(t, "functions"), sources(t, "gateway"), sources(t, "shared")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if re.Match(text) {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, filepath.ToSlash(name))
		}
	}
	slices.Sort(found)
	return found
}

func TestGrowingTimesAndLongValuesHaveNoSingleFieldIndex(t *testing.T) {
	d := minimal(t)
	unindexed := map[string]bool{}
	for _, f := range d.all("google_firestore_field") {
		if fields := f.at("index_config.0.indexes"); fields != nil && len(fields.([]any)) > 0 {
			t.Errorf("%s has an index", f.Address)
		}
		unindexed[f.text("collection")+"."+f.text("field")] = true
	}
	asked := map[string]bool{ // queries of this field alone; the collections are small
		"deadletters.at":          true, // the console lists them
		"credentials.validatedAt": true, // the check for due validations
	}
	exists := map[string]bool{}
	for _, c := range store.Collections {
		if c.Name == "rules" {
			continue // operators write the few rules by hand
		}
		for name, heavy := range fieldsOf(t, c) {
			field := c.Name + "." + name
			exists[field] = true
			if heavy && !unindexed[field] && !asked[field] {
				t.Errorf("%s is indexed by itself", field)
			}
		}
	}
	for field := range unindexed {
		if !exists[field] {
			t.Errorf("%s is configured, but no document has the field", field)
		}
	}
	for _, r := range d.all("google_firestore_index") {
		fields, _ := r.at("fields").([]any)
		for i := range fields {
			if field := r.text("collection") + "." + r.text(fmt.Sprintf("fields.%d.field_path", i)); !exists[field] && field != "deliveries.announced" {
				t.Errorf("%s is in an index, but no document has the field", field)
			}
		}
	}
}

func TestTTLPoliciesMatchTheCollections(t *testing.T) {
	d := minimal(t)
	planned := map[string]bool{}
	for _, f := range d.all("google_firestore_field") {
		if f.at("ttl_config.0") != nil || len(f.Values["ttl_config"].([]any)) > 0 {
			planned[f.text("collection")+"."+f.text("field")] = true
		}
	}
	known := map[string]bool{}
	owners := map[string]bool{} // packages with an expiring collection
	for _, c := range store.Collections {
		if c.TTLField != "" {
			known[c.Name+"."+c.TTLField] = true
			owners[c.Owner] = true
		}
		if _, has := fieldsOf(t, c)["expireAt"]; has != (c.TTLField == "expireAt") {
			t.Errorf("the documents of %s have a field expireAt: %v; TTL field in store.Collections: %q", c.Name, has, c.TTLField)
		}
	}
	if diff := cmp.Diff(known, planned); diff != "" {
		t.Errorf("TTL policies (-store.Collections +Terraform):\n%s", diff)
	}
	// Each package with a document's expireAt owns an expiring collection, and vice versa.
	found := map[string]bool{}
	for _, file := range filesWith(t, `"expireAt`) {
		if file != "shared/store/collections.go" {
			found[path.Dir(file)] = true
		}
	}
	if diff := cmp.Diff(owners, found); diff != "" {
		t.Errorf("packages with a field expireAt (-store.Collections +source):\n%s", diff)
	}
}

func TestIndexesMatchTheCollections(t *testing.T) {
	var known, planned []string
	for _, c := range store.Collections {
		for _, i := range c.Indexes {
			q := query{c.Name, slices.Sorted(slices.Values(i.Equal)), i.By, i.Descending}
			known = append(known, q.String())
		}
	}
	for _, q := range indexesOf(minimal(t)) {
		planned = append(planned, q.String())
	}
	slices.Sort(known)
	slices.Sort(planned)
	if diff := cmp.Diff(known, planned); diff != "" {
		t.Errorf("indexes (-store.Collections +Terraform):\n%s", diff)
	}
}

func TestDataIsProtected(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		db := d.one(t, "google_firestore_database.this")
		for path, want := range map[string]string{
			"type":                              "FIRESTORE_NATIVE",
			"delete_protection_state":           "DELETE_PROTECTION_ENABLED",
			"deletion_policy":                   "ABANDON",
			"point_in_time_recovery_enablement": "POINT_IN_TIME_RECOVERY_ENABLED",
		} {
			if got := db.text(path); got != want {
				t.Errorf("%s = %q; want %s", path, got, want)
			}
		}
	})
}
