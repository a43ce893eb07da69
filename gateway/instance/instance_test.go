package instance_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	gorilla "github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/gateway/instance"
	"parley.internal/gateway/websocket"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

func TestMessageIsPublishedAndAnswerIsDelivered(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	token := w.token("twitch:123")
	c := g.dial(token)
	c.write(map[string]any{"type": "chat.message.send", "payload": map[string]any{"text": "hello", "room": "lobby"}, "metadata": map[string]any{"id": "m1"}})

	e := w.nextIngress()
	if e.UserID != "twitch:123" || e.Source != "api-gateway" || e.Type != "chat.message" || e.Channel != "lobby" ||
		e.Message.Text != "hello" || e.Message.ID != "m1" || e.Message.Role != "user" || e.Egress.Destination != "api-gateway" || e.TraceID == "" {
		t.Errorf("published %+v, message %+v", e, e.Message)
	}

	e.Candidates = candidates("hi there")
	id, err := w.sender.Send(t.Context(), e, "personality")
	if err != nil {
		t.Fatal(err)
	}
	f := c.next()
	if f.Type != "chat.message.received" || f.Payload["text"] != "hi there" || f.Metadata["id"] != id || f.Metadata["replyTo"] != "m1" ||
		f.Metadata["correlationId"] != e.CorrelationID || f.Metadata["channel"] != "lobby" {
		t.Errorf("frame = %+v", f)
	}
	eventually(t, "delivered", func() bool { return w.state(id) == delivery.Delivered })

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.published {
		if strings.Contains(m.String(), token) {
			t.Errorf("the raw token is in %v", m)
		}
	}
	if strings.Contains(w.logs.String(), token) {
		t.Error("the raw token is in the log")
	}
}

func TestRepeatedClientMessageHasTheSameCorrelationID(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	send := func(user, id string) string {
		c := g.dial(w.token(user))
		defer c.Close()
		c.write(map[string]any{"type": "chat.message.send", "payload": map[string]any{"text": "x"}, "metadata": map[string]any{"id": id}})
		return w.nextIngress().CorrelationID
	}
	first := send("twitch:1", "m1")
	if again := send("twitch:1", "m1"); again != first {
		t.Errorf("the same message became %s and %s", first, again)
	}
	for _, other := range []string{send("twitch:2", "m1"), send("twitch:1", "m2"), send("twitch:1", ""), send("twitch:1", "")} {
		if other == first {
			t.Errorf("a different message has the correlation id %s, too", other)
		}
	}
}

func TestMessagesArePublishedInOrder(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{}, "WS_RATE=100000", "WS_BURST=1000", "WS_INBOX=200")
	c := g.dial(w.token("twitch:1"))
	for i := range 200 {
		c.write(map[string]any{"type": "chat.message.send", "payload": map[string]any{"text": fmt.Sprint(i)}})
	}
	for i := range 200 {
		if e := w.nextIngress(); e.Message.Text != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, e.Message.Text)
		}
	}
}

func TestEachConnectionOfAUserReceivesAnAnswerOnce(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(instance.Options{}), w.start(instance.Options{})
	if one.ID() == two.ID() {
		t.Fatal("two instances with one id")
	}
	token := w.token("twitch:1")
	clients := []*client{one.dial(token), one.dial(token), two.dial(token)}
	other := one.dial(w.token("twitch:2"))
	id := w.answer("c1", "twitch:1", "", "hi")
	for i, c := range clients {
		if f := c.next(); f.Metadata["id"] != id {
			t.Errorf("connection %d: %+v", i, f)
		}
	}
	eventually(t, "delivered", func() bool { return w.state(id) == delivery.Delivered })

	// publish the same answer again, as in a Pub/Sub redelivery
	w.republish(id)
	second := w.answer("c2", "twitch:1", "", "marker")
	for i, c := range clients {
		if f := c.next(); f.Metadata["id"] != second {
			t.Errorf("connection %d got %+v again", i, f)
		}
	}
	if got := other.barrier(); len(got) != 0 {
		t.Errorf("a different user got %+v", got)
	}
}

func TestAnswerToARoomReachesItsMembers(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	joined, talked, left, outside := g.dial(w.token("twitch:1")), g.dial(w.token("twitch:2")), g.dial(w.token("twitch:3")), g.dial(w.token("twitch:4"))
	for _, c := range []*client{joined, left} {
		c.write(map[string]any{"type": "room.join", "payload": map[string]any{"room": "lobby"}, "metadata": map[string]any{"id": "j"}})
		if f := c.next(); f.Type != "room.joined" || f.Payload["room"] != "lobby" || f.Metadata["replyTo"] != "j" {
			t.Errorf("joining: %+v", f)
		}
	}
	talked.write(map[string]any{"type": "chat.message.send", "payload": map[string]any{"text": "x", "channel": "lobby"}})
	w.nextIngress()
	left.write(map[string]any{"type": "room.leave", "payload": map[string]any{"room": "lobby"}})
	if f := left.next(); f.Type != "room.left" {
		t.Errorf("leaving: %+v", f)
	}
	id := w.answer("c1", "", "lobby", "to all")
	for i, c := range []*client{joined, talked} {
		if f := c.next(); f.Metadata["id"] != id || f.Payload["text"] != "to all" {
			t.Errorf("member %d: %+v", i, f)
		}
	}
	eventually(t, "delivered", func() bool { return w.state(id) == delivery.Delivered })
	for i, c := range []*client{left, outside} {
		if got := c.barrier(); len(got) != 0 {
			t.Errorf("client %d outside the room got %+v", i, got)
		}
	}
}

func TestAnswersForAbsentUsersReadNothing(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	c := g.dial(w.token("twitch:1"))
	c.barrier() // wait until the missed answers are read
	before := w.reads()
	absent := w.answer("c1", "twitch:9", "", "nobody")
	id := w.answer("c2", "twitch:1", "", "somebody")
	c.next()
	eventually(t, "delivered", func() bool { return w.delivered(g, "absent") && w.delivered(g, "delivered") })
	if reads := w.reads() - before; reads != 0 {
		t.Errorf("%d documents were read; want none", reads)
	}
	if s := w.state(absent); s != delivery.Pending {
		t.Errorf("the answer to the absent user is %s", s)
	}
	if s := w.state(id); s != delivery.Delivered {
		t.Errorf("the answer to the connected user is %s", s)
	}
}

func TestDrainDeliversClosesSocketsAndDeletesTheSubscription(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	c := g.dial(w.token("twitch:1"))
	id := w.answer("c1", "twitch:1", "", "before the end")
	began := time.Now()
	eventually(t, "delivered", func() bool { return w.state(id) == delivery.Delivered })
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop() }()
	if f := c.next(); f.Metadata["id"] != id {
		t.Errorf("frame = %+v", f)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, gorilla.CloseGoingAway) {
		t.Errorf("the socket ended with %v; want close code 1001", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("drained in %s", took)
	}
	if w.subscribed(g.ID()) {
		t.Error("the subscription is still there")
	}
}

func TestInstanceIsUnreadyWithoutSubscription(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	ready := func() bool { code, _ := g.get("/readyz"); return code == 200 }
	eventually(t, "ready", ready)
	if code, _ := g.get("/healthz"); code != 200 {
		t.Errorf("/healthz = %d", code)
	}
	before := g.dial(w.token("twitch:2"))
	// hold back the new subscription, because the first back-off is too short to observe the instance unready
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	defer release()
	w.subscribeGate.Store(&gate)
	if err := w.pubsub.SubscriptionAdminClient.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: subscription(g.ID())}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unready", func() bool { return !ready() })
	between := w.answer("c0", "twitch:2", "", "meanwhile")
	release()
	eventually(t, "ready again", func() bool { return w.subscribed(g.ID()) && ready() })
	// the client is disconnected, and receives the missed answer after reconnecting
	before.SetReadDeadline(time.Now().Add(patience))
	_, _, err := before.ReadMessage()
	if f := g.dial(w.token("twitch:2")).next(); !gorilla.IsCloseError(err, int(websocket.CloseInterrupted)) || f.Metadata["id"] != between {
		t.Errorf("the socket ended with %v, and the new one got %+v; want close code 4006 and %s", err, f, between)
	}
	c := g.dial(w.token("twitch:1"))
	id := w.answer("c1", "twitch:1", "", "still")
	if f := c.next(); f.Metadata["id"] != id {
		t.Errorf("frame = %+v", f)
	}
}

// The dlq function gives a notice of another system its entry, so a gateway must neither show nor dead-letter the notice.
func TestNoticeWithoutAnEntryIsLeftToTheFunction(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	c := g.dial(w.token("twitch:1"))
	data, err := event.Encode(&event.Event{
		V: event.Version, Source: "system.scheduler", CorrelationID: "n1", Type: "system.announcement", UserID: "twitch:1",
		Egress: &event.Egress{Destination: "api-gateway"}, Payload: event.Raw(map[string]string{"text": "soon back"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := w.pubsub.Publisher(topology.Prefix{}.Topic(project, topology.Egress).String())
	p.EnableMessageOrdering = true // the same key as the answer's, so the notice comes first
	defer p.Stop()
	if _, err := p.Publish(t.Context(), &pubsub.Message{Data: data, Attributes: map[string]string{bus.AttrRoute: bus.RouteBroadcast}, OrderingKey: "|twitch:1"}).Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := w.answer("c1", "twitch:1", "", "hello")
	if f := c.next(); f.Metadata["id"] != id {
		t.Errorf("frame = %+v; want only the answer with an entry", f)
	}
	eventually(t, "delivered", func() bool { return w.state(id) == delivery.Delivered })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.published {
		if m.Attributes["deadLetterReason"] != "" {
			t.Errorf("dead-lettered as %s", m.Attributes["deadLetterReason"])
		}
	}
}

func TestDemoTokensNeedTheSecretOfThisStart(t *testing.T) {
	w := newWorld(t)
	if code, _ := w.start(instance.Options{}).get("/demo/tokens"); code != 404 {
		t.Errorf("/demo/tokens = %d; want 404", code)
	}
	g := w.start(instance.Options{DemoTokens: map[string]string{"twitch:1": "x"}, DemoSecret: credential.NewSecret("of-this-start")})
	for _, test := range []struct {
		header []string
		want   int
	}{
		{nil, 401},
		{[]string{"Authorization", "Bearer "}, 401},
		{[]string{"Authorization", "Bearer of-another-start"}, 401},
		{[]string{"Authorization", "Basic of-this-start"}, 401},
		{[]string{"Authorization", "Bearer of-this-start"}, 200},
		{[]string{"Authorization", "Bearer of-this-start", "Host", "localhost:1"}, 200},
		{[]string{"Authorization", "Bearer of-this-start", "Host", "evil.example"}, 421},
	} {
		code, body := g.get("/demo/tokens", test.header...)
		if code != test.want || (body["twitch:1"] == "x") != (test.want == 200) {
			t.Errorf("%q: %d %v; want %d", test.header, code, body, test.want)
		}
	}
	if strings.Contains(w.logs.String(), "of-this-start") {
		t.Error("the secret is in the log")
	}
	c, err := config.Load[instance.Config](w.env)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := instance.Start(t.Context(), c, instance.Options{Log: slog.New(slog.DiscardHandler), DemoTokens: map[string]string{}}); err == nil {
		t.Error("started with demo tokens and no secret")
	}
}

func TestForeignHostsAreRefusedOnTheLoopbackInterface(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{}, "PUBLIC_URL=https://chat.example")
	for host, want := range map[string]int{
		"localhost:8080": 200, "[::1]": 200, "chat.example": 200, "evil.example": 421, "evil.example:8080": 421, "192.168.1.2": 421,
	} {
		for _, path := range []string{"/", "/healthz", "/page.js"} {
			if code, _ := g.get(path, "Host", host); code != want {
				t.Errorf("%s under %s: %d; want %d", path, host, code, want)
			}
		}
	}
	// a page that has let its own name resolve to this machine has a matching origin
	dialer := *gorilla.DefaultDialer
	_, resp, err := dialer.Dial("ws://"+g.Addr()+websocket.Path, http.Header{
		"Authorization": {"Bearer " + w.token("twitch:1")}, "Host": {"evil.example"}, "Origin": {"http://evil.example"},
	})
	if err == nil || resp == nil || resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a socket under a foreign host: %v, %v; want 421", resp, err)
	}
}

func TestForeignHostsAreServedOnOtherInterfaces(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{}, "LISTEN_ADDR=0.0.0.0:0")
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 404} {
		resp, err := http.DefaultClient.Do(&http.Request{
			Method: http.MethodGet, Host: "chat.example",
			URL: &url.URL{Scheme: "http", Host: "127.0.0.1:" + g.Addr()[strings.LastIndex(g.Addr(), ":")+1:], Path: path},
		})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s; want %d", path, resp.Status, want)
		}
	}
}

func TestStartFailsWithoutTheTopic(t *testing.T) {
	w := newWorld(t)
	if err := w.pubsub.TopicAdminClient.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topology.Prefix{}.Topic(project, topology.Egress).String()}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.load(); status.Code(err) != codes.NotFound {
		t.Errorf("Start = %v; want not found", err)
	}
}

func TestInstanceIsUnreadyWithoutFirestore(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	w.stopStore()
	code, body := g.get("/readyz")
	if code != 503 || body["store"] != "unreachable" || body["subscription"] != "ok" {
		t.Errorf("/readyz = %d %v", code, body)
	}
	if code, _ := g.get("/healthz"); code != 200 {
		t.Errorf("/healthz = %d; a restart would not bring the store back", code)
	}
}

func TestRunWithEndedContextReleasesEverything(t *testing.T) {
	w := newWorld(t)
	i, err := w.load()
	if err != nil {
		t.Fatal(err)
	}
	if !w.subscribed(i.ID()) {
		t.Error("no subscription after Start")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := i.Run(ctx); err != nil {
		t.Errorf("Run = %v", err)
	}
	if w.subscribed(i.ID()) {
		t.Error("the subscription is still there")
	}
}

func TestMissedAnswersAreDeliveredOnConnect(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	token := w.token("twitch:1")
	first := w.answer("c1", "twitch:1", "", "while nobody was there")
	eventually(t, "ignored", func() bool { return w.delivered(g, "absent") })
	c := g.dial(token)
	if f := c.next(); f.Metadata["id"] != first || f.Payload["text"] != "while nobody was there" {
		t.Errorf("frame = %+v", f)
	}
	eventually(t, "delivered", func() bool { return w.state(first) == delivery.Delivered })
	c.Close()

	// a second answer reaches a second connection; the first client reconnects and receives only the second answer
	other := g.dial(token)
	second := w.answer("c2", "twitch:1", "", "to the other one")
	live := other.next()
	back := g.dial(token, first)
	f := back.next()
	if f.Metadata["id"] != second || f.Metadata["timestamp"] != live.Metadata["timestamp"] {
		t.Errorf("frame = %+v; the live frame was %+v", f, live)
	}
}

func TestTwitchChannelsNeedClientIDAndBot(t *testing.T) {
	base := []string{"GOOGLE_CLOUD_PROJECT=p", "TWITCH_CHANNELS=ada"}
	app := []string{"TWITCH_CLIENT_ID=id", "TWITCH_CLIENT_SECRET=s", "CREDENTIAL_KEY=file:/tmp/k"}
	tests := []struct {
		name    string
		environ []string
		ok      bool
	}{
		{"neither", nil, false},
		{"no bot", app, false},
		{"no application", []string{"TWITCH_BOT_USER_ID=1"}, false},
		{"both", append(app, "TWITCH_BOT_USER_ID=1"), true},
	}
	for _, tt := range tests {
		_, err := config.Load[instance.Config](append(slices.Clone(base), tt.environ...))
		if (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "TWITCH_CHANNELS: needs") {
			t.Errorf("%s: %v; want it valid: %v", tt.name, err, tt.ok)
		}
	}
}

func TestAnswersDoNotWaitForTheLedgerWrite(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	c := g.dial(w.token("twitch:123"))
	gate := make(chan struct{})
	w.settleGate.Store(&gate)
	var ids []string
	for i := range 3 { // all have the same ordering key
		id := w.answer(fmt.Sprint("c", i), "twitch:123", "", fmt.Sprint("answer ", i))
		ids = append(ids, id)
		if f := c.next(); f.Metadata["id"] != id {
			t.Errorf("frame %d = %+v; want %s", i, f, id)
		}
		if s := w.state(id); s != delivery.Pending {
			t.Errorf("answer %d is %s while Firestore waits", i, s)
		}
	}
	close(gate)
	for _, id := range ids {
		eventually(t, "recorded", func() bool { return w.state(id) == delivery.Delivered })
	}
}
