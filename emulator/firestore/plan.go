package firestore

import (
	"slices"
	"strings"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
)

const (
	minIndexedDocs   = 64  // a scan of fewer documents is as fast as an index
	maxFieldIndexes  = 16  // in one collection; bounds the cost of a write
	maxIndexEstimate = 128 // documents counted to compare two indexes
)

// A scan calls yield for documents until yield returns false.
type scan func(yield func(*document) bool)

// plan returns a scan over a superset of the result, and reports whether the scan has the order of the query.
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

// equalityIndex returns the best index for an equality filter of the query, with the values of the filter. The best index
// has the fewest matching documents. Without an index for an equality filter, equalityIndex returns nil.
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

// equalTo returns the values that an equality or an IN filter allows, each once. All other filters return nil.
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
			// A name outside this collection is no start position.
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

// startsAt reports whether all results of the operator come at or after its operand, in a scan of the given direction.
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

// scanByValue scans an index on the first order, between the bounds from the start cursor and the filters on the field.
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

// wantedIndexes returns the fields that need an index for a fast query and have none. A collection of fewer than
// minIndexedDocs documents needs none. The first query that needs an index makes the index, and later writes update it.
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
