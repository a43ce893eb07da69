package answer

import (
	"strings"
	"testing"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

func TestRelayedEventIsRecognized(t *testing.T) {
	text := "[twitch] Ada: hi" + separatedMark
	for name, tt := range map[string]struct {
		in   event.Event
		want bool
	}{
		"what a person said":             {event.Event{Message: &event.Message{Text: "hi", Role: event.RoleUser}}, false},
		"nothing":                        {event.Event{}, false},
		"an answer on its way":           {event.Event{Egress: &event.Egress{Destination: "twitch"}}, false},
		"a relayed event":                {event.Event{Egress: &event.Egress{Relay: &event.Relay{Source: "ingress.twitch"}}}, true},
		"what another bot said again":    {event.Event{Message: &event.Message{Text: text, Role: event.RoleUser}}, true},
		"with something around it":       {event.Event{Message: &event.Message{Text: "> " + text + "\nhaha"}}, true},
		"in a payload":                   {event.Event{Payload: event.Raw(map[string]string{"text": text})}, true},
		"without the mark":               {event.Event{Message: &event.Message{Text: RemoveMark(text)}}, false},
		"an answer that a program gives": {event.Event{Message: &event.Message{Text: "hi", Role: "assistant"}}, false},
	} {
		if got := WasRelayed(&tt.in); got != tt.want {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
}

func TestMarkChangesNothingThatPeopleSee(t *testing.T) {
	for _, tt := range []struct{ in, discord string }{
		{"hi", "hi|"},
		{"👩‍👩‍👧‍👦", "👩‍👩‍👧‍👦|"},
		{strings.Repeat("🇩🇪", 60), strings.Repeat("🇩🇪", 60) + "|"},
		{"https://example.com", "https://example.com|"},
		{"https://example.com/" + strings.Repeat("x", 200), "https://example.com/" + strings.Repeat("x", 200) + "|"},
		{"# Heading", "# Heading|"},
		{"- one\n- two", "- one\n- two|"},
		{"> quote", "> quote|"},
		{"**bold** and \\", "**bold** and \\|"},
		{"look:\n```go\nx := 1\n```", "look:|\n```go\nx := 1\n```"},
		{"look: ```x```", "look:| ```x```"},
		{"```go\nx := 1\n```", "```go\nx := 1\n```|"},
		{"```a``` ```b```", "```a``` ```b```|"},
		{"```go\nx := 1\n``` that", "```go\nx := 1\n``` that|"},
		{"Kappa", "Kappa|"},
		{"e\u0301", "e\u0301|"},
	} {
		for _, p := range []identity.Platform{identity.Discord, identity.Twitch, identity.APIGateway} {
			want := tt.discord
			switch p {
			case identity.Twitch:
				want = strings.ReplaceAll(strings.ReplaceAll(tt.in, "\n", " "), "**bold**", "**bold**") + "|"
			case identity.APIGateway:
				want = tt.in + "|"
			}
			got := relayedTo(p, tt.in)
			if shown := strings.ReplaceAll(got, separatedMark, "|"); shown != want {
				t.Errorf("on %s %q becomes %q; want %q", p, tt.in, shown, want)
			}
			if !WasRelayed(&event.Event{Message: &event.Message{Text: got}}) {
				t.Errorf("on %s %q is not marked", p, got)
			}
		}
	}
}

// relayedTo renders a model's text as relayed from a web room.
func relayedTo(p identity.Platform, text string) string {
	return Render(relayEvent("api-gateway", p, event.Candidate{Text: text})).Whole()
}

func relayEvent(source string, to identity.Platform, c event.Candidate) *event.Event {
	e := &event.Event{Source: source, Channel: "there", Candidates: []event.Candidate{c}}
	e.Egress = &event.Egress{To: []event.Address{{Destination: string(to), Channel: "here"}}}
	return FanOut(e, "s")[0].Event
}

// template makes a candidate. The parts in braces are inserted.
func template(text string) event.Candidate {
	var b strings.Builder
	var literal []Span
	for rest := text; rest != ""; {
		own, after, _ := strings.Cut(rest, "{")
		literal = append(literal, Span{b.Len(), b.Len() + len(own)})
		b.WriteString(own)
		inserted, after, _ := strings.Cut(after, "}")
		b.WriteString(inserted)
		rest = after
	}
	return event.Candidate{Text: b.String(), Metadata: TemplateMetadata(literal)}
}
