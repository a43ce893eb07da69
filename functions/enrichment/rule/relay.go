package rule

import (
	"errors"
	"fmt"
	"slices"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// maxRelayAddresses bounds the relay addresses of one event over all rules. Each address costs a ledger write and a
// publish before the event can be acknowledged.
const maxRelayAddresses = 4 * event.MaxAddresses

// checkAddresses validates the relay addresses of an egress.
func checkAddresses(g *store.RuleEgress) error {
	var errs []error
	if len(g.To) == 0 {
		return nil
	}
	if len(g.To) > event.MaxAddresses {
		errs = append(errs, fmt.Errorf("egress.to: more than %d addresses", event.MaxAddresses))
	}
	if g.Destination != "" {
		errs = append(errs, errors.New("egress.destination: not allowed together with egress.to"))
	}
	if g.Audience != "" {
		errs = append(errs, errors.New("egress.audience: not allowed together with egress.to"))
	}
	if g.Type != "" && g.Type != event.EgressChat {
		errs = append(errs, fmt.Errorf("egress.type: %q is not allowed together with egress.to, only chat", g.Type))
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

// isRelay reports whether the rule's answer is a relay. A relay goes to the rule's addresses and is no answer to the
// event itself.
func (a Applied) isRelay() bool { return a.Egress != nil && len(a.Egress.To) > 0 && len(a.Slip) == 0 }

// ownCandidates returns the candidates for the answer to the event itself.
func (a Applied) ownCandidates() []event.Candidate {
	if a.isRelay() {
		return nil
	}
	return a.Candidates
}

// addresses returns the addresses for the rule's answer to an event. A relay omits the event's origin, because the text
// was already said there. A model's answer is new, so nothing is omitted.
func (a Applied) addresses(e *event.Event) []event.Address {
	var all []event.Address
	for _, p := range a.Egress.To {
		if !a.isRelay() || !addressOf(p).Same(answer.Origin(e)) {
			all = append(all, addressOf(p))
		}
	}
	return all
}

// DropRelays removes the rules with addresses of their own, for an event that must not be relayed.
func (o *Outcome) DropRelays() {
	o.Applied = slices.DeleteFunc(o.Applied, func(a Applied) bool {
		if a.Egress == nil || len(a.Egress.To) == 0 {
			return false
		}
		o.RelaysDropped++
		return true
	})
}

// Relay is an event to be sent as a delivery of its own.
type Relay struct {
	Step  string       // step name of the delivery
	Event *event.Event // the text is a candidate, the addresses are in egress.to
}

// Relays returns the relays of an event in rule order: for each rule its best answer, for the rule's addresses. A rule
// with only the event's origin as address relays nothing.
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
