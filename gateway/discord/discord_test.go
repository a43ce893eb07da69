package discord

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	standin "parley.internal/emulator/discord"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
)

func TestWhatIsSaidBecomesEvents(t *testing.T) {
	w := newWorld(t)
	elder, err := w.discord.AddRole(standin.Role{GuildID: w.guild.ID, Name: "Elder"})
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, w.alice.ID, elder.ID))
	w.must(w.discord.SetNick(w.guild.ID, w.alice.ID, "Ally"))
	other, err := w.discord.AddBot(standin.Bot{User: standin.User{Name: "otherbot"}})
	w.must(err)
	w.join(other.ID)
	w.start("a")
	w.connected()

	first := w.ask(w.room, "hello <@"+w.bot.ID+">")
	reply, err := w.discord.Say(w.room.ID, w.owner.ID, "hi", standin.ReplyingTo(first.ID))
	w.must(err)
	for _, bot := range []string{w.bot.ID, other.ID} {
		_, err := w.discord.Say(w.room.ID, bot, "I am a bot")
		w.must(err)
	}
	direct, err := w.discord.SayDM(w.alice.ID, w.bot.ID, "psst")
	w.must(err)
	edited := w.ask(w.room, "helo")
	_, err = w.discord.Edit(w.room.ID, edited.ID, "hello")
	w.must(err)
	w.must(w.discord.Delete(w.room.ID, edited.ID))
	w.must(w.discord.Ban(w.guild.ID, w.alice.ID, ""))
	w.heard(first, reply, direct, edited)
	eventually(t, "the ban is published", func() bool { return len(w.events(TypeBanned)) == 1 })

	if n := len(w.events(event.TypeChatMessage)); n != 4 {
		t.Errorf("%d messages are events; want four, none of a bot's", n)
	}
	for _, kind := range []string{TypeEdited, TypeDeleted, TypeBanned, TypeLeft} {
		if n := len(w.events(kind)); n != 1 {
			t.Errorf("%d events of type %s; want one", n, kind)
		}
	}
	find := func(m standin.Message) (*event.Event, rawMessage) {
		t.Helper()
		for _, e := range w.events(event.TypeChatMessage) {
			if e.Message.ID == m.ID {
				var raw rawMessage
				w.must(json.Unmarshal(e.Message.RawPlatformPayload, &raw))
				return e, raw
			}
		}
		t.Fatalf("no event of message %s", m.ID)
		return nil, rawMessage{}
	}
	e, raw := find(first)
	if e.Source != Source || e.CorrelationID != "discord:"+first.ID || e.Channel != "discord:"+w.room.ID || e.UserID != "discord:"+w.alice.ID ||
		e.Message.Role != event.RoleUser || e.Message.Text != first.Text || e.ReplyTo != "" || e.TraceID == "" ||
		e.Egress.Destination != "discord" || e.Egress.Type != event.EgressChat {
		t.Errorf("event = %+v", e)
	}
	if raw.Username != "alice" || raw.Nick != "Ally" || raw.DisplayName != "Ally" || !slices.Equal(raw.RoleNames, []string{"Elder"}) ||
		raw.IsOwner || !raw.MentionsBot || raw.GuildName != "Home" || raw.ChannelName != "general" || raw.GuildOwnerID != w.owner.ID || raw.IsDirect {
		t.Errorf("payload = %+v", raw)
	}
	e, raw = find(reply)
	if e.ReplyTo != first.ID || !raw.IsOwner || raw.Roles == nil || len(raw.RoleNames) != 0 || raw.ReplyParent == nil ||
		raw.ReplyParent.Text != first.Text || raw.ReplyParent.UserID != w.alice.ID {
		t.Errorf("reply = %+v, payload %+v", e, raw)
	}
	e, raw = find(direct)
	if e.Channel != Channel(direct.ChannelID) || !raw.IsDirect || raw.Roles != nil || raw.GuildID != "" {
		t.Errorf("direct message = %+v, payload %+v", e, raw)
	}
}

func TestOnlyTheseServersAreHeard(t *testing.T) {
	w := newWorld(t)
	elsewhere, err := w.discord.AddGuild(standin.Guild{Name: "Elsewhere", OwnerID: w.owner.ID})
	w.must(err)
	there, err := w.discord.AddChannel(standin.Channel{GuildID: elsewhere.ID, Name: "there"})
	w.must(err)
	_, err = w.discord.AddMember(elsewhere.ID, w.bot.ID)
	w.must(err)
	_, err = w.discord.AddMember(elsewhere.ID, w.alice.ID)
	w.must(err)
	w.start("a", func(s *Service) { s.config.Guilds = []string{w.guild.ID} })
	w.connected()
	w.ask(there, "not for you")
	direct, err := w.discord.SayDM(w.alice.ID, w.bot.ID, "but this")
	w.must(err)
	w.heard(w.ask(w.room, "for you"), direct)
	if n := len(w.events("")); n != 2 {
		t.Errorf("%d events; want none of the other server", n)
	}
}

func TestAnswersAreSaidAsReplies(t *testing.T) {
	w := newWorld(t)
	m := w.start("a")
	w.connected()
	question := w.ask(w.room, "what now?")
	direct, err := w.discord.SayDM(w.alice.ID, w.bot.ID, "and between us?")
	w.must(err)

	short := w.answer(question, "Nothing, @everyone and <@"+w.owner.ID+">.")
	long := w.answer(question, strings.Repeat("many words ", 400))
	before := w.answer(question, "pssst", privately)
	inside := w.answer(direct, "the same")
	gone := question
	gone.ID = standin.IDAt(time.Now())
	orphan := w.answer(gone, "to nobody")
	empty := w.answer(question, "\u0007")
	for _, a := range []answered{short, long, before, inside, orphan} {
		w.reaches(a, egress.Delivered)
	}
	w.refused(empty, deadletter.NoText, "")

	said := w.said(w.room.ID)
	slices.SortStableFunc(said, func(a, b standin.Message) int { return strings.Compare(a.ReplyTo, b.ReplyTo) })
	of := func(a answered) (found []standin.Message) {
		for _, id := range strings.Fields(w.entry(a).Note) {
			for _, m := range append(w.discord.Said(w.room.ID), w.discord.DMs(w.alice.ID, w.bot.ID)...) {
				if m.ID == id {
					found = append(found, m)
				}
			}
		}
		return found
	}
	first := of(short)
	if len(first) != 1 || first[0].Text != short.text || first[0].ReplyTo != question.ID || len(first[0].Pings) != 0 ||
		first[0].MentionEveryone || len(first[0].Mentions) != 0 {
		t.Errorf("said %+v; want it once, as a reply that notifies nobody", first)
	}
	pieces := of(long)
	if len(pieces) != 3 || pieces[0].ReplyTo != question.ID || pieces[1].ReplyTo != "" || len(pieces[0].Pings) != 0 {
		t.Errorf("the long answer is %d messages: %+v", len(pieces), pieces)
	}
	var words int
	for _, p := range pieces {
		words += len(strings.Fields(p.Text))
	}
	if words != 800 {
		t.Errorf("the long answer has %d words; want 800", words)
	}
	for _, a := range []answered{before, inside} {
		if got := of(a); len(got) != 1 || got[0].GuildID != "" || got[0].Text != a.text {
			t.Errorf("%q was said as %+v; want it directly", a.text, got)
		}
	}
	if got := of(orphan); len(got) != 1 || got[0].ReplyTo != "" {
		t.Errorf("the answer to what is gone is %+v", got)
	}
	if n := len(said); n != 5 {
		t.Errorf("%d messages in the channel; want 5", n)
	}
	m.stop()
	if n := len(w.events(event.TypeChatMessage)); n != 2 {
		t.Errorf("%d messages are events; want the two questions", n)
	}
}

func TestRefusalsAreDeadLettersWithDiscordsCode(t *testing.T) {
	w := newWorld(t)
	silent := w.channel("silent", standin.Overwrite{ID: w.guild.ID, Deny: standin.SendMessages})
	shy := w.user("shy")
	w.join(shy.ID)
	w.must(w.discord.BlockDM(shy.ID, true))
	w.start("a")
	w.connected()
	question := w.ask(w.room, "hello?")
	to := func(channel string) func(*event.Event) {
		return func(e *event.Event) { e.Channel, e.Egress.Type = channel, event.EgressChat }
	}
	w.refused(w.answer(w.ask(silent, "and here?"), "may not"), deadletter.SenderRefused, "50013")
	w.refused(w.answer(question, "nowhere", to("discord:1")), deadletter.RecipientRefused, "10003")
	w.refused(w.answer(question, "elsewhere", to("lobby")), deadletter.NoRecipient, "lobby")
	w.refused(w.answer(question, "blocked", privately, func(e *event.Event) { e.UserID = "discord:" + shy.ID }), deadletter.RecipientRefused, "50007")
	w.refused(w.answer(question, "another platform's", privately, func(e *event.Event) { e.UserID = "twitch:1" }), deadletter.NoRecipient, "twitch:1")
	w.reaches(w.answer(question, "and this is fine"), egress.Delivered)
	if n := len(w.said(w.room.ID)) + len(w.said(silent.ID)); n != 1 {
		t.Errorf("%d messages; want the one that is fine", n)
	}
}

func TestWhatDiscordDidNotConfirmIsSaidOnce(t *testing.T) {
	w := newWorld(t)
	w.start("a")
	w.connected()
	question := w.ask(w.room, "hello?")
	var all []answered
	for i, f := range []standin.HTTPFault{
		{Done: true, Hang: true}, {Done: true, Drop: true}, {Done: true, Status: http.StatusBadGateway},
		{Hang: true}, {Drop: true}, {Status: http.StatusInternalServerError, Times: 3},
	} {
		f.Method, f.Path = http.MethodPost, "/messages"
		w.discord.FailHTTP(f)
		a := w.answer(question, fmt.Sprint("answer ", i))
		w.reaches(a, egress.Delivered)
		all = append(all, a)
	}
	w.once(w.room.ID, all...)
	for _, a := range all {
		if id := w.entry(a).Note; !slices.ContainsFunc(w.said(w.room.ID), func(m standin.Message) bool { return m.ID == id && m.Text == a.text }) {
			t.Errorf("%q is noted as %q, which it is not", a.text, id)
		}
	}
}

func TestAHalfSaidAnswerIsADeadLetter(t *testing.T) {
	w := newWorld(t)
	w.start("a")
	w.connected()
	question := w.ask(w.room, "tell me everything")
	w.discord.FailHTTP(standin.HTTPFault{Method: http.MethodPost, Path: "/messages", Skip: 1, Status: http.StatusForbidden})
	w.refused(w.answer(question, strings.Repeat("many words ", 300)), deadletter.SenderRefused, "message 2 of 2")
	if n := len(w.said(w.room.ID)); n != 1 {
		t.Errorf("%d messages; want the first half, once", n)
	}
}
