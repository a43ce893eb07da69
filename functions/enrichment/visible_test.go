package enrichment_test

import (
	"fmt"
	"testing"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

// Chat programs append invisible characters to a repeated message. A command with such a character is the command on
// every platform.
func TestACommandWithInvisibleCharactersIsTheCommand(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.rule("help", map[string]any{"when": `event.message.text == "!help"`, "candidates": textCandidate("ask")})
		r.rule("heart", map[string]any{"when": `event.message.text == "\u2764\ufe0f"`, "candidates": textCandidate("love")})
		r.rule("echo", map[string]any{"when": `event.message.text.startsWith("!echo")`, "candidates": textCandidate("[{{ event.message.text }}]")})
		n := 0
		for _, tt := range []struct{ text, want string }{
			{"!help", "ask"}, {"!help \U000e0000", "ask"}, {"!help\u034f", "ask"}, {"!help \u2800", "ask"}, {"\ufeff!help\u200b", "ask"}, {" !help\n", "ask"},
			{"\u2764\ufe0f", "love"}, {"\u2764\ufe0f \U000e0000", "love"},
			{"!echo a\u200bb \u034f", "[!echo a\u200bb]"}, {"!echo \u2764\ufe0f\u200d\U0001f525", "[!echo \u2764\ufe0f\u200d\U0001f525]"},
		} {
			onDiscord := says(fmt.Sprint("d", n), "discord:6", tt.text)
			onDiscord.Source = "ingress.discord"
			for _, e := range []*event.Event{
				says(fmt.Sprint("w", n), "api-gateway:eve", tt.text), onTwitch(fmt.Sprint("t", n), "5", tt.text, `"text":"raw"`), onDiscord,
				{V: event.Version, Source: "custom", CorrelationID: fmt.Sprint("u", n), Type: event.TypeChatMessage, Channel: "lobby", Message: &event.Message{Text: tt.text}, Egress: &event.Egress{Destination: "api-gateway"}},
			} {
				r.bus.sent[topology.Egress] = nil
				original, raw := e.Message.Text, string(e.Message.RawPlatformPayload)
				got := r.enrich(e)
				if said := r.answers(); len(said) != 1 || said[0] != tt.want {
					t.Errorf("%+q from %s is answered with %q; want %q", tt.text, e.Source, said, tt.want)
				}
				if e.Message.Text != original || string(got.Message.RawPlatformPayload) != raw {
					t.Errorf("%+q from %s: the original is %+q now, the payload %s", tt.text, e.Source, e.Message.Text, got.Message.RawPlatformPayload)
				}
			}
			n++
		}
	})
}

// The mark of a relayed text of one word is at the end of the text.
func TestTheMarkAtTheEndOfATextIsFound(t *testing.T) {
	onFirestore(t, func(r *rig) {
		r.shareTalk()
		r.rule("short", map[string]any{"when": `event.message.text == "hello"`, "candidates": textCandidate("an answer")})
		relayed := answer.FanOut(&event.Event{
			Source: "ingress.twitch", Channel: "twitch:bruno", Candidates: []event.Candidate{{Text: "hello"}},
			Egress: &event.Egress{To: []event.Address{{Destination: "discord", Channel: "discord:1"}}},
		}, "s")[0].Event
		marked := answer.Render(relayed).Whole()
		if marked == "hello" {
			t.Fatal("the text has no mark")
		}
		r.enrich(says("c1", "twitch:5", marked))
		if said := r.answers(); len(said) != 1 || said[0] != "an answer" {
			t.Errorf("said %q; want only the answer, and no relay", said)
		}
	})
}
