package personality

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley.internal/functions/personality/model"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

func TestRepeatedCandidateIsReplaced(t *testing.T) {
	c := ReplyConfig{Priority: 100}
	e := &event.Event{CorrelationID: "c1", Candidates: []event.Candidate{{ID: "r", Text: "a rule's"}}}
	putCandidate(e, newCandidate("c1", "first", "m", time.Unix(1, 0), c))
	putCandidate(e, newCandidate("c1", "second", "m", time.Unix(2, 0), c))
	var texts []string
	for _, c := range e.Candidates {
		texts = append(texts, c.Text)
	}
	if !slices.Equal(texts, []string{"a rule's", "second"}) {
		t.Errorf("candidates = %q", texts)
	}
	if a, b := newCandidate("c1", "", "", time.Time{}, c), newCandidate("c2", "", "", time.Time{}, c); a.ID == b.ID {
		t.Error("two events share a candidate's id")
	}
}

func TestOutranked(t *testing.T) {
	c := ReplyConfig{Priority: 100}
	rule := func(priority *float64, text, status string) []event.Candidate {
		return []event.Candidate{{ID: "r", Source: "rule", Priority: priority, Text: text, Status: status}}
	}
	tests := []struct {
		name string
		in   []event.Candidate
		want bool
	}{
		{"none", nil, false},
		{"lower", rule(score(99), "hi", ""), true},
		{"equal", rule(score(100), "hi", ""), false},
		{"higher", rule(score(101), "hi", ""), false},
		{"missing", rule(nil, "hi", ""), false},
		{"without a text", rule(score(1), " ", ""), false},
		{"rejected", rule(score(1), "hi", event.CandidateRejected), false},
		{"our own from before", []event.Candidate{{Source: Step, Priority: score(1), Text: "hi"}}, false},
	}
	for _, tt := range tests {
		if got := outranked(tt.in, c); got != tt.want {
			t.Errorf("%s: outranked = %v; want %v", tt.name, got, tt.want)
		}
	}
}

func TestPastTurns(t *testing.T) {
	now := time.Unix(1000, 0)
	all := store.Conversation{ExpireAt: now, Turns: []store.Turn{{ID: "1", Question: "a", Answer: "b"}, {ID: "2", Question: "c", Answer: "d"}, {ID: "3", Question: "e", Answer: "f"}}}
	late := all
	late.ExpireAt = now.Add(-time.Second)
	tests := []struct {
		name  string
		in    store.Conversation
		id    string
		limit int
		want  []model.Turn
	}{
		{"nothing", store.Conversation{}, "4", 6, nil},
		{"the last ones", all, "4", 2, []model.Turn{{Question: "c", Answer: "d"}, {Question: "e", Answer: "f"}}},
		{"not its own", all, "2", 6, []model.Turn{{Question: "a", Answer: "b"}, {Question: "e", Answer: "f"}}},
		{"what expired is still there", late, "4", 6, nil},
		{"no memory", all, "4", 0, nil},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, pastTurns(tt.in, tt.id, now, tt.limit)); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", tt.name, diff)
		}
	}
}
