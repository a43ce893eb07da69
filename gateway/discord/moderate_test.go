package discord

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	standin "parley.internal/emulator/discord"
	"parley.internal/gateway/moderator"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
)

const mayModerate = standin.BanMembers | standin.ModerateMembers | standin.ManageMessages

// permit gives somebody a new role.
func (w *world) permit(userID string, p standin.Permissions) {
	w.t.Helper()
	role, err := w.discord.AddRole(standin.Role{GuildID: w.guild.ID, Name: fmt.Sprintf("Role %d", time.Now().UnixNano()), Permissions: p})
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, userID, role.ID))
}

// member is a new user who is in the guild.
func (w *world) member(name string) standin.User {
	w.t.Helper()
	u := w.user(name)
	w.join(u.ID)
	return u
}

// order sends an order for the room, or the channel that it names.
func (w *world) order(f moderation.Fields) answered {
	w.t.Helper()
	if f.Channel == "" {
		f.Channel = Channel(w.room.ID)
	}
	a, err := f.Parse()
	w.must(err)
	asked := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: fmt.Sprintf("%s %d", a, time.Now().UnixNano()), Type: moderation.Type, UserID: "api-gateway:eve"}
	o := moderation.Command{Action: a, By: moderation.Requester{UserID: "api-gateway:eve", Roles: []string{"moderator"}, Source: "api-gateway", Right: "moderator by hand"}}
	id, err := w.sender.Send(w.t.Context(), o.Event(asked), "action")
	w.must(err)
	return answered{id, a.String()}
}

func (w *world) record(a answered) moderator.Record {
	w.t.Helper()
	r, err := moderator.NewRecords(w.firestore, "test", time.Now).Get(w.t.Context(), a.id)
	w.must(err)
	return r
}

// done are what the bot did in the guild, by the audit log.
func (w *world) done() (all []string) {
	for _, e := range w.discord.AuditLog(w.guild.ID) {
		if e.ByID == w.bot.ID {
			all = append(all, strings.TrimSpace(e.Action+" "+e.TargetID+" "+e.Reason))
		}
	}
	return all
}

// timedOut is for how long somebody is timed out yet.
func (w *world) timedOut(u standin.User) time.Duration {
	for _, t := range w.discord.TimeOuts(w.guild.ID) {
		if t.User.ID == u.ID {
			return time.Until(t.Until)
		}
	}
	return 0
}

func TestModeratorsOrdersAreCarriedOut(t *testing.T) {
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	bob := w.member("bob")
	w.start("a")
	w.connected()
	line := w.ask(w.room, "buy my things")

	for _, tt := range []struct {
		order moderation.Fields
		want  string
		note  string
		holds func() bool
	}{
		{moderation.Fields{Action: "delete", MessageID: line.ID, Reason: "advertising"}, standin.ActionMessageDelete + " " + w.alice.ID + " advertising", "done",
			func() bool { return w.discord.Said(w.room.ID)[0].Deleted }},
		{moderation.Fields{Action: "timeout", UserID: w.alice.ID, DurationSeconds: "600", Reason: "Grüße, 100 % spam"}, standin.ActionMemberUpdate + " " + w.alice.ID + " Grüße, 100 % spam", "done: until ",
			func() bool { d := w.timedOut(w.alice); return d > 500*time.Second && d <= 600*time.Second }},
		{moderation.Fields{Action: "unban", UserID: w.alice.ID}, standin.ActionMemberUpdate + " " + w.alice.ID, "done: the time-out",
			func() bool { return w.timedOut(w.alice) == 0 }},
		{moderation.Fields{Action: "ban", UserID: "discord:" + bob.ID, Reason: "more spam"}, standin.ActionMemberBanAdd + " " + bob.ID + " more spam", "done",
			func() bool {
				b := w.discord.Bans(w.guild.ID)
				return len(b) == 1 && b[0].User.ID == bob.ID && b[0].Reason == "more spam"
			}},
		{moderation.Fields{Action: "unban", UserID: bob.ID}, standin.ActionMemberBanRemove + " " + bob.ID, "done",
			func() bool { return len(w.discord.Bans(w.guild.ID)) == 0 }},
	} {
		before := len(w.done())
		a := w.order(tt.order)
		entry, record := w.reaches(a, delivery.Delivered), w.record(a)
		if did := w.done()[before:]; len(did) != 1 || did[0] != tt.want {
			t.Errorf("%s: did %q; want %q", a.text, did, tt.want)
		}
		if !tt.holds() {
			t.Errorf("%s: it is not so", a.text)
		}
		if !strings.HasPrefix(entry.Note, tt.note) {
			t.Errorf("%s: note = %q; want %q", a.text, entry.Note, tt.note)
		}
		if record.Outcome != moderator.Done || record.AskedBy.UserID != "api-gateway:eve" || record.Tries[0].Instance != "a" {
			t.Errorf("%s: record = %+v", a.text, record)
		}
	}
}

// What is wanted may be so already: because a person was faster, or because it is asked for twice.
func TestWhatModeratorsWantAndIsSoAlreadyIsDelivered(t *testing.T) {
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	bob := w.user("bob")
	w.start("a")
	w.connected()
	line := w.ask(w.room, "hello")
	w.must(w.discord.Delete(w.room.ID, line.ID))
	w.must(w.discord.Ban(w.guild.ID, bob.ID, ""))
	for _, tt := range []struct {
		order moderation.Fields
		note  string
	}{
		{moderation.Fields{Action: "delete", MessageID: line.ID}, "10008: Unknown Message"},
		{moderation.Fields{Action: "timeout", UserID: bob.ID, DurationSeconds: "60"}, "banned: answer 404 from Discord: 10007: Unknown Member"},
		{moderation.Fields{Action: "unban", UserID: w.alice.ID}, "10026: Unknown Ban"}, // a member
		{moderation.Fields{Action: "unban", UserID: w.user("carol").ID}, "10026: Unknown Ban"},
	} {
		a := w.order(tt.order)
		if e := w.reaches(a, delivery.Delivered); !strings.HasPrefix(e.Note, "held: ") || !strings.Contains(e.Note, tt.note) || w.record(a).Outcome != moderator.Held {
			t.Errorf("%s: note = %q, record = %s; want %q", a.text, e.Note, w.record(a).Outcome, tt.note)
		}
	}
	if got := w.done(); len(got) != 0 {
		t.Errorf("did %q", got)
	}
	// Discord does not tell that somebody was banned before
	w.reaches(w.order(moderation.Fields{Action: "ban", UserID: bob.ID}), delivery.Delivered)
	if b := w.discord.Bans(w.guild.ID); len(b) != 1 || b[0].ByID != "" {
		t.Errorf("bans = %+v; want the first as it was", b)
	}
}

func TestAModeratorsOrderThatDiscordRefusesIsADeadLetter(t *testing.T) {
	w := newWorld(t)
	line := w.ask(w.room, "hello")
	gone, bob := w.user("gone"), w.member("bob")
	direct, err := w.discord.DM(w.alice.ID, w.bot.ID)
	w.must(err)
	w.start("a")
	w.connected()
	refused := func(f moderation.Fields, why deadletter.Reason, words string) {
		t.Helper()
		a := w.order(f)
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
	w.permit(bob.ID, standin.SendMessages) // above the bot
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

// Whatever goes wrong on the way, the person is silenced, and the order ends once.
func TestModerationThatGoesWrongOnTheWayIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	w.start("a", impatient)
	w.connected()
	for i, tt := range []struct {
		name  string
		fault standin.HTTPFault
		times int // a time-out that was done and not told of is done twice, to the same end
	}{
		{"an answer that is lost", standin.HTTPFault{Drop: true, Done: true}, 2},
		{"a request that is lost", standin.HTTPFault{Drop: true}, 1},
		{"no answer in time", standin.HTTPFault{Hang: true, Done: true}, 2},
		{"a fault of the server", standin.HTTPFault{Status: 500}, 1},
		{"too many requests", standin.HTTPFault{Status: http.StatusTooManyRequests, RetryAfter: 50 * time.Millisecond}, 1},
		{"a token that is refused", standin.HTTPFault{Status: http.StatusUnauthorized}, 1},
	} {
		viewer := w.member(fmt.Sprintf("viewer%d", i))
		before := len(w.done())
		tt.fault.Path, tt.fault.Method = "/members/"+viewer.ID, http.MethodPatch
		w.discord.FailHTTP(tt.fault)
		a := w.order(moderation.Fields{Action: "timeout", UserID: viewer.ID, DurationSeconds: "600"})
		if e := w.reaches(a, delivery.Delivered); !strings.HasPrefix(e.Note, "done: until ") {
			t.Errorf("%s: note = %q", tt.name, e.Note)
		}
		// a slow machine may take an answer for lost that is not
		if n := len(w.done()) - before; n < tt.times || w.timedOut(viewer) == 0 {
			t.Errorf("%s: done %d times; want %d", tt.name, n, tt.times)
		}
		if r := w.record(a); r.Outcome != moderator.Done || len(r.Tries) != 1 {
			t.Errorf("%s: record = %+v", tt.name, r)
		}
	}
}

// An order comes by the bus to every instance, and more than once.
func TestAModeratorsOrderThatComesTwiceIsDoneOnce(t *testing.T) {
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	w.start("a")
	w.start("b")
	w.connected()
	a := w.order(moderation.Fields{Action: "timeout", UserID: w.alice.ID, DurationSeconds: "60"})
	for range 3 {
		w.must(w.sender.PublishEntry(t.Context(), a.id))
	}
	w.reaches(a, delivery.Delivered)
	// one more order, behind which nothing of the first can be left
	w.reaches(w.order(moderation.Fields{Action: "unban", UserID: w.alice.ID}), delivery.Delivered)
	if got := w.done(); len(got) != 2 {
		t.Errorf("did %q; want each once", got)
	}
}

// The owner dies while Discord has done it and not yet said so: who takes the session over brings it to its end, by the
// ledger.
func TestAModeratorsOrderOutlivesItsInstance(t *testing.T) {
	w := newWorld(t)
	w.lease = quickLease
	w.permit(w.bot.ID, mayModerate)
	first := w.start("a")
	w.connected()
	w.discord.FailHTTP(standin.HTTPFault{Path: "/bans/" + w.alice.ID, Hang: true, Done: true})
	a := w.order(moderation.Fields{Action: "ban", UserID: w.alice.ID})
	eventually(t, "Discord did it", func() bool { return len(w.done()) == 1 })
	first.kill()
	if e := w.entry(a); e.State != delivery.Claimed || w.record(a).Outcome != moderator.Begun {
		t.Fatalf("entry = %s, record = %s", e.State, w.record(a).Outcome)
	}
	w.start("b")
	_, err := w.firestore.Doc("deliveries/"+a.id).Update(t.Context(), []firestore.Update{{Path: "leaseUntil", Value: time.Now().Add(-time.Second)}})
	w.must(err)
	w.reaches(a, delivery.Delivered)
	if r := w.record(a); r.Outcome != moderator.Done || len(r.Tries) != 1 || r.Tries[0].Times != 2 || r.Tries[0].Instance != "b" {
		t.Errorf("record = %+v", r)
	}
	if b := w.discord.Bans(w.guild.ID); len(b) != 1 {
		t.Errorf("bans = %+v", b)
	}
}

// The gateway does not tell of every channel: not of threads that are archived, for one.
func TestModerationFindsTheServerOfAChannelThatWasNotTold(t *testing.T) {
	w := newWorld(t)
	w.permit(w.bot.ID, mayModerate)
	w.start("a")
	w.connected()
	w.heard(w.ask(w.room, "hello"))
	w.discord.FailDispatch(standin.DispatchFault{Type: "CHANNEL_CREATE", Lost: true})
	hidden := w.channel("hidden")
	w.discord.FailHTTP(standin.HTTPFault{Path: "/channels/" + hidden.ID, Drop: true}) // and what is asked may be lost
	a := w.order(moderation.Fields{Action: "ban", UserID: w.alice.ID, Channel: Channel(hidden.ID)})
	w.reaches(a, delivery.Delivered)
	if b := w.discord.Bans(w.guild.ID); len(b) != 1 || len(w.discord.Requests("/channels/"+hidden.ID)) != 2 {
		t.Errorf("bans = %+v", b)
	}
}
