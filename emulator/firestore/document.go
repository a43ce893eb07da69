package firestore

import (
	"cmp"
	"strings"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/tidwall/btree"
)

// A document is one version of a stored document. It never changes. A write stores a new version, so two states have the
// same version exactly if they have the same pointer.
type document struct {
	name             string // full
	id               string // the last segment of name
	packed           []byte // the fields: see pack
	created, updated int64  // times in microseconds
	size             int    // documentSize, in bytes
	expires          int64  // time of expiry in microseconds, set by builder.put; 0: never
}

func newDocument(d *pb.Document) *document { return sizedDocument(d, documentSize(d)) }

// sizedDocument is newDocument with a known documentSize(d).
func sizedDocument(d *pb.Document, size int) *document {
	return &document{
		name: d.Name, id: d.Name[strings.LastIndexByte(d.Name, '/')+1:], packed: pack(d.Fields),
		created: d.CreateTime.AsTime().UnixMicro(), updated: d.UpdateTime.AsTime().UnixMicro(), size: size,
	}
}

// fields decodes all fields. A nil document has none.
func (d *document) fields() map[string]*pb.Value {
	if d == nil {
		return nil
	}
	return unpack(d.packed)
}

// field decodes the value at path. It returns nil if there is no such field.
func (d *document) field(path fieldPath) *pb.Value { return unpackField(d.packed, path) }

// answer returns the document for a client or the journal, with the fields in paths only. nil means all fields. Then the
// fields are among the unknown fields of the message, still packed: the encoding is the same, and no value is decoded.
func (d *document) answer(paths []fieldPath) *pb.Document {
	p := &pb.Document{Name: d.name}
	if d.created != 0 { // a missing document in a list has no times
		p.CreateTime, p.UpdateTime = timestampOf(d.created), timestampOf(d.updated)
	}
	if paths == nil {
		p.ProtoReflect().SetUnknown(d.packed)
		return p
	}
	p.Fields = make(map[string]*pb.Value)
	for _, path := range paths {
		if v := d.field(path); v != nil && !strings.HasPrefix(path[0], "__") {
			setField(p.Fields, path, v)
		}
	}
	return p
}

// A collection holds the documents of one collection by id. It never changes after its state is published.
type collection struct {
	path    string // the full name, without a slash at the end
	version int64  // time of the latest commit with a change
	docs    *btree.BTreeG[*document]
	indexes map[string]*fieldIndex // by the text of the field path; copied before a change
}

func (c *collection) id() string     { return c.path[strings.LastIndexByte(c.path, '/')+1:] }
func (c *collection) parent() string { return c.path[:strings.LastIndexByte(c.path, '/')] }

func (c *collection) get(id string) *document {
	d, _ := c.docs.Get(&document{id: id})
	return d
}

// copy returns a collection for changes while others read c. Both share the unchanged parts.
func (c *collection) copy() *collection {
	next := &collection{path: c.path, version: c.version, docs: c.docs.Copy()}
	if c.indexes != nil {
		next.indexes = make(map[string]*fieldIndex, len(c.indexes))
		for key, index := range c.indexes {
			next.indexes[key] = &fieldIndex{path: index.path, entries: index.entries.Copy()}
		}
	}
	return next
}

// put stores d and returns the replaced version, or nil.
func (c *collection) put(d *document) *document {
	old, _ := c.docs.Set(d)
	for _, index := range c.indexes {
		index.replace(old, d)
	}
	return old
}

// delete returns the deleted document, or nil.
func (c *collection) delete(id string) *document {
	old, _ := c.docs.Delete(&document{id: id})
	for _, index := range c.indexes {
		index.replace(old, nil)
	}
	return old
}

// A fieldIndex holds the documents of one collection with a certain field, by the value of the field and then by id.
type fieldIndex struct {
	path    fieldPath
	entries *btree.BTreeG[indexEntry]
}

// An indexEntry is one document in a fieldIndex. An entry without a document is the position before or after all
// documents with the value.
type indexEntry struct {
	value *pb.Value
	doc   *document
	after bool
}

func newFieldIndex(path fieldPath, docs *btree.BTreeG[*document]) *fieldIndex {
	index := &fieldIndex{path: path, entries: newTree(compareIndexEntries)}
	docs.Scan(func(d *document) bool {
		index.replace(nil, d)
		return true
	})
	return index
}

// replace removes the entry of old and adds the entry of next. Either may be nil. Both have the same id.
func (x *fieldIndex) replace(old, next *document) {
	var before, after *pb.Value
	if old != nil {
		before = old.field(x.path)
	}
	if next != nil {
		after = next.field(x.path)
	}
	// Set replaces an entry with an equal value, so most updates walk the tree once.
	if before != nil && (after == nil || !equalValues(before, after)) {
		x.entries.Delete(indexEntry{value: before, doc: old})
	}
	if after != nil {
		x.entries.Set(indexEntry{value: x.stored(after), doc: next})
	}
}

// stored returns the value of an entry if an identical one exists, and v otherwise. So documents with the same value
// share its memory.
func (x *fieldIndex) stored(v *pb.Value) *pb.Value {
	x.entries.Ascend(indexEntry{value: v}, func(e indexEntry) bool {
		if identicalValues(e.value, v) {
			v = e.value
		}
		return false
	})
	return v
}

func compareIndexEntries(a, b indexEntry) int {
	if c := compareValues(a.value, b.value); c != 0 {
		return c
	}
	if a.doc != nil && b.doc != nil {
		return compareIDs(a.doc.id, b.doc.id)
	}
	side := func(e indexEntry) int {
		switch {
		case e.doc != nil:
			return 0
		case e.after:
			return 1
		default:
			return -1
		}
	}
	return side(a) - side(b)
}

// A state is the whole content of the server after a commit. A published state never changes. Any number of readers use
// it without a lock, and each sees one consistent moment.
type state struct {
	time        int64 // of the last commit, in microseconds since 1970
	collections *btree.BTreeG[*collection]
	groups      *btree.BTreeG[groupMember]
	ttl         ttlPolicies              // the same in all states of a server
	expiring    *btree.BTreeG[*document] // the documents with a time of expiry, by this time
	written     int                      // bytes of the documents written by the last commit
	superseded  chan struct{}            // closed when a later state is published
}

// A groupMember is a collection with an id and a path. With the members sorted by id, a query on a collection group need
// not scan all collections.
type groupMember struct{ database, id, path string }

func newTree[T any](compare func(a, b T) int) *btree.BTreeG[T] {
	// One goroutine changes a tree before the publication. Afterwards the tree is only read. So trees need no locks.
	return btree.NewBTreeGOptions(func(a, b T) bool { return compare(a, b) < 0 }, btree.Options{NoLocks: true})
}

func newState(ttl ttlPolicies) *state {
	return &state{
		ttl: ttl,
		expiring: newTree(func(a, b *document) int {
			return cmp.Or(cmp.Compare(a.expires, b.expires), strings.Compare(a.name, b.name))
		}),
		collections: newTree(func(a, b *collection) int { return compareNames(a.path, b.path) }),
		groups: newTree(func(a, b groupMember) int {
			if c := strings.Compare(a.database, b.database); c != 0 {
				return c
			}
			if c := strings.Compare(a.id, b.id); c != 0 {
				return c
			}
			return compareNames(a.path, b.path)
		}),
		superseded: make(chan struct{}),
	}
}

func newCollection(path string) *collection {
	return &collection{
		path: path,
		docs: newTree(func(a, b *document) int { return compareIDs(a.id, b.id) }),
	}
}

// collection returns the collection at path, or nil if it has no documents.
func (s *state) collection(path string) *collection {
	c, _ := s.collections.Get(&collection{path: path})
	return c
}

// get returns the document with the name, or nil.
func (s *state) get(name documentName) *document {
	if c := s.collection(name.collection); c != nil {
		return c.get(name.id)
	}
	return nil
}

// below calls yield for every collection at any depth below parent, in order.
func (s *state) below(parent string, yield func(*collection) bool) {
	prefix := parent + "/"
	s.collections.Ascend(&collection{path: parent}, func(c *collection) bool {
		if c.path == parent {
			return true
		}
		return strings.HasPrefix(c.path, prefix) && yield(c)
	})
}

// A builder makes the state after a commit from the state before.
type builder struct {
	*state
	owned   map[string]*collection // copied for this builder, by path
	changes []change
	indexed bool // an index was added: publish the state even without changes
}

// A change is the new version or the delete of one document.
type change struct {
	name string
	doc  *document // nil: deleted
}

func newBuilder(from *state, time int64) *builder {
	return &builder{
		state: &state{
			time:        time,
			collections: from.collections.Copy(),
			groups:      from.groups.Copy(),
			ttl:         from.ttl,
			expiring:    from.expiring.Copy(),
			superseded:  make(chan struct{}),
		},
		owned: make(map[string]*collection),
	}
}

// own returns the collection at path for changes by this builder, or nil.
func (b *builder) own(path string) *collection {
	if c := b.owned[path]; c != nil {
		return c
	}
	c := b.collection(path)
	if c == nil {
		return nil
	}
	c = c.copy()
	b.owned[path] = c
	b.collections.Set(c)
	return c
}

func (b *builder) put(name documentName, d *document) {
	c := b.own(name.collection)
	if c == nil {
		c = newCollection(name.collection)
		b.owned[c.path] = c
		b.collections.Set(c)
		b.groups.Set(groupMember{database: name.database, id: c.id(), path: c.path})
	}
	c.version = b.time
	b.written += d.size
	d.expires = b.ttl.expiry(c.id(), d)
	b.replaceExpiring(c.put(d), d)
	b.changes = append(b.changes, change{name: name.full, doc: d})
}

func (b *builder) delete(name documentName) {
	c := b.own(name.collection)
	if c == nil || c.get(name.id) == nil {
		return
	}
	c.version = b.time
	b.replaceExpiring(c.delete(name.id), nil)
	if c.docs.Len() == 0 {
		delete(b.owned, c.path)
		b.collections.Delete(c)
		b.groups.Delete(groupMember{database: name.database, id: c.id(), path: c.path})
	}
	b.changes = append(b.changes, change{name: name.full})
}

// replaceExpiring replaces a version in the list of expiring documents. Either may be nil.
func (b *builder) replaceExpiring(old, next *document) {
	if old != nil && old.expires != 0 {
		b.expiring.Delete(old)
	}
	if next != nil && next.expires != 0 {
		b.expiring.Set(next)
	}
}

// index adds an index on a field of a collection.
func (b *builder) index(path string, field fieldPath) {
	c := b.own(path)
	if c == nil || c.indexes[field.String()] != nil {
		return
	}
	if c.indexes == nil {
		c.indexes = make(map[string]*fieldIndex)
	}
	c.indexes[field.String()] = newFieldIndex(field, c.docs)
	b.indexed = true
}
