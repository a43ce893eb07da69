package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// Seen records a counted event and its decisions. By this record a redelivery counts nothing, and gets the same tags and
// rules.
type Seen struct {
	ID    SeenID
	Tags  []string
	Rules []string // ids of the matched rules
}

// SeenID identifies a counted event by a short hash, because a document holds many.
type SeenID [8]byte

// NewSeenID returns the first 8 bytes of the SHA-256 of a correlation id.
func NewSeenID(correlationID string) SeenID {
	sum := sha256.Sum256([]byte(correlationID))
	return SeenID(sum[:])
}

// legacySeen is [Seen] in the older form, one map for each event, in the field recent.
type legacySeen struct {
	ID    string   `firestore:"id"` // SeenID in hexadecimal digits
	Tags  []string `firestore:"tags"`
	Rules []string `firestore:"rules,omitempty"`
}

// legacyRecent is the number of events stored in the older form too, for revisions without recentPacked.
//
// During a deployment, and after a rollback, an older revision may receive a redelivery of an event counted by this
// revision. The older revision finds the event in the field recent, and counts nothing. Four events suffice, because
// Pub/Sub orders the events of one user in one channel: a redelivery is among the newest.
//
// An older revision appends to recent and does not change recentPacked. Therefore [mergeRecent] adds the events found
// only in recent. If an older revision receives an event counted here before the newest four, the event is counted a
// second time, as is any event dropped from a full list.
//
// The constant and the older form can be removed when no revision without recentPacked can run again.
const legacyRecent = 4

// legacyForm converts the newest events to the older form.
func legacyForm(recent []Seen) []legacySeen {
	recent = recent[max(0, len(recent)-legacyRecent):]
	if len(recent) == 0 {
		return nil
	}
	old := make([]legacySeen, len(recent))
	for i, s := range recent {
		old[i] = legacySeen{ID: hex.EncodeToString(s.ID[:]), Tags: s.Tags, Rules: s.Rules}
	}
	return old
}

// mergeRecent reads both forms: the packed events, then the events appended to old by an older revision since. Entries of
// old with a malformed id are skipped, because no revision writes such ids.
//
// A damaged packed value, or a value of an unknown version, counts as absent, so that the user's events do not fail. At
// worst a redelivery is counted a second time. The next write replaces the value.
func mergeRecent(packed []byte, old []legacySeen) []Seen {
	recent, err := unpackRecent(packed)
	if err != nil {
		recent = nil
	}
	known := len(recent)
	for _, o := range old {
		s := Seen{Tags: o.Tags, Rules: o.Rules}
		if n, err := hex.Decode(s.ID[:], []byte(o.ID[:min(len(o.ID), 2*len(s.ID))])); err != nil || n < len(s.ID) {
			continue
		}
		if !containsSeen(recent[:known], s.ID) {
			recent = append(recent, s)
		}
	}
	return recent
}

func containsSeen(recent []Seen, id SeenID) bool {
	for i := len(recent) - 1; i >= 0; i-- { // the older form holds the newest
		if recent[i].ID == id {
			return true
		}
	}
	return false
}

// packedVersion is the first byte of a packed value.
const packedVersion = 1

var errPacked = errors.New("malformed packed events")

// packRecent encodes events, oldest first, for the field recentPacked. Without events the result is nil. All numbers are
// unsigned varints:
//
//	version      1 byte: packedVersion
//	strings      their number, then for each its length in bytes and the bytes: every tag and rule once
//	events       until the end, for each:
//	    id       8 bytes
//	    tags     their number, then for each its index in strings
//	    rules    likewise
//
// 64 events of a chat user take about 0.8 KB, and 5.5 KB in the older form.
func packRecent(recent []Seen) []byte {
	if len(recent) == 0 {
		return nil
	}
	index := make(map[string]uint64, 8)
	var table []byte
	intern := func(events []byte, list []string) []byte {
		events = binary.AppendUvarint(events, uint64(len(list)))
		for _, s := range list {
			i, ok := index[s]
			if !ok {
				i = uint64(len(index))
				index[s] = i
				table = append(binary.AppendUvarint(table, uint64(len(s))), s...)
			}
			events = binary.AppendUvarint(events, i)
		}
		return events
	}
	events := make([]byte, 0, 16*len(recent))
	for _, s := range recent {
		events = append(events, s.ID[:]...)
		events = intern(events, s.Tags)
		events = intern(events, s.Rules)
	}
	packed := make([]byte, 0, 1+binary.MaxVarintLen32+len(table)+len(events))
	packed = binary.AppendUvarint(append(packed, packedVersion), uint64(len(index)))
	return append(append(packed, table...), events...)
}

// unpackRecent decodes a value of [packRecent]. An empty value holds no events.
func unpackRecent(packed []byte) ([]Seen, error) {
	if len(packed) == 0 {
		return nil, nil
	}
	r := packedReader{rest: packed[1:]}
	if packed[0] != packedVersion {
		return nil, errPacked
	}
	// Counts are limited by the remaining bytes, so a damaged count cannot cause a large allocation.
	table := make([]string, r.number())
	for i := range table {
		table[i] = string(r.bytes(r.number()))
	}
	recent := make([]Seen, 0, len(r.rest)/10+1) // an event takes at least 10 bytes, so both capacities suffice as a rule
	names := make([]string, 0, len(r.rest)/4)
	list := func() []string {
		from := len(names)
		for range r.number() {
			i := r.number64()
			if i >= uint64(len(table)) {
				r.failed = true
				return nil
			}
			names = append(names, table[i])
		}
		if len(names) == from {
			return nil
		}
		return names[from:len(names):len(names)]
	}
	for len(r.rest) > 0 && !r.failed {
		var s Seen
		copy(s.ID[:], r.bytes(len(s.ID)))
		s.Tags, s.Rules = list(), list()
		recent = append(recent, s)
	}
	if r.failed {
		return nil, errPacked
	}
	return recent, nil
}

// packedReader reads a packed value. After a failure it returns zero values.
type packedReader struct {
	rest   []byte
	failed bool
}

func (r *packedReader) number64() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || r.failed {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// number reads a number of items or bytes that follow; it fails if fewer bytes are left.
func (r *packedReader) number() int {
	v := r.number64()
	if v > uint64(len(r.rest)) {
		r.failed = true
		return 0
	}
	return int(v)
}

func (r *packedReader) bytes(n int) []byte {
	if n > len(r.rest) || r.failed {
		r.failed = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}
