package twitch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	fake "parley.internal/emulator/twitch"
	"parley.internal/gateway/gap"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/bus"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// broadcasterScopes are the scopes for all topics of a channel.
var broadcasterScopes = []string{"moderator:read:followers", "channel:read:subscriptions"}

// listening waits until a channel has exactly these enabled subscriptions.
func (w *world) listening(login string, kinds ...string) {
	w.t.Helper()
	slices.Sort(kinds)
	u, _ := w.twitch.User(login)
	eventually(w.t, fmt.Sprint(login, " is listened to for ", kinds), func() bool {
		var have []string
		for _, s := range w.twitch.Subscriptions() {
			if s.Status == "enabled" && (s.Condition["broadcaster_user_id"] == u.ID || s.Condition["to_broadcaster_user_id"] == u.ID) {
				have = append(have, s.Type)
			}
		}
		slices.Sort(have)
		return slices.Equal(have, kinds)
	})
}

var allKinds = []string{"channel.follow", "channel.raid", "channel.subscribe", "stream.offline", "stream.online"}

func (w *world) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestNotificationsBecomeEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	channel := w.channel("streamer")
	w.logIn(channel, broadcasterScopes...)
	alice, raider := w.user("alice"), w.user("raider")
	broadcaster, _ := w.twitch.User(channel)
	w.start("a", transportAuto, []string{channel})
	w.joined(channel)
	w.listening(channel, allKinds...)

	w.do(w.twitch.Follow(channel, "alice"))
	w.do(w.twitch.Subscribe(channel, "alice", 1))
	w.do(w.twitch.Raid("raider", channel, 42))
	w.do(w.twitch.GoOnline(channel, fake.Stream{ID: "77"}))
	w.do(w.twitch.GoOffline(channel))
	if n := w.twitch.RepeatEvent(); n != len(allKinds) {
		t.Errorf("%d notifications were repeated", n)
	}
	w.do(w.twitch.Subscribe(channel, "alice", 2)) // only the chat reports a renewal
	for _, want := range []struct {
		kind, user, name, payload string
	}{
		{typeFollow, alice.ID, "Alice", ""},
		{typeSubscribed, alice.ID, "Alice", `"tier":"1000"`},
		{typeRaid, raider.ID, "Raider", `"viewers":42`},
		{typeStreamOnline, broadcaster.ID, "streamer", `"streamId":"77"`},
		{typeStreamOffline, broadcaster.ID, "streamer", ""},
		{"twitch.resub", alice.ID, "Alice", ""},
	} {
		eventually(t, want.kind+" is published", func() bool { return len(w.events(want.kind)) > 0 })
		e := w.events(want.kind)[0]
		x := e.ExternalEvent
		var payload struct {
			UserID      string `json:"userId"`
			DisplayName string `json:"displayName"`
			RoomID      string `json:"roomId"`
		}
		if err := json.Unmarshal(x.Payload, &payload); err != nil {
			t.Fatal(err)
		}
		if e.UserID != "twitch:"+want.user || payload.UserID != want.user || payload.DisplayName != want.name || payload.RoomID != broadcaster.ID {
			t.Errorf("%s is of %s, payload %+v", want.kind, e.UserID, payload)
		}
		if e.Channel != "twitch:streamer" || identity.PlatformOf(e.Source) != identity.Twitch || e.TraceID == "" || !strings.HasPrefix(e.CorrelationID, "twitch:") ||
			e.Egress.Destination != "twitch" || e.Egress.Type != event.EgressChat {
			t.Errorf("%s = %+v", want.kind, e)
		}
		if "twitch."+x.Kind != want.kind || x.ID == "" || x.Version == "" || x.CreatedAt.IsZero() || len(x.RawPayload) == 0 || !strings.Contains(string(x.Payload), want.payload) {
			t.Errorf("%s: %+v", want.kind, x)
		}
	}
	// the renewal came last: all repetitions before it are handled
	for _, kind := range []string{typeFollow, typeSubscribed, typeRaid, typeStreamOnline, typeStreamOffline} {
		if n := len(w.events(kind)); n != 1 {
			t.Errorf("%d events %s; want 1", n, kind)
		}
	}
}

func TestTheBotSubscribesWithoutABroadcastersLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"moderator:read:followers"})
	own, other := w.channel("own"), w.channel("other")
	w.logIn(own, broadcasterScopes...)
	w.user("alice")
	a := w.start("a", transportAuto, []string{own, other})
	b := w.start("b", transportAuto, []string{own, other})
	w.settled(a, b)
	w.joined(own, other)
	w.listening(own, allKinds...)
	w.listening(other, "channel.follow", "stream.offline", "stream.online")
	w.do(w.twitch.Raid("alice", other, 3))
	w.do(w.twitch.Follow(other, "alice"))
	eventually(t, "the raid is published", func() bool { return len(w.events(typeRaid)) == 1 })
	eventually(t, "the follower is published", func() bool { return len(w.events(typeFollow)) == 1 })

	w.logIn(other, broadcasterScopes...)
	w.listening(other, allKinds...)
	w.do(w.twitch.GoOnline(other, fake.Stream{}))
	eventually(t, "the stream is published", func() bool { return len(w.events(typeStreamOnline)) == 1 })
}

func TestTheNextOwnerSubscribes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.lease = quickLease
	channel := w.channel("streamer")
	w.logIn(channel, broadcasterScopes...)
	w.user("alice")
	held := &held{asked: make(chan struct{}, 1), let: make(chan struct{})}
	first := w.start("first", transportAuto, []string{channel}, func(s *Service) { held.Publisher, s.publisher = s.publisher, held })
	w.listening(channel, allKinds...)
	w.do(w.twitch.GoOnline(channel, fake.Stream{}))
	<-held.asked
	time.AfterFunc(50*time.Millisecond, func() { close(held.let) }) // during the end of first
	first.stop()
	if n := len(w.events(typeStreamOnline)); n != 1 {
		t.Errorf("%d streams were published before it ended", n)
	}
	eventually(t, "it is disconnected", func() bool { return w.twitch.Sessions() == 0 })

	second := w.start("second", transportAuto, []string{channel})
	w.listening(channel, allKinds...)
	w.do(w.twitch.GoOffline(channel))
	eventually(t, "the end of the stream is published", func() bool { return len(w.events(typeStreamOffline)) == 1 })
	w.lease = steadyLease // only second's lease expires, also on a busy machine
	third := w.start("third", transportAuto, []string{channel})
	second.kill()
	eventually(t, "the third has the channel", func() bool { return owner(channel, third) != nil })
	w.listening(channel, allKinds...)
	w.do(w.twitch.Follow(channel, "alice"))
	eventually(t, "the follower is published", func() bool { return len(w.events(typeFollow)) == 1 })

	eventually(t, "a gap is stored for each takeover", func() bool {
		docs, err := w.firestore.Collection("gaps").Where("missed", "==", gap.Events).Documents(t.Context()).GetAll()
		w.do(err)
		return len(docs) >= 2
	})
}

// held is a slow publisher.
type held struct {
	Publisher
	asked, let chan struct{}
}

func (h *held) Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error {
	select {
	case h.asked <- struct{}{}:
	default:
	}
	<-h.let
	return h.Publisher.Publish(ctx, t, out)
}

func TestTwoReportsOfOneEventAreOneEvent(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	told := func(kind, source, user string, after time.Duration) *event.Event {
		return &event.Event{Type: kind, Source: source, Channel: "twitch:x", UserID: user, ExternalEvent: &event.ExternalEvent{CreatedAt: noon.Add(after)}}
	}
	for _, test := range []struct {
		name string
		told []*event.Event
		want int
	}{
		{"a raid by both", []*event.Event{told(typeRaid, sourceChat, "u", 0), told(typeRaid, sourceEventSub, "u", time.Second)}, 1},
		{"EventSub first", []*event.Event{told(typeRaid, sourceEventSub, "u", time.Second), told(typeRaid, sourceChat, "u", 0)}, 1},
		{"two raids by both", []*event.Event{
			told(typeRaid, sourceChat, "u", 0), told(typeRaid, sourceEventSub, "u", time.Second),
			told(typeRaid, sourceEventSub, "u", time.Minute), told(typeRaid, sourceChat, "u", time.Minute),
		}, 2},
		{"by one alone, again and again", []*event.Event{told(typeRaid, sourceChat, "u", 0), told(typeRaid, sourceChat, "u", time.Second)}, 2},
		{"different raiders", []*event.Event{told(typeRaid, sourceChat, "u", 0), told(typeRaid, sourceEventSub, "v", 0)}, 2},
		{"far apart", []*event.Event{told(typeRaid, sourceChat, "u", 0), told(typeRaid, sourceEventSub, "u", duplicateTime)}, 2},
		{"what only one tells", []*event.Event{told(typeFollow, sourceEventSub, "u", 0), told(typeFollow, sourceChat, "u", 0)}, 2},
	} {
		twins, n := newDuplicates(), 0
		for _, e := range test.told {
			if !twins.seen(e) {
				n++
			}
		}
		if n != test.want {
			t.Errorf("%s: %d events; want %d", test.name, n, test.want)
		}
	}
}

func TestSomeNotificationsAreNoEvents(t *testing.T) {
	bot := botAccount("9")
	for _, test := range []struct {
		name, told string
		kind       *eventsub.Kind
	}{
		{"not an object", `[]`, eventsub.Follow},
		{"nobody", `{}`, eventsub.Follow},
		{"a bad id", `{"user_id":"a/b"}`, eventsub.Follow},
		{"a gift", `{"user_id":"1","is_gift":true}`, eventsub.Subscribe},
		{"the bot's own", `{"user_id":"9"}`, eventsub.Follow},
	} {
		n := eventsub.Notification{ID: "1", At: time.Now(), Topic: eventsub.Topic{Kind: test.kind, Channel: "x", Broadcaster: "5"}, Event: []byte(test.told)}
		if e := notificationEvent(n, bot); e != nil {
			t.Errorf("%s: %+v", test.name, e)
		}
	}
}

func TestTwoNotificationsOfAFollowerAreOneEvent(t *testing.T) {
	follow := func(message string) *event.Event {
		return notificationEvent(eventsub.Notification{
			ID: message, At: time.Now(), Topic: eventsub.Topic{Kind: eventsub.Follow, Channel: "x", Broadcaster: "5"},
			Event: []byte(`{"user_id":"1","followed_at":"2026-05-01T12:00:00.5Z"}`),
		}, account{})
	}
	if a, b := follow("m1"), follow("m2"); a.CorrelationID != b.CorrelationID {
		t.Errorf("two notifications make %s and %s of one follower", a.CorrelationID, b.CorrelationID)
	}
}
