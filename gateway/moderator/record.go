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

// Record is the record of an action, the document moderation/{delivery id}. It is written before the platform is asked,
// so no action is ever done without a record, and updated with the outcome afterwards. A record is never deleted: a
// person banned a year ago may still ask for the reason. An action that never began has no record, only a dead letter.
type Record struct {
	ID            string               `firestore:"-"`
	Action        string               `firestore:"action"`
	Platform      string               `firestore:"platform"`
	Channel       string               `firestore:"channel"`
	UserID        string               `firestore:"userId,omitempty"` // the person, also if the requester gave only the name
	Login         string               `firestore:"login,omitempty"`
	MessageID     string               `firestore:"messageId,omitempty"`
	Seconds       int                  `firestore:"durationSeconds,omitempty"`
	Reason        string               `firestore:"reason,omitempty"`
	AskedBy       moderation.Requester `firestore:"askedBy"`
	CorrelationID string               `firestore:"correlationId"` // of the requesting event
	Outcome       Outcome              `firestore:"outcome"`       // of the last try
	At            time.Time            `firestore:"at"`            // of the first try
	Tries         []Try                `firestore:"tries"`         // the first, and one for each redrive
}

// Try is one execution of an action, from the claim to delivered or dead. Each redrive adds a try.
type Try struct {
	Attempt  int               `firestore:"attempt"`  // number of redrives before
	Instance string            `firestore:"instance"` // the last instance
	Times    int               `firestore:"times"`    // number of executions: more than 1 after a crash or a postponement
	BegunAt  time.Time         `firestore:"begunAt"`  // from this time on the action may have been done
	EndedAt  time.Time         `firestore:"endedAt,omitempty"`
	Outcome  Outcome           `firestore:"outcome"`
	Code     deadletter.Reason `firestore:"code,omitempty"`   // why the action was not done
	Answer   string            `firestore:"answer,omitempty"` // the platform's own words, or the error
}

// Outcome is the outcome of a try.
type Outcome string

// The outcomes.
const (
	Begun   Outcome = "begun"   // about to be done: the action may or may not have been done
	Done    Outcome = "done"    // done by the platform
	Held    Outcome = "held"    // nothing to do: the person was banned already, or the message deleted
	Refused Outcome = "refused" // the platform refuses the action
	PutOff  Outcome = "put_off" // certainly not done; a later try may succeed
	Unknown Outcome = "unknown" // no answer: the action may or may not have been done
)

// Answer is the platform's answer to one request.
type Answer struct {
	Outcome Outcome           // any but Begun
	Code    deadletter.Reason // the reason; for Refused and PutOff
	Words   string            // the platform's words
	User    identity.UserID   // the person, if the requester gave no id
	After   time.Duration     // the pause before the next request; for PutOff and Unknown
}

// ErrNoRecord means that the record does not exist.
var ErrNoRecord = errors.New("no record of the action")

// Records stores the records in Firestore. It is safe for concurrent use.
type Records struct {
	client   *firestore.Client
	instance string
	now      func() time.Time
}

// NewRecords makes a store of records with a client. The caller closes the client. instance is recorded in each try.
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

// begin records the beginning of an execution, and returns the try. An unfinished try, for example after a crash,
// continues, and mayBeDone reports a possible earlier action. A finished but unsettled try is returned unchanged.
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
			mayBeDone = true // by the earlier execution
		default:
			t.BegunAt = event.TruncateToMicros(r.now())
		}
		t.Instance, t.Outcome, t.Code, t.Answer, t.EndedAt = r.instance, Begun, "", "", time.Time{}
		t.Times++
		rec.Outcome, now = Begun, *t
		return tx.Set(r.doc(id), rec)
	})
	if err != nil {
		return Try{}, false, fmt.Errorf("record the beginning of delivery %s: %w", id, err)
	}
	return now, mayBeDone, nil
}

// end records the outcome of the last try.
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
		t := &rec.Tries[len(rec.Tries)-1] // begin has added a try
		t.Outcome, t.Code, t.Answer, t.EndedAt = a.Outcome, a.Code, a.Words, event.TruncateToMicros(r.now())
		rec.Outcome = a.Outcome
		if !a.User.IsZero() {
			rec.UserID = a.User.String()
		}
		return tx.Set(r.doc(id), rec)
	})
	if err != nil {
		return fmt.Errorf("record the outcome of delivery %s: %w", id, err)
	}
	return nil
}
