package egress

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// part is one of the answers that an event becomes.
type part struct {
	event *event.Event
	step  string
}

// each makes the answers that e becomes: one for each place that its egress names, or itself if it names none. Their
// order is that of the places, and always the same.
//
// A place gets the answer as everybody's there, so it names no user. To the place where the question was asked goes the
// ordinary answer, its text as it is. Elsewhere it is relayed: the text is made harmless, unless it is the operator's
// alone ([Literal]), and marked, so that nobody relays it again ([Relayed]); what only the platform of the question
// understands, ids to reply to and raw payloads, stays behind, and so does everything but the one candidate.
func each(e *event.Event, step string) []part {
	if e.Egress == nil || len(e.Egress.To) == 0 {
		return []part{{e, step}}
	}
	parts := make([]part, len(e.Egress.To))
	for i, p := range e.Egress.To {
		out := e.Clone()
		out.UserID, out.Channel = "", p.Channel
		out.Egress = &event.Egress{Destination: p.Destination, Type: e.Egress.Type, Extra: e.Egress.Extra}
		if !p.Same(Origin(e)) {
			relay(out, e)
		}
		parts[i] = part{out, step + "@" + p.Channel}
	}
	return parts
}

// relay makes out, which goes to another place than e came from, fit for that.
func relay(out, e *event.Event) {
	out.Egress.Relay = &event.Relay{Source: e.Source, Channel: e.Channel}
	if text := Text(e); text != "" {
		c := event.Candidate{Kind: "text", Status: event.CandidateProposed, Format: "plain"}
		if i := Best(e.Candidates); i >= 0 {
			c = e.Candidates[i]
		}
		if text = unmarked(text); !literal(c) {
			text = Harmless(text, identity.Platform(out.Egress.Destination))
		}
		c.Text = marked(text)
		out.Candidates = []event.Candidate{c}
	}
	out.ReplyTo, out.Payload, out.Metadata = "", nil, nil
	if out.Message != nil {
		out.Message.ID, out.Message.RawPlatformPayload = "", nil
	}
	if out.ExternalEvent != nil {
		out.ExternalEvent.Payload, out.ExternalEvent.RawPayload = nil, nil
	}
}

// Literal is the metadata of a candidate whose text an operator wrote to the last letter. It is relayed as it is:
// whoever runs the place may ring in it.
var Literal = event.Raw(map[string]bool{"literal": true})

func literal(c event.Candidate) bool { return string(c.Metadata) == string(Literal) }

// SendEach is [Sender.Send] for an answer that may go to several places (egress.to): each becomes a delivery of its own,
// with its own id, which follows from the step and the channel, and its own outcome. It returns the deliveries' ids.
//
// The first place's entry is opened before the others, and what it holds is said everywhere: so two who make the same
// answer in different words at the same time say one of them, and whoever finds that entry ([Sender.Resume]) knows what
// there was to say. After an error the same answer is to be sent again, which does only what is missing; one that is not
// a [deadletter.Error] comes first, since that can help.
func (s *Sender) SendEach(ctx context.Context, e *event.Event, step string) ([]string, error) {
	parts := each(e, step)
	first, err := s.open(ctx, parts[0].event, parts[0].step)
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
	parts := each(e, step)
	first, opened, givenUp, err := s.ledger.outcome(ctx, DeliveryID(e.CorrelationID, parts[0].step), deadletter.ID(e.CorrelationID, step))
	if err != nil || !opened {
		return givenUp, err
	}
	_, err = s.sendRest(ctx, first, e, parts, step)
	return true, err
}

// sendRest publishes the first of the parts, whose entry there is, and sends the others.
func (s *Sender) sendRest(ctx context.Context, first Entry, e *event.Event, parts []part, step string) ([]string, error) {
	ids, errs := make([]string, len(parts)), make([]error, len(parts))
	ids[0] = first.ID
	if len(parts) > 1 {
		said, err := event.Decode(first.Event)
		if err != nil {
			return nil, fmt.Errorf("read the event of delivery %s: %w", first.ID, err)
		}
		// what another made of it is only known as it was said in the first place
		if Text(said) != Text(parts[0].event) {
			again := e.Clone()
			again.Candidates = said.Candidates
			for i := range again.Candidates {
				again.Candidates[i].Text = unmarked(again.Candidates[i].Text)
			}
			parts = each(again, step)
		}
	}
	var g errgroup.Group // not one that cancels: one place's failure must not break off another's answer
	g.Go(func() error {
		errs[0] = s.publish(ctx, first)
		return nil
	})
	for i := 1; i < len(parts); i++ { // at most event.MaxPlaces
		g.Go(func() error {
			ids[i], errs[i] = s.Send(ctx, parts[i].event, parts[i].step)
			return nil
		})
	}
	g.Wait() // the errors are in errs
	return ids, Worst(errs)
}

// Worst is the error that decides what becomes of an event of which several things were done: one that can be tried again
// before a [deadletter.Error], which would end all. It is nil if all went well.
func Worst(errs []error) (decided error) {
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
