package instance_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	gorilla "github.com/gorilla/websocket"
	"google.golang.org/grpc"

	firestoreserver "parley.internal/emulator/firestore"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/gateway/instance"
	"parley.internal/gateway/websocket"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

const (
	project  = "test-project"
	patience = gatewaytest.Patience
)

var eventually = gatewaytest.Eventually

// world is a Pub/Sub and a Firestore for one test.
type world struct {
	t         *testing.T
	env       []string
	firestore *firestore.Client
	reads     func() int64 // number of Firestore documents read so far
	stopStore func()
	pubsub    *pubsub.Client
	server    *pubsubserver.Server
	store     *store.Store
	ledger    *delivery.Ledger
	sender    *delivery.Sender
	ingress   chan *pubsubpb.PubsubMessage
	logs      *logBuffer

	settleGate    atomic.Pointer[chan struct{}] // while open, Firestore holds back every write of a settled delivery
	subscribeGate atomic.Pointer[chan struct{}] // while open, Pub/Sub holds back every new subscription

	mu        sync.Mutex
	published []*pubsubpb.PubsubMessage // all messages of all topics
}

// settles reports whether one of the writes marks a delivery as delivered.
func settles(writes []*firestorepb.Write) bool {
	return slices.ContainsFunc(writes, func(w *firestorepb.Write) bool {
		return w.GetUpdate().GetFields()["state"].GetStringValue() == string(delivery.Delivered)
	})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ingress: make(chan *pubsubpb.PubsubMessage, 1000), logs: &logBuffer{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	held := grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if gate := w.subscribeGate.Load(); gate != nil {
			if _, ok := req.(*pubsubpb.Subscription); ok {
				<-*gate
			}
		}
		return handler(ctx, req)
	})
	w.server, err = pubsubserver.New(pubsubserver.WithServerOptions(held), pubsubserver.WithOnPublish(func(topic string, m *pubsubpb.PubsubMessage) {
		w.mu.Lock()
		w.published = append(w.published, m)
		w.mu.Unlock()
		if strings.HasSuffix(topic, string(topology.Ingress)) {
			w.ingress <- m
		}
	}))
	must(err)
	t.Cleanup(func() { w.server.Close() })
	fs, err := firestoreserver.New(firestoreserver.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if gate := w.settleGate.Load(); gate != nil && ctx.Err() == nil {
			if r, ok := req.(interface{ GetWrites() []*firestorepb.Write }); ok && settles(r.GetWrites()) {
				<-*gate
			}
		}
		return handler(ctx, req)
	}))
	must(err)
	w.stopStore = sync.OnceFunc(func() { fs.Close() })
	t.Cleanup(w.stopStore)
	w.reads = func() int64 { return fs.Counts().Reads }
	t.Setenv("PUBSUB_EMULATOR_HOST", w.server.Addr())
	t.Setenv("FIRESTORE_EMULATOR_HOST", fs.Addr())
	w.env = []string{"GOOGLE_CLOUD_PROJECT=" + project, "LISTEN_ADDR=127.0.0.1:0"}

	w.pubsub, err = pubsub.NewClient(t.Context(), project)
	must(err)
	t.Cleanup(func() { w.pubsub.Close() })
	for _, topic := range topology.Topics() {
		_, err := w.pubsub.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topology.Prefix{}.Topic(project, topic).String()})
		must(err)
	}
	d := config.Deployment{Project: project, Database: "(default)"}
	w.firestore, err = store.Connect(t.Context(), d)
	must(err)
	t.Cleanup(func() { w.firestore.Close() })
	w.store = store.New(w.firestore)
	w.ledger = delivery.NewLedger(w.firestore, "test", time.Now)
	b, err := bus.Open(t.Context(), d, "test", slog.New(slog.DiscardHandler))
	must(err)
	t.Cleanup(func() { b.Close() })
	w.sender = delivery.NewSender(w.ledger, b, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
	return w
}

// token stores a token of a user and returns the raw token.
func (w *world) token(user string) string {
	w.t.Helper()
	raw := "secret-token-of-" + strings.ReplaceAll(user, ":", "-")
	if err := w.store.PutToken(w.t.Context(), store.TokenHash(raw), store.Token{UserID: user, CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}); err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// gateway is a running instance.
type gateway struct {
	*instance.Instance
	w    *world
	stop func() error // drains the instance and returns the error of Run
}

func (w *world) start(o instance.Options, env ...string) *gateway {
	w.t.Helper()
	c, err := config.Load[instance.Config](append(w.env, env...))
	if err != nil {
		w.t.Fatal(err)
	}
	o.Log, o.OpenMetrics = slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), true
	i, err := instance.Start(w.t.Context(), c, o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ran := make(chan error, 1)
	go func() { ran <- i.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ran
	})
	w.t.Cleanup(func() { stop() })
	return &gateway{Instance: i, w: w, stop: stop}
}

// get sends an HTTP request to the instance. header alternates names and values; the name Host sets the request's host.
func (g *gateway) get(path string, header ...string) (int, map[string]any) {
	g.w.t.Helper()
	req, err := http.NewRequestWithContext(g.w.t.Context(), http.MethodGet, "http://"+g.Addr()+path, nil)
	if err != nil {
		g.w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = req.Header.Get("Host")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	json.NewDecoder(resp.Body).Decode(&body) // some responses have no JSON body
	return resp.StatusCode, body
}

type frame struct {
	Type     string         `json:"type"`
	Payload  map[string]any `json:"payload"`
	Metadata map[string]any `json:"metadata"`
}

// client is a WebSocket client of an instance.
type client struct {
	*gorilla.Conn
	t *testing.T
}

// dial connects with the ids of the last received answers, and checks the first frame.
func (g *gateway) dial(token string, after ...string) *client {
	g.w.t.Helper()
	conn, resp, err := gorilla.DefaultDialer.Dial("ws://"+g.Addr()+websocket.Path+"?"+url.Values{"after": after}.Encode(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		status := ""
		if resp != nil {
			status = resp.Status
		}
		g.w.t.Fatalf("dial: %v %s", err, status)
	}
	g.w.t.Cleanup(func() { conn.Close() })
	c := &client{conn, g.w.t}
	if f := c.next(); f.Type != websocket.TypeReady || f.Payload["instance"] != g.ID() {
		g.w.t.Fatalf("first frame = %+v; want connection.ready of %s", f, g.ID())
	}
	return c
}

func (c *client) next() frame {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	var f frame
	if err := c.ReadJSON(&f); err != nil {
		c.t.Fatalf("next frame: %v", err)
	}
	return f
}

func (c *client) write(v any) {
	c.t.Helper()
	if err := c.WriteJSON(v); err != nil {
		c.t.Fatal(err)
	}
}

// barrier waits until the instance has processed all frames sent before, and returns the frames received until then.
func (c *client) barrier() []frame {
	c.t.Helper()
	c.write(map[string]any{"type": "room.leave", "payload": map[string]any{"room": "nowhere"}, "metadata": map[string]any{"id": "barrier"}})
	var before []frame
	for {
		f := c.next()
		if f.Type == websocket.TypeLeft && f.Metadata["replyTo"] == "barrier" {
			return before
		}
		before = append(before, f)
	}
}

func (w *world) nextIngress() *event.Event {
	w.t.Helper()
	select {
	case m := <-w.ingress:
		e, err := event.Decode(m.Data)
		if err != nil {
			w.t.Fatalf("%v in %s", err, m.Data)
		}
		return e
	case <-time.After(patience):
		w.t.Fatal("nothing was published")
		return nil
	}
}

// answer sends an answer and returns the id of its delivery.
func (w *world) answer(correlationID, user, room, text string) string {
	w.t.Helper()
	id, err := w.sender.Send(w.t.Context(), &event.Event{
		V: event.Version, Source: "api-gateway", CorrelationID: correlationID, Type: event.TypeChatMessage, UserID: user, Channel: room,
		Egress: &event.Egress{Destination: "api-gateway"}, Candidates: []event.Candidate{{ID: "a", Text: text}},
	}, "test")
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) state(id string) delivery.State {
	w.t.Helper()
	e, err := w.ledger.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return e.State
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func candidates(text string) []event.Candidate { return []event.Candidate{{ID: "a", Text: text}} }

// republish publishes an answer a second time, unchanged.
func (w *world) republish(id string) {
	w.t.Helper()
	w.mu.Lock()
	var found *pubsubpb.PubsubMessage
	for _, m := range w.published {
		if m.Attributes[delivery.AttrDelivery] == id {
			found = m
		}
	}
	w.mu.Unlock()
	if found == nil {
		w.t.Fatalf("delivery %s was not published", id)
	}
	p := w.pubsub.Publisher(topology.Prefix{}.Topic(project, topology.Egress).String())
	p.EnableMessageOrdering = true
	defer p.Stop()
	if _, err := p.Publish(w.t.Context(), &pubsub.Message{Data: found.Data, Attributes: found.Attributes, OrderingKey: found.OrderingKey}).Get(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// delivered reports whether the instance has counted a delivery with this outcome.
func (w *world) delivered(g *gateway, outcome string) bool {
	w.t.Helper()
	resp, err := http.Get("http://" + g.Addr() + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Contains(string(body), `parley_gateway_deliveries_total{outcome="`+outcome+`"} `)
}

func subscription(id string) string {
	return topology.Prefix{}.Subscription(project, topology.Gateway(id).Name).String()
}

func (w *world) subscribed(id string) bool {
	_, err := w.pubsub.SubscriptionAdminClient.GetSubscription(w.t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: subscription(id)})
	return err == nil
}

// load starts an instance without running it.
func (w *world) load() (*instance.Instance, error) {
	w.t.Helper()
	c, err := config.Load[instance.Config](w.env)
	if err != nil {
		w.t.Fatal(err)
	}
	return instance.Start(w.t.Context(), c, instance.Options{Log: slog.New(slog.DiscardHandler)})
}
