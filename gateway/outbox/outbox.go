// Package outbox does what a platform is owed, while this instance has the lease for it: it says answers, each once, and
// has moderators' orders carried out. What is owed stands in the ledger (package egress).
//
// A [Dispatcher] is what keeps the promise that an answer ends in one recorded outcome. A platform's part tells it only how
// one message is said there, and what came of that. [KeyedQueue] are the order in which a speaker works, and orders are
// carried out ([NewCommands]).
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"parley.internal/shared/answer"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// speaking is how many answers a speaker says at a time.
const speaking = 16

// Platform is what is a platform's own.
type Platform struct {
	// Pending finds the answers to be said in the ledger, in its order. Those that are claimed somebody else has begun to say
	// who is not there any more, or this instance, without learning what came of it; they are left alone unless the
	// platform repeats.
	Pending func(context.Context) ([]delivery.Entry, error)
	// Address finds where an answer goes. Those with the same line are said in the order of the ledger. An error says that
	// it goes nowhere.
	Address func(delivery.Ref, *event.Event) (line string, v Transport, err error)
	// Split makes the messages of a text; none if nothing is left that can be said.
	Split func(text string) []string
	// Repeats is whether a message that was sent again by the same delivery, attempt and part is taken once: then what
	// nobody knows of is sent again, and what was begun is taken over.
	Repeats bool
}

// Transport says one answer, one message at a time. It is used by one goroutine at a time.
type Transport interface {
	// Ready returns when a message may be said, as far as connections and limits go, or with false and what stands in the
	// way: [Refused] for good, or else for a while. part counts messages from 0; before that one nobody has claimed the
	// answer yet.
	Ready(ctx context.Context, part int) (Outcome, bool)
	// Send says a message. What it does takes a few seconds at most, whatever ctx.
	Send(ctx context.Context, part int, text string) Outcome
}

// Outcome is what came of one message.
type Outcome struct {
	Kind   Kind
	ID     string            // the platform's, of what was said
	Reason deadletter.Reason // with which the answer ends because of this; empty if that is nobody being connected
	Err    error             // what stands in the way; nil if it is nothing but time
	After  time.Duration     // before it makes sense to try again
}

// Kind is what is known of a message.
type Kind int

const (
	NotSent Kind = iota // it is certain that it was not said, and it may be said later
	Sent                // the platform says so
	Refused             // the platform says that it will not
	Unknown             // nobody can tell
)

// ReplyTarget is a platform's id of the message that an answer is shown under: the one that asked, or, of what a program says
// by itself, the one that it names. Whether it is one of the platform's own is for the platform to tell; it is empty if
// there is none.
func ReplyTarget(e *event.Event, on identity.Platform) string {
	if e.Message != nil && e.Message.Role == event.RoleUser && identity.PlatformOf(e.Source) == on && e.Message.ID != "" {
		return e.Message.ID // replyTo is then what the user's own message answered
	}
	return e.ReplyTo
}

// Dispatcher says the answers that a platform is owed, each once: it is claimed in the ledger before it is said, and what
// came of it is recorded there after. It is safe for concurrent use.
type Dispatcher struct {
	platform Platform
	Options
	lines   *KeyedQueue[*job]
	slots   chan struct{}
	stopped context.Context // what is being said then is left as it is
}

// Options are what a speaker needs. All must be set.
type Options struct {
	Ledger     *delivery.Ledger
	Reaper     *delivery.Reaper
	HoldsLease func() bool // whether this instance has the lease
	Log        *slog.Logger
	Now        func() time.Time
	Count      func(outcome string) // is told how each attempt at an answer ended
	Timing     Timing
}

// answer is one that is to be said.
type job struct {
	ref     delivery.Ref
	event   *event.Event
	line    string
	voice   Transport
	nowhere error             // where it can't go; nil if it can
	begun   bool              // somebody may have said it, or a part of it, already
	last    *deadletter.Error // what stood in the way so far; nil if nothing did
}

// NewDispatcher makes a speaker that says nothing before Run.
func NewDispatcher(p Platform, o Options) *Dispatcher {
	s := &Dispatcher{platform: p, Options: o, slots: make(chan struct{}, speaking)}
	s.lines = NewKeyedQueue(Work[*job]{
		Key:  func(a *job) (id, line string) { return attempt(a.ref), a.line },
		Find: s.find, Do: s.say, Log: o.Log, Timing: o.Timing,
	})
	return s
}

// attempt names a job. What was redriven is another one: of an entry that was given up and opened anew, the one that waits
// here may know nothing.
func attempt(r delivery.Ref) string { return fmt.Sprintf("%s %d", r.ID, r.RedriveCount) }

// Enqueue takes an answer that came by the bus. It is not said yet when Take returns; if it never is, the next who has the
// lease finds it in the ledger.
func (s *Dispatcher) Enqueue(ref delivery.Ref, e *event.Event) { s.lines.Enqueue(s.answer(ref, e)) }

func (s *Dispatcher) answer(ref delivery.Ref, e *event.Event) *job {
	a := &job{ref: ref, event: e}
	a.line, a.voice, a.nowhere = s.platform.Address(ref, e)
	return a
}

// Run speaks until ctx is done. What is being said then is brought to its end, until stopped is done. It must be called
// once.
func (s *Dispatcher) Run(ctx, stopped context.Context) {
	s.stopped = stopped
	s.lines.Run(ctx)
}

func (s *Dispatcher) find(ctx context.Context) (found []*job, err error) {
	entries, err := s.platform.Pending(ctx)
	for _, e := range entries {
		begun := e.State == delivery.Claimed
		if begun && !s.platform.Repeats {
			continue
		}
		if decoded := decode(ctx, e, s.Log); decoded != nil {
			a := s.answer(e.Ref(), decoded)
			a.begun = begun
			found = append(found, a)
		}
	}
	return found, err
}

// decode reads the event of an entry. One that can't be read is left to be swept.
func decode(ctx context.Context, e delivery.Entry, log *slog.Logger) *event.Event {
	decoded, err := event.Decode(e.Event)
	if err != nil {
		log.ErrorContext(ctx, "the event of a delivery can't be read", "delivery", e.ID, "error", err)
	}
	return decoded
}

// say says one answer, and reports whether there is nothing left to do about it here; if there is, it is to be tried
// again after wait.
func (s *Dispatcher) say(ctx context.Context, a *job) (done bool, wait time.Duration) {
	if !s.HoldsLease() {
		return false, s.Timing.Backoff // until ctx ends
	}
	// Close to the deadline the sweep may give it up at any moment.
	if !a.ref.Deadline.IsZero() && s.Now().After(a.ref.Deadline) {
		if a.last != nil {
			return s.giveUp(ctx, a, a.last)
		}
		s.Count("overdue") // nobody was connected: the sweep gives it up as that
		return true, 0
	}
	if a.nowhere != nil {
		return s.giveUp(ctx, a, deadletter.New(deadletter.NoRecipient, a.nowhere))
	}
	texts := s.platform.Split(answer.Text(a.event))
	if len(texts) == 0 {
		return s.giveUp(ctx, a, deadletter.New(deadletter.NoText, errors.New("nothing is left of the text that can be said in a chat")))
	}
	o, ready := a.voice.Ready(ctx, 0)
	switch {
	case ctx.Err() != nil:
		return false, 0
	case !ready && o.Kind == Refused:
		return s.giveUp(ctx, a, deadletter.New(o.Reason, o.Err))
	case !ready:
		return s.putOff(ctx, a, o)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return false, 0
	}
	if ctx.Err() != nil || !s.HoldsLease() {
		return false, s.Timing.Backoff
	}

	claiming, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime) // what is claimed is brought to its end
	defer cancel()
	take := s.Ledger.Claim
	if a.begun {
		take = s.Ledger.ForceClaim // the lease's owner alone says anything, and here is the only line that has it
	}
	claim, state, err := take(claiming, a.ref)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		s.Log.WarnContext(ctx, "the ledger has no entry for an answer: not said", "delivery", a.ref.ID)
		s.Count("unknown_delivery")
		return true, 0
	case err != nil:
		s.Log.WarnContext(ctx, "can't claim an answer", "delivery", a.ref.ID, "error", err)
		return false, s.Timing.Retry
	case claim == nil:
		s.Count("had_" + string(state))
		return true, 0
	}
	return s.sayClaimed(a, claim, texts)
}

// sayClaimed says what this instance alone may say.
//
// Several messages are one delivery. Once one of them stands in the chat, the answer can't be given back, for it would
// be said again from the start: a later message that is refused makes the delivery dead for that reason, and one that
// can't be said before the claim gets old makes it dead as incomplete; the dead letter's error tells how many were said.
// A message of which nobody knows is sent again for as long as the claim holds, where the platform repeats; else it
// leaves the delivery claimed, for the sweep to give up as outcome_unknown.
//
// Who has lost the lease says nothing that the next owner may take over: where the platform does not repeat, that is only
// what has not been begun.
func (s *Dispatcher) sayClaimed(a *job, claim *delivery.Claim, texts []string) (done bool, wait time.Duration) {
	ctx, cancel := context.WithTimeout(s.stopped, s.Timing.Claim-claim.Age()) // nothing is waited for any longer
	defer cancel()
	work := context.WithoutCancel(ctx)
	var ids []string
	doubt := a.begun // whether the message that is being said may stand there already
	var unclear error
	backoff := s.Timing.Backoff
	for i := 0; i < len(texts); {
		o, ready := Outcome{}, true
		if i > 0 {
			o, ready = a.voice.Ready(ctx, i)
		}
		if ctx.Err() != nil || claim.Age() >= s.Timing.Claim || !s.HoldsLease() && (i == 0 || s.platform.Repeats) {
			switch {
			case doubt:
				return s.leave(work, a, i+1, len(texts), unclear)
			case i == 0:
				return s.release(work, a, claim, Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("the lease or the claim ran out before it could be said")})
			}
			return s.bury(work, claim, deadletter.New(deadletter.Incomplete, fmt.Errorf("only %d of %d messages could be said in time", i, len(texts))))
		}
		if ready {
			o = a.voice.Send(work, i, texts[i])
		}
		switch {
		case o.Kind == Sent:
			ids = append(ids, o.ID)
			i++
			doubt, unclear, backoff = a.begun, nil, s.Timing.Backoff
		case o.Kind == Unknown && !s.platform.Repeats:
			return s.leave(work, a, i+1, len(texts), o.Err)
		case o.Kind == Unknown:
			doubt, unclear = true, o.Err
			s.Log.WarnContext(work, "the platform did not say whether it took a message: sending it again", "delivery", a.ref.ID, "error", o.Err)
			sleep(ctx, backoff)
			backoff = min(2*backoff, s.Timing.MaxBackoff)
		case o.Kind == Refused && !doubt:
			err := o.Err
			if len(texts) > 1 {
				err = fmt.Errorf("message %d of %d: %w", i+1, len(texts), o.Err)
			}
			return s.bury(work, claim, deadletter.New(o.Reason, err))
		case i == 0 && !doubt:
			return s.release(work, a, claim, o)
		default:
			sleep(ctx, max(o.After, s.Timing.Backoff))
		}
	}
	s.settle(work, claim, "delivered", func(ctx context.Context) (delivery.State, error) {
		return claim.MarkDelivered(ctx, strings.Join(ids, " "))
	})
	return true, 0
}

// leave leaves an answer as it is: it is taken over, or its claim runs out, and the sweep gives it up as outcome_unknown.
func (s *Dispatcher) leave(ctx context.Context, a *job, message, of int, why error) (done bool, wait time.Duration) {
	s.Log.WarnContext(ctx, "it is not known whether an answer was said", "delivery", a.ref.ID, "message", message, "of", of, "error", why)
	s.Count("unknown")
	return true, 0
}

func (s *Dispatcher) bury(ctx context.Context, claim *delivery.Claim, why *deadletter.Error) (done bool, wait time.Duration) {
	s.settle(ctx, claim, "refused", func(ctx context.Context) (delivery.State, error) {
		return s.Reaper.MarkClaimDead(ctx, claim, why)
	})
	return true, 0
}

// release gives an answer back that was certainly not said. It stays first in its line.
func (s *Dispatcher) release(ctx context.Context, a *job, claim *delivery.Claim, o Outcome) (done bool, wait time.Duration) {
	s.settle(ctx, claim, "released", func(ctx context.Context) (delivery.State, error) {
		return delivery.Pending, claim.Release(ctx)
	})
	return s.putOff(ctx, a, o)
}

// settle records an outcome, and tries for half of the time that a claim is good for; once if it has to stop.
func (s *Dispatcher) settle(ctx context.Context, claim *delivery.Claim, as string, record func(context.Context) (delivery.State, error)) {
	repeating, cancel := context.WithTimeout(s.stopped, s.Timing.Claim/2)
	defer cancel()
	var state delivery.State
	err := claim.Persist(repeating, s.Timing.Backoff, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, storeTime)
		defer cancel()
		if state, err = record(ctx); err != nil {
			s.Log.WarnContext(ctx, "can't record what became of an answer", "delivery", claim.ID(), "outcome", as, "error", err)
		}
		return err
	})
	switch {
	case err != nil:
		as = "unrecorded"
	case as == "delivered" && state != delivery.Delivered:
		s.Log.WarnContext(ctx, "said after it had been given up", "delivery", claim.ID(), "state", state)
		as = "late"
	}
	s.Count(as)
}

// giveUp makes an answer dead that nobody has claimed, or redriven.
func (s *Dispatcher) giveUp(ctx context.Context, a *job, why *deadletter.Error) (done bool, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if _, err := s.Reaper.MarkDead(ctx, a.ref.ID, a.ref.RedriveCount, why); err != nil && !errors.Is(err, delivery.ErrNotFound) {
		s.Log.WarnContext(ctx, "can't give up an answer", "delivery", a.ref.ID, "error", err)
		return false, s.Timing.Retry
	}
	s.Count("given_up")
	return true, 0
}

// putOff remembers what stands in the way, so that an answer that is not said before its deadline ends with the reason
// for that. It waits no longer than until then, or the sweep would give the answer up without knowing the reason.
func (s *Dispatcher) putOff(ctx context.Context, a *job, o Outcome) (done bool, wait time.Duration) {
	if o.Err != nil {
		a.last = nil
		if o.Reason != "" {
			a.last = deadletter.New(o.Reason, o.Err)
		}
		s.Log.WarnContext(ctx, "an answer has to wait", "delivery", a.ref.ID, "code", o.Reason, "error", o.Err)
	}
	return false, max(a.ref.Wait(o.After, s.Now()), s.Timing.Backoff)
}
