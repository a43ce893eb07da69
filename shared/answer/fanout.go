package answer

import (
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Part is one of the answers made from an event.
type Part struct {
	Event *event.Event
	Step  string
}

// FanOut returns the answers made from e: one for each address in egress, in the order of the addresses, or e itself
// without addresses.
//
// An answer to an address is for the whole channel, so it names no user. The address of the question gets the ordinary
// answer, with its text unchanged. For any other address the answer is relayed. A relayed text is sanitized, except an
// operator's own text ([LiteralMetadata]), and marked, so that no program relays the text again ([WasRelayed]). All
// other candidates are left out. So are ids to reply to and raw payloads, because only the platform of the question
// understands them.
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
		c := event.Candidate{Kind: "text", Status: event.CandidateProposed, Format: "plain"}
		if i := Best(e.Candidates); i >= 0 {
			c = e.Candidates[i]
		}
		if text = RemoveMark(text); !literal(c) {
			text = SanitizeMentions(text, identity.Platform(out.Egress.Destination))
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

// LiteralMetadata is the metadata of a candidate with a text fully written by an operator. The text is relayed
// unchanged: the operator may mention people there.
var LiteralMetadata = event.Raw(map[string]bool{"literal": true})

func literal(c event.Candidate) bool { return string(c.Metadata) == string(LiteralMetadata) }
