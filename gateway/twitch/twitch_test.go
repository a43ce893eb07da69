package twitch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/go-json-experiment/json"

	fake "parley.internal/emulator/twitch"
	"parley.internal/gateway/gap"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
	helix "parley.internal/shared/twitch"
)

var write = []string{helix.ScopeChat}

func TestMessagesBecomeEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	alice, bob := w.user("alice"), w.user("bob")
	for login, role := range map[string]fake.Role{"alice": {Moderator: true, SubscriberMonths: 7, VIP: true}, "bob": {}} {
		if err := w.twitch.SetRole(channel, login, role); err != nil {
			t.Fatal(err)
		}
	}
	w.start("a", transportAuto, []string{"#Streamer"})
	w.joined(channel)
	first := w.say(channel, "alice", "hello; there \\o/")
	reply := w.say(channel, "bob", "hi", fake.ReplyingTo(first.ID))
	w.say(channel, w.bot.Login, "I am the bot")
	w.say(channel, "alice", "waves", fake.AsAction())
	if err := w.twitch.Subscribe(channel, "bob", 2); err != nil {
		t.Fatal(err)
	}
	w.channel("raider")
	if err := w.twitch.Raid("raider", channel, 42); err != nil {
		t.Fatal(err)
	}
	if !w.twitch.Delete(channel, reply.ID) {
		t.Fatal("nothing was deleted")
	}
	if err := w.twitch.Ban(channel, "bob", time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.twitch.Ban(channel, "bob", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.twitch.Clear(channel); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is published", func() bool { return len(w.events("")) >= 9 })

	messages := w.events(event.TypeChatMessage)
	if len(messages) != 3 {
		t.Fatalf("%d messages; want three, without the bot's own", len(messages))
	}
	find := func(id string) *event.Event {
		t.Helper()
		for _, e := range messages {
			if e.Message.ID == id {
				return e
			}
		}
		t.Fatalf("no event of message %s", id)
		return nil
	}
	e := find(first.ID)
	if e.Source != sourceChat || e.CorrelationID != "twitch:"+first.ID || e.Channel != "twitch:streamer" || e.UserID != "twitch:"+alice.ID ||
		e.Message.Role != event.RoleUser || e.Message.Text != "hello; there \\o/" || e.Auth.Provider != "twitch" ||
		e.Egress.Destination != "twitch" || e.Egress.Type != event.EgressChat || e.TraceID == "" {
		t.Errorf("event = %+v, message %+v", e, e.Message)
	}
	var raw rawMessage
	if err := json.Unmarshal(e.Message.RawPlatformPayload, &raw); err != nil {
		t.Fatal(err)
	}
	if raw.UserID != alice.ID || raw.Username != "alice" || raw.DisplayName != "Alice" || raw.Color != "#1E90FF" || !raw.IsMod || !raw.IsSubscriber ||
		!strings.Contains(raw.Badges, "vip/1") || raw.RoomID == "" || raw.Channel != channel || raw.SentAt.IsZero() || raw.ReplyParent != nil {
		t.Errorf("raw = %+v", raw)
	}
	e = find(reply.ID)
	raw = rawMessage{}
	if err := json.Unmarshal(e.Message.RawPlatformPayload, &raw); err != nil {
		t.Fatal(err)
	}
	if e.UserID != "twitch:"+bob.ID || e.ReplyTo != first.ID || raw.IsMod || raw.IsSubscriber || raw.ReplyParent == nil || raw.ReplyParent.ID != first.ID || raw.ReplyParent.Username != "alice" {
		t.Errorf("reply = %+v, raw %+v", e, raw)
	}
	for _, kind := range []string{"twitch.resub", "twitch.raid", typeDeleted, typeTimeout, typeBan, typeCleared} {
		found := w.events(kind)
		if len(found) != 1 {
			t.Errorf("%d events %s; want 1", len(found), kind)
			continue
		}
		x := found[0].ExternalEvent
		if x == nil || x.Source != "twitch" || "twitch."+x.Kind != kind || x.ID == "" || x.CreatedAt.IsZero() || len(x.Payload) == 0 || len(x.RawPayload) == 0 || found[0].Channel != "twitch:streamer" {
			t.Errorf("%s: %+v", kind, x)
		}
	}
}

func TestAnswersAreSent(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{transportHelix, transportIRC, transportAuto} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, write)
			channel := w.channel("streamer")
			w.user("alice")
			w.start("a", transport, []string{channel})
			w.joined(channel)
			question := w.say(channel, "alice", "hello?")
			short := w.answer(question, "/ban everybody\nplease")
			long := w.answer(question, strings.Repeat("words and ", 100)+"end")
			w.reaches(short, delivery.Delivered)
			entry := w.reaches(long, delivery.Delivered)
			lines := w.sent(channel)
			if len(lines) != 4 {
				t.Fatalf("%d messages sent; want 1 and 3", len(lines))
			}
			var ids []string
			for i, l := range lines {
				if l.ReplyTo != question.ID {
					t.Errorf("line %d replies to %q; want the question", i, l.ReplyTo)
				}
				if via := map[bool]string{true: fake.ViaIRC, false: fake.ViaHelix}[transport == transportIRC]; l.Via != via {
					t.Errorf("line %d came via %s; want %s", i, l.Via, via)
				}
				if i > 0 {
					ids = append(ids, l.ID)
				}
			}
			if lines[0].Text != guard+"/ban everybody please" {
				t.Errorf("sent %q", lines[0].Text)
			}
			if entry.Note != strings.Join(ids, " ") {
				t.Errorf("note = %q; want Twitch's ids %q", entry.Note, ids)
			}
			if n := len(w.events("")); n != 1 {
				t.Errorf("%d events; want the question alone", n)
			}
		})
	}
}

func TestRefusalsAreDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, write)
	channel, other := w.channel("streamer"), w.channel("other")
	w.user("alice")
	m := w.start("a", transportIRC, []string{channel, other})
	w.joined(channel, other)
	question := w.say(channel, "alice", "hello?")
	counts := map[deadletter.Reason]int{}
	dead := func(a answered, reason deadletter.Reason, words ...string) {
		t.Helper()
		got := w.reaches(a, delivery.Dead)
		if got.Reason != string(reason) {
			t.Errorf("reason = %s (%s); want %s", got.Reason, got.Message, reason)
		}
		for _, part := range words {
			if !strings.Contains(got.Message, part) {
				t.Errorf("error = %q; want %q in it", got.Message, part)
			}
		}
		counts[reason]++
		if docs, err := w.firestore.Collection("deadletters").Where("reason", "==", string(reason)).Documents(t.Context()).GetAll(); err != nil || len(docs) != counts[reason] {
			t.Errorf("%d dead counts for %s (%v); want %d", len(docs), reason, err, counts[reason])
		}
	}
	w.twitch.FailChat(fake.ChatFault{Notice: "msg_rejected"})
	dead(w.answer(question, "one"), deadletter.PlatformRefused, "msg_rejected")
	w.twitch.FailChat(fake.ChatFault{Notice: "msg_banned", Skip: 1})
	dead(w.answer(question, strings.Repeat("long text ", 60)), deadletter.SenderRefused, "message 2 of 2", "msg_banned")
	w.twitch.FailChat(fake.ChatFault{Notice: "msg_ratelimit"})
	w.reaches(w.answer(question, "too fast at first"), delivery.Delivered)

	m.stop()
	w.start("b", transportHelix, []string{channel, other})
	w.joined(channel, other)
	w.twitch.FailChat(fake.ChatFault{Notice: "user_warned"})
	dead(w.answer(question, "two"), deadletter.SenderRefused, "user_warned")
	w.twitch.FailHTTP(fake.HTTPFault{Path: "/chat/messages", Status: http.StatusForbidden})
	dead(w.answer(w.say(other, "alice", "and you?"), "three"), deadletter.SenderRefused, "status 403")
	if n := len(w.sent(channel)) + len(w.sent(other)); n != 2 {
		t.Errorf("%d messages sent; want the half answer and the one that was too fast", n)
	}
}

func TestAnAnswerOfUnknownOutcomeIsNotSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, write)
	channel := w.channel("streamer")
	w.user("alice")
	for _, transport := range []string{transportIRC, transportHelix} {
		m := w.start("by"+transport, transport, []string{channel}, impatient)
		w.joined(channel)
		question := w.say(channel, "alice", "hello?")
		before := len(w.sent(channel))
		for i, done := range []bool{true, false} {
			w.twitch.FailChat(fake.ChatFault{Done: done})
			fault := fake.HTTPFault{Path: "/chat/messages", Done: done, Hang: i == 0, Drop: i == 1}
			if transport == transportHelix {
				w.twitch.ClearFaults()
				w.twitch.FailHTTP(fault)
			}
			lost := w.answer(question, fmt.Sprint("unknown ", transport, done))
			after := w.answer(question, fmt.Sprint("after it ", transport, done))
			w.reaches(after, delivery.Delivered)
			if got := w.entry(lost).State; got != delivery.Claimed {
				t.Errorf("%s: state = %s; want the claim left to expire", lost.text, got)
			}
		}
		if n := len(w.sent(channel)) - before; n != 3 {
			t.Errorf("%s: %d lines; want the two later answers, and the one sent without a confirmation", transport, n)
		}
		m.stop()
	}
}

// TestADroppedConnectionSendsNothing delays the end of a connection after an unconfirmed answer.
func TestADroppedConnectionSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	w.user("alice")
	reading, release := make(chan struct{}), make(chan struct{})
	w.start("a", transportIRC, []string{channel}, impatient, func(s *Service) {
		s.chat.onJoined = func(string, time.Time, time.Time) {
			select {
			case <-reading: // on the second connection
			default:
				close(reading)
				<-release // the reader sees the connection's end only afterwards
			}
		}
	})
	<-reading
	question := w.say(channel, "alice", "hello?")
	lost := w.answer(question, "never confirmed")
	eventually(t, "it is said", func() bool { return len(w.sent(channel)) == 1 })
	eventually(t, "the connection is given up", func() bool { return w.twitch.Connections(w.bot.Login) == 0 })
	after := w.answer(question, "after it")
	eventually(t, "it is known", func() bool { return w.entry(after).State != "" })
	pause := time.NewTimer(2 * quickTiming.minBackoff)
	<-pause.C // an answer on the old connection would be claimed by then
	if got := w.entry(after).State; got != delivery.Pending {
		t.Errorf("state = %s while there is no connection; want it to wait", got)
	}
	close(release)
	w.reaches(after, delivery.Delivered)
	if got := w.entry(lost).State; got != delivery.Claimed {
		t.Errorf("state = %s; want the claim left to expire", got)
	}
}

func TestAnUnsentAnswerIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, write)
	channel := w.channel("streamer")
	w.user("alice")
	m := w.start("a", transportHelix, []string{channel})
	w.joined(channel)
	question := w.say(channel, "alice", "hello?")
	for _, f := range []fake.HTTPFault{
		{Status: http.StatusTooManyRequests, Times: 2, Header: http.Header{"Ratelimit-Reset": {"1"}}},
		{Status: http.StatusServiceUnavailable, Times: 2},
	} {
		f.Path = "/chat/messages"
		w.twitch.FailHTTP(f)
		w.reaches(w.answer(question, fmt.Sprint("after ", f.Status)), delivery.Delivered)
	}
	w.tokens.revoke()
	w.reaches(w.answer(question, "after 401"), delivery.Delivered)
	if w.tokens.refreshed != 1 {
		t.Errorf("refreshed %d times; want once", w.tokens.refreshed)
	}
	w.twitch.FailHTTP(fake.HTTPFault{Path: "/chat/messages", Status: http.StatusInternalServerError})
	unclear := w.answer(question, "500")
	w.reaches(w.answer(question, "after 500"), delivery.Delivered)
	if got := w.entry(unclear).State; got != delivery.Claimed {
		t.Errorf("after 500 the state is %s; want claimed: the answer may have been sent", got)
	}
	gone := question
	gone.ID = "00000000-0000-4000-8000-000000000000"
	w.reaches(w.answer(gone, "the question was deleted"), delivery.Delivered)
	m.stop()
	if n := len(w.sent(channel)); n != 5 {
		t.Errorf("%d lines; want 5", n)
	}
}

func TestAnAnswerWaitsForTheNextOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	w.user("alice")
	question := w.say(channel, "alice", "is anybody here?")
	var waiting []answered
	for i := range 5 {
		waiting = append(waiting, w.answer(question, fmt.Sprint("answer ", i)))
	}
	w.start("a", transportAuto, []string{channel})
	for _, a := range waiting {
		w.reaches(a, delivery.Delivered)
	}
	for i, l := range w.sent(channel) {
		if l.Text != waiting[i].text {
			t.Errorf("line %d is %q; want the order of the questions", i, l.Text)
		}
	}
}

// TestManyInstances checks all guarantees together while instances start, stop and die: each message is one event, and
// each answer is sent at most once, and exactly once unless its instance was killed during the send. It needs much CPU time,
// and so does not run in parallel.
func TestManyInstances(t *testing.T) {
	for _, transport := range []string{transportHelix, transportIRC} {
		t.Run(transport, func(t *testing.T) {
			w := newWorld(t, write)
			w.lease = quickLease
			var channels []string
			for i := range 4 {
				channels = append(channels, w.channel(fmt.Sprint("channel", i)))
			}
			w.user("alice")
			a := w.start("a", transport, channels)
			w.lease = steadyLease // only a's lease expires, also on a busy machine
			b := w.start("b", transport, channels)
			w.settled(a, b)
			w.joined(channels...)
			var all []answered
			heard := map[string]bool{} // ids of messages sent while an instance reads
			round := func(steady bool) {
				t.Helper()
				for _, channel := range channels {
					if steady {
						w.joined(channel)
					}
					line := w.say(channel, "alice", fmt.Sprint("line ", len(all)))
					if steady {
						heard[line.ID] = true
					}
					all = append(all, w.answer(line, fmt.Sprint("answer ", len(all))))
				}
			}
			round(true)
			c := w.start("c", transport, channels)
			round(false)
			w.settled(a, b, c)
			w.joined(channels...)
			round(true)
			b.stop()
			round(false)
			w.settled(a, c)
			w.joined(channels...)
			round(true)

			// killed during a send
			for range 3 {
				round(false)
			}
			pause := time.NewTimer(rand.N(30 * time.Millisecond))
			<-pause.C
			victim := a
			victim.kill()
			for range 2 {
				round(false)
			}
			w.settled(c)
			w.joined(channels...)
			round(true)

			unknown := 0
			eventually(t, "every answer is settled, or claimed by who died", func() bool {
				unknown = 0
				for _, a := range all {
					switch e := w.entry(a); {
					case e.State == delivery.Claimed && e.Instance == victim.name:
						unknown++
					case e.State != delivery.Delivered:
						return false
					}
				}
				return true
			})
			times := map[string]int{}
			for _, channel := range channels {
				for _, l := range w.sent(channel) {
					times[l.Text]++
				}
			}
			for _, a := range all {
				delivered := w.entry(a).State == delivery.Delivered
				if n := times[a.text]; n > 1 || delivered && n != 1 {
					t.Errorf("%q was sent %d times (delivered: %t)", a.text, n, delivered)
				}
			}
			t.Logf("%d answers, %d of unknown outcome", len(all), unknown)

			eventually(t, "what was heard is published", func() bool {
				seen := map[string]int{}
				for _, e := range w.events(event.TypeChatMessage) {
					seen[e.Message.ID]++
				}
				for id := range heard {
					if seen[id] == 0 {
						return false
					}
				}
				return true
			})
			for _, e := range w.events(event.TypeChatMessage) {
				if e.CorrelationID != "twitch:"+e.Message.ID { // makes one event of a message read by two instances
					t.Errorf("%q was ingested as %s", e.Message.Text, e.CorrelationID)
				}
				if e.UserID == "twitch:"+w.bot.ID {
					t.Errorf("the bot's own message became an event: %q", e.Message.Text)
				}
			}
		})
	}
}

// TestAnOwnerKilledDuringASend kills an instance after Twitch received a message and before the answer.
func TestAnOwnerKilledDuringASend(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{transportHelix, transportIRC} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, write)
			w.lease = quickLease
			channel := w.channel("streamer")
			w.user("alice")
			victim := w.start("victim", transport, []string{channel})
			w.joined(channel)
			question := w.say(channel, "alice", "hello?")
			w.reaches(w.answer(question, "before"), delivery.Delivered)
			w.twitch.FailChat(fake.ChatFault{Done: true})
			w.twitch.FailHTTP(fake.HTTPFault{Path: "/chat/messages", Done: true, Hang: true})
			midst := w.answer(question, "in the midst")
			var behind []answered
			for i := range 3 {
				behind = append(behind, w.answer(question, fmt.Sprint("behind it ", i)))
			}
			eventually(t, "it is said", func() bool { return len(w.sent(channel)) == 2 })
			if got := w.entry(midst); got.State != delivery.Claimed || got.Instance != victim.name {
				t.Fatalf("state = %s of %s; want it claimed before it is sent", got.State, got.Instance)
			}
			victim.kill()
			w.lease = steadyLease // only the victim's lease expires, also on a busy machine
			w.start("heir", transport, []string{channel})
			for _, a := range behind {
				w.reaches(a, delivery.Delivered)
			}
			times := map[string]int{}
			for _, l := range w.sent(channel) {
				times[l.Text]++
			}
			for _, a := range append(behind, midst) {
				if times[a.text] != 1 {
					t.Errorf("%q was sent %d times", a.text, times[a.text])
				}
			}
			if got := w.entry(midst); got.State != delivery.Claimed {
				t.Errorf("state = %s; want the claim left to expire", got.State)
			}
		})
	}
}

// TestAHandoverMissesNothing sends messages all the time while instances start and stop. It needs much CPU time, and so
// does not run in parallel.
func TestAHandoverMissesNothing(t *testing.T) {
	w := newWorld(t, nil)
	var channels []string
	for i := range 16 { // enough for a share of each instance
		channels = append(channels, w.channel(fmt.Sprint("channel", i)))
	}
	w.user("alice")
	// long durations: on a slow machine a handover takes long, and connections are silent
	patient := func(s *Service) {
		s.timing.linger, s.timing.flush, s.timing.ping = 3*time.Second, 6*time.Second, time.Minute
	}
	a := w.start("a", transportIRC, channels, patient)
	w.joined(channels...)
	talking, quiet := context.WithCancel(t.Context())
	defer quiet()
	said := make(chan []string)
	go func() { // ends with talking
		var ids []string
		const ahead = 100 // lines: the instances keep this pace on a machine of any speed
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				if i%ahead == 0 && len(ids)-len(w.events(event.TypeChatMessage)) > ahead {
					i--
					continue
				}
				if line, err := w.twitch.Say(channels[i%len(channels)], "alice", fmt.Sprint("line ", i)); err == nil {
					ids = append(ids, line.ID)
				}
			case <-talking.Done():
				said <- ids
				return
			}
		}
	}()
	b := w.start("b", transportIRC, channels, patient)
	eventually(t, "b has a channel", func() bool {
		return slices.ContainsFunc(channels, func(r string) bool { return owner(r, b) != nil })
	})
	w.joined(channels...)
	a.stop()
	eventually(t, "b has all", func() bool {
		return !slices.ContainsFunc(channels, func(r string) bool { return owner(r, b) == nil })
	})
	w.joined(channels...)
	quiet()
	ids := <-said
	eventually(t, "every line is published", func() bool {
		seen := map[string]bool{}
		for _, e := range w.events(event.TypeChatMessage) {
			seen[e.Message.ID] = true
		}
		return !slices.ContainsFunc(ids, func(id string) bool { return !seen[id] })
	})
}

func TestLinesThatWaitUnreadAtTheEndArePublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	w.user("alice")
	slow := &slowPublisher{turn: make(chan struct{})}
	a := w.start("a", transportIRC, []string{channel}, func(s *Service) {
		slow.Publisher, s.publisher = s.publisher, slow
		s.timing.linger, s.timing.flush = time.Millisecond, gatewaytest.Patience
	})
	w.joined(channel)
	want := map[string]bool{}
	for i := range 4 * queueSize {
		want[w.say(channel, "alice", fmt.Sprint("line ", i)).ID] = true
	}
	stopped := make(chan struct{})
	go func() { // ends with a
		defer close(stopped)
		a.stop()
	}()
	eventually(t, "a has released the channel", func() bool { return owner(channel, a) == nil })
	for turning := true; turning; {
		select {
		case slow.turn <- struct{}{}:
		case <-stopped:
			turning = false
		}
	}
	for _, e := range w.events(event.TypeChatMessage) {
		delete(want, e.Message.ID)
	}
	if len(want) != 0 {
		t.Errorf("%d of %d lines are not published", len(want), 4*queueSize)
	}
}

// slowPublisher publishes one event at each turn.
type slowPublisher struct {
	Publisher
	turn chan struct{}
}

func (p *slowPublisher) Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error {
	select {
	case <-p.turn:
		return p.Publisher.Publish(ctx, t, out)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestLostConnectionsAreReplacedAndGapsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel, other := w.channel("streamer"), w.channel("other")
	w.user("alice")
	w.start("a", transportIRC, []string{channel, other})
	w.joined(channel, other)
	var latest time.Time // beginning of a gap
	gaps := func() int {
		docs, err := w.firestore.Collection("gaps").Documents(t.Context()).GetAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if from := d.Data()["from"].(time.Time); from.After(latest) {
				latest = from
			}
		}
		return len(docs)
	}
	if n := gaps(); n != 0 {
		t.Errorf("%d gaps at first; want none", n)
	}
	for i, breakIt := range []func(){
		func() { w.twitch.DropIRC(w.bot.Login) },
		func() { w.twitch.ReconnectIRC(w.bot.Login) },
		func() { w.twitch.DelayIRC(w.bot.Login, time.Hour) }, // silent
		func() { w.tokens.revoke(); w.twitch.DropIRC(w.bot.Login) },
	} {
		broken := time.Now()
		breakIt()
		eventually(t, fmt.Sprintf("two gaps more after break %d", i), func() bool { return gaps() == 2*(i+1) })
		// also for a loss that was noticed late
		if late := latest.Sub(broken); late > quickTiming.ping/2 {
			t.Errorf("after break %d the gaps begin %s late", i, late)
		}
		w.joined(channel, other)
		line := w.say(channel, "alice", fmt.Sprint("after break ", i))
		eventually(t, "the line is published", func() bool {
			return slices.ContainsFunc(w.events(""), func(e *event.Event) bool { return e.Message.ID == line.ID })
		})
		w.reaches(w.answer(line, fmt.Sprint("answer ", i)), delivery.Delivered)
	}
	if w.tokens.refreshed != 1 {
		t.Errorf("the token was refreshed %d times; want once", w.tokens.refreshed)
	}
}

// TestAGapIsStoredThoughItsOwnerDies kills owners before they store a gap.
func TestAGapIsStoredThoughItsOwnerDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.lease = quickLease
	channel := w.channel("streamer")
	deaf := new(atomic.Bool)
	start := func(name string) *member {
		return w.start(name, transportIRC, []string{channel}, func(s *Service) {
			dial := s.chat.dial
			s.chat.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if deaf.Load() {
					return nil, errors.New("the network is cut")
				}
				return dial(ctx, network, addr)
			}
		})
	}
	hears := func(what string, from time.Time) {
		t.Helper()
		eventually(t, "a gap is stored: "+what, func() bool {
			docs, err := w.firestore.Collection("gaps").Where("missed", "==", gap.Chat).Documents(t.Context()).GetAll()
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(docs, func(d *firestore.DocumentSnapshot) bool {
				var g gap.Gap
				if err := d.DataTo(&g); err != nil {
					t.Fatal(err)
				}
				return g.From.Before(from) && g.To.After(from)
			})
		})
	}

	a := start("a")
	w.joined(channel)
	deaf.Store(true)
	b := start("b")
	a.kill()
	died := time.Now()
	eventually(t, "b has the channel", func() bool { return owner(channel, b) != nil })
	b.kill()
	c := start("c")
	eventually(t, "c has the channel", func() bool { return owner(channel, c) != nil })
	deaf.Store(false)
	w.joined(channel)
	hears("b died before it was in the channel", died)

	deaf.Store(true)
	w.twitch.DropIRC(w.bot.Login)
	broken := time.Now()
	eventually(t, "the lease has the beginning of the gap", func() bool {
		doc, err := w.firestore.Doc("leases/twitch:" + channel).Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		vacant, _ := doc.Data()["vacant"].(map[string]any)
		return vacant[gap.Chat] != nil
	})
	c.kill()
	d := start("d")
	eventually(t, "d has the channel", func() bool { return owner(channel, d) != nil })
	deaf.Store(false)
	w.joined(channel)
	hears("c died after its connection broke", broken)
	eventually(t, "nothing is vacant any more", func() bool {
		doc, err := w.firestore.Doc("leases/twitch:" + channel).Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		vacant, _ := doc.Data()["vacant"].(map[string]any)
		return vacant[gap.Chat] == nil
	})
}

func TestLimitsAreKept(t *testing.T) {
	t.Parallel()
	real := fake.Limits{
		Joins:    fake.Window{N: 3, Per: 200 * time.Millisecond},
		Messages: fake.Window{N: 4, Per: 100 * time.Millisecond}, ModeratorMessages: fake.Window{N: 8, Per: 100 * time.Millisecond},
		ChannelMessages: fake.Window{N: 1, Per: 20 * time.Millisecond},
	}
	for _, moderator := range []bool{false, true} {
		t.Run(fmt.Sprint("moderator ", moderator), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, write, fake.WithLimits(real))
			var channels []string
			for i := range 5 {
				channels = append(channels, w.channel(fmt.Sprint("channel", i)))
				if err := w.twitch.SetRole(channels[i], w.bot.Login, fake.Role{Moderator: moderator}); err != nil {
					t.Fatal(err)
				}
			}
			w.user("alice")
			m := w.start("a", transportIRC, channels, func(s *Service) {
				s.timing.join = 5 * time.Second    // a refused JOIN would be repeated too late
				s.timing.ping = defaultTiming.ping // a busy machine may be silent for long
				// on a busy machine, a message may arrive almost two seconds late
				s.limits = limits{joins: 3, joinWindow: 2 * time.Second, messages: 4, moderatorMessages: 8, messageWindow: 2 * time.Second, spacing: 1500 * time.Millisecond}
			})
			w.joined(channels...)
			var all []answered
			for i := range 9 {
				line := w.say(channels[i%3], "alice", fmt.Sprint("q", i))
				all = append(all, w.answer(line, fmt.Sprint("a", i)))
			}
			for _, a := range all {
				w.reaches(a, delivery.Delivered)
			}
			if n := counter(m.metrics.answers.WithLabelValues("released")); n != 0 {
				t.Errorf("Twitch found %v messages too fast; want none", n)
			}
		})
	}
}

func TestAChannelIsNotLeftHalfJoined(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, fake.WithLimits(fake.Limits{Joins: fake.Window{N: 1, Per: 300 * time.Millisecond}}))
	channels := []string{w.channel("one"), w.channel("two"), w.channel("three")}
	m := w.start("a", transportIRC, channels) // without a limit of its own
	w.joined(channels...)
	if n := counter(m.metrics.rejoins); n == 0 {
		t.Error("no JOIN was sent again, although Twitch did not answer some")
	}
}

func TestOverdueAnswersEndWithTheLastReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, write)
	channel := w.channel("streamer")
	w.user("alice")
	w.start("a", transportHelix, []string{channel})
	w.joined(channel)
	question := w.say(channel, "alice", "hello?")
	w.twitch.FailHTTP(fake.HTTPFault{Path: "/chat/messages", Status: http.StatusServiceUnavailable, Times: 1000})
	w.sender = delivery.NewSender(w.ledger, discard{}, delivery.Config{Deadline: 4 * time.Second, Retention: time.Hour}, time.Now) // long enough for at least one attempt
	if got := w.reaches(w.answer(question, "never"), delivery.Dead); got.Reason != string(deadletter.PlatformUnavailable) {
		t.Errorf("reason = %s; want %s", got.Reason, deadletter.PlatformUnavailable)
	}
}

func TestUserStateWithoutNonceIsTheAnswer(t *testing.T) {
	for _, test := range []struct {
		name, nonce string
		want        bool
	}{{"none", "", true}, {"ours", "n1", true}, {"another's", "n2", false}} {
		waits := &pendingMessage{nonce: "n1", result: make(chan delivery.Outcome, 1)}
		c := &chat{channels: map[string]*channel{"x": {login: "x", joined: true, pending: waits, changed: make(chan struct{})}}}
		tags := "@mod=1;id=abc"
		if test.nonce != "" {
			tags += ";client-nonce=" + test.nonce
		}
		c.userState(parsed(t, tags+" :tmi.twitch.tv USERSTATE #x").(*irc.UserStateMessage))
		select {
		case o := <-waits.result:
			if !test.want || o.Kind != delivery.Sent || o.Note != "abc" {
				t.Errorf("%s: %+v", test.name, o)
			}
		default:
			if test.want {
				t.Errorf("%s: no answer", test.name)
			}
		}
	}
}

func TestCopiesOfASharedChatAreNoEvents(t *testing.T) {
	t.Parallel()
	line := func(channel, source string) irc.Message {
		return parsed(t, "@id=1;room-id="+channel+";source-room-id="+source+";user-id=7 :a!a@a.tmi.twitch.tv PRIVMSG #x :hi")
	}
	w := newWorld(t, nil)
	m := w.start("a", transportIRC, []string{w.channel("x")})
	if toEvent(line("5", "6"), m.chat.self()) != nil {
		t.Error("a message that came from another channel is an event there, too")
	}
	if toEvent(line("5", "5"), m.chat.self()) == nil {
		t.Error("a message of the channel itself is none")
	}
}

func TestConfig(t *testing.T) {
	c, err := config.Load[Config](nil)
	if err != nil || c.Enabled() || c.IRCAddr != "irc.chat.twitch.tv:6697" || !c.IRCTLS {
		t.Errorf("by default %+v (%v); want it off, and TLS", c, err)
	}
	on := []string{"TWITCH_CHANNELS=one,#Two"}
	if c, err := config.Load[Config](on); err != nil || !c.Enabled() {
		t.Errorf("%+v (%v); want it on", c, err)
	}
	for _, wrong := range []string{
		"TWITCH_CHANNELS=not a name", "TWITCH_SPEAK=loudly",
		"TWITCH_IRC_ADDR=nowhere", "TWITCH_IRC_TLS=false", "TWITCH_ANSWER_TIMEOUT=1h",
	} {
		if _, err := config.Load[Config](append(slices.Clone(on), wrong)); err == nil || !strings.Contains(err.Error(), strings.Split(wrong, "=")[0]) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
