package answer

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// visible shows the guard as a tilde and removes the mark, so that a table can be read.
func visible(s string) string { return strings.ReplaceAll(RemoveMark(s), guard, "~") }

// answerOn renders an answer at its origin.
func answerOn(p identity.Platform, c event.Candidate) string {
	return Render(&event.Event{Source: string(p), Channel: "here", Egress: &event.Egress{Destination: string(p)}, Candidates: []event.Candidate{c}}).Whole()
}

func TestMentionsOfModelsAreBroken(t *testing.T) {
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
		{"see @ noon, @", "see @ noon, @", "see @ noon, @"},
		{"@\x01everyone @\x00ada", "@~everyone @ada", "@~everyone @~ada"},
		{"@\uFFFDhere", "@~here", "@~here"},
		{"<\x02@1>", "<@~1>", "<@~1>"},
		{"@\xff\xfehere", "@~here", "@~here"},
		{"one\ntwo\tthree", "one\ntwo\tthree", "one two three"},
		{"https://youtube.com/@someone", "https://youtube.com/@someone", "https://youtube.com/@someone"},
		{"https://x.social/@everyone and @here", "https://x.social/@everyone and @~here", "https://x.social/@everyone and @~here"},
		{"(https://x.com/@a/@b?c=@d#@e)", "(https://x.com/@a/@b?c=@d#@e)", "(https://x.com/@a/@b?c=@d#@e)"},
		{"youtube.com/@someone", "youtube.com/@someone", "youtube.com/@someone"},
		{"[me](https://x.com/@here)", "[me](https://x.com/@here)", "[me](https://x.com/@here)"},
		{"@https://x.com", "@https://x.com", "@https://x.com"},
		{"ada@example.com", "ada@example.com", "ada@example.com"},
		{"ada+@here.org, -@everyone.com", "ada+@here.org, -@everyone.com", "ada+@here.org, -@everyone.com"},
		{"mailto:a.b-@example.com", "mailto:a.b-@example.com", "mailto:a.b-@example.com"},
		{"https://x.com @ada", "https://x.com @ada", "https://x.com @~ada"},
		{"https://x.com<@5>", "https://x.com<@~5>", "https://x.com<@~5>"},
	} {
		if got := visible(relayedTo(identity.Discord, tt.in)); got != tt.discord {
			t.Errorf("on Discord %q becomes %q; want %q", tt.in, got, tt.discord)
		}
		if got := visible(relayedTo(identity.Twitch, tt.in)); got != tt.twitch {
			t.Errorf("on Twitch %q becomes %q; want %q", tt.in, got, tt.twitch)
		}
		if got := visible(answerOn(identity.Twitch, event.Candidate{Text: tt.in})); got != tt.twitch {
			t.Errorf("in an answer on Twitch %q becomes %q; want %q", tt.in, got, tt.twitch)
		}
	}
}

func TestOnlyTheOperatorMentions(t *testing.T) {
	for _, tt := range []struct{ in, discord, twitch, origin string }{
		{"@everyone, live", "@everyone, live", "@everyone, live", "@everyone, live"},
		{"<@&3100> {@here}", "<@&3100> @~here", "<@&3100> @~here", "<@&3100> @~here"},
		{"@{everyone}", "@~everyone", "@~everyone", "@everyone"},
		{"@every{one}", "@~everyone", "@~everyone", "@everyone"},
		{"{@}everyone", "@~everyone", "@~everyone", "@~everyone"},
		{"<@{5}>", "<@~5>", "<@~5>", "<@5>"},
		{"{<}@5>", "\\<@~5>", "<@5>", "<@5>"},
		{"@ada{bruno}", "@adabruno", "@~adabruno", "@adabruno"},
		{"@ada {bruno}", "@ada bruno", "@ada bruno", "@ada bruno"},
		{"@here {https://x.com/@everyone}", "@here https://x.com/%40everyone", "@here https://x.com/@everyone", "@here https://x.com/@everyone"},
	} {
		for p, want := range map[identity.Platform]string{identity.Discord: tt.discord, identity.Twitch: tt.twitch} {
			if got := visible(Render(relayEvent("api-gateway", p, template(tt.in))).Whole()); got != want {
				t.Errorf("relayed to %s: %q becomes %q; want %q", p, tt.in, got, want)
			}
		}
		if got := visible(answerOn(identity.Twitch, template(tt.in))); got != tt.origin {
			t.Errorf("at its origin on Twitch: %q becomes %q; want %q", tt.in, got, tt.origin)
		}
	}
	if got := visible(answerOn(identity.Discord, template("@here {@everyone <@5>}"))); got != "@here @~everyone <@5>" {
		t.Errorf("on Discord: %q; the operator's permission must not count for others", got)
	}
}

func TestOnlyTheOperatorCommandsOtherBots(t *testing.T) {
	for _, tt := range []struct {
		in     event.Candidate
		twitch string
		other  string
	}{
		{in: event.Candidate{Text: "!ban bruno"}, twitch: "~!ban bruno", other: "~!ban bruno"},
		{in: event.Candidate{Text: "/ban ada"}, twitch: "~/ban ada", other: "~/ban ada"},
		{in: event.Candidate{Text: "  .me waves"}, twitch: "~.me waves", other: "~.me waves"},
		{in: event.Candidate{Text: "\ufeff!ban"}, twitch: "~!ban", other: "~!ban"},
		{in: event.Candidate{Text: "\u200b \u2060!ban"}, twitch: "~!ban", other: "~!ban"},
		{in: event.Candidate{Text: "\u3164\u00ad\ufe0f\U000e0000/ban"}, twitch: "~/ban", other: "~/ban"},
		{in: event.Candidate{Text: "\x01\x02!ban"}, twitch: "~!ban", other: "~!ban"},
		{in: event.Candidate{Text: "\u00a0.ban"}, twitch: "~.ban", other: "~.ban"},
		{in: event.Candidate{Text: "...and so"}, twitch: "~...and so", other: "~...and so"},
		{in: event.Candidate{Text: "and/or."}, twitch: "and/or.", other: "and/or."},
		{in: template("!so {ada}"), twitch: "!so ada", other: "!so ada"},
		{in: template("/ban {ada}"), twitch: "~/ban ada", other: "/ban ada"},
		{in: template(".me {waves}"), twitch: "~.me waves", other: ".me waves"},
		{in: template("\u200b/me waves"), twitch: "~/me waves", other: "\u200b/me waves"},
		{in: template("{!ban bruno}"), twitch: "~!ban bruno", other: "~!ban bruno"},
		{in: template("\u2060 {!ban} bruno"), twitch: "~!ban bruno", other: "~!ban bruno"},
		{in: template("{}!so {ada}"), twitch: "!so ada", other: "!so ada"},
	} {
		for p, want := range map[identity.Platform]string{identity.Twitch: tt.twitch, identity.Discord: tt.other, identity.APIGateway: tt.other} {
			want = visible(want)
			if got := visible(Render(relayEvent("api-gateway", p, tt.in)).Whole()); got != want {
				if p != identity.APIGateway || !strings.Contains(tt.in.Text, "\x01") {
					t.Errorf("relayed to %s: %q becomes %q; want %q", p, tt.in.Text, got, want)
				}
			}
			if got := visible(answerOn(p, tt.in)); got != want {
				t.Errorf("on %s: %q becomes %q; want %q", p, tt.in.Text, got, want)
			}
		}
	}
}

// atSpaces divides a text at each space.
func atSpaces(text string, limit int) (all []Piece) {
	if UTF16Length(text) <= limit {
		return []Piece{{To: len(text)}}
	}
	from := 0
	for word := range strings.SplitAfterSeq(text, " ") {
		all = append(all, Piece{From: from, To: from + len(strings.TrimRight(word, " "))})
		from += len(word)
	}
	return all
}

func TestNoMessageAfterADivisionIsACommand(t *testing.T) {
	for p, want := range map[identity.Platform][]string{
		identity.Twitch: {"hi", "~!ban", "~/ban", "~.ban", "!so", "~/so"}, identity.Discord: {"hi", "~!ban", "~/ban", "~.ban", "!so", "/so"},
	} {
		got := Render(relayEvent("api-gateway", p, template("{hi !ban /ban .ban} !so /so"))).Messages(9, atSpaces)
		for i := range got {
			if UTF16Length(got[i]) > 9 || !strings.Contains(got[i], mark) {
				t.Errorf("message %q", got[i])
			}
			got[i] = visible(got[i])
		}
		if !slices.Equal(got, want) {
			t.Errorf("on %s: %q; want %q", p, got, want)
		}
	}
}

func TestMarkIsCountedInTheLength(t *testing.T) {
	for _, tt := range []struct {
		in   event.Candidate
		want []string
	}{
		{template("[a] {bc}"), []string{"[a] bc|"}},
		{template("[a] {bcdefg}"), []string{"[a] bcdefg"}},      // 10: no room, and longer than what was said
		{template("{ab cdefghi}"), []string{"ab|", "cdefghi|"}}, // 10, as it was said
		{event.Candidate{Text: "ab cdefghi"}, []string{"ab|", "cdefghi|"}},
		{template("[a] {bcdefgh}"), []string{"[a]|", "bcdefgh|"}}, // 11
	} {
		got := Render(relayEvent("api-gateway", identity.Discord, tt.in)).Messages(11, func(text string, limit int) []Piece {
			if limit == 11 {
				limit = 10
			}
			return atSpaces(text, limit)
		})
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], separatedMark, "|")
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q becomes %q; want %q", tt.in.Text, got, tt.want)
		}
	}
}

// The mentions of the platforms, by regular expressions instead of the code under test.
var (
	discordMention = regexp.MustCompile(`(?i)@everyone|@here|<@[!&]?[0-9]`)
	twitchMention  = regexp.MustCompile(`(?:^|[^\pL\p{Nd}_])@[\pL\p{Nd}_]`)
)

func FuzzRender(f *testing.F) {
	for _, seed := range []string{"", "@everyone", "<@&1>", "@here", "@ada", "/ban", "@\x01here", "<@!1>", "\u2063\u2062\u2063", "@@a", "\xff@a", " .", "a b c", "<@<@1", "\ufeff!a", "👩‍👩‍👧‍👦"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for p, mention := range map[identity.Platform]*regexp.Regexp{identity.Discord: discordMention, identity.Twitch: twitchMention} {
			for _, c := range []event.Candidate{{Text: text}, {Text: text, Metadata: TemplateMetadata(nil)}} {
				got := Render(relayEvent("discord", p, c)).Whole()
				if mention.MatchString(got) && !emailAnywhere.MatchString(got) && !linkAnywhere.MatchString(got) && !strings.Contains(got, "@http") {
					t.Errorf("%q on %s is %q, which mentions a user", text, p, got)
				}
				if i := firstVisible(strings.TrimPrefix(got, guard)); got != "" && !strings.HasPrefix(got, guard) && i < len(got) && strings.IndexByte("/.!", got[i]) >= 0 {
					t.Errorf("%q on %s is %q, a command", text, p, got)
				}
				if !utf8.ValidString(got) {
					t.Errorf("%q on %s is %q", text, p, got)
				}
				if got != "" && !WasRelayed(&event.Event{Message: &event.Message{Text: got}}) {
					t.Errorf("%q on %s is %q, not marked", text, p, got)
				}
			}
		}
	})
}
