package delivery

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// ClaimLease is the lifetime of a claim. The instance with the claim sends the answer and settles the entry in this
// time. An older claim was left by an instance that crashed. The sweep marks its entry dead as
// [deadletter.OutcomeUnknown], because the answer may or may not have been sent.
const ClaimLease = time.Minute

// Claim is the exclusive right to send one answer. An instance takes the claim before it calls the platform, and
// settles the claim afterwards: with [Claim.MarkDelivered], with [Reaper.MarkClaimDead], or, if the answer was
// certainly not sent, with [Claim.Release]. [Executor] does all this. No other instance takes an unsettled claim,
// except for answers that may be sent again: see [Ledger.Reclaim] and [Ledger.ForceClaim].
type Claim struct {
	ledger  *Ledger
	id      string
	token   string
	taken   time.Time
	version time.Time
}

// ID returns the id of the delivery.
func (c *Claim) ID() string { return c.id }

// Age returns the age of the claim, at most [ClaimLease] for a valid claim. It is the longer of two clocks' times: the
// monotonic clock stops while a machine sleeps, and the wall clock may be set back.
func (c *Claim) Age() time.Duration {
	now := c.ledger.now()
	return max(now.Sub(c.taken), now.Round(0).Sub(c.taken.Round(0)))
}

// Claim claims a pending answer. For any other entry the claim is nil, and the state is [Claimed] by another instance,
// [Delivered] or [Dead]. If the entry has not changed since ref was made, Claim is one write and no read. A missing
// entry is [ErrNotFound].
func (l *Ledger) Claim(ctx context.Context, ref Ref) (*Claim, State, error) {
	return l.claim(ctx, ref, func(Entry) bool { return false })
}

// Reclaim is [Ledger.Claim] for an answer that may be sent twice with the same effect. It also takes an expired claim,
// until the sweep marks the entry dead.
func (l *Ledger) Reclaim(ctx context.Context, ref Ref) (*Claim, State, error) {
	return l.claim(ctx, ref, func(e Entry) bool { return e.abandoned(l.now()) })
}

// ForceClaim is [Ledger.Reclaim] for a caller sure that earlier claims are not in use. It also takes a valid claim.
func (l *Ledger) ForceClaim(ctx context.Context, ref Ref) (*Claim, State, error) {
	return l.claim(ctx, ref, func(e Entry) bool { return e.State == Claimed })
}

// claim claims a pending entry, and any other entry for which retry returns true.
func (l *Ledger) claim(ctx context.Context, ref Ref, retry func(Entry) bool) (*Claim, State, error) {
	c := &Claim{ledger: l, id: ref.ID, token: rand.Text()}
	version := ref.version
	fresh := true // the entry had no earlier claim
	for {
		if version.IsZero() {
			e, err := l.Get(ctx, ref.ID)
			if err != nil {
				return nil, "", err
			}
			if e.State == Claimed && e.Claim == c.token { // by this call: only the answer to the write was lost
				c.version = e.version
				return c, Claimed, nil
			}
			if e.State != Pending && !retry(e) {
				return nil, e.State, nil
			}
			version, fresh = e.version, e.State == Pending
		}
		c.taken = l.now()
		res, err := l.doc(ref.ID).Update(ctx, []firestore.Update{
			{Path: "state", Value: Claimed},
			{Path: "claim", Value: c.token},
			{Path: "instance", Value: l.instance},
			{Path: "leaseUntil", Value: event.TruncateToMicros(c.taken.Add(ClaimLease))},
		}, firestore.LastUpdateTime(version))
		switch {
		case err == nil:
			c.version = res.UpdateTime
			return c, Claimed, nil
		case status.Code(err) == codes.NotFound:
			return nil, "", fmt.Errorf("delivery %s: %w", ref.ID, ErrNotFound)
		case store.IsConflict(err):
			version = time.Time{}
		default:
			err = fmt.Errorf("claim delivery %s: %w", ref.ID, err)
			if held := c.ifStored(ctx, fresh); held != nil {
				return held, Claimed, nil
			}
			return nil, "", err
		}
	}
}

// doubtTime is the limit of reading the entry after a write without an answer.
const doubtTime = 2 * time.Second

// ifStored reads the entry after a failed write of a claim: Firestore may have stored the claim all the same, and an
// unused claim would end as [deadletter.OutcomeUnknown] although nothing was sent. If the claim is stored and ctx is
// not done, ifStored returns the claim. If ctx is done, ifStored releases a fresh claim, but keeps a claim taken from
// another instance, because the other instance may have sent the answer.
func (c *Claim) ifStored(ctx context.Context, fresh bool) *Claim {
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), doubtTime)
	defer cancel()
	e, err := c.ledger.Get(looking, c.id)
	if err != nil || e.State != Claimed || e.Claim != c.token {
		return nil
	}
	c.version = e.version
	if ctx.Err() == nil {
		return c
	}
	if fresh {
		c.Release(looking) // after a failure, the sweep marks the entry dead
	}
	return nil
}

// Extend renews the claim: its age starts again at 0. It reports false, and changes nothing, if the claim expired and the
// sweep settled the entry. After an error the claim keeps its age. A crash after Extend leaves a claim that expires
// [ClaimLease] after the extension.
func (c *Claim) Extend(ctx context.Context) (bool, error) {
	now := c.ledger.now()
	until := event.TruncateToMicros(now.Add(ClaimLease))
	for {
		res, err := c.ledger.doc(c.id).Update(ctx, []firestore.Update{{Path: "leaseUntil", Value: until}}, firestore.LastUpdateTime(c.version))
		if err == nil {
			c.taken, c.version = now, res.UpdateTime
			return true, nil
		}
		if !store.IsConflict(err) {
			return false, fmt.Errorf("extend claim of delivery %s: %w", c.id, err)
		}
		e, err := c.ledger.Get(ctx, c.id)
		if err != nil {
			return false, err
		}
		if e.State != Claimed || e.Claim != c.token {
			return false, nil
		}
		c.version = e.version // an earlier write without an answer
	}
}

// MarkDelivered records that the answer was sent, with the platform's id or words in note. It returns the state of the
// entry afterwards: [Delivered], or [Dead] if the claim had expired and the sweep was first.
func (c *Claim) MarkDelivered(ctx context.Context, note string) (State, error) {
	return c.settle(ctx, Delivered, []firestore.Update{
		{Path: "state", Value: Delivered},
		{Path: "note", Value: note},
		{Path: "settledAt", Value: event.TruncateToMicros(c.ledger.now())},
	})
}

// Release returns the entry to [Pending], because the answer was certainly not sent.
func (c *Claim) Release(ctx context.Context) error {
	_, err := c.settle(ctx, Pending, []firestore.Update{
		{Path: "state", Value: Pending},
		{Path: "claim", Value: firestore.Delete},
		{Path: "instance", Value: firestore.Delete},
		{Path: "leaseUntil", Value: firestore.Delete},
	})
	return err
}

// abandoned reports whether the entry has an expired claim.
func (e Entry) abandoned(now time.Time) bool { return e.State == Claimed && e.LeaseUntil.Before(now) }

func (c *Claim) settle(ctx context.Context, want State, updates []firestore.Update) (State, error) {
	for {
		_, err := c.ledger.doc(c.id).Update(ctx, updates, firestore.LastUpdateTime(c.version))
		if err == nil {
			return want, nil
		}
		if !store.IsConflict(err) {
			return "", fmt.Errorf("settle delivery %s: %w", c.id, err)
		}
		e, err := c.ledger.Get(ctx, c.id)
		if err != nil {
			return "", err
		}
		if e.State != Claimed || e.Claim != c.token {
			return e.State, nil // settled by an earlier write without an answer, or by the sweep
		}
		c.version = e.version
	}
}
