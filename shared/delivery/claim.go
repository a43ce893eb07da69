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

// ClaimLease is how long a claim holds. Whoever claims an answer makes it and settles it within this time; a claim that
// is older was left by an instance that died, and is given up as [deadletter.OutcomeUnknown], because nobody can know
// whether the answer was made.
const ClaimLease = time.Minute

// Claim is the right to make one answer, which may be made only once. It is taken before the platform is called and
// settled after: by [Claim.MarkDelivered], by [Reaper.MarkClaimDead], or, where it is certain that the answer was not
// made, by [Claim.Release]; see [Claim.Persist]. A claim that is not settled is not taken by anybody else, either, but for
// what may be made again without harm: see [Ledger.Reclaim] and [Ledger.ForceClaim].
type Claim struct {
	ledger  *Ledger
	id      string
	token   string
	taken   time.Time
	version time.Time
}

// ID is the delivery's.
func (c *Claim) ID() string { return c.id }

// Age is how long the claim has held: [ClaimLease] is the most that it may be. Of what the clocks say it is the longer,
// for the monotonic one stands still while a machine sleeps, and the other may be set back.
func (c *Claim) Age() time.Duration {
	now := c.ledger.now()
	return max(now.Sub(c.taken), now.Round(0).Sub(c.taken.Round(0)))
}

// Claim takes the right to make an answer. The claim is nil where there is none to take: the state then tells whether
// somebody else has it ([Claimed]), or what became of the answer. Where nobody touched the entry since ref was made, this
// is one write and no read.
func (l *Ledger) Claim(ctx context.Context, ref Ref) (*Claim, State, error) {
	return l.claim(ctx, ref, func(Entry) bool { return false })
}

// Reclaim is Claim for an answer that may be made again without harm, because making it twice comes to the same. A claim
// that ran out is no obstacle then: as long as nobody has given the answer up, it is taken over.
func (l *Ledger) Reclaim(ctx context.Context, ref Ref) (*Claim, State, error) {
	return l.claim(ctx, ref, func(e Entry) bool { return e.abandoned(l.now()) })
}

// ForceClaim is Reclaim for one who knows that nobody goes on by a claim that was made before: it need not have run out.
func (l *Ledger) ForceClaim(ctx context.Context, ref Ref) (*Claim, State, error) {
	return l.claim(ctx, ref, func(e Entry) bool { return e.State == Claimed })
}

// claim claims what is pending, and what again says of what is not.
func (l *Ledger) claim(ctx context.Context, ref Ref, again func(Entry) bool) (*Claim, State, error) {
	c := &Claim{ledger: l, id: ref.ID, token: rand.Text()}
	version := ref.version
	fresh := true // nobody else had claimed it
	for {
		if version.IsZero() {
			e, err := l.Get(ctx, ref.ID)
			if err != nil {
				return nil, "", err
			}
			if e.State == Claimed && e.Claim == c.token { // ours, although the answer to the write was lost
				c.version = e.version
				return c, Claimed, nil
			}
			if e.State != Pending && !again(e) {
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
			if held := c.afterAll(ctx, fresh); held != nil {
				return held, Claimed, nil
			}
			return nil, "", err
		}
	}
}

// doubtTime bounds the look at what became of a write whose answer did not come.
const doubtTime = 2 * time.Second

// afterAll finds out whether a claim whose write failed is stored all the same: left alone, it would end as
// [deadletter.OutcomeUnknown] although nothing was sent. It gives the claim back if it holds and ctx leaves time to go on
// by it. Otherwise one that is fresh is released; what another had claimed before may have been made, and stays claimed.
func (c *Claim) afterAll(ctx context.Context, fresh bool) *Claim {
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
		c.Release(looking) // or else the sweep gives it up
	}
	return nil
}

// MarkDelivered records that the answer was made, with what the platform calls it, and returns the state in which the entry
// is afterwards: [Delivered], or [Dead] if the claim had run out and was given up.
func (c *Claim) MarkDelivered(ctx context.Context, note string) (State, error) {
	return c.settle(ctx, Delivered, []firestore.Update{
		{Path: "state", Value: Delivered},
		{Path: "note", Value: note},
		{Path: "settledAt", Value: event.TruncateToMicros(c.ledger.now())},
	})
}

// Release gives the answer back, because it is certain that it was not made: somebody may claim it anew.
func (c *Claim) Release(ctx context.Context) error {
	_, err := c.settle(ctx, Pending, []firestore.Update{
		{Path: "state", Value: Pending},
		{Path: "claim", Value: firestore.Delete},
		{Path: "instance", Value: firestore.Delete},
		{Path: "leaseUntil", Value: firestore.Delete},
	})
	return err
}

// abandoned reports whether the entry's claim ran out.
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
			return e.State, nil // settled, by the write whose answer was lost or by the sweep
		}
		c.version = e.version
	}
}
