package delivery

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
	"parley.internal/shared/store"
)

// Announcer announces a dead letter on the bus.
type Announcer interface {
	Announce(ctx context.Context, data []byte, attributes map[string]string, a deadletter.Announcement) error
}

// Reaper marks deliveries dead. One transaction moves the entry to dead and writes the dead letter, so an entry is
// never dead without a dead letter. Then the reaper announces the dead letter. A Reaper is safe for concurrent use.
type Reaper struct {
	ledger  *Ledger
	letters *deadletter.Store
	bus     Announcer
	source  string
	grace   time.Duration
}

// NewReaper makes a reaper. source names this part of Parley in the dead letters. grace is how long after its deadline a
// sweep marks a delivery dead. A gateway sends no answer after the deadline, and settles answers sent just before within
// the grace. grace must be more than the difference of the instances' clocks.
func NewReaper(l *Ledger, letters *deadletter.Store, bus Announcer, source string, grace time.Duration) *Reaper {
	return &Reaper{ledger: l, letters: letters, bus: bus, source: source, grace: grace}
}

// MarkDead moves a pending delivery to dead with a reason. It returns the state of the entry afterwards: [Dead], even
// if an earlier call had another reason; [Delivered] or [Claimed] if the delivery was not pending. Any number of calls
// make one dead letter. redrives is the redrive count in the delivery's message: after a later redrive the entry
// belongs to another message, and stays unchanged.
func (r *Reaper) MarkDead(ctx context.Context, id string, redrives int, why *deadletter.Error) (State, error) {
	return r.markDead(ctx, id, why, func(e Entry) bool { return e.State == Pending && e.RedriveCount == redrives })
}

// MarkClaimDead is [Reaper.MarkDead] for a claimed delivery.
func (r *Reaper) MarkClaimDead(ctx context.Context, c *Claim, why *deadletter.Error) (State, error) {
	return r.markDead(ctx, c.id, why, func(e Entry) bool { return e.State == Claimed && e.Claim == c.token })
}

func (r *Reaper) markDead(ctx context.Context, id string, why *deadletter.Error, may func(Entry) bool) (State, error) {
	entry, state, err := r.moveToDead(ctx, id, why, may)
	if err != nil || entry == nil {
		return state, err
	}
	return Dead, r.announce(ctx, *entry)
}

// moveToDead moves the entry to [Dead] if may(entry) holds. It returns the entry only if this call changed the entry.
func (r *Reaper) moveToDead(ctx context.Context, id string, why *deadletter.Error, may func(Entry) bool) (moved *Entry, state State, err error) {
	l := r.ledger
	err = store.RunTransaction(ctx, l.client, func(ctx context.Context, tx *firestore.Transaction) error {
		moved = nil
		snap, err := tx.Get(l.doc(id))
		if status.Code(err) == codes.NotFound {
			return fmt.Errorf("delivery %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		e, err := entryOf(snap)
		if err != nil {
			return err
		}
		if state = e.State; !may(e) {
			return nil
		}
		write, _, err := r.letters.PutTx(tx, deadletter.DeadLetter{
			ID: id, Reason: why.Reason, Message: why.Err.Error(), Source: r.source, Data: e.Event, Delivery: true,
		}, e.RedriveCount)
		if err != nil {
			return err
		}
		if err := write(); err != nil {
			return err
		}
		now := event.TruncateToMicros(l.now())
		expire := now.Add(deadletter.Retention) // with the dead letter: a redrive needs the entry
		if e.ExpireAt.After(expire) {
			expire = e.ExpireAt
		}
		e.Reason, e.Message, e.State, state, moved = string(why.Reason), why.Err.Error(), Dead, Dead, &e
		return tx.Update(l.doc(id), []firestore.Update{
			{Path: "state", Value: Dead},
			{Path: "reason", Value: e.Reason},
			{Path: "message", Value: e.Message},
			{Path: "instance", Value: l.instance},
			{Path: "settledAt", Value: now},
			{Path: "expireAt", Value: expire},
			{Path: "announced", Value: false},
		})
	})
	if err != nil {
		return nil, "", fmt.Errorf("mark delivery %s dead: %w", id, err)
	}
	return moved, state, nil
}

// announce announces a dead entry, and marks it announced.
func (r *Reaper) announce(ctx context.Context, e Entry) error {
	err := r.bus.Announce(ctx, e.Event, map[string]string{"correlationId": e.CorrelationID, AttrDelivery: e.ID},
		deadletter.Announcement{ID: e.ID, Reason: deadletter.Reason(e.Reason), Message: e.Message, Source: r.source, Redrive: e.RedriveCount})
	if err != nil {
		return err
	}
	if _, err := r.ledger.doc(e.ID).Update(ctx, []firestore.Update{{Path: "announced", Value: true}}); err != nil {
		return fmt.Errorf("mark delivery %s announced: %w", e.ID, err)
	}
	return nil
}

// ErrDelivered means that a delivery can't be redriven, because it was delivered.
var ErrDelivered = errors.New("is delivered already")

// ReopenTx makes a dead delivery pending again, in the caller's transaction. redrive is the new redrive count. ReopenTx
// reads, so the call must come before the transaction's first write; write then writes. A pending delivery gets a new
// deadline, because an earlier redrive failed before publishing. A claimed delivery is an error, because taking the
// claim away would send the answer twice. A delivered one fails with [ErrDelivered], and a missing entry with
// [ErrNotFound].
func (l *Ledger) ReopenTx(tx *firestore.Transaction, id string, redrive int, c Config) (write func() error, err error) {
	snap, err := tx.Get(l.doc(id))
	if status.Code(err) == codes.NotFound {
		return nil, fmt.Errorf("delivery %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	e, err := entryOf(snap)
	if err != nil {
		return nil, err
	}
	switch e.State {
	case Delivered:
		return nil, fmt.Errorf("delivery %s %w", id, ErrDelivered)
	case Claimed:
		return nil, fmt.Errorf("delivery %s is claimed by instance %s: its outcome will be known soon", id, e.Instance)
	}
	now := event.TruncateToMicros(l.now())
	return func() error {
		return tx.Update(l.doc(id), []firestore.Update{
			{Path: "state", Value: Pending},
			{Path: "attempt", Value: redrive},
			{Path: "openedAt", Value: firestore.ServerTimestamp},
			{Path: "deadline", Value: now.Add(c.Deadline)},
			{Path: "expireAt", Value: now.Add(c.Retention)},
			{Path: "reason", Value: firestore.Delete},
			{Path: "message", Value: firestore.Delete},
			{Path: "instance", Value: firestore.Delete},
			{Path: "claim", Value: firestore.Delete},
			{Path: "leaseUntil", Value: firestore.Delete},
			{Path: "settledAt", Value: firestore.Delete},
			{Path: "announced", Value: firestore.Delete},
		})
	}, nil
}
