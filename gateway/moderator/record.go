package moderator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
)

// Record is what is kept of an action, the document moderation/{delivery id}. It is written before the platform is
// asked, so that nothing is ever done without one, and says afterwards what came of it. It has no end: whoever asks a
// year later why they were banned gets an answer. What was never begun has none; the dead letter tells of that.
type Record struct {
	ID            string               `firestore:"-"`
	Action        string               `firestore:"action"`
	Platform      string               `firestore:"platform"`
	Channel       string               `firestore:"channel"`
	UserID        string               `firestore:"userId,omitempty"` // to whom it was done, also where only the name was known
	Login         string               `firestore:"login,omitempty"`
	MessageID     string               `firestore:"messageId,omitempty"`
	Seconds       int                  `firestore:"durationSeconds,omitempty"`
	Reason        string               `firestore:"reason,omitempty"`
	AskedBy       moderation.Requester `firestore:"askedBy"`
	CorrelationID string               `firestore:"correlationId"` // of the event that asked
	Outcome       Outcome              `firestore:"outcome"`       // of the last try
	At            time.Time            `firestore:"at"`            // of the first try
	Tries         []Try                `firestore:"tries"`         // one, and one more for each redrive
}

// Try is what came of an action until it was delivered or dead: once, and again after each redrive.
type Try struct {
	Attempt  int               `firestore:"attempt"`  // how often it was redriven before
	Instance string            `firestore:"instance"` // the last that was at it
	Times    int               `firestore:"times"`    // how often one began it: more than once, if one died or had to wait
	BegunAt  time.Time         `firestore:"begunAt"`  // since when it may have been done
	EndedAt  time.Time         `firestore:"endedAt,omitempty"`
	Outcome  Outcome           `firestore:"outcome"`
	Code     deadletter.Reason `firestore:"code,omitempty"`   // of what was not done
	Answer   string            `firestore:"answer,omitempty"` // the platform's own words, or what went wrong
}

// Outcome is what came of an action.
type Outcome string

// The outcomes.
const (
	Begun   Outcome = "begun"   // it was about to be done; while that stands, it may or may not have been
	Done    Outcome = "done"    // the platform did it
	Held    Outcome = "held"    // it was so already: the person was banned, the message gone
	Refused Outcome = "refused" // the platform will not do it
	PutOff  Outcome = "put_off" // it is certain that it was not done, and it may be later
	Unknown Outcome = "unknown" // nobody can tell; doing it again does no harm
)

// Answer is what came of asking a platform once.
type Answer struct {
	Outcome Outcome           // any but Begun
	Code    deadletter.Reason // why it was not done; for Refused and PutOff
	Words   string            // what the platform said
	User    identity.UserID   // to whom it is done, if the asker did not say it by id
	After   time.Duration     // before it makes sense to ask again; for PutOff and Unknown
}

// ErrNoRecord means that there is no such record.
var ErrNoRecord = errors.New("no record of such an action")

// Records keeps the records. It is safe for concurrent use.
type Records struct {
	client   *firestore.Client
	instance string
	now      func() time.Time
}

// NewRecords makes records on a client, which stays the caller's to close. instance names who acts.
func NewRecords(client *firestore.Client, instance string, now func() time.Time) *Records {
	return &Records{client: client, instance: instance, now: now}
}

func (r *Records) doc(id string) *firestore.DocumentRef {
	return r.client.Collection("moderation").Doc(id)
}

// Get reads the record of a delivery, or fails with [ErrNoRecord].
func (r *Records) Get(ctx context.Context, id string) (Record, error) {
	snap, err := r.doc(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return Record{}, fmt.Errorf("delivery %s: %w", id, ErrNoRecord)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the record of delivery %s: %w", id, err)
	}
	return recordOf(snap)
}

func recordOf(snap *firestore.DocumentSnapshot) (Record, error) {
	var rec Record
	if err := snap.DataTo(&rec); err != nil {
		return Record{}, fmt.Errorf("read the record of delivery %s: %w", snap.Ref.ID, err)
	}
	rec.ID = snap.Ref.ID
	return rec, nil
}

// begin writes that an action is about to be done, and gives the try that it belongs to: one that was begun before, by
// an instance that died perhaps, goes on, and mayBeDone says that it may have been done then. One that has ended, without
// having been settled, is given as it is.
func (r *Records) begin(ctx context.Context, id string, attempt int, o moderation.Command, correlationID string) (now Try, mayBeDone bool, err error) {
	err = store.RunTransaction(ctx, r.client, func(ctx context.Context, tx *firestore.Transaction) error {
		now, mayBeDone = Try{}, false
		rec := Record{
			Action: string(o.Kind), Platform: string(o.Platform()), Channel: o.Channel, UserID: o.User.String(), Login: o.Login,
			MessageID: o.MessageID, Seconds: o.Seconds, Reason: o.Reason, AskedBy: o.By, CorrelationID: correlationID, At: event.TruncateToMicros(r.now()),
		}
		snap, err := tx.Get(r.doc(id))
		if err == nil {
			rec, err = recordOf(snap)
		} else if status.Code(err) == codes.NotFound {
			err = nil
		}
		if err != nil {
			return err
		}
		if n := len(rec.Tries); n == 0 || rec.Tries[n-1].Attempt < attempt {
			rec.Tries = append(rec.Tries, Try{Attempt: attempt})
		}
		t := &rec.Tries[len(rec.Tries)-1]
		switch t.Outcome {
		case Done, Held, Refused:
			now = *t
			return nil
		case Begun, Unknown:
			mayBeDone = true // since it was begun
		default:
			t.BegunAt = event.TruncateToMicros(r.now())
		}
		t.Instance, t.Outcome, t.Code, t.Answer, t.EndedAt = r.instance, Begun, "", "", time.Time{}
		t.Times++
		rec.Outcome, now = Begun, *t
		return tx.Set(r.doc(id), rec)
	})
	if err != nil {
		return Try{}, false, fmt.Errorf("record that delivery %s begins: %w", id, err)
	}
	return now, mayBeDone, nil
}

// end writes what came of the last try.
func (r *Records) end(ctx context.Context, id string, a Answer) error {
	err := store.RunTransaction(ctx, r.client, func(ctx context.Context, tx *firestore.Transaction) error {
		snap, err := tx.Get(r.doc(id))
		if err != nil {
			return err
		}
		rec, err := recordOf(snap)
		if err != nil {
			return err
		}
		t := &rec.Tries[len(rec.Tries)-1] // begin has made one
		t.Outcome, t.Code, t.Answer, t.EndedAt = a.Outcome, a.Code, a.Words, event.TruncateToMicros(r.now())
		rec.Outcome = a.Outcome
		if !a.User.IsZero() {
			rec.UserID = a.User.String()
		}
		return tx.Set(r.doc(id), rec)
	})
	if err != nil {
		return fmt.Errorf("record what came of delivery %s: %w", id, err)
	}
	return nil
}
