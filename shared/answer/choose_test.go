package answer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

func num(f float64) *float64 { return &f }

func TestBest(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	tests := []struct {
		name string
		in   []event.Candidate
		want string
	}{
		{"none", nil, ""},
		{"the lower priority wins", []event.Candidate{{ID: "a", Text: "x", Priority: num(2)}, {ID: "b", Text: "x", Priority: num(1)}}, "b"},
		{"priority 0 is the best, not missing", []event.Candidate{{ID: "a", Text: "x", Priority: num(1)}, {ID: "b", Text: "x", Priority: num(0)}}, "b"},
		{"a missing priority is the worst", []event.Candidate{{ID: "a", Text: "x"}, {ID: "b", Text: "x", Priority: num(99)}}, "b"},
		{"then the higher confidence", []event.Candidate{{ID: "a", Text: "x", Confidence: num(0.2)}, {ID: "b", Text: "x", Confidence: num(0.9)}}, "b"},
		{"a missing confidence is the worst", []event.Candidate{{ID: "a", Text: "x"}, {ID: "b", Text: "x", Confidence: num(0)}}, "b"},
		{"then the earlier", []event.Candidate{{ID: "a", Text: "x", CreatedAt: late}, {ID: "b", Text: "x", CreatedAt: early}}, "b"},
		{"then the id", []event.Candidate{{ID: "b", Text: "x"}, {ID: "a", Text: "x"}}, "a"},
		{"rejected and superseded don't count", []event.Candidate{{ID: "a", Text: "x", Status: event.CandidateRejected}, {ID: "b", Text: "x", Status: event.CandidateSuperseded}, {ID: "c", Text: "x"}}, "c"},
		{"an empty text doesn't count", []event.Candidate{{ID: "a", Text: " \n ", Priority: num(0)}, {ID: "b", Text: "x"}}, "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if i := Best(tt.in); i >= 0 {
				got = tt.in[i].ID
			}
			if got != tt.want {
				t.Errorf("Best = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestText(t *testing.T) {
	tests := []struct {
		name string
		in   event.Event
		want string
	}{
		{"the best candidate", event.Event{Candidates: []event.Candidate{{Text: " hi\n"}}, Payload: event.Raw(map[string]string{"text": "no"})}, "hi"},
		{"a candidate in quotes", event.Event{Candidates: []event.Candidate{{Text: `"hi"`}}}, `"hi"`},
		{"a candidate in backquotes", event.Event{Candidates: []event.Candidate{{Text: "`hi`"}}}, "`hi`"},
		{"only quotes", event.Event{Candidates: []event.Candidate{{Text: `""`}}}, `""`},
		{"a payload in quotes", event.Event{Payload: event.Raw(map[string]string{"text": `“hi”`})}, "“hi”"},
		{"the platform's chat text", event.Event{Message: &event.Message{Role: "assistant", RawPlatformPayload: []byte(`{"chat":{"text":"a"},"text":"b"}`)}, Payload: []byte(`{"text":"c"}`)}, "a"},
		{"the platform's text", event.Event{Message: &event.Message{Role: "assistant", RawPlatformPayload: []byte(`{"text":"b"}`)}, Payload: []byte(`{"text":"c"}`)}, "b"},
		{"the payload's chat text", event.Event{Payload: []byte(`{"chat":{"text":"a"},"text":"b"}`)}, "a"},
		{"the payload's text", event.Event{Payload: []byte(`{"text":"b"}`)}, "b"},
		{"never the user's own words", event.Event{Message: &event.Message{Role: "user", Text: "mine", RawPlatformPayload: []byte(`{"text":"mine"}`)}, Payload: []byte(`{"text":"mine"}`)}, ""},
		{"nothing", event.Event{Payload: []byte(`{"text":7.5,"chat":[]}`)}, "7.5"},
		{"nothing at all", event.Event{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Text(&tt.in); got != tt.want {
				t.Errorf("Text = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestPlatform(t *testing.T) {
	tests := []struct {
		name string
		in   event.Event
		want identity.Platform
	}{
		{"what egress says", event.Event{Egress: &event.Egress{Destination: "discord"}, Source: "ingress.twitch"}, identity.Discord},
		{"what the source contains", event.Event{Source: "ingress.twitch.irc", Auth: &event.Auth{Provider: "discord"}}, identity.Twitch},
		{"who knows the user", event.Event{Source: "timer", Auth: &event.Auth{Provider: "discord"}}, identity.Discord},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := Platform(&tt.in); err != nil || got != tt.want {
				t.Errorf("Platform = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	_, err := Platform(&event.Event{Source: "timer"})
	var d *deadletter.Error
	if !errors.As(err, &d) || d.Reason != deadletter.NoPlatform {
		t.Errorf("nowhere to go: %v; want no_platform", err)
	}
}

func TestPrepareMarksTheSelectedCandidate(t *testing.T) {
	e := &event.Event{Source: "api-gateway", UserID: "twitch:1", Candidates: []event.Candidate{
		{ID: "a", Text: "x", Priority: num(2), Status: event.CandidateProposed},
		{ID: "b", Text: "y", Priority: num(1)},
		{ID: "c", Text: "z", Status: event.CandidateRejected},
	}}
	out, err := Prepare(e)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{event.CandidateSuperseded, event.CandidateSelected, event.CandidateRejected}
	for i, c := range out.Candidates {
		if c.Status != want[i] {
			t.Errorf("candidate %s is %q; want %q", c.ID, c.Status, want[i])
		}
	}
	if e.Candidates[0].Status != event.CandidateProposed {
		t.Error("the event that came in was changed")
	}
	if out.Egress.Destination != "api-gateway" || out.Egress.Type != event.EgressChat {
		t.Errorf("egress = %+v", out.Egress)
	}
}

// The ledger keeps an answer for days, so an answer holds nothing of the question without a reader.
func TestPrepareDropsThePayloadOfTheQuestion(t *testing.T) {
	raw := event.Raw(map[string]string{"text": "raw"})
	large := event.Raw(map[string]string{"id": "m1", "x": strings.Repeat("x", maxMetadata)})
	small := event.Raw(map[string]string{"id": "m1", "x": "y"})
	for _, test := range []struct {
		name               string
		kind               string
		candidates         []event.Candidate
		role               string
		metadata           jsontext.Value
		payload, raw       bool // kept
		wantMetadata, text string
	}{
		{"an answer with a candidate", event.EgressChat, []event.Candidate{{Text: "hi"}}, event.RoleUser, small, false, false, string(small), "hi"},
		{"large metadata", event.EgressDM, []event.Candidate{{Text: "hi"}}, event.RoleUser, large, false, false, `{"id":"m1"}`, "hi"},
		{"an answer for programs", event.EgressEvent, nil, event.RoleUser, large, true, false, `{"id":"m1"}`, ""},
		{"an announcement", event.EgressChat, nil, "", large, true, true, string(large), "raw"},
	} {
		e := &event.Event{Source: "api-gateway", UserID: "twitch:1", Payload: raw, Metadata: test.metadata, Candidates: test.candidates,
			Message: &event.Message{ID: "m1", Role: test.role, Text: "question", RawPlatformPayload: raw}, ExternalEvent: &event.ExternalEvent{Payload: raw, RawPayload: raw},
			Egress: &event.Egress{Type: test.kind}}
		out, err := Prepare(e)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if (out.Payload != nil) != test.payload || (out.Message.RawPlatformPayload != nil) != test.raw ||
			(out.ExternalEvent.Payload != nil) != test.raw || (out.ExternalEvent.RawPayload != nil) != test.raw || string(out.Metadata) != test.wantMetadata {
			t.Errorf("%s: %+v, %+v, %+v", test.name, out, out.Message, out.ExternalEvent)
		}
		if test.text != "" && Text(out) != test.text || out.Message.ID != "m1" {
			t.Errorf("%s: %q, message %+v", test.name, Text(out), out.Message)
		}
		if e.Payload == nil || e.Message.RawPlatformPayload == nil || e.ExternalEvent.RawPayload == nil || string(e.Metadata) != string(test.metadata) {
			t.Errorf("%s: the question was changed", test.name)
		}
	}
}

func TestQuotesOfPeopleAreRelayed(t *testing.T) {
	for _, text := range []string{`"hello"`, "`code`", `""`, "'it'", "“hello”", `""hello""`} {
		e := &event.Event{
			Source: "ingress.twitch", Channel: "twitch:a", Candidates: []event.Candidate{{ID: "r", Text: text}},
			Egress: &event.Egress{To: []event.Address{{Destination: "twitch", Channel: "twitch:a"}, {Destination: "discord", Channel: "discord:1"}}},
		}
		for _, part := range FanOut(e, "rule") {
			if got := RemoveMark(Text(part.Event)); got != text {
				t.Errorf("%q becomes %q at %s", text, got, part.Event.Channel)
			}
		}
	}
}
