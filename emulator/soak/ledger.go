package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
)

// entry is a ledger entry: one delivery.
type entry struct {
	ID            string    `firestore:"-"`
	State         string    `firestore:"state"`
	UserID        string    `firestore:"userId"`
	CorrelationID string    `firestore:"correlationId"`
	Step          string    `firestore:"step"`
	CreatedAt     time.Time `firestore:"createdAt"`
	OpenedAt      time.Time `firestore:"openedAt"`
	Deadline      time.Time `firestore:"deadline"`
	SettledAt     time.Time `firestore:"settledAt"`
	Instance      string    `firestore:"instance"`
	Reason        string    `firestore:"reason"`
}

// deadLetter is a stored dead letter, of a delivery or of a question without a delivery.
type deadLetter struct {
	ID            string    `firestore:"-"`
	Reason        string    `firestore:"reason"`
	Message       string    `firestore:"message"`
	Source        string    `firestore:"source"`
	CorrelationID string    `firestore:"correlationId"`
	Delivery      bool      `firestore:"delivery"`
	Attempts      int       `firestore:"attempts"`
	At            time.Time `firestore:"at"`
}

var (
	entryFields      = []string{"state", "userId", "correlationId", "step", "createdAt", "openedAt", "deadline", "settledAt", "instance", "reason"}
	deadLetterFields = []string{"reason", "message", "source", "correlationId", "delivery", "attempts", "at"}
)

// ledger holds all deliveries and dead letters, by correlation id.
type ledger struct {
	entries     map[string][]entry
	deadLetters map[string][]deadLetter
}

// newLedger groups deliveries and dead letters by correlation id.
func newLedger(entries []entry, deadLetters []deadLetter) ledger {
	l := ledger{entries: map[string][]entry{}, deadLetters: map[string][]deadLetter{}}
	for _, e := range entries {
		l.entries[e.CorrelationID] = append(l.entries[e.CorrelationID], e)
	}
	for _, d := range deadLetters {
		l.deadLetters[d.CorrelationID] = append(l.deadLetters[d.CorrelationID], d)
	}
	return l
}

// readLedger reads all deliveries and dead letters.
func (h *harness) readLedger(ctx context.Context) (ledger, error) {
	entries, err := h.entries(ctx, h.deliveries())
	if err != nil {
		return ledger{}, err
	}
	deadLetters, err := h.deadLetters(ctx)
	if err != nil {
		return ledger{}, err
	}
	return newLedger(entries, deadLetters), nil
}

// deliveries is the query for all deliveries.
func (h *harness) deliveries() firestore.Query { return h.client.Collection("deliveries").Query }

// entries reads the deliveries found by a query.
func (h *harness) entries(ctx context.Context, q firestore.Query) ([]entry, error) {
	return readAll(q.Select(entryFields...).Documents(ctx), func(e *entry, id string) { e.ID = id })
}

// deadLetters reads all dead letters.
func (h *harness) deadLetters(ctx context.Context) ([]deadLetter, error) {
	q := h.client.Collection("deadletters").Query
	return readAll(q.Select(deadLetterFields...).Documents(ctx), func(d *deadLetter, id string) { d.ID = id })
}

// readAll decodes the documents found by a query. setID stores a document's id in the value.
func readAll[T any](it *firestore.DocumentIterator, setID func(v *T, id string)) ([]T, error) {
	defer it.Stop()
	var found []T
	for {
		snap, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return found, nil
		}
		var v T
		if err == nil {
			err = snap.DataTo(&v)
		}
		if err != nil {
			return nil, fmt.Errorf("read documents from Firestore: %w", err)
		}
		setID(&v, snap.Ref.ID)
		found = append(found, v)
	}
}
