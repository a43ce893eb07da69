package firestore

import (
	"maps"
	"math"
	"strings"
	"testing"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/genproto/googleapis/type/latlng"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// everyValue has a field of each type of value.
func everyValue() map[string]*pb.Value {
	s := func(s string) *pb.Value { return &pb.Value{ValueType: &pb.Value_StringValue{StringValue: s}} }
	return map[string]*pb.Value{
		"":          nullValue(),
		"true":      {ValueType: &pb.Value_BooleanValue{BooleanValue: true}},
		"false":     {ValueType: &pb.Value_BooleanValue{}},
		"int":       integerValue(math.MinInt64),
		"zero":      integerValue(0),
		"double":    doubleValue(math.Pi),
		"nan":       doubleValue(math.NaN()),
		"string":    s(strings.Repeat("é", 200)),
		"empty":     s(""),
		"bytes":     {ValueType: &pb.Value_BytesValue{BytesValue: []byte{0, 255}}},
		"noBytes":   {ValueType: &pb.Value_BytesValue{BytesValue: []byte{}}},
		"reference": {ValueType: &pb.Value_ReferenceValue{ReferenceValue: "projects/p/databases/d/documents/c/d"}},
		"time":      {ValueType: &pb.Value_TimestampValue{TimestampValue: &timestamppb.Timestamp{Seconds: -1, Nanos: 999}}},
		"epoch":     {ValueType: &pb.Value_TimestampValue{TimestampValue: &timestamppb.Timestamp{}}},
		"geo":       {ValueType: &pb.Value_GeoPointValue{GeoPointValue: &latlng.LatLng{Latitude: 1, Longitude: -2}}},
		"list":      arrayValue([]*pb.Value{integerValue(1), s("x"), mapValue(map[string]*pb.Value{"a": arrayValue(nil)})}),
		"map":       mapValue(map[string]*pb.Value{"a": integerValue(-1), "b": mapValue(map[string]*pb.Value{})}),
		"none":      {},
	}
}

// encoded is the wire format of an answer with the stored document.
func encoded(t testing.TB, d *pb.Document) []byte {
	t.Helper()
	b, err := newCodec().Marshal(newDocument(d).answer(nil))
	if err != nil {
		t.Fatal(err)
	}
	return b.Materialize()
}

func TestAnswersAreEncodedAsByPackageProto(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*pb.Document{
		"full":    {Name: "projects/p/databases/d/documents/c/d", Fields: everyValue(), CreateTime: timestampOf(1e15), UpdateTime: timestampOf(2e15 + 1)},
		"missing": {Name: "projects/p/databases/d/documents/c/d"},
	} {
		again := &pb.Document{}
		wire := encoded(t, d)
		if err := proto.Unmarshal(wire, again); err != nil || !proto.Equal(d, again) || len(wire) != proto.Size(d) {
			t.Errorf("%s: encoded %v\ndecoded %v, %v", name, d, again, err)
		}
	}
}

func TestStoredFieldsAreFoundByTheirPath(t *testing.T) {
	t.Parallel()
	fields := everyValue()
	d := newDocument(&pb.Document{Name: "projects/p/databases/d/documents/c/d", Fields: fields})
	if !maps.EqualFunc(fields, d.fields(), identicalValues) {
		t.Errorf("the fields are %v, want %v", d.fields(), fields)
	}
	for _, path := range []fieldPath{
		{""}, {"true"}, {"false"}, {"int"}, {"zero"}, {"double"}, {"nan"}, {"string"}, {"empty"}, {"bytes"}, {"noBytes"}, {"reference"},
		{"time"}, {"epoch"}, {"geo"}, {"list"}, {"map"}, {"none"}, {"map", "a"}, {"map", "b"}, {"map", "b", "c"},
		{"map", "missing"}, {"missing"}, {"string", "a"}, {"list", "a"}, {"none", "a"},
	} {
		if got, want := d.field(path), fieldOf(fields, path); !proto.Equal(got, want) {
			t.Errorf("%q is %v, want %v", path, got, want)
		}
	}
}

func commitOf(writes ...*pb.Write) *pb.CommitRequest {
	return &pb.CommitRequest{Database: "projects/p/databases/d", Writes: writes, Transaction: []byte("tx")}
}

func TestOrdinaryCommitsAreDecodedByHand(t *testing.T) {
	t.Parallel()
	fields := everyValue()
	req := commitOf(
		&pb.Write{
			Operation:        &pb.Write_Update{Update: &pb.Document{Name: "n", Fields: fields}},
			UpdateMask:       &pb.DocumentMask{FieldPaths: []string{"a", "b.c"}},
			CurrentDocument:  &pb.Precondition{ConditionType: &pb.Precondition_Exists{Exists: true}},
			UpdateTransforms: []*pb.DocumentTransform_FieldTransform{{FieldPath: "n", TransformType: &pb.DocumentTransform_FieldTransform_Increment{Increment: doubleValue(1)}}},
		},
		&pb.Write{Operation: &pb.Write_Delete{Delete: "n"}, UpdateMask: &pb.DocumentMask{}},
	)
	wire, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var got pb.CommitRequest
	if !decodeCommit(wire, &got) || !proto.Equal(req, &got) {
		t.Errorf("decoded %v", &got)
	}
}

// FuzzCodec checks that the codec decodes a commit exactly as package proto does, and that package proto decodes the same
// from an answer.
func FuzzCodec(f *testing.F) {
	deep := nullValue()
	for range 100 {
		deep = mapValue(map[string]*pb.Value{"a": deep})
	}
	for _, req := range []*pb.CommitRequest{
		commitOf(&pb.Write{Operation: &pb.Write_Update{Update: &pb.Document{Name: "n", Fields: everyValue()}}}),
		commitOf(&pb.Write{Operation: &pb.Write_Update{Update: &pb.Document{Fields: map[string]*pb.Value{"deep": deep}}}}),
		commitOf(&pb.Write{Operation: &pb.Write_Transform{Transform: &pb.DocumentTransform{Document: "n"}}}),
	} {
		wire, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
		f.Add(append(wire, wire...))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var want, got pb.CommitRequest
		wantErr := proto.Unmarshal(wire, &want)
		err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, &got)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("decoded %v, want %v", err, wantErr)
		}
		if err != nil {
			return
		}
		if !proto.Equal(&want, &got) {
			t.Fatalf("decoded %v\nwant %v", &got, &want)
		}
		for _, w := range got.Writes {
			d := w.GetUpdate()
			if d == nil || checkFields(d.Fields) != nil {
				continue
			}
			var again pb.Document
			if err := proto.Unmarshal(encoded(t, d), &again); err != nil {
				t.Fatal(err)
			}
			if len(again.Fields) != len(d.Fields) {
				t.Fatalf("encoded %v\ndecoded %v", d, &again)
			}
			for name, v := range d.Fields {
				if !identicalValues(v, again.Fields[name]) {
					t.Fatalf("%s: encoded %v, decoded %v", name, v, again.Fields[name])
				}
			}
		}
	})
}

func benchmarkDocument() *pb.Document {
	s := func(s string) *pb.Value { return &pb.Value{ValueType: &pb.Value_StringValue{StringValue: s}} }
	var seen []*pb.Value
	for range 20 {
		seen = append(seen, mapValue(map[string]*pb.Value{"id": s("message-id-0123456789"), "tags": arrayValue([]*pb.Value{s("ask")})}))
	}
	return &pb.Document{Name: "projects/p/databases/(default)/documents/users/u", CreateTime: timestampOf(1e15), UpdateTime: timestampOf(1e15),
		Fields: map[string]*pb.Value{"name": s("a user"), "at": {ValueType: &pb.Value_TimestampValue{TimestampValue: timestampOf(1e15)}},
			"count": integerValue(17), "seen": arrayValue(seen), "profile": mapValue(map[string]*pb.Value{"twitch": s("x"), "discord": s("y")})}}
}

// BenchmarkCodec compares the codec with package proto on a document with a list of 20 small maps.
func BenchmarkCodec(b *testing.B) {
	d := benchmarkDocument()
	wire, err := proto.Marshal(commitOf(&pb.Write{Operation: &pb.Write_Update{Update: &pb.Document{Name: d.Name, Fields: d.Fields}}}))
	if err != nil {
		b.Fatal(err)
	}
	ours := newCodec()
	stored := newDocument(d)
	for _, c := range []struct {
		name   string
		answer func() *pb.Document
	}{{"encode/packed", func() *pb.Document { return stored.answer(nil) }}, {"encode/proto", func() *pb.Document { return d }}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buf, err := ours.Marshal(&pb.BatchGetDocumentsResponse{Result: &pb.BatchGetDocumentsResponse_Found{Found: c.answer()}, ReadTime: d.UpdateTime})
				if err != nil {
					b.Fatal(err)
				}
				buf.Free()
			}
		})
	}
	data := mem.BufferSlice{mem.SliceBuffer(wire)}
	b.Run("decode/hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := ours.Unmarshal(data, &pb.CommitRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode/proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := ours.CodecV2.Unmarshal(data, &pb.CommitRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
