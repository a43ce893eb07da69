package eventsub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	fake "parley.internal/emulator/twitch"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

var quick = eventsub.Timing{
	Slack: 100 * time.Millisecond, Linger: 100 * time.Millisecond, Refresh: 200 * time.Millisecond, Limit: 100 * time.Millisecond,
	Retry: 20 * time.Millisecond, MinBackoff: 20 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Request: 2 * time.Second,
}

var scopes = []string{"moderator:read:followers", "channel:read:subscriptions"}

var kinds = []*eventsub.Kind{eventsub.Follow, eventsub.Subscribe, eventsub.Raid, eventsub.Online, eventsub.Offline}

// world is a Twitch, and a client with the broadcaster's account.
type world struct {
	*fake.Server
	t       *testing.T
	app     fake.App
	channel fake.User
	client  *eventsub.Client
	metrics *prometheus.Registry

	mu     sync.Mutex
	token  *credential.Token // nil without a login
	access string
	topics []eventsub.Topic
	log    bytes.Buffer
	taken  []eventsub.Notification
	missed []time.Duration
	conns  []*stubborn
	age    time.Duration // offset of the clock

	unreachable bool
	refused     func() // called for a token that is missing, if set; set before listening
}

func newWorld(t *testing.T, opts ...fake.Option) *world {
	t.Helper()
	return newWorldWith(t, quick, opts...)
}

func newWorldWith(t *testing.T, timing eventsub.Timing, opts ...fake.Option) *world {
	t.Helper()
	srv, err := fake.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	w := &world{Server: srv, t: t, metrics: prometheus.NewRegistry()}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if t.Failed() {
			t.Logf("the log:\n%s", w.log.String())
		}
	})
	if w.app, err = srv.AddApp(fake.App{}); err != nil {
		t.Fatal(err)
	}
	w.channel = w.user("streamer")
	w.user("alice")
	for _, k := range kinds {
		w.topics = append(w.topics, eventsub.Topic{Kind: k, Channel: w.channel.Login, Broadcaster: w.channel.ID})
	}
	w.client, err = eventsub.New(eventsub.Dependencies{
		URL: srv.EventSubURL(), API: twitch.New(twitch.Config{URL: srv.HelixURL(), ClientID: w.app.ID}), Tokens: w,
		Log: slog.New(slog.NewTextHandler(w, nil)), Metrics: w.metrics, Timing: timing, Dial: w.dial,
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(w.age)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) user(login string) fake.User {
	w.t.Helper()
	u, err := w.AddUser(fake.User{Login: login})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// Write implements io.Writer for the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// logged returns the number of log lines with all of these texts.
func (w *world) logged(texts ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for line := range strings.Lines(w.log.String()) {
		if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
			n++
		}
	}
	return n
}

func (w *world) logIn(scopes ...string) {
	w.t.Helper()
	t, err := w.AddToken(fake.Token{UserID: w.channel.ID, ClientID: w.app.ID, Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.access = t.Access
	w.token = &credential.Token{User: w.account(), Access: credential.NewSecret(t.Access), Scopes: scopes}
}

func (w *world) account() identity.UserID {
	id, err := identity.New(identity.Twitch, w.channel.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) Token(_ context.Context, id identity.UserID) (credential.Token, error) {
	w.mu.Lock()
	token := w.token
	w.mu.Unlock()
	if token == nil {
		if w.refused != nil {
			w.refused()
		}
		return credential.Token{}, &credential.LoginNeeded{User: id, Why: "nobody has logged in as this user"}
	}
	return *token, nil
}

func (w *world) Invalid(ctx context.Context, id identity.UserID, used credential.Token) (credential.Token, error) {
	now, err := w.Token(ctx, id)
	if err == nil && now.Access.Equal(used.Access) {
		w.logIn(now.Scopes...)
		return w.Token(ctx, id)
	}
	return now, err
}

// stubborn is a connection that can become silent.
type stubborn struct {
	net.Conn
	mu    sync.Mutex
	mute  bool
	reads int
}

func (c *stubborn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		c.mu.Lock()
		mute := c.mute
		c.reads++
		c.mu.Unlock()
		if !mute || err != nil {
			return n, err
		}
	}
}

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	unreachable := w.unreachable
	w.mu.Unlock()
	if unreachable {
		return nil, errors.New("unreachable")
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	s := &stubborn{Conn: c}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, s)
	return s, nil
}

// listen runs Listen until stop.
func (w *world) listen(absent time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var listening sync.WaitGroup
	listening.Go(func() {
		w.client.Listen(ctx, eventsub.Subscriber{
			Account: w.account(), IdleSince: absent,
			Topics: func(context.Context) ([]eventsub.Topic, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return slices.Clone(w.topics), nil
			},
			OnNotification: func(n eventsub.Notification) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.taken = append(w.taken, n)
			},
			OnIdle: func(time.Time) {},
			OnGap: func(_ string, from, to time.Time) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.missed = append(w.missed, to.Sub(from))
			},
		})
	})
	stop = sync.OnceFunc(func() { cancel(); listening.Wait() })
	w.t.Cleanup(stop)
	return stop
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	gatewaytest.Eventually(w.t, what, holds)
}

// enabled returns the types of the enabled subscriptions.
func (w *world) enabled() []string {
	var types []string
	for _, s := range w.Subscriptions() {
		if s.Status == "enabled" {
			types = append(types, s.Type)
		}
	}
	return types
}

func (w *world) subscribed(n int) {
	w.t.Helper()
	w.eventually(fmt.Sprint(n, " subscriptions"), func() bool { return len(w.enabled()) == n })
}

func (w *world) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) got() []eventsub.Notification {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.taken)
}

func (w *world) gaps() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.missed)
}

func (w *world) takes(n int) {
	w.t.Helper()
	w.eventually(fmt.Sprint(n, " notifications"), func() bool { return len(w.got()) >= n })
	if have := len(w.got()); have != n {
		w.t.Errorf("%d notifications were taken; want %d", have, n)
	}
}

// metric returns the sum of a metric's values with a label value.
func (w *world) metric(name, value string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	w.do(err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "parley_twitch_eventsub_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := value == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetValue() == value
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestRepeatedNotificationsArePassedOnOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logIn(scopes...)
	stop := w.listen(time.Time{})
	w.subscribed(5)
	w.do(w.Follow("streamer", "alice"))
	w.do(w.Subscribe("streamer", "alice", 1))
	w.do(w.Raid("alice", "streamer", 3))
	w.do(w.GoOnline("streamer", fake.Stream{}))
	w.RepeatEvent()
	w.do(w.GoOffline("streamer"))
	w.RepeatEvent()
	w.takes(5)
	for i, n := range w.got() {
		if n.Topic.Kind != kinds[i] || n.ID == "" || n.At.IsZero() || n.Topic.Channel != "streamer" || len(n.Event) == 0 {
			t.Errorf("notification %d = %+v; want one of %s", i, n, kinds[i].Type)
		}
	}
	w.eventually("the repetitions have come", func() bool { return w.metric("notifications_total", "repeated") == 9 })
	if w.gaps() != 0 {
		t.Errorf("%d gaps; want none", w.gaps())
	}
	stop()
	w.eventually("the session ends", func() bool { return w.Sessions() == 0 })
	if n := w.metric("sessions", "") + w.metric("subscriptions", ""); n != 0 {
		t.Errorf("%v sessions and subscriptions are counted after the end", n)
	}
}

func TestOldNotificationsAreDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(5)
	w.do(w.GoOnline("streamer", fake.Stream{}))
	w.takes(1)
	w.mu.Lock()
	w.age = 11 * time.Minute
	w.mu.Unlock()
	w.do(w.GoOffline("streamer"))
	w.eventually("it is left out", func() bool { return w.metric("notifications_total", "stale") == 1 })
	w.takes(1)
}

func TestAMoveLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.WithTiming(fake.Timing{Reconnect: time.Second}))
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(5)
	subscriptions := len(w.Subscriptions())
	want := 0
	for move := range 3 {
		if n := w.ReconnectEventSub(); n != 1 {
			t.Fatalf("%d sessions are asked to move", n)
		}
		// some arrive on the old connection, some on the new one
		for range 50 {
			w.do(w.GoOnline("streamer", fake.Stream{}))
			w.do(w.GoOffline("streamer"))
			want += 2
		}
		w.eventually("it has moved", func() bool { return w.metric("moves_total", "moved") == float64(move+1) })
	}
	w.takes(want)
	for i, n := range w.got() {
		if n.Topic.Kind != []*eventsub.Kind{eventsub.Online, eventsub.Offline}[i%2] {
			t.Fatalf("notification %d is of %s: the order is lost", i, n.Topic.Kind.Type)
		}
	}
	if n := len(w.Subscriptions()); n != subscriptions || w.gaps() != 0 || w.metric("disconnects_total", "") != 0 {
		t.Errorf("%d subscriptions, %d gaps; want the old %d and none", n, w.gaps(), subscriptions)
	}
}

func TestTheLastOfTwoMovesCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(5)
	w.ReconnectEventSub()
	w.ReconnectEventSub() // may make the first address invalid
	w.eventually("it has moved", func() bool { return w.metric("moves_total", "moved") >= 1 })
	w.do(w.Follow("streamer", "alice"))
	w.takes(1)
	if w.gaps() != 0 {
		t.Errorf("%d gaps", w.gaps())
	}
}

func TestBrokenConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, cause string
		timing      fake.Timing
		breakIt     func(w *world)
	}{
		{"dropped", "broken", fake.Timing{}, func(w *world) { w.DropEventSub() }},
		{"closed by Twitch", "4000", fake.Timing{}, func(w *world) { w.CloseEventSub(fake.CloseServerError) }},
		{"silent", "silent", fake.Timing{Keepalive: 200 * time.Millisecond}, func(w *world) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, c := range w.conns {
				c.mu.Lock()
				c.mute = true
				c.mu.Unlock()
			}
		}},
		{"not moved in time", "4004", fake.Timing{Reconnect: 100 * time.Millisecond}, func(w *world) {
			w.mu.Lock()
			w.unreachable = true
			w.mu.Unlock()
			w.ReconnectEventSub()
			w.eventually("the session is over", func() bool { return w.Sessions() == 0 })
			w.mu.Lock()
			w.unreachable = false
			w.mu.Unlock()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fake.WithTiming(test.timing))
			w.logIn(scopes...)
			w.listen(time.Time{})
			w.subscribed(5)
			test.breakIt(w)
			w.eventually("the gap is told", func() bool { return w.gaps() == 1 })
			w.eventually("there is one session", func() bool { return w.Sessions() == 1 })
			w.subscribed(5)
			w.do(w.Follow("streamer", "alice"))
			w.takes(1)
			if w.metric("disconnects_total", test.cause) == 0 {
				t.Errorf("the cause is not %s", test.cause)
			}
		})
	}
}

func TestAConnectionWithKeepalivesIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fake.WithTiming(fake.Timing{Keepalive: 100 * time.Millisecond, Ping: 100 * time.Millisecond}))
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(5)
	heard := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns[0].mu.Lock()
		defer w.conns[0].mu.Unlock()
		return w.conns[0].reads
	}
	before := heard()
	w.eventually("Twitch has said that it is there for longer than silence may last", func() bool { return heard() > before+25 })
	if n := w.metric("disconnects_total", ""); n != 0 || w.Sessions() != 1 {
		t.Errorf("it was disconnected %v times", n)
	}
}

func TestARefusedTopicDoesNotStopOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logIn("moderator:read:followers")
	w.listen(time.Now().Add(-time.Minute))
	w.subscribed(4)
	w.do(w.Follow("streamer", "alice"))
	w.takes(1)
	w.eventually("it is tried again", func() bool { return w.metric("refused_total", "missing_scope") >= 3 })
	if n := w.logged("channel.subscribe", "channel:read:subscriptions", "/oauth/twitch/login"); n != 1 {
		t.Errorf("the missing scope was told %d times; want once, with what to do", n)
	}
	if w.gaps() != 1 {
		t.Errorf("%d gaps; want the one since the last owner", w.gaps())
	}
	w.logIn(scopes...)
	w.subscribed(5)
	w.eventually("that it works is told", func() bool { return w.logged("subscription accepted", "channel.subscribe") == 1 })
}

func TestAMissingLoginIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.listen(time.Now().Add(-time.Minute))
	w.eventually("it is tried again", func() bool { return w.metric("refused_total", "login_needed") >= 3 })
	if n := w.logged("login_needed", "/oauth/twitch/login"); n != 1 {
		t.Errorf("it was told %d times; want once", n)
	}
	if w.Sessions() != 0 {
		t.Error("there is a session")
	}
	w.logIn()
	w.subscribed(3)
	w.logIn(scopes...)
	w.subscribed(5)
	if w.gaps() != 0 {
		t.Errorf("%d gaps; want none: it was not listened to before", w.gaps())
	}
}

// patient never tries again by itself within a test.
func patient() eventsub.Timing {
	timing := quick
	timing.Refresh = 10 * gatewaytest.Patience
	return timing
}

func TestRefreshNoticesALoginAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, patient())
	w.listen(time.Time{})
	w.eventually("the login is missing", func() bool { return w.metric("refused_total", "login_needed") == 1 })
	w.logIn()
	w.client.Refresh()
	w.subscribed(3)
	w.eventually("two scopes are missing", func() bool { return w.metric("refused_total", "missing_scope") == 2 })
	w.logIn(scopes...)
	w.client.Refresh()
	w.subscribed(5)

	other := w.user("other")
	w.mu.Lock()
	w.topics = []eventsub.Topic{{Kind: eventsub.Online, Channel: "other", Broadcaster: other.ID}}
	w.mu.Unlock()
	w.client.Refresh()
	w.subscribed(1)
}

func TestALoginDuringAnAttemptIsNotMissed(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, patient())
	w.refused = func() {
		w.logIn(scopes...)
		w.client.Refresh()
	}
	w.listen(time.Time{})
	w.subscribed(5)
}

func TestNoPermittedTopicMeansNoSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topics = w.topics[:2]
	w.logIn()
	w.listen(time.Time{})
	w.eventually("it is tried again", func() bool { return w.metric("refused_total", "channel.follow") >= 3 })
	if w.Sessions() != 0 || len(w.Requests("/eventsub/subscriptions")) != 0 {
		t.Error("Twitch was asked for what it is certain to refuse")
	}
	w.logIn(scopes...)
	w.subscribed(2)
}

func TestFailuresOfHelixAreRetried(t *testing.T) {
	t.Parallel()
	for _, fault := range []fake.HTTPFault{
		{Status: http.StatusInternalServerError, Times: 7},
		{Status: http.StatusTooManyRequests, Times: 7},
		{Drop: true, Times: 3},
		{Drop: true, Done: true, Times: 3}, // executed, with a lost answer
	} {
		t.Run(fmt.Sprintf("%+v", fault), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.logIn(scopes...)
			fault.Path = "/eventsub/subscriptions"
			w.FailHTTP(fault)
			w.listen(time.Time{})
			w.subscribed(5)
			w.do(w.Follow("streamer", "alice"))
			w.takes(1)
		})
	}
}

func TestAnInvalidTokenIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logIn(scopes...)
	w.Revoke(w.access)
	w.listen(time.Time{})
	w.subscribed(5)
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status string
		again  bool
	}{{"authorization_revoked", true}, {"moderator_removed", true}, {"user_removed", false}, {"version_removed", false}} {
		t.Run(test.status, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.logIn(scopes...)
			w.listen(time.Time{})
			w.subscribed(5)
			for _, s := range w.Subscriptions() {
				if s.Type == "channel.follow" {
					w.RevokeSubscription(s.ID, test.status)
				}
			}
			w.eventually("it is told", func() bool { return w.logged(test.status, "channel.follow") == 1 })
			if test.again {
				w.subscribed(5)
			} else {
				w.DropEventSub() // the topic stays removed on a new connection
				w.eventually("there is another connection", func() bool { return w.gaps() == 1 })
				w.subscribed(4)
			}
			w.do(w.GoOnline("streamer", fake.Stream{}))
			w.takes(1)
			if w.metric("revoked_total", test.status) != 1 {
				t.Error("it was not counted")
			}
		})
	}
}

func TestAWithdrawnGrantEndsTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(5)
	w.mu.Lock()
	w.token = nil
	w.mu.Unlock()
	w.do(w.Disconnect(w.app.ID, "streamer"))
	w.eventually("the session ends", func() bool { return w.Sessions() == 0 })
	w.logIn(scopes...)
	w.subscribed(5)
}

func TestTopicsCanChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.user("other")
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(5)
	set := func(topics ...eventsub.Topic) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.topics = topics
	}
	online := eventsub.Topic{Kind: eventsub.Online, Channel: "other", Broadcaster: other.ID}
	set(online, w.topics[4])
	w.eventually("two are left", func() bool { return slices.Equal(w.enabled(), []string{"stream.offline", "stream.online"}) })
	w.do(w.Follow("streamer", "alice"))
	w.do(w.GoOnline("other", fake.Stream{}))
	w.takes(1)
	if n := w.got()[0]; n.Topic != online {
		t.Errorf("notification = %+v", n)
	}
	set()
	w.eventually("the session ends", func() bool { return w.Sessions() == 0 })
	set(online)
	w.subscribed(1)
}

func TestTheCostLimitIsLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.topics = nil
	for i := range 12 {
		u := w.user(fmt.Sprint("other", i))
		w.topics = append(w.topics, eventsub.Topic{Kind: eventsub.Online, Channel: u.Login, Broadcaster: u.ID})
	}
	w.logIn(scopes...)
	w.listen(time.Time{})
	w.subscribed(10)
	w.eventually("the rest is tried again", func() bool { return w.metric("refused_total", "limit") >= 6 })
	if a, b := w.logged("limit", "other10"), w.logged("limit", "other11"); a != 1 || b != 1 {
		t.Errorf("the limit was told %d and %d times; want once for each", a, b)
	}
	w.mu.Lock()
	w.topics = w.topics[2:]
	w.mu.Unlock()
	w.eventually("the rest has its turn", func() bool { return len(w.enabled()) == 10 && w.logged("subscription accepted", "other11") == 1 })
}

func TestCheckURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"wss://eventsub.wss.twitch.tv/ws": true, "ws://127.0.0.1:1/ws?a=b": true, "ws://localhost:1": true, "ws://[::1]:1": true,
		"ws://eventsub.wss.twitch.tv/ws": false, "https://x": false, "wss://": false, "wss://u:p@x": false, "": false, "wss://x#y": false,
	} {
		if err := eventsub.CheckURL(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// TestUnexpectedServersAreRetried uses a server with undocumented answers.
func TestUnexpectedServersAreRetried(t *testing.T) {
	t.Parallel()
	for _, begin := range []string{"", "{}", "no JSON", `{"metadata":{"message_type":"session_keepalive"}}`, `{"metadata":{"message_type":"session_welcome"}}`} {
		t.Run(begin, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.logIn(scopes...)
			asked := make(chan struct{}, 100)
			srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				ws, err := new(websocket.Upgrader).Upgrade(rw, r, nil)
				if err != nil {
					return
				}
				defer ws.Close()
				_ = ws.WriteMessage(websocket.TextMessage, []byte(begin))
			})}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			w.do(err)
			go func() { // ends with Close
				if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			}()
			defer srv.Close()
			w.client, err = eventsub.New(eventsub.Dependencies{
				URL: "ws://" + l.Addr().String(), API: twitch.New(twitch.Config{URL: w.HelixURL(), ClientID: w.app.ID}), Tokens: w, Log: slog.New(slog.NewTextHandler(w, nil)), Metrics: prometheus.NewRegistry(), Timing: quick, Now: time.Now,
			})
			w.do(err)
			stop := w.listen(time.Time{})
			for range 3 {
				<-asked
			}
			stop()
			if n := w.logged("disconnected", "no welcome"); n < 2 {
				t.Errorf("it was told %d times", n)
			}
		})
	}
}
