package firestore

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// WithCompactAt makes the journal compact after fewer bytes than by default.
func WithCompactAt(bytes int64) Option { return func(o *options) { o.compactAt = bytes } }

func put(t *testing.T, s *store, id string, size int) {
	t.Helper()
	name, err := parseDocumentName("projects/p/databases/d/documents/c/" + id)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.commit(t.Context(), func(b *builder) error {
		b.put(name, newDocument(&pb.Document{Name: name.full, Fields: map[string]*pb.Value{
			"v": {ValueType: &pb.Value_StringValue{StringValue: strings.Repeat("x", size)}}}, UpdateTime: timestampOf(b.time)}))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t *testing.T, dir string) *store {
	t.Helper()
	j, initial, err := openJournal(dir, 4<<10, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newStore(time.Now, initial, j)
}

func TestAJournalStaysShortAndKeepsItsContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 3 {
		s := openStore(t, dir)
		for i := range 500 {
			put(t, s, fmt.Sprint(i%10), 10+round)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			total += info.Size()
		}
		if total > 64<<10 || !slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "snapshot-") }) {
			t.Errorf("%d bytes in %v", total, files)
		}
	}
	s := openStore(t, dir)
	defer s.close()
	st, _ := s.read()
	c := st.collection("projects/p/databases/d/documents/c")
	if c == nil || c.docs.Len() != 10 || len(c.get("7").field(fieldPath{"v"}).GetStringValue()) != 12 {
		t.Errorf("the content is not what was written last: %v", c)
	}
}

func TestACrashDuringCompactionLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	put(t, s, "first", 1)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	// The process died after it started the next log file, with half a snapshot.
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "log-0000000000000001"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "snapshot.tmp"), []byte("half"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	put(t, s, "second", 1)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	defer s.close()
	st, _ := s.read()
	if c := st.collection("projects/p/databases/d/documents/c"); c == nil || c.docs.Len() != 2 {
		t.Errorf("the content is %v", c)
	}
}

// FuzzReplayRecord checks that every record is replayed or refused, without a panic.
func FuzzReplayRecord(f *testing.F) {
	record := func(changes ...change) []byte {
		b, err := commitRecord(7, changes)(nil)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	const name = "projects/p/databases/d/documents/c/a"
	f.Add([]byte{})
	f.Add(record(change{name: name, doc: newDocument(&pb.Document{Name: name})}))
	f.Add(record(change{name: name}))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := newBuilder(newState(nil), 0)
		if replayRecord(data, b) != nil {
			return
		}
		var all []change
		b.collections.Scan(func(c *collection) bool {
			c.docs.Scan(func(d *document) bool {
				all = append(all, change{name: d.name, doc: d})
				return true
			})
			return true
		})
		snapshot, err := commitRecord(b.time, all)(nil)
		if err != nil {
			t.Fatal(err)
		}
		again := newBuilder(newState(nil), 0)
		if err := replayRecord(snapshot, again); err != nil || again.time != b.time || again.collections.Len() != b.collections.Len() {
			t.Errorf("the snapshot has other content, or %v", err)
		}
	})
}

func FuzzDocumentName(f *testing.F) {
	for _, s := range []string{"", "projects/p/databases/d/documents/c/d", "projects/p/databases/(default)/documents/c/d/e/f",
		"projects//databases/d/documents/c/d", "projects/p/databases/d/documents/c", "projects/p/databases/d/documents/c/__id7__"} {
		f.Add(s, "projects/p/databases/d/documents/c/x")
	}
	f.Fuzz(func(t *testing.T, s, other string) {
		if compareNames(s, other) != -compareNames(other, s) || compareNames(s, s) != 0 {
			t.Errorf("%q and %q have no order", s, other)
		}
		if (compareNames(s, other) == 0) != (s == other) {
			t.Errorf("%q and %q compare as equal", s, other)
		}
		name, err := parseDocumentName(s)
		if err != nil {
			return
		}
		if name.collection+"/"+name.id != s || !strings.HasPrefix(s, name.database+"/documents/") {
			t.Errorf("%q was parsed as %+v", s, name)
		}
		// Documents below a document come after the document and before the next document of the collection.
		if below := s + "/c/d"; compareNames(s, below) >= 0 || compareNames(below, s+"!") >= 0 {
			if !numericID.MatchString(name.id) && !numericID.MatchString(name.id+"!") {
				t.Errorf("%q is not right below %q", below, s)
			}
		}
	})
}

func FuzzFieldPath(f *testing.F) {
	for _, s := range []string{"a", "a.b", "`a.b`.c", "`\\``", "``", "a..b", "`\\\\`", "1a", "`é`"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, err := parseFieldPath(s)
		if err != nil {
			return
		}
		again, err := parseFieldPath(path.String())
		if len(path.String()) <= maxFieldNameSize && (err != nil || !slices.Equal(path, again)) {
			t.Errorf("%q is %q, written %q, read as %q, %v", s, []string(path), path, []string(again), err)
		}
	})
}

// FuzzValueOrder checks that the order of values is total, with values decoded from the wire format.
func FuzzValueOrder(f *testing.F) {
	seeds := []*pb.Value{nullValue(), integerValue(math.MaxInt64), doubleValue(1 << 63), doubleValue(math.NaN()), doubleValue(math.Copysign(0, -1)),
		arrayValue([]*pb.Value{integerValue(1)}), mapValue(map[string]*pb.Value{"a": nullValue()}),
		mapValue(map[string]*pb.Value{vectorTypeKey: {ValueType: &pb.Value_StringValue{StringValue: vectorTypeValue}}, vectorValueKey: arrayValue([]*pb.Value{doubleValue(1)})}),
		{ValueType: &pb.Value_ReferenceValue{ReferenceValue: "projects/p/databases/d/documents/c/d"}}}
	var wire [][]byte
	for _, v := range seeds {
		b, err := proto.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		wire = append(wire, b)
	}
	for i := range wire {
		f.Add(wire[i], wire[(i+1)%len(wire)], wire[(i+2)%len(wire)])
	}
	f.Fuzz(func(t *testing.T, x, y, z []byte) {
		var a, b, c pb.Value
		for _, p := range []struct {
			wire []byte
			v    *pb.Value
		}{{x, &a}, {y, &b}, {z, &c}} {
			if proto.Unmarshal(p.wire, p.v) != nil {
				return
			}
		}
		sign := func(n int) int { return min(max(n, -1), 1) }
		if compareValues(&a, &a) != 0 {
			t.Errorf("%v is not equal to itself", &a)
		}
		if sign(compareValues(&a, &b)) != -sign(compareValues(&b, &a)) {
			t.Errorf("%v and %v have no order", &a, &b)
		}
		if compareValues(&a, &b) <= 0 && compareValues(&b, &c) <= 0 && compareValues(&a, &c) > 0 {
			t.Errorf("%v <= %v <= %v is not transitive", &a, &b, &c)
		}
		if identicalValues(&a, &b) && compareValues(&a, &b) != 0 {
			t.Errorf("%v and %v are identical but not equal", &a, &b)
		}
	})
}

// FuzzWrite checks that every stored document can be stored again unchanged, and replayed from the journal.
func FuzzWrite(f *testing.F) {
	const name = "projects/p/databases/d/documents/c/a"
	for _, w := range []*pb.Write{
		{Operation: &pb.Write_Delete{Delete: name}},
		{Operation: &pb.Write_Update{Update: &pb.Document{Name: name, Fields: map[string]*pb.Value{"a": integerValue(1), "m": mapValue(map[string]*pb.Value{"x": nullValue()})}}}},
		{Operation: &pb.Write_Update{Update: &pb.Document{Name: name}}, UpdateMask: &pb.DocumentMask{FieldPaths: []string{"m.x", "`a`"}},
			UpdateTransforms: []*pb.DocumentTransform_FieldTransform{{FieldPath: "n.o", TransformType: &pb.DocumentTransform_FieldTransform_Increment{Increment: doubleValue(1)}}}},
	} {
		b, err := proto.Marshal(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var p pb.Write
		if proto.Unmarshal(wire, &p) != nil {
			return
		}
		w, err := parseWrite(&p)
		if err != nil {
			return
		}
		b := newBuilder(newState(nil), 1)
		if _, err := w.apply(b); err != nil || w.isDelete {
			return
		}
		stored := b.get(w.name)
		if err := checkFields(stored.fields()); err != nil {
			t.Errorf("what was stored can't be stored: %v", err)
		}
		record, err := commitRecord(1, b.changes)(nil)
		if err != nil {
			t.Fatal(err)
		}
		again := newBuilder(newState(nil), 0)
		if err := replayRecord(record, again); err != nil {
			t.Fatal(err)
		}
		replayed := again.get(w.name)
		if !maps.EqualFunc(stored.fields(), replayed.fields(), identicalValues) || stored.updated != replayed.updated {
			t.Errorf("stored %v, replayed %v", stored.fields(), replayed.fields())
		}
	})
}

// FuzzQuery checks that a query has the same result with an index and with a scan.
func FuzzQuery(f *testing.F) {
	const parent = "projects/p/databases/d/documents"
	plain := newBuilder(newState(nil), 1)
	for i, v := range []*pb.Value{integerValue(1), doubleValue(1), doubleValue(math.NaN()), nullValue(), {ValueType: &pb.Value_StringValue{StringValue: "x"}},
		arrayValue([]*pb.Value{integerValue(1)}), mapValue(map[string]*pb.Value{"b": integerValue(2)}), integerValue(-5), integerValue(9)} {
		for j := range 3 {
			name, err := parseDocumentName(fmt.Sprintf("%s/c/%d%d", parent, j, i))
			if err != nil {
				f.Fatal(err)
			}
			plain.put(name, newDocument(&pb.Document{Name: name.full, Fields: map[string]*pb.Value{"a": v, "n": integerValue(int64(j))}}))
		}
	}
	indexed := newBuilder(plain.state, 2)
	for _, path := range []fieldPath{{"a"}, {"n"}, {"a", "b"}} {
		indexed.index(parent+"/c", path)
	}
	a := &pb.StructuredQuery_FieldReference{FieldPath: "a"}
	for op := range pb.StructuredQuery_FieldFilter_NOT_IN + 1 {
		for _, v := range []*pb.Value{integerValue(1), arrayValue([]*pb.Value{integerValue(1), nullValue()})} {
			b, err := proto.Marshal(&pb.StructuredQuery{
				Where: &pb.StructuredQuery_Filter{FilterType: &pb.StructuredQuery_Filter_FieldFilter{
					FieldFilter: &pb.StructuredQuery_FieldFilter{Field: a, Op: op, Value: v}}},
				OrderBy: []*pb.StructuredQuery_Order{{Field: a, Direction: pb.StructuredQuery_DESCENDING}},
				StartAt: &pb.Cursor{Values: []*pb.Value{integerValue(9)}, Before: true},
			})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, int32(op))
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte, limit int32) {
		var sq pb.StructuredQuery
		if proto.Unmarshal(wire, &sq) != nil {
			return
		}
		sq.From = []*pb.StructuredQuery_CollectionSelector{{CollectionId: "c"}}
		if limit >= 0 {
			sq.Limit = wrapperspb.Int32(limit)
		}
		q, err := parseQuery(parent, &sq)
		if err != nil {
			return
		}
		scanned, byIndex := q.run(plain.state), q.run(indexed.state)
		if !slices.Equal(scanned.docs, byIndex.docs) || scanned.skipped != byIndex.skipped {
			t.Errorf("%v: scanned %d, by index %d documents", &sq, len(scanned.docs), len(byIndex.docs))
		}
	})
}
