package twitch

import (
	"testing"

	"github.com/go-json-experiment/json"

	fake "parley.internal/emulator/twitch"
	"parley.internal/shared/event"
)

func TestTheMentionBeforeAReplyIsRemoved(t *testing.T) {
	reply := func(login, display string) string {
		return ";reply-parent-msg-id=p1;reply-parent-user-id=8;reply-parent-user-login=" + login + ";reply-parent-display-name=" + display
	}
	ada, korean := reply("ada", "Ada"), reply("minji", "민지")
	for _, tt := range []struct{ name, tags, text, want string }{
		{"display name", ada, "@Ada !help", "!help"},
		{"login", ada, "@ada !help", "!help"},
		{"another case", ada, "@ADA !help", "!help"},
		{"localized display name", korean, "@민지 !help", "!help"},
		{"login of a localized name", korean, "@minji !help", "!help"},
		{"both names", korean, "@민지 @minji !help", "!help"},
		{"twice", ada, "@Ada @Ada !help", "!help"},
		{"a comma", ada, "@Ada, !help", "!help"},
		{"several spaces", ada, "@Ada   !help", "!help"},
		{"display name with a space", reply("ada", `Ada\sL`), "@Ada L !help", "!help"},
		{"no display name", reply("ada", ""), "@ada !help", "!help"},
		{"a /me", ada, "\x01ACTION @Ada waves\x01", "waves"},
		{"further mentions", ada, "@Ada ask @bob", "ask @bob"},

		{"no reply", "", "@Ada !help", "@Ada !help"},
		{"another user", ada, "@bob !help", "@bob !help"},
		{"a longer name", ada, "@Ada_2 !help", "@Ada_2 !help"},
		{"a longer name in another script", korean, "@민지야 !help", "@민지야 !help"},
		{"inside a text", ada, "hi @Ada", "hi @Ada"},
		{"no mention", ada, "!help", "!help"},
		{"nothing else", ada, "@Ada", "@Ada"},
		{"nothing but mentions", ada, "@Ada @ada ", "@Ada @ada "},
		{"an address", ada, "@Ada.example !help", "@Ada.example !help"},
		{"no names", reply("", ""), "@Ada !help", "@Ada !help"},
	} {
		e := toEvent(parsed(t, "@id=m1;user-id=7;room-id=5"+tt.tags+" :a!a@a PRIVMSG #x :"+tt.text), testBot)
		if e == nil || e.Message.Text != tt.want || e.Message.MentionsBot {
			t.Errorf("%s: %+v; want %q", tt.name, e, tt.want)
			continue
		}
		var raw rawMessage
		if err := json.Unmarshal(e.Message.RawPlatformPayload, &raw); err != nil || (raw.Text != "") != (tt.text != tt.want && tt.want != "waves") && tt.want != "waves" {
			t.Errorf("%s: raw text %q, %v", tt.name, raw.Text, err)
		}
	}
}

func TestMentionsOfTheBot(t *testing.T) {
	const toBot = ";reply-parent-msg-id=p1;reply-parent-user-id=1000;reply-parent-user-login=parley;reply-parent-display-name=Parley"
	relayed := ";reply-parent-msg-id=p1;reply-parent-user-id=1000;reply-parent-user-login=parley;reply-parent-display-name=Parley;reply-parent-msg-body=[discord]\u2063\u2062\u2063\\sAda:\\shi"
	const toAda = ";reply-parent-msg-id=p1;reply-parent-user-id=8;reply-parent-user-login=ada;reply-parent-display-name=Ada"
	bot := testBot
	for _, tt := range []struct {
		name, display, tags, text string
		want                      bool
	}{
		{"at the beginning", "Parley", "", "@parley hi", true},
		{"another case", "Parley", "", "@PARLEY hi", true},
		{"inside", "Parley", "", "how are you, @Parley?", true},
		{"at the end", "Parley", "", "hi @parley", true},
		{"alone", "Parley", "", "@parley", true},
		{"a genitive", "Parley", "", "@parley's answer", true},
		{"brackets", "Parley", "", "(@parley)", true},
		{"an invisible character", "Parley", "", "@parley\U000e0000", true},
		{"another invisible character", "Parley", "", "@parley\u034f", true},
		{"a localized display name", "파를리", "", "@파를리 hi", true},
		{"the login of a localized display name", "파를리", "", "@parley hi", true},
		{"a reply to the bot", "Parley", toBot, "@Parley !help", true},
		{"a reply to the bot without a mention", "Parley", toBot, "!help", true},
		{"a mention in a reply to another user", "Parley", toAda, "@Ada ask @parley", true},
		{"a mention in a reply to a relayed message", "Parley", relayed, "@Parley ask @parley", true},
		{"a mention at the start of a reply to a relayed message", "Parley", relayed, "@Parley @parley hi", true},
		{"no display name yet", "", "", "@parley hi", true},

		{"no mention", "Parley", "", "parley hi", false},
		{"a longer name", "Parley", "", "@parleybot hi", false},
		{"a longer name with _", "Parley", "", "@parley_ hi", false},
		{"a longer localized name", "파를리", "", "@파를리야", false},
		{"an address", "Parley", "", "ada@parley.example", false},
		{"a space", "Parley", "", "@ parley", false},
		{"a longer name with a full stop", "Parley", "", "@parley.fan hi", false},
		{"a reply to a relayed message", "Parley", relayed, "@Parley hi Ada", false},
		{"a reply to a relayed message without a mention", "Parley", relayed, "hi Ada", false},
		{"a reply to another user", "Parley", toAda, "@Ada hi", false},
		{"at the end of the text", "Parley", "", "hi @", false},
	} {
		bot.displayName = tt.display
		e := toEvent(parsed(t, "@id=m1;user-id=7;room-id=5"+tt.tags+" :a!a@a PRIVMSG #x :"+tt.text), bot)
		if e == nil || e.Message.MentionsBot != tt.want {
			t.Errorf("%s: %q: %+v; want %t", tt.name, tt.text, e, tt.want)
		}
	}
}

// A command in a reply, and a mention by the display name that the chat tells.
func TestRepliesAndMentionsFromTheChat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	w.user("alice")
	if _, err := w.twitch.AddUser(fake.User{Login: "minji", DisplayName: "민지"}); err != nil {
		t.Fatal(err)
	}
	m := w.start("a", transportIRC, []string{channel})
	w.joined(channel)
	if got := m.chat.self(); got.login != w.bot.Login || got.displayName != w.bot.DisplayName {
		t.Errorf("the bot is %+v", got)
	}
	parent := w.say(channel, "minji", "hello")
	w.say(channel, "alice", "!help", fake.ReplyingTo(parent.ID))
	own := w.say(channel, w.bot.Login, "an answer")
	w.say(channel, "alice", "!more", fake.ReplyingTo(own.ID))
	w.say(channel, "alice", "hi @PARLEYBOT")
	want := map[string]bool{"hello": false, "!help": false, "!more": true, "hi @PARLEYBOT": true}
	eventually(t, "all is published", func() bool { return len(w.events(event.TypeChatMessage)) == len(want) })
	for _, e := range w.events(event.TypeChatMessage) {
		if mentions, ok := want[e.Message.Text]; !ok || mentions != e.Message.MentionsBot {
			t.Errorf("%q mentions the bot: %t", e.Message.Text, e.Message.MentionsBot)
		}
	}
}
