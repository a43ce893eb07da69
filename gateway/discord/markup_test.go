package discord

import (
	"cmp"
	"strings"
	"testing"

	fake "parley.internal/emulator/discord"
	"parley.internal/shared/answer"
	"parley.internal/shared/event"
)

// textEvents waits for the event of each message, and returns the events by message id.
func (w *world) textEvents(messages ...fake.Message) map[string]*event.Event {
	w.t.Helper()
	w.published(messages...)
	all := map[string]*event.Event{}
	for _, e := range w.events(event.TypeChatMessage) {
		all[e.Message.ID] = e
	}
	return all
}

func TestTextOfAnEventIsReadableOnAnyPlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.discord.AddBot(fake.Bot{User: fake.User{ID: w.bot.ID, Name: "parleybot", GlobalName: "Parley"}})
	w.must(err)
	w.must(w.discord.SetNick(w.guild.ID, w.owner.ID, "The Boss"))
	games := w.channel("games")
	mods, err := w.discord.AddRole(fake.Role{GuildID: w.guild.ID, Name: "Moderators"})
	w.must(err)
	own, err := w.discord.AddRole(fake.Role{GuildID: w.guild.ID, Name: "Parley's role", BotID: w.bot.ID})
	w.must(err)
	elsewhere, err := w.discord.AddGuild(fake.Guild{Name: "Elsewhere", OwnerID: w.owner.ID})
	w.must(err)
	secret, err := w.discord.AddChannel(fake.Channel{GuildID: elsewhere.ID, Name: "secret"})
	w.must(err)
	_, err = w.discord.AddMember(elsewhere.ID, w.bot.ID)
	w.must(err)
	w.start("a")
	w.connected()

	bot, owner := "<@"+w.bot.ID+">", "<@"+w.owner.ID+">"
	picture := fake.Attachment{Name: "cat.png", URL: "https://cdn.example/cat.png?ex=1", ContentType: "image/png"}
	voice := fake.Attachment{Name: "voice-message.ogg", URL: "https://cdn.example/v.ogg", ContentType: "audio/ogg", Seconds: 3}
	original := w.ask(games, "look, "+owner, fake.WithAttachments(picture), fake.WithStickers(fake.Sticker{Name: "Wave"}))
	asked := w.ask(w.room, bot+" forwarded question")
	posted, err := w.discord.Say(w.room.ID, w.bot.ID, "the bot's own words")
	w.must(err)
	relayed, err := w.discord.Say(w.room.ID, w.bot.ID, "[twitch] Bruno: hi"+relayMark(t))
	w.must(err)

	tests := []struct {
		text     string
		with     []fake.SayOption
		want     string // text itself if empty
		mentions bool
	}{
		{text: bot + " hi", want: "@Parley hi", mentions: true},
		{text: "hi <@!" + w.bot.ID + ">", want: "hi @Parley", mentions: true},
		{text: "hi <@&" + own.ID + ">!", want: "hi @Parley!", mentions: true},
		{text: "@Parley hi", mentions: true},
		{text: "are you there, @PARLEY?", mentions: true},
		{text: "hi @parleybot", mentions: true},
		{text: "**@parley** hi", mentions: true},
		{text: "!help", with: []fake.SayOption{fake.ReplyingTo(asked.ID)}},
		{text: "!help", with: []fake.SayOption{fake.ReplyingTo(posted.ID)}, mentions: true},
		{text: "@parleyfan, @parley.fan, @parley_ and ada@parley"},
		{text: "`@parley` and " + ticks + "\n@parley\n" + ticks + ` and \@parley`},
		{text: "quoted `" + bot + "` only"},
		{text: "and you?", with: []fake.SayOption{fake.ReplyingTo(posted.ID)}, mentions: true},
		{text: "and you, quietly?", with: []fake.SayOption{fake.ReplyingTo(posted.ID), fake.WithoutPing()}, mentions: true},
		{text: "hi Bruno", with: []fake.SayOption{fake.ReplyingTo(relayed.ID)}},
		{text: bot + " hi both", with: []fake.SayOption{fake.ReplyingTo(relayed.ID)}, want: "@Parley hi both", mentions: true},
		{text: owner + " and <@!" + w.owner.ID + ">", want: "@The Boss and @The Boss"},
		{text: "<@" + w.alice.ID + ">,<@999>", want: "@Alice,@unknown-user"},
		{text: "<#" + games.ID + "> <#999>", want: "#games #unknown-channel"},
		{text: "<#" + secret.ID + ">", want: "#unknown-channel"}, // of another guild
		{text: "<@&" + mods.ID + "> <@&999>", want: "@Moderators @unknown-role"},
		{text: "<@&" + w.guild.ID + ">", want: "@everyone"},
		{text: "<:kappa:1><a:x:1>", want: ":kappa::x:"},
		{text: "<t:1700000000:R> <t:1700000000> <t:-1:s>", want: "2023-11-14 22:13 UTC 2023-11-14 22:13 UTC 1969-12-31 23:59 UTC"},
		{text: "<t:9999999999999:R>"}, // after the last time of Discord's client
		{text: "</cmd:12> </cmd group sub:12>", want: "/cmd /cmd group sub"},
		{text: "<id:customize> <id:linked-roles:7>", want: "Channels & Roles Linked Roles"},
		{text: "`" + owner + "` ``a ` <#1>`` " + ticks + "go\n<:a:1>\n" + ticks},
		{text: "a ` and " + owner, want: "a ` and @The Boss"},
		{text: `\` + owner},
		{text: "1 < 2, <3, <https://example.com/a_b>, **bold**"},
		{text: "see", with: []fake.SayOption{fake.WithAttachments(picture, voice)}, want: "see\ncat.png https://cdn.example/cat.png?ex=1\nvoice-message.ogg https://cdn.example/v.ogg"},
		{with: []fake.SayOption{fake.WithAttachments(voice)}, want: "voice-message.ogg https://cdn.example/v.ogg"},
		{with: []fake.SayOption{fake.WithAttachments(fake.Attachment{Name: "SPOILER_end.png"})}, want: "SPOILER_end.png"},
		{with: []fake.SayOption{fake.WithStickers(fake.Sticker{Name: "Wave"})}, want: "Sticker: Wave"},
		{with: []fake.SayOption{fake.WithPoll(fake.Poll{Question: "Which game?", Answers: []string{"Chess", "Go"}})}, want: "Poll: Which game? (Chess / Go)"},
		{with: []fake.SayOption{fake.Forwarding(games.ID, original.ID)}, want: "Forwarded: look, @The Boss\ncat.png https://cdn.example/cat.png?ex=1\nSticker: Wave"},
		{with: []fake.SayOption{fake.Forwarding(w.room.ID, asked.ID)}, want: "Forwarded: @Parley forwarded question"},
	}
	said := make([]fake.Message, len(tests))
	for i, test := range tests {
		said[i] = w.ask(w.room, test.text, test.with...)
	}
	got := w.textEvents(said...)
	for i, test := range tests {
		m := got[said[i].ID].Message
		if want := cmp.Or(test.want, test.text); m.Text != want || m.MentionsBot != test.mentions {
			t.Errorf("%q is %q, mentions the bot: %v; want %q, %v", test.text, m.Text, m.MentionsBot, want, test.mentions)
		}
	}
}

// relayMark returns the invisible mark of a relayed text.
func relayMark(t *testing.T) string {
	t.Helper()
	e := &event.Event{
		Source: "ingress.twitch", Channel: "twitch:bruno", Candidates: []event.Candidate{{Text: "x"}},
		Egress: &event.Egress{To: []event.Address{{Destination: "discord", Channel: "discord:1"}}},
	}
	return strings.TrimPrefix(answer.Render(answer.FanOut(e, "s")[0].Event).Whole(), "x")
}

func TestEditedAndMissedMessagesAreReadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.start("a")
	w.connected()
	before := w.ask(w.room, "hello")
	w.published(before)
	w.marked(before)
	_, err := w.discord.Edit(w.room.ID, before.ID, "hello <#"+w.room.ID+">")
	w.must(err)
	eventually(t, "the edit is an event", func() bool { return len(w.events(TypeEdited)) == 1 })
	if text, _ := event.Text(w.events(TypeEdited)[0].ExternalEvent.Payload, "text"); text != "hello #general" {
		t.Errorf("edited text = %q", text)
	}
	first.stop()
	missed := w.ask(w.room, "<@"+w.bot.ID+"> and <@"+w.owner.ID+">", fake.WithAttachments(fake.Attachment{Name: "a.txt", URL: "https://cdn.example/a.txt"}))
	w.start("b")
	m := w.textEvents(missed)[missed.ID].Message
	if want := "@parleybot and @Owner\na.txt https://cdn.example/a.txt"; m.Text != want || !m.MentionsBot {
		t.Errorf("missed message = %q, %v; want %q", m.Text, m.MentionsBot, want)
	}
}

func TestForwardOfAMessageWithoutText(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	for _, test := range []struct{ snapshot, want string }{
		{`{"content":"","embeds":[{"title":"News","description":"for <@&11>","url":"https://example.com"}]}`, "Forwarded: News\nfor @Mods\nhttps://example.com"},
		{`{"content":"https://example.com","embeds":[{"title":"Example"}],"components":[{"type":99}]}`, "Forwarded: https://example.com"},
		{`{"content":"","components":[{"type":99}]}`, "Forwarded: message without text"},
	} {
		data := messageCreate(`,"message_reference":{"type":1,"message_id":"499"},"message_snapshots":[{"message":` + test.snapshot + `}]`)
		e := one(t, c, "MESSAGE_CREATE", strings.Replace(data, `"hello"`, `""`, 1)).event
		if e == nil || e.Message.Text != test.want || e.ReplyTo != "" {
			t.Errorf("%s: %+v; want %q", test.snapshot, e, test.want)
		}
	}
}
