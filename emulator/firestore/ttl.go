package firestore

import (
	"fmt"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
)

const (
	// sweepInterval is the pause between two searches for expired documents. The service deletes them within a day.
	sweepInterval = time.Second
	// maxExpired is the largest number of documents deleted by one commit. Other commits run between two such commits.
	maxExpired = 500
)

// A TTLPolicy is a time-to-live policy: the server deletes the documents of a collection group some time after the time
// in a field, like a client would. A document without a timestamp in the field stays. The subcollections of a deleted
// document stay. See https://firebase.google.com/docs/firestore/ttl.
type TTLPolicy struct {
	// Collection is the id of the collections, at any depth.
	Collection string
	// Field is the path of the field with the time.
	Field string
	// Limit is the longest time between the last write of a document and its expiry, if the field has a later time. Zero
	// means no limit, as in the service. A document without a timestamp in the field stays all the same.
	Limit time.Duration
}

// ttlPolicies holds the policies by collection id.
type ttlPolicies map[string]ttlPolicy

type ttlPolicy struct {
	field fieldPath
	limit int64 // in microseconds; 0: no limit
}

func parseTTLPolicies(policies []TTLPolicy) (ttlPolicies, error) {
	parsed := make(ttlPolicies, len(policies))
	for _, p := range policies {
		path, err := parseFieldPath(p.Field)
		if err == nil {
			err = checkID(p.Collection, true)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("the TTL policy of %q: %w", p.Collection, err)
		case path.isName() || p.Limit < 0:
			return nil, fmt.Errorf("the TTL policy of %q has the field %s and the limit %s", p.Collection, path, p.Limit)
		case parsed[p.Collection].field != nil:
			return nil, fmt.Errorf("collection group %q has two TTL policies", p.Collection)
		}
		parsed[p.Collection] = ttlPolicy{field: path, limit: p.Limit.Microseconds()}
	}
	return parsed, nil
}

// expiry returns the time when a document of a collection expires, in microseconds, or 0 if it does not expire.
func (p ttlPolicies) expiry(collection string, d *document) int64 {
	policy, ok := p[collection]
	if !ok {
		return 0
	}
	field, ok := d.field(policy.field).GetValueType().(*pb.Value_TimestampValue)
	if !ok {
		return 0
	}
	at := field.TimestampValue.AsTime().UnixMicro()
	if policy.limit > 0 {
		at = min(at, d.updated+policy.limit)
	}
	return max(at, 1) // a time before 1970 is not "never"
}

// nextExpired returns the document that expires first, or nil if none has expired by now.
func (s *state) nextExpired(now int64) *document {
	if d, ok := s.expiring.Min(); ok && d.expires <= now {
		return d
	}
	return nil
}

// deleteExpired deletes the documents expired by now, the first maxExpired of them.
func (b *builder) deleteExpired(now int64) error {
	for range maxExpired {
		d := b.nextExpired(now)
		if d == nil {
			return nil
		}
		name, err := parseDocumentName(d.name)
		if err != nil {
			return err
		}
		b.delete(name)
	}
	return nil
}

// sweep deletes expired documents and drops old states from the history. It returns the pause before the next call.
func (s *store) sweep() time.Duration {
	now := s.clock().UnixMicro()
	s.mu.Lock()
	s.trimHistory(now)
	s.mu.Unlock()
	if s.current.Load().nextExpired(now) == nil {
		return sweepInterval
	}
	var changes []change
	c := &commit{done: make(chan struct{}), apply: func(b *builder) error {
		err := b.deleteExpired(now)
		changes = b.changes
		return err
	}}
	s.commitGroup([]*commit{c})
	if c.err != nil { // the journal failed, and every later commit fails too
		return sweepInterval
	}
	s.expired.Add(int64(len(changes)))
	if len(changes) < maxExpired {
		return sweepInterval
	}
	return 0
}
