package discord

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	fake "parley.internal/emulator/discord"
	"parley.internal/gateway/moderator"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
)

const mayModerate = fake.BanMembers | fake.ModerateMembers | fake.ManageMessages

// permit gives a user a new role.
func (w *world) permit(userID string, p fake.Permissions) {
	w.t.Helper()
	role, err := w.discord.AddRole(fake.Role{GuildID: w.guild.ID, Name: fmt.Sprintf("Role %d", time.Now().UnixNano()), Permissions: p})
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, userID, role.ID))
}

// member adds a new user to the guild.
func (w *world) member(name string) fake.User {
	w.t.Helper()
	u := w.user(name)
	w.join(u.ID)
	return u
}

// command sends a moderation command, for the room if it names no channel.
func (w *world) command(f moderation.Fields) answered {
	w.t.Helper()
	if f.Channel == "" {
		f.Channel = Channel(w.room.ID)
	}
	a, err := f.Parse()
	w.must(err)
	request := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: fmt.Sprintf("%s %d", a, time.Now().UnixNano()), Type: moderation.Type, UserID: "api-gateway:eve"}
	c := moderation.Command{Action: a, By: moderation.Requester{UserID: "api-gateway:eve", Roles: []string{"moderator"}, Source: "api-gateway", Right: "moderator by hand"}}
	id, err := w.sender.Send(w.t.Context(), c.Event(request), "action")
	w.must(err)
	return answered{id, a.String()}
}

func (w *world) record(a answered) moderator.Record {
	w.t.Helper()
	r, err := moderator.NewRecords(w.firestore, "test", time.Now).Get(w.t.Context(), a.id)
	w.must(err)
	return r
}

// done returns the actions of the bot in the guild, from the audit log.
func (w *world) done() (all []string) {
	for _, e := range w.discord.AuditLog(w.guild.ID) {
		if e.ByID == w.bot.ID {
			all = append(all, strings.TrimSpace(e.Action+" "+e.TargetID+" "+e.Reason))
		}
	}
	return all
}

// timedOut returns the remaining time of a user's time-out, or zero.
func (w *world) timedOut(u fake.User) time.Duration {
	for _, t := range w.discord.TimeOuts(w.guild.ID) {
		if t.User.ID == u.ID {
			return time.Until(t.Until)
		}
	}
	return 0
}

func TestModerationCommandsAreExecuted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	bob := w.member("bob")
	w.start("a")
	w.connected()
	line := w.ask(w.room, "buy my things")

	for _, tt := range []struct {
		command   moderation.Fields
		want      string
		note      string
		effective func() bool
	}{
		{moderation.Fields{Action: "delete", MessageID: line.ID, Reason: "advertising"}, fake.ActionMessageDelete + " " + w.alice.ID + " advertising", "done",
			func() bool { return w.discord.Said(w.room.ID)[0].Deleted }},
		{moderation.Fields{Action: "timeout", UserID: w.alice.ID, DurationSeconds: "600", Reason: "Grüße, 100 % spam"}, fake.ActionMemberUpdate + " " + w.alice.ID + " Grüße, 100 % spam", "done: until ",
			func() bool { d := w.timedOut(w.alice); return d > 500*time.Second && d <= 600*time.Second }},
		{moderation.Fields{Action: "unban", UserID: w.alice.ID}, fake.ActionMemberUpdate + " " + w.alice.ID, "done: the time-out",
			func() bool { return w.timedOut(w.alice) == 0 }},
		{moderation.Fields{Action: "ban", UserID: "discord:" + bob.ID, Reason: "more spam"}, fake.ActionMemberBanAdd + " " + bob.ID + " more spam", "done",
			func() bool {
				b := w.discord.Bans(w.guild.ID)
				return len(b) == 1 && b[0].User.ID == bob.ID && b[0].Reason == "more spam"
			}},
		{moderation.Fields{Action: "unban", UserID: bob.ID}, fake.ActionMemberBanRemove + " " + bob.ID, "done",
			func() bool { return len(w.discord.Bans(w.guild.ID)) == 0 }},
	} {
		before := len(w.done())
		a := w.command(tt.command)
		entry, record := w.reaches(a, delivery.Delivered), w.record(a)
		if did := w.done()[before:]; len(did) != 1 || did[0] != tt.want {
			t.Errorf("%s: did %q; want %q", a.text, did, tt.want)
		}
		if !tt.effective() {
			t.Errorf("%s: no effect", a.text)
		}
		if !strings.HasPrefix(entry.Note, tt.note) {
			t.Errorf("%s: note = %q; want %q", a.text, entry.Note, tt.note)
		}
		if record.Outcome != moderator.Done || record.AskedBy.UserID != "api-gateway:eve" || record.Tries[0].Instance != "a" {
			t.Errorf("%s: record = %+v", a.text, record)
		}
	}
}

// A command may come too late, because a person was faster or because two moderators sent the same command.
func TestCommandsWithoutEffectAreDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	bob := w.user("bob")
	w.start("a")
	w.connected()
	line := w.ask(w.room, "hello")
	w.must(w.discord.Delete(w.room.ID, line.ID))
	w.must(w.discord.Ban(w.guild.ID, bob.ID, ""))
	for _, tt := range []struct {
		command moderation.Fields
		note    string
	}{
		{moderation.Fields{Action: "delete", MessageID: line.ID}, "10008: Unknown Message"},
		{moderation.Fields{Action: "timeout", UserID: bob.ID, DurationSeconds: "60"}, "banned: answer 404 from Discord: 10007: Unknown Member"},
		{moderation.Fields{Action: "unban", UserID: w.alice.ID}, "10026: Unknown Ban"}, // a member
		{moderation.Fields{Action: "unban", UserID: w.user("carol").ID}, "10026: Unknown Ban"},
	} {
		a := w.command(tt.command)
		if e := w.reaches(a, delivery.Delivered); !strings.HasPrefix(e.Note, "held: ") || !strings.Contains(e.Note, tt.note) || w.record(a).Outcome != moderator.Held {
			t.Errorf("%s: note = %q, record = %s; want %q", a.text, e.Note, w.record(a).Outcome, tt.note)
		}
	}
	if got := w.done(); len(got) != 0 {
		t.Errorf("did %q", got)
	}
	// Discord does not report that the user was banned before
	w.reaches(w.command(moderation.Fields{Action: "ban", UserID: bob.ID}), delivery.Delivered)
	if b := w.discord.Bans(w.guild.ID); len(b) != 1 || b[0].ByID != "" {
		t.Errorf("bans = %+v; want the first ban unchanged", b)
	}
}

func TestRefusedCommandsAreDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	line := w.ask(w.room, "hello")
	gone, bob := w.user("gone"), w.member("bob")
	direct, err := w.discord.DM(w.alice.ID, w.bot.ID)
	w.must(err)
	w.start("a")
	w.connected()
	refused := func(f moderation.Fields, why deadletter.Reason, words string) {
		t.Helper()
		a := w.command(f)
		w.refused(a, why, words)
		if r := w.record(a); r.Outcome != moderator.Refused || r.Tries[0].Code != why || !strings.Contains(r.Tries[0].Answer, words) {
			t.Errorf("%s: record = %+v", a.text, r)
		}
	}
	const missing = "answer 403 from Discord: 50013: Missing Permissions"
	refused(moderation.Fields{Action: "ban", UserID: w.alice.ID}, deadletter.SenderRefused, missing)
	refused(moderation.Fields{Action: "unban", UserID: w.alice.ID}, deadletter.SenderRefused, missing)
	refused(moderation.Fields{Action: "timeout", UserID: w.alice.ID, DurationSeconds: "60"}, deadletter.SenderRefused, missing)
	refused(moderation.Fields{Action: "delete", MessageID: line.ID}, deadletter.SenderRefused, missing)

	w.permit(w.bot.ID, mayModerate)
	w.permit(bob.ID, fake.SendMessages) // a role above the bot's
	refused(moderation.Fields{Action: "ban", UserID: w.owner.ID}, deadletter.SenderRefused, missing)
	refused(moderation.Fields{Action: "timeout", UserID: bob.ID, DurationSeconds: "60"}, deadletter.SenderRefused, missing)
	refused(moderation.Fields{Action: "ban", UserID: "999999"}, deadletter.RecipientRefused, "10013: Unknown User")
	refused(moderation.Fields{Action: "timeout", UserID: gone.ID, DurationSeconds: "60"}, deadletter.RecipientRefused, "10007: Unknown Member")
	refused(moderation.Fields{Action: "ban", UserID: w.alice.ID, Channel: "discord:999999"}, deadletter.RecipientRefused, "10003: Unknown Channel")
	refused(moderation.Fields{Action: "ban", UserID: w.alice.ID, Channel: Channel(direct.ID)}, deadletter.RecipientRefused, "belongs to no server")
	if got := w.done(); len(got) != 0 {
		t.Errorf("did %q", got)
	}
}

// Each command is executed and recorded once, whatever happens to its requests. The commands are for different channels,
// so they do not wait for each other.
func TestFailedModerationRequestsAreRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	w.start("a", impatient)
	w.connected()
	tests := []struct {
		name     string
		fault    fake.HTTPFault
		times    int // a time-out without a response is executed twice, with the same effect
		viewer   fake.User
		answered answered
	}{
		{name: "lost response", fault: fake.HTTPFault{Drop: true, Done: true}, times: 2},
		{name: "lost request", fault: fake.HTTPFault{Drop: true}, times: 1},
		{name: "late response", fault: fake.HTTPFault{Hang: true, Done: true}, times: 2},
		{name: "server error", fault: fake.HTTPFault{Status: 500}, times: 1},
		{name: "too many requests", fault: fake.HTTPFault{Status: http.StatusTooManyRequests, RetryAfter: 50 * time.Millisecond}, times: 1},
		{name: "refused token", fault: fake.HTTPFault{Status: http.StatusUnauthorized}, times: 1},
	}
	for i := range tests {
		tt := &tests[i]
		tt.viewer = w.member(fmt.Sprintf("viewer%d", i))
		tt.fault.Path, tt.fault.Method = "/members/"+tt.viewer.ID, http.MethodPatch
		w.discord.FailHTTP(tt.fault)
		channel := Channel(w.channel(fmt.Sprintf("channel%d", i)).ID)
		tt.answered = w.command(moderation.Fields{Action: "timeout", UserID: tt.viewer.ID, DurationSeconds: "600", Channel: channel})
	}
	for _, tt := range tests {
		if e := w.reaches(tt.answered, delivery.Delivered); !strings.HasPrefix(e.Note, "done: until ") {
			t.Errorf("%s: note = %q", tt.name, e.Note)
		}
		n := 0
		for _, action := range w.done() {
			if strings.Contains(action, " "+tt.viewer.ID) {
				n++
			}
		}
		// on a slow machine a response may come after the timeout
		if n < tt.times || w.timedOut(tt.viewer) == 0 {
			t.Errorf("%s: executed %d times; want %d", tt.name, n, tt.times)
		}
		if r := w.record(tt.answered); r.Outcome != moderator.Done || len(r.Tries) != 1 {
			t.Errorf("%s: record = %+v", tt.name, r)
		}
	}
}

// Pub/Sub delivers a command to every instance, and may deliver it several times.
func TestRedeliveredCommandIsExecutedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	w.start("a")
	w.start("b")
	w.connected()
	a := w.command(moderation.Fields{Action: "timeout", UserID: w.alice.ID, DurationSeconds: "60"})
	for range 3 {
		w.must(w.sender.PublishEntry(t.Context(), a.id))
	}
	w.reaches(a, delivery.Delivered)
	// after a second command nothing of the first can be pending
	w.reaches(w.command(moderation.Fields{Action: "unban", UserID: w.alice.ID}), delivery.Delivered)
	if got := w.done(); len(got) != 2 {
		t.Errorf("did %q; want each once", got)
	}
}

// The holder crashes after Discord has executed the command and before the response. The next holder finishes the
// command from the ledger.
func TestCommandOutlivesItsInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.lease = quickLease
	w.permit(w.bot.ID, mayModerate)
	first := w.start("a")
	w.connected()
	w.discord.FailHTTP(fake.HTTPFault{Path: "/bans/" + w.alice.ID, Hang: true, Done: true})
	a := w.command(moderation.Fields{Action: "ban", UserID: w.alice.ID})
	eventually(t, "Discord has executed the command", func() bool { return len(w.done()) == 1 })
	first.kill()
	if e := w.entry(a); e.State != delivery.Claimed || w.record(a).Outcome != moderator.Begun {
		t.Fatalf("entry = %s, record = %s", e.State, w.record(a).Outcome)
	}
	w.lease = steadyLease // only the victim's lease expires, also on a busy machine
	w.start("b")
	_, err := w.firestore.Doc("deliveries/"+a.id).Update(t.Context(), []firestore.Update{{Path: "leaseUntil", Value: time.Now().Add(-time.Second)}})
	w.must(err)
	w.reaches(a, delivery.Delivered)
	if r := w.record(a); r.Outcome != moderator.Done || len(r.Tries) != 1 || r.Tries[0].Times < 2 || r.Tries[0].Instance != "b" {
		t.Errorf("record = %+v", r)
	}
	if b := w.discord.Bans(w.guild.ID); len(b) != 1 {
		t.Errorf("bans = %+v", b)
	}
}

// Discord's gateway does not announce every channel, for example no archived thread.
func TestModerationFindsTheServerOfAnUnknownChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	w.start("a")
	w.connected()
	w.published(w.ask(w.room, "hello"))
	w.discord.FailDispatch(fake.DispatchFault{Type: "CHANNEL_CREATE", Lost: true})
	hidden := w.channel("hidden")
	w.discord.FailHTTP(fake.HTTPFault{Path: "/channels/" + hidden.ID, Drop: true}) // the first query is lost
	a := w.command(moderation.Fields{Action: "ban", UserID: w.alice.ID, Channel: Channel(hidden.ID)})
	w.reaches(a, delivery.Delivered)
	if b := w.discord.Bans(w.guild.ID); len(b) != 1 || len(w.discord.Requests("/channels/"+hidden.ID)) != 2 {
		t.Errorf("bans = %+v", b)
	}
}
