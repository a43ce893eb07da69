package firestore_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestTheGoClientWritesAndReadsDocuments(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx := t.Context()
		doc := b.client.Collection("c").Doc("d")
		_, err := doc.Get(ctx)
		wantCode(t, err, codes.NotFound)
		first := must[*client.WriteResult](t)(doc.Set(ctx, map[string]any{"n": 1, "m": map[string]any{"x": "a", "y": "b"}}))
		_, err = doc.Create(ctx, map[string]any{"n": 1})
		wantCode(t, err, codes.AlreadyExists)
		second := must[*client.WriteResult](t)(doc.Update(ctx, []client.Update{{Path: "m.x", Value: "c"}, {Path: "n", Value: client.Delete}}))
		if !second.UpdateTime.After(first.UpdateTime) {
			t.Errorf("the update time went from %v to %v", first.UpdateTime, second.UpdateTime)
		}
		snap := must[*client.DocumentSnapshot](t)(doc.Get(ctx))
		want := map[string]any{"m": map[string]any{"x": "c", "y": "b"}}
		if diff := cmp.Diff(want, snap.Data()); diff != "" {
			t.Error(diff)
		}
		if !snap.CreateTime.Equal(first.UpdateTime) || !snap.UpdateTime.Equal(second.UpdateTime) || snap.ReadTime.Before(snap.UpdateTime) {
			t.Errorf("created %v, updated %v, read %v", snap.CreateTime, snap.UpdateTime, snap.ReadTime)
		}
		must[*client.WriteResult](t)(doc.Set(ctx, map[string]any{"z": true}, client.MergeAll))
		snaps := must[[]*client.DocumentSnapshot](t)(b.client.GetAll(ctx, []*client.DocumentRef{b.client.Doc("c/none"), doc, doc}))
		if snaps[0].Exists() || !snaps[1].Exists() || len(snaps[2].Data()) != 2 {
			t.Errorf("got %v", snaps)
		}
		must[*client.WriteResult](t)(doc.Delete(ctx))
		_, err = doc.Get(ctx)
		wantCode(t, err, codes.NotFound)
		_, err = doc.Delete(ctx, client.Exists)
		wantCode(t, err, codes.NotFound)
	})
}

func TestAPreconditionDecidesWhetherAWriteGoesThrough(t *testing.T) {
	past := timestamppb.New(time.Unix(1e9, 0))
	cases := []struct {
		name      string
		there     bool
		write     func(name string) *pb.Write
		condition *pb.Precondition
		want      codes.Code
	}{
		{"update exists=true on missing", false, func(n string) *pb.Write { return update(n, nil) }, exists(true), codes.NotFound},
		{"update exists=true on existing", true, func(n string) *pb.Write { return update(n, nil) }, exists(true), codes.OK},
		{"update exists=false on missing", false, func(n string) *pb.Write { return update(n, nil) }, exists(false), codes.OK},
		{"update exists=false on existing", true, func(n string) *pb.Write { return update(n, nil) }, exists(false), codes.AlreadyExists},
		{"update of another version", true, func(n string) *pb.Write { return update(n, nil) }, updatedAt(past), codes.FailedPrecondition},
		{"update of a version of a missing document", false, func(n string) *pb.Write { return update(n, nil) }, updatedAt(past), codes.FailedPrecondition},
		{"delete exists=true on missing", false, remove, exists(true), codes.NotFound},
		{"delete exists=true on existing", true, remove, exists(true), codes.OK},
		{"delete exists=false on existing", true, remove, exists(false), codes.AlreadyExists},
		{"delete of another version", true, remove, updatedAt(past), codes.FailedPrecondition},
		{"delete without a precondition on missing", false, remove, nil, codes.OK},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		for i, c := range cases {
			name := fmt.Sprintf("%s/c/%d", b.root, i)
			prepare := func() {
				t.Helper()
				if c.there {
					b.mustCommit(t, update(name, fields{"a": integer(1)}))
				} else {
					b.mustCommit(t, remove(name))
				}
			}
			prepare()
			t.Log(c.name)
			want := b.expect("precondition: "+c.name, c.want)
			_, err := b.commit(t, with(c.write(name), c.condition))
			wantCode(t, err, want)
			prepare()
			resp, err := b.raw.BatchWrite(b.ctx(t), &pb.BatchWriteRequest{Database: b.db, Writes: []*pb.Write{
				with(c.write(name), c.condition),
				update(name+"-other", fields{"a": integer(int64(i))}),
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got := codes.Code(resp.Status[0].GetCode()); got != want {
				t.Errorf("BatchWrite: %s: the code is %v, want %v (%s)", c.name, got, want, resp.Status[0].GetMessage())
			}
			if got := codes.Code(resp.Status[1].GetCode()); got != codes.OK {
				t.Errorf("BatchWrite: the write beside it failed: %v", resp.Status[1])
			}
		}
	})
}

func TestAnUpdateTimeOfTheStoredVersionLetsAWriteThrough(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		name := b.root + "/c/d"
		r := b.mustCommit(t, update(name, fields{"a": integer(1)}))
		r = b.mustCommit(t, with(update(name, fields{"a": integer(2)}), updatedAt(r.WriteResults[0].UpdateTime)))
		b.mustCommit(t, with(remove(name), updatedAt(r.WriteResults[0].UpdateTime)))
	})
}

func TestACommitIsAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		_, err := b.commit(t,
			update(b.root+"/c/a", fields{"v": integer(1)}),
			with(update(b.root+"/c/b", nil), exists(true)))
		wantCode(t, err, codes.NotFound)
		_, err = b.get(t, "c/a")
		wantCode(t, err, codes.NotFound)
	})
}

func TestWritesOfOneCommitSeeEachOtherAndShareOneTime(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		name := b.root + "/c/d"
		resp := b.mustCommit(t,
			update(name, fields{"a": integer(1), "b": integer(1)}),
			with(update(name, fields{"a": integer(2)}, "a"), exists(true)),
			update(b.root+"/c/e", fields{"a": integer(1)}))
		b.wantFields(t, "c/d", fields{"a": integer(2), "b": integer(1)})
		for _, r := range resp.WriteResults {
			if !r.UpdateTime.AsTime().Equal(resp.CommitTime.AsTime()) {
				t.Errorf("the update time is %v, the commit time %v", r.UpdateTime.AsTime(), resp.CommitTime.AsTime())
			}
		}
	})
}

func TestCommitTimesIncreaseInWholeMicroseconds(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		var last time.Time
		for i := range 20 {
			resp := b.mustCommit(t, update(b.root+"/c/d", fields{"a": integer(int64(i))}))
			now := resp.WriteResults[0].UpdateTime.AsTime()
			if !now.After(last) {
				t.Errorf("%v is not after %v", now, last)
			}
			if now.Nanosecond()%1000 != 0 {
				t.Errorf("%v has nanoseconds", now)
			}
			last = now
		}
	})
}

func TestAWriteThatChangesNothingKeepsTheUpdateTime(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		write := func(v *pb.Value) time.Time {
			return b.mustCommit(t, update(b.root+"/c/d", fields{"a": v})).WriteResults[0].UpdateTime.AsTime()
		}
		first := write(integer(1))
		if again := write(integer(1)); !again.Equal(first) {
			t.Errorf("the same value moved the update time from %v to %v", first, again)
		}
		if other := write(double(1)); other.Equal(first) {
			t.Error("1.0 in place of 1 did not move the update time")
		}
	})
}

func TestAMaskSelectsTheUpdatedFields(t *testing.T) {
	before := fields{"a": integer(1), "m": object(fields{"x": integer(1), "y": integer(2)}), "odd.name": integer(3)}
	cases := []struct {
		name   string
		fields fields
		mask   []string
		want   fields
	}{
		{"no mask replaces all", fields{"b": integer(9)}, nil, fields{"b": integer(9)}},
		{"an empty mask changes nothing", fields{"b": integer(9)}, []string{}, before},
		{"a field in the mask is set", fields{"a": integer(9), "b": integer(9)}, []string{"a"},
			fields{"a": integer(9), "m": before["m"], "odd.name": integer(3)}},
		{"a field in the mask alone is deleted", nil, []string{"a"}, fields{"m": before["m"], "odd.name": integer(3)}},
		{"a nested field is set", fields{"m": object(fields{"x": integer(9)})}, []string{"m.x"},
			fields{"a": integer(1), "m": object(fields{"x": integer(9), "y": integer(2)}), "odd.name": integer(3)}},
		{"a nested field is deleted", nil, []string{"m.x"},
			fields{"a": integer(1), "m": object(fields{"y": integer(2)}), "odd.name": integer(3)}},
		{"a map is replaced", fields{"m": object(fields{"z": integer(9)})}, []string{"m"},
			fields{"a": integer(1), "m": object(fields{"z": integer(9)}), "odd.name": integer(3)}},
		{"a nested field makes a map of a number", fields{"a": object(fields{"b": integer(9)})}, []string{"a.b"},
			fields{"a": object(fields{"b": integer(9)}), "m": before["m"], "odd.name": integer(3)}},
		{"a quoted name", fields{"odd.name": integer(9)}, []string{"`odd.name`"},
			fields{"a": integer(1), "m": before["m"], "odd.name": integer(9)}},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		for i, c := range cases {
			path := fmt.Sprintf("c/%d", i)
			b.mustCommit(t, update(b.root+"/"+path, before))
			w := update(b.root+"/"+path, c.fields)
			if c.mask != nil {
				w.UpdateMask = &pb.DocumentMask{FieldPaths: c.mask}
			}
			b.mustCommit(t, w)
			t.Log(c.name)
			b.wantFields(t, path, c.want)
		}
	})
}

func TestATransformComputesAFieldFromItsStoredValue(t *testing.T) {
	type ft = pb.DocumentTransform_FieldTransform
	inc := func(v *pb.Value) *ft {
		return &ft{FieldPath: "f", TransformType: &pb.DocumentTransform_FieldTransform_Increment{Increment: v}}
	}
	maxi := func(v *pb.Value) *ft {
		return &ft{FieldPath: "f", TransformType: &pb.DocumentTransform_FieldTransform_Maximum{Maximum: v}}
	}
	mini := func(v *pb.Value) *ft {
		return &ft{FieldPath: "f", TransformType: &pb.DocumentTransform_FieldTransform_Minimum{Minimum: v}}
	}
	union := func(v ...*pb.Value) *ft {
		return &ft{FieldPath: "f", TransformType: &pb.DocumentTransform_FieldTransform_AppendMissingElements{AppendMissingElements: &pb.ArrayValue{Values: v}}}
	}
	without := func(v ...*pb.Value) *ft {
		return &ft{FieldPath: "f", TransformType: &pb.DocumentTransform_FieldTransform_RemoveAllFromArray{RemoveAllFromArray: &pb.ArrayValue{Values: v}}}
	}
	cases := []struct {
		name      string
		before    *pb.Value // nil: no field
		transform *ft
		after     *pb.Value
		result    *pb.Value
	}{
		{"increment of nothing", nil, inc(integer(2)), integer(2), integer(2)},
		{"increment of a string", str("x"), inc(integer(2)), integer(2), integer(2)},
		{"increment of an integer", integer(40), inc(integer(2)), integer(42), integer(42)},
		{"increment of an integer by a double", integer(40), inc(double(2.5)), double(42.5), double(42.5)},
		{"increment of a double by an integer", double(0.5), inc(integer(2)), double(2.5), double(2.5)},
		{"increment stops at the largest integer", integer(math.MaxInt64 - 1), inc(integer(2)), integer(math.MaxInt64), integer(math.MaxInt64)},
		{"increment stops at the smallest integer", integer(math.MinInt64 + 1), inc(integer(-2)), integer(math.MinInt64), integer(math.MinInt64)},
		{"maximum takes the larger", integer(1), maxi(integer(3)), integer(3), integer(3)},
		{"maximum keeps the larger", integer(5), maxi(double(3)), integer(5), integer(5)},
		{"maximum keeps the stored one of equals", integer(3), maxi(double(3)), integer(3), integer(3)},
		{"maximum of nothing", nil, maxi(double(3)), double(3), double(3)},
		{"minimum takes the smaller", integer(3), mini(double(1.5)), double(1.5), double(1.5)},
		{"minimum keeps the smaller", integer(1), mini(integer(3)), integer(1), integer(1)},
		{"minimum of a string", str("x"), mini(integer(3)), integer(3), integer(3)},
		{"union appends what is missing, once", array(integer(1), integer(2)), union(integer(2), integer(3), integer(3)), array(integer(1), integer(2), integer(3)), null()},
		{"union takes 1.0 for 1", array(integer(1)), union(double(1)), array(integer(1)), null()},
		{"union of nothing", nil, union(str("a")), array(str("a")), null()},
		{"union of a number", integer(1), union(str("a")), array(str("a")), null()},
		{"remove takes all equals away", array(integer(1), str("a"), double(1), integer(2)), without(integer(1), integer(9)), array(str("a"), integer(2)), null()},
		{"remove of nothing", nil, without(integer(1)), array(), null()},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		for i, c := range cases {
			path := fmt.Sprintf("c/%d", i)
			before := fields{}
			if c.before != nil {
				before["f"] = c.before
			}
			b.mustCommit(t, update(b.root+"/"+path, before))
			w := update(b.root+"/"+path, fields{"g": integer(7)}, "g")
			w.UpdateTransforms = []*ft{c.transform}
			resp := b.mustCommit(t, w)
			t.Log(c.name)
			b.wantFields(t, path, fields{"f": c.after, "g": integer(7)})
			if diff := cmp.Diff([]*pb.Value{c.result}, resp.WriteResults[0].TransformResults, protocmp.Transform()); diff != "" {
				t.Errorf("%s: the results differ (-want +got):\n%s", c.name, diff)
			}
		}
	})
}

func TestAServerTimestampIsTheCommitTimeInMilliseconds(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		resp := b.mustCommit(t, &pb.Write{Operation: &pb.Write_Transform{Transform: &pb.DocumentTransform{
			Document: b.root + "/c/d",
			FieldTransforms: []*pb.DocumentTransform_FieldTransform{
				{FieldPath: "m.at", TransformType: &pb.DocumentTransform_FieldTransform_SetToServerValue{SetToServerValue: pb.DocumentTransform_FieldTransform_REQUEST_TIME}},
				{FieldPath: "too", TransformType: &pb.DocumentTransform_FieldTransform_SetToServerValue{SetToServerValue: pb.DocumentTransform_FieldTransform_REQUEST_TIME}},
			},
		}}})
		results := resp.WriteResults[0].TransformResults
		at := results[0].GetTimestampValue().AsTime()
		if at.Nanosecond()%1e6 != 0 {
			t.Errorf("%v is finer than milliseconds", at)
		}
		if off := resp.CommitTime.AsTime().Sub(at).Abs(); off > time.Second {
			t.Errorf("it is off the commit time by %v", off)
		}
		b.wantFields(t, "c/d", fields{"m": object(fields{"at": results[0]}), "too": results[0]})
	})
}

func TestAnInvalidWriteIsRefused(t *testing.T) {
	deep := integer(1)
	for range 20 {
		deep = object(fields{"m": deep})
	}
	cases := []struct {
		name  string
		write func(b *backend) *pb.Write
		want  codes.Code
	}{
		{"a collection's name", func(b *backend) *pb.Write { return update(b.root+"/c", nil) }, codes.InvalidArgument},
		{"another database", func(b *backend) *pb.Write {
			return update("projects/other/databases/(default)/documents/c/d", nil)
		}, codes.InvalidArgument},
		{"no name", func(b *backend) *pb.Write { return update("", nil) }, codes.InvalidArgument},
		{"no documents segment", func(b *backend) *pb.Write { return update(b.db+"/c/d", nil) }, codes.InvalidArgument},
		{"an empty id", func(b *backend) *pb.Write { return update(b.root+"/c//d/e", nil) }, codes.InvalidArgument},
		{"the id .", func(b *backend) *pb.Write { return update(b.root+"/c/.", nil) }, codes.InvalidArgument},
		{"the id ..", func(b *backend) *pb.Write { return update(b.root+"/c/..", nil) }, codes.InvalidArgument},
		{"a reserved document id", func(b *backend) *pb.Write { return update(b.root+"/c/__d__", nil) }, codes.InvalidArgument},
		{"a reserved collection id", func(b *backend) *pb.Write { return update(b.root+"/__c__/d", nil) }, codes.InvalidArgument},
		{"an id of 1500 bytes", func(b *backend) *pb.Write { return update(b.root+"/c/"+strings.Repeat("d", 1500), nil) }, codes.OK},
		{"an id of 1501 bytes", func(b *backend) *pb.Write { return update(b.root+"/c/"+strings.Repeat("d", 1501), nil) }, codes.InvalidArgument},
		{"a document of 1 MiB less some", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": blob(strings.Repeat("x", 1<<20-200))})
		}, codes.OK},
		{"a document above 1 MiB", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": blob(strings.Repeat("x", 1<<19)), "b": blob(strings.Repeat("x", 1<<19))})
		}, codes.InvalidArgument},
		{"a string above the limit", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": str(strings.Repeat("x", 1<<20))})
		}, codes.InvalidArgument},
		{"a reserved field name", func(b *backend) *pb.Write { return update(b.root+"/c/d", fields{"__a__": integer(1)}) }, codes.InvalidArgument},
		{"an empty field name", func(b *backend) *pb.Write { return update(b.root+"/c/d", fields{"": integer(1)}) }, codes.InvalidArgument},
		{"a value without a type", func(b *backend) *pb.Write { return update(b.root+"/c/d", fields{"a": {}}) }, codes.InvalidArgument},
		{"an array in an array", func(b *backend) *pb.Write { return update(b.root+"/c/d", fields{"a": array(array())}) }, codes.InvalidArgument},
		{"an array in a map in an array", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": array(object(fields{"b": array()}))})
		}, codes.OK},
		{"20 levels of maps", func(b *backend) *pb.Write { return update(b.root+"/c/d", fields{"a": deep}) }, codes.OK},
		{"21 levels of maps", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": object(fields{"m": deep})})
		}, codes.InvalidArgument},
		{"a mask with a bad path", func(b *backend) *pb.Write { return update(b.root+"/c/d", nil, "a..b") }, codes.InvalidArgument},
		{"a mask with a reserved name", func(b *backend) *pb.Write { return update(b.root+"/c/d", nil, "__name__") }, codes.InvalidArgument},
		{"no operation", func(b *backend) *pb.Write { return &pb.Write{} }, codes.InvalidArgument},
		{"an increment by a string", func(b *backend) *pb.Write {
			w := update(b.root+"/c/d", nil)
			w.UpdateTransforms = []*pb.DocumentTransform_FieldTransform{{FieldPath: "a",
				TransformType: &pb.DocumentTransform_FieldTransform_Increment{Increment: str("x")}}}
			return w
		}, codes.InvalidArgument},
		{"a latitude of 91", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": geo(91, 0)})
		}, codes.InvalidArgument},
		{"a reference to a collection", func(b *backend) *pb.Write {
			return update(b.root+"/c/d", fields{"a": ref(b.root + "/c")})
		}, codes.InvalidArgument},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		for _, c := range cases {
			_, err := b.commit(t, c.write(b))
			if err != nil {
				t.Logf("%s: %.300v", c.name, err)
			} else {
				t.Logf("%s: no error", c.name)
			}
			wantCode(t, err, b.expect("write: "+c.name, c.want))
		}
	})
}

func TestARequestAboveTheLimitIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		for mib, want := range map[int]codes.Code{9: codes.OK, 11: codes.InvalidArgument} {
			var writes []*pb.Write
			for i := range mib {
				writes = append(writes, update(fmt.Sprintf("%s/c/%d", b.root, i), fields{"a": blob(strings.Repeat("x", 1<<20-1000))}))
			}
			_, err := b.commit(t, writes...)
			wantCode(t, err, b.expect(fmt.Sprintf("write: a commit of %d MiB", mib), want))
		}
	})
}

func TestABatchWriteMustNotNameADocumentTwice(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		_, err := b.raw.BatchWrite(b.ctx(t), &pb.BatchWriteRequest{Database: b.db, Writes: []*pb.Write{
			update(b.root+"/c/d", nil), update(b.root+"/c/d", nil),
		}})
		wantCode(t, err, b.expect("BatchWrite: one document twice", codes.InvalidArgument))
	})
}

func TestTheBulkWriterReportsEachWrite(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx := t.Context()
		w := b.client.BulkWriter(ctx)
		var jobs []*client.BulkWriterJob
		for i := range 50 {
			j, err := w.Create(b.client.Doc(fmt.Sprintf("c/%d", i)), map[string]any{"i": i})
			if err != nil {
				t.Fatal(err)
			}
			jobs = append(jobs, j)
		}
		missing, err := w.Update(b.client.Doc("c/none"), []client.Update{{Path: "i", Value: 1}})
		if err != nil {
			t.Fatal(err)
		}
		w.End()
		for _, j := range jobs {
			must[*client.WriteResult](t)(j.Results())
		}
		_, err = missing.Results()
		wantCode(t, err, codes.NotFound)
	})
}

func TestSingleDocumentCallsAnswerWithTheDocument(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx := b.ctx(t)
		made := must[*pb.Document](t)(b.raw.CreateDocument(ctx, &pb.CreateDocumentRequest{
			Parent: b.root, CollectionId: "c", Document: &pb.Document{Fields: fields{"a": integer(1)}}}))
		if id := strings.TrimPrefix(made.Name, b.root+"/c/"); len(id) != 20 {
			t.Errorf("the made id is %q", id)
		}
		_, err := b.raw.CreateDocument(ctx, &pb.CreateDocumentRequest{
			Parent: b.root, CollectionId: "c", DocumentId: made.Name[strings.LastIndex(made.Name, "/")+1:], Document: &pb.Document{}})
		wantCode(t, err, codes.AlreadyExists)
		_, err = b.raw.CreateDocument(ctx, &pb.CreateDocumentRequest{
			Parent: b.root, CollectionId: "c", DocumentId: "x", Document: &pb.Document{Name: b.root + "/c/x"}})
		wantCode(t, err, codes.InvalidArgument)
		must[*pb.Document](t)(b.raw.UpdateDocument(ctx, &pb.UpdateDocumentRequest{Document: &pb.Document{Name: b.root + "/c/missing"}}))
		_, err = b.raw.UpdateDocument(ctx, &pb.UpdateDocumentRequest{Document: &pb.Document{Name: b.root + "/c/other"}, CurrentDocument: exists(true)})
		wantCode(t, err, codes.NotFound)
		changed := must[*pb.Document](t)(b.raw.UpdateDocument(ctx, &pb.UpdateDocumentRequest{
			Document:   &pb.Document{Name: made.Name, Fields: fields{"b": integer(2)}},
			UpdateMask: &pb.DocumentMask{FieldPaths: []string{"b"}},
			Mask:       &pb.DocumentMask{FieldPaths: []string{"a"}},
		}))
		if diff := cmp.Diff(fields{"a": integer(1)}, changed.Fields, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		got := must[*pb.Document](t)(b.raw.GetDocument(ctx, &pb.GetDocumentRequest{Name: made.Name, Mask: &pb.DocumentMask{FieldPaths: []string{"b"}}}))
		if diff := cmp.Diff(fields{"b": integer(2)}, got.Fields, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		for _, want := range []codes.Code{codes.OK, codes.NotFound} {
			_, err = b.raw.DeleteDocument(ctx, &pb.DeleteDocumentRequest{Name: made.Name, CurrentDocument: exists(true)})
			wantCode(t, err, want)
		}
	})
}

func TestAReadAtATimeSeesThatTime(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		name := b.root + "/c/d"
		first := b.mustCommit(t, update(name, fields{"a": integer(1)})).CommitTime
		b.mustCommit(t, update(name, fields{"a": integer(2)}))
		got := must[*pb.Document](t)(b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{
			Name: name, ConsistencySelector: &pb.GetDocumentRequest_ReadTime{ReadTime: first}}))
		if n := got.Fields["a"].GetIntegerValue(); n != 1 {
			t.Errorf("the value then was %d, want 1", n)
		}
		_, err := b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{
			Name: name, ConsistencySelector: &pb.GetDocumentRequest_ReadTime{ReadTime: timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Second))}})
		wantCode(t, err, b.expect("read_time in the future", codes.InvalidArgument))
		_, err = b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{
			Name: name, ConsistencySelector: &pb.GetDocumentRequest_ReadTime{ReadTime: timestamppb.New(time.Unix(1e9, 0))}})
		wantCode(t, err, b.expect("read_time long ago", codes.FailedPrecondition))
	})
}

func TestValuesOfEveryTypeComeBack(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		at := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
		in := fields{
			"null": null(), "bool": boolean(true), "int": integer(math.MinInt64), "double": double(-0.5),
			"nan": double(math.NaN()), "time": instant(at), "string": str("héllo\x00\u2028"), "bytes": blob("\xff\x00"),
			"ref": ref(b.root + "/c/e"), "geo": geo(1.5, -2.5), "array": array(integer(1), null()),
			"map": object(fields{"": null()}), "vector": vector(1, 2),
		}
		delete(in["map"].GetMapValue().Fields, "")
		b.mustCommit(t, update(b.root+"/c/d", in))
		in["time"] = instant(at.Truncate(time.Microsecond))
		b.wantFields(t, "c/d", in)
	})
}
