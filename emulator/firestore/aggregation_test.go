package firestore_test

import (
	"fmt"
	"math"
	"testing"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestAnAggregationCountsAddsAndAverages(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		ctx := t.Context()
		b.fill(t, map[string]fields{
			"c/a": {"n": integer(1), "d": double(0.5), "big": integer(math.MaxInt64)},
			"c/b": {"n": integer(2), "d": integer(1), "big": integer(1)},
			"c/c": {"n": str("x"), "d": double(2)},
			"c/d": {},
			"e/a": {"n": double(math.NaN())},
		})
		c := b.client.Collection("c")
		aggregate := func(q client.Query) *client.AggregationQuery { return q.NewAggregationQuery() }
		for _, q := range []struct {
			name  string
			query *client.AggregationQuery
			want  *pb.Value
		}{
			{"count", aggregate(c.Query).WithCount("x"), integer(4)},
			{"count of a filter", aggregate(c.Where("n", ">", 1)).WithCount("x"), integer(1)},
			{"count up to a limit", aggregate(c.Limit(2)).WithCount("x"), integer(2)},
			{"count of nothing", aggregate(b.client.Collection("none").Query).WithCount("x"), integer(0)},
			{"sum of integers", aggregate(c.Query).WithSum("n", "x"), integer(3)},
			{"sum with a double", aggregate(c.Query).WithSum("d", "x"), double(3.5)},
			{"sum that overflows", aggregate(c.Query).WithSum("big", "x"), double(1 << 63)},
			{"sum of nothing", aggregate(c.Query).WithSum("none", "x"), integer(0)},
			{"sum of NaN", aggregate(b.client.Collection("e").Query).WithSum("n", "x"), double(math.NaN())},
			{"average", aggregate(c.Query).WithAvg("n", "x"), double(1.5)},
			{"average of nothing", aggregate(c.Query).WithAvg("none", "x"), null()},
		} {
			r, err := q.query.Get(ctx)
			if err != nil {
				t.Errorf("%s: %v", q.name, err)
				continue
			}
			if diff := cmp.Diff(q.want, r["x"].(*pb.Value), protocmp.Transform(), cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("%s: %s", q.name, diff)
			}
		}
		r, err := aggregate(c.Query).WithCount("a").WithSum("n", "b").WithAvg("n", "c").Get(ctx)
		if err != nil || len(r) != 3 {
			t.Errorf("three at once: %v, %v", r, err)
		}
	})
}

func TestAggregationsAreNamedAndLimited(t *testing.T) {
	type aggregation = pb.StructuredAggregationQuery_Aggregation
	count := func(alias string) *aggregation {
		return &aggregation{Alias: alias, Operator: &pb.StructuredAggregationQuery_Aggregation_Count_{Count: &pb.StructuredAggregationQuery_Aggregation_Count{}}}
	}
	upTo := func(n int64) *aggregation {
		return &aggregation{Alias: "a", Operator: &pb.StructuredAggregationQuery_Aggregation_Count_{
			Count: &pb.StructuredAggregationQuery_Aggregation_Count{UpTo: wrapperspb.Int64(n)}}}
	}
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{"c/a": {}, "c/b": {}, "c/c": {}})
		for _, c := range []struct {
			name         string
			aggregations []*aggregation
			code         codes.Code
			want         fields
		}{
			{"none", nil, codes.InvalidArgument, nil},
			{"default names", []*aggregation{count(""), count("a"), count("")}, codes.OK, fields{"field_1": integer(3), "a": integer(3), "field_2": integer(3)}},
			{"up to", []*aggregation{upTo(2)}, codes.OK, fields{"a": integer(2)}},
			{"up to zero", []*aggregation{upTo(0)}, codes.InvalidArgument, nil},
			{"one name twice", []*aggregation{count("a"), count("a")}, codes.InvalidArgument, nil},
			{"a reserved name", []*aggregation{count("__a__")}, codes.InvalidArgument, nil},
			{"no operator", []*aggregation{{Alias: "a"}}, codes.InvalidArgument, nil},
			{"six", []*aggregation{count("a"), count("b"), count("c"), count("d"), count("e"), count("f")}, codes.InvalidArgument, nil},
		} {
			stream, err := b.raw.RunAggregationQuery(b.ctx(t), &pb.RunAggregationQueryRequest{Parent: b.root,
				QueryType: &pb.RunAggregationQueryRequest_StructuredAggregationQuery{StructuredAggregationQuery: &pb.StructuredAggregationQuery{
					QueryType: &pb.StructuredAggregationQuery_StructuredQuery{StructuredQuery: from("c")}, Aggregations: c.aggregations}}})
			if err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			t.Log(c.name)
			wantCode(t, err, b.expect("aggregation: "+c.name, c.code))
			if c.code != codes.OK {
				continue
			}
			if diff := cmp.Diff(c.want, resp.GetResult().GetAggregateFields(), protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
		}
	})
}

// A document without an aggregated field belongs to no aggregation of the query, as if the query were ordered by all the
// fields: https://firebase.google.com/docs/firestore/query-data/aggregation-queries#limitations.
func TestAggregationsCoverDocumentsWithAllTheirFields(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		b.fill(t, map[string]fields{
			"c/a": {"pages": integer(50)},
			"c/b": {"pages": integer(100), "year": integer(1980)},
			"c/c": {"year": integer(1990)},
			"c/d": {"pages": integer(7), "year": str("x"), "in": object(fields{"pages": integer(1)})},
			"c/e": {"pages": null(), "year": integer(2000)},
			"c/f": {"pages": str("y")},
		})
		c := b.client.Collection("c")
		aggregate := func(q client.Query) *client.AggregationQuery { return q.NewAggregationQuery() }
		type sums = map[string]*pb.Value
		for _, q := range []struct {
			name  string
			query *client.AggregationQuery
			want  sums
		}{
			{"count alone", aggregate(c.Query).WithCount("n"), sums{"n": integer(6)}},
			{"one field", aggregate(c.Query).WithCount("n").WithSum("pages", "s"), sums{"n": integer(5), "s": integer(157)}},
			{"the same field twice", aggregate(c.Query).WithCount("n").WithSum("pages", "s").WithAvg("pages", "a"),
				sums{"n": integer(5), "s": integer(157), "a": double(157. / 3)}},
			{"two fields", aggregate(c.Query).WithSum("pages", "s").WithAvg("year", "a").WithCount("n"),
				sums{"n": integer(3), "s": integer(107), "a": double(1990)}},
			{"a nested field", aggregate(c.Query).WithCount("n").WithSum("in.pages", "s"), sums{"n": integer(1), "s": integer(1)}},
			{"no document has it", aggregate(c.Query).WithCount("n").WithSum("pages", "s").WithSum("none", "z").WithAvg("pages", "a"),
				sums{"n": integer(0), "s": integer(0), "z": integer(0), "a": null()}},
			{"a filter", aggregate(c.Where("year", "<", 1985)).WithCount("n").WithSum("pages", "s"), sums{"n": integer(1), "s": integer(100)}},
			{"a limit", aggregate(c.Limit(1)).WithCount("n").WithSum("year", "s"), sums{"n": integer(1), "s": integer(1980)}},
			{"an offset", aggregate(c.Offset(1)).WithCount("n").WithSum("year", "s"), sums{"n": integer(3), "s": integer(3990)}},
			{"the last ones", aggregate(c.OrderBy("year", client.Asc).LimitToLast(2)).WithCount("n").WithSum("pages", "s"), sums{"n": integer(2), "s": integer(7)}},
		} {
			r, err := q.query.Get(t.Context())
			if err != nil {
				t.Errorf("%s: %v", q.name, err)
				continue
			}
			got := sums{}
			for name, v := range r {
				got[name] = v.(*pb.Value)
			}
			if diff := cmp.Diff(q.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", q.name, diff)
			}
		}
	})
}

// A sum has the precision of compensated summation, and integers are exact. The order of the additions is undefined:
// each case has the same sum in any order.
func TestASumKeepsItsPrecision(t *testing.T) {
	onBoth(t, func(t *testing.T, b *backend) {
		inf := math.Inf(1)
		for i, c := range []struct {
			name     string
			numbers  []*pb.Value
			sum, avg *pb.Value
		}{
			{"doubles", []*pb.Value{double(4.8), double(5.9), double(6.0), double(7.1), double(8.2)}, double(32), double(6.4)},
			{"tenths", []*pb.Value{double(.1), double(.1), double(.1), double(.1), double(.1), double(.1), double(.1), double(.1), double(.1), double(.1)}, double(1), double(.1)},
			{"integers and doubles", []*pb.Value{integer(5), double(4.5), double(.5)}, double(10), double(10. / 3)},
			{"integers beyond 2^53", []*pb.Value{integer(1<<53 + 1), integer(1)}, integer(1<<53 + 2), double(1<<52 + 1)},
			{"integers beyond 2^53 and a double", []*pb.Value{integer(1<<53 + 1), integer(-1 << 53), double(.5)}, double(1.5), double(.5)},
			{"overflow", []*pb.Value{integer(math.MaxInt64), integer(math.MaxInt64)}, double(1 << 64), double(1 << 63)},
			{"negative overflow", []*pb.Value{integer(math.MinInt64), integer(-1)}, double(-1 << 63), double(-1 << 62)},
			{"overflow and back", []*pb.Value{integer(math.MaxInt64), integer(1), integer(-101)}, integer(math.MaxInt64 - 100), double((1<<63 - 1) / 3.)},
			{"infinity", []*pb.Value{double(inf), double(1), double(2)}, double(inf), double(inf)},
			{"both infinities", []*pb.Value{double(inf), double(-inf)}, double(math.NaN()), double(math.NaN())},
			{"overflow of doubles", []*pb.Value{double(math.MaxFloat64), double(math.MaxFloat64)}, double(inf), double(inf)},
			{"negative zero", []*pb.Value{double(math.Copysign(0, -1))}, double(math.Copysign(0, -1)), double(math.Copysign(0, -1))},
			{"NaN", []*pb.Value{double(math.NaN()), double(1)}, double(math.NaN()), double(math.NaN())},
		} {
			collection := fmt.Sprintf("c%d", i)
			docs := map[string]fields{}
			for j, v := range c.numbers {
				docs[fmt.Sprintf("%s/%02d", collection, j)] = fields{"n": v}
			}
			b.fill(t, docs)
			r, err := b.client.Collection(collection).NewAggregationQuery().WithSum("n", "s").WithAvg("n", "a").Get(t.Context())
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if diff := cmp.Diff(c.sum, r["s"].(*pb.Value), protocmp.Transform(), cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("%s: sum: %s", c.name, diff)
			}
			if diff := cmp.Diff(c.avg, r["a"].(*pb.Value), protocmp.Transform(), cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("%s: average: %s", c.name, diff)
			}
		}
	})
}

// Google's emulator is left out: its sum of these numbers depends on the order of its additions.
func TestASumKeepsSmallNumbersBesideLargeNumbers(t *testing.T) {
	t.Parallel()
	b := ours(t)
	for i, numbers := range [][]float64{{1, 1e16, 1, -1e16}, {1e16, 1, 1, -1e16}, {1, 1e100, 1, -1e100}, {-1e16, 1, 1e16, 1}} {
		collection := fmt.Sprint("c", i)
		docs := map[string]fields{}
		for j, n := range numbers {
			docs[fmt.Sprintf("%s/%02d", collection, j)] = fields{"n": double(n)}
		}
		b.fill(t, docs)
		r, err := b.client.Collection(collection).NewAggregationQuery().WithSum("n", "s").Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := r["s"].(*pb.Value).GetDoubleValue(); got != 2 {
			t.Errorf("the sum of %v is %v, want 2", numbers, got)
		}
	}
}
