// Package delivery keeps the ledger: it opens an entry for each answer, publishes the answer, and settles the entry.
// Nothing else writes the ledger.
//
// Every answer ends in exactly one recorded outcome, delivered or dead. Its id follows from the event that it answers
// and the step that made it ([ID]), so doing the same work twice finds the first entry. An entry is settled only on the
// condition that nobody has changed it since it was read: of several who try, one succeeds.
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

// State is how far a delivery has come.
type State string

// A delivery begins pending. One that may be made only once is claimed before it is made. It ends delivered or dead,
// and then never changes again, unless an operator redrives a dead one.
const (
	Pending   State = "pending"
	Claimed   State = "claimed"
	Delivered State = "delivered"
	Dead      State = "dead"
)

// ID returns the id of the answer that a step gives to an event: 32 hexadecimal digits, evenly spread, always the same
// for the same answer. It is the id of the ledger entry, of the frame that a client gets, and of a dead letter.
func ID(correlationID, step string) string { return digest.Of("delivery", correlationID, step) }

// Entry is a delivery's line in the ledger, the document deliveries/{id}.
type Entry struct {
	ID            string    `firestore:"-"`
	State         State     `firestore:"state"`
	Destination   string    `firestore:"destination"` // a platform
	Type          string    `firestore:"type"`        // chat, dm or event
	UserID        string    `firestore:"userId"`
	Channel       string    `firestore:"channel"`
	CorrelationID string    `firestore:"correlationId"`
	Step          string    `firestore:"step"` // which part made the answer
	CreatedAt     time.Time `firestore:"createdAt"`
	OpenedAt      time.Time `firestore:"openedAt,serverTimestamp"` // by Firestore's clock, so that the order is everybody's
	Deadline      time.Time `firestore:"deadline"`                 // overdue after this
	ExpireAt      time.Time `firestore:"expireAt"`                 // the collection's TTL field
	Shard         int       `firestore:"shard"`                    // 0 to Shards-1, so that the index of deadlines is not one hot spot
	Event         []byte    `firestore:"event"`                    // the answer in its written form
	RedriveCount  int       `firestore:"attempt"`                  // how often it was redriven
	SettledAt     time.Time `firestore:"settledAt,omitempty"`
	Instance      string    `firestore:"instance,omitempty"`   // who claimed or settled it
	Claim         string    `firestore:"claim,omitempty"`      // tells one claim from another
	LeaseUntil    time.Time `firestore:"leaseUntil,omitempty"` // a claim that is older is nobody's any more
	Note          string    `firestore:"note,omitempty"`       // what the platform called it
	Reason        string    `firestore:"reason,omitempty"`     // of a dead one
	Message       string    `firestore:"message,omitempty"`    // of the error that made it dead

	decoded *event.Event // Event, if this process has just encoded it; else nil
	version time.Time    // of the document as it was read or written
	created time.Time    // of the document
}

// before compares entries by when they were opened. Firestore's server time has milliseconds, a document's own time of
// creation microseconds (https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#fieldtransform).
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

// Ref names the entry, and if it is pending says so, so that it can be settled without being read.
func (e Entry) Ref() Ref {
	r := Ref{ID: e.ID, Deadline: e.Deadline, RedriveCount: e.RedriveCount}
	if e.State == Pending {
		r.version = e.version
	}
	return r
}

// Ref names an entry of the ledger.
type Ref struct {
	ID           string
	Deadline     time.Time // nobody may write the answer after it; zero if that is not known
	RedriveCount int       // how often it was redriven: a receiver that absorbs repeats takes each attempt once
	version      time.Time // of the document when the entry was seen pending; zero if that is not known
}

// Wait is how long to wait of d: no longer than until the deadline, which whoever waits has something to do at.
func (r Ref) Wait(d time.Duration, now time.Time) time.Duration {
	if r.Deadline.IsZero() {
		return d
	}
	return max(0, min(d, r.Deadline.Sub(now)))
}

// Opened is when the entry was opened, by Firestore's clock to the microsecond, or zero if that is not known.
func (r Ref) Opened() time.Time { return r.version }

// Shards is over how many values Entry.Shard is spread. An index that begins with a value that only grows takes about
// 500 writes a second (https://cloud.google.com/firestore/docs/best-practices#hotspots); a shard in front of it
// multiplies that.
const Shards = 16

func shard(id string) int {
	h := fnv.New32a()
	h.Write([]byte(id)) // never fails
	return int(h.Sum32() % Shards)
}

// ErrNotFound means that the ledger has no such entry.
var ErrNotFound = errors.New("no such delivery")

// Ledger is the record of every delivery. It is safe for concurrent use.
type Ledger struct {
	client   *firestore.Client
	now      func() time.Time
	instance string
	settling *batcher
}

// NewLedger makes a ledger on a client, which stays the caller's to close. instance names who settles, in the entries.
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

// outcome finds at once what became of a step's work: the entry of its answer, if that was opened, and whether the step
// gave the work up with a dead letter that is open.
func (l *Ledger) outcome(ctx context.Context, delivery, letter string) (e Entry, opened, givenUp bool, err error) {
	snaps, err := l.client.GetAll(ctx, []*firestore.DocumentRef{l.doc(delivery), deadletter.Doc(l.client, letter)})
	if err != nil {
		return Entry{}, false, false, fmt.Errorf("read what became of delivery %s: %w", delivery, err)
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

// Open writes a new entry and gives it back with its version. An entry that is there already is no error: it is given
// back as it stands, and opened is false.
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

// MarkDelivered records that an answer reached its recipient, and returns the state in which the entry is afterwards:
// [Delivered], whoever recorded it, or [Dead] if it had been given up before. Where nobody touched the entry since ref
// was made, this is one write and no read; several that are recorded at the same time go in one call.
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
