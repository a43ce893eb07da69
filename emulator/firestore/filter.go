package firestore

import (
	"fmt"
	"slices"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
)

// The limits on the filters of a query:
// https://firebase.google.com/docs/firestore/query-data/queries#query_limitations.
const (
	maxDisjunctions = 30
	maxNotIn        = 10
)

// A filter reports whether a document belongs to the result.
type filter func(*document) bool

// A fieldFilter is a filter met by every document of the result, in a form for indexes.
type fieldFilter struct {
	path  fieldPath
	op    pb.StructuredQuery_FieldFilter_Operator
	value *pb.Value
}

// A filterParser parses filters, and collects the properties needed for the orders and the plan.
type filterParser struct {
	inequalities []fieldPath
	conjuncts    []fieldFilter
	notEquals    int  // !=, not-in, IS_NOT_NULL and IS_NOT_NAN
	notIn        bool // not-in
	disjunctive  bool // in, array-contains-any or OR
}

// checkWhole checks the rules for combinations of filters:
// https://firebase.google.com/docs/firestore/query-data/queries#limits_on_or_queries.
func (p *filterParser) checkWhole(where *pb.StructuredQuery_Filter) error {
	if p.notEquals > 1 {
		return fmt.Errorf("a query can have a single filter that is !=, not-in, IS_NOT_NAN or IS_NOT_NULL")
	}
	if p.notIn && p.disjunctive {
		return fmt.Errorf("not-in cannot be in the same query with in, array-contains-any or OR")
	}
	if arrayFilters(where) > 1 {
		return fmt.Errorf("a disjunction can have a single filter that is array-contains or array-contains-any")
	}
	if disjunctions(where) > maxDisjunctions {
		return fmt.Errorf("the query has more disjunctions in disjunctive normal form than the limit of %d", maxDisjunctions)
	}
	return nil
}

// parse returns the filter. conjunct is true if every document of the result must meet the filter.
func (p *filterParser) parse(f *pb.StructuredQuery_Filter, conjunct bool) (filter, error) {
	switch f := f.GetFilterType().(type) {
	case *pb.StructuredQuery_Filter_CompositeFilter:
		return p.parseComposite(f.CompositeFilter, conjunct)
	case *pb.StructuredQuery_Filter_FieldFilter:
		return p.parseField(f.FieldFilter, conjunct)
	case *pb.StructuredQuery_Filter_UnaryFilter:
		return p.parseUnary(f.UnaryFilter)
	default:
		return nil, fmt.Errorf("a filter has no type")
	}
}

func (p *filterParser) parseComposite(f *pb.StructuredQuery_CompositeFilter, conjunct bool) (filter, error) {
	if len(f.GetFilters()) == 0 {
		return nil, fmt.Errorf("a composite filter has no filters")
	}
	and := f.GetOp() == pb.StructuredQuery_CompositeFilter_AND
	if !and && f.GetOp() != pb.StructuredQuery_CompositeFilter_OR {
		return nil, fmt.Errorf("a composite filter needs an operator")
	}
	p.disjunctive = p.disjunctive || !and
	parts := make([]filter, len(f.GetFilters()))
	for i, g := range f.GetFilters() {
		var err error
		if parts[i], err = p.parse(g, conjunct && (and || len(parts) == 1)); err != nil {
			return nil, err
		}
	}
	return func(d *document) bool {
		for _, part := range parts {
			if part(d) != and {
				return !and
			}
		}
		return and
	}, nil
}

func (p *filterParser) parseUnary(f *pb.StructuredQuery_UnaryFilter) (filter, error) {
	path, err := parseFieldPath(f.GetField().GetFieldPath())
	if err != nil {
		return nil, err
	}
	if path.isName() {
		return nil, fmt.Errorf("a unary filter cannot be on __name__")
	}
	isNull := func(v *pb.Value) bool { return kindOf(v) == kindNull }
	test := isNull
	switch f.GetOp() {
	case pb.StructuredQuery_UnaryFilter_IS_NULL:
	case pb.StructuredQuery_UnaryFilter_IS_NAN:
		test = isNaN
	case pb.StructuredQuery_UnaryFilter_IS_NOT_NULL:
		p.notEquals++
		p.inequalities = append(p.inequalities, path)
		test = func(v *pb.Value) bool { return !isNull(v) }
	case pb.StructuredQuery_UnaryFilter_IS_NOT_NAN:
		p.notEquals++
		p.inequalities = append(p.inequalities, path)
		test = func(v *pb.Value) bool { return !isNull(v) && !isNaN(v) }
	default:
		return nil, fmt.Errorf("a unary filter needs an operator")
	}
	return func(d *document) bool {
		v := d.field(path)
		return v != nil && test(v)
	}, nil
}

func (p *filterParser) parseField(f *pb.StructuredQuery_FieldFilter, conjunct bool) (filter, error) {
	path, err := parseFieldPath(f.GetField().GetFieldPath())
	if err != nil {
		return nil, err
	}
	op, operand := f.GetOp(), f.GetValue()
	if operand.GetValueType() == nil {
		return nil, fmt.Errorf("the filter on %s has no value", path)
	}
	if err := p.checkOperand(path, op, operand); err != nil {
		return nil, err
	}
	if path.isName() {
		if err := checkNameOperand(op, operand); err != nil {
			return nil, err
		}
	}
	switch op {
	case pb.StructuredQuery_FieldFilter_LESS_THAN, pb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL,
		pb.StructuredQuery_FieldFilter_GREATER_THAN, pb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL,
		pb.StructuredQuery_FieldFilter_NOT_EQUAL, pb.StructuredQuery_FieldFilter_NOT_IN:
		p.inequalities = append(p.inequalities, path)
	}
	if conjunct {
		p.conjuncts = append(p.conjuncts, fieldFilter{path: path, op: op, value: operand})
	}
	test := valueTest(op, operand)
	if path.isName() {
		return func(d *document) bool {
			return test(&pb.Value{ValueType: &pb.Value_ReferenceValue{ReferenceValue: d.name}})
		}, nil
	}
	return func(d *document) bool {
		v := d.field(path)
		return v != nil && test(v)
	}, nil
}

func (p *filterParser) checkOperand(path fieldPath, op pb.StructuredQuery_FieldFilter_Operator, operand *pb.Value) error {
	most := maxDisjunctions
	switch op {
	case pb.StructuredQuery_FieldFilter_OPERATOR_UNSPECIFIED:
		return fmt.Errorf("the filter on %s needs an operator", path)
	case pb.StructuredQuery_FieldFilter_NOT_EQUAL:
		p.notEquals++
	case pb.StructuredQuery_FieldFilter_NOT_IN:
		p.notEquals++
		p.notIn = true
		most = maxNotIn
		fallthrough
	case pb.StructuredQuery_FieldFilter_IN, pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS_ANY:
		values, isArray := operand.GetValueType().(*pb.Value_ArrayValue)
		if !isArray || len(values.ArrayValue.GetValues()) == 0 {
			return fmt.Errorf("%v requires a non-empty array", op)
		}
		if n := len(values.ArrayValue.GetValues()); n > most {
			return fmt.Errorf("%v supports up to %d comparison values, not %d", op, most, n)
		}
		p.disjunctive = p.disjunctive || op != pb.StructuredQuery_FieldFilter_NOT_IN
	}
	return nil
}

func checkNameOperand(op pb.StructuredQuery_FieldFilter_Operator, operand *pb.Value) error {
	values := []*pb.Value{operand}
	switch op {
	case pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS, pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS_ANY:
		return fmt.Errorf("__name__ is not an array")
	case pb.StructuredQuery_FieldFilter_IN, pb.StructuredQuery_FieldFilter_NOT_IN:
		values = operand.GetArrayValue().GetValues()
	}
	for _, v := range values {
		if _, err := parseDocumentName(v.GetReferenceValue()); err != nil {
			return fmt.Errorf("a filter on __name__ must compare with the name of a document: %w", err)
		}
	}
	return nil
}

// valueTest returns the test of an operator on the value of an existing field. Range comparisons are true only between
// values of the same kind. Null and NaN in an operand equal no value: for == null and == NaN the clients send unary
// filters.
func valueTest(op pb.StructuredQuery_FieldFilter_Operator, operand *pb.Value) func(*pb.Value) bool {
	var list []*pb.Value
	listsNull := false
	for _, v := range operand.GetArrayValue().GetValues() {
		listsNull = listsNull || kindOf(v) == kindNull
		if !equalsNothing(v) {
			list = append(list, v)
		}
	}
	never := equalsNothing(operand)
	inRange := func(holds func(c int) bool) func(*pb.Value) bool {
		return func(v *pb.Value) bool {
			return !never && kindOf(v) == kindOf(operand) && !isNaN(v) && holds(compareValues(v, operand))
		}
	}
	switch op {
	case pb.StructuredQuery_FieldFilter_LESS_THAN:
		return inRange(func(c int) bool { return c < 0 })
	case pb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL:
		return inRange(func(c int) bool { return c <= 0 })
	case pb.StructuredQuery_FieldFilter_GREATER_THAN:
		return inRange(func(c int) bool { return c > 0 })
	case pb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL:
		return inRange(func(c int) bool { return c >= 0 })
	case pb.StructuredQuery_FieldFilter_EQUAL:
		return func(v *pb.Value) bool { return !never && equalValues(v, operand) }
	case pb.StructuredQuery_FieldFilter_NOT_EQUAL:
		if kindOf(operand) == kindNull {
			return func(*pb.Value) bool { return false }
		}
		return func(v *pb.Value) bool { return kindOf(v) != kindNull && (never || !equalValues(v, operand)) }
	case pb.StructuredQuery_FieldFilter_IN:
		return func(v *pb.Value) bool { return containsValue(list, v) }
	case pb.StructuredQuery_FieldFilter_NOT_IN:
		return func(v *pb.Value) bool { return !listsNull && kindOf(v) != kindNull && !containsValue(list, v) }
	case pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS:
		return func(v *pb.Value) bool {
			return !never && kindOf(v) == kindArray && containsValue(v.GetArrayValue().GetValues(), operand)
		}
	default: // ARRAY_CONTAINS_ANY
		return func(v *pb.Value) bool {
			return kindOf(v) == kindArray && slices.ContainsFunc(v.GetArrayValue().GetValues(), func(e *pb.Value) bool {
				return containsValue(list, e)
			})
		}
	}
}

func equalsNothing(v *pb.Value) bool { return kindOf(v) == kindNull || isNaN(v) }

// disjunctions counts the terms of the filter in disjunctive normal form, at most maxDisjunctions+1.
func disjunctions(f *pb.StructuredQuery_Filter) int {
	if c := f.GetCompositeFilter(); c != nil {
		and := c.GetOp() == pb.StructuredQuery_CompositeFilter_AND
		n := 0
		if and {
			n = 1
		}
		for _, g := range c.GetFilters() {
			if and {
				n *= disjunctions(g)
			} else {
				n += disjunctions(g)
			}
			n = min(n, maxDisjunctions+1)
		}
		return n
	}
	switch ff := f.GetFieldFilter(); ff.GetOp() {
	case pb.StructuredQuery_FieldFilter_IN, pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS_ANY:
		return len(ff.GetValue().GetArrayValue().GetValues())
	}
	return 1
}

// arrayFilters returns the largest number of array-contains and
// array-contains-any filters in one disjunction.
func arrayFilters(f *pb.StructuredQuery_Filter) int {
	if c := f.GetCompositeFilter(); c != nil {
		n := 0
		for _, g := range c.GetFilters() {
			if c.GetOp() == pb.StructuredQuery_CompositeFilter_AND {
				n += arrayFilters(g)
			} else {
				n = max(n, arrayFilters(g))
			}
		}
		return n
	}
	switch f.GetFieldFilter().GetOp() {
	case pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS, pb.StructuredQuery_FieldFilter_ARRAY_CONTAINS_ANY:
		return 1
	}
	return 0
}
