package twitch

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/event"
)

// oddLine is an IRC line with the documented result: the type and the text of its event, or no type for no event.
type oddLine struct{ name, line, kind, text string }

func oddLines() []oddLine {
	const tags, from = "@id=m1;user-id=7;room-id=5;display-name=Ada", " :ada!ada@ada.tmi.twitch.tv PRIVMSG #x"
	const said = tags + from + " :"
	chat := event.TypeChatMessage
	lines := []oddLine{
		{"nothing", "", "", ""},
		{"a space", " ", "", ""},
		{"a colon", ":", "", ""},
		{"an at sign", "@", "", ""},
		{"tags alone", "@a=b", "", ""},
		{"tags and a space", "@a=b ", "", ""},
		{"a source alone", ":tmi.twitch.tv", "", ""},
		{"an unknown command", ":tmi.twitch.tv FROB #x :hi", "", ""},
		{"a command in lower case", tags + " :ada!ada@ada.tmi.twitch.tv privmsg #x :hi", "", ""},
		{"a number", ":tmi.twitch.tv 421 parley FROB :Unknown command", "", ""},
		{"a message without tags", ":ada!ada@ada.tmi.twitch.tv PRIVMSG #x :hi", "", ""},
		{"a message without a source", tags + " PRIVMSG #x :hi", chat, "hi"},
		{"a message without an id", "@user-id=7;room-id=5" + from + " :hi", "", ""},
		{"a message with an empty id", "@id=;user-id=7;room-id=5" + from + " :hi", "", ""},
		{"a message without a user", "@id=m1;room-id=5" + from + " :hi", "", ""},
		{"a message of the bot", "@id=m1;user-id=1000;room-id=5" + from + " :hi", "", ""},
		{"a message from a shared chat", tags + ";source-room-id=6" + from + " :hi", "", ""},
		{"a message from the same room of a shared chat", tags + ";source-room-id=5" + from + " :hi", chat, "hi"},
		{"no text", tags + from, "", ""},
		{"an empty text", said, "", ""},
		{"spaces", said + "   ", "", ""},
		{"a text without a colon", tags + from + " hi", chat, "hi"},
		{"a text with colons", said + "a : b :: c", chat, "a : b :: c"},
		{"a text with an at sign", said + "@", chat, "@"},
		{"a text like tags", said + "@a=b;c=d :x PRIVMSG #x :y", chat, "@a=b;c=d :x PRIVMSG #x :y"},
		{"a tab", said + "a\tb", chat, "a\tb"},
		{"a NUL", said + "a\x00b", chat, "a\x00b"},
		{"a bell", said + "\x07hi", chat, "\x07hi"},
		{"a /me", said + "\x01ACTION waves\x01", chat, "waves"},
		{"a /me without an end", said + "\x01ACTION waves", chat, "\x01ACTION waves"},
		{"a /me without a text", said + "\x01ACTION \x01", "", ""},
		{"another CTCP", said + "\x01VERSION\x01", chat, "\x01VERSION\x01"},
		{"a long text", said + strings.Repeat("é", 500), chat, strings.Repeat("é", 500)},
		{"the longest line", said + strings.Repeat("x", maxLine), chat, strings.Repeat("x", maxLine)},
		{"a template", said + "{{ event.user.email }}", chat, "{{ event.user.email }}"},
		{"text from right to left", said + "\u202eabc", chat, "\u202eabc"},
		{"an emoji with a selector", said + "\u2764\ufe0f", chat, "\u2764\ufe0f"},
		{"a tag without a value", "@flag;id=m1;user-id=7;room-id=5" + from + " :hi", chat, "hi"},
		{"a tag with two equals signs", "@x=a=b;id=m1;user-id=7;room-id=5" + from + " :hi", chat, "hi"},
		{"a tag twice", "@user-id=8;id=m1;user-id=7;room-id=5" + from + " :hi", chat, "hi"},
		{"tags with semicolons alone", "@;;;id=m1;user-id=7;room-id=5;;" + from + " :hi", chat, "hi"},
		{"a tag with escapes", `@x=\s\:\\\r\n\;id=m1;user-id=7;room-id=5` + from + " :hi", chat, "hi"},
		{"a time that is no number", tags + ";tmi-sent-ts=yesterday" + from + " :hi", chat, "hi"},
		{"a huge time", tags + ";tmi-sent-ts=99999999999999999999" + from + " :hi", chat, "hi"},
		{"a negative time", tags + ";tmi-sent-ts=-1" + from + " :hi", chat, "hi"},
		{"bits that are no number", tags + ";bits=many" + from + " :hi", chat, "hi"},
		{"a reply to nothing", tags + ";reply-parent-msg-id=" + from + " :hi", chat, "hi"},
		{"a reply without names", tags + ";reply-parent-msg-id=p1" + from + " :@Bo hi", chat, "@Bo hi"},
		{"many tags", "@" + strings.Repeat("a=b;", 2000) + "id=m1;user-id=7;room-id=5" + from + " :hi", chat, "hi"},
		{"a notice without a type", tags + " :tmi.twitch.tv USERNOTICE #x :hi", "", ""},
		{"a notice of an unknown type", tags + ";msg-id=newtype :tmi.twitch.tv USERNOTICE #x :hi", "twitch.newtype", ""},
		{"a resub without a text", tags + ";msg-id=resub :tmi.twitch.tv USERNOTICE #x", "twitch.resub", ""},
		{"a raid with a bad number", tags + ";msg-id=raid;msg-param-viewerCount=-3 :tmi.twitch.tv USERNOTICE #x", "twitch.raid", ""},
		{"a cleared chat", "@room-id=5;tmi-sent-ts=1 :tmi.twitch.tv CLEARCHAT #x", typeCleared, ""},
		{"a ban without an id", "@room-id=5;tmi-sent-ts=1 :tmi.twitch.tv CLEARCHAT #x :ada", typeBan, ""},
		{"a time-out of a bad length", "@room-id=5;ban-duration=long;target-user-id=7 :tmi.twitch.tv CLEARCHAT #x :ada", typeTimeout, ""},
		{"a deleted message without an id", "@room-id=5 :tmi.twitch.tv CLEARMSG #x :hi", "", ""},
		{"a deleted message without a text", "@room-id=5;target-msg-id=m1 :tmi.twitch.tv CLEARMSG #x", typeDeleted, ""},
	}
	for _, b := range []string{"\x80", "\xc0\xaf", "\xed\xa0\xbd", "\xf4\x90\x80\x80", "\xff\xfe", "\xe2\x82"} {
		lines = append(lines, oddLine{fmt.Sprintf("invalid UTF-8 %+q", b), said + "a" + b + "b", chat, "a\ufffdb"},
			oddLine{fmt.Sprintf("invalid UTF-8 %+q in a name", b), strings.Replace(said, "Ada", "A"+b, 1) + "hi", chat, "hi"},
			oddLine{fmt.Sprintf("invalid UTF-8 %+q alone", b), said + b, chat, "\ufffd"})
	}
	for _, r := range "\u00ad\u034f\u115f\u180e\u200b\u200d\u2060\u2800\u3164\ufe0f\ufeff\U000e0000\U000e0041" {
		lines = append(lines, oddLine{fmt.Sprintf("%U alone", r), said + string(r), "", ""},
			oddLine{fmt.Sprintf("%U behind", r), said + "hi" + string(r), chat, "hi" + string(r)})
	}
	for _, badges := range []string{"", "/", "a", "a/", "/1", ",", "a/b/c", "a/1,,b", "ü/1", "a/-1"} {
		lines = append(lines, oddLine{fmt.Sprintf("badges %q", badges), "@badges=" + badges + ";id=m1;user-id=7;room-id=5" + from + " :hi", chat, "hi"})
	}
	for _, emotes := range []string{"", ":", "25", "25:", "25:a-b", "25:5-3", "25:0-99999", "25:-1-2", "25:0-1,", "/", "25:0-1/", "25:0-99999999999999999999"} {
		lines = append(lines, oddLine{fmt.Sprintf("emotes %q", emotes), tags + ";emotes=" + emotes + from + " :hi", chat, "hi"})
	}
	return lines
}

func TestOddInputsInLines(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c := &chat{metrics: m, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, tt := range oddLines() {
		e := toEvent(c.parse(tt.line), testBot)
		if e == nil {
			if tt.kind != "" {
				t.Errorf("%s: no event; want %s", tt.name, tt.kind)
			}
			continue
		}
		text := ""
		if e.Message != nil {
			text = e.Message.Text
		}
		if e.Type != tt.kind || text != tt.text {
			t.Errorf("%s: %s with the text %+q; want %q with %+q", tt.name, e.Type, text, tt.kind, tt.text)
		}
		if wire, err := event.Encode(e); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if _, err := event.Decode(wire); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestOddInputsInWhispers(t *testing.T) {
	whisper := func(text string) string {
		return `{"whisper_id":"w1","from_user_id":"7","from_user_login":"ada","from_user_name":"Ada","whisper":{"text":` + text + `}}`
	}
	for _, tt := range []struct{ name, content, text string }{
		{"plain", whisper(`"hi"`), "hi"},
		{"a command", whisper(`"!help"`), "!help"},
		{"an unknown member", strings.Replace(whisper(`"hi"`), "{", `{"more":[1],`, 1), "hi"},
		{"an empty text", whisper(`""`), ""},
		{"spaces", whisper(`"  "`), ""},
		{"nothing visible", whisper(`"\u200b"`), ""},
		{"a text of null", whisper(`null`), ""},
		{"a number", whisper(`7`), ""},
		{"a list", whisper(`["hi"]`), ""},
		{"no whisper", `{"whisper_id":"w1","from_user_id":"7"}`, ""},
		{"no id", strings.Replace(whisper(`"hi"`), `"w1"`, `""`, 1), ""},
		{"no user", strings.Replace(whisper(`"hi"`), `"7"`, `""`, 1), ""},
		{"a user as a number", strings.Replace(whisper(`"hi"`), `"7"`, `7`, 1), ""},
		{"of the bot", strings.Replace(whisper(`"hi"`), `"7"`, `"1000"`, 1), ""},
		{"a NUL", whisper(`"a\u0000b"`), "a\x00b"},
		{"an emoji", whisper(`"\ud83d\ude00"`), "\U0001f600"},
	} {
		e := whisperEvent(eventsub.Notification{ID: "n1", Event: []byte(tt.content)}, testBot)
		if (e != nil) != (tt.text != "") || e != nil && e.Message.Text != tt.text {
			t.Errorf("%s: %+v; want the text %+q", tt.name, e, tt.text)
		}
	}
}
