package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/retry"
)

// Kind is the result of asking a platform once to send a message or to perform an action.
type Kind int

// The kinds.
const (
	NotSent Kind = iota // certainly not sent; a later try may succeed
	Sent                // the platform confirmed the message or the action
	Refused             // certainly not sent; no later try will succeed
	Unknown             // no answer: the message may or may not have been sent
)

// Outcome is a kind with its details. The zero value is a message that was not sent because nothing is connected.
type Outcome struct {
	Kind   Kind
	Note   string            // of Sent, for the ledger: the platform's id of the message, or the platform's words
	Reason deadletter.Reason // of Refused and NotSent; empty if nothing is connected
	Err    error             // the cause; nil for Sent, and for a NotSent without a cause
	After  time.Duration     // the pause before the next try makes sense
	Label  string            // the word for [Executor.Count]; empty for the default of the kind
}

// Repeat says what a second try of the same delivery does on the platform. It decides how an [Executor] claims, and how
// it handles an unknown outcome.
type Repeat int

const (
	// Never repeat: a second try may send a second message. An unknown outcome leaves the claim to the sweep, for
	// [deadletter.OutcomeUnknown]. A delivery of several messages continues even after the lease was lost, because no
	// other instance can continue.
	Never Repeat = iota

	// Deduplicated: the platform recognizes a repeated message, and sends the message once. An unknown outcome is tried
	// again while the claim may be used. A refusal of such a repetition proves nothing about the first try, and is
	// tried again, too. Then the claim is left, and the next owner of the lease calls [Ledger.ForceClaim].
	Deduplicated

	// Idempotent: repeating the action has the same effect. An unknown outcome is tried again, and the last answer
	// counts, even a refusal. When the claim may not be used any more, the delivery is dead as
	// [deadletter.OutcomeUnknown]. If ctx ends or the lease is lost before, the claim is left to expire, and the next
	// owner of the lease calls [Ledger.Reclaim]. A job with Begun is executed even after its deadline.
	Idempotent
)

// Job is a delivery that an instance executes, with its state between two calls of [Executor.Execute].
type Job struct {
	Ref   Ref
	Begun bool              // an earlier claim was left: the message may have been sent
	Last  *deadletter.Error // the cause of the last postponement: the dead-letter reason at the deadline; nil for none
}

// Attempt is the platform's part of an execution. A single goroutine calls the functions, one after the other.
type Attempt struct {
	Parts  int // messages of the delivery, at least 1
	Repeat Repeat
	// HoldsLease reports whether this instance may act for the recipient; nil if no lease is needed.
	HoldsLease func() bool
	// Ready waits for connections and limits before a part is sent. false means that the part can't be sent now. Parts
	// count from 0. Ready is called for part 0 before the claim, so a crash while waiting leaves nothing behind. nil is
	// always ready.
	Ready func(ctx context.Context, part int) (o Outcome, ready bool)
	// Begin runs once, after the claim, and returns the outcome of earlier executions. Unknown means a possible earlier
	// try; Sent and Refused only have to be settled; NotSent means no earlier try, and NotSent with an error postpones
	// the delivery. nil is Unknown if the job has begun, and NotSent otherwise.
	Begin func(ctx context.Context, c *Claim) Outcome
	// Try sends a part once. ctx ends with the time of the claim, or when the instance stops.
	Try func(ctx context.Context, part int) Outcome
	// Record stores the outcome outside of the ledger, before the entry is settled. After an error, Record is called
	// again. nil records nothing.
	Record func(ctx context.Context, o Outcome) error
}

// Report is the result of [Executor.Execute].
type Report struct {
	Done  bool          // nothing is left to do in this instance
	Wait  time.Duration // the pause before the next call, if not Done
	State State         // of the entry at the end; empty if not known
	Err   error         // of the ledger or of Record; matches [ErrNotFound] if the entry does not exist
}

// Timing holds an executor's times. All must be positive.
type Timing struct {
	Backoff    time.Duration // the first pause between two tries, and the least pause before a postponed job
	MaxBackoff time.Duration // the longest pause between two tries, unless the platform asks for more
	Retry      time.Duration // the pause after the ledger failed
	Claim      time.Duration // the age at which a claim is not used for another try; less than [ClaimLease]
	Settle     time.Duration // how long settling is tried, at least one call
	Store      time.Duration // the limit of one call of the store
}

// Executor executes deliveries: it claims, tries, and settles. Each call of [Executor.Execute] is one execution:
//
//	deadline over         dead for the last cause; left to the sweep without a cause
//	refused before claim  dead
//	not ready             postponed: the caller calls again
//	claimed elsewhere     done here
//	sent                  settled as delivered
//	refused               settled as dead
//	certainly not sent    released and postponed
//	unknown               tried again or left: see [Repeat]
//
// A delivery of several messages can't be released after the first message, because the first would be sent again. With
// [Never], a later message may pass the age of the claim: the executor extends the claim until the deadline while ctx is
// not done. If a later message is refused, or not sent in time, the delivery is dead: for the platform's reason, or as
// [deadletter.Incomplete] with the last cause. An Executor is safe for concurrent use.
type Executor struct {
	Ledger *Ledger
	Reaper *Reaper
	Log    *slog.Logger
	Now    func() time.Time
	Count  func(outcome string) // counts executions by outcome; nil for no counts
	Timing Timing
}

// Execute executes a delivery once. After ctx is done, Execute begins nothing new, but finishes a claimed delivery
// until stopped is done. Then it does not try again, and settles with a single call. An [Idempotent] delivery is not
// tried again after ctx is done, because the next owner of the lease can continue; stopped does not shorten its
// settling. Execute waits for Ready and Try; both should return soon after their context is done.
func (x *Executor) Execute(ctx, stopped context.Context, j *Job, a Attempt) Report {
	if a.HoldsLease == nil {
		a.HoldsLease = func() bool { return true }
	}
	e := &execution{Executor: x, Attempt: a, job: j}
	if !a.HoldsLease() {
		return Report{Wait: x.Timing.Backoff}
	}
	if overdue := !j.Ref.Deadline.IsZero() && x.Now().After(j.Ref.Deadline); overdue && !(j.Begun && a.Repeat == Idempotent) {
		if j.Last != nil {
			return e.markDead(ctx, j.Last)
		}
		e.count("overdue") // nothing was connected: the sweep marks the delivery dead as no_connection
		return Report{Done: true}
	}
	if a.Ready != nil {
		o, ready := a.Ready(ctx, 0)
		switch {
		case ctx.Err() != nil:
			return Report{}
		case !ready && o.Kind == Refused:
			return e.markDead(ctx, deadletter.New(o.Reason, o.Err))
		case !ready:
			return e.postpone(ctx, o)
		}
	}
	if ctx.Err() != nil || !a.HoldsLease() {
		return Report{Wait: x.Timing.Backoff}
	}
	if r, ok := e.take(ctx); !ok {
		return r
	}
	if a.Repeat == Idempotent {
		return e.settle(ctx, context.WithoutCancel(stopped), e.try(ctx, ctx))
	}
	return e.settle(ctx, stopped, e.try(ctx, stopped))
}

// execution is one call of Execute.
type execution struct {
	*Executor
	Attempt
	job   *Job
	claim *Claim
}

func (e *execution) count(outcome string) {
	if e.Count != nil {
		e.Count(outcome)
	}
}

// store returns the context of one call of the store. It outlasts ctx: a claim has to be settled.
func (e *execution) store(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), e.Timing.Store)
}

// take claims the delivery. Without a claim it returns the report.
func (e *execution) take(ctx context.Context) (r Report, ok bool) {
	take, id := e.Ledger.Claim, e.job.Ref.ID
	switch {
	case e.Repeat == Idempotent:
		take = e.Ledger.Reclaim
	case e.Repeat == Deduplicated && e.job.Begun: // only the owner of the lease sends, and has one job for the delivery
		take = e.Ledger.ForceClaim
	}
	storing, cancel := e.store(ctx)
	defer cancel()
	claim, state, err := take(storing, e.job.Ref)
	switch {
	case errors.Is(err, ErrNotFound):
		e.Log.WarnContext(ctx, "delivery not in the ledger", "delivery", id)
		e.count("unknown_delivery")
		return Report{Done: true, Err: err}, false
	case err != nil:
		e.Log.WarnContext(ctx, "claim failed", "delivery", id, "error", err)
		return Report{Wait: e.Timing.Retry, Err: err}, false
	case claim == nil:
		e.count("had_" + string(state))
		return Report{Done: true, State: state}, false
	}
	e.claim = claim
	return Report{}, true
}

// try sends all parts until stopped is done, and returns the outcome of the delivery. Unknown means: leave the claim.
// After leaving is done, the claim is not extended.
func (e *execution) try(leaving, stopped context.Context) Outcome {
	begun := e.job.Begun
	if e.Begin != nil {
		ctx, cancel := context.WithTimeout(stopped, e.Timing.Claim-e.claim.Age())
		o := e.Begin(ctx, e.claim)
		cancel()
		if o.Kind == Sent || o.Kind == Refused || o.Kind == NotSent && o.Err != nil {
			return o
		}
		begun = o.Kind == Unknown
	}
	t := &attempts{execution: e, leaving: leaving, begun: begun, doubt: begun, backoff: retry.NewBackoff(e.Timing.Backoff, e.Timing.MaxBackoff)}
	t.last = Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("the lease or the claim ended before the first try")}
	for t.part < e.Parts {
		if o, done := t.next(stopped); done {
			return o
		}
	}
	return Outcome{Kind: Sent, Note: strings.Join(t.notes, " "), Label: t.label}
}

// attempts is the state of sending the parts of a claimed delivery.
type attempts struct {
	*execution
	leaving  context.Context
	begun    bool      // an earlier execution may have sent the parts
	doubt    bool      // the current part may have been sent
	part     int       // the current part, from 0
	resumeAt time.Time // the end of the pause before the current part; zero for none
	last     Outcome   // of the current part; zero before
	notes    []string  // of the sent parts
	label    string    // of the last sent part
	backoff  *retry.Backoff
}

// extendable reports whether the claim may be extended. Only a half sent answer needs the extension: anything else can
// be released, or be continued by another instance. The deadline bounds the extension.
func (t *attempts) extendable() bool {
	end := t.job.Ref.Deadline
	return t.part > 0 && t.Repeat == Never && t.leaving.Err() == nil && t.Now().Before(end)
}

// window extends the claim if necessary, and returns the time until the claim needs the next decision.
func (t *attempts) window(ctx context.Context) time.Duration {
	half := t.Timing.Claim / 2
	if !t.extendable() {
		return t.Timing.Claim - t.claim.Age()
	}
	if t.claim.Age() >= half {
		storing, cancel := t.store(ctx)
		defer cancel()
		switch held, err := t.claim.Extend(storing); {
		case err != nil:
			t.Log.WarnContext(ctx, "claim extension failed", "delivery", t.job.Ref.ID, "error", err)
			return min(t.Timing.Retry, t.Timing.Claim-t.claim.Age())
		case !held:
			return 0 // settled by the sweep: nothing more may be sent
		}
	}
	return half - t.claim.Age()
}

// next waits for the current part's turn, and tries the part once. It returns the outcome of the delivery when done.
// A wait ends with the claim's window; the next call continues the wait.
func (t *attempts) next(stopped context.Context) (o Outcome, done bool) {
	window := t.window(stopped)
	ctx, cancel := context.WithTimeout(stopped, window)
	defer cancel()
	ready := true
	if pause := time.Until(t.resumeAt); pause > 0 && retry.Sleep(ctx, pause) != nil {
		ready = false
	} else if t.part > 0 && t.Ready != nil {
		o, ready = t.Ready(ctx, t.part)
	}
	old := t.claim.Age() >= t.Timing.Claim || window <= 0 || errors.Is(ctx.Err(), context.DeadlineExceeded) && !t.extendable()
	switch {
	// without the lease, no part may be sent that the next owner may send, too
	case old, stopped.Err() != nil, !t.HoldsLease() && (t.part == 0 || t.Repeat != Never):
		return t.stop(t.part, t.doubt, old, t.last), true
	case ctx.Err() != nil:
		return Outcome{}, false // the claim can be extended
	}
	if ready {
		o = t.Try(ctx, t.part)
	}
	return t.judge(ctx, o)
}

// judge handles the outcome of one try. It returns the outcome of the delivery when done.
func (t *attempts) judge(ctx context.Context, o Outcome) (Outcome, bool) {
	switch {
	case o.Kind == Sent:
		t.notes, t.label = append(t.notes, o.Note), o.Label
		t.part++
		t.doubt, t.last, t.resumeAt = t.begun, Outcome{}, time.Time{}
		t.backoff.Reset()
		return o, false
	case o.Kind == Refused && (!t.doubt || t.Repeat == Idempotent), o.Kind == Unknown && t.Repeat == Never:
		if t.Parts > 1 {
			o.Err = fmt.Errorf("message %d of %d: %w", t.part+1, t.Parts, o.Err)
		}
		return o, true
	case o.Kind == NotSent && t.part == 0 && !t.doubt:
		return o, true
	}
	pause := t.Timing.Backoff
	if o.Kind == Unknown || t.Repeat == Idempotent {
		pause = t.backoff.Next()
	}
	if o.Kind == Unknown {
		t.doubt = true
		t.Log.WarnContext(ctx, "outcome unknown: trying again", "delivery", t.job.Ref.ID, "error", o.Err)
	}
	t.last, t.resumeAt = o, time.Now().Add(max(o.After, pause))
	return o, false
}

// stop returns the outcome of a delivery that must not be tried any more. part is the next part. doubt means that the
// part may have been sent, old that the claim is too old.
func (e *execution) stop(part int, doubt, old bool, last Outcome) Outcome {
	switch {
	case doubt && old && e.Repeat == Idempotent:
		return Outcome{Kind: Refused, Reason: deadletter.OutcomeUnknown, Err: fmt.Errorf("the platform did not report the outcome: %w", last.Err), Label: "unknown"}
	case doubt && e.Repeat == Idempotent: // the next owner of the lease continues
		return Outcome{Kind: Unknown, Err: last.Err, Label: "left"}
	case doubt:
		return Outcome{Kind: Unknown, Err: last.Err}
	case part > 0:
		err := fmt.Errorf("only %d of %d messages could be sent in time", part, e.Parts)
		if last.Err != nil {
			err = fmt.Errorf("%w: %w", err, last.Err)
		}
		return Outcome{Kind: Refused, Reason: deadletter.Incomplete, Err: err}
	}
	return last
}

// settle records the outcome of the claimed delivery. No other instance knows the outcome, so a single failed write
// would end the delivery as outcome_unknown. Therefore settle tries for [Timing.Settle], at most until the claim expires
// or stopped is done. Each way to settle recognizes an earlier write without an answer.
func (e *execution) settle(ctx, stopped context.Context, o Outcome) Report {
	id := e.job.Ref.ID
	if o.Kind == Unknown {
		e.Log.WarnContext(ctx, "outcome unknown: claim left", "delivery", id, "error", o.Err)
		e.count(cmp.Or(o.Label, "unknown"))
		return Report{Done: true, State: Claimed}
	}
	want, label, write := e.outcome(o)
	recorded := e.Record == nil
	attempt := func(limit time.Duration) (state State, err error) {
		storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		if !recorded {
			if err := e.Record(storing, o); err != nil {
				return "", err
			}
			recorded = true
		}
		return write(storing)
	}
	settling, cancel := context.WithTimeout(stopped, e.Timing.Settle)
	defer cancel()
	end := time.Now().Add(e.Timing.Settle)
	state, err := attempt(e.Timing.Store)
	for err != nil {
		e.Log.WarnContext(ctx, "settle failed", "delivery", id, "outcome", label, "error", err)
		if retry.Sleep(settling, e.Timing.Backoff) != nil || e.claim.Age() >= ClaimLease {
			break
		}
		state, err = attempt(min(e.Timing.Store, time.Until(end)))
	}
	switch {
	case err != nil:
		label = "unrecorded"
	case state != want:
		e.Log.WarnContext(ctx, "delivery was settled before", "delivery", id, "outcome", label, "state", state)
		label = "late"
	}
	e.count(label)
	if o.Kind == NotSent {
		e.job.Begun, e.job.Ref.version = false, time.Time{}
		r := e.postpone(ctx, o)
		r.Err = err
		return r
	}
	return Report{Done: true, State: state, Err: err}
}

// outcome returns the state to reach for an outcome, the word for its count, and the write.
func (e *execution) outcome(o Outcome) (want State, label string, write func(context.Context) (State, error)) {
	switch o.Kind {
	case Sent:
		return Delivered, cmp.Or(o.Label, "delivered"), func(ctx context.Context) (State, error) { return e.claim.MarkDelivered(ctx, o.Note) }
	case Refused:
		return Dead, cmp.Or(o.Label, "refused"), func(ctx context.Context) (State, error) {
			return e.Reaper.MarkClaimDead(ctx, e.claim, deadletter.New(o.Reason, o.Err))
		}
	}
	return Pending, cmp.Or(o.Label, "released"), func(ctx context.Context) (State, error) { return Pending, e.claim.Release(ctx) }
}

// markDead marks an unclaimed delivery dead. If the delivery was claimed or redriven meanwhile, nothing changes.
func (e *execution) markDead(ctx context.Context, why *deadletter.Error) Report {
	storing, cancel := e.store(ctx)
	defer cancel()
	state, err := e.Reaper.MarkDead(storing, e.job.Ref.ID, e.job.Ref.RedriveCount, why)
	if err != nil && !errors.Is(err, ErrNotFound) {
		e.Log.WarnContext(ctx, "mark dead failed", "delivery", e.job.Ref.ID, "error", err)
		return Report{Wait: e.Timing.Retry, Err: err}
	}
	e.count("given_up")
	return Report{Done: true, State: state, Err: err}
}

// postpone keeps the cause for the deadline. The pause ends at the deadline, because the sweep does not know the cause.
func (e *execution) postpone(ctx context.Context, o Outcome) Report {
	j := e.job
	if o.Err != nil {
		j.Last = nil
		if o.Reason != "" {
			j.Last = deadletter.New(o.Reason, o.Err)
		}
		e.Log.WarnContext(ctx, "delivery postponed", "delivery", j.Ref.ID, "reason", o.Reason, "error", o.Err)
	}
	return Report{Wait: max(j.Ref.Wait(o.After, e.Now()), e.Timing.Backoff), State: Pending}
}
