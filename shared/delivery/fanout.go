package delivery

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/answer"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
)

// SendToAll is [Sender.Send] for an answer with several addresses (egress.to). Each address gets a delivery with its
// own id, made of the step and the channel, and its own outcome. SendToAll returns the ids.
//
// The first address's entry is opened before the others, and the text of that entry is sent to all addresses. So two
// concurrent calls with different texts for the same answer send only one text, and [Sender.Resume] finds the text in
// the first entry. After an error the caller repeats the call, and only the missing part is done again. A temporary
// error comes before a [deadletter.Error].
func (s *Sender) SendToAll(ctx context.Context, e *event.Event, step string) ([]string, error) {
	parts := answer.FanOut(e, step)
	first, err := s.open(ctx, e.CorrelationID, parts[0])
	if err != nil {
		return nil, err
	}
	return s.sendRest(ctx, first, e, parts, e.CorrelationID, step)
}

// Resume does the missing part of an answer that was sent before: it publishes the answer, and sends it to the missing
// addresses. decided reports that the event has an outcome: the answer exists, or the step refused and was not redriven.
// Otherwise the step has to make the answer. e is the answered event.
func (s *Sender) Resume(ctx context.Context, e *event.Event, step string) (decided bool, err error) {
	parts := answer.FanOut(e, step)
	first, opened, dead, err := s.ledger.outcome(ctx, ID(e.CorrelationID, parts[0].Step), digest.Of(e.CorrelationID, step))
	if err != nil || !opened {
		return dead, err
	}
	if first.Refused {
		return s.ledger.stillRefused(ctx, first)
	}
	_, err = s.sendRest(ctx, first, e, parts, e.CorrelationID, step)
	return true, err
}

// sendRest publishes the first part, which has an entry, and sends the others. cause identifies the cause of the answer.
func (s *Sender) sendRest(ctx context.Context, first Entry, e *event.Event, parts []answer.Part, cause, step string) ([]string, error) {
	if first.Refused { // by another copy of the event
		return []string{first.ID}, nil
	}
	ids, errs := make([]string, len(parts)), make([]error, len(parts))
	ids[0] = first.ID
	if len(parts) > 1 {
		stored, err := first.decode()
		if err != nil {
			return nil, err
		}
		// another call's text is only known from the first address's entry
		if answer.Text(stored) != answer.Text(parts[0].Event) {
			again := e.Clone()
			again.Candidates = stored.Candidates
			parts = answer.FanOut(again, step)
		}
	}
	var g errgroup.Group // without a context: a failure must not cancel the other addresses
	g.Go(func() error {
		errs[0] = s.publish(ctx, first)
		return nil
	})
	for i := 1; i < len(parts); i++ { // at most event.MaxAddresses
		g.Go(func() error {
			ids[i], errs[i] = s.send(ctx, cause, parts[i])
			return nil
		})
	}
	g.Wait() // the errors are in errs
	return ids, WorstError(errs)
}

// WorstError returns the error that decides about an event after several actions: a temporary error before a
// [deadletter.Error], because a dead letter ends all attempts. Without errors the result is nil.
func WorstError(errs []error) (decided error) {
	for _, err := range errs {
		if err == nil {
			continue
		}
		if _, dead := errors.AsType[*deadletter.Error](err); !dead {
			return err
		}
		decided = err
	}
	return decided
}
