package twitch

import (
	"strings"
	"testing"

	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/google/go-cmp/cmp"
)

func TestParseMessage(t *testing.T) {
	for _, c := range []struct {
		in   string
		want message
	}{
		{"PING", message{command: "PING"}},
		{"nick  Bob ", message{command: "NICK", params: []string{"Bob"}}},
		{"CAP REQ :a b", message{command: "CAP", params: []string{"REQ", "a b"}}},
		{"@client-nonce=a;reply-parent-msg-id=b;c PRIVMSG #x ::) ", message{
			tags: tags{"client-nonce": "a", "reply-parent-msg-id": "b", "c": ""}, command: "PRIVMSG", params: []string{"#x", ":) "}}},
		{`@a=\:\s\\\r\n\x\ :me JOIN #x,#y`, message{tags: tags{"a": "; \\\r\nx"}, prefix: "me", command: "JOIN", params: []string{"#x,#y"}}},
	} {
		got, ok := parseMessage(c.in)
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(message{})); d != "" || !ok {
			t.Errorf("parseMessage(%q); want -, got +:\n%s", c.in, d)
		}
	}
	for _, in := range []string{"", " ", "@a=b", "@a=b ", ":x", ":x "} {
		if got, ok := parseMessage(in); ok {
			t.Errorf("parseMessage(%q) = %+v; want none", in, got)
		}
	}
}

// FuzzParseMessage checks that parsing never panics, that an encoded message parses to the same message, and that
// go-twitch-irc parses it in the same way.
func FuzzParseMessage(f *testing.F) {
	f.Add(`@a=b\sc;d :p!p@p PRIVMSG #x :hello there`)
	f.Add("CAP REQ :twitch.tv/tags")
	f.Add(":x  y   z ")
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := parseMessage(line)
		if !ok || strings.ContainsAny(line, "\r\n\x00") {
			return
		}
		for _, p := range m.params[:max(len(m.params)-1, 0)] {
			if p == "" || strings.Contains(p, " ") || strings.HasPrefix(p, ":") {
				t.Fatalf("%q has the parameters %q", line, m.params)
			}
		}
		out := m.encode(true)
		again, ok := parseMessage(out)
		if !ok {
			t.Fatalf("%q was encoded as %q, without a command", line, out)
		}
		if len(m.tags) == 0 {
			m.tags, again.tags = nil, nil
		}
		if d := cmp.Diff(m, again, cmp.AllowUnexported(message{})); d != "" {
			t.Fatalf("%q was encoded as %q; parsed first -, parsed again +:\n%s", line, out, d)
		}
	})
}

func TestEncodedMessagesAreParsedByGoTwitchIRC(t *testing.T) {
	in := message{
		tags: tags{"id": "1", "display-name": "A", "system-msg": `a b;c\d`, "tmi-sent-ts": "0"}, prefix: host,
		command: "USERNOTICE", params: []string{"#x", "two\r\nlines"},
	}
	got, ok := irc.ParseMessage(in.encode(true)).(*irc.UserNoticeMessage)
	if !ok || got.Message != "two  lines" || got.Tags["system-msg"] != `a b;c\d` || got.Channel != "x" {
		t.Errorf("%q was parsed as %+v", in.encode(true), got)
	}
}
