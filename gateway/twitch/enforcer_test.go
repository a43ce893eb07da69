package twitch

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	fake "parley.internal/emulator/twitch"
	"parley.internal/gateway/moderator"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	helix "parley.internal/shared/twitch"
)

var moderate = []string{helix.ScopeChat, scopeBan, scopeDelete}

// command sends a moderation command for a channel.
func (w *world) command(channel string, f moderation.Fields) answered {
	w.t.Helper()
	f.Channel = channelName(channel)
	a, err := f.Parse()
	if err != nil {
		w.t.Fatal(err)
	}
	asked := &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: fmt.Sprintf("%s %d", a, time.Now().UnixNano()), Type: moderation.Type, UserID: "api-gateway:eve"}
	o := moderation.Command{Action: a, By: moderation.Requester{UserID: "api-gateway:eve", Roles: []string{"moderator"}, Source: "api-gateway", Right: "moderator by hand"}}
	id, err := w.sender.Send(w.t.Context(), o.Event(asked), "action")
	if err != nil {
		w.t.Fatal(err)
	}
	return answered{id, a.String()}
}

func (w *world) record(a answered) moderator.Record {
	w.t.Helper()
	r, err := moderator.NewRecords(w.firestore, "test", time.Now).Get(w.t.Context(), a.id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// done lists the bot's moderation actions in a channel.
func (w *world) done(channel string) (kinds []string) {
	for _, a := range w.twitch.Actions(channel) {
		if a.By == w.bot.Login {
			kinds = append(kinds, a.Kind+" "+a.Login)
		}
	}
	return kinds
}

func TestCommandsAreExecuted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel := w.channel("streamer")
	alice, bob := w.user("alice"), w.user("bob")
	w.start("a", transportHelix, []string{channel})
	w.joined(channel)
	line := w.say(channel, "alice", "buy my things")

	for _, tt := range []struct {
		command moderation.Fields
		want    fake.Action
		note    string
	}{
		{moderation.Fields{Action: "delete", MessageID: line.ID}, fake.Action{Kind: fake.ActionDelete, Login: "alice", MessageID: line.ID}, "done"},
		{moderation.Fields{Action: "timeout", UserID: "twitch:" + alice.ID, DurationSeconds: "600", Reason: "spam"},
			fake.Action{Kind: fake.ActionTimeout, Login: "alice", Duration: 600 * time.Second, Reason: "spam"}, "done: until "},
		{moderation.Fields{Action: "ban", Login: "@Bob", Reason: "more spam"}, fake.Action{Kind: fake.ActionBan, Login: "bob", Reason: "more spam"}, "done"},
		{moderation.Fields{Action: "unban", UserID: bob.ID}, fake.Action{Kind: fake.ActionUnban, Login: "bob"}, "done"},
	} {
		a := w.command(channel, tt.command)
		entry, record := w.reaches(a, delivery.Delivered), w.record(a)
		actions := w.twitch.Actions(channel)
		got := actions[len(actions)-1]
		got.At = time.Time{}
		tt.want.By = w.bot.Login
		if got != tt.want {
			t.Errorf("%s: did %+v; want %+v", a.text, got, tt.want)
		}
		if !strings.HasPrefix(entry.Note, tt.note) {
			t.Errorf("%s: note = %q; want %q", a.text, entry.Note, tt.note)
		}
		if record.Outcome != moderator.Done || record.AskedBy.UserID != "api-gateway:eve" || record.Tries[0].Instance != "a" {
			t.Errorf("%s: record = %+v", a.text, record)
		}
		if tt.command.Login != "" && record.UserID != "twitch:"+bob.ID {
			t.Errorf("%s: the record has the user %q; want the user id", a.text, record.UserID)
		}
	}
	if n := len(w.twitch.Actions(channel)); n != 4 {
		t.Errorf("%d actions; want 4", n)
	}
}

// The requested state may exist already: a person was faster, or the command came twice.
func TestACommandForAnExistingStateIsDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel := w.channel("streamer")
	alice := w.user("alice")
	w.start("a", transportHelix, []string{channel})
	w.joined(channel)
	line := w.say(channel, "alice", "hello")
	w.twitch.Delete(channel, line.ID)
	if err := w.twitch.Ban(channel, "alice", 0, ""); err != nil {
		t.Fatal(err)
	}
	held := func(f moderation.Fields) {
		t.Helper()
		a := w.command(channel, f)
		if e := w.reaches(a, delivery.Delivered); !strings.HasPrefix(e.Note, "held: status ") || w.record(a).Outcome != moderator.Held {
			t.Errorf("%s: note = %q, record = %s", a.text, e.Note, w.record(a).Outcome)
		}
	}
	held(moderation.Fields{Action: "delete", MessageID: line.ID})
	held(moderation.Fields{Action: "ban", UserID: alice.ID})
	held(moderation.Fields{Action: "timeout", UserID: alice.ID, DurationSeconds: "60"})
	if err := w.twitch.Unban(channel, "alice"); err != nil {
		t.Fatal(err)
	}
	held(moderation.Fields{Action: "unban", UserID: alice.ID})
	if got := w.done(channel); len(got) != 0 {
		t.Errorf("did %v", got)
	}
}

func TestARefusedCommandIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel, foreign := w.channel("streamer"), w.channel("foreign")
	alice, mod := w.user("alice"), w.user("mod")
	if err := w.twitch.SetRole(channel, "mod", fake.Role{Moderator: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.twitch.SetRole(foreign, w.bot.Login, fake.Role{}); err != nil {
		t.Fatal(err)
	}
	w.start("a", transportHelix, []string{channel, foreign})
	w.joined(channel, foreign)
	timeout := moderation.Fields{Action: "timeout", UserID: alice.ID, DurationSeconds: "60"}
	status := func(code int) func() {
		return func() { w.twitch.FailHTTP(fake.HTTPFault{Path: "/moderation/bans", Status: code}) }
	}
	for _, tt := range []struct {
		name    string
		fault   func()
		channel string
		command moderation.Fields
		reason  deadletter.Reason
		words   string
	}{
		{"another moderator", nil, channel, moderation.Fields{Action: "ban", UserID: mod.ID}, deadletter.RecipientRefused, "may not be banned"},
		{"nobody of that number", nil, channel, moderation.Fields{Action: "ban", UserID: "999999"}, deadletter.RecipientRefused, "status 400"},
		{"nobody of that name", nil, channel, moderation.Fields{Action: "ban", Login: "nobody_here"}, deadletter.RecipientRefused, "nobody on Twitch is called nobody_here"},
		{"itself", nil, channel, moderation.Fields{Action: "ban", UserID: w.bot.ID}, deadletter.RecipientRefused, "does not silence itself"},
		{"itself by name", nil, channel, moderation.Fields{Action: "timeout", Login: w.bot.Login, DurationSeconds: "5"}, deadletter.RecipientRefused, "does not silence itself"},
		{"where the bot is no moderator", nil, foreign, timeout, deadletter.SenderRefused, "status 403"},
		{"a missing scope that only Twitch knows of", func() {
			s := w.tokens
			s.mu.Lock()
			defer s.mu.Unlock()
			granted := s.scopes
			s.scopes = []string{"chat:read", "chat:edit", helix.ScopeChat}
			s.renew()
			s.current.Scopes, s.scopes = granted, granted
		}, channel, timeout, deadletter.MissingScope, "has not granted moderator:manage:banned_users: log in again"},
		{"400", status(http.StatusBadRequest), channel, timeout, deadletter.RecipientRefused, "status 400"},
		{"404", status(http.StatusNotFound), channel, timeout, deadletter.RecipientRefused, "status 404"},
		{"401 to a valid token", func() {
			w.tokens.mu.Lock()
			defer w.tokens.mu.Unlock()
			w.tokens.invalid = fmt.Errorf("%w: does the request have the same client id?", credential.ErrRefused)
			w.twitch.FailHTTP(fake.HTTPFault{Path: "/moderation/bans", Status: http.StatusUnauthorized, Message: "The user in moderator_id is not one of the broadcaster's moderators."})
		}, channel, timeout, deadletter.SenderRefused, "status 401 from Twitch: The user in moderator_id is not one of the broadcaster's moderators."},
	} {
		if tt.fault != nil {
			tt.fault()
		}
		a := w.command(tt.channel, tt.command)
		e := w.reaches(a, delivery.Dead)
		if e.Reason != string(tt.reason) || !strings.Contains(e.Message, tt.words) {
			t.Errorf("%s: %s: %s; want %s: …%s…", tt.name, e.Reason, e.Message, tt.reason, tt.words)
		}
		if strings.Contains(e.Message, "client id") {
			t.Errorf("%s: %s blames the client", tt.name, e.Message)
		}
		if r := w.record(a); r.Outcome != moderator.Refused || r.Tries[0].Code != tt.reason || !strings.Contains(r.Tries[0].Answer, tt.words) {
			t.Errorf("%s: record = %+v", tt.name, r)
		}
	}
	if got := append(w.done(channel), w.done(foreign)...); len(got) != 0 {
		t.Errorf("did %v", got)
	}
}

func TestAMissingScopeNeedsNoRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, write)
	channel := w.channel("streamer")
	alice := w.user("alice")
	w.start("a", transportHelix, []string{channel})
	w.joined(channel)
	for scope, f := range map[string]moderation.Fields{scopeBan: {Action: "ban", UserID: alice.ID}, scopeDelete: {Action: "delete", MessageID: "m-1"}} {
		a := w.command(channel, f)
		if e := w.reaches(a, delivery.Dead); e.Reason != string(deadletter.MissingScope) || !strings.Contains(e.Message, scope) || !strings.Contains(e.Message, "/oauth/twitch/login") {
			t.Errorf("%s: %s: %s", a.text, e.Reason, e.Message)
		}
	}
	if n := len(w.twitch.Requests("/moderation/bans")) + len(w.twitch.Requests("/moderation/chat")); n != 0 {
		t.Errorf("asked Twitch %d times", n)
	}
}

// Without a login the chat joins no channel; the reason is the login nevertheless.
func TestAMissingLoginIsLoginNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel := w.channel("streamer")
	alice := w.user("alice")
	w.tokens.loggedOut = true
	w.start("a", transportAuto, []string{channel})
	w.sender = delivery.NewSender(w.ledger, discard{}, delivery.Config{Deadline: 2 * time.Second, Retention: time.Hour}, time.Now)
	answer := w.answer(fake.Line{ID: "m-1", Channel: channel, UserID: alice.ID, Text: "hello?"}, "hello")
	command := w.command(channel, moderation.Fields{Action: "ban", UserID: alice.ID})
	for _, a := range []answered{answer, command} {
		if e := w.reaches(a, delivery.Dead); e.Reason != string(deadletter.LoginNeeded) || !strings.Contains(e.Message, "/oauth/twitch/login") {
			t.Errorf("%s: %s: %s; want %s", a.text, e.Reason, e.Message, deadletter.LoginNeeded)
		}
	}
}

// After every failure the command is executed, with as few requests as possible.
func TestAFailedCommandIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel := w.channel("streamer")
	w.start("a", transportHelix, []string{channel}, impatient)
	w.joined(channel)
	for i, tt := range []struct {
		name    string
		fault   fake.HTTPFault
		note    string
		actions int // of the fake: a time-out with a lost answer is executed twice, with the same end
	}{
		{"an answer that is lost", fake.HTTPFault{Drop: true, Done: true}, "done: until ", 2},
		{"a request that is lost", fake.HTTPFault{Drop: true}, "done: until ", 1},
		{"no answer in time", fake.HTTPFault{Hang: true, Done: true}, "done: until ", 2},
		{"a fault of the server", fake.HTTPFault{Status: 500}, "done: until ", 1},
		{"another who bans at this moment", fake.HTTPFault{Status: http.StatusConflict}, "done: until ", 1},
		{"too many requests", fake.HTTPFault{Status: http.StatusTooManyRequests, Header: http.Header{"Ratelimit-Reset": {fmt.Sprint(time.Now().Unix())}}}, "done: until ", 1},
		{"a token that ended", fake.HTTPFault{Status: http.StatusUnauthorized}, "done: until ", 1},
	} {
		login := fmt.Sprintf("viewer%d", i)
		viewer := w.user(login)
		before := len(w.done(channel))
		tt.fault.Path, tt.fault.Method = "/moderation/bans", http.MethodPost
		w.twitch.FailHTTP(tt.fault)
		a := w.command(channel, moderation.Fields{Action: "timeout", UserID: viewer.ID, DurationSeconds: "600"})
		if e := w.reaches(a, delivery.Delivered); !strings.HasPrefix(e.Note, tt.note) {
			t.Errorf("%s: note = %q", tt.name, e.Note)
		}
		if n := len(w.done(channel)) - before; n != tt.actions {
			t.Errorf("%s: done %d times; want %d", tt.name, n, tt.actions)
		}
		if r := w.record(a); r.Outcome != moderator.Done || len(r.Tries) != 1 {
			t.Errorf("%s: record = %+v", tt.name, r)
		}
	}
	if w.tokens.refreshed != 1 {
		t.Errorf("refreshed %d times; want once", w.tokens.refreshed)
	}
	// a ban with a lost answer is executed once
	bob := w.user("bob")
	before := len(w.done(channel))
	w.twitch.FailHTTP(fake.HTTPFault{Path: "/moderation/bans", Drop: true, Done: true})
	a := w.command(channel, moderation.Fields{Action: "ban", UserID: bob.ID})
	if e := w.reaches(a, delivery.Delivered); !strings.HasPrefix(e.Note, "held: ") || len(w.done(channel))-before != 1 {
		t.Errorf("note = %q, done %d times", e.Note, len(w.done(channel))-before)
	}
}

// The bus delivers a command to every instance, and more than once.
func TestARedeliveredCommandIsExecutedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel := w.channel("streamer")
	alice := w.user("alice")
	w.start("a", transportHelix, []string{channel})
	w.start("b", transportHelix, []string{channel})
	w.joined(channel)
	a := w.command(channel, moderation.Fields{Action: "timeout", UserID: alice.ID, DurationSeconds: "60"})
	for range 3 {
		if err := w.sender.PublishEntry(t.Context(), a.id); err != nil {
			t.Fatal(err)
		}
	}
	w.reaches(a, delivery.Delivered)
	// after a second command, the first one has certainly ended
	w.reaches(w.command(channel, moderation.Fields{Action: "unban", UserID: alice.ID}), delivery.Delivered)
	if got := w.done(channel); len(got) != 2 {
		t.Errorf("did %v; want each once", got)
	}
}

// The owner dies after the execution and before Twitch's answer. The next owner finishes the command.
func TestTheNextOwnerFinishesACommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	w.lease = quickLease
	channel := w.channel("streamer")
	alice := w.user("alice")
	first := w.start("a", transportHelix, []string{channel})
	w.joined(channel)
	w.twitch.FailHTTP(fake.HTTPFault{Path: "/moderation/bans", Hang: true, Done: true})
	a := w.command(channel, moderation.Fields{Action: "ban", UserID: alice.ID})
	eventually(t, "Twitch did it", func() bool { return len(w.done(channel)) == 1 })
	first.kill()
	if e := w.entry(a); e.State != delivery.Claimed || w.record(a).Outcome != moderator.Begun {
		t.Fatalf("entry = %s, record = %s", e.State, w.record(a).Outcome)
	}
	w.lease = steadyLease // only the victim's lease expires, also on a busy machine
	w.start("b", transportHelix, []string{channel})
	w.joined(channel)
	if _, err := w.firestore.Doc("deliveries/"+a.id).Update(t.Context(), []firestore.Update{{Path: "leaseUntil", Value: time.Now().Add(-time.Second)}}); err != nil {
		t.Fatal(err)
	}
	w.reaches(a, delivery.Delivered)
	if got, r := w.done(channel), w.record(a); len(got) != 1 || r.Outcome != moderator.Held || len(r.Tries) != 1 || r.Tries[0].Times < 2 || r.Tries[0].Instance != "b" {
		t.Errorf("did %v, record = %+v", got, r)
	}
	if docs, err := w.firestore.Collection("deadletters").Documents(t.Context()).GetAll(); err != nil || len(docs) != 0 {
		t.Errorf("%d dead letters, %v", len(docs), err)
	}
}

// A rate limit for messages does not delay a command.
func TestACommandDoesNotWaitBehindAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, moderate)
	channel := w.channel("streamer")
	alice := w.user("alice")
	w.start("a", transportHelix, []string{channel}, func(s *Service) {
		s.limits.messages, s.limits.moderatorMessages, s.limits.messageWindow = 1, 1, time.Hour
	})
	w.joined(channel)
	question := w.say(channel, "alice", "hello?")
	w.reaches(w.answer(question, "one"), delivery.Delivered)
	two := w.answer(question, "two")
	w.reaches(w.command(channel, moderation.Fields{Action: "ban", UserID: alice.ID}), delivery.Delivered)
	if got := w.entry(two).State; got != delivery.Pending {
		t.Errorf("the second answer is %s; want it to wait for an hour", got)
	}
}
