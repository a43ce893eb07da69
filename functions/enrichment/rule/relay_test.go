package rule

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// relays returns a rule with a relay of every message.
func relays(id string, to ...store.RuleAddress) store.Rule {
	r := says(id, "true", "[{{ event.auth.provider }}] {{ event.user.displayName }}: {{ event.message.text }}")
	r.Egress = &store.RuleEgress{To: to}
	return r
}

var (
	lobby   = store.RuleAddress{Destination: "api-gateway", Channel: "lobby"}
	channel = store.RuleAddress{Destination: "twitch", Channel: "twitch:parley"}
	guild   = store.RuleAddress{Destination: "discord", Channel: "discord:7"}
)

func TestInvalidRelayAddressesAreRefused(t *testing.T) {
	var many []store.RuleAddress
	for i := range event.MaxAddresses + 1 {
		many = append(many, store.RuleAddress{Destination: "discord", Channel: fmt.Sprintf("discord:%d", i)})
	}
	for _, tt := range []struct {
		egress store.RuleEgress
		want   string
	}{
		{store.RuleEgress{To: []store.RuleAddress{guild, channel, lobby}, Type: "chat"}, ""},
		{store.RuleEgress{To: many[1:]}, ""},
		{store.RuleEgress{To: many}, "egress.to: more than 8 addresses"},
		{store.RuleEgress{To: []store.RuleAddress{guild, {Destination: "matrix", Channel: "x"}}}, `egress.to.1.destination: "matrix" is not`},
		{store.RuleEgress{To: []store.RuleAddress{{Destination: "discord", Channel: "twitch:parley"}}}, "egress.to.0.channel:"},
		{store.RuleEgress{To: []store.RuleAddress{guild, lobby, guild}}, "egress.to.2: the same as egress.to.0"},
		{store.RuleEgress{To: []store.RuleAddress{guild}, Destination: "twitch"}, "egress.destination: not allowed together"},
		{store.RuleEgress{To: []store.RuleAddress{guild}, Audience: "channel"}, "egress.audience: not allowed together"},
		{store.RuleEgress{To: []store.RuleAddress{guild}, Type: "dm"}, `egress.type: "dm" is not allowed together`},
	} {
		r := relays("r")
		r.Egress = &tt.egress
		_, failures := Compile([]store.Rule{r}, nil)
		if (len(failures) == 0) != (tt.want == "") || len(failures) > 0 && !strings.Contains(failures[0].Err.Error(), tt.want) {
			t.Errorf("%+v: %v; want %q", tt.egress, failures, tt.want)
		}
	}
}

func TestRelayAndAnswerAreSeparate(t *testing.T) {
	e := chat("hello")
	o := compileAll(t, relays("relay", guild, lobby), says("hello", "true", "Hello Ada")).Evaluate(e, at, never)
	a, ok := o.Answer()
	if !ok || a.ID != "hello" {
		t.Errorf("answered by %q; want hello", a.ID)
	}
	all := o.Relays(e)
	if len(all) != 1 || all[0].Step != "rule:relay" {
		t.Fatalf("relays = %+v", all)
	}
	out := all[0].Event
	if answer.Text(out) != "[twitch] Ada: hello" || len(out.Candidates) != 1 || out.Egress.Type != event.EgressChat {
		t.Errorf("%q is said, egress %+v", answer.Text(out), out.Egress)
	}
	if diff := cmp.Diff([]event.Address{{Destination: "discord", Channel: "discord:7"}, {Destination: "api-gateway", Channel: "lobby"}}, out.Egress.To); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	o.AddTo(e)
	if len(e.Candidates) != 1 || e.Candidates[0].Text != "Hello Ada" || e.Egress != nil {
		t.Errorf("candidates = %+v, egress %+v; want no trace of the relay, which could win against a model", e.Candidates, e.Egress)
	}
}

func TestRelayOmitsTheOrigin(t *testing.T) {
	e := chat("hello")
	e.Channel = "twitch:parley"
	s := compileAll(t, relays("all", channel, guild), relays("home", channel))
	all := s.Evaluate(e, at, never).Relays(e)
	if len(all) != 1 || len(all[0].Event.Egress.To) != 1 || all[0].Event.Egress.To[0].Channel != "discord:7" {
		t.Errorf("relays = %+v; want one, to Discord", all)
	}
	e.Source = "api-gateway" // a room that is called like the channel is another place
	if all := s.Evaluate(e, at, never).Relays(e); len(all) != 2 {
		t.Errorf("%d relays; want both", len(all))
	}
}

func TestModelAnswerGoesToEveryAddress(t *testing.T) {
	r := store.Rule{ID: "ask", Enabled: true, When: "true", Slip: []string{Personality}, Egress: &store.RuleEgress{To: []store.RuleAddress{channel, guild}}}
	e := chat("why?")
	e.Channel, e.Egress = "twitch:parley", &event.Egress{Destination: "twitch"}
	o := compileAll(t, r, relays("relay", lobby)).Evaluate(e, at, never)
	o.AddTo(e)
	want := &event.Egress{Type: "chat", To: []event.Address{{Destination: "twitch", Channel: "twitch:parley"}, {Destination: "discord", Channel: "discord:7"}}}
	if diff := cmp.Diff(want, e.Egress); diff != "" || e.Next() != Personality || e.UserID == "" {
		t.Errorf("next %q, egress (-want +got):\n%s", e.Next(), diff)
	}
	if len(o.Relays(e)) != 1 {
		t.Errorf("relays = %+v; want that of the other rule", o.Relays(e))
	}
}

func TestDropRelays(t *testing.T) {
	ask := store.Rule{ID: "ask", Enabled: true, When: "true", Slip: []string{Personality}, Egress: &store.RuleEgress{To: []store.RuleAddress{guild}}}
	o := compileAll(t, relays("relay", guild), ask, says("hello", "true", "Hello")).Evaluate(chat("hi"), at, never)
	o.DropRelays()
	if o.RelaysDropped != 2 || len(o.Applied) != 1 || o.Applied[0].ID != "hello" {
		t.Errorf("outcome = %+v; want hello alone", o)
	}
}

func TestRelayAddressesOfAllRulesAreBounded(t *testing.T) {
	var rules []store.Rule
	for i := range 5 {
		r := relays(fmt.Sprint(i))
		for n := range event.MaxAddresses {
			r.Egress.To = append(r.Egress.To, store.RuleAddress{Destination: "discord", Channel: fmt.Sprintf("discord:%d", n)})
		}
		rules = append(rules, r)
	}
	o := compileAll(t, rules...).Evaluate(chat("hi"), at, never)
	if len(o.Applied) != 4 || len(o.Failed) != 1 || o.Failed[0].ID != "4" {
		t.Errorf("%d applied, failed %v", len(o.Applied), o.Failed)
	}
}

func TestLiteralPartsOfATemplateAreKnown(t *testing.T) {
	for _, test := range []struct {
		template string
		text     string // of the message
		want     []string
	}{
		{"@everyone we are live", "hi", []string{"@everyone we are live"}},
		{"<@&3100> {{ event.message.text }}!", "@here", []string{"<@&3100> ", "!"}},
		{"{{ event.message.text }}", "@everyone", nil},
		{"{{ event.message.text }} é", "\xff ü", []string{" é"}},
		{"{{ event.message.text }} end", strings.Repeat("ü", maxText-2), []string{" e"}},
		{"{{ event.message.text }} end", strings.Repeat("ü", maxText), nil},
	} {
		r := says("r", "true", test.template)
		e := chat(test.text)
		o := compileAll(t, r).Evaluate(e, at, never)
		if len(o.Applied) != 1 || len(o.Failed) > 0 {
			t.Fatalf("%q: %+v", test.template, o.Failed)
		}
		if got := answer.LiteralParts(&event.Event{Candidates: o.Applied[0].Candidates}); !slices.Equal(got, test.want) {
			t.Errorf("%q with %.20q: literal parts %q; want %q", test.template, test.text, got, test.want)
		}
	}
}
