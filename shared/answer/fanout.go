package answer

import "parley.internal/shared/event"

// Part is one of the answers made from an event.
type Part struct {
	Event *event.Event
	Step  string
}

// FanOut returns the answers made from e: one for each address in egress, in the order of the addresses, or e itself
// without addresses.
//
// An answer to an address is for the whole channel, so it names no user. For any other address than the origin of the
// question, the answer is relayed: egress.relay names the origin. All answers have the same text; [Render] adapts it to
// each platform. A relayed answer has no other candidates, no ids to reply to and no raw payloads, because only the
// platform of the question understands them.
func FanOut(e *event.Event, step string) []Part {
	if e.Egress == nil || len(e.Egress.To) == 0 {
		return []Part{{e, step}}
	}
	parts := make([]Part, len(e.Egress.To))
	for i, p := range e.Egress.To {
		out := e.Clone()
		out.UserID, out.Channel = "", p.Channel
		out.Egress = &event.Egress{Destination: p.Destination, Type: e.Egress.Type, Extra: e.Egress.Extra}
		if !p.Same(Origin(e)) {
			relay(out, e)
		}
		parts[i] = Part{out, step + "@" + p.Channel}
	}
	return parts
}

// relay adapts out for another address than the origin of e.
func relay(out, e *event.Event) {
	out.Egress.Relay = &event.Relay{Source: e.Source, Channel: e.Channel}
	if text := Text(e); text != "" {
		c := event.Candidate{Kind: "text", Status: event.CandidateProposed, Format: "plain", Text: text}
		if i := Best(e.Candidates); i >= 0 {
			c = e.Candidates[i]
		}
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
