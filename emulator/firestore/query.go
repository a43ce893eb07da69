package firestore

import (
	"fmt"
	"slices"
	"strings"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unlimited is the value of query.limit without a limit.
const unlimited = -1

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

// parseQuery checks a query. Errors are INVALID_ARGUMENT, or UNIMPLEMENTED for unsupported parts of the API.
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

// setOrders completes the explicit orders: first the other fields with an inequality in lexicographic order, then
// __name__, all in the direction of the last explicit order. The rules are at order_by in
// https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1#structuredquery.
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
			return fmt.Errorf("the order by %s appears twice", path)
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

// A match is a document of the result with its sort keys, one for each order. The key of __name__ is nil: the document
// has the name. With __name__ as the only order, keys is nil.
type match struct {
	doc  *document
	keys []*pb.Value
}

// match returns the document with its sort keys, and reports whether the document matches.
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
			// As in the service, a document without the field is not in the index.
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
			c = compareNames(a.doc.name, b.doc.name)
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

// compareToCursor compares a match with a position. The position may have fewer values than the query has orders.
func (q *query) compareToCursor(m match, c *pb.Cursor) int {
	for i, v := range c.GetValues() {
		var r int
		if o := q.orders[i]; o.path.isName() {
			r = compareNames(m.doc.name, v.GetReferenceValue())
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

// A result is the result of a query in one state.
type result struct {
	docs    []*document
	skipped int // documents skipped by the offset
}

// run returns the result of the query in one state. With a limit, the memory for matches depends on offset and limit, and
// not on the size of the collection.
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

// unchanged reports whether the result is surely the same in both states. It does not run the query: after false, the
// result can still be the same.
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
