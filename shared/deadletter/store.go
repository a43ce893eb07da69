package deadletter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// ErrNotFound means that the dead letter does not exist.
var ErrNotFound = errors.New("no such dead letter")

// Store stores dead letters in Firestore. It is safe for concurrent use.
type Store struct {
	client *firestore.Client
	now    func() time.Time
}

// NewStore makes a store with a client. The caller closes the client.
func NewStore(client *firestore.Client, now func() time.Time) *Store {
	return &Store{client: client, now: now}
}

func (s *Store) doc(id string) *firestore.DocumentRef { return Doc(s.client, id) }

// Doc returns the document of a dead letter, for a caller that reads several documents at once.
func Doc(client *firestore.Client, id string) *firestore.DocumentRef {
	return client.Collection("deadletters").Doc(id)
}

// IsOpen reports whether a document is an [Open] dead letter. A missing document is not.
func IsOpen(snap *firestore.DocumentSnapshot) bool {
	status, err := snap.DataAt("status") // fails for a missing document
	return err == nil && status == string(Open)
}

// Put stores a dead letter, and reports whether it is new: false if the same failure is stored already. redrive is the
// number of the message's redrives at the time of the failure. A failure after a redrive makes a new attempt of the same
// dead letter. A reason outside of [Reasons] is stored as [New] makes it: [PlatformRefused], with the code in Message.
func (s *Store) Put(ctx context.Context, l DeadLetter, redrive int) (isNew bool, err error) {
	data := l.Data
	l.describe()
	if len(data) > partSize {
		if l.Parts, err = s.putParts(ctx, l.ID, data); err != nil {
			return false, err
		}
		l.Data = nil
	}
	err = store.RunTransaction(ctx, s.client, func(ctx context.Context, tx *firestore.Transaction) error {
		var next DeadLetter
		if next, isNew, err = s.next(tx, l, redrive); err != nil || !isNew {
			return err
		}
		return tx.Set(s.doc(l.ID), next)
	})
	if err != nil {
		return false, fmt.Errorf("store dead letter %s: %w", l.ID, err)
	}
	return isNew, nil
}

// PutTx is [Store.Put] in the caller's transaction, for data of at most one document. PutTx reads, so the call must
// come before the transaction's first write; write then writes, if the dead letter is new.
func (s *Store) PutTx(tx *firestore.Transaction, l DeadLetter, redrive int) (write func() error, isNew bool, err error) {
	l.describe()
	next, isNew, err := s.next(tx, l, redrive)
	if err != nil {
		return nil, false, err
	}
	return func() error {
		if !isNew {
			return nil
		}
		return tx.Set(s.doc(l.ID), next)
	}, isNew, nil
}

// next returns the dead letter after a failure.
func (s *Store) next(tx *firestore.Transaction, l DeadLetter, redrive int) (next DeadLetter, isNew bool, err error) {
	now := event.TruncateToMicros(s.now())
	l.Status, l.Attempts, l.At, l.FirstAt, l.ExpireAt = Open, 1, now, now, now.Add(Retention)
	snap, err := tx.Get(s.doc(l.ID))
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
		return old, false, nil // the same failure, announced again
	}
	l.Attempts, l.FirstAt, l.Redrives = old.Attempts+1, old.FirstAt, old.Redrives
	return l, true, nil
}

func (s *Store) putParts(ctx context.Context, id string, data []byte) (n int, err error) {
	expire := event.TruncateToMicros(s.now().Add(Retention))
	for ; len(data) > 0; n++ {
		size := min(len(data), partSize)
		_, err := s.doc(id).Collection("parts").Doc(fmt.Sprintf("%04d", n)).Set(ctx, Part{Data: data[:size], ExpireAt: expire})
		if err != nil {
			return 0, fmt.Errorf("store part %d of dead letter %s: %w", n, id, err)
		}
		data = data[size:]
	}
	return n, nil
}

// Get reads a dead letter with all its data, or fails with [ErrNotFound].
func (s *Store) Get(ctx context.Context, id string) (DeadLetter, error) {
	snap, err := s.doc(id).Get(ctx)
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
		snap, err := s.doc(id).Collection("parts").Doc(fmt.Sprintf("%04d", i)).Get(ctx)
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

// Filter selects dead letters. A zero field selects all.
type Filter struct {
	IDs         []string
	Reason      Reason
	Status      Status
	From, Until time.Time // of the last failure; From included, Until not
	Limit       int
}

// List calls yield for each selected dead letter, the latest first, without the data of long messages. An error of yield
// ends the list and is returned. With IDs, the order is the order of the ids, and a missing one is [ErrNotFound].
func (s *Store) List(ctx context.Context, f Filter, yield func(DeadLetter) error) error {
	if len(f.IDs) > 0 {
		for _, id := range f.IDs {
			snap, err := s.doc(id).Get(ctx)
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
	q := s.client.Collection("deadletters").OrderBy("at", firestore.Desc)
	if f.Reason != "" {
		q = q.Where("reason", "==", f.Reason)
	}
	switch f.Status {
	case "":
	case Unfinished:
		q = q.Where("status", "in", []Status{Open, Redriving})
	default:
		q = q.Where("status", "==", f.Status)
	}
	if !f.From.IsZero() {
		q = q.Where("at", ">=", f.From)
	}
	if !f.Until.IsZero() {
		q = q.Where("at", "<", f.Until)
	}
	if f.Limit > 0 {
		q = q.Limit(f.Limit)
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

// ErrNotOpen means that a dead letter was redriven before, and has not failed again.
var ErrNotOpen = errors.New("dead letter is not open")

// redriveTimeout is the age at which a redrive without an end counts as interrupted. Then a further redrive is allowed.
const redriveTimeout = time.Minute

// Redrivable returns nil if a dead letter may be redriven: it is open, or its last redrive failed or was interrupted. The
// error matches [ErrNotOpen].
func (s *Store) Redrivable(l DeadLetter) error {
	if l.Status == Open {
		return nil
	}
	if l.Status != Redriving || len(l.Redrives) == 0 {
		return ErrNotOpen
	}
	last := l.Redrives[len(l.Redrives)-1]
	if last.Failed || s.now().Sub(last.At) > redriveTimeout {
		return nil
	}
	return fmt.Errorf("%w: a redrive by %s began at %s; if it was interrupted, try again after %s", ErrNotOpen, last.By, last.At.Format(time.RFC3339), redriveTimeout)
}

// MarkRedrivingTx records in a transaction that the operator by redrives a dead letter. It fails as [Store.Redrivable]
// does, or with [ErrNotFound]. The call reads, so it must come before the transaction's first write; write then writes.
// redrive is the new number of redrives. The caller publishes the message, and then calls [Store.MarkRedriven], or
// [Store.MarkRedriveFailed] after an error.
func (s *Store) MarkRedrivingTx(tx *firestore.Transaction, id, by string) (write func() error, redrive int, err error) {
	snap, err := tx.Get(s.doc(id))
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
	if err := s.Redrivable(l); err != nil {
		return nil, 0, fmt.Errorf("dead letter %s: %w", id, err)
	}
	redrives := l.Redrives
	if l.Status == Redriving {
		redrives = redrives[:len(redrives)-1] // the earlier redrive did not finish
	}
	redrives = append(redrives, Redrive{By: by, At: event.TruncateToMicros(s.now())})
	return func() error {
		return tx.Update(s.doc(id), []firestore.Update{{Path: "status", Value: Redriving}, {Path: "redrives", Value: redrives}})
	}, len(redrives), nil
}

// MarkRedriveFailed records that the message of a [Redriving] dead letter could not be published, so that the next
// redrive need not wait.
func (s *Store) MarkRedriveFailed(ctx context.Context, id string) error {
	return s.endRedrive(ctx, id, func(l DeadLetter) firestore.Update {
		l.Redrives[len(l.Redrives)-1].Failed = true
		return firestore.Update{Path: "redrives", Value: l.Redrives}
	})
}

// MarkRedriven records that the message of a [Redriving] dead letter is published. A dead letter in another status stays
// as it is: the message may have failed again already.
func (s *Store) MarkRedriven(ctx context.Context, id string) error {
	return s.endRedrive(ctx, id, func(DeadLetter) firestore.Update {
		return firestore.Update{Path: "status", Value: Redriven}
	})
}

func (s *Store) endRedrive(ctx context.Context, id string, update func(DeadLetter) firestore.Update) error {
	err := store.RunTransaction(ctx, s.client, func(ctx context.Context, tx *firestore.Transaction) error {
		snap, err := tx.Get(s.doc(id))
		if err != nil {
			return err
		}
		l, err := letterOf(snap)
		if err != nil || l.Status != Redriving {
			return err
		}
		return tx.Update(s.doc(id), []firestore.Update{update(l)})
	})
	if err != nil {
		return fmt.Errorf("record the end of the redrive of dead letter %s: %w", id, err)
	}
	return nil
}

// Purge deletes a dead letter, its parts first.
func (s *Store) Purge(ctx context.Context, l DeadLetter) error {
	for i := range l.Parts {
		if _, err := s.doc(l.ID).Collection("parts").Doc(fmt.Sprintf("%04d", i)).Delete(ctx); err != nil {
			return fmt.Errorf("purge part %d of dead letter %s: %w", i, l.ID, err)
		}
	}
	if _, err := s.doc(l.ID).Delete(ctx); err != nil {
		return fmt.Errorf("purge dead letter %s: %w", l.ID, err)
	}
	return nil
}
