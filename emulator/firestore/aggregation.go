package firestore

import (
	"fmt"
	"math"
	"math/big"
	"slices"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const maxAggregations = 5 // in one query

// RunAggregationQuery returns counts, sums and averages over the result of a query.
func (s *service) RunAggregationQuery(req *pb.RunAggregationQueryRequest, stream pb.Firestore_RunAggregationQueryServer) error {
	aq := req.GetStructuredAggregationQuery()
	q, err := parseQuery(req.GetParent(), aq.GetStructuredQuery())
	if err != nil {
		return err
	}
	if req.GetExplainOptions() != nil {
		return status.Error(codes.Unimplemented, "RunAggregationQuery with explain_options is not implemented")
	}
	aggregations, err := parseAggregations(aq.GetAggregations())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	q.requireFields(aggregations)
	if err := s.prepare(stream.Context(), q); err != nil {
		return err
	}
	v, err := s.view(q.database, consistency{
		transaction: req.GetTransaction(), newTransaction: req.GetNewTransaction(), readTime: req.GetReadTime(),
	})
	if err != nil {
		return err
	}
	r := v.query(q)
	const entriesPerRead = 1000
	s.counts.addReads(max(1, (len(r.docs)+r.skipped+entriesPerRead-1)/entriesPerRead))
	fields := make(map[string]*pb.Value, len(aggregations))
	for _, a := range aggregations {
		fields[a.alias] = a.of(r.docs)
	}
	return stream.Send(&pb.RunAggregationQueryResponse{
		Result:      &pb.AggregationResult{AggregateFields: fields},
		Transaction: v.begun,
		ReadTime:    v.readTime,
	})
}

// An aggregation is a checked pb.StructuredAggregationQuery_Aggregation.
type aggregation struct {
	alias string
	field fieldPath // the summed or averaged field; nil for a count
	of    func(docs []*document) *pb.Value
}

func parseAggregations(protos []*pb.StructuredAggregationQuery_Aggregation) ([]aggregation, error) {
	if len(protos) == 0 || len(protos) > maxAggregations {
		return nil, fmt.Errorf("a query needs between 1 and %d aggregations, not %d", maxAggregations, len(protos))
	}
	var list []aggregation
	unnamed := 0
	for _, p := range protos {
		alias := p.GetAlias()
		if alias == "" {
			unnamed++
			alias = fmt.Sprintf("field_%d", unnamed)
		}
		if slices.ContainsFunc(list, func(b aggregation) bool { return b.alias == alias }) {
			return nil, fmt.Errorf("the alias %q is there twice", alias)
		}
		if err := checkFieldName(alias); err != nil {
			return nil, fmt.Errorf("alias: %w", err)
		}
		a, err := parseOperator(p)
		if err != nil {
			return nil, err
		}
		a.alias = alias
		list = append(list, a)
	}
	return list, nil
}

// parseOperator returns an aggregation without its alias.
func parseOperator(p *pb.StructuredAggregationQuery_Aggregation) (a aggregation, err error) {
	switch op := p.GetOperator().(type) {
	case *pb.StructuredAggregationQuery_Aggregation_Count_:
		upTo := op.Count.GetUpTo()
		if upTo != nil && upTo.Value <= 0 {
			return a, fmt.Errorf("up_to must be greater than zero")
		}
		a.of = func(docs []*document) *pb.Value {
			n := int64(len(docs))
			if upTo != nil {
				n = min(n, upTo.Value)
			}
			return integerValue(n)
		}
	case *pb.StructuredAggregationQuery_Aggregation_Sum_:
		a.field, err = parseFieldPath(op.Sum.GetField().GetFieldPath())
		a.of = func(docs []*document) *pb.Value { return totalOf(docs, a.field).sum() }
	case *pb.StructuredAggregationQuery_Aggregation_Avg_:
		a.field, err = parseFieldPath(op.Avg.GetField().GetFieldPath())
		a.of = func(docs []*document) *pb.Value { return totalOf(docs, a.field).average() }
	default:
		err = fmt.Errorf("an aggregation has no operator")
	}
	return a, err
}

// requireFields restricts the query to documents with a value, of any kind, in all summed and averaged fields. The
// service reads an aggregation from an index on these fields, and the index has no entry for a document without one of
// them: https://firebase.google.com/docs/firestore/query-data/aggregation-queries#limitations.
func (q *query) requireFields(aggregations []aggregation) {
	var fields []fieldPath
	for _, a := range aggregations {
		if a.field != nil && !a.field.isName() {
			fields = append(fields, a.field)
		}
	}
	if len(fields) == 0 {
		return
	}
	where := q.filter
	q.filter = func(d *document) bool {
		lacks := func(path fieldPath) bool { return d.field(path) == nil }
		return (where == nil || where(d)) && !slices.ContainsFunc(fields, lacks)
	}
}

// A total adds the numbers of a field. Integers are exact.
type total struct {
	integers, doubles int // how many of each
	whole             big.Int
	double            compensated
}

// totalOf adds the numbers in a field. Other values do not count.
func totalOf(docs []*document, path fieldPath) *total {
	t := &total{double: compensated{sum: math.Copysign(0, -1)}} // the sum of negative zeros is a negative zero
	var i big.Int
	for _, d := range docs {
		switch v := d.field(path).GetValueType().(type) {
		case *pb.Value_IntegerValue:
			t.integers++
			t.whole.Add(&t.whole, i.SetInt64(v.IntegerValue))
		case *pb.Value_DoubleValue:
			t.doubles++
			t.double.add(v.DoubleValue)
		}
	}
	return t
}

// sum returns an integer if all numbers are integers and the sum does not overflow, and a double otherwise.
func (t *total) sum() *pb.Value {
	if t.doubles == 0 && t.whole.IsInt64() {
		return integerValue(t.whole.Int64())
	}
	return doubleValue(t.float())
}

// average returns null for no numbers.
func (t *total) average() *pb.Value {
	if t.integers+t.doubles == 0 {
		return nullValue()
	}
	return doubleValue(t.float() / float64(t.integers+t.doubles))
}

func (t *total) float() float64 {
	all := t.double
	if t.integers > 0 {
		// A double has 53 bits. The rest of the integer is added as a second double.
		high, _ := new(big.Float).SetInt(&t.whole).Float64()
		rest, _ := new(big.Float).SetFloat64(high).Int(nil)
		low, _ := new(big.Float).SetInt(rest.Sub(&t.whole, rest)).Float64()
		all.add(high)
		all.add(low)
	}
	return all.value()
}

// A compensated sum of doubles keeps what the additions lose by rounding. This is Neumaier's algorithm:
// https://en.wikipedia.org/wiki/Kahan_summation_algorithm#Further_enhancements.
type compensated struct{ sum, lost float64 }

func (c *compensated) add(d float64) {
	next := c.sum + d
	if math.Abs(c.sum) >= math.Abs(d) {
		c.lost += c.sum - next + d
	} else {
		c.lost += d - next + c.sum
	}
	c.sum = next
}

func (c *compensated) value() float64 {
	// Without a loss, an addition would make a negative zero positive. After an overflow, lost is not finite.
	if c.lost == 0 || math.IsInf(c.sum, 0) {
		return c.sum
	}
	return c.sum + c.lost
}
