package discord

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	fake "parley.internal/emulator/discord"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/lease"
)

func TestMessagesBecomeEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elder, err := w.discord.AddRole(fake.Role{GuildID: w.guild.ID, Name: "Elder"})
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, w.alice.ID, elder.ID))
	w.must(w.discord.SetNick(w.guild.ID, w.alice.ID, "Ally"))
	other, err := w.discord.AddBot(fake.Bot{User: fake.User{Name: "otherbot"}})
	w.must(err)
	w.join(other.ID)
	mod, err := w.discord.AddRole(fake.Role{GuildID: w.guild.ID, Name: "Mod", Permissions: fake.ViewAuditLog}) // needed for ban events
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, w.bot.ID, mod.ID))
	w.start("a")
	w.connected()

	first := w.ask(w.room, "hello <@"+w.bot.ID+">")
	reply, err := w.discord.Say(w.room.ID, w.owner.ID, "hi", fake.ReplyingTo(first.ID))
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
	w.published(first, reply, direct, edited)
	eventually(t, "all is published", func() bool { return len(w.events("")) == 8 })

	if n := len(w.events(event.TypeChatMessage)); n != 4 {
		t.Errorf("%d message events; want 4, none from a bot", n)
	}
	for _, kind := range []string{TypeEdited, TypeDeleted, TypeBanned, TypeLeft} {
		if n := len(w.events(kind)); n != 1 {
			t.Errorf("%d events of type %s; want 1", n, kind)
		}
	}
	find := func(m fake.Message) (*event.Event, rawMessage) {
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
		e.Message.Role != event.RoleUser || e.Message.Text != "hello @parleybot" || !e.Message.MentionsBot || e.ReplyTo != "" || e.TraceID == "" ||
		e.Egress.Destination != "discord" || e.Egress.Type != event.EgressChat {
		t.Errorf("event = %+v", e)
	}
	if raw.Username != "alice" || raw.Nick != "Ally" || raw.DisplayName != "Ally" || !slices.Equal(raw.RoleNames, []string{"Elder"}) ||
		raw.IsOwner || !raw.MentionsBot || raw.GuildName != "Home" || raw.ChannelName != "general" || raw.GuildOwnerID != w.owner.ID || raw.IsDirect {
		t.Errorf("payload = %+v", raw)
	}
	e, raw = find(reply)
	if e.ReplyTo != first.ID || !raw.IsOwner || raw.Roles == nil || len(raw.RoleNames) != 0 || raw.ReplyParent == nil ||
		raw.ReplyParent.Text != "hello @parleybot" || raw.ReplyParent.UserID != w.alice.ID {
		t.Errorf("reply = %+v, payload %+v", e, raw)
	}
	e, raw = find(direct)
	if e.Channel != Channel(direct.ChannelID) || !raw.IsDirect || raw.Roles != nil || raw.GuildID != "" {
		t.Errorf("direct message = %+v, payload %+v", e, raw)
	}
}

func TestOnlyConfiguredServersAreIngested(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere, err := w.discord.AddGuild(fake.Guild{Name: "Elsewhere", OwnerID: w.owner.ID})
	w.must(err)
	there, err := w.discord.AddChannel(fake.Channel{GuildID: elsewhere.ID, Name: "there"})
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
	w.published(w.ask(w.room, "for you"), direct)
	if n := len(w.events("")); n != 2 {
		t.Errorf("%d events; want 2, none from the other server", n)
	}
}

func TestAnswersAreSentAsReplies(t *testing.T) {
	t.Parallel()
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
	gone.ID = fake.IDAt(time.Now().Add(-time.Hour)) // older than every message of this test
	orphan := w.answer(gone, "to a deleted message")
	empty := w.answer(question, "\u0007")
	for _, a := range []answered{short, long, before, inside, orphan} {
		w.reaches(a, delivery.Delivered)
	}
	w.refused(empty, deadletter.NoText, "")

	sent := w.sent(w.room.ID)
	slices.SortStableFunc(sent, func(a, b fake.Message) int { return strings.Compare(a.ReplyTo, b.ReplyTo) })
	of := func(a answered) (found []fake.Message) {
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
		t.Errorf("sent %+v; want it once, as a reply that notifies no user", first)
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
			t.Errorf("%q was sent as %+v; want a direct message", a.text, got)
		}
	}
	if got := of(orphan); len(got) != 1 || got[0].ReplyTo != "" {
		t.Errorf("the answer to a deleted message is %+v", got)
	}
	if n := len(sent); n != 5 {
		t.Errorf("%d messages in the channel; want 5", n)
	}
	m.stop()
	if n := len(w.events(event.TypeChatMessage)); n != 2 {
		t.Errorf("%d message events; want the two questions", n)
	}
}

func TestRefusedAnswersAreDeadLettersWithDiscordsCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	silent := w.channel("silent", fake.Overwrite{ID: w.guild.ID, Deny: fake.SendMessages})
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
	w.reaches(w.answer(question, "and this is fine"), delivery.Delivered)
	if n := len(w.sent(w.room.ID)) + len(w.sent(silent.ID)); n != 1 {
		t.Errorf("%d messages; want the one that is fine", n)
	}
}

func TestUnconfirmedMessagesAreSentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start("a", impatient)
	w.connected()
	question := w.ask(w.room, "hello?")
	var all []answered
	for i, f := range []fake.HTTPFault{
		{Done: true, Hang: true}, {Done: true, Drop: true}, {Done: true, Status: http.StatusBadGateway},
		{Hang: true}, {Drop: true}, {Status: http.StatusInternalServerError, Times: 3},
	} {
		f.Method, f.Path = http.MethodPost, "/messages"
		w.discord.FailHTTP(f)
		a := w.answer(question, fmt.Sprint("answer ", i))
		w.reaches(a, delivery.Delivered)
		all = append(all, a)
	}
	w.once(w.room.ID, all...)
	for _, a := range all {
		if id := w.entry(a).Note; !slices.ContainsFunc(w.sent(w.room.ID), func(m fake.Message) bool { return m.ID == id && m.Text == a.text }) {
			t.Errorf("%q has the note %q; want the id of its message", a.text, id)
		}
	}
}

func TestHalfSentAnswerIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start("a")
	w.connected()
	question := w.ask(w.room, "tell me everything")
	w.discord.FailHTTP(fake.HTTPFault{Method: http.MethodPost, Path: "/messages", Skip: 1, Status: http.StatusForbidden})
	w.refused(w.answer(question, strings.Repeat("many words ", 300)), deadletter.SenderRefused, "message 2 of 2")
	if n := len(w.sent(w.room.ID)); n != 1 {
		t.Errorf("%d messages; want the first half, once", n)
	}
}

func TestOneInstanceHoldsTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := []*running{w.start("a"), w.start("b"), w.start("c")}
	leaving := w.settled(all...)
	if n := w.discord.Connected(w.bot.ID); n != 1 {
		t.Errorf("%d connections; want one", n)
	}
	first := w.ask(w.room, "hello")
	w.published(first)
	w.reaches(w.answer(first, "an answer"), delivery.Delivered)

	// an instance that stops releases the lease at once
	leaving.stop()
	during := w.ask(w.room, "while it moves")
	pending := w.answer(during, "pending")
	w.reaches(pending, delivery.Delivered)
	w.published(first, during)
	w.once(w.room.ID, pending)
	if n := w.gaps(); n != 0 {
		t.Errorf("%d gaps; want none, because every message was read", n)
	}
}

func TestNextHolderContinuesAfterACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lease = quickLease
	quiet := w.channel("quiet")
	victim := w.start("victim")
	w.connected()
	before := []fake.Message{w.ask(w.room, "before"), w.ask(quiet, "quietly before")}
	private, err := w.discord.SayDM(w.alice.ID, w.bot.ID, "between us")
	w.must(err)
	before = append(before, private)
	w.published(before...)
	for _, m := range before {
		w.marked(m)
	}
	// Discord has accepted the message and not responded yet
	w.discord.FailHTTP(fake.HTTPFault{Method: http.MethodPost, Path: "/messages", Done: true, Hang: true})
	midst := w.answer(before[0], "in the midst")
	behind := w.answer(before[0], "behind it")
	eventually(t, "the message is sent", func() bool { return len(w.sent(w.room.ID)) == 1 })
	if got := w.entry(midst); got.State != delivery.Claimed || got.Instance != victim.name {
		t.Fatalf("state = %s of %s; want a claim before the message is sent", got.State, got.Instance)
	}
	victim.kill()

	var missed []fake.Message
	for i := range 120 { // more than a page
		missed = append(missed, w.ask(w.room, fmt.Sprint("missed ", i)))
	}
	later := w.channel("later")
	missed = append(missed, w.ask(quiet, "quietly missed"), w.ask(later, "in a new channel"))
	private, err = w.discord.SayDM(w.alice.ID, w.bot.ID, "are you there?")
	w.must(err)
	missed = append(missed, private)
	elder, err := w.discord.AddRole(fake.Role{GuildID: w.guild.ID, Name: "Elder"})
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, w.alice.ID, elder.ID))
	pending := w.answer(missed[0], "pending")
	whisper := w.answer(missed[0], "pending directly", privately)

	w.start("heir")
	w.reaches(pending, delivery.Delivered)
	w.reaches(behind, delivery.Delivered)
	w.reaches(whisper, delivery.Delivered)
	after := w.ask(w.room, "after")
	w.published(slices.Concat(before, missed, []fake.Message{after})...)
	w.once(w.room.ID, midst, behind, pending)
	if got := w.reaches(midst, delivery.Delivered); got.Note != w.sent(w.room.ID)[0].ID {
		t.Errorf("note = %s; want the message of the crashed instance, %s", got.Note, w.sent(w.room.ID)[0].ID)
	}
	var order []string
	for _, e := range w.events(event.TypeChatMessage) {
		if e.Channel == Channel(w.room.ID) {
			order = append(order, e.Message.ID)
		}
		if e.Message.Text == "missed 7" && !strings.Contains(string(e.Message.RawPlatformPayload), `"roleNames":["Elder"]`) {
			t.Errorf("payload = %s; want the roles, read separately", e.Message.RawPlatformPayload)
		}
	}
	if !slices.IsSorted(order) {
		t.Error("the messages of the channel are not in order")
	}
	if n := w.gaps(); n != 0 {
		t.Errorf("%d gaps; want none, because every message was read", n)
	}
}

func TestFirstHolderCrashesBeforeTheFirstWatermark(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lease = quickLease
	old := w.ask(w.room, "before anybody was there")
	victim := w.start("victim", func(s *Service) { s.timing.watermark = time.Hour })
	w.connected()
	received := w.ask(w.room, "received")
	w.published(received)
	victim.kill()
	missed := []fake.Message{w.ask(w.room, "missed"), w.ask(w.channel("later"), "in a new channel")}
	w.start("heir")
	w.published(missed...)
	for _, e := range w.events(event.TypeChatMessage) { // messages of the first holder may be published again
		if e.Message.ID == old.ID {
			t.Error("a message from before the first session became an event")
		}
	}
	if n := w.gaps(); n != 0 {
		t.Errorf("%d gaps; want none", n)
	}
}

// Instances start, stop and crash; still each message is one event and each answer is sent once.
func TestManyInstances(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lease = quickLease
	rooms := []fake.Channel{w.room, w.channel("two"), w.channel("three")}
	alive := []*running{w.start("a"), w.start("b")}
	eventually(t, "an instance holds the session", func() bool { return holder(alive...) != nil })
	for _, room := range rooms {
		first := w.ask(room, "first")
		w.published(first)
		w.marked(first)
	}
	var messages []fake.Message
	var answers []answered
	round := func() {
		t.Helper()
		for _, room := range rooms {
			m := w.ask(room, fmt.Sprint("message ", len(messages)))
			messages = append(messages, m)
			answers = append(answers, w.answer(m, fmt.Sprint("answer ", len(answers))))
		}
	}
	for i := range 3 {
		for range 3 {
			round()
		}
		<-time.After(rand.N(30 * time.Millisecond))
		gone := holder(alive...)
		for gone == nil { // the lease moves
			round()
			eventually(t, "an instance holds the session", func() bool { gone = holder(alive...); return gone != nil })
		}
		alive = slices.DeleteFunc(alive, func(m *running) bool { return m == gone })
		if i%2 == 0 {
			gone.kill()
		} else {
			gone.stop()
		}
		round()
		alive = append(alive, w.start(fmt.Sprint("next", i)))
		round()
	}
	for _, a := range answers {
		w.reaches(a, delivery.Delivered)
	}
	eventually(t, "every message is an event", func() bool {
		n := w.times()
		return !slices.ContainsFunc(messages, func(m fake.Message) bool { return n[m.ID] == 0 })
	})
	sent := map[string]int{}
	for _, room := range rooms {
		for _, m := range w.sent(room.ID) {
			sent[m.Text]++
		}
	}
	for _, a := range answers {
		if n := sent[a.text]; n != 1 {
			t.Errorf("%q was sent %d times", a.text, n)
		}
	}
	again := 0
	for _, n := range w.times() {
		again += n - 1
	}
	t.Logf("%d answers; %d messages, %d published again by the same correlation id", len(answers), len(messages), again)
}

func TestBrokenConnectionsResumeTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.WithTiming(fake.Timing{Heartbeat: 400 * time.Millisecond}))
	m := w.start("a")
	w.connected()
	all := []fake.Message{w.ask(w.room, "first")}
	w.published(all...)
	for i, breakIt := range []func(){
		func() { w.discord.DropGateway(w.bot.ID) },
		func() { w.discord.ReconnectGateway(w.bot.ID) },
		func() { w.discord.CloseGateway(w.bot.ID, fake.CloseUnknownError) },
		func() { w.discord.InvalidateSessions(w.bot.ID, true) },
		func() { w.discord.StopACKs(w.bot.ID) },
	} {
		before := counter(m.metrics.sessions.WithLabelValues("resumed"))
		breakIt()
		all = append(all, w.ask(w.room, fmt.Sprint("while it is broken ", i)))
		eventually(t, fmt.Sprintf("resumed after break %d", i), func() bool { return counter(m.metrics.sessions.WithLabelValues("resumed")) > before })
		all = append(all, w.ask(w.room, fmt.Sprint("after it ", i)))
		w.published(all...)
		w.reaches(w.answer(all[len(all)-1], fmt.Sprint("answer ", i)), delivery.Delivered)
	}
	if n := counter(m.metrics.sessions.WithLabelValues("new")); n != 1 {
		t.Errorf("%v new sessions; want only the first", n)
	}
	if n := len(w.discord.Requests("/messages")); n != 5 {
		t.Errorf("%d requests for messages; want the five answers and no backfill, because Discord replays a resumed session", n)
	}
}

func TestLostSessionsAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.start("a")
	w.connected()
	first := w.ask(w.room, "first")
	w.published(first)
	all := []fake.Message{first}
	for i, breakIt := range []func(){
		func() { w.discord.InvalidateSessions(w.bot.ID, false) },
		func() { w.discord.ForgetSessions(w.bot.ID) },
		func() { w.discord.CloseGateway(w.bot.ID, fake.CloseSessionTimedOut) },
	} {
		breakIt()
		for j := range 3 {
			all = append(all, w.ask(w.room, fmt.Sprintf("while there is none %d.%d", i, j)))
		}
		eventually(t, fmt.Sprintf("a new session after break %d", i), func() bool { return counter(m.metrics.sessions.WithLabelValues("new")) == float64(i+2) })
		all = append(all, w.ask(w.room, fmt.Sprint("after it ", i)))
		w.published(all...)
	}
}

func TestAnswersWaitForAValidToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.start("a")
	w.connected()
	question := w.ask(w.room, "hello?")
	w.published(question)
	_, err := w.discord.ResetToken(w.bot.ID)
	w.must(err)
	eventually(t, "the token is refused", func() bool {
		return counter(m.metrics.disconnects.WithLabelValues("unauthorized")) > 0 || counter(m.metrics.disconnects.WithLabelValues("4004")) > 0
	})
	waiting := w.answer(question, "for later")
	if got := w.entry(waiting).State; got != delivery.Pending {
		t.Errorf("state = %s; want pending until the token is valid", got)
	}
	_, err = w.discord.AddBot(w.bot)
	w.must(err)
	w.reaches(waiting, delivery.Delivered)
}

func TestRateLimitedAnswersAreSentLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start("a")
	w.connected()
	question := w.ask(w.room, "hello?")
	for i, global := range []bool{false, true} {
		w.discord.FailHTTP(fake.HTTPFault{Method: http.MethodPost, Path: "/messages", Status: http.StatusTooManyRequests, RetryAfter: 700 * time.Millisecond, Global: global})
		began, before := time.Now(), len(w.discord.Requests("/messages"))
		a := w.answer(question, fmt.Sprint("limited ", i))
		w.reaches(a, delivery.Delivered)
		if took := time.Since(began); took < 700*time.Millisecond {
			t.Errorf("sent after %s; want at least 700ms", took)
		}
		if n := len(w.discord.Requests("/messages")) - before; n != 2 {
			t.Errorf("%d requests; want the limited one and one more", n)
		}
		w.once(w.room.ID, a)
	}
}

func TestRateLimitHeadersAreObeyed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.WithLimits(fake.Limits{
		Messages: fake.Window{N: 4, Per: 400 * time.Millisecond}, Routes: fake.Window{N: 20, Per: 400 * time.Millisecond},
	}))
	w.start("a")
	w.connected()
	question := w.ask(w.room, "hello?")
	var all []answered
	for i := range 10 {
		all = append(all, w.answer(question, fmt.Sprint("answer ", i)))
	}
	for _, a := range all {
		w.reaches(a, delivery.Delivered)
	}
	w.once(w.room.ID, all...)
	for _, r := range w.discord.Requests("/messages") {
		if r.Status == http.StatusTooManyRequests {
			t.Error("a request exceeded the limit of the response headers")
		}
	}
}

func TestAnswersWaitForAConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	question := w.ask(w.room, "is anybody here?")
	w.discord.FailHTTP(fake.HTTPFault{Path: "/", Times: 1000, Status: http.StatusServiceUnavailable})
	m := w.start("a")
	var waiting []answered
	for i := range 5 {
		waiting = append(waiting, w.answer(question, fmt.Sprint("answer ", i)))
	}
	eventually(t, "several connection attempts have failed", func() bool { return counter(m.metrics.disconnects.WithLabelValues("unreachable")) > 3 })
	for _, a := range waiting {
		if got := w.entry(a).State; got != delivery.Pending {
			t.Errorf("state = %s; want pending until an instance is connected", got)
		}
	}
	w.discord.ClearFaults()
	for _, a := range waiting {
		w.reaches(a, delivery.Delivered)
	}
	for i, s := range w.sent(w.room.ID) {
		if s.Text != waiting[i].text {
			t.Errorf("message %d is %q; want the order of the questions", i, s.Text)
		}
	}
}

func TestOverdueAnswersEndWithTheLastObstacle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var ahead atomic.Int64 // nanoseconds by which the clock of the service is ahead
	w.start("a", func(s *Service) { s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	w.connected()
	question := w.ask(w.room, "hello?")
	w.discord.FailHTTP(fake.HTTPFault{Method: http.MethodPost, Path: "/messages", Times: 1000, Status: http.StatusTooManyRequests, RetryAfter: 300 * time.Millisecond})
	never := w.answer(question, "never")
	eventually(t, "an attempt is rate limited", func() bool { return len(w.discord.Requests("/messages")) > 0 })
	ahead.Store(int64(2 * time.Minute)) // later than the deadline
	w.refused(never, deadletter.RateLimited, "429")
}

func TestMessagesBeyondTheBackfillLimitAreAGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.start("first")
	w.connected()
	w.marked(w.ask(w.room, "before"))
	first.stop()
	eventually(t, "Discord has noticed the end of the connection", func() bool { return w.discord.Connected(w.bot.ID) == 0 })
	var all []fake.Message
	for i := range 9 {
		all = append(all, w.ask(w.room, fmt.Sprint("missed ", i)))
	}
	w.start("second", func(s *Service) { s.config.BackfillMessages = 4 })
	w.connected()
	after := w.ask(w.room, "after")
	w.published(append(all[:4:4], after)...)
	n := w.times()
	for _, m := range all[4:] {
		if n[m.ID] != 0 {
			t.Errorf("%q was published", m.Text)
		}
	}
	if n := w.gaps(); n != 1 {
		t.Errorf("%d gaps; want 1", n)
	}
	w.marked(after)
}

func TestInstanceWithoutConnectionYieldsTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := []*running{w.start("a"), w.start("b")}
	offline := w.settled(all...)
	first := w.ask(w.room, "hello?")
	w.published(first)
	w.marked(first)
	offline.cutOff()
	missed := w.ask(w.room, "still there?")
	a := w.answer(missed, "once more")
	w.reaches(a, delivery.Delivered)
	if got := w.entry(a).Instance; got == offline.name {
		t.Errorf("the answer was sent by %s, the instance without connection", got)
	}
	w.published(first, missed)
	w.once(w.room.ID, a)
}

func TestWatermarkStaysBelowQueuedMessages(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		last    snowflake
		waiting []snowflake
		want    snowflake
	}{
		{"empty queue", 7, nil, 7},
		{"later messages queued", 7, []snowflake{8, 9}, 7},
		{"earlier message queued late", 7, []snowflake{9, 5}, 4},
		{"queued item without message id", 7, []snowflake{0}, 7},
	} {
		q := &channelQueue{last: test.last}
		for _, id := range test.waiting {
			q.items = append(q.items, item{messageID: id})
		}
		if got := q.watermark(); got != test.want {
			t.Errorf("%s: watermark %d; want %d", test.name, got, test.want)
		}
	}
}

func TestStopDuringAWriteWritesTheWatermarksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.instance("a")
	ctx, end := context.WithCancel(t.Context())
	m.leases.Run(ctx, func() []string { return []string{leaseKey} }, func(ctx context.Context, l lease.Lease) {
		defer end()
		in := newIngestQueue(ctx, ctx, m.Service, l)
		q := &channelQueue{channel: w.room.ID, last: 1}
		in.channels[q.channel] = q
		keep, stop := context.WithCancel(ctx)
		in.watermarks.now = func() time.Time { // called during the first write
			stop()
			in.mu.Lock()
			defer in.mu.Unlock()
			q.last = 2
			return time.Now()
		}
		in.keepWatermarks(keep)
	})
	all, err := watermarkStore{w.firestore, time.Now}.all(t.Context())
	if err != nil || len(all) != 1 || all[0].Last != "2" {
		t.Errorf("watermarks = %+v (%v); want the message published during the first write", all, err)
	}
}

func TestUnpublishedMessagesAreReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.start("a")
	w.connected()
	all := []fake.Message{w.ask(w.room, "first")}
	w.published(all...)
	m.silence(true)
	for i := range maxChannelItems + 120 { // more than the queue and one page hold
		all = append(all, w.ask(w.room, fmt.Sprint("unpublished ", i)))
	}
	eventually(t, "some messages are left to a backfill", func() bool { return counter(m.metrics.ingested.WithLabelValues("deferred")) > 0 })
	m.silence(false)
	all = append(all, w.ask(w.room, "last"))
	w.published(all...)
	var order []string
	for _, e := range w.events(event.TypeChatMessage) {
		order = append(order, e.Message.ID)
	}
	if !slices.IsSorted(order) {
		t.Error("the messages are not in order")
	}
	w.marked(all[len(all)-1])
	if n := counter(m.metrics.ingested.WithLabelValues("lost")); n != 0 {
		t.Errorf("%v messages are lost", n)
	}
}

func TestNextHolderPublishesTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.start("first")
	w.connected()
	all := []fake.Message{w.ask(w.room, "received")}
	w.published(all...)
	first.silence(true)
	for i := range 5 {
		all = append(all, w.ask(w.room, fmt.Sprint("left ", i)))
	}
	first.stop()
	w.start("second")
	w.published(all...)
}

func TestUnreadableChannelDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hidden := w.channel("hidden")
	first := w.start("first")
	w.connected()
	w.marked(w.ask(w.room, "hello"))
	w.marked(w.ask(hidden, "hello"))
	first.stop()
	hidden.Overwrites = []fake.Overwrite{{ID: w.bot.ID, Deny: fake.ViewChannel}}
	_, err := w.discord.AddChannel(hidden)
	w.must(err)
	w.ask(hidden, "a secret")
	missed := w.ask(w.room, "missed")
	second := w.start("second")
	w.published(missed)
	eventually(t, "the backfill of the hidden channel is refused", func() bool {
		return counter(second.metrics.backfilled.WithLabelValues("unreadable")) == 1
	})
	hidden.Overwrites = nil
	_, err = w.discord.AddChannel(hidden)
	w.must(err)
	w.published(w.ask(hidden, "no secret"))
}

func TestFirestoreOutageReleasesTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lease = quickLease
	m := w.start("a")
	w.connected()
	first := w.ask(w.room, "hello?")
	w.published(first)
	w.marked(first)
	m.lose(true)
	eventually(t, "the instance has disconnected, because its lease may have expired", func() bool { return w.discord.Connected(w.bot.ID) == 0 })
	missed := w.ask(w.room, "still there?")
	a := w.answer(missed, "once more")
	m.lose(false)
	w.published(first, missed)
	w.reaches(a, delivery.Delivered)
	w.once(w.room.ID, a)
}
