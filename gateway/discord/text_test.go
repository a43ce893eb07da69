package discord

import (
	"strings"
	"testing"
	"unicode/utf8"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
)

// split returns the messages of a model's text.
func split(text string) []string {
	return messages(&event.Event{Source: Source, Channel: "discord:7", Candidates: []event.Candidate{{Text: text}}})
}

func TestSplitMessage(t *testing.T) {
	t.Parallel()
	word := strings.Repeat("w", 9) + " "
	for _, test := range []struct {
		name, in string
		want     []string
	}{
		{"empty", " \n\t ", nil},
		{"only what can't be seen", "\x00\x07", nil},
		{"short", " hello\r\nyou ", []string{"hello\nyou"}},
		{"just fits", strings.Repeat("a", 2000), []string{strings.Repeat("a", 2000)}},
		{"one word", strings.Repeat("a", 2500), []string{strings.Repeat("a", 1996), strings.Repeat("a", 504)}},
		{"words", strings.Repeat(word, 250), []string{strings.TrimSpace(strings.Repeat(word, 200)), strings.TrimSpace(strings.Repeat(word, 50))}},
		{"lines before words", strings.Repeat(word, 150) + "\n" + strings.Repeat(word, 100), []string{strings.TrimSpace(strings.Repeat(word, 150)), strings.TrimSpace(strings.Repeat(word, 100))}},
		{"astral characters count twice", strings.Repeat("😀 ", 700), []string{strings.TrimSpace(strings.Repeat("😀 ", 666)), strings.TrimSpace(strings.Repeat("😀 ", 34))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := split(test.in)
			if len(got) != len(test.want) {
				t.Fatalf("%d parts (%.60q); want %d", len(got), got, len(test.want))
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("part %d is %.80q (%d), want %.80q (%d)", i, got[i], len(got[i]), test.want[i], len(test.want[i]))
				}
			}
		})
	}
}

func TestSplitCodeBlocksAreClosedAndReopened(t *testing.T) {
	t.Parallel()
	code := strings.Repeat("fmt.Println(\"hello\")\n", 200)
	got := split("Look:\n```go\n" + code + "```\nThat is all.")
	if len(got) != 3 {
		t.Fatalf("%d parts; want 3", len(got))
	}
	var inside strings.Builder
	for i, p := range got {
		if n := strings.Count(p, ticks); n != 2 {
			t.Errorf("part %d has %d fences", i, n)
		}
		_, rest, _ := strings.Cut(p, "```go\n")
		body, _, _ := strings.Cut(rest, ticks)
		inside.WriteString(strings.TrimRight(body, "\n") + "\n")
	}
	if inside.String() != code {
		t.Error("the code is not the same after it was split")
	}
	if !strings.HasPrefix(got[0], "Look:") || !strings.HasSuffix(got[2], "That is all.") {
		t.Errorf("the text around the code is lost: %.20q … %.20q", got[0], got[2])
	}
}

func TestLongAnswersAreTruncated(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"text": strings.Repeat("word ", 10000), "code": ticks + "\n" + strings.Repeat("word\n", 10000) + ticks,
	} {
		got := split(text)
		if len(got) != maxParts || !strings.Contains(got[maxParts-1][len(got[maxParts-1])-10:], ellipsis) {
			t.Errorf("%s: %d parts, the last ends with %q", name, len(got), got[len(got)-1][len(got[len(got)-1])-10:])
		}
	}
}

func TestSplitKeepsWhatPeopleSeeAsOneCharacter(t *testing.T) {
	t.Parallel()
	for _, cluster := range []string{
		"👩‍👩‍👧‍👦", "🇩🇪", "🏳️‍🌈", "👍🏽", "e\u0301\u0327", "1️⃣", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "क्षि", "ᄒ\u1161\u11ab",
	} {
		for _, before := range []string{"", "x", "xx", "a word and "} {
			for _, e := range []*event.Event{
				{Source: Source, Candidates: []event.Candidate{{Text: before + strings.Repeat(cluster, 1200)}}},
				relayed(fromTemplate("ingress.twitch", before+"{"+strings.Repeat(cluster, 1200)+"}")),
			} {
				for i, m := range messages(e) {
					if answer.UTF16Length(m) > maxText {
						t.Errorf("%q: message %d is %d long", cluster, i, answer.UTF16Length(m))
					}
					rest := strings.ReplaceAll(strings.TrimSuffix(answer.StripMarks(m), ellipsis), cluster, "")
					if rest != strings.TrimSpace(before) && (i == 0 || rest != "") && strings.TrimSpace(rest) != strings.TrimSpace(before) {
						t.Errorf("%q: message %d holds a piece: %q", cluster, i, rest)
					}
				}
			}
		}
	}
}

// relayed returns an event as sent to another address.
func relayed(e *event.Event) *event.Event {
	e.Egress.Relay = &event.Relay{Source: e.Source, Channel: "there"}
	return e
}

func TestMessagesOfARelay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		template string
		messages int
		marked   int
	}{
		"short":                        {"[{twitch}] {Ada}: {hi}", 1, 1},
		"room for the mark":            {"[{twitch}] {Ada}: {" + strings.Repeat("x", 1996-14) + "}", 1, 1},
		"exactly the limit":            {"[{twitch}] {Ada}: {" + strings.Repeat("x", 2000-14) + "}", 1, 0},
		"one more":                     {"[{twitch}] {Ada}: {" + strings.Repeat("x", 2001-14) + "}", 2, 2},
		"the limit, nothing added":     {"{" + strings.Repeat("x ", 999) + "xx}", 2, 2},
		"more than the limit in words": {"[{twitch}] {Ada}: {" + strings.Repeat("many words ", 300) + "}", 2, 2},
		"code":                         {"[{discord}] {Ada}: {look\n```go\n" + strings.Repeat("x := 1\n", 400) + "```}", 2, 1},
	} {
		e := fromTemplate("ingress.twitch", test.template)
		if name == "code" {
			e.Source = Source
		}
		got := messages(relayed(e))
		marked := 0
		for _, m := range got {
			if answer.UTF16Length(m) > maxText {
				t.Errorf("%s: a message is %d long", name, answer.UTF16Length(m))
			}
			if answer.WasRelayed(&event.Event{Message: &event.Message{Text: m}}) {
				marked++
			}
		}
		if len(got) != test.messages || marked != test.marked {
			t.Errorf("%s: %d messages, %d marked; want %d, %d", name, len(got), marked, test.messages, test.marked)
		}
	}
}

func TestSplitMessagesAreNoCommands(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"!ban bruno", "/ban bruno", ".ban bruno", "\u200b!ban bruno", "\ufeff/ban bruno"} {
		got := split(strings.Repeat("x", 1999) + " " + command)
		want := "\u200b" + strings.TrimLeft(command, "\u200b\ufeff")
		if len(got) < 2 || got[len(got)-1] != want {
			t.Errorf("%q: the last message is %q; want %q", command, got[len(got)-1], want)
		}
	}
	got := messages(fromTemplate(Source, "!so {"+strings.Repeat("x ", 1300)+"} "))
	if len(got) != 2 || !strings.HasPrefix(got[0], "!so x") {
		t.Errorf("an operator's command is %.20q", got)
	}
}

func FuzzSplitMessage(f *testing.F) {
	f.Add("hello")
	f.Add(ticks + "go\n" + strings.Repeat("x := 1\n", 400) + ticks + " and " + ticks + "y" + ticks)
	f.Add(strings.Repeat("a", 5000) + ticks)
	f.Add(strings.Repeat("😀", 2100) + "\n" + strings.Repeat("\n", 3000) + ticks + strings.Repeat(" ", 2500) + "x")
	f.Fuzz(func(t *testing.T, text string) {
		got := split(text)
		for i, p := range got {
			if answer.UTF16Length(p) > maxText || strings.TrimSpace(p) == "" || !utf8.ValidString(p) {
				t.Fatalf("part %d of %d is %q (%d)", i, len(got), p, answer.UTF16Length(p))
			}
		}
		if len(got) > maxParts {
			t.Fatalf("%d parts", len(got))
		}
	})
}
