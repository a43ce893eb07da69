package rule

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// maxRelayAddresses is the most places to which one event is relayed, by all rules together: each costs a write of the ledger
// and a publish, before the event can be acknowledged.
const maxRelayAddresses = 4 * event.MaxAddresses

// checkAddresses refuses places that nothing can be sent to.
func checkAddresses(g *store.RuleEgress) error {
	var errs []error
	if len(g.To) == 0 {
		return nil
	}
	if len(g.To) > event.MaxAddresses {
		errs = append(errs, fmt.Errorf("egress.to: more than %d places", event.MaxAddresses))
	}
	if g.Destination != "" {
		errs = append(errs, errors.New("egress.destination: stands beside egress.to, which names destinations of its own"))
	}
	if g.Audience != "" {
		errs = append(errs, errors.New("egress.audience: stands beside egress.to, which is for everybody there"))
	}
	if g.Type != "" && g.Type != event.EgressChat {
		errs = append(errs, fmt.Errorf("egress.type: %q can't be sent to a channel (egress.to): only chat can", g.Type))
	}
	for i, p := range g.To {
		if err := answer.ValidateAddress(addressOf(p)); err != nil {
			errs = append(errs, fmt.Errorf("egress.to.%d.%w", i, err))
		}
		if first := slices.Index(g.To, p); first < i {
			errs = append(errs, fmt.Errorf("egress.to.%d: the same as egress.to.%d", i, first))
		}
	}
	return errors.Join(errs...)
}

func addressOf(p store.RuleAddress) event.Address {
	return event.Address{Destination: p.Destination, Channel: p.Channel}
}

// isRelay reports whether the rule's own answer is a relay: then it goes to the places that the rule names, and takes no
// part in what the event itself is answered.
func (a Applied) isRelay() bool { return a.Egress != nil && len(a.Egress.To) > 0 && len(a.Slip) == 0 }

// ownCandidates are the candidates that the event itself may be answered with.
func (a Applied) ownCandidates() []event.Candidate {
	if a.isRelay() {
		return nil
	}
	return a.Candidates
}

// addresses are those that the rule's answer to an event goes to. What a rule relays is not said again where it was said; a
// model's answer was not said there yet.
func (a Applied) addresses(e *event.Event) []event.Address {
	var all []event.Address
	for _, p := range a.Egress.To {
		if !a.isRelay() || !addressOf(p).Same(answer.Origin(e)) {
			all = append(all, addressOf(p))
		}
	}
	return all
}

// DropRelays takes back what the rules that name places to send to added. It is for events that must not be relayed.
func (o *Outcome) DropRelays() {
	o.Applied = slices.DeleteFunc(o.Applied, func(a Applied) bool {
		if a.Egress == nil || len(a.Egress.To) == 0 {
			return false
		}
		o.RelaysDropped++
		return true
	})
}

// Relay is what a rule relays of an event.
type Relay struct {
	Step  string       // the name under which it goes out
	Event *event.Event // holds what is said, and in egress.to where
}

// Relays finds what the rules relay of an event, in their order: of each rule its best answer, to the places that it
// names. A rule that names no other place than where the event came from relays nothing.
func (o Outcome) Relays(e *event.Event) []Relay {
	var all []Relay
	for _, a := range o.Applied {
		if !a.isRelay() || answer.Best(a.Candidates) < 0 || len(a.addresses(e)) == 0 {
			continue
		}
		out := e.Clone()
		a.Direct(out)
		out.Candidates = slices.Clone(a.Candidates)
		all = append(all, Relay{Step: a.Step(), Event: out})
	}
	return all
}

// candidateMetadata is the metadata of a rule's i-th candidate: whether it goes elsewhere as the operator wrote it.
func (c *compiled) candidateMetadata(i int) jsontext.Value {
	if c.Egress == nil || len(c.Egress.To) == 0 || slices.ContainsFunc(c.texts[i], func(p piece) bool { return p.program != nil }) {
		return nil
	}
	return answer.LiteralMetadata
}
