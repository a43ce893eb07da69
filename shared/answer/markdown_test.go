package answer

import (
	"testing"

	"parley.internal/shared/identity"
)

func TestInsertedTextHasNoMarkupOnDiscord(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"{_a_}", `\_a\_`},
		{"{*a* **b** ***c***}", `\*a\* \*\*b\*\* \*\*\*c\*\*\*`},
		{"{__a__ ~~b~~}", `\_\_a\_\_ \~\~b\~\~`},
		{"{||x||}", `\|\|x\|\|`},
		{"{`code`}", "\\`code\\`"},
		{"{```go\nx\n```}", "\\`\\`\\`go\nx\n\\`\\`\\`"},
		{"{[free](https://example.com)}", `\[free\](https://example.com)`},
		{"{[free](<https://example.com>)}", `\[free\](\<<https://example.com>\>)`},
		{"{# big\n## big\n### big\n-# small}", "\\# big\n\\## big\n\\### big\n\\-# small"},
		{"{> quote\n>>> quote}", "\\> quote\n\\>>> quote"},
		{"{- a\n+ b\n* c\n1. d\n  - e}", "\\- a\n\\+ b\n\\* c\n1\\. d\n  \\- e"},
		{`{\*a\*}`, `\\\*a\\\*`},
		{"{<#789> <:smile:1> <a:b:2> <t:1700000000> </x:1> <id:guide>}", `\<#789> \<:smile:1> \<a:b:2> \<t:1700000000> \</x:1> \<id:guide>`},
		{"{https://example.com/a_b_c*d*}", "https://example.com/a_b_c*d*"},
		{"{see https://example.com/_a_, _b_}", `see https://example.com/_a_, \_b\_`},
		{"{<https://example.com/_a_>}", `\<<https://example.com/_a_>\>`},
		{"{ada@example.com}", "ada@example.com"},
		{"{1.5 - 2 > 1 # not}", `1\.5 - 2 > 1 # not`},
		{"{¯\\_(ツ)_/¯}", `¯\\\_(ツ)\_/¯`},
		{"**{_Ada_}**: {_hi_}", `**\_Ada\_**: \_hi\_`},
		{"{Ada}: {# hi}", "Ada: # hi"},
		{"News\n{# hi}", "News\n\\# hi"},
		{"https://twitch.tv/{a_b_c} {_hi_}", `https://twitch.tv/a_b_c \_hi\_`},
		{"`{a_b`c}` {_d_}", "`a_bˋc` \\_d\\_"},
		{"```\n{a_b```c}\n```", "```\na_b`\u200b`\u200b`\u200bc\n```"},
		{"_literal_ [docs](https://example.com) {x}", "_literal_ [docs](https://example.com) x"},
	} {
		if got := RemoveMark(Render(relayEvent("ingress.twitch", identity.Discord, template(tt.in))).Whole()); got != tt.want {
			t.Errorf("%q becomes %q; want %q", tt.in, got, tt.want)
		}
		if got := RemoveMark(Render(relayEvent("ingress.discord", identity.Discord, template("x {_a_} {**b**}"))).Whole()); got != "x _a_ **b**" {
			t.Errorf("from Discord: %q", got)
		}
	}
	for _, p := range []identity.Platform{identity.Twitch, identity.APIGateway} {
		if got := RemoveMark(Render(relayEvent("ingress.twitch", p, template("{_a_}"))).Whole()); got != "_a_" {
			t.Errorf("on %s: %q", p, got)
		}
	}
}

func TestContinuedMessageHasNoMarkup(t *testing.T) {
	got := Render(relayEvent("ingress.twitch", identity.Discord, template("{hello # big 1. and}"))).Messages(15, atSpaces)
	for i := range got {
		got[i] = RemoveMark(got[i])
	}
	if got[1] != `\#` || got[3] != `1\.` {
		t.Errorf("%q", got)
	}
}
