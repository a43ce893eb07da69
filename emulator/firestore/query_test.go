package firestore_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

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

func (b *backend) query(t testing.TB, parent string, q *sq) ([]*pb.Document, error) {
	stream, err := b.raw.RunQuery(b.ctx(t), &pb.RunQueryRequest{Parent: parent, QueryType: &pb.RunQueryRequest_StructuredQuery{StructuredQuery: q}})
	if err != nil {
		return nil, err
	}
	var docs []*pb.Document
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if resp.ReadTime == nil {
			t.Error("a response has no read time")
		}
		if resp.Document != nil {
			docs = append(docs, resp.Document)
		}
	}
}

// ids joins the ids of documents, or the error's code.
func ids(docs []*pb.Document, err error) string {
	if err != nil {
		return fmt.Sprint("error: ", err)
	}
	var s []string
	for _, d := range docs {
		s = append(s, d.Name[strings.LastIndexByte(d.Name, '/')+1:])
	}
	return strings.Join(s, " ")
}

// fill stores documents by their path.
func (b *backend) fill(t testing.TB, docs map[string]fields) {
	t.Helper()
	var writes []*pb.Write
	for path, f := range docs {
		writes = append(writes, update(b.root+"/"+path, f))
	}
	b.mustCommit(t, writes...)
}

func TestAQueryFindsTheDocumentsOfItsFilters(t *testing.T) {
	cases := []struct {
		name  string
		where *filter
		want  string
	}{
		{"no filter", nil, "a b c d e f g h i j"},
		{"==", where("n", "==", integer(2)), "b c"},
		{"== a double", where("n", "==", double(2)), "b c"},
		{"== NaN", where("n", "==", double(math.NaN())), ""},
		{"== null", where("n", "==", null()), ""},
		{"==, nested", where("m.x", "==", integer(1)), "a"},
		{"== a map", where("m", "==", object(fields{"x": integer(1)})), "a"},
		{"== an array", where("l", "==", array(integer(1), integer(2))), "a"},
		{"!=", where("n", "!=", integer(2)), "f a d e h"},
		{"!= null", where("n", "!=", null()), ""},
		{"<", where("n", "<", integer(3)), "a b c"},
		{"<=", where("n", "<=", integer(3)), "a b c d"},
		{">", where("n", ">", integer(2)), "d e"},
		{">=", where("n", ">=", integer(2)), "b c d e"},
		{"> compares within a type", where("n", ">", str("")), "h"},
		{"a range", and(where("n", ">", integer(1)), where("n", "<", double(3.5))), "b c d e"},
		{"in", where("n", "in", array(integer(1), integer(3), str("s"))), "a d h"},
		{"not-in", where("n", "not-in", array(integer(1), integer(2))), "f d e h"},
		{"not-in with null", where("n", "not-in", array(null(), integer(2))), ""},
		{"array-contains", where("l", "array-contains", integer(2)), "a b"},
		{"array-contains a map", where("l", "array-contains", object(fields{"k": integer(1)})), "c"},
		{"array-contains-any", where("l", "array-contains-any", array(integer(3), integer(1))), "a b"},
		{"is null", unary("n", pb.StructuredQuery_UnaryFilter_IS_NULL), "g"},
		{"is not null", unary("n", pb.StructuredQuery_UnaryFilter_IS_NOT_NULL), "f a b c d e h"},
		{"is NaN", unary("n", pb.StructuredQuery_UnaryFilter_IS_NAN), "f"},
		{"is not NaN", unary("n", pb.StructuredQuery_UnaryFilter_IS_NOT_NAN), "a b c d e h"},
		{"and", and(where("n", "==", integer(2)), where("s", "==", str("x"))), "b"},
		{"or", or(where("n", "==", integer(1)), where("s", "==", str("y"))), "a c"},
		{"or of a range", or(where("n", ">", double(3.2)), where("s", "==", str("y"))), "c e"},
		{"or in and", and(where("n", "==", integer(2)), or(where("s", "==", str("x")), where("s", "==", str("y")))), "b c"},
		{"and in or", or(and(where("n", "==", integer(2)), where("s", "==", str("x"))), where("n", "==", integer(3))), "b d"},
		{"!= NaN", where("n", "!=", double(math.NaN())), "f a b c d e h"},
		{"!= a string", where("n", "!=", str("s")), "f a b c d e"},
		{"<= null", where("n", "<=", null()), ""},
		{">= null", where("n", ">=", null()), ""},
		{">= NaN", where("n", ">=", double(math.NaN())), ""},
		{"< a large number", where("n", "<", double(1e300)), "a b c d e"},
		{"in with null and NaN", where("n", "in", array(null(), double(math.NaN()), integer(1))), "a"},
		{"not-in with NaN", where("n", "not-in", array(double(math.NaN()), integer(1))), "f b c d e h"},
		{"array-contains null", where("l", "array-contains", null()), ""},
		{"array-contains-any with null", where("l", "array-contains-any", array(null(), integer(3))), "b"},
		{"array-contains on a field that is no array", and(where("l", "array-contains", integer(2)), where("n", "==", integer(3))), ""},
		{"== an empty map", where("m", "==", object(nil)), ""},
		{"> a map", where("m", ">", object(nil)), "a"},
		{"> an array", where("l", ">=", array(integer(2))), "b c"},
		{"is null of a missing field", unary("m.none", pb.StructuredQuery_UnaryFilter_IS_NULL), ""},
		{"inequalities on two fields", and(where("n", ">", integer(1)), where("s", ">=", str("x"))), "b c"},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{
			"c/a":     {"n": integer(1), "m": object(fields{"x": integer(1)}), "l": array(integer(1), integer(2))},
			"c/b":     {"n": integer(2), "s": str("x"), "l": array(integer(2), integer(3))},
			"c/c":     {"n": double(2), "s": str("y"), "l": array(object(fields{"k": integer(1)}), null())},
			"c/d":     {"n": integer(3), "l": integer(2)},
			"c/e":     {"n": double(3.25)},
			"c/f":     {"n": double(math.NaN())},
			"c/g":     {"n": null()},
			"c/h":     {"n": str("s")},
			"c/i":     {"s": str("w")},
			"c/j":     {},
			"c/a/c/z": {"n": integer(2)},
			"d/a":     {"n": integer(2)},
		})
		for _, c := range cases {
			q := from("c")
			q.Where = c.where
			want := b.expectString("query: "+c.name, c.want)
			if got := ids(b.query(t, b.root, q)); got != want {
				t.Errorf("%s: got %q, want %q", c.name, got, want)
			}
		}
	})
}

func TestAQueryOrdersAndPages(t *testing.T) {
	name := func(b *backend, id string) *pb.Value { return ref(b.root + "/c/" + id) }
	cases := []struct {
		name string
		make func(b *backend) *sq
		want string
	}{
		{"by a field", func(b *backend) *sq { return &sq{OrderBy: orderBy("n")} }, "d a e b c"},
		{"by a field, descending", func(b *backend) *sq { return &sq{OrderBy: orderBy("-n")} }, "c b e a d"},
		{"by two fields", func(b *backend) *sq { return &sq{OrderBy: orderBy("n", "-s")} }, "e a c b"},
		{"by name, descending", func(b *backend) *sq { return &sq{OrderBy: orderBy("-__name__")} }, "f e d c b a"},
		{"an inequality orders", func(b *backend) *sq { return &sq{Where: where("n", ">", integer(0))} }, "a e b c"},
		{"an inequality after another order", func(b *backend) *sq {
			return &sq{Where: where("n", ">=", integer(0)), OrderBy: orderBy("-s")}
		}, "c e b a"},
		{"two inequalities order by name of field", func(b *backend) *sq {
			return &sq{Where: and(where("s", ">", str("")), where("n", ">=", integer(1)))}
		}, "a e b c"},
		{"limit", func(b *backend) *sq { return &sq{OrderBy: orderBy("n"), Limit: wrapperspb.Int32(2)} }, "d a"},
		{"limit 0", func(b *backend) *sq { return &sq{Limit: wrapperspb.Int32(0)} }, ""},
		{"offset and limit", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("n"), Offset: 1, Limit: wrapperspb.Int32(2)}
		}, "a e"},
		{"offset behind the end", func(b *backend) *sq { return &sq{Offset: 10} }, ""},
		{"start at", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("n"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(1)}, Before: true}}
		}, "a e b c"},
		{"start after", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("n"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(1)}}}
		}, "b c"},
		{"end at", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("n"), EndAt: &pb.Cursor{Values: []*pb.Value{integer(1)}}}
		}, "d a e"},
		{"end before", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("n"), EndAt: &pb.Cursor{Values: []*pb.Value{integer(1)}, Before: true}}
		}, "d"},
		{"start after a document", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("n", "__name__"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(1), name(b, "a")}}}
		}, "e b c"},
		{"descending from a document", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("-n", "-__name__"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(1), name(b, "e")}, Before: true}}
		}, "e a d"},
		{"between names", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("__name__"),
				StartAt: &pb.Cursor{Values: []*pb.Value{name(b, "b")}, Before: true}, EndAt: &pb.Cursor{Values: []*pb.Value{name(b, "d")}}}
		}, "b c d"},
		{"names above", func(b *backend) *sq { return &sq{Where: where("__name__", ">", name(b, "c"))} }, "d e f"},
		{"names below, descending", func(b *backend) *sq {
			return &sq{Where: where("__name__", "<", name(b, "c")), OrderBy: orderBy("-__name__")}
		}, "b a"},
		{"one name", func(b *backend) *sq { return &sq{Where: where("__name__", "==", name(b, "c"))} }, "c"},
		{"some names", func(b *backend) *sq {
			return &sq{Where: where("__name__", "in", array(name(b, "e"), name(b, "b"), name(b, "x")))}
		}, "b e"},
		{"an equality with an order", func(b *backend) *sq {
			return &sq{Where: where("s", "==", str("x")), OrderBy: orderBy("-n"), Limit: wrapperspb.Int32(1)}
		}, "b"},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{
			"c/a": {"n": integer(1), "s": str("x")},
			"c/b": {"n": integer(2), "s": str("x")},
			"c/c": {"n": integer(2), "s": str("y")},
			"c/d": {"n": integer(-3)},
			"c/e": {"n": integer(1), "s": str("xx")},
			"c/f": {"other": integer(1)},
		})
		for _, c := range cases {
			q := c.make(b)
			q.From = from("c").From
			want := b.expectString("query: "+c.name, c.want)
			if got := ids(b.query(t, b.root, q)); got != want {
				t.Errorf("%s: got %q, want %q", c.name, got, want)
			}
		}
	})
}

func TestValuesAreOrderedAcrossTypes(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		sorted := []*pb.Value{
			null(),
			boolean(false), boolean(true),
			double(math.NaN()), double(math.Inf(-1)), double(-math.MaxFloat64), integer(math.MinInt64 + 1), double(-1.5), integer(-1),
			integer(0), double(math.SmallestNonzeroFloat64), integer(1), double(1.5),
			integer(1 << 53), integer(1<<53 + 1), double(1<<53 + 2), integer(math.MaxInt64), double(1 << 63), double(math.Inf(1)),
			instant(time.Unix(-1, 0)), instant(time.Unix(0, 1000)), instant(time.Unix(1, 0)),
			str(""), str("\x00"), str("A"), str("a"), str("aa"), str("é"), str("\uffff"), str("\U00010000"),
			blob(""), blob("\x00"), blob("\x00\x01"), blob("\xff"),
			ref(b.root + "/c/a"), ref(b.root + "/c/a/b/c"), ref(b.root + "/c/a!"), ref(b.root + "/d/a"),
			geo(-90, 0), geo(0, -1), geo(0, 1), geo(1, 0),
			array(), array(null()), array(integer(1)), array(integer(1), integer(2)), array(integer(2)), array(str("a")),
			vector(100), vector(1, 2), vector(1, 3),
			object(nil), object(fields{"a": integer(1)}), object(fields{"a": integer(1), "b": integer(1)}),
			object(fields{"a": integer(2)}), object(fields{"a": str("x")}), object(fields{"b": integer(0)}),
		}
		docs := make(map[string]fields)
		var want []string
		for i, v := range sorted {
			// The ids go against the order of the values.
			id := fmt.Sprintf("%03d", len(sorted)-i)
			docs["c/"+id] = fields{"v": v}
			want = append(want, id)
		}
		b.fill(t, docs)
		q := from("c")
		q.OrderBy = orderBy("v")
		if diff := cmp.Diff(strings.Join(want, " "), ids(b.query(t, b.root, q))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAQueryReachesOneCollectionOrAGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{
			"c/1": {}, "c/2/c/3": {"n": integer(1)}, "c/2/d/4": {}, "d/5": {}, "d/5/c/6": {"n": integer(1)}, "cc/7": {}, "c/2/c/3/c/8": {"n": integer(2)},
		})
		group := func(id string) *sq {
			return &sq{From: []*pb.StructuredQuery_CollectionSelector{{CollectionId: id, AllDescendants: true}}}
		}
		filtered := group("c")
		filtered.Where = where("n", "==", integer(1))
		named := group("c")
		named.Where = where("__name__", ">", ref(b.root+"/c/2"))
		for _, c := range []struct {
			name, parent string
			query        *sq
			want         string
		}{
			{"a collection", b.root, from("c"), "1"},
			{"a subcollection", b.root + "/c/2", from("c"), "3"},
			{"a group", b.root, group("c"), "1 3 8 6"},
			{"a group below a document", b.root + "/c/2", group("c"), "3 8"},
			{"a group with a filter", b.root, filtered, "3 6"},
			{"a group by name", b.root, named, "3 8 6"},
			{"nothing", b.root, from("none"), ""},
		} {
			if got := ids(b.query(t, c.parent, c.query)); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
	})
}

func TestAProjectionReturnsOnlyItsFields(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/a": {"x": integer(1), "m": object(fields{"y": integer(2), "z": integer(3)})}})
		for _, c := range []struct {
			fields []string
			want   fields
		}{
			{[]string{"x"}, fields{"x": integer(1)}},
			{[]string{"m.y", "none"}, fields{"m": object(fields{"y": integer(2)})}},
			{[]string{"__name__"}, fields{}},
		} {
			q := from("c")
			q.Select = &pb.StructuredQuery_Projection{}
			for _, f := range c.fields {
				q.Select.Fields = append(q.Select.Fields, field(f))
			}
			docs := must[[]*pb.Document](t)(b.query(t, b.root, q))
			if len(docs) != 1 {
				t.Fatalf("%v: %d documents", c.fields, len(docs))
			}
			if diff := cmp.Diff(c.want, docs[0].Fields, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%v: %s", c.fields, diff)
			}
		}
	})
}

func TestAnInvalidQueryIsRefused(t *testing.T) {
	many := func(n int) *pb.Value {
		a := array()
		for i := range n {
			a.GetArrayValue().Values = append(a.GetArrayValue().Values, integer(int64(i)))
		}
		return a
	}
	cases := []struct {
		name string
		make func(b *backend) *sq
		want codes.Code
	}{
		{"in with no values", func(b *backend) *sq { return &sq{Where: where("a", "in", array())} }, codes.InvalidArgument},
		{"in with no array", func(b *backend) *sq { return &sq{Where: where("a", "in", integer(1))} }, codes.InvalidArgument},
		{"in with 30 values", func(b *backend) *sq { return &sq{Where: where("a", "in", many(30))} }, codes.OK},
		{"in with 31 values", func(b *backend) *sq { return &sq{Where: where("a", "in", many(31))} }, codes.InvalidArgument},
		{"not-in with 11 values", func(b *backend) *sq { return &sq{Where: where("a", "not-in", many(11))} }, codes.InvalidArgument},
		{"array-contains-any with 31 values", func(b *backend) *sq { return &sq{Where: where("a", "array-contains-any", many(31))} }, codes.InvalidArgument},
		{"more than 30 disjunctions", func(b *backend) *sq {
			return &sq{Where: and(where("a", "in", many(6)), where("b", "in", many(6)))}
		}, codes.InvalidArgument},
		{"two !=", func(b *backend) *sq {
			return &sq{Where: and(where("a", "!=", integer(1)), where("a", "!=", integer(2)))}
		}, codes.InvalidArgument},
		{"!= and not-in", func(b *backend) *sq {
			return &sq{Where: and(where("a", "!=", integer(1)), where("b", "not-in", many(2)))}
		}, codes.InvalidArgument},
		{"not-in and or", func(b *backend) *sq {
			return &sq{Where: or(where("a", "==", integer(1)), where("b", "not-in", many(2)))}
		}, codes.InvalidArgument},
		{"not-in and in", func(b *backend) *sq {
			return &sq{Where: and(where("a", "in", many(2)), where("b", "not-in", many(2)))}
		}, codes.InvalidArgument},
		{"two array-contains", func(b *backend) *sq {
			return &sq{Where: and(where("a", "array-contains", integer(1)), where("b", "array-contains", integer(2)))}
		}, codes.InvalidArgument},
		{"array-contains and array-contains-any", func(b *backend) *sq {
			return &sq{Where: and(where("a", "array-contains", integer(1)), where("b", "array-contains-any", many(2)))}
		}, codes.InvalidArgument},
		{"a range below null", func(b *backend) *sq { return &sq{Where: where("a", "<", null())} }, codes.OK},
		{"a range of NaN", func(b *backend) *sq { return &sq{Where: where("a", ">", double(math.NaN()))} }, codes.OK},
		{"a filter without a value", func(b *backend) *sq { return &sq{Where: where("a", "==", nil)} }, codes.InvalidArgument},
		{"a filter without an operator", func(b *backend) *sq { return &sq{Where: where("a", "?", integer(1))} }, codes.InvalidArgument},
		{"an empty composite filter", func(b *backend) *sq { return &sq{Where: and()} }, codes.InvalidArgument},
		{"a filter on a bad path", func(b *backend) *sq { return &sq{Where: where("a..b", "==", integer(1))} }, codes.InvalidArgument},
		{"__name__ compared with a string", func(b *backend) *sq { return &sq{Where: where("__name__", "==", str("a"))} }, codes.InvalidArgument},
		{"__name__ compared with a collection", func(b *backend) *sq { return &sq{Where: where("__name__", "==", ref(b.root+"/c"))} }, codes.InvalidArgument},
		{"is null on __name__", func(b *backend) *sq { return &sq{Where: unary("__name__", pb.StructuredQuery_UnaryFilter_IS_NULL)} }, codes.InvalidArgument},
		{"a negative limit", func(b *backend) *sq { return &sq{Limit: wrapperspb.Int32(-1)} }, codes.InvalidArgument},
		{"a negative offset", func(b *backend) *sq { return &sq{Offset: -1} }, codes.InvalidArgument},
		{"a cursor with too many values", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("a"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(1), ref(b.root + "/c/d"), integer(2)}}}
		}, codes.InvalidArgument},
		{"a cursor with more values than orders", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("a"), StartAt: &pb.Cursor{Values: []*pb.Value{integer(1), ref(b.root + "/c/d")}}}
		}, codes.InvalidArgument},
		{"a cursor without an order", func(b *backend) *sq {
			return &sq{StartAt: &pb.Cursor{Values: []*pb.Value{ref(b.root + "/c/d")}}}
		}, codes.InvalidArgument},
		{"a cursor without values", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("a"), StartAt: &pb.Cursor{Before: true}}
		}, codes.OK},
		{"a cursor of a name that is a string", func(b *backend) *sq {
			return &sq{OrderBy: orderBy("__name__"), StartAt: &pb.Cursor{Values: []*pb.Value{str("d")}}}
		}, codes.InvalidArgument},
		{"one order twice", func(b *backend) *sq { return &sq{OrderBy: orderBy("a", "a")} }, codes.InvalidArgument},
		{"an order after __name__", func(b *backend) *sq { return &sq{OrderBy: orderBy("__name__", "a")} }, codes.InvalidArgument},
		{"an order other than the inequality", func(b *backend) *sq {
			return &sq{Where: where("a", ">", integer(1)), OrderBy: orderBy("b")}
		}, codes.OK},
		{"an order on an equality", func(b *backend) *sq {
			return &sq{Where: where("a", "==", integer(1)), OrderBy: orderBy("a")}
		}, codes.OK},
		{"a reserved collection id", func(b *backend) *sq { return from("__c__") }, codes.InvalidArgument},
		{"a collection id with a slash", func(b *backend) *sq { return from("c/d/e") }, codes.InvalidArgument},
		{"two selectors", func(b *backend) *sq { return &sq{From: append(from("c").From, from("d").From...)} }, codes.InvalidArgument},
		{"no selector", func(b *backend) *sq { return &sq{From: []*pb.StructuredQuery_CollectionSelector{}} }, codes.OK},
	}
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/a": {"a": integer(1)}})
		for _, c := range cases {
			q := c.make(b)
			if q.From == nil {
				q.From = from("c").From
			}
			_, err := b.query(t, b.root, q)
			t.Logf("%s: %.300v", c.name, err)
			wantCode(t, err, b.expect("query: "+c.name, c.want))
		}
	})
}

func TestTheGoClientQueries(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx := t.Context()
		c := b.client.Collection("c")
		for i := range 10 {
			must[*client.WriteResult](t)(c.Doc(fmt.Sprint(i)).Set(ctx, map[string]any{"i": i, "even": i%2 == 0, "tags": []string{fmt.Sprint(i % 3), "all"}}))
		}
		get := func(q client.Query) string {
			t.Helper()
			var s []string
			for _, d := range must[[]*client.DocumentSnapshot](t)(q.Documents(ctx).GetAll()) {
				s = append(s, d.Ref.ID)
			}
			return strings.Join(s, " ")
		}
		five := must[*client.DocumentSnapshot](t)(c.Doc("5").Get(ctx))
		for _, q := range []struct {
			name  string
			query client.Query
			want  string
		}{
			{"equality and order", c.Where("even", "==", true).OrderBy("i", client.Desc).Limit(2), "8 6"},
			{"limit to last", c.OrderBy("i", client.Asc).LimitToLast(2), "8 9"},
			{"start after a snapshot", c.OrderBy("i", client.Asc).StartAfter(five), "6 7 8 9"},
			{"start at a snapshot, in the order of names", c.StartAt(five).EndBefore("8").OrderBy(client.DocumentID, client.Asc), "5 6 7"},
			{"end at a value", c.OrderBy("i", client.Asc).EndAt(1), "0 1"},
			{"by id", c.Where(client.DocumentID, "in", []*client.DocumentRef{c.Doc("3"), c.Doc("4")}), "3 4"},
			{"array-contains", c.Where("tags", "array-contains", "2"), "2 5 8"},
			{"or", c.WhereEntity(client.OrFilter{Filters: []client.EntityFilter{
				client.PropertyFilter{Path: "i", Operator: "==", Value: 1}, client.PropertyFilter{Path: "i", Operator: ">", Value: 8}}}), "1 9"},
			{"group", b.client.CollectionGroup("c").Where("i", "<", 2), "0 1"},
			{"offset", c.OrderBy("i", client.Asc).Offset(8), "8 9"},
		} {
			if got := get(q.query); got != q.want {
				t.Errorf("%s: got %q, want %q", q.name, got, q.want)
			}
		}
		only := must[[]*client.DocumentSnapshot](t)(c.Select().Limit(1).Documents(ctx).GetAll())
		if len(only) != 1 || len(only[0].Data()) != 0 {
			t.Errorf("a query of names alone found %v", only)
		}
	})
}

func TestListDocumentsPagesThroughACollection(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{
			"c/a": {"n": integer(3), "m": integer(1)}, "c/b": {"n": integer(2)}, "c/d": {"n": integer(1)},
			"c/c/s/x": {}, "c/e/s/x/t/y": {}, "c/b/s/x": {},
		})
		list := func(req *pb.ListDocumentsRequest) string {
			t.Helper()
			var pages []string
			for {
				req.Parent, req.CollectionId = b.root, "c"
				resp, err := b.raw.ListDocuments(b.ctx(t), req)
				if err != nil {
					return err.Error()
				}
				pages = append(pages, ids(resp.Documents, nil))
				for _, d := range resp.Documents {
					if req.Mask != nil && d.Fields["n"] != nil {
						pages = append(pages, "beyond the mask")
					}
				}
				if resp.NextPageToken == "" {
					return strings.Join(pages, "|")
				}
				req.PageToken = resp.NextPageToken
			}
		}
		mask := &pb.DocumentMask{FieldPaths: []string{"m"}}
		for _, c := range []struct {
			name string
			req  *pb.ListDocumentsRequest
			want string
		}{
			{"all", &pb.ListDocumentsRequest{}, "a b d"},
			{"in pages", &pb.ListDocumentsRequest{PageSize: 2}, "a b|d"},
			{"masked", &pb.ListDocumentsRequest{Mask: mask}, "a b d"},
			{"with missing", &pb.ListDocumentsRequest{ShowMissing: true}, "a b c d e"},
			{"with missing in pages", &pb.ListDocumentsRequest{ShowMissing: true, PageSize: 2}, "a b|c d|e"},
			{"ordered", &pb.ListDocumentsRequest{OrderBy: "n"}, "d b a"},
			{"ordered in pages, descending", &pb.ListDocumentsRequest{OrderBy: "n desc", PageSize: 2}, "a b|d"},
		} {
			if got := strings.TrimSuffix(list(c.req), "|"); got != b.expectString("list: "+c.name, c.want) {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
	})
}

func TestCollectionsAreListed(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/1/x/1": {}, "c/1/y/1/z/1": {}, "b/1": {}, "c/2": {}, "d/1/only/1": {}})
		list := func(it *client.CollectionIterator) string {
			t.Helper()
			var s []string
			for {
				c, err := it.Next()
				if errors.Is(err, iterator.Done) {
					return strings.Join(s, " ")
				}
				if err != nil {
					t.Fatal(err)
				}
				s = append(s, c.ID)
			}
		}
		if got := list(b.client.Collections(t.Context())); got != "b c d" {
			t.Errorf("at the root: %q", got)
		}
		if got := list(b.client.Doc("c/1").Collections(t.Context())); got != "x y" {
			t.Errorf("below a document: %q", got)
		}
		if got := list(b.client.Doc("c/none").Collections(t.Context())); got != "" {
			t.Errorf("below nothing: %q", got)
		}
		resp := must[*pb.ListCollectionIdsResponse](t)(b.raw.ListCollectionIds(b.ctx(t), &pb.ListCollectionIdsRequest{Parent: b.root, PageSize: 2}))
		rest := must[*pb.ListCollectionIdsResponse](t)(b.raw.ListCollectionIds(b.ctx(t), &pb.ListCollectionIdsRequest{Parent: b.root, PageSize: 2, PageToken: resp.NextPageToken}))
		if got := strings.Join(append(resp.CollectionIds, rest.CollectionIds...), " "); got != "b c d" || rest.NextPageToken != "" {
			t.Errorf("in pages: %q, then %q", got, rest.NextPageToken)
		}
	})
}
