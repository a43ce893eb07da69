// Package outbox sends pending deliveries and moderation commands while this instance holds the platform's lease. The
// pending entries are in the ledger (package delivery).
//
// Start with [Dispatcher], which sends answers. A platform provides a [Platform], with a [Transport] for each answer;
// package delivery keeps the promise of one recorded outcome. [KeyedQueue] decides the order of the work.
// [NewCommands] makes a queue of moderation commands. The package does not know how a platform is reached.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// maxSending is how many answers a dispatcher sends at a time.
const maxSending = 16

// Platform is the part of a dispatcher that depends on the platform.
type Platform struct {
	// Pending reads the pending answers from the ledger, in the ledger's order. It may return claimed entries, too: an
	// instance stopped while sending, or did not learn the outcome. Claimed entries are skipped unless Repeats.
	Pending func(context.Context) ([]delivery.Entry, error)
	// Address returns the transport of an answer, and the key of the answer's queue. Answers with the same key are sent
	// in the ledger's order. An error makes the delivery dead as no_recipient.
	Address func(delivery.Ref, *event.Event) (key string, t Transport, err error)
	// Split returns the messages of an answer; none if nothing is left to send. It returns the same messages every time.
	Split func(*event.Event) []string
	// Repeats tells that the platform recognizes a message sent again, by delivery, redrive count and part: see
	// [delivery.Deduplicated]. Without Repeats, answers are [delivery.Never] repeated.
	Repeats bool
}

// Transport sends one answer, message by message. A transport is used by a single goroutine at a time.
type Transport interface {
	// Ready waits until connections and limits allow a message, or returns false and the obstacle: [delivery.Refused] is
	// permanent. part counts messages from 0. Before part 0 the answer is not claimed yet.
	Ready(ctx context.Context, part int) (delivery.Outcome, bool)
	// Send sends a message. It takes a few seconds at most. ctx is never done.
	Send(ctx context.Context, part int, text string) delivery.Outcome
}

// ReplyTarget returns the platform's id of the message under which an answer is shown: the message of the user who
// asked, or else the event's ReplyTo. Without such a message the id is empty. Only the platform can tell whether the id
// is valid.
func ReplyTarget(e *event.Event, on identity.Platform) string {
	if e.Message != nil && e.Message.Role == event.RoleUser && identity.PlatformOf(e.Source) == on && e.Message.ID != "" {
		return e.Message.ID // ReplyTo is then the message that the user replied to
	}
	return e.ReplyTo
}

// Dispatcher sends a platform's pending answers, each once. It is safe for concurrent use.
type Dispatcher struct {
	platform Platform
	options  Options
	executor *delivery.Executor
	queue    *KeyedQueue[*job]
	slots    chan struct{}
	stopped  context.Context // ends the sending of claimed answers; set by Run
}

// Options are the dependencies of a dispatcher. All fields are required.
type Options struct {
	Ledger     *delivery.Ledger
	Reaper     *delivery.Reaper
	HoldsLease func() bool // reports whether this instance holds the lease
	Log        *slog.Logger
	Now        func() time.Time
	Count      func(outcome string) // counts attempts by outcome
	Timing     Timing
}

// job is an answer in the queue.
type job struct {
	delivery.Job
	event     *event.Event
	key       string
	transport Transport
	invalid   error // the error of Address
}

// NewDispatcher makes a dispatcher that sends nothing before Run.
func NewDispatcher(p Platform, o Options) *Dispatcher {
	t := o.Timing
	d := &Dispatcher{platform: p, options: o, slots: make(chan struct{}, maxSending)}
	d.executor = &delivery.Executor{Ledger: o.Ledger, Reaper: o.Reaper, Log: o.Log, Now: o.Now, Count: o.Count, Timing: delivery.Timing{
		Backoff: t.Backoff, MaxBackoff: t.MaxBackoff, Retry: t.Retry, Claim: t.Claim, Settle: t.Claim / 2, Store: storeTime,
	}}
	d.queue = newKeyedQueue(work[*job]{
		Key:  func(j *job) (id, key string) { return jobID(j.Ref), j.key },
		Find: d.find, Do: d.send, Log: o.Log, Timing: t,
	})
	return d
}

// jobID names a job. A redriven delivery is another job, because the waiting job does not know about the redrive.
func jobID(r delivery.Ref) string { return fmt.Sprintf("%s %d", r.ID, r.RedriveCount) }

// Enqueue adds an answer from the bus, and returns before the answer is sent. If this instance stops before, the next
// owner of the lease finds the answer in the ledger.
func (d *Dispatcher) Enqueue(ref delivery.Ref, e *event.Event) { d.queue.Enqueue(d.job(ref, e)) }

func (d *Dispatcher) job(ref delivery.Ref, e *event.Event) *job {
	j := &job{Job: delivery.Job{Ref: ref}, event: e}
	j.key, j.transport, j.invalid = d.platform.Address(ref, e)
	return j
}

// Run sends answers until ctx is done, and finishes claimed answers until stopped is done. The caller calls Run once.
func (d *Dispatcher) Run(ctx, stopped context.Context) {
	d.stopped = stopped
	d.queue.Run(ctx)
}

func (d *Dispatcher) find(ctx context.Context) (found []*job, err error) {
	entries, err := d.platform.Pending(ctx)
	for _, e := range entries {
		begun := e.State == delivery.Claimed
		if begun && !d.platform.Repeats {
			continue
		}
		if decoded := decode(ctx, e, d.options.Log); decoded != nil {
			j := d.job(e.Ref(), decoded)
			j.Begun = begun
			found = append(found, j)
		}
	}
	return found, err
}

// decode decodes the event of an entry. An invalid event gives nil; the sweep marks its entry dead.
func decode(ctx context.Context, e delivery.Entry, log *slog.Logger) *event.Event {
	decoded, err := event.Decode(e.Event)
	if err != nil {
		log.ErrorContext(ctx, "event of a delivery is invalid", "delivery", e.ID, "error", err)
	}
	return decoded
}

// send makes one attempt at an answer. Unless done, the next attempt follows after wait.
func (d *Dispatcher) send(ctx context.Context, j *job) (done bool, wait time.Duration) {
	texts := d.platform.Split(j.event)
	slot := false
	defer func() {
		if slot {
			<-d.slots
		}
	}()
	a := delivery.Attempt{Parts: len(texts), HoldsLease: d.options.HoldsLease}
	if d.platform.Repeats {
		a.Repeat = delivery.Deduplicated
	}
	a.Ready = func(ctx context.Context, part int) (delivery.Outcome, bool) {
		switch {
		case j.invalid != nil:
			return delivery.Outcome{Kind: delivery.Refused, Reason: deadletter.NoRecipient, Err: j.invalid}, false
		case len(texts) == 0:
			return delivery.Outcome{Kind: delivery.Refused, Reason: deadletter.NoText, Err: errors.New("nothing is left of the text that can be sent in a chat")}, false
		}
		o, ready := j.transport.Ready(ctx, part)
		if ready && part == 0 { // a slot is for answers that can be sent at once
			select {
			case d.slots <- struct{}{}:
				slot = true
			case <-ctx.Done():
			}
		}
		return o, ready
	}
	a.Try = func(ctx context.Context, part int) delivery.Outcome {
		return j.transport.Send(context.WithoutCancel(ctx), part, texts[part])
	}
	r := d.executor.Execute(ctx, d.stopped, &j.Job, a)
	return r.Done, r.Wait
}
