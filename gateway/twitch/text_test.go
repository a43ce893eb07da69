package twitch

import (
	"context"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// guard is the zero width space before a command.
const guard = "\u200b"

// says is a model's answer.
func says(text string) *event.Event {
	return &event.Event{Source: sourceChat, Channel: "twitch:bruno", Candidates: []event.Candidate{{Text: text}}}
}

func TestSplit(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     []string
	}{
		{"short", "hello", []string{"hello"}},
		{"lines and controls", "a\r\nb\x00c\x01ACTION d\u2028e\x01", []string{"a bcACTION d e"}},
		{"empty", " \n\x00 ", nil},
		{"command", "/ban x", []string{guard + "/ban x"}},
		{"dot command", " .timeout x", []string{guard + ".timeout x"}},
		{"no command", "a /ban", []string{"a /ban"}},
		{"exactly one", strings.Repeat("x", 500), []string{strings.Repeat("x", 500)}},
		{"a word too long", strings.Repeat("x", 501), []string{strings.Repeat("x", 500), "x"}},
		{"between words", strings.Repeat("x", 300) + " " + strings.Repeat("y", 300), []string{strings.Repeat("x", 300), strings.Repeat("y", 300)}},
		{"a command after the split", strings.Repeat("x", 499) + " /me y", []string{strings.Repeat("x", 499), guard + "/me y"}},
		{"two units each", strings.Repeat("😀", 251), []string{strings.Repeat("😀", 250), "😀"}},
		{"not UTF-8", "a\xff b", []string{"a b"}},
	} {
		if got := messages(says(test.in)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q; want %q", test.name, got, test.want)
		}
	}
	long := messages(says(strings.Repeat("word ", 5000)))
	if len(long) != maxParts || !strings.HasSuffix(long[maxParts-1], ellipsis) {
		t.Errorf("a very long text becomes %d messages; want %d, and to see that it was cut", len(long), maxParts)
	}
}

func TestSplitKeepsWhatPeopleSeeAsOneCharacter(t *testing.T) {
	for _, cluster := range []string{"👩‍👩‍👧‍👦", "🇩🇪", "🏳️‍🌈", "👍🏽", "e\u0301\u0327", "1️⃣", "क्षि", "ᄒ\u1161\u11ab"} {
		for _, before := range []string{"", "x", "xx", "xxx"} {
			for i, m := range messages(says(before + strings.Repeat(cluster, 300))) {
				rest := strings.ReplaceAll(strings.TrimSuffix(m, ellipsis), cluster, "")
				if rest != "" && (i > 0 || rest != before) || answer.UTF16Length(m) > maxMessage {
					t.Errorf("%q: message %d of %d units holds a piece: %q", cluster, i, answer.UTF16Length(m), rest)
				}
			}
		}
	}
	zalgo := "e" + strings.Repeat("\u0301", 1200) // longer than a message
	if got := strings.Join(messages(says(zalgo)), ""); got != zalgo {
		t.Errorf("a long cluster becomes %d bytes; want %d", len(got), len(zalgo))
	}
}

func TestMessagesOfARelay(t *testing.T) {
	relay := func(prefix, text string) *event.Event {
		e := says(prefix + text)
		e.Source, e.Egress = "ingress.discord", &event.Egress{Destination: "twitch", Relay: &event.Relay{Source: "ingress.discord", Channel: "discord:7"}}
		e.Candidates[0].Metadata = answer.TemplateMetadata([]answer.Span{{0, len(prefix)}})
		return e
	}
	for name, test := range map[string]struct {
		prefix, text string
		want         []int // lengths
		marked       int
	}{
		"short":                    {"Ada: ", "hi", []int{5 + 2 + 4}, 1},
		"room for the mark":        {"Ada: ", strings.Repeat("x", 491), []int{500}, 1},
		"exactly the limit":        {"Ada: ", strings.Repeat("x", 495), []int{500}, 0},
		"the limit, nothing added": {"", strings.Repeat("x ", 249) + "xx", []int{493 + 4, 6 + 4}, 2},
		"a command after the mark": {"Ada: ", strings.Repeat("x", 487) + " !ban bruno", []int{492 + 4, 1 + 10 + 4}, 2},
		"a forged line":            {"[a] Ada: ", strings.Repeat("x", 483) + " [bb] Bo: bad bad bad", []int{492 + 4, 2 + 20 + 4}, 2},
	} {
		got := messages(relay(test.prefix, test.text))
		var lengths []int
		marked := 0
		for _, m := range got {
			lengths = append(lengths, answer.UTF16Length(m))
			if answer.WasRelayed(&event.Event{Message: &event.Message{Text: m}}) {
				marked++
			}
		}
		if !slices.Equal(lengths, test.want) || marked != test.marked {
			t.Errorf("%s: %d long, %d marked; want %d, %d: %q", name, lengths, marked, test.want, test.marked, got)
		}
	}
}

func TestOperatorCommandsOtherBotsButNotTwitch(t *testing.T) {
	for text, want := range map[string]string{"!so ada": "!so ada", "/ban ada": guard + "/ban ada", ".me waves": guard + ".me waves", " \u2060/ban ada": guard + "/ban ada"} {
		e := says(text)
		e.Candidates[0].Metadata = answer.TemplateMetadata([]answer.Span{{0, len(text)}})
		if got := messages(e); len(got) != 1 || got[0] != want {
			t.Errorf("%q becomes %q; want %q", text, got, want)
		}
	}
	if got := messages(says("!ban ada")); len(got) != 1 || got[0] != guard+"!ban ada" {
		t.Errorf("a model's command becomes %q", got)
	}
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"hello world", "/ban " + strings.Repeat("x", 600), strings.Repeat("😀 .x ", 300), "\x00\xff\r\n/", strings.Repeat(".", 1200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all := messages(says(text))
		if len(all) > maxParts {
			t.Fatalf("%d messages", len(all))
		}
		for _, p := range all {
			if answer.UTF16Length(p) > maxMessage || p == "" || !utf8.ValidString(p) || strings.ContainsAny(p[:1], "/.!") || p[0] == ' ' || strings.ContainsFunc(p, unicode.IsControl) {
				t.Fatalf("message %q of %q", p, text)
			}
		}
		if len(all) == maxParts {
			return // the text may be shortened
		}
		letters := func(s string) string {
			return strings.Map(func(r rune) rune {
				if unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Cf, r) {
					return -1
				}
				return r
			}, strings.ToValidUTF8(s, ""))
		}
		if got, want := letters(strings.Join(all, "")), letters(text); got != want {
			t.Fatalf("said %q; want %q", got, want)
		}
	})
}

// FuzzParse checks that no line ends the program.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"PRIVMSG", "@badges=x :a!b@c PRIVMSG #x :hi", ":tmi.twitch.tv CLEARCHAT", "@emotes=1:0-9999 :a PRIVMSG #x :y", "USERNOTICE", "@id=1;user-id=1 :a!a@a USERNOTICE #x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		m, _ := parse(line)
		if e := toEvent(m, testBot); e != nil {
			if err := e.Validate(); err != nil && utf8.ValidString(line) && len(line) < 400 {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

type discard struct{}

func (discard) Publish(context.Context, topology.Topic, bus.Outgoing) error { return nil }

func counter(c prometheus.Metric) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

var testBot = botAccount("1000")

func botAccount(id string) account {
	user, err := identity.New(identity.Twitch, id)
	if err != nil {
		panic(err)
	}
	return account{user, "parley", "Parley"}
}
