package twitch_test

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nicklaw5/helix/v2"

	"parley.internal/emulator/twitch"
)

// listener is a connection to EventSub.
type listener struct {
	t       *testing.T
	conn    *websocket.Conn
	session string
	welcome frame
	silent  atomic.Bool // does not answer pings
}

// frame is a message of EventSub.
type frame struct {
	Metadata struct {
		MessageID           string `json:"message_id"`
		MessageType         string `json:"message_type"`
		MessageTimestamp    string `json:"message_timestamp"`
		SubscriptionType    string `json:"subscription_type"`
		SubscriptionVersion string `json:"subscription_version"`
	} `json:"metadata"`
	Payload struct {
		Session struct {
			ID                      string  `json:"id"`
			Status                  string  `json:"status"`
			KeepaliveTimeoutSeconds int     `json:"keepalive_timeout_seconds"`
			ReconnectURL            *string `json:"reconnect_url"`
		} `json:"session"`
		Subscription twitch.Subscription `json:"subscription"`
		Event        json.RawMessage     `json:"event"`
	} `json:"payload"`
}

// listen connects to EventSub at a URL and reads the welcome message.
func (w *world) listen(t *testing.T, at string) *listener {
	t.Helper()
	if at == "" {
		at = w.EventSubURL()
	}
	l := &listener{t: t}
	var err error
	l.conn, _, err = websocket.Dial(t.Context(), at, &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { return !l.silent.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.CloseNow() })
	l.welcome = l.next()
	l.session = l.welcome.Payload.Session.ID
	if m := l.welcome; m.Metadata.MessageType != "session_welcome" || m.Payload.Session.Status != "connected" || l.session == "" {
		t.Fatalf("welcomed with %+v", m)
	}
	return l
}

func (l *listener) read() (frame, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	_, b, err := l.conn.Read(ctx)
	if err != nil {
		return frame{}, err
	}
	var f frame
	return f, json.Unmarshal(b, &f)
}

func (l *listener) next() frame {
	l.t.Helper()
	f, err := l.read()
	if err != nil {
		l.t.Fatal(err)
	}
	return f
}

// closed waits for the end of the connection and returns its close code.
func (l *listener) closed() int {
	for {
		if _, err := l.read(); err != nil {
			return int(websocket.CloseStatus(err))
		}
	}
}

// subscribe makes a subscription with the user's token.
func (w *world) subscribe(l *listener, login, kind, version string, c helix.EventSubCondition) *helix.EventSubSubscriptionsResponse {
	w.t.Helper()
	r, err := w.helix(login).CreateEventSubSubscription(&helix.EventSubSubscription{
		Type: kind, Version: version, Condition: c,
		Transport: helix.EventSubTransport{Method: "websocket", SessionID: l.session},
	})
	w.must(err)
	return r
}

func TestEventSubSendsNotifications(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetRole("streamer", "bot", twitch.Role{Moderator: true}))
	for _, c := range []struct {
		login, kind, version string
		condition            helix.EventSubCondition
		act                  func() error
		read                 func(json.RawMessage) (who, what string)
		who, what            string
	}{
		{
			"bot", helix.EventSubTypeChannelFollow, "2",
			helix.EventSubCondition{BroadcasterUserID: w.channel.ID, ModeratorUserID: w.bot.ID},
			func() error { return w.Follow("streamer", "viewer") },
			event(func(e helix.EventSubChannelFollowEvent) (string, string) { return e.UserLogin, e.BroadcasterUserLogin }),
			"viewer", "streamer",
		}, {
			"streamer", helix.EventSubTypeChannelSubscription, "1",
			helix.EventSubCondition{BroadcasterUserID: w.channel.ID},
			func() error { return w.Subscribe("streamer", "viewer", 1) },
			event(func(e helix.EventSubChannelSubscribeEvent) (string, string) { return e.UserID, e.Tier }),
			w.viewer.ID, "1000",
		}, {
			"bot", helix.EventSubTypeChannelRaid, "1",
			helix.EventSubCondition{ToBroadcasterUserID: w.channel.ID},
			func() error { return w.Raid("viewer", "streamer", 7) },
			event(func(e helix.EventSubChannelRaidEvent) (string, string) {
				return e.FromBroadcasterUserName, string(rune('0' + e.Viewers))
			}),
			"Viewer", "7",
		}, {
			"bot", helix.EventSubTypeStreamOnline, "1",
			helix.EventSubCondition{BroadcasterUserID: w.channel.ID},
			func() error { return w.GoOnline("streamer", twitch.Stream{ID: "77"}) },
			event(func(e helix.EventSubStreamOnlineEvent) (string, string) { return e.BroadcasterUserID, e.ID }),
			w.channel.ID, "77",
		}, {
			"bot", helix.EventSubTypeStreamOffline, "1",
			helix.EventSubCondition{BroadcasterUserID: w.channel.ID},
			func() error { return w.GoOffline("streamer") },
			event(func(e helix.EventSubStreamOfflineEvent) (string, string) {
				return e.BroadcasterUserID, e.BroadcasterUserName
			}),
			w.channel.ID, "Streamer",
		}, {
			"bot", "channel.chat.message", "1",
			helix.EventSubCondition{BroadcasterUserID: w.channel.ID, UserID: w.bot.ID},
			func() error { _, err := w.Say("streamer", "viewer", "hi"); return err },
			event(func(e chatEvent) (string, string) { return e.ChatterUserLogin, e.Message.Text }),
			"viewer", "hi",
		}, {
			"bot", "user.whisper.message", "1",
			helix.EventSubCondition{UserID: w.bot.ID},
			func() error { _, err := w.Whisper("viewer", "bot", "psst"); return err },
			event(func(e whisperEvent) (string, string) { return e.FromUserLogin, e.Whisper.Text }),
			"viewer", "psst",
		},
	} {
		t.Run(c.kind, func(t *testing.T) {
			l := w.listen(t, "")
			r := w.subscribe(l, c.login, c.kind, c.version, c.condition)
			if r.StatusCode != http.StatusAccepted || len(r.Data.EventSubSubscriptions) != 1 || r.Data.EventSubSubscriptions[0].Status != "enabled" {
				t.Fatalf("CreateEventSubSubscription: %+v", r)
			}
			w.must(c.act())
			f := l.next()
			if f.Metadata.MessageType != "notification" || f.Metadata.SubscriptionType != c.kind || f.Metadata.SubscriptionVersion != c.version ||
				f.Payload.Subscription.ID != r.Data.EventSubSubscriptions[0].ID {
				t.Errorf("received %+v", f)
			}
			if _, err := time.Parse(time.RFC3339Nano, f.Metadata.MessageTimestamp); err != nil {
				t.Error(err)
			}
			if who, what := c.read(f.Payload.Event); who != c.who || what != c.what {
				t.Errorf("the event is of %q, %q; want %q, %q: %s", who, what, c.who, c.what, f.Payload.Event)
			}
			if n := w.RepeatEvent(); n != 1 {
				t.Errorf("repeated %d notifications", n)
			}
			if again := l.next(); again.Metadata.MessageID != f.Metadata.MessageID {
				t.Errorf("repeated %+v as %+v", f, again)
			}
			l.conn.Close(websocket.StatusNormalClosure, "")
			w.await("the session ends", func() bool { return w.Sessions() == 0 })
		})
	}
}

type chatEvent struct {
	ChatterUserLogin string `json:"chatter_user_login"`
	Message          struct {
		Text string `json:"text"`
	} `json:"message"`
}

type whisperEvent struct {
	FromUserLogin string `json:"from_user_login"`
	Whisper       struct {
		Text string `json:"text"`
	} `json:"whisper"`
}

// event adapts f, a function of an E, to the JSON form of the event.
func event[E any](f func(E) (string, string)) func(json.RawMessage) (string, string) {
	return func(raw json.RawMessage) (string, string) {
		var e E
		if err := json.Unmarshal(raw, &e); err != nil {
			return err.Error(), ""
		}
		return f(e)
	}
}

func TestEventSubRefusesSubscriptions(t *testing.T) {
	w := newWorld(t)
	l, other := w.listen(t, ""), w.listen(t, "")
	online := helix.EventSubCondition{BroadcasterUserID: w.channel.ID}
	if r := w.subscribe(l, "bot", "stream.online", "1", online); r.StatusCode != 202 || r.Data.TotalCost != 1 || r.Data.MaxTotalCost != 10 {
		t.Fatalf("response %+v", r)
	}
	w.tokens["scopeless"] = w.token(w.channel)
	for _, c := range []struct {
		name, login, kind, version string
		listener                   *listener
		condition                  helix.EventSubCondition
		status                     int
	}{
		{"again", "bot", "stream.online", "1", l, online, 409},
		{"unknown type", "bot", "channel.frob", "1", l, online, 400},
		{"old version", "bot", "channel.follow", "1", l, online, 400},
		{"no such session", "bot", "stream.offline", "1", &listener{session: "x"}, online, 400},
		{"another user's session", "viewer", "stream.offline", "1", l, online, 400},
		{"no condition", "bot", "stream.offline", "1", l, helix.EventSubCondition{}, 400},
		{"a condition too many", "bot", "stream.offline", "1", l, helix.EventSubCondition{BroadcasterUserID: w.channel.ID, UserID: w.bot.ID}, 400},
		{"prefixed id", "bot", "stream.offline", "1", l, helix.EventSubCondition{BroadcasterUserID: "twitch:" + w.channel.ID}, 400},
		{"both ends of a raid", "bot", "channel.raid", "1", l, helix.EventSubCondition{FromBroadcasterUserID: w.bot.ID, ToBroadcasterUserID: w.channel.ID}, 400},
		{"follows, not a moderator", "bot", "channel.follow", "2", l, helix.EventSubCondition{BroadcasterUserID: w.channel.ID, ModeratorUserID: w.bot.ID}, 403},
		{"follows, as another", "bot", "channel.follow", "2", l, helix.EventSubCondition{BroadcasterUserID: w.channel.ID, ModeratorUserID: w.channel.ID}, 403},
		{"another's subscribers", "bot", "channel.subscribe", "1", l, online, 403},
		{"no scope", "scopeless", "channel.subscribe", "1", other, online, 403},
		{"another's whispers", "bot", "user.whisper.message", "1", l, helix.EventSubCondition{UserID: w.viewer.ID}, 403},
		{"whispers without the scope", "scopeless", "user.whisper.message", "1", other, helix.EventSubCondition{UserID: w.channel.ID}, 403},
		{"whispers in a channel", "bot", "user.whisper.message", "1", l, helix.EventSubCondition{UserID: w.bot.ID, BroadcasterUserID: w.channel.ID}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := w.subscribe(c.listener, c.login, c.kind, c.version, c.condition); r.StatusCode != c.status {
				t.Errorf("response %d %+v; want %d", r.StatusCode, r, c.status)
			}
		})
	}
	t.Run("app token", func(t *testing.T) {
		app, err := w.AddToken(twitch.Token{ClientID: w.app.ID})
		w.must(err)
		r := w.request(t, "POST", "/eventsub/subscriptions", app.Access, map[string]any{
			"type": "stream.offline", "version": "1", "condition": map[string]string{"broadcaster_user_id": w.channel.ID},
			"transport": map[string]string{"method": "websocket", "session_id": l.session},
		})
		if r.status != 400 || r.message() != "invalid transport and auth combination" {
			t.Errorf("response %d %v", r.status, r.body)
		}
	})
	t.Run("too costly", func(t *testing.T) {
		for i := range 10 {
			u := w.user("channel" + string(rune('a'+i)))
			want := 202
			if i == 9 {
				want = 429
			}
			if r := w.subscribe(l, "bot", "stream.online", "1", helix.EventSubCondition{BroadcasterUserID: u.ID}); r.StatusCode != want {
				t.Errorf("the subscription %d was answered %d; want %d", i+2, r.StatusCode, want)
			}
		}
	})
}

func TestEventSubListsAndDeletes(t *testing.T) {
	w := newWorld(t)
	l := w.listen(t, "")
	bot := w.helix("bot")
	id := w.subscribe(l, "bot", "stream.online", "1", helix.EventSubCondition{BroadcasterUserID: w.channel.ID}).Data.EventSubSubscriptions[0].ID
	w.subscribe(l, "bot", "stream.offline", "1", helix.EventSubCondition{BroadcasterUserID: w.channel.ID})
	count := func(p helix.EventSubSubscriptionsParams) int {
		t.Helper()
		r, err := bot.GetEventSubSubscriptions(&p)
		w.must(err)
		return len(r.Data.EventSubSubscriptions)
	}
	if a, b, c := count(helix.EventSubSubscriptionsParams{}), count(helix.EventSubSubscriptionsParams{Type: "stream.online"}), count(helix.EventSubSubscriptionsParams{Status: "websocket_disconnected"}); a != 2 || b != 1 || c != 0 {
		t.Errorf("listed %d, %d, %d", a, b, c)
	}
	for _, want := range []int{204, 404} {
		if r, err := bot.RemoveEventSubSubscription(id); err != nil || r.StatusCode != want {
			t.Errorf("RemoveEventSubSubscription: %+v, %v; want %d", r, err, want)
		}
	}
	w.must(w.GoOnline("streamer", twitch.Stream{}))
	w.must(w.GoOffline("streamer"))
	if f := l.next(); f.Metadata.SubscriptionType != "stream.offline" {
		t.Errorf("received %+v", f)
	}
	l.conn.CloseNow()
	w.await("the session ends", func() bool { return w.Sessions() == 0 })
	if got := count(helix.EventSubSubscriptionsParams{Status: "websocket_disconnected"}); got != 1 {
		t.Errorf("listed %d disconnected", got)
	}
}

func TestEventSubReconnects(t *testing.T) {
	w := newWorld(t, twitch.WithTiming(twitch.Timing{Reconnect: 2 * time.Second}))
	old := w.listen(t, "")
	w.subscribe(old, "bot", "stream.online", "1", helix.EventSubCondition{BroadcasterUserID: w.channel.ID})
	w.ReconnectEventSub()
	f := old.next()
	if f.Metadata.MessageType != "session_reconnect" || f.Payload.Session.Status != "reconnecting" || f.Payload.Session.ReconnectURL == nil {
		t.Fatalf("received %+v", f)
	}
	// Events before the move arrive on the old connection, events after the move on the new connection.
	w.must(w.GoOnline("streamer", twitch.Stream{ID: "1"}))
	if f := old.next(); f.Metadata.MessageType != "notification" {
		t.Errorf("received %+v", f)
	}
	moved := w.listen(t, *f.Payload.Session.ReconnectURL)
	if moved.session != old.session {
		t.Errorf("the session %q became %q", old.session, moved.session)
	}
	w.must(w.GoOffline("streamer"))
	w.must(w.GoOnline("streamer", twitch.Stream{ID: "2"}))
	if f := moved.next(); f.Metadata.SubscriptionType != "stream.online" {
		t.Errorf("received %+v", f)
	}
	if code := old.closed(); code != twitch.CloseReconnectGrace {
		t.Errorf("close code of the old connection: %d", code)
	}
	if w.Sessions() != 1 {
		t.Errorf("there are %d sessions", w.Sessions())
	}
	conn, _, err := websocket.Dial(t.Context(), *f.Payload.Session.ReconnectURL, nil)
	w.must(err)
	if code := (&listener{t: t, conn: conn}).closed(); code != twitch.CloseReconnectURL {
		t.Errorf("the used address was closed with %d", code)
	}
}

func TestOnlyAFaultWithTheWholePathRefusesAWebSocket(t *testing.T) {
	w := newWorld(t)
	w.FailHTTP(twitch.HTTPFault{Status: 500})
	w.listen(t, "")
	w.ClearFaults()
	for path, url := range map[string]string{"/ws": w.EventSubURL(), "/": w.IRCWebSocketURL(), "/irc": w.IRCWebSocketURL() + "irc"} {
		w.FailHTTP(twitch.HTTPFault{Path: path, Status: 503})
		_, resp, err := websocket.Dial(t.Context(), url, nil)
		if err == nil || resp == nil || resp.StatusCode != 503 {
			t.Errorf("%s opens with %v, %v", path, resp, err)
		}
	}
}

func TestEventSubRevokes(t *testing.T) {
	w := newWorld(t)
	l := w.listen(t, "")
	w.subscribe(l, "bot", "stream.online", "1", helix.EventSubCondition{BroadcasterUserID: w.channel.ID})
	w.must(w.Disconnect(w.app.ID, "bot"))
	f := l.next()
	if f.Metadata.MessageType != "revocation" || f.Payload.Subscription.Status != "authorization_revoked" || f.Metadata.SubscriptionType != "stream.online" {
		t.Errorf("received %+v", f)
	}
	if w.RevokeSubscription(f.Payload.Subscription.ID, "user_removed") {
		t.Error("revoked it twice")
	}
}

func TestEventSubCloses(t *testing.T) {
	const soon = 20 * time.Millisecond
	for _, c := range []struct {
		name   string
		timing twitch.Timing
		do     func(w *world, l *listener)
		want   int
		status string // final status of the subscription
	}{
		{"something sent", twitch.Timing{}, func(w *world, l *listener) {
			w.must(l.conn.Write(l.t.Context(), websocket.MessageText, []byte("{}")))
		}, twitch.CloseInbound, "websocket_received_inbound_traffic"},
		{"no answer to a ping", twitch.Timing{Ping: 500 * time.Millisecond}, func(w *world, l *listener) { l.silent.Store(true) },
			twitch.ClosePingPong, "websocket_failed_ping_pong"},
		{"unused", twitch.Timing{Subscribe: soon}, nil, twitch.CloseUnused, ""},
		{"kept after session_reconnect", twitch.Timing{Reconnect: soon}, func(w *world, _ *listener) { w.ReconnectEventSub() },
			twitch.CloseReconnectGrace, "websocket_failed_to_reconnect"},
		{"by hand", twitch.Timing{}, func(w *world, _ *listener) { w.CloseEventSub(twitch.CloseServerError) },
			twitch.CloseServerError, "websocket_internal_error"},
		{"dropped", twitch.Timing{}, func(w *world, _ *listener) { w.DropEventSub() }, -1, "websocket_disconnected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, twitch.WithTiming(c.timing))
			l := w.listen(t, "")
			if c.do != nil {
				w.subscribe(l, "bot", "stream.online", "1", helix.EventSubCondition{BroadcasterUserID: w.channel.ID})
				c.do(w, l)
			}
			if got := l.closed(); got != c.want {
				t.Errorf("closed with %d; want %d", got, c.want)
			}
			w.await("the session ends", func() bool { return w.Sessions() == 0 })
			if c.status != "" && w.Subscriptions()[0].Status != c.status {
				t.Errorf("the subscription is %+v; want %q", w.Subscriptions()[0], c.status)
			}
		})
	}
}

func TestEventSubSendsKeepalives(t *testing.T) {
	w := newWorld(t, twitch.WithTiming(twitch.Timing{Keepalive: 10 * time.Millisecond}))
	l := w.listen(t, "")
	if got := l.welcome.Payload.Session.KeepaliveTimeoutSeconds; got != 1 {
		t.Errorf("the keepalive is announced as %d s", got)
	}
	for range 3 {
		if f := l.next(); f.Metadata.MessageType != "session_keepalive" {
			t.Errorf("received %+v", f)
		}
	}
}

func TestEventSubKeepaliveFollowsTheRequest(t *testing.T) {
	w := newWorld(t)
	for asked, want := range map[string]int{"": 10, "?keepalive_timeout_seconds=30": 30, "?keepalive_timeout_seconds=1": 10, "?keepalive_timeout_seconds=9999": 600, "?keepalive_timeout_seconds=x": 10} {
		if got := w.listen(t, w.EventSubURL()+asked).welcome.Payload.Session.KeepaliveTimeoutSeconds; got != want {
			t.Errorf("asked with %q, got %d", asked, got)
		}
	}
}
