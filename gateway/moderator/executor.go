package moderator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
)

const (
	// patience is how long after its claim an action may be begun once more: what is asked then is answered, recorded and
	// settled before the claim runs out.
	patience = 30 * time.Second
	// askTime bounds one attempt, a new token included.
	askTime = 15 * time.Second
	// writeTime bounds what is written to the store.
	writeTime = 10 * time.Second
	// backoff is between two attempts, and grows to maxBackoff.
	backoff    = 500 * time.Millisecond
	maxBackoff = 4 * time.Second
)

// Executor carries out orders for a platform, each once. It is safe for concurrent use.
//
// An order is claimed in the ledger, recorded as begun, done, recorded with what came of it, and settled, in this order.
// So whoever dies in the midst leaves a claim that runs out, and the record tells how far it came. The actions of this
// package come to the same when they are done twice: whoever takes the claim over does it once more, or, if the record
// has the outcome, settles what was done. Where a platform does not answer, it is asked again for the same reason. Only
// if it never does while the claim holds, the order ends as [deadletter.OutcomeUnknown].
type Executor struct {
	ledger  *delivery.Ledger
	reaper  *delivery.Reaper
	records *Records
	log     *slog.Logger
	now     func() time.Time
	count   func(outcome string)

	patience, backoff, maxBackoff time.Duration
}

// Options are what an enforcer may be told.
type Options struct {
	Log     *slog.Logger         // must be set
	Now     func() time.Time     // time.Now if nil
	Count   func(outcome string) // is told how each call of Carry ended: an [Outcome], or a few more; nil for nobody
	Backoff time.Duration        // before a platform that did not answer is asked again, growing to eight times that; 500 ms if 0
}

// NewExecutor makes an enforcer.
func NewExecutor(l *delivery.Ledger, u *delivery.Reaper, r *Records, o Options) *Executor {
	x := &Executor{ledger: l, reaper: u, records: r, log: o.Log, now: o.Now, count: o.Count, patience: patience, backoff: backoff}
	if x.now == nil {
		x.now = time.Now
	}
	if x.count == nil {
		x.count = func(string) {}
	}
	if o.Backoff > 0 {
		x.backoff = o.Backoff
	}
	x.maxBackoff = 8 * x.backoff
	return x
}

// Job is an order that came to a gateway, with what is known of it from one call of Carry to the next.
type Job struct {
	Ref   delivery.Ref
	Event *event.Event
	// Begun is whether another instance had claimed it and left it: then it is brought to its end whatever its deadline.
	Begun bool

	last *deadletter.Error // what stood in the way so far; nil if nothing did
}

// Platform is what an enforcer needs to carry out an order.
type Platform struct {
	// HoldsLease reports whether this instance may act in the channel, by its lease.
	HoldsLease func() bool
	// Act asks the platform once. Whatever order it is given, it may have been given before.
	Act func(ctx context.Context, o moderation.Command) Answer
}

// Execute carries out one order, and reports whether there is nothing left to do about it here; if there is, it is to be
// called again after wait. It returns early when ctx is done, but what has begun is brought to its end.
func (x *Executor) Execute(ctx context.Context, j *Job, p Platform) (done bool, wait time.Duration) {
	if !p.HoldsLease() {
		return false, x.backoff
	}
	if !j.Begun && !j.Ref.Deadline.IsZero() && x.now().After(j.Ref.Deadline) {
		if j.last != nil {
			return x.giveUp(ctx, j, j.last)
		}
		x.count("overdue")
		return true, 0 // close to its deadline the sweep may give it up at any moment
	}
	order, err := moderation.Read(j.Event)
	if err != nil {
		return x.giveUp(ctx, j, deadletter.New(deadletter.InvalidEvent, err))
	}

	work := context.WithoutCancel(ctx)
	claiming, cancel := context.WithTimeout(work, writeTime)
	defer cancel()
	claim, state, err := x.ledger.Reclaim(claiming, j.Ref)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		x.log.WarnContext(ctx, "the ledger has no entry for an action: not done", "delivery", j.Ref.ID)
		x.count("unknown_delivery")
		return true, 0
	case err != nil:
		x.log.WarnContext(ctx, "can't claim an action", "delivery", j.Ref.ID, "error", err)
		return false, x.maxBackoff
	case claim == nil:
		x.count("had_" + string(state))
		return true, 0
	}
	h := &holding{Executor: x, Platform: p, job: j, order: order, claim: claim}
	return h.run(ctx, work)
}

// giveUp makes an order dead that nobody has claimed, or redriven.
func (x *Executor) giveUp(ctx context.Context, j *Job, why *deadletter.Error) (done bool, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	if _, err := x.reaper.MarkDead(ctx, j.Ref.ID, j.Ref.RedriveCount, why); err != nil && !errors.Is(err, delivery.ErrNotFound) {
		x.log.WarnContext(ctx, "can't give up an action", "delivery", j.Ref.ID, "error", err)
		return false, x.maxBackoff
	}
	x.count("given_up")
	return true, 0
}

// holding is the work on an order whose claim this instance has.
type holding struct {
	*Executor
	Platform
	job   *Job
	order moderation.Command
	claim *delivery.Claim
}

// run works on the order. ctx ends when the instance has to leave, work does not.
func (h *holding) run(ctx, work context.Context) (done bool, wait time.Duration) {
	beginning, cancel := context.WithTimeout(work, writeTime)
	try, mayBeDone, err := h.records.begin(beginning, h.claim.ID(), h.job.Ref.RedriveCount, h.order, h.job.Event.CorrelationID)
	cancel()
	if err != nil {
		return h.release(ctx, work, Answer{Outcome: PutOff, Code: deadletter.PlatformUnavailable, Words: err.Error(), After: h.maxBackoff}, false)
	}
	switch try.Outcome {
	case Done, Held, Refused: // before somebody died who could not settle it any more
		return h.settle(ctx, work, Answer{Outcome: try.Outcome, Code: try.Code, Words: try.Answer}, true)
	}
	last := Answer{Outcome: PutOff, Code: deadletter.PlatformUnavailable, Words: "the lease or the claim ran out before it could be done"}
	for pause := h.backoff; ; pause = min(2*pause, h.maxBackoff) {
		order, left := h.remaining(try)
		switch {
		case !left:
			return h.settle(ctx, work, Answer{Outcome: Unknown, Words: "it may or may not have been done, and its time is over: " + last.Words}, false)
		case mayBeDone && !h.fresh():
			return h.settle(ctx, work, Answer{Outcome: Unknown, Words: last.Words}, false)
		case mayBeDone && (ctx.Err() != nil || !h.HoldsLease()):
			h.count("left") // the claim runs out, and the channel's next owner goes on
			return true, 0
		case ctx.Err() != nil || !h.HoldsLease() || !h.fresh():
			return h.release(ctx, work, last, true)
		}
		asking, cancel := context.WithTimeout(work, askTime)
		last = h.Act(asking, order)
		cancel()
		switch last.Outcome {
		case Done, Held, Refused:
			return h.settle(ctx, work, last, false)
		case PutOff:
			if !mayBeDone {
				return h.release(ctx, work, last, true)
			}
		default:
			mayBeDone = true
			h.log.WarnContext(ctx, "it is not known whether an action was done; asking again", "delivery", h.claim.ID(), "action", order.String(), "answer", last.Words)
		}
		sleep(ctx, max(last.After, pause))
	}
}

// remaining is the order with what is left of a time-out that may have begun already, and whether anything is.
func (h *holding) remaining(t Try) (o moderation.Command, left bool) {
	o = h.order
	if o.Kind == moderation.Timeout {
		o.Seconds -= int(max(0, h.now().Sub(t.BegunAt)) / time.Second)
	}
	return o, o.Kind != moderation.Timeout || o.Seconds > 0
}

func (h *holding) fresh() bool { return h.claim.Age() < h.patience }

// settle records what came of the order, in its record and then in the ledger, and tries for as long as the claim
// holds. recorded is whether the record has it already.
func (h *holding) settle(ctx, work context.Context, a Answer, recorded bool) (done bool, wait time.Duration) {
	id := h.claim.ID()
	as := string(a.Outcome)
	err := h.insist(work, func(ctx context.Context) error {
		if !recorded {
			if err := h.records.end(ctx, id, a); err != nil {
				return err
			}
			recorded = true
		}
		var state delivery.State
		var err error
		want := delivery.Dead
		switch a.Outcome {
		case Done, Held:
			want = delivery.Delivered
			state, err = h.claim.MarkDelivered(ctx, note(a))
		case Refused:
			state, err = h.reaper.MarkClaimDead(ctx, h.claim, deadletter.New(a.Code, errors.New(a.Words)))
		default:
			state, err = h.reaper.MarkClaimDead(ctx, h.claim, deadletter.New(deadletter.OutcomeUnknown, fmt.Errorf("the platform did not say what came of it: %s", a.Words)))
		}
		if err == nil && state != want {
			h.log.WarnContext(ctx, "an action was settled otherwise meanwhile", "delivery", id, "state", state, "outcome", a.Outcome)
			as = "late"
		}
		return err
	})
	if err != nil {
		h.log.WarnContext(ctx, "can't record what became of an action", "delivery", id, "outcome", a.Outcome, "error", err)
		as = "unrecorded"
	} else {
		h.log.InfoContext(ctx, "action", "delivery", id, "action", h.order.String(), "askedBy", h.order.By.UserID, "rule", h.order.By.Rule, "outcome", a.Outcome, "code", a.Code)
	}
	h.count(as)
	return true, 0
}

func note(a Answer) string {
	if a.Words == "" {
		return string(a.Outcome)
	}
	return string(a.Outcome) + ": " + a.Words
}

// release gives an order back that was certainly not done. begun is whether its record says that it was about to be.
func (h *holding) release(ctx, work context.Context, a Answer, begun bool) (done bool, wait time.Duration) {
	err := h.insist(work, func(ctx context.Context) error {
		if begun {
			if err := h.records.end(ctx, h.claim.ID(), a); err != nil {
				return err
			}
			begun = false
		}
		return h.claim.Release(ctx)
	})
	h.job.last = deadletter.New(a.Code, errors.New(a.Words))
	h.job.Ref, h.job.Begun = delivery.Ref{ID: h.job.Ref.ID, Deadline: h.job.Ref.Deadline, RedriveCount: h.job.Ref.RedriveCount}, false
	h.log.WarnContext(ctx, "an action has to wait", "delivery", h.claim.ID(), "action", h.order.String(), "code", a.Code, "answer", a.Words, "error", err)
	h.count(string(PutOff))
	return false, max(h.job.Ref.Wait(a.After, h.now()), h.backoff) // at the deadline it is given up with the reason
}

// insist tries to write something for a while.
func (h *holding) insist(ctx context.Context, write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	return h.claim.Persist(ctx, h.backoff, func() error { return write(ctx) })
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
