package twitch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	fake "parley.internal/emulator/twitch"
	"parley.internal/gateway/gap"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/recipient"
)

var mayWhisper = []string{"user:manage:whispers"}

// hearingWhispers waits for the subscription to the bot's whispers.
func (w *world) hearingWhispers() {
	w.t.Helper()
	eventually(w.t, "whispers are heard", func() bool {
		return slices.ContainsFunc(w.twitch.Subscriptions(), func(s fake.Subscription) bool {
			return s.Type == "user.whisper.message" && s.Status == "enabled" && s.Condition["user_id"] == w.bot.ID
		})
	})
}

func (w *world) whisper(from, text string) fake.Whisper {
	w.t.Helper()
	m, err := w.twitch.Whisper(from, w.bot.Login, text)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// messages returns the texts of all published messages, with repetitions.
func (w *world) messages() []string {
	var texts []string
	for _, e := range w.events(event.TypeChatMessage) {
		texts = append(texts, e.Message.Text)
	}
	return texts
}

// wroteAt returns the stored time of a user's whisper to the bot.
func (w *world) wroteAt(u fake.User) time.Time {
	w.t.Helper()
	bot, _ := identity.New(identity.Twitch, w.bot.ID)
	id, _ := identity.New(identity.Twitch, u.ID)
	var r recipient.Recipient
	snap, err := recipient.Document(w.firestore, bot, id).Get(w.t.Context())
	if err == nil {
		err = snap.DataTo(&r)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return r.WroteAt
}

func TestAWhisperIsAMessageWithoutAChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mayWhisper)
	channel := w.channel("streamer")
	alice := w.user("alice")
	began := time.Now().Add(-time.Second)
	w.start("a", transportAuto, []string{channel})
	w.hearingWhispers()

	m := w.whisper("alice", "hello; there")
	if n := w.twitch.RepeatEvent(); n != 1 {
		t.Errorf("%d notifications were repeated", n)
	}
	if _, err := w.twitch.Whisper(w.bot.Login, "alice", "hello yourself"); err != nil { // no event
		t.Fatal(err)
	}
	w.whisper("alice", " ") // no event
	w.whisper("alice", "more")
	eventually(t, "both are published", func() bool { return slices.Contains(w.messages(), "more") })
	if got := w.messages(); !slices.Equal(got, []string{"hello; there", "more"}) {
		t.Fatalf("published %q; want each once, and in order", got)
	}

	e := w.events(event.TypeChatMessage)[0]
	if e.Source != sourceChat || e.CorrelationID != "twitch:"+m.ID || e.Channel != "" || e.UserID != "twitch:"+alice.ID || e.TraceID == "" ||
		e.Message.ID != m.ID || e.Message.Role != event.RoleUser || e.Auth.Provider != "twitch" ||
		e.Egress.Destination != "twitch" || e.Egress.Type != event.EgressDM {
		t.Errorf("event = %+v, message %+v, egress %+v", e, e.Message, e.Egress)
	}
	var raw map[string]any
	if err := json.Unmarshal(e.Message.RawPlatformPayload, &raw); err != nil {
		t.Fatal(err)
	}
	if raw["userId"] != alice.ID || raw["username"] != "alice" || raw["displayName"] != "Alice" || raw["messageId"] != m.ID || raw["isWhisper"] != true {
		t.Errorf("raw = %v", raw)
	}
	for _, role := range []string{"isMod", "isSubscriber", "badges"} {
		if _, ok := raw[role]; ok {
			t.Errorf("raw = %v; want no roles: they would remove the roles of the user", raw)
		}
	}
	if at := w.wroteAt(alice); at.Before(began) {
		t.Errorf("she wrote at %s", at)
	}
}

func TestWhispersContinueAfterMovesAndBreaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mayWhisper)
	channel := w.channel("streamer")
	w.user("alice")
	w.start("a", transportAuto, []string{channel})
	w.hearingWhispers()
	w.whisper("alice", "one")
	w.twitch.ReconnectEventSub()
	w.whisper("alice", "two")
	eventually(t, "the old connection is left", func() bool { return len(w.messages()) == 2 && w.twitch.Sessions() == 1 })

	dropped := time.Now()
	w.twitch.DropEventSub()
	var g gap.Gap
	eventually(t, "the gap is stored", func() bool {
		docs, err := w.firestore.Collection("gaps").Where("missed", "==", gap.Whispers).Documents(t.Context()).GetAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range docs {
			if err := doc.DataTo(&g); err != nil {
				t.Fatal(err)
			}
			if g.To.After(dropped) {
				return true
			}
		}
		return false
	})
	if g.Channel != "twitch:"+w.bot.ID {
		t.Errorf("the gap is %+v; want one of the bot", g)
	}
	w.whisper("alice", "three")
	eventually(t, "it is published after a break", func() bool { return slices.Contains(w.messages(), "three") })
	if got := w.messages(); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("published %q; want each once, and in order", got)
	}
}

func TestOneInstanceReceivesWhispers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mayWhisper)
	w.lease = quickLease
	channel, other := w.channel("streamer"), w.channel("other")
	w.user("alice")
	a := w.start("a", transportAuto, []string{channel, other})
	w.lease = steadyLease // only a's lease expires, also on a busy machine
	b := w.start("b", transportAuto, []string{channel, other})
	w.settled(a, b)
	// during a handover no instance receives whispers
	sent := 0
	isHeard := func(what string) {
		t.Helper()
		var last time.Time
		eventually(t, what+" is heard", func() bool {
			if time.Since(last) > 300*time.Millisecond {
				sent, last = sent+1, time.Now()
				w.whisper("alice", fmt.Sprint(what, " ", sent))
			}
			return slices.ContainsFunc(w.messages(), func(text string) bool { return strings.HasPrefix(text, what) })
		})
	}
	isHeard("with both")
	a.kill()
	isHeard("by the one that is left")
	w.start("c", transportAuto, []string{channel, other})
	b.stop()
	isHeard("by the next")
	for i, text := range w.messages() {
		if slices.Contains(w.messages()[:i], text) {
			t.Errorf("%q was published twice", text)
		}
	}
}

func TestAMissingWhisperScopeStopsOnlyWhispers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	w.user("alice")
	w.start("a", transportAuto, []string{channel})
	w.listening(channel, "stream.offline", "stream.online")
	for _, s := range w.twitch.Subscriptions() {
		if s.Type == "user.whisper.message" {
			t.Errorf("subscribed to %+v", s)
		}
	}
	w.do(w.twitch.GoOnline(channel, fake.Stream{}))
	eventually(t, "the stream is published", func() bool { return len(w.events(typeStreamOnline)) == 1 })
}

func TestAWhisperIsPublishedWithoutARecordOfItsWriter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mayWhisper)
	channel := w.channel("streamer")
	w.user("alice")
	network := gatewaytest.NewNetwork()
	client := network.Store(w.World)
	network.Lose(true)
	w.start("a", transportAuto, []string{channel}, func(s *Service) { s.book = recipient.NewBook(client, s.bot, s.now) })
	w.hearingWhispers()
	w.whisper("alice", "hello")
	eventually(t, "it is published", func() bool { return slices.Contains(w.messages(), "hello") })
}

func TestSomeWhispersAreNoMessages(t *testing.T) {
	bot := botAccount("9")
	told := func(s string) *event.Event {
		return notificationEvent(eventsub.Notification{ID: "n", At: time.Now(), Topic: whisperTopic, Event: []byte(s)}, bot)
	}
	for name, s := range map[string]string{
		"not an object":  `[]`,
		"nobody":         `{"whisper_id":"w","whisper":{"text":"x"}}`,
		"a bad id":       `{"whisper_id":"w","from_user_id":"a/b","whisper":{"text":"x"}}`,
		"no id":          `{"from_user_id":"1","whisper":{"text":"x"}}`,
		"no whisper":     `{"whisper_id":"w","from_user_id":"1"}`,
		"no text":        `{"whisper_id":"w","from_user_id":"1","whisper":{"text":" \n"}}`,
		"another form":   `{"whisper_id":"w","from_user_id":"1","whisper":"x"}`,
		"the bot's own":  `{"whisper_id":"w","from_user_id":"9","whisper":{"text":"x"}}`,
		"a number as id": `{"whisper_id":"w","from_user_id":1,"whisper":{"text":"x"}}`,
	} {
		if e := told(s); e != nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
	long := strings.Repeat("ä", 10_000)
	e := told(`{"whisper_id":"w","from_user_id":"1","whisper":{"text":"` + long + `"}}`)
	if e == nil || e.Message.Text != long || e.CorrelationID != "twitch:w" {
		t.Fatalf("a whisper of 10,000 characters is %+v; want an event with the id of the whisper, not of the notification", e)
	}
	if _, err := event.Encode(e); err != nil {
		t.Errorf("it can't be published: %v", err)
	}
}
