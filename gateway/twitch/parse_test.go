package twitch

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/gateway/twitch/eventsub"
)

// parsed reads a well-formed line.
func parsed(t *testing.T, line string) irc.Message {
	t.Helper()
	m, err := parse(line)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The library panics on these lines.
func TestMalformedLinesAreRepairedCountedAndLogged(t *testing.T) {
	const from = ";id=m1;user-id=7;room-id=5;mod=1 :a!a@a.tmi.twitch.tv "
	for _, tt := range []struct {
		name, line string
		text       string // of the event; empty for no event
		badges     string // of the event
		result     string
	}{
		{"a badge without a version", "@badges=moderator" + from + "PRIVMSG #x :hello", "hello", "moderator/0", "repaired"},
		{"a badge without a version among others", "@badges=vip/1,moderator,subscriber/12" + from + "PRIVMSG #x :hello", "hello", "vip/1,moderator/0,subscriber/12", "repaired"},
		{"an empty badge", "@badges=vip/1,,x/1" + from + "PRIVMSG #x :hello", "hello", "vip/1,x/1", "repaired"},
		{"a comma after the badges", "@badges=vip/1," + from + "PRIVMSG #x :hello", "hello", "vip/1", "repaired"},
		{"an emote that ends before its start", "@emotes=25:5-3" + from + "PRIVMSG #x :hello there", "hello there", "", "repaired"},
		{"an emote with a negative end", "@emotes=25:3--5" + from + "PRIVMSG #x :hello there", "hello there", "", "repaired"},
		{"an emote without an end", "@emotes=25:3-" + from + "PRIVMSG #x :hello there", "", "", ""}, // the library skips the emote
		{"emotes and badges", "@emotes=25:5-3;badges=moderator" + from + "PRIVMSG #x :hello there", "hello there", "moderator/0", "repaired"},
		{"an emote in a /me", "@emotes=25:5-3" + from + "PRIVMSG #x :\x01ACTION hello there\x01", "hello there", "", "repaired"},
		{"an emote in an empty text", "@emotes=25:0-4" + from + "PRIVMSG #x :", "", "", "repaired"},
		{"an emote without a text", "@emotes=25:0-4" + from + "PRIVMSG #x", "", "", "repaired"},
		{"an emote in a resub without a text", "@msg-id=resub;emotes=25:0-4" + from + "USERNOTICE #x", "", "", "repaired"},
		{"a badge in the answer to a message", "@badges=moderator;mod=1 :tmi.twitch.tv USERSTATE #x", "", "", "repaired"},
		{"no channel", "@badges=" + from + "PRIVMSG", "", "", "dropped"},
		{"no channel of a notice", ":tmi.twitch.tv NOTICE", "", "", "dropped"},
		{"no channel of a cleared chat", ":tmi.twitch.tv CLEARCHAT", "", "", "dropped"},
		{"no channel, no tags", "ROOMSTATE", "", "", "dropped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			var logged bytes.Buffer
			c := &chat{metrics: m, log: slog.New(slog.NewTextHandler(&logged, nil))}
			for range 3 {
				got := c.parse(tt.line)
				if (got == nil) != (tt.result == "dropped") {
					t.Fatalf("parsed %+v", got)
				}
				e := toEvent(got, testBot)
				if tt.text == "" {
					continue
				}
				if e == nil || e.Message.Text != tt.text || e.UserID != "twitch:7" {
					t.Fatalf("event = %+v; want the text %q", e, tt.text)
				}
				var raw rawMessage
				if err := json.Unmarshal(e.Message.RawPlatformPayload, &raw); err != nil || raw.Badges != tt.badges || !raw.IsMod {
					t.Errorf("raw = %+v, %v; want the badges %q", raw, err, tt.badges)
				}
			}
			for _, result := range []string{"repaired", "dropped"} {
				want := 0.0
				if result == tt.result {
					want = 3
				}
				if n := counter(m.malformed.WithLabelValues(result)); n != want {
					t.Errorf("%v lines %s; want %v", n, result, want)
				}
			}
			n := strings.Count(logged.String(), "malformed line from Twitch")
			if want := map[bool]int{true: 1}[tt.result != ""]; n != want || strings.Contains(logged.String(), "hello") {
				t.Errorf("logged %q; want %d line without the text", logged.String(), want)
			}
		})
	}
}

func TestTheLogOfAMalformedLineIsBounded(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	c := &chat{metrics: m, log: slog.New(slog.NewTextHandler(&logged, nil))}
	c.parse("@emotes=25:5-3," + strings.Repeat("1-2,", 3000) + ";badges=" + strings.Repeat("ü,", 2000) + " :a!a@a PRIVMSG #x :hi")
	if n := logged.Len(); n == 0 || n > 1000 {
		t.Errorf("logged %d bytes", n)
	}
}

// The connection survives a malformed line, and the person is heard.
func TestAMalformedLineDoesNotEndTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	alice := w.user("alice")
	m := w.start("a", transportIRC, []string{channel})
	w.joined(channel)
	for _, line := range []string{
		"@badges=moderator;emotes=25:5-3;id=m1;user-id=" + alice.ID + ";room-id=5 :alice!alice@alice.tmi.twitch.tv PRIVMSG #streamer :heard",
		":tmi.twitch.tv NOTICE",
	} {
		if n := w.twitch.PushIRC(w.bot.Login, line); n != 1 {
			t.Fatalf("sent to %d connections", n)
		}
	}
	w.say(channel, "alice", "later")
	eventually(t, "both lines are published", func() bool { return len(w.events("")) == 2 })
	if got := w.events("")[0].Message.Text; got != "heard" {
		t.Errorf("first %q", got)
	}
	if n := counter(m.metrics.disconnects); n != 0 {
		t.Errorf("the connection ended %v times", n)
	}
}

// Programs append invisible characters to a repeated message. The chat passes them on; the enrichment removes them.
func TestInvisibleCharactersReachTheEvent(t *testing.T) {
	for _, end := range []string{"\u034f", "\u2800", "\U000e0000", " \u034f", " \u2800", " \U000e0000", "🙂"} {
		e := toEvent(parsed(t, "@id=m1;user-id=7;room-id=5 :a!a@a PRIVMSG #x :!help"+end), testBot)
		if e == nil || e.Message.Text != "!help"+end {
			t.Errorf("%+q: %+v", end, e)
		}
	}
}

func TestATextWithNothingVisibleIsNoMessage(t *testing.T) {
	for _, text := range []string{"\u034f", "\u2800", "\U000e0000", "\u200b \u200b", "\x01ACTION \u2800\x01", "\ufe0f"} {
		if e := toEvent(parsed(t, "@id=m1;user-id=7;room-id=5 :a!a@a PRIVMSG #x :"+text), testBot); e != nil {
			t.Errorf("%+q: %+v", text, e)
		}
		content, err := json.Marshal(map[string]any{"whisper_id": "w1", "from_user_id": "7", "whisper": map[string]string{"text": strings.Trim(text, "\x01ACTION")}})
		if err != nil {
			t.Fatal(err)
		}
		if e := whisperEvent(eventsub.Notification{Event: content}, testBot); e != nil {
			t.Errorf("a whisper of %+q: %+v", text, e)
		}
	}
	// a reply with nothing visible behind the mention stays whole
	e := toEvent(parsed(t, "@id=m1;user-id=7;room-id=5;reply-parent-msg-id=p1;reply-parent-user-login=ada;reply-parent-display-name=Ada :a!a@a PRIVMSG #x :@Ada \U000e0000"), testBot)
	if e == nil || e.Message.Text != "@Ada \U000e0000" {
		t.Errorf("%+v", e)
	}
}
