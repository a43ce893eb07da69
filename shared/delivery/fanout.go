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

// SendToAll is [Sender.Send] for an answer that may go to several places (egress.to): each becomes a delivery of its own,
// with its own id, which follows from the step and the channel, and its own outcome. It returns the deliveries' ids.
//
// The first place's entry is opened before the others, and what it holds is said everywhere: so two who make the same
// answer in different words at the same time say one of them, and whoever finds that entry ([Sender.Resume]) knows what
// there was to say. After an error the same answer is to be sent again, which does only what is missing; one that is not
// a [deadletter.Error] comes first, since that can help.
func (s *Sender) SendToAll(ctx context.Context, e *event.Event, step string) ([]string, error) {
	parts := answer.FanOut(e, step)
	first, err := s.open(ctx, parts[0].Event, parts[0].Step)
	if err != nil {
		return nil, err
	}
	return s.sendRest(ctx, first, e, parts, step)
}

// Resume does what is still missing of an answer that was sent before: publishing it, if it may not have been, and
// sending it to the places where it was not. It reports whether the event has its outcome: there is such an answer, or
// the step gave the event up, and its dead letter is open. If not, the answer is still to be made. e is the event that
// was answered.
func (s *Sender) Resume(ctx context.Context, e *event.Event, step string) (decided bool, err error) {
	parts := answer.FanOut(e, step)
	first, opened, givenUp, err := s.ledger.outcome(ctx, ID(e.CorrelationID, parts[0].Step), digest.Of(e.CorrelationID, step))
	if err != nil || !opened {
		return givenUp, err
	}
	_, err = s.sendRest(ctx, first, e, parts, step)
	return true, err
}

// sendRest publishes the first of the parts, whose entry there is, and sends the others.
func (s *Sender) sendRest(ctx context.Context, first Entry, e *event.Event, parts []answer.Part, step string) ([]string, error) {
	ids, errs := make([]string, len(parts)), make([]error, len(parts))
	ids[0] = first.ID
	if len(parts) > 1 {
		said, err := first.decode()
		if err != nil {
			return nil, err
		}
		// what another made of it is only known as it was said in the first place
		if answer.Text(said) != answer.Text(parts[0].Event) {
			again := e.Clone()
			again.Candidates = said.Candidates
			for i := range again.Candidates {
				again.Candidates[i].Text = answer.RemoveMark(again.Candidates[i].Text)
			}
			parts = answer.FanOut(again, step)
		}
	}
	var g errgroup.Group // not one that cancels: one place's failure must not break off another's answer
	g.Go(func() error {
		errs[0] = s.publish(ctx, first)
		return nil
	})
	for i := 1; i < len(parts); i++ { // at most event.MaxPlaces
		g.Go(func() error {
			ids[i], errs[i] = s.Send(ctx, parts[i].Event, parts[i].Step)
			return nil
		})
	}
	g.Wait() // the errors are in errs
	return ids, WorstError(errs)
}

// WorstError is the error that decides what becomes of an event of which several things were done: one that can be tried again
// before a [deadletter.Error], which would end all. It is nil if all went well.
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
