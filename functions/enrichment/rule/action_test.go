package rule

import (
	"strings"
	"testing"

	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
)

func acts(a store.RuleAction) store.Rule {
	return store.Rule{ID: "r", Enabled: true, When: "true", Action: &a}
}

func TestRuleActions(t *testing.T) {
	said := func(text string) *event.Event {
		return &event.Event{
			V: event.Version, Source: "ingress.twitch", CorrelationID: "c1", Type: event.TypeChatMessage, Channel: "twitch:streamer", UserID: "twitch:7",
			Message: &event.Message{ID: "m-1", Text: text, RawPlatformPayload: []byte(`{"replyParent":{"userId":"9"}}`)},
		}
	}
	for _, tt := range []struct {
		name string
		rule store.RuleAction
		in   *event.Event
		want string // an action's String, and its reason; what is wrong, if it begins with "action"
	}{
		{"a word filter", store.RuleAction{Action: "delete", MessageID: "{{ event.message.id }}", UserID: "{{ event.userId }}"}, said("bad word"),
			"delete message m-1 in twitch:streamer, "},
		{"a time-out of who spoke", store.RuleAction{Action: "timeout", UserID: "{{ event.userId }}", DurationSeconds: int64(60), Reason: "said: {{ event.message.text }}"}, said("bad\nword"),
			"timeout twitch:7 in twitch:streamer for 60 s, said: bad word"},
		{"a command", store.RuleAction{Action: "timeout", Login: `{{ event.message.text.split(" ")[1] }}`, DurationSeconds: `{{ event.message.text.split(" ")[2] }}`}, said("!timeout @Bob 90"),
			"timeout twitch @bob in twitch:streamer for 90 s, "},
		{"of whom one replies to", store.RuleAction{Action: "ban", UserID: "{{ event.message.rawPlatformPayload.replyParent.userId }}"}, said("!ban"),
			"ban twitch:9 in twitch:streamer, "},
		{"elsewhere", store.RuleAction{Action: "unban", UserID: "5", Channel: "discord:1"}, said("!sorry"), "unban discord:5 in discord:1, "},
		{"a reason that is cut", store.RuleAction{Action: "ban", UserID: "7", Reason: "{{ event.message.text }}"}, said(strings.Repeat("x", 600)),
			"ban twitch:7 in twitch:streamer, " + strings.Repeat("x", 500)},
		{"a command without a word", store.RuleAction{Action: "ban", Login: `{{ event.message.text.split(" ")[1] }}`}, said("!ban"), "action.login: "},
		{"a command of nonsense", store.RuleAction{Action: "timeout", UserID: "7", DurationSeconds: `{{ event.message.text.split(" ")[1] }}`}, said("!timeout long"), "action: durationSeconds: "},
		{"in a room where nothing can be done", store.RuleAction{Action: "ban", UserID: "7"}, &event.Event{Channel: "lobby"}, "action: channel: "},
		{"to another platform's person", store.RuleAction{Action: "ban", UserID: "{{ event.userId }}", Channel: "discord:1"}, said("x"), "action: userId: "},
	} {
		o := compileAll(t, acts(tt.rule), says("ok", "true", "fine")).Evaluate(tt.in, at, never)
		if strings.HasPrefix(tt.want, "action") {
			if len(o.Failed) != 1 || !strings.HasPrefix(o.Failed[0].Err.Error(), tt.want) || len(o.Applied) != 1 {
				t.Errorf("%s: failed = %v; want %s…, and the other rule", tt.name, o.Failed, tt.want)
			}
			continue
		}
		var a *moderation.Action
		for _, applied := range o.Applied {
			if applied.ID == "r" {
				a = applied.Action
			}
		}
		if a == nil {
			t.Errorf("%s: no action, failed = %v", tt.name, o.Failed)
			continue
		}
		if got := a.String() + ", " + a.Reason; got != tt.want {
			t.Errorf("%s: %q; want %q", tt.name, got, tt.want)
		}
	}
}

// Errors independent of the event are reported at compile time.
func TestInvalidActionsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		rule store.RuleAction
		want string
	}{
		"no action":                {store.RuleAction{UserID: "1"}, "action: action: missing"},
		"an unknown one":           {store.RuleAction{Action: "kick", UserID: "1"}, "action: action: not one of"},
		"a template for it":        {store.RuleAction{Action: "{{ event.type }}", UserID: "1"}, "action: action: not one of"},
		"no person":                {store.RuleAction{Action: "ban"}, "action: userId: missing"},
		"no message":               {store.RuleAction{Action: "delete"}, "action: messageId: missing"},
		"a time-out without end":   {store.RuleAction{Action: "timeout", UserID: "{{ event.userId }}"}, "action: durationSeconds: missing"},
		"half a second":            {store.RuleAction{Action: "timeout", UserID: "1", DurationSeconds: 0.5}, "action: durationSeconds: not a whole number"},
		"a duration of two weeks+": {store.RuleAction{Action: "timeout", UserID: "1", DurationSeconds: int64(1209601), Channel: "twitch:streamer"}, "action: durationSeconds: not between"},
		"a list of durations":      {store.RuleAction{Action: "timeout", UserID: "1", DurationSeconds: []any{1}}, "action: durationSeconds: not a whole number"},
		"a ban for a while":        {store.RuleAction{Action: "ban", UserID: "1", DurationSeconds: int64(5)}, "action: durationSeconds: only for a timeout"},
		"a web room":               {store.RuleAction{Action: "ban", UserID: "1", Channel: "lobby"}, "action: channel: "},
		"a person of no platform":  {store.RuleAction{Action: "ban", UserID: "somebody"}, "action: userId: not a number"},
		"a broken template":        {store.RuleAction{Action: "ban", UserID: "{{ event.nothing }}"}, "action.userId: "},
		"a text without end":       {store.RuleAction{Action: "ban", UserID: "1", Reason: strings.Repeat("x", maxSource+1)}, "action.reason: longer"},
	} {
		if _, failures := Compile([]store.Rule{acts(tt.rule)}, nil); len(failures) != 1 || !strings.HasPrefix(failures[0].Err.Error(), tt.want) {
			t.Errorf("%s: failures = %v; want %s…", name, failures, tt.want)
		}
	}
	// Too long for Twitch, but valid on Discord: the channel of an event decides.
	compileAll(t, acts(store.RuleAction{Action: "timeout", UserID: "1", DurationSeconds: int64(1209601)}))
}
