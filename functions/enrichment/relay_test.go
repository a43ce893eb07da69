package enrichment_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley.internal/functions/enrichment"
	"parley.internal/shared/answer"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

const relayText = "[{{ event.auth.provider }}] {{ event.user.displayName }}: {{ event.message.text }}"

// shareTalk adds a relay rule for a Twitch channel, a Discord channel and a web room.
func (r *rig) shareTalk() {
	r.rule("relay", map[string]any{
		"when": `event.type == "chat.message"`, "candidates": textCandidate(relayText),
		"egress": map[string]any{"to": []map[string]any{
			{"destination": "twitch", "channel": "twitch:parley"}, {"destination": "discord", "channel": "discord:7"}, {"destination": "api-gateway", "channel": "lobby"},
		}},
	})
}

// said returns the texts sent to each channel, in order.
func (r *rig) said() map[string][]string {
	m := map[string][]string{}
	for _, out := range r.bus.sent[topology.Egress] {
		m[out.Event.Channel] = append(m[out.Event.Channel], answer.StripMarks(answer.Render(out.Event).Whole()))
	}
	return m
}

// announcements records dead letters.
type announcements struct{ n int }

func (a *announcements) Announce(context.Context, []byte, map[string]string, deadletter.Announcement) error {
	a.n++
	return nil
}

func TestRelayAmongThreeChannels(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.shareTalk()
		r.rule("hello", map[string]any{"when": `event.message.text == "!hello"`, "candidates": textCandidate("Hello {{ event.user.displayName }}")})
		r.put("users/twitch:5", map[string]any{"displayName": "Ada"})
		r.put("users/discord:6", map[string]any{"displayName": "Bo"})
		onTwitch := onTwitch("t1", "5", "@everyone hi", `"isMod":false`)
		onTwitch.Channel = "twitch:parley"
		onDiscord := says("d1", "discord:6", "!hello")
		onDiscord.Source, onDiscord.Channel, onDiscord.Egress = "ingress.discord", "discord:7", nil
		onWeb := says("w1", "twitch:5", "from the web")
		for _, e := range []*event.Event{onTwitch, onDiscord, onWeb} {
			r.enrich(e)
		}
		want := map[string][]string{
			"twitch:parley": {"[discord] Bo: !hello", "[twitch] Ada: from the web"},
			"discord:7":     {"[twitch] Ada: @everyone hi", "Hello Bo", "[twitch] Ada: from the web"},
			"lobby":         {"[twitch] Ada: @everyone hi", "[discord] Bo: !hello"},
		}
		got := r.said()
		for _, all := range []map[string][]string{got, want} {
			for _, texts := range all {
				slices.Sort(texts) // an event's own answer and its relays are sent at the same time
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what was said where (-want +got):\n%s", diff)
		}
		for _, out := range r.bus.sent[topology.Egress] {
			if out.Event.Channel == "discord:7" && strings.Contains(answer.Render(out.Event).Whole(), "@everyone") {
				t.Errorf("%q rings everybody", answer.Render(out.Event).Whole())
			}
		}
	})
}

func TestRelayDeliveriesAreIndependentAndNotRepeated(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("relay", map[string]any{"candidates": textCandidate(relayText), "egress": map[string]any{"to": []map[string]any{
			{"destination": "twitch", "channel": "twitch:parley"}, {"destination": "discord", "channel": "discord:7"}, {"destination": "api-gateway", "channel": "stage"},
		}}})
		e := says("c1", "twitch:5", "hi")
		// nothing that fails loses anything: neither the publish for observers nor one of the three
		r.bus.fail[topology.Egress] = 2
		if err := r.try(e); err == nil || errors.As(err, new(*deadletter.Error)) {
			t.Fatalf("error %v; want one that has it delivered again", err)
		}
		r.bus.fail[topology.Egress] = 0
		r.enrich(e)
		var ids []string
		for _, channel := range []string{"twitch:parley", "discord:7", "stage"} {
			ids = append(ids, delivery.ID("c1", "rule:relay@"+channel))
		}
		reaper := delivery.NewReaper(r.ledger, deadletter.NewStore(r.client, func() time.Time { return r.now }), &announcements{}, "test", time.Second)
		for i, id := range ids {
			var err error
			if i == 1 {
				_, err = reaper.MarkDead(t.Context(), id, 0, deadletter.New(deadletter.NoConnection, errors.New("nobody there")))
			} else {
				_, err = r.ledger.MarkDelivered(t.Context(), delivery.Ref{ID: id})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.bus.sent[topology.Egress] = nil
		r.enrich(e)
		refs, err := r.client.Collection("deliveries").DocumentRefs(t.Context()).GetAll()
		if err != nil || len(refs) != 3 || len(r.bus.sent[topology.Egress]) != 0 {
			t.Fatalf("%d deliveries, %d published again, %v", len(refs), len(r.bus.sent[topology.Egress]), err)
		}
		for i, want := range []delivery.State{delivery.Delivered, delivery.Dead, delivery.Delivered} {
			if got, err := r.ledger.Get(t.Context(), ids[i]); err != nil || got.State != want {
				t.Errorf("delivery %d = %s, %v; want %s", i, got.State, err, want)
			}
		}
		if n := r.user("twitch:5").MessageCountAllTime; n != 1 {
			t.Errorf("%d messages counted", n)
		}
	})
}

func TestRelayedMessageIsNotRelayedAgain(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.shareTalk()
		r.rule("hello", map[string]any{"when": `event.message.text.contains("hi")`, "candidates": textCandidate("Hello")})
		r.put("users/twitch:5", map[string]any{"displayName": "Ada"})
		r.enrich(says("c0", "twitch:5", "hi"))
		relayed := map[string]*event.Event{}
		for _, out := range r.bus.sent[topology.Egress] {
			relayed[out.Event.Channel] = out.Event
		}
		text := answer.Render(relayed["discord:7"]).Whole()

		otherBot := onTwitch("c1", "99", text, `"username":"otherbot"`)
		client := says("c2", "api-gateway:eve", "> "+text)
		own := says("c3", "twitch:5", "hi")
		own.Message.Role = "assistant"
		back := relayed["twitch:parley"].Clone()
		back.CorrelationID, back.Candidates, back.Message.Role = "c4", nil, event.RoleUser
		bridge := says("c5", "discord:77", "hi")
		for name, e := range map[string]*event.Event{
			"another Parley's bot heard it": otherBot, "a client repeats it": client, "a bot said it": own,
			"the event itself came back": back, "a bridge that the configuration names": bridge,
		} {
			before := len(r.bus.sent[topology.Egress])
			for range 2 { // and its redelivery
				r.enrich(e)
			}
			for _, out := range r.bus.sent[topology.Egress][before:] {
				if text := answer.StripMarks(answer.Render(out.Event).Whole()); text != "Hello" {
					t.Errorf("%s: relayed to %s: %q", name, out.Event.Channel, answer.Render(out.Event).Whole())
				}
			}
		}
		// the same text written again is a new message
		before := len(r.bus.sent[topology.Egress])
		r.enrich(says("c6", "api-gateway:eve", answer.StripMarks(text)))
		if n := len(r.bus.sent[topology.Egress]) - before; n != 3 {
			t.Errorf("%d answers; want two relays and Hello", n)
		}
	}, "RELAY_IGNORE=discord:77,discord:78")
}

func TestRelayKeepsTheOrderOfOneUser(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.shareTalk()
		r.put("users/twitch:5", map[string]any{"displayName": "Ada"})
		var want []string
		for _, text := range []string{"one", "two", "three", "four"} {
			r.bus.fail[topology.Egress] = 1 // each fails at first, and comes again before the next
			e := says(text, "twitch:5", text)
			if err := r.try(e); err == nil {
				t.Fatal("no error although one was not published")
			}
			r.enrich(e)
			want = append(want, "[twitch] Ada: "+text)
		}
		for _, channel := range []string{"twitch:parley", "discord:7"} {
			if got := slices.Compact(r.said()[channel]); !slices.Equal(got, want) {
				t.Errorf("at %s: %q; want %q", channel, got, want)
			}
			for _, out := range r.bus.sent[topology.Egress] {
				if out.Event.Channel == channel && out.Event.OrderingKey() != channel+"|" {
					t.Errorf("ordering key %q", out.Event.OrderingKey())
				}
			}
		}
	})
}

func TestBlockedUsersAreNotRelayed(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.shareTalk()
		r.put("users/twitch:5", map[string]any{"status": "blocked"})
		r.enrich(says("c1", "twitch:5", "hi"))
		if len(r.answers()) != 0 {
			t.Errorf("said: %v", r.answers())
		}
	})
}

func TestRelayConfig(t *testing.T) {
	_, err := config.Load[enrichment.Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "RELAY_IGNORE=discord:1,eve"})
	if err == nil || !strings.Contains(err.Error(), "RELAY_IGNORE") || !strings.Contains(err.Error(), "eve") {
		t.Errorf("error %v; want one that names RELAY_IGNORE and eve", err)
	}
}
