package answer

import (
	"regexp"
	"strings"
	"testing"
	"unicode"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// zero shows the guard as a tilde, so that a table can be read.
func zero(s string) string { return strings.ReplaceAll(s, guard, "~") }

func TestMentionsAndCommandsOfThePlatformAreBroken(t *testing.T) {
	for _, tt := range []struct{ in, discord, twitch string }{
		{"hello", "hello", "hello"},
		{"", "", ""},
		{"@everyone", "@~everyone", "@~everyone"},
		{"@here and @HERE", "@~here and @~HERE", "@~here and @~HERE"},
		{"so@everyone", "so@~everyone", "so@everyone"},
		{"@@everyone", "@@~everyone", "@@~everyone"},
		{"@heretic", "@~heretic", "@~heretic"},
		{"<@123>, <@!123> and <@&456>", "<@~123>, <@~!123> and <@~&456>", "<@~123>, <@!123> and <@&456>"},
		{"<#789> <:smile:1> <t:1700000000>", "<#789> <:smile:1> <t:1700000000>", "<#789> <:smile:1> <t:1700000000>"},
		{"@ada hi", "@ada hi", "@~ada hi"},
		{"(@ada)", "(@ada)", "(@~ada)"},
		{"@漢字 hi", "@漢字 hi", "@~漢字 hi"},
		{"ada@example.com", "ada@example.com", "ada@example.com"},
		{"see @ noon, @", "see @ noon, @", "see @ noon, @"},
		{"@\x01everyone @\x00ada", "@~everyone @ada", "@~everyone @~ada"},
		{"@\uFFFDhere", "@~here", "@~here"},
		{"<\x02@1>", "<@~1>", "<@~1>"},
		{"@\xff\xfehere", "@~here", "@~here"},
		{"@\rhere", "@ here", "@ here"},
		{"/ban ada", "/ban ada", "~/ban ada"},
		{"  .me waves", "  .me waves", "  ~.me waves"},
		{"!ban ada", "!ban ada", "~!ban ada"},
		{"and/or.", "and/or.", "and/or."},
		{"one\ntwo\tthree", "one\ntwo\tthree", "one\ntwo\tthree"},
	} {
		if got := zero(SanitizeMentions(tt.in, identity.Discord)); got != tt.discord {
			t.Errorf("on Discord %q becomes %q; want %q", tt.in, got, tt.discord)
		}
		if got := zero(SanitizeMentions(tt.in, identity.Twitch)); got != tt.twitch {
			t.Errorf("on Twitch %q becomes %q; want %q", tt.in, got, tt.twitch)
		}
		if got := SanitizeMentions(tt.in, identity.APIGateway); got != tt.in {
			t.Errorf("for a web room %q becomes %q", tt.in, got)
		}
	}
}

// The mentions of the platforms, by regular expressions instead of the code under test.
var (
	discordMention = regexp.MustCompile(`(?i)@everyone|@here|<@[!&]?[0-9]`)
	twitchMention  = regexp.MustCompile(`(?:^|[^\pL\p{Nd}_])@[\pL\p{Nd}_]`)
)

func FuzzSanitizeMentions(f *testing.F) {
	for _, seed := range []string{"", "@everyone", "<@&1>", "@here", "@ada", "/ban", "@\x01here", "<@!1>", "\u2063\u2062\u2063", "@@a", "\xff@a", " .", "a b c", "<@<@1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for p, mention := range map[identity.Platform]*regexp.Regexp{identity.Discord: discordMention, identity.Twitch: twitchMention} {
			got := SanitizeMentions(text, p)
			if mention.MatchString(got) {
				t.Errorf("%q on %s is %q, which mentions a user", text, p, got)
			}
			if again := SanitizeMentions(got, p); again != got {
				t.Errorf("%q on %s is %q, then %q", text, p, got, again)
			}
			if seen := clean(text); strings.ReplaceAll(got, guard, "") != strings.ReplaceAll(seen, guard, "") {
				t.Errorf("%q on %s is %q: visible text has changed", text, p, got)
			}
			if trimmed := strings.TrimSpace(got); p == identity.Twitch && trimmed != "" && strings.Contains("/.!", trimmed[:1]) {
				t.Errorf("%q on Twitch is %q, a command", text, got)
			}
			// the mark must not restore a mention
			sent := marked(got)
			if mention.MatchString(sent) || RemoveMark(sent) != RemoveMark(got) || !WasRelayed(&event.Event{Message: &event.Message{Text: sent}}) {
				t.Errorf("%q on %s, marked, is %q", text, p, sent)
			}
			if unicode.IsSpace([]rune(sent)[0]) != (got != "" && unicode.IsSpace([]rune(got)[0])) {
				t.Errorf("%q on %s, marked, begins otherwise: %q", text, p, sent)
			}
		}
	})
}

func TestMarkIsInTheFirstMessageOfALongText(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"[twitch] Ada: hi", "[twitch]| Ada: hi"},
		{"hi", "hi|"},
		{" hi you", " hi| you"},
		{strings.Repeat("x", 600), strings.Repeat("x", 100) + "|" + strings.Repeat("x", 500)},
	} {
		if got := strings.ReplaceAll(marked(tt.in), mark, "|"); got != tt.want {
			t.Errorf("%q becomes %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestRelayedEventIsRecognized(t *testing.T) {
	text := marked("[twitch] Ada: hi")
	for name, tt := range map[string]struct {
		in   event.Event
		want bool
	}{
		"what a person said":             {event.Event{Message: &event.Message{Text: "hi", Role: event.RoleUser}}, false},
		"nothing":                        {event.Event{}, false},
		"an answer on its way":           {event.Event{Egress: &event.Egress{Destination: "twitch"}}, false},
		"a relayed event":                {event.Event{Egress: &event.Egress{Relay: &event.Relay{Source: "ingress.twitch"}}}, true},
		"what another bot said again":    {event.Event{Message: &event.Message{Text: text, Role: event.RoleUser}}, true},
		"with something around it":       {event.Event{Message: &event.Message{Text: "> " + text + "\nhaha"}}, true},
		"in a payload":                   {event.Event{Payload: event.Raw(map[string]string{"text": text})}, true},
		"without the mark":               {event.Event{Message: &event.Message{Text: RemoveMark(text)}}, false},
		"an answer that a program gives": {event.Event{Message: &event.Message{Text: "hi", Role: "assistant"}}, false},
	} {
		if got := WasRelayed(&tt.in); got != tt.want {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
}
