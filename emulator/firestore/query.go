package firestore

import (
	"fmt"
	"slices"
	"strings"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The limits on a query:
// https://firebase.google.com/docs/firestore/query-data/queries#query_limitations.
const (
	maxDisjunctions  = 30
	maxNotIn         = 10
	maxAggregations  = 5
	unlimited        = -1
	minIndexedDocs   = 64 // below this a scan is as quick as an index
	maxFieldIndexes  = 16 // in one collection; a bound on what writes pay
	maxIndexEstimate = 128
)

// A query is a checked pb.StructuredQuery under a parent.
type query struct {
	database     string
	parent       string
	collectionID string // empty: every collection
	descendants  bool

	filter     filter // nil: every document
	conjuncts  []fieldFilter
	orders     []order // complete: the last one is __name__
	start, end *pb.Cursor
	offset     int
	limit      int         // unlimited: all
	projection []fieldPath // nil: all fields
}

type order struct {
	path       fieldPath
	descending bool
}

// A filter reports whether a document is to be in the result.
type filter func(*document) bool

// A fieldFilter is a filter that every document of the result meets, in a form
// that an index can use.
type fieldFilter struct {
	path  fieldPath
	op    pb.StructuredQuery_FieldFilter_Operator
	value *pb.Value
}

// parseQuery checks a query. All its errors are INVALID_ARGUMENT, but for
// parts of the API that this server does not have.
func parseQuery(parent string, sq *pb.StructuredQuery) (*query, error) {
	if sq.GetFindNearest() != nil {
		return nil, status.Error(codes.Unimplemented, "RunQuery with find_nearest is not implemented")
	}
	q, err := parseStructuredQuery(parent, sq)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return q, nil
}

func parseStructuredQuery(parent string, sq *pb.StructuredQuery) (*query, error) {
	if sq == nil {
		return nil, fmt.Errorf("the structured query is not set")
	}
	database, err := parseParent(parent)
	if err != nil {
		return nil, err
	}
	q := &query{database: database, parent: parent, limit: unlimited, offset: int(sq.GetOffset())}
	switch len(sq.GetFrom()) {
	case 0:
	case 1:
		q.collectionID, q.descendants = sq.From[0].GetCollectionId(), sq.From[0].GetAllDescendants()
	default:
		return nil, fmt.Errorf("a query can have one collection selector only")
	}
	if q.collectionID != "" {
		if err := checkID(q.collectionID, true); err != nil {
			return nil, err
		}
		if strings.Contains(q.collectionID, "/") {
			return nil, fmt.Errorf("the collection id %q contains a slash", q.collectionID)
		}
	}
	if q.offset < 0 {
		return nil, fmt.Errorf("the offset is negative")
	}
	if l := sq.GetLimit(); l != nil {
		if l.Value < 0 {
			return nil, fmt.Errorf("the limit is negative")
		}
		q.limit = int(l.Value)
	}
	p := &filterParser{}
	if sq.GetWhere() != nil {
		if q.filter, err = p.parse(sq.Where, true); err != nil {
			return nil, err
		}
		if err := p.checkWhole(sq.Where); err != nil {
			return nil, err
		}
	}
	q.conjuncts = p.conjuncts
	if err := q.setOrders(sq.GetOrderBy(), p.inequalities); err != nil {
		return nil, err
	}
	if q.start, err = q.parseCursor(sq.GetStartAt(), len(sq.GetOrderBy())); err != nil {
		return nil, err
	}
	if q.end, err = q.parseCursor(sq.GetEndAt(), len(sq.GetOrderBy())); err != nil {
		return nil, err
	}
	if sq.GetSelect() != nil && len(sq.GetSelect().GetFields()) > 0 {
		q.projection = []fieldPath{}
		for _, f := range sq.GetSelect().GetFields() {
			path, err := parseFieldPath(f.GetFieldPath())
			if err != nil {
				return nil, err
			}
			q.projection = append(q.projection, path)
		}
	}
	return q, nil
}

// setOrders completes the explicit orders by the documented rules: the other
// fields with an inequality in lexicographic order, then __name__, all in the
// direction of the last explicit order.
func (q *query) setOrders(explicit []*pb.StructuredQuery_Order, inequalities []fieldPath) error {
	ordered := func(path fieldPath) bool {
		return slices.ContainsFunc(q.orders, func(o order) bool { return slices.Equal(o.path, path) })
	}
	descending := false
	for _, o := range explicit {
		path, err := parseFieldPath(o.GetField().GetFieldPath())
		if err != nil {
			return err
		}
		if ordered(path) {
			return fmt.Errorf("the order by %s is there twice", path)
		}
		if ordered(fieldPath{nameField}) {
			return fmt.Errorf("nothing can be ordered by %s after __name__, which is unique", path)
		}
		descending = o.GetDirection() == pb.StructuredQuery_DESCENDING
		q.orders = append(q.orders, order{path: path, descending: descending})
	}
	slices.SortFunc(inequalities, func(a, b fieldPath) int { return slices.Compare(a, b) })
	for _, path := range inequalities {
		if !path.isName() && !ordered(path) && !ordered(fieldPath{nameField}) {
			q.orders = append(q.orders, order{path: path, descending: descending})
		}
	}
	if !ordered(fieldPath{nameField}) {
		q.orders = append(q.orders, order{path: fieldPath{nameField}, descending: descending})
	}
	return nil
}

func (q *query) parseCursor(c *pb.Cursor, explicit int) (*pb.Cursor, error) {
	if c == nil {
		return nil, nil
	}
	if len(c.GetValues()) > explicit {
		return nil, fmt.Errorf("the cursor has too many values: %d for %d orders", len(c.GetValues()), explicit)
	}
	for i, v := range c.GetValues() {
		if !q.orders[i].path.isName() {
			continue
		}
		if _, err := parseDocumentName(v.GetReferenceValue()); err != nil {
			return nil, fmt.Errorf("the cursor's value for __name__ must name a document: %w", err)
		}
		if !strings.HasPrefix(v.GetReferenceValue(), q.parent+"/") {
			return nil, fmt.Errorf("the cursor's document %q is not below %q", v.GetReferenceValue(), q.parent)
		}
	}
	return c, nil
}

// A filterParser gathers what the orders and the plan need from the filters.
type filterParser struct {
	inequalities []fieldPath
	conjuncts    []fieldFilter
	notEquals    int  // !=, not-in, IS_NOT_NULL and IS_NOT_NAN
	notIn        bool // not-in
	disjunctive  bool // in, array-contains-any or OR
}

// checkWhole checks what depends on more than one filter:
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

// parse returns the filter; conjunct says whether every result has to meet it.
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
			return test(&pb.Value{ValueType: &pb.Value_ReferenceValue{ReferenceValue: d.proto.Name}})
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

// valueTest returns the test of an operator on the value of a field that is
// there. Range comparisons are true between values of one kind only. Null and
// NaN in an operand are equal to nothing: to find them is for the unary
// filters, which the clients put in the place of == null and == NaN.
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

// disjunctions counts the terms of the filter in disjunctive normal form, up
// to just above the limit.
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

// A match is a document of the result with its values of the orders.
type match struct {
	doc  *document
	keys []*pb.Value
}

// match returns the document's place in the result, and whether it has one.
func (q *query) match(d *document) (match, bool) {
	if q.filter != nil && !q.filter(d) {
		return match{}, false
	}
	m := match{doc: d}
	if len(q.orders) > 1 {
		m.keys = make([]*pb.Value, len(q.orders))
		for i, o := range q.orders {
			if o.path.isName() {
				continue
			}
			// A document without the field is in no index on it.
			if m.keys[i] = d.field(o.path); m.keys[i] == nil {
				return match{}, false
			}
		}
	}
	return m, true
}

func (q *query) compare(a, b match) int {
	for i, o := range q.orders {
		var c int
		if o.path.isName() {
			c = compareNames(a.doc.proto.Name, b.doc.proto.Name)
		} else {
			c = compareValues(a.keys[i], b.keys[i])
		}
		if o.descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

// compareToCursor compares a match with the position's values, which may be
// fewer than the orders.
func (q *query) compareToCursor(m match, c *pb.Cursor) int {
	for i, v := range c.GetValues() {
		var r int
		if o := q.orders[i]; o.path.isName() {
			r = compareNames(m.doc.proto.Name, v.GetReferenceValue())
		} else {
			r = compareValues(m.keys[i], v)
		}
		if q.orders[i].descending {
			r = -r
		}
		if r != 0 {
			return r
		}
	}
	return 0
}

func (q *query) afterStart(m match) bool {
	if q.start == nil {
		return true
	}
	c := q.compareToCursor(m, q.start)
	return c > 0 || c == 0 && q.start.GetBefore()
}

func (q *query) beforeEnd(m match) bool {
	if q.end == nil {
		return true
	}
	c := q.compareToCursor(m, q.end)
	return c < 0 || c == 0 && !q.end.GetBefore()
}

// A result is what a query finds in one state.
type result struct {
	docs    []*document
	skipped int // by the offset
}

// run evaluates the query.
func (q *query) run(s *state) result {
	if q.limit == 0 {
		return result{}
	}
	most := unlimited
	if q.limit != unlimited {
		most = q.offset + q.limit
	}
	var matches []match
	scan, ordered := q.plan(s)
	scan(func(d *document) bool {
		m, ok := q.match(d)
		if !ok || !q.afterStart(m) {
			return true
		}
		if !q.beforeEnd(m) {
			return !ordered
		}
		matches = append(matches, m)
		if most == unlimited {
			return true
		}
		if ordered {
			return len(matches) < most
		}
		if len(matches) >= 2*most+minIndexedDocs {
			slices.SortFunc(matches, q.compare)
			clear(matches[most:])
			matches = matches[:most]
		}
		return true
	})
	if !ordered {
		slices.SortFunc(matches, q.compare)
	}
	if most != unlimited && len(matches) > most {
		matches = matches[:most]
	}
	r := result{skipped: min(q.offset, len(matches))}
	for _, m := range matches[r.skipped:] {
		r.docs = append(r.docs, m.doc)
	}
	return r
}

// unchanged reports whether it can be told without running the query that it
// finds the same in both states.
func (q *query) unchanged(a, b *state) bool {
	if a == b {
		return true
	}
	if q.descendants || q.collectionID == "" {
		return false
	}
	path := q.parent + "/" + q.collectionID
	ca, cb := a.collection(path), b.collection(path)
	if ca == nil || cb == nil {
		return ca == cb
	}
	return ca.version == cb.version
}

// A scan calls yield for documents until it returns false.
type scan func(yield func(*document) bool)

// plan returns a scan over a superset of the result, and whether it is in the
// order of the query.
func (q *query) plan(s *state) (scan, bool) {
	if q.descendants || q.collectionID == "" {
		return q.scanCollections(s), false
	}
	c := s.collection(q.parent + "/" + q.collectionID)
	if c == nil {
		return func(func(*document) bool) {}, true
	}
	if index, values := q.equalityIndex(c); index != nil {
		return index.scanEqual(values, q.orders[0].descending), len(values) == 1 && q.orders[0].path.isName()
	}
	if q.orders[0].path.isName() {
		return q.scanByName(c), true
	}
	if index := c.indexes[q.orders[0].path.String()]; index != nil {
		ordered := len(q.orders) == 2 && q.orders[1].descending == q.orders[0].descending
		return q.scanByValue(index), ordered
	}
	return c.docs.Scan, false
}

// scanCollections scans a collection group, or all collections.
func (q *query) scanCollections(s *state) scan {
	return func(yield func(*document) bool) {
		more := true
		visit := func(c *collection) {
			c.docs.Scan(func(d *document) bool {
				more = yield(d)
				return more
			})
		}
		if q.collectionID == "" {
			s.below(q.parent, func(c *collection) bool {
				if q.descendants || c.parent() == q.parent {
					visit(c)
				}
				return more
			})
			return
		}
		prefix := q.parent + "/"
		s.groups.Ascend(groupMember{database: q.database, id: q.collectionID, path: prefix}, func(m groupMember) bool {
			if m.database != q.database || m.id != q.collectionID || !strings.HasPrefix(m.path, prefix) {
				return false
			}
			visit(s.collection(m.path))
			return more
		})
	}
}

// equalityIndex picks, among the indexes for the query's equalities, the one
// with the fewest documents of those values.
func (q *query) equalityIndex(c *collection) (best *fieldIndex, values []*pb.Value) {
	fewest := maxIndexEstimate + 1
	for _, f := range q.conjuncts {
		wanted := f.equalTo()
		index := c.indexes[f.path.String()]
		if wanted == nil || index == nil {
			continue
		}
		n := 0
		index.scanEqual(wanted, false)(func(*document) bool {
			n++
			return n < fewest
		})
		if best == nil || n < fewest {
			best, values, fewest = index, wanted, n
		}
	}
	return best, values
}

// equalTo returns the values, each once, of which the field has to have one,
// and nil where the filter says nothing of that kind.
func (f fieldFilter) equalTo() []*pb.Value {
	switch {
	case f.path.isName():
		return nil
	case f.op == pb.StructuredQuery_FieldFilter_EQUAL:
		return []*pb.Value{f.value}
	case f.op == pb.StructuredQuery_FieldFilter_IN:
		values := slices.SortedFunc(slices.Values(f.value.GetArrayValue().GetValues()), compareValues)
		return slices.CompactFunc(values, equalValues)
	}
	return nil
}

func (x *fieldIndex) scanEqual(values []*pb.Value, descending bool) scan {
	return func(yield func(*document) bool) {
		more := true
		for _, v := range values {
			visit := func(e indexEntry) bool {
				if !equalValues(e.value, v) {
					return false
				}
				more = yield(e.doc)
				return more
			}
			if descending {
				x.entries.Descend(indexEntry{value: v, after: true}, visit)
			} else {
				x.entries.Ascend(indexEntry{value: v}, visit)
			}
			if !more {
				return
			}
		}
	}
}

// scanByName starts at the start cursor or at the tightest bound on __name__.
func (q *query) scanByName(c *collection) scan {
	descending := q.orders[0].descending
	return func(yield func(*document) bool) {
		var from string
		bound := func(name string) {
			// A name outside this collection is no place to start in it.
			if id, ok := strings.CutPrefix(name, c.path+"/"); ok && !strings.Contains(id, "/") {
				if further := compareIDs(id, from); from == "" || further > 0 != descending {
					from = id
				}
			}
		}
		if len(q.start.GetValues()) > 0 {
			bound(q.start.Values[0].GetReferenceValue())
		}
		for _, f := range q.conjuncts {
			if f.path.isName() && startsAt(f.op, descending) {
				bound(f.value.GetReferenceValue())
			}
		}
		switch {
		case from == "" && descending:
			c.docs.Reverse(yield)
		case from == "":
			c.docs.Scan(yield)
		case descending:
			c.docs.Descend(&document{id: from}, yield)
		default:
			c.docs.Ascend(&document{id: from}, yield)
		}
	}
}

// startsAt reports whether no result of the operator comes before its operand
// in a scan of that direction.
func startsAt(op pb.StructuredQuery_FieldFilter_Operator, descending bool) bool {
	switch op {
	case pb.StructuredQuery_FieldFilter_EQUAL:
		return true
	case pb.StructuredQuery_FieldFilter_GREATER_THAN, pb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL:
		return !descending
	case pb.StructuredQuery_FieldFilter_LESS_THAN, pb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL:
		return descending
	}
	return false
}

// scanByValue scans an index on the first order, between the bounds that the
// start cursor and the filters on that field give.
func (q *query) scanByValue(x *fieldIndex) scan {
	descending := q.orders[0].descending
	return func(yield func(*document) bool) {
		var from, to *pb.Value
		tighten := func(bound **pb.Value, v *pb.Value, later bool) {
			if *bound == nil || compareValues(v, *bound) > 0 == later {
				*bound = v
			}
		}
		if len(q.start.GetValues()) > 0 {
			tighten(&from, q.start.Values[0], !descending)
		}
		for _, f := range q.conjuncts {
			if !slices.Equal(f.path, x.path) {
				continue
			}
			if startsAt(f.op, descending) {
				tighten(&from, f.value, !descending)
			}
			if startsAt(f.op, !descending) {
				tighten(&to, f.value, descending)
			}
		}
		visit := func(e indexEntry) bool {
			if to != nil {
				if c := compareValues(e.value, to); c > 0 && !descending || c < 0 && descending {
					return false
				}
			}
			return yield(e.doc)
		}
		switch {
		case from == nil && descending:
			x.entries.Reverse(visit)
		case from == nil:
			x.entries.Scan(visit)
		case descending:
			x.entries.Descend(indexEntry{value: from, after: true}, visit)
		default:
			x.entries.Ascend(indexEntry{value: from}, visit)
		}
	}
}

// wantedIndexes returns the fields of a large collection that an index would
// make the query quick on and that have none yet.
func (q *query) wantedIndexes(s *state) (path string, fields []fieldPath) {
	if q.descendants || q.collectionID == "" {
		return "", nil
	}
	path = q.parent + "/" + q.collectionID
	c := s.collection(path)
	if c == nil || c.docs.Len() < minIndexedDocs {
		return "", nil
	}
	want := func(field fieldPath) {
		if !field.isName() && c.indexes[field.String()] == nil && len(c.indexes)+len(fields) < maxFieldIndexes {
			fields = append(fields, field)
		}
	}
	equality := false
	for _, f := range q.conjuncts {
		if f.equalTo() != nil {
			equality = true
			want(f.path)
		}
	}
	if !equality {
		want(q.orders[0].path)
	}
	return path, fields
}
