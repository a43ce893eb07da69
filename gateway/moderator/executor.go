// Package moderator executes moderation commands (package moderation) on a platform, and keeps a record of each.
//
// Start with [Executor]. A gateway provides a [Platform], which asks the platform once; package delivery claims, repeats
// and settles. The package does not know how a platform is reached.
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
	// claimTime is the age at which a claim is not used for a new try. The last try, its record and the settling still
	// end before the claim expires.
	claimTime = 30 * time.Second
	// tryTime is the limit of one try, a new token included.
	tryTime = 15 * time.Second
	// storeTime is the limit of one call of the store, and of settling.
	storeTime = 10 * time.Second
	// backoff is the first pause between two tries. The longest is maxBackoffs times as long.
	backoff     = 500 * time.Millisecond
	maxBackoffs = 8
)

// Executor executes commands for a platform, each once. It is safe for concurrent use.
//
// An execution claims the command in the ledger, records the beginning, acts, records the outcome, and settles, in this
// order. After a crash the claim expires, and the record shows the progress. The actions of this package are
// [delivery.Idempotent]: the next owner of the claim repeats the action or, if the record has the outcome, only
// settles. If the platform does not answer during the claim, the command ends as [deadletter.OutcomeUnknown].
type Executor struct {
	delivery *delivery.Executor
	records  *Records
}

// Options configure an executor.
type Options struct {
	Log     *slog.Logger         // required
	Now     func() time.Time     // time.Now if nil
	Count   func(outcome string) // counts calls of Execute by outcome: an [Outcome] or another word; nil for no counts
	Backoff time.Duration        // the first pause before a second try, growing eightfold; 500 ms if 0
}

// NewExecutor makes an executor.
func NewExecutor(l *delivery.Ledger, reaper *delivery.Reaper, r *Records, o Options) *Executor {
	x := &Executor{records: r, delivery: &delivery.Executor{Ledger: l, Reaper: reaper, Log: o.Log, Now: o.Now, Count: o.Count}}
	if o.Now == nil {
		x.delivery.Now = time.Now
	}
	if o.Backoff <= 0 {
		o.Backoff = backoff
	}
	longest := maxBackoffs * o.Backoff
	x.delivery.Timing = delivery.Timing{Backoff: o.Backoff, MaxBackoff: longest, Retry: longest, Claim: claimTime, Settle: storeTime, Store: storeTime}
	return x
}

// Job is a command received by a gateway, with its state between two calls of Execute.
type Job struct {
	delivery.Job
	Event *event.Event
}

// Platform is the part of an execution that depends on the platform.
type Platform struct {
	// HoldsLease reports whether this instance holds the lease of the channel.
	HoldsLease func() bool
	// Act asks the platform once. The platform may have performed the same command before.
	Act func(ctx context.Context, c moderation.Command) Answer
}

// Execute executes a command once. Unless done, the caller calls Execute again after wait. When ctx is done, Execute
// returns early, but an action already begun is recorded and settled.
func (x *Executor) Execute(ctx context.Context, j *Job, p Platform) (done bool, wait time.Duration) {
	w := &execution{records: x.records, job: j, act: p.Act, now: x.delivery.Now, retry: x.delivery.Timing.Retry}
	r := x.delivery.Execute(ctx, ctx, &j.Job, delivery.Attempt{
		Parts: 1, Repeat: delivery.Idempotent, HoldsLease: p.HoldsLease,
		Ready: w.parse, Begin: w.begin, Try: w.try, Record: w.record,
	})
	if w.claim != nil && r.Done && r.Err == nil && r.State != delivery.Claimed {
		x.delivery.Log.InfoContext(ctx, "action", "delivery", j.Ref.ID, "action", w.command.String(), "askedBy", w.command.By.UserID,
			"rule", w.command.By.Rule, "outcome", w.answer.Outcome, "code", w.answer.Code, "answer", w.answer.Words)
	}
	return r.Done, r.Wait
}

// execution is the work on one command.
type execution struct {
	records *Records
	job     *Job
	act     func(context.Context, moderation.Command) Answer
	now     func() time.Time
	retry   time.Duration

	command  moderation.Command
	claim    *delivery.Claim
	begunAt  time.Time
	answer   Answer // the last
	recorded bool   // the record has the outcome, or there is no record
}

func (w *execution) parse(context.Context, int) (o delivery.Outcome, ready bool) {
	var err error
	if w.command, err = moderation.Read(w.job.Event); err != nil {
		return delivery.Outcome{Kind: delivery.Refused, Reason: deadletter.InvalidEvent, Err: err}, false
	}
	return o, true
}

// begin records the beginning, and returns the outcome of earlier executions.
func (w *execution) begin(ctx context.Context, c *delivery.Claim) delivery.Outcome {
	w.claim = c
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	t, mayBeDone, err := w.records.begin(ctx, c.ID(), w.job.Ref.RedriveCount, w.command, w.job.Event.CorrelationID)
	w.begunAt = t.BegunAt
	switch {
	case err != nil:
		w.recorded = true
		return Answer{Outcome: PutOff, Code: deadletter.PlatformUnavailable, Words: err.Error(), After: w.retry}.outcome()
	case t.Outcome == Done || t.Outcome == Held || t.Outcome == Refused: // the instance crashed before it settled
		w.recorded, w.answer = true, Answer{Outcome: t.Outcome, Code: t.Code, Words: t.Answer}
		return w.answer.outcome()
	case mayBeDone:
		return delivery.Outcome{Kind: delivery.Unknown}
	}
	return delivery.Outcome{}
}

// try asks the platform once. A time-out that may have begun already is shortened by the time since.
func (w *execution) try(ctx context.Context, _ int) delivery.Outcome {
	c := w.command
	if c.Kind == moderation.Timeout {
		if c.Seconds -= int(max(0, w.now().Sub(w.begunAt)) / time.Second); c.Seconds <= 0 {
			err := fmt.Errorf("the platform did not report the outcome, and the time-out is over: %s", w.answer.Words)
			return delivery.Outcome{Kind: delivery.Refused, Reason: deadletter.OutcomeUnknown, Err: err, Label: string(Unknown)}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryTime)
	defer cancel()
	w.answer = w.act(ctx, c)
	return w.answer.outcome()
}

// outcome translates an answer for package delivery.
func (a Answer) outcome() delivery.Outcome {
	o := delivery.Outcome{Reason: a.Code, Err: errors.New(a.Words), After: a.After, Label: string(a.Outcome)}
	switch a.Outcome {
	case Done, Held:
		o.Kind, o.Note = delivery.Sent, string(a.Outcome)
		if a.Words != "" {
			o.Note += ": " + a.Words
		}
	case Refused:
		o.Kind = delivery.Refused
	case PutOff:
		o.Kind = delivery.NotSent
	default:
		o.Kind = delivery.Unknown
	}
	return o
}

// record writes the outcome of the execution to the record.
func (w *execution) record(ctx context.Context, o delivery.Outcome) error {
	if w.recorded {
		return nil
	}
	switch {
	case o.Kind == delivery.Refused && o.Label == string(Unknown):
		w.answer = Answer{Outcome: Unknown, Words: o.Err.Error()}
	case o.Kind == delivery.NotSent:
		w.answer.Outcome, w.answer.Code, w.answer.Words = PutOff, o.Reason, o.Err.Error() // the user may be known by now
	}
	return w.records.end(ctx, w.claim.ID(), w.answer)
}
