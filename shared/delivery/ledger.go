// Package delivery keeps the ledger of answers: it opens an entry for each answer, publishes the answer, claims, sends
// and settles. No other package writes the ledger.
//
// Start with [Sender], which opens and publishes answers, and [Executor], which sends claimed answers to a platform.
// [Reaper] marks deliveries dead, and [Ledger.Resume] finds answers missed by a reconnecting client. The package does
// not know the platforms, nor how to choose the text of an answer (package answer).
//
// Every answer ends in exactly one recorded outcome, delivered or dead. The id of an answer follows from the answered
// event and the step ([ID]), so repeated work finds the first entry. A write of an entry names the version of the last
// read, and fails if the version has changed: of several concurrent writers, one succeeds.
package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// State is the progress of a delivery.
type State string

// A delivery begins pending. An answer that may be sent only once is claimed first. A delivery ends delivered or dead,
// and then does not change any more, unless an operator redrives a dead one.
const (
	Pending   State = "pending"
	Claimed   State = "claimed"
	Delivered State = "delivered"
	Dead      State = "dead"
)

// ID returns the id of a step's answer: 32 hexadecimal digits, evenly spread, always the same for the same answer. cause
// is the correlation id of the answered event, or the key of a notice ([Sender.SendNotice]). The ledger entry, the
// client's frame and the dead letter have this id.
func ID(cause, step string) string { return digest.Of("delivery", cause, step) }

// Entry is the ledger's record of a delivery, the document deliveries/{id}.
type Entry struct {
	ID            string    `firestore:"-"`
	State         State     `firestore:"state"`
	Destination   string    `firestore:"destination"` // a platform
	Type          string    `firestore:"type"`        // chat, dm or event
	UserID        string    `firestore:"userId"`
	Channel       string    `firestore:"channel"`
	CorrelationID string    `firestore:"correlationId"`
	Step          string    `firestore:"step"` // the part that made the answer
	CreatedAt     time.Time `firestore:"createdAt"`
	OpenedAt      time.Time `firestore:"openedAt,serverTimestamp"` // by Firestore's clock: the same order for all instances
	Deadline      time.Time `firestore:"deadline"`                 // overdue after this
	ExpireAt      time.Time `firestore:"expireAt"`                 // the collection's TTL field
	Shard         int       `firestore:"shard"`                    // 0 to Shards-1; avoids a hot spot in the index of deadlines
	Event         []byte    `firestore:"event"`                    // the encoded answer
	RedriveCount  int       `firestore:"attempt"`                  // number of redrives
	SettledAt     time.Time `firestore:"settledAt,omitempty"`
	Instance      string    `firestore:"instance,omitempty"`   // the instance that claimed or settled
	Claim         string    `firestore:"claim,omitempty"`      // the token of the claim
	LeaseUntil    time.Time `firestore:"leaseUntil,omitempty"` // when the claim expires
	Note          string    `firestore:"note,omitempty"`       // the platform's id or words
	Reason        string    `firestore:"reason,omitempty"`     // of a dead delivery
	Message       string    `firestore:"message,omitempty"`    // of the error that made it dead
	Refused       bool      `firestore:"refused,omitempty"`    // there is no answer, and Event is the event: see [Reaper.Refuse]

	decoded *event.Event // Event, if this process has just encoded it; else nil
	version time.Time    // of the document as it was read or written
	created time.Time    // of the document
}

// before compares entries by opening time. Firestore's server time is in milliseconds, and a document's time of
// creation in microseconds
// (https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#fieldtransform).
func before(a, b Entry) int {
	return cmp.Or(a.OpenedAt.Compare(b.OpenedAt), a.created.Compare(b.created))
}

// decode returns the entry's event.
func (e Entry) decode() (*event.Event, error) {
	if e.decoded != nil {
		return e.decoded, nil
	}
	decoded, err := event.Decode(e.Event)
	if err != nil {
		return nil, fmt.Errorf("read the event of delivery %s: %w", e.ID, err)
	}
	return decoded, nil
}

// Ref returns the reference to the entry. The reference to a pending entry has the version, so claiming or settling
// needs no read.
func (e Entry) Ref() Ref {
	r := Ref{ID: e.ID, Deadline: e.Deadline, RedriveCount: e.RedriveCount}
	if e.State == Pending {
		r.version = e.version
	}
	return r
}

// Ref refers to an entry of the ledger.
type Ref struct {
	ID           string
	Deadline     time.Time // the answer must not be sent later; zero if not known
	RedriveCount int       // number of redrives: a platform with deduplication accepts each redrive once
	version      time.Time // of the document when the entry was pending; zero if not known
}

// Wait returns the part of d until the deadline, because the job has to be handled at the deadline. Without a deadline
// it returns d.
func (r Ref) Wait(d time.Duration, now time.Time) time.Duration {
	if r.Deadline.IsZero() {
		return d
	}
	return max(0, min(d, r.Deadline.Sub(now)))
}

// Opened returns the time when the entry was opened, by Firestore's clock, in microseconds. It is zero if not known.
func (r Ref) Opened() time.Time { return r.version }

// shardCount is the number of values of Entry.Shard. An index of a growing value takes about 500 writes a second
// (https://cloud.google.com/firestore/docs/best-practices#hotspots). A shard in front of the value multiplies the rate.
const shardCount = 16

func shard(id string) int {
	h := fnv.New32a()
	h.Write([]byte(id)) // never fails
	return int(h.Sum32() % shardCount)
}

// ErrNotFound means that the ledger has no such entry.
var ErrNotFound = errors.New("no such delivery")

// Ledger stores the deliveries in Firestore. It is safe for concurrent use.
type Ledger struct {
	client   *firestore.Client
	now      func() time.Time
	instance string
	settling *batcher
}

// NewLedger makes a ledger with a client. The caller closes the client. instance is recorded in the entries that this
// process claims or settles.
func NewLedger(client *firestore.Client, instance string, now func() time.Time) *Ledger {
	return &Ledger{client: client, now: now, instance: instance, settling: &batcher{client: client}}
}

func (l *Ledger) doc(id string) *firestore.DocumentRef {
	return l.client.Collection("deliveries").Doc(id)
}

// Get reads an entry, or fails with [ErrNotFound].
func (l *Ledger) Get(ctx context.Context, id string) (Entry, error) {
	snap, err := l.doc(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return Entry{}, fmt.Errorf("delivery %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("read delivery %s: %w", id, err)
	}
	return entryOf(snap)
}

// outcome reads the results of a step's work in one call: the entry of the answer, if there is one, and whether the
// step's dead letter is open.
func (l *Ledger) outcome(ctx context.Context, delivery, letter string) (e Entry, opened, dead bool, err error) {
	snaps, err := l.client.GetAll(ctx, []*firestore.DocumentRef{l.doc(delivery), deadletter.Doc(l.client, letter)})
	if err != nil {
		return Entry{}, false, false, fmt.Errorf("read the outcome of delivery %s: %w", delivery, err)
	}
	if opened = snaps[0].Exists(); opened {
		e, err = entryOf(snaps[0])
	}
	return e, opened, deadletter.IsOpen(snaps[1]), err
}

func entryOf(snap *firestore.DocumentSnapshot) (Entry, error) {
	var e Entry
	if err := snap.DataTo(&e); err != nil {
		return Entry{}, fmt.Errorf("read delivery %s: %w", snap.Ref.ID, err)
	}
	e.ID, e.version, e.created = snap.Ref.ID, snap.UpdateTime, snap.CreateTime
	return e, nil
}

// Open writes a new entry and returns it with its version. If the entry exists, Open returns the stored entry, with
// opened false and no error.
func (l *Ledger) Open(ctx context.Context, e Entry) (entry Entry, opened bool, err error) {
	res, err := l.doc(e.ID).Create(ctx, e)
	if status.Code(err) == codes.AlreadyExists {
		entry, err = l.Get(ctx, e.ID)
		return entry, false, err
	}
	if err != nil {
		return Entry{}, false, fmt.Errorf("open delivery %s: %w", e.ID, err)
	}
	e.version = res.UpdateTime
	return e, true, nil
}

// MarkDelivered records that an answer reached the recipient, and returns the state of the entry afterwards:
// [Delivered], also if another call was first, or [Dead] if the entry was marked dead before. If the entry has not
// changed since ref was made, MarkDelivered is one write and no read. Concurrent calls share one call of Firestore.
func (l *Ledger) MarkDelivered(ctx context.Context, ref Ref) (State, error) {
	id, version := ref.ID, ref.version
	for {
		if version.IsZero() {
			e, err := l.Get(ctx, id)
			if err != nil {
				return "", err
			}
			if e.State != Pending {
				return e.State, nil
			}
			version = e.version
		}
		err := l.settling.write(ctx, l.doc(id), []firestore.Update{
			{Path: "state", Value: Delivered},
			{Path: "settledAt", Value: event.TruncateToMicros(l.now())},
			{Path: "instance", Value: l.instance},
		}, version)
		switch {
		case err == nil:
			return Delivered, nil
		case status.Code(err) == codes.NotFound:
			return "", fmt.Errorf("delivery %s: %w", id, ErrNotFound)
		case store.IsConflict(err):
			version = time.Time{} // another writer changed the entry: read it
		default:
			return "", fmt.Errorf("settle delivery %s: %w", id, err)
		}
	}
}
