package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/event"
)

// Status is whether somebody still has to look at a dead letter.
type Status string

// A dead letter is open until somebody decides to redrive it; it is redriven when its message is published again. If
// that fails again, it is open again.
const (
	Open      Status = "open"
	Redriving Status = "redriving"
	Redriven  Status = "redriven"
)

// DeadLetter is a dead letter, the document deadletters/{id}.
type DeadLetter struct {
	ID            string            `firestore:"-"`
	Status        Status            `firestore:"status"`
	Reason        Reason            `firestore:"reason"`
	Message       string            `firestore:"message,omitempty"` // of the error
	Source        string            `firestore:"source"`            // the part that gave up
	CorrelationID string            `firestore:"correlationId,omitempty"`
	OriginalType  string            `firestore:"originalType,omitempty"`
	LastStepID    string            `firestore:"lastStepId,omitempty"`
	SlipSummary   string            `firestore:"slipSummary,omitempty"` // "enrichment OK, personality ERROR"
	Preview       string            `firestore:"preview,omitempty"`     // the beginning of Data, for people
	Data          []byte            `firestore:"data,omitempty"`        // the whole message as it came; see Parts
	Parts         int               `firestore:"parts,omitempty"`       // how many documents below hold Data, if it is too long for this one
	Attributes    map[string]string `firestore:"attributes,omitempty"`  // as the message had them
	Topic         string            `firestore:"topic,omitempty"`       // bare name of where the message was; empty for a delivery
	Delivery      bool              `firestore:"delivery"`              // whether the id is also that of an entry in the ledger
	Attempts      int               `firestore:"attempts"`              // how often it was given up: 1, and 1 more for each redrive that failed
	At            time.Time         `firestore:"at"`                    // of the last time
	FirstAt       time.Time         `firestore:"firstAt"`
	Redrives      []Redrive         `firestore:"redrives,omitempty"`
	ExpireAt      time.Time         `firestore:"expireAt"` // the collection's TTL field
}

// Part is a piece of a long message's data, the document deadletters/{id}/parts/{n}.
type Part struct {
	Data     []byte    `firestore:"data"`
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field, too
}

// Redrive is one decision to try again.
type Redrive struct {
	By string    `firestore:"by"`
	At time.Time `firestore:"at"`
}

const (
	// maxPreview is the most characters of a preview.
	maxPreview = 1000

	// partSize is how many bytes of a message's data one document holds: a document holds 1 MiB in all
	// (https://firebase.google.com/docs/firestore/quotas).
	partSize = 900 << 10

	// Retention is how long a dead letter is kept after it was last given up.
	Retention = 30 * 24 * time.Hour
)

// describe fills in what can be read from the data itself.
func (l *DeadLetter) describe() {
	l.Preview = preview(l.Data)
	e, err := event.Decode(l.Data)
	if err != nil {
		l.CorrelationID = cmp.Or(l.CorrelationID, l.Attributes["correlationId"])
		l.OriginalType = cmp.Or(l.OriginalType, l.Attributes["type"])
		return
	}
	l.CorrelationID, l.OriginalType = e.CorrelationID, e.Type
	var steps []string
	for _, s := range e.RoutingSlip {
		steps = append(steps, s.ID+" "+s.Status)
		if s.Status != event.StepPending {
			l.LastStepID = s.ID
		}
	}
	l.SlipSummary = strings.Join(steps, ", ")
}

func preview(data []byte) string {
	text := strings.ToValidUTF8(string(data[:min(len(data), 4*maxPreview)]), "\uFFFD")
	n := 0
	for i := range text {
		if n == maxPreview {
			return text[:i]
		}
		n++
	}
	return text
}

// ErrNotFound means that there is no such dead letter.
var ErrNotFound = errors.New("no such dead letter")

// Store keeps dead letters in Firestore. It is safe for concurrent use.
type Store struct {
	client *firestore.Client
	now    func() time.Time
}

// NewStore makes a box on a client, which stays the caller's to close.
func NewStore(client *firestore.Client, now func() time.Time) *Store {
	return &Store{client: client, now: now}
}

func (b *Store) doc(id string) *firestore.DocumentRef { return Doc(b.client, id) }

// Doc is the document of a dead letter, for whoever reads it together with others.
func Doc(client *firestore.Client, id string) *firestore.DocumentRef {
	return client.Collection("deadletters").Doc(id)
}

// IsOpen reports whether a document is that of a dead letter that is [Open]. One that is not there is not.
func IsOpen(snap *firestore.DocumentSnapshot) bool {
	status, err := snap.DataAt("status") // fails where there is none
	return err == nil && status == string(Open)
}

// Put keeps a dead letter, and reports whether that is news: false if it is kept already. redrive is how many redrives
// the message had been through when it was given up; one that failed again makes a new attempt of the same letter.
func (b *Store) Put(ctx context.Context, l DeadLetter, redrive int) (news bool, err error) {
	data := l.Data
	l.describe()
	if len(data) > partSize {
		if l.Parts, err = b.putParts(ctx, l.ID, data); err != nil {
			return false, err
		}
		l.Data = nil
	}
	err = b.client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
		var next DeadLetter
		if next, news, err = b.next(tx, l, redrive); err != nil || !news {
			return err
		}
		return tx.Set(b.doc(l.ID), next)
	})
	if err != nil {
		return false, fmt.Errorf("keep dead letter %s: %w", l.ID, err)
	}
	return news, nil
}

// PutTx is Put within a transaction of the caller's, for a letter whose data fits one document. It reads, so it has to
// come before the transaction's first write; write then writes.
func (b *Store) PutTx(tx *firestore.Transaction, l DeadLetter, redrive int) (write func() error, err error) {
	l.describe()
	next, news, err := b.next(tx, l, redrive)
	if err != nil {
		return nil, err
	}
	return func() error {
		if !news {
			return nil
		}
		return tx.Set(b.doc(l.ID), next)
	}, nil
}

// next decides what the letter is after it was given up.
func (b *Store) next(tx *firestore.Transaction, l DeadLetter, redrive int) (next DeadLetter, news bool, err error) {
	now := event.TruncateToMicros(b.now())
	l.Status, l.Attempts, l.At, l.FirstAt, l.ExpireAt = Open, 1, now, now, now.Add(Retention)
	snap, err := tx.Get(b.doc(l.ID))
	if status.Code(err) == codes.NotFound {
		return l, true, nil
	}
	if err != nil {
		return DeadLetter{}, false, err
	}
	old, err := letterOf(snap)
	if err != nil {
		return DeadLetter{}, false, err
	}
	if old.Status == Open || redrive < len(old.Redrives) {
		return old, false, nil // the same failure, told again
	}
	l.Attempts, l.FirstAt, l.Redrives = old.Attempts+1, old.FirstAt, old.Redrives
	return l, true, nil
}

func (b *Store) putParts(ctx context.Context, id string, data []byte) (n int, err error) {
	expire := event.TruncateToMicros(b.now().Add(Retention))
	for ; len(data) > 0; n++ {
		size := min(len(data), partSize)
		_, err := b.doc(id).Collection("parts").Doc(fmt.Sprintf("%04d", n)).Set(ctx, Part{Data: data[:size], ExpireAt: expire})
		if err != nil {
			return 0, fmt.Errorf("keep part %d of dead letter %s: %w", n, id, err)
		}
		data = data[size:]
	}
	return n, nil
}

// Get reads a dead letter with all of its data, or fails with [ErrNotFound].
func (b *Store) Get(ctx context.Context, id string) (DeadLetter, error) {
	snap, err := b.doc(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return DeadLetter{}, fmt.Errorf("dead letter %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %s: %w", id, err)
	}
	l, err := letterOf(snap)
	if err != nil {
		return DeadLetter{}, err
	}
	for i := range l.Parts {
		snap, err := b.doc(id).Collection("parts").Doc(fmt.Sprintf("%04d", i)).Get(ctx)
		if err != nil {
			return DeadLetter{}, fmt.Errorf("read part %d of dead letter %s: %w", i, id, err)
		}
		var p Part
		if err := snap.DataTo(&p); err != nil {
			return DeadLetter{}, fmt.Errorf("read part %d of dead letter %s: %w", i, id, err)
		}
		l.Data = append(l.Data, p.Data...)
	}
	return l, nil
}

func letterOf(snap *firestore.DocumentSnapshot) (DeadLetter, error) {
	var l DeadLetter
	if err := snap.DataTo(&l); err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %s: %w", snap.Ref.ID, err)
	}
	l.ID = snap.Ref.ID
	return l, nil
}

// Filter says which dead letters are meant. Zero fields don't restrict.
type Filter struct {
	IDs         []string
	Reason      Reason
	Status      Status
	From, Until time.Time // of the last time it was given up; From included, Until not
	Limit       int
}

// List calls yield for the dead letters that are meant, the latest first, without the data of long ones, until it
// returns an error or there are no more. With IDs the order is theirs, and one that is missing is [ErrNotFound].
func (b *Store) List(ctx context.Context, s Filter, yield func(DeadLetter) error) error {
	if len(s.IDs) > 0 {
		for _, id := range s.IDs {
			snap, err := b.doc(id).Get(ctx)
			if status.Code(err) == codes.NotFound {
				return fmt.Errorf("dead letter %s: %w", id, ErrNotFound)
			}
			if err != nil {
				return fmt.Errorf("read dead letter %s: %w", id, err)
			}
			if err := yieldSnapshot(snap, yield); err != nil {
				return err
			}
		}
		return nil
	}
	q := b.client.Collection("deadletters").OrderBy("at", firestore.Desc)
	if s.Reason != "" {
		q = q.Where("reason", "==", s.Reason)
	}
	if s.Status != "" {
		q = q.Where("status", "==", s.Status)
	}
	if !s.From.IsZero() {
		q = q.Where("at", ">=", s.From)
	}
	if !s.Until.IsZero() {
		q = q.Where("at", "<", s.Until)
	}
	if s.Limit > 0 {
		q = q.Limit(s.Limit)
	}
	it := q.Documents(ctx)
	defer it.Stop()
	for {
		snap, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list dead letters: %w", err)
		}
		if err := yieldSnapshot(snap, yield); err != nil {
			return err
		}
	}
}

func yieldSnapshot(snap *firestore.DocumentSnapshot, yield func(DeadLetter) error) error {
	l, err := letterOf(snap)
	if err != nil {
		return err
	}
	return yield(l)
}

// ErrNotOpen means that a dead letter was redriven already, and has not failed again since.
var ErrNotOpen = errors.New("dead letter is not open")

// redriveTimeout is after how long a redrive that was decided but not published counts as given up, so that another
// may finish it.
const redriveTimeout = time.Minute

// MarkRedrivingTx records in a transaction that a letter is being redriven, and by whom. It fails with [ErrNotOpen] or
// [ErrNotFound]. It reads, so it has to come before the transaction's first write; write then writes. redrive is how
// many redrives the letter will have been through. When its message is published, [Box.MarkRedriven] has to be called.
func (b *Store) MarkRedrivingTx(tx *firestore.Transaction, id, by string) (write func() error, redrive int, err error) {
	snap, err := tx.Get(b.doc(id))
	if status.Code(err) == codes.NotFound {
		return nil, 0, fmt.Errorf("dead letter %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read dead letter %s: %w", id, err)
	}
	l, err := letterOf(snap)
	if err != nil {
		return nil, 0, err
	}
	now := event.TruncateToMicros(b.now())
	redrives := l.Redrives
	switch {
	case l.Status == Open:
		redrives = append(redrives, Redrive{By: by, At: now})
	case l.Status == Redriving && now.Sub(redrives[len(redrives)-1].At) > redriveTimeout:
		redrives[len(redrives)-1] = Redrive{By: by, At: now} // whoever began it did not finish
	default:
		return nil, 0, fmt.Errorf("dead letter %s: %w", id, ErrNotOpen)
	}
	return func() error {
		return tx.Update(b.doc(id), []firestore.Update{{Path: "status", Value: Redriving}, {Path: "redrives", Value: redrives}})
	}, len(redrives), nil
}

// MarkRedriven records that the message of a letter that was marked is published, unless it has failed again already.
func (b *Store) MarkRedriven(ctx context.Context, id string) error {
	err := b.client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
		snap, err := tx.Get(b.doc(id))
		if err != nil {
			return err
		}
		if l, err := letterOf(snap); err != nil || l.Status != Redriving {
			return err
		}
		return tx.Update(b.doc(id), []firestore.Update{{Path: "status", Value: Redriven}})
	})
	if err != nil {
		return fmt.Errorf("note that dead letter %s is redriven: %w", id, err)
	}
	return nil
}

// Purge removes a dead letter for good, its parts first.
func (b *Store) Purge(ctx context.Context, l DeadLetter) error {
	for i := range l.Parts {
		if _, err := b.doc(l.ID).Collection("parts").Doc(fmt.Sprintf("%04d", i)).Delete(ctx); err != nil {
			return fmt.Errorf("purge part %d of dead letter %s: %w", i, l.ID, err)
		}
	}
	if _, err := b.doc(l.ID).Delete(ctx); err != nil {
		return fmt.Errorf("purge dead letter %s: %w", l.ID, err)
	}
	return nil
}
