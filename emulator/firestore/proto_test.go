package firestore_test

import (
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/genproto/googleapis/type/latlng"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Shorthands for the values and messages of the raw API.

type fields = map[string]*pb.Value

func null() *pb.Value            { return &pb.Value{ValueType: &pb.Value_NullValue{}} }
func boolean(b bool) *pb.Value   { return &pb.Value{ValueType: &pb.Value_BooleanValue{BooleanValue: b}} }
func integer(i int64) *pb.Value  { return &pb.Value{ValueType: &pb.Value_IntegerValue{IntegerValue: i}} }
func double(d float64) *pb.Value { return &pb.Value{ValueType: &pb.Value_DoubleValue{DoubleValue: d}} }
func str(s string) *pb.Value     { return &pb.Value{ValueType: &pb.Value_StringValue{StringValue: s}} }
func blob(s string) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_BytesValue{BytesValue: []byte(s)}}
}
func ref(s string) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_ReferenceValue{ReferenceValue: s}}
}
func array(v ...*pb.Value) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_ArrayValue{ArrayValue: &pb.ArrayValue{Values: v}}}
}
func object(f fields) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_MapValue{MapValue: &pb.MapValue{Fields: f}}}
}
func instant(t time.Time) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_TimestampValue{TimestampValue: timestamppb.New(t)}}
}

func update(name string, f fields, mask ...string) *pb.Write {
	w := &pb.Write{Operation: &pb.Write_Update{Update: &pb.Document{Name: name, Fields: f}}}
	if mask != nil {
		w.UpdateMask = &pb.DocumentMask{FieldPaths: mask}
	}
	return w
}

func remove(name string) *pb.Write { return &pb.Write{Operation: &pb.Write_Delete{Delete: name}} }

func with(w *pb.Write, c *pb.Precondition) *pb.Write { w.CurrentDocument = c; return w }

func exists(e bool) *pb.Precondition {
	return &pb.Precondition{ConditionType: &pb.Precondition_Exists{Exists: e}}
}

func updatedAt(ts *timestamppb.Timestamp) *pb.Precondition {
	return &pb.Precondition{ConditionType: &pb.Precondition_UpdateTime{UpdateTime: ts}}
}

func (b *backend) commit(t testing.TB, writes ...*pb.Write) (*pb.CommitResponse, error) {
	return b.raw.Commit(b.ctx(t), &pb.CommitRequest{Database: b.db, Writes: writes})
}

func (b *backend) mustCommit(t testing.TB, writes ...*pb.Write) *pb.CommitResponse {
	t.Helper()
	return must[*pb.CommitResponse](t)(b.commit(t, writes...))
}

func (b *backend) get(t testing.TB, path string) (*pb.Document, error) {
	return b.raw.GetDocument(b.ctx(t), &pb.GetDocumentRequest{Name: b.root + "/" + path})
}

func (b *backend) wantFields(t testing.TB, path string, want fields) {
	t.Helper()
	d, err := b.get(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, d.Fields, protocmp.Transform(), cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func geo(lat, lng float64) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_GeoPointValue{GeoPointValue: &latlng.LatLng{Latitude: lat, Longitude: lng}}}
}

func vector(components ...float64) *pb.Value {
	var v []*pb.Value
	for _, c := range components {
		v = append(v, double(c))
	}
	return object(fields{"__type__": str("__vector__"), "value": array(v...)})
}

type (
	sq     = pb.StructuredQuery
	filter = pb.StructuredQuery_Filter
)

func from(collection string) *sq {
	return &sq{From: []*pb.StructuredQuery_CollectionSelector{{CollectionId: collection}}}
}

func field(path string) *pb.StructuredQuery_FieldReference {
	return &pb.StructuredQuery_FieldReference{FieldPath: path}
}

var operators = map[string]pb.StructuredQuery_FieldFilter_Operator{
	"<": 1, "<=": 2, ">": 3, ">=": 4, "==": 5, "!=": 6, "array-contains": 7, "in": 8, "array-contains-any": 9, "not-in": 10,
}

func where(path, op string, v *pb.Value) *filter {
	return &filter{FilterType: &pb.StructuredQuery_Filter_FieldFilter{
		FieldFilter: &pb.StructuredQuery_FieldFilter{Field: field(path), Op: operators[op], Value: v}}}
}

func unary(path string, op pb.StructuredQuery_UnaryFilter_Operator) *filter {
	return &filter{FilterType: &pb.StructuredQuery_Filter_UnaryFilter{UnaryFilter: &pb.StructuredQuery_UnaryFilter{
		Op: op, OperandType: &pb.StructuredQuery_UnaryFilter_Field{Field: field(path)}}}}
}

func composite(op pb.StructuredQuery_CompositeFilter_Operator, filters ...*filter) *filter {
	return &filter{FilterType: &pb.StructuredQuery_Filter_CompositeFilter{
		CompositeFilter: &pb.StructuredQuery_CompositeFilter{Op: op, Filters: filters}}}
}

func and(filters ...*filter) *filter {
	return composite(pb.StructuredQuery_CompositeFilter_AND, filters...)
}
func or(filters ...*filter) *filter {
	return composite(pb.StructuredQuery_CompositeFilter_OR, filters...)
}

func orderBy(paths ...string) []*pb.StructuredQuery_Order {
	var orders []*pb.StructuredQuery_Order
	for _, p := range paths {
		o := &pb.StructuredQuery_Order{Direction: pb.StructuredQuery_ASCENDING}
		if path, ok := strings.CutPrefix(p, "-"); ok {
			p, o.Direction = path, pb.StructuredQuery_DESCENDING
		}
		o.Field = field(p)
		orders = append(orders, o)
	}
	return orders
}
