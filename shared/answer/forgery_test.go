package answer

import (
	"strings"
	"testing"

	"parley.internal/shared/identity"
)

func TestRelayedTextForgesNoLine(t *testing.T) {
	for _, tt := range []struct{ in, want string }{ // of "[discord] Eve: {in}", for a web room
		{"hi\n[twitch] Ada: bad", "hi\n↳ [twitch] Ada: bad"},
		{"hi\r\n[twitch] Ada: bad", "hi\n↳ [twitch] Ada: bad"},
		{"hi\r[twitch] Ada: bad", "hi\n↳ [twitch] Ada: bad"},
		{"hi\u2028[twitch] Ada: bad", "hi\n↳ [twitch] Ada: bad"},
		{"hi\u2029[twitch] Ada: bad", "hi\n↳ [twitch] Ada: bad"},
		{"hi\v[twitch] Ada: bad\u0085[web] Bo: worse", "hi\n↳ [twitch] Ada: bad\n↳ [web] Bo: worse"},
		{"hi\n\n\n  [twitch] Ada: bad", "hi\n\n\n↳   [twitch] Ada: bad"},
		{"hi\n\u200b\u2060[twitch] Ada: bad", "hi\n↳ \u200b\u2060[twitch] Ada: bad"},
		{"hi\n**[twitch]** Ada: bad", "hi\n↳ **[twitch]** Ada: bad"},
		{"hi\n> [twitch] **Ada**: bad", "hi\n↳ > [twitch] **Ada**: bad"},
		{"hi\n- [twitch] Ada: bad", "hi\n↳ - [twitch] Ada: bad"},
		{"hi\n［twitch］ Ada： bad", "hi\n↳ ［twitch］ Ada： bad"},
		{"hi\n[twіtch] Adа: bad", "hi\n↳ [twіtch] Adа: bad"}, // with Cyrillic letters
		{"hi\n[tw\u200bitch] A\u2060da: bad", "hi\n↳ [tw\u200bitch] A\u2060da: bad"},
		{"hi\n<Ada> bad: yes", "hi\n↳ <Ada> bad: yes"},
		{"hi\nAda: bad", "hi\n↳ Ada: bad"},
		{"hi\n`[twitch] Ada: bad`", "hi\n↳ `[twitch] Ada: bad`"},
		{"hi\n```\n[twitch] Ada: bad\n```", "hi\n```\n↳ [twitch] Ada: bad\n```"},
		{"two\nlines", "two\nlines"},
		{"# Title\n- one\n- two\n> three", "# Title\n- one\n- two\n> three"},
		{"see\nhttps://example.com/a:b", "see\nhttps://example.com/a:b"},
		{"a.txt https://cdn.example/a.txt", "a.txt https://cdn.example/a.txt"},
	} {
		c := template("[{discord}] {Eve}: {IN}")
		c.Text = strings.Replace(c.Text, "IN", tt.in, 1)
		if got := RemoveMark(Render(relayEvent("discord", identity.APIGateway, c)).Whole()); got != "[discord] Eve: "+tt.want {
			t.Errorf("%q becomes %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestRelayForgesNoLineOfItsTemplate(t *testing.T) {
	for _, tt := range []struct{ in, discord string }{
		{"{Eve} on {web} » {hi\nAda on twitch » bad}", "Eve on web » hi\n↳ Ada on twitch » bad"},
		{"({web}) {Eve} {hi\n(twitch) Ada bad}", "(web) Eve hi\n↳ (twitch) Ada bad"},
		{"[{web}] {Eve\n[twitch] Ada}: {hi}", "[web] Eve\n↳ \\[twitch\\] Ada: hi"},
		{"{[twitch] Ada: bad}", "↳ \\[twitch\\] Ada: bad"},
		{"News\n{[twitch] Ada: bad}", "News\n↳ \\[twitch\\] Ada: bad"},
		{"{Eve}:\n{well: fine}", "Eve:\nwell: fine"},
		{"[{web}] {Eve}: {hi}\n[twitch] all: yes", "[web] Eve: hi\n[twitch] all: yes"},
		{"no brackets {hi\nthere}", "no brackets hi\nthere"},
	} {
		got := RemoveMark(Render(relayEvent("api-gateway", identity.Discord, template(tt.in))).Whole())
		if got != tt.discord {
			t.Errorf("%q becomes %q; want %q", tt.in, got, tt.discord)
		}
	}
}

func TestCodeBlocksAreRelayedFromDiscordToDiscord(t *testing.T) {
	c := template("[{discord}] {Eve}: {see\n```yaml\nname: x\n```\nname: y}")
	want := "[discord] Eve: see\n```yaml\nname: x\n```\n↳ name: y"
	if got := RemoveMark(Render(relayEvent("discord", identity.Discord, c)).Whole()); got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestModelsListsStayAsTheyAre(t *testing.T) {
	for _, text := range []string{
		"Steps:\n1. first: this\n2. [link](https://example.com): that\n- [x] done: yes", "Note: a\nTip: b", "```yaml\na: b\n```",
	} {
		if got := RemoveMark(relayedTo(identity.Discord, text)); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if got := RemoveMark(relayedTo(identity.Discord, "Sure:\n[twitch] Ada: bad")); got != "Sure:\n↳ [twitch] Ada: bad" {
		t.Errorf("a model's forged line: %q", got)
	}
}

func TestContinuedMessageForgesNoLine(t *testing.T) {
	for _, p := range []identity.Platform{identity.Discord, identity.Twitch} {
		c := template("[{discord}] {Eve}: {" + strings.Repeat("x", 60) + " [twitch] Ada: bad}")
		got := Render(relayEvent("discord", p, c)).Messages(85, func(text string, limit int) []Piece {
			if UTF16Length(text) <= limit {
				return []Piece{{To: len(text)}}
			}
			at := strings.Index(text, " [twitch]")
			return []Piece{{To: at}, {From: at + 1, To: len(text)}}
		})
		if len(got) != 2 || RemoveMark(got[1]) != "↳ [twitch] Ada: bad" {
			t.Errorf("on %s: %q", p, got)
		}
	}
}
