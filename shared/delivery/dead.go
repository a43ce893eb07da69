package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
)

// Announcer is what is needed of the bus to tell of a dead letter.
type Announcer interface {
	Announce(ctx context.Context, data []byte, attributes map[string]string, a deadletter.Announcement) error
}

// Reaper gives up deliveries: it moves an entry to dead and writes its dead letter in one transaction, so that
// there is never one without the other, then announces it.
type Reaper struct {
	ledger *Ledger
	box    *deadletter.Store
	bus    Announcer
	source string
	grace  time.Duration
}

// NewReaper makes an reaper. source names the part that gives up, in the dead letters. grace is how long after
// its deadline a delivery is given up: a gateway does not write an answer after its deadline, so within this time it
// settles what it wrote just before; it has to be more than clocks differ.
func NewReaper(l *Ledger, box *deadletter.Store, bus Announcer, source string, grace time.Duration) *Reaper {
	return &Reaper{ledger: l, box: box, bus: bus, source: source, grace: grace}
}

// MarkDead moves a pending delivery to dead, for the reason that why holds, and returns the state in which the entry is
// afterwards: [Dead], whoever gave it up and for which reason, or [Delivered] if it had been delivered before. However
// many give up one delivery, there is one dead letter. attempt is how often it had been redriven when its message was
// published: one that was redriven since has another message, and stays as it is.
func (u *Reaper) MarkDead(ctx context.Context, id string, attempt int, why *deadletter.Error) (State, error) {
	entry, state, err := u.moveToDead(ctx, id, why, func(e Entry) bool { return e.State == Pending && e.RedriveCount == attempt })
	if err != nil || entry == nil {
		return state, err
	}
	return Dead, u.announce(ctx, *entry)
}

// moveToDead gives back the entry if it was this call that killed it. Only one that may is.
func (u *Reaper) moveToDead(ctx context.Context, id string, why *deadletter.Error, may func(Entry) bool) (killed *Entry, state State, err error) {
	l := u.ledger
	err = l.client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
		killed = nil
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
		write, err := u.box.PutTx(tx, deadletter.DeadLetter{
			ID: id, Reason: why.Reason, Message: why.Err.Error(), Source: u.source, Data: e.Event, Delivery: true,
		}, e.RedriveCount)
		if err != nil {
			return err
		}
		if err := write(); err != nil {
			return err
		}
		kept := event.TruncateToMicros(l.now()).Add(deadletter.Retention) // as its letter is: without the entry there is no redrive
		if e.ExpireAt.After(kept) {
			kept = e.ExpireAt
		}
		e.Reason, e.Message, e.State, state, killed = string(why.Reason), why.Err.Error(), Dead, Dead, &e
		return tx.Update(l.doc(id), []firestore.Update{
			{Path: "state", Value: Dead},
			{Path: "reason", Value: string(why.Reason)},
			{Path: "message", Value: why.Err.Error()},
			{Path: "instance", Value: l.instance},
			{Path: "settledAt", Value: event.TruncateToMicros(l.now())},
			{Path: "expireAt", Value: kept},
			{Path: "announced", Value: false},
		})
	})
	if err != nil {
		return nil, "", fmt.Errorf("give up delivery %s: %w", id, err)
	}
	return killed, state, nil
}

// announce tells of a dead entry, and notes that it did.
func (u *Reaper) announce(ctx context.Context, e Entry) error {
	err := u.bus.Announce(ctx, e.Event, map[string]string{"correlationId": e.CorrelationID, AttrDelivery: e.ID},
		deadletter.Announcement{ID: e.ID, Reason: deadletter.Reason(e.Reason), Message: e.Message, Source: u.source, Redrive: e.RedriveCount})
	if err != nil {
		return err
	}
	if _, err := u.ledger.doc(e.ID).Update(ctx, []firestore.Update{{Path: "announced", Value: true}}); err != nil {
		return fmt.Errorf("note that delivery %s was announced: %w", e.ID, err)
	}
	return nil
}

const (
	// sweepPage is how many entries a sweep looks at in one query, and sweepTogether how many of them it sees to at a
	// time.
	sweepPage     = 200
	sweepTogether = 32
	// announceTime is how long a sweep tries to announce one. What could not be announced, a later sweep finds.
	announceTime = 3 * time.Second
)

// SweepResult counts what a sweep did.
type SweepResult struct {
	MarkedDead int // overdue deliveries, and those whose claim ran out
	Announced  int // dead ones of which nobody had told
}

// Sweep gives up every delivery that is overdue, and announces the dead ones whose announcement did not go out. Until
// ctx is done it goes on page by page; what it leaves, the next sweep finds. Several at once do no harm. The error joins
// what went wrong with single entries, which keeps no other from being swept.
func (u *Reaper) Sweep(ctx context.Context) (SweepResult, error) {
	var givenUp, announced atomic.Int64
	announce := func(e Entry) error {
		ctx, cancel := context.WithTimeout(ctx, announceTime)
		defer cancel()
		return u.announce(ctx, e)
	}
	shards := make([]int, Shards)
	for i := range shards {
		shards[i] = i
	}
	deliveries := u.ledger.client.Collection("deliveries")
	type scan struct {
		query firestore.Query
		do    func(Entry) error
	}
	var scans []scan
	for _, overdue := range []struct {
		state State
		field string
		since func(Entry) time.Time
		why   func(Entry) *deadletter.Error
	}{
		{Pending, "deadline", func(e Entry) time.Time { return e.Deadline }, func(e Entry) *deadletter.Error {
			return deadletter.New(deadletter.NoConnection, fmt.Errorf("nobody held a connection of the recipient until %s", e.Deadline.Format(time.RFC3339)))
		}},
		{Claimed, "leaseUntil", func(e Entry) time.Time { return e.LeaseUntil }, func(e Entry) *deadletter.Error {
			return deadletter.New(deadletter.OutcomeUnknown, fmt.Errorf("instance %s claimed it and did not tell what came of it", e.Instance))
		}},
	} {
		limit := u.ledger.now().Add(-u.grace)
		q := deliveries.Where("shard", "in", shards).Where("state", "==", overdue.state).Where(overdue.field, "<", limit).OrderBy(overdue.field, firestore.Asc)
		scans = append(scans, scan{q, func(e Entry) error {
			killed, _, err := u.moveToDead(ctx, e.ID, overdue.why(e), func(now Entry) bool {
				return now.State == overdue.state && overdue.since(now).Before(limit) // and was not redriven or released since
			})
			if err != nil || killed == nil {
				return err
			}
			givenUp.Add(1)
			return announce(*killed)
		}})
	}
	silent := deliveries.Where("state", "==", Dead).Where("announced", "==", false).
		Where("settledAt", "<", u.ledger.now().Add(-u.grace)).OrderBy("settledAt", firestore.Asc)
	scans = append(scans, scan{silent, func(e Entry) error {
		err := announce(e)
		if err == nil {
			announced.Add(1)
		}
		return err
	}})
	errs := make([]error, len(scans))
	var all sync.WaitGroup // side by side: none waits for another's backlog
	for i, s := range scans {
		all.Go(func() { errs[i] = u.pages(ctx, s.query, s.do) })
	}
	all.Wait()
	return SweepResult{MarkedDead: int(givenUp.Load()), Announced: int(announced.Load())}, errors.Join(errs...)
}

// maxFailures is how many errors a sweep tells of in one kind of entries.
const maxFailures = 10

// pages gives all that a query finds to do, page by page, [sweepTogether] at a time. What can't be read, or what do fails
// on, is left for another time, and keeps nothing else from its turn.
func (u *Reaper) pages(ctx context.Context, q firestore.Query, do func(Entry) error) error {
	var mu sync.Mutex
	var errs []error
	failed := 0
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed++; failed <= maxFailures {
			errs = append(errs, err)
		}
	}
	for {
		snaps, err := q.Limit(sweepPage).Documents(ctx).GetAll()
		if err != nil {
			fail(fmt.Errorf("look into the ledger: %w", err))
			break
		}
		var page errgroup.Group // not one that cancels
		page.SetLimit(sweepTogether)
		for _, snap := range snaps {
			if ctx.Err() != nil {
				break
			}
			page.Go(func() error {
				e, err := entryOf(snap)
				if err == nil {
					err = do(e)
				}
				if err != nil {
					fail(err)
				}
				return nil
			})
		}
		page.Wait() // fail has the errors
		if err := ctx.Err(); err != nil {
			fail(err)
			break
		}
		if len(snaps) < sweepPage {
			break
		}
		q = q.StartAfter(snaps[len(snaps)-1])
	}
	if failed > maxFailures {
		errs = append(errs, fmt.Errorf("and %d more failures", failed-maxFailures))
	}
	return errors.Join(errs...)
}

// ErrDelivered means that a delivery can't be tried again, because it has been made.
var ErrDelivered = errors.New("is delivered already")

// ReopenTx makes a dead delivery pending again, in a transaction of the caller's. redrive is its new attempt. It reads,
// so it has to come before the transaction's first write; write then writes. One that is pending, because whoever
// redrove it before did not get to publish it, is given its time anew. One that somebody has claimed since is not
// touched: to take the claim away would have the answer made twice.
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
		return nil, fmt.Errorf("delivery %s is being made by instance %s: what comes of it will be known soon", id, e.Instance)
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
