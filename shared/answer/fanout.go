package answer

import (
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Part is one of the answers that an event becomes.
type Part struct {
	Event *event.Event
	Step  string
}

// FanOut makes the answers that e becomes: one for each place that its egress names, or itself if it names none. Their
// order is that of the places, and always the same.
//
// A place gets the answer as everybody's there, so it names no user. To the place where the question was asked goes the
// ordinary answer, its text as it is. Elsewhere it is relayed: the text is made harmless, unless it is the operator's
// alone ([LiteralMetadata]), and marked, so that nobody relays it again ([WasRelayed]); what only the platform of the question
// understands, ids to reply to and raw payloads, stays behind, and so does everything but the one candidate.
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

// relay makes out, which goes to another place than e came from, fit for that.
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

// LiteralMetadata is the metadata of a candidate whose text an operator wrote to the last letter. It is relayed as it is:
// whoever runs the place may ring in it.
var LiteralMetadata = event.Raw(map[string]bool{"literal": true})

func literal(c event.Candidate) bool { return string(c.Metadata) == string(LiteralMetadata) }
