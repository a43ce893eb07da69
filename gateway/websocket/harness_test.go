package websocket

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"parley.internal/gateway/gatewaytest"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

const patience = gatewaytest.Patience

var eventually = gatewaytest.Eventually

// tokens is an in-memory implementation of Accounts.
type tokens struct {
	mu      sync.Mutex
	byHash  map[string]store.Token
	users   map[identity.UserID]store.User
	links   map[identity.UserID]identity.UserID
	people  int // reads of users
	lookups int
	touched []string
	broken  bool
}

func (s *tokens) Token(_ context.Context, hash string) (store.Token, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	if s.broken {
		return store.Token{}, false, errors.New("store is down")
	}
	t, ok := s.byHash[hash]
	return t, ok, nil
}

func (s *tokens) TouchToken(_ context.Context, hash string, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = append(s.touched, hash)
	return nil
}

func (s *tokens) User(_ context.Context, id identity.UserID) (store.User, store.Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.people++
	return s.users[id], store.Version{}, nil
}

func (s *tokens) LinkedUser(ctx context.Context, id, expected identity.UserID) (person identity.UserID, u store.User, v store.Version, broken, err error) {
	s.mu.Lock()
	person, linked := s.links[id]
	s.mu.Unlock()
	if !linked {
		person = id
	}
	u, v, err = s.User(ctx, person)
	return person, u, v, nil, err
}

// update changes the state.
func (s *tokens) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *tokens) put(raw string, t store.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byHash[store.TokenHash(raw)] = t
}

// publisher stores the published events. With a gate, each publish waits for a value from it. While broken, publishing
// fails.
type publisher struct {
	gate   chan struct{}
	events chan *event.Event
	asked  atomic.Int64 // number of calls
	mu     sync.Mutex
	err    error
	dead   []deadLetter
}

// deadLetter is a dead letter recorded by a publisher.
type deadLetter struct {
	topic topology.Topic
	event *event.Event
	why   *deadletter.Error
}

func (p *publisher) DeadLetter(_ context.Context, t topology.Topic, out bus.Outgoing, why *deadletter.Error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.dead = append(p.dead, deadLetter{t, out.Event, why})
	return nil
}

func (p *publisher) deadLetters() []deadLetter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.dead)
}

func (p *publisher) Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error {
	p.asked.Add(1)
	if p.gate != nil {
		select {
		case <-p.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	if t != topology.Ingress {
		return errors.New("not the ingress topic")
	}
	p.events <- out.Event
	return nil
}

func (p *publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// ledger counts the recorded deliveries. While broken, it fails.
type ledger struct {
	mu      sync.Mutex
	backlog func(got []string) (delivery.Backlog, error)
	rest    func(from time.Time) (delivery.Backlog, error)
	settled map[string]int
	state   delivery.State
	err     error
}

func (l *ledger) MarkDelivered(_ context.Context, ref delivery.Ref) (delivery.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled[ref.ID]++
	return l.state, l.err
}

func (l *ledger) Resume(_ context.Context, _ identity.UserID, got []string) (delivery.Backlog, error) {
	if l.backlog == nil {
		return delivery.Backlog{Recovered: true}, nil
	}
	return l.backlog(got)
}

func (l *ledger) Continue(_ context.Context, _ identity.UserID, _ []string, from delivery.Cursor) (delivery.Backlog, error) {
	return l.rest(from.From)
}

func (l *ledger) set(state delivery.State, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.err = state, err
}

func (l *ledger) times(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settled[id]
}

// listener makes connections with a signal for writes in progress.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &written{Conn: c}, nil
}

type written struct {
	net.Conn
	now atomic.Bool
}

func (c *written) Write(p []byte) (int, error) {
	c.now.Store(true)
	defer c.now.Store(false)
	return c.Conn.Write(p)
}

// fixture is a server on a real listener.
type fixture struct {
	*Server
	t         *testing.T
	http      *httptest.Server
	tokens    *tokens
	publisher *publisher
	ledger    *ledger
	clock     atomic.Pointer[time.Time] // the server's time; nil for the system's clock
	drain     func() error
}

func (f *fixture) serverTime() time.Time {
	if fixed := f.clock.Load(); fixed != nil {
		return *fixed
	}
	return time.Now()
}

func defaults(t testing.TB) Config {
	t.Helper()
	c, err := config.Load[Config](nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newFixture(t *testing.T, change func(c *Config)) *fixture {
	t.Helper()
	c := defaults(t)
	if change != nil {
		change(&c)
	}
	f := &fixture{
		t:         t,
		tokens:    &tokens{byHash: map[string]store.Token{}, users: map[identity.UserID]store.User{}, links: map[identity.UserID]identity.UserID{}},
		publisher: &publisher{events: make(chan *event.Event, 1000)},
		ledger:    &ledger{settled: map[string]int{}, state: delivery.Delivered},
	}
	var err error
	f.Server, err = New(c, Dependencies{
		Instance: "one", Accounts: f.tokens, Publisher: f.publisher, Ledger: f.ledger,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: f.serverTime,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewUnstartedServer(f.Server)
	f.http.Listener = listener{f.http.Listener}
	f.http.Start()
	f.drain = sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		return f.Drain(ctx)
	})
	t.Cleanup(func() {
		if err := f.drain(); err != nil {
			t.Errorf("drain: %v", err)
		}
		f.http.Close()
	})
	for _, user := range []string{"twitch:1", "twitch:2"} {
		f.tokens.put("token-"+user[len("twitch:"):], store.Token{UserID: user})
	}
	return f
}

// handshake tries to connect. The connection is nil after a refusal.
func (f *fixture) handshake(header http.Header, protocols ...string) (*gorilla.Conn, *http.Response) {
	f.t.Helper()
	d := gorilla.Dialer{Subprotocols: protocols}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(f.http.URL, "http")+Path, header)
	if err != nil && resp == nil {
		f.t.Fatal(err)
	}
	if conn != nil {
		f.t.Cleanup(func() { conn.Close() })
	}
	return conn, resp
}

// dialAs connects a user of the gateway itself. The test reads the first frame.
func (f *fixture) dialAs(user string) *client {
	f.t.Helper()
	f.tokens.put("token-"+user, store.Token{UserID: user})
	conn, resp := f.handshake(http.Header{"Authorization": {"Bearer token-" + user}})
	if conn == nil {
		f.t.Fatalf("refused: %s", resp.Status)
	}
	return &client{conn, f.t}
}

type received struct {
	Type     string         `json:"type"`
	Payload  map[string]any `json:"payload"`
	Metadata map[string]any `json:"metadata"`
}

// code returns the code of a chat.error frame; empty for other frames.
func (r received) code() ErrorCode {
	if r.Type != TypeError {
		return ""
	}
	code, _ := r.Payload["code"].(string)
	return ErrorCode(code)
}

type client struct {
	*gorilla.Conn
	t *testing.T
}

// dial connects the user twitch:N, and reads the first frame.
func (f *fixture) dial(n string) *client {
	f.t.Helper()
	conn, resp := f.handshake(http.Header{"Authorization": {"Bearer token-" + n}})
	if conn == nil {
		f.t.Fatalf("refused: %s", resp.Status)
	}
	c := &client{conn, f.t}
	r := c.next()
	if r.Type != TypeReady || r.Payload["user_id"] != "twitch:"+n || r.Payload["instance"] != "one" {
		f.t.Fatalf("first frame = %+v", r)
	}
	// the first frame is queued before the connection is counted
	c.join("lobby-of-" + n)
	return c
}

func (c *client) next() received {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	var r received
	if err := c.ReadJSON(&r); err != nil {
		c.t.Fatalf("next frame: %v", err)
	}
	return r
}

func (c *client) sendText(text string) {
	c.t.Helper()
	if err := c.WriteMessage(gorilla.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// join checks the connection by joining a room.
func (c *client) join(room string) {
	c.t.Helper()
	c.sendText(`{"type":"room.join","payload":{"room":"` + room + `"}}`)
	if r := c.next(); r.Type != TypeJoined {
		c.t.Fatalf("joining gave %+v", r)
	}
}

// closeCode reads until the end, and returns the code of the close frame, or 0 without a close frame.
func (c *client) closeCode() CloseCode {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			if closed, ok := errors.AsType[*gorilla.CloseError](err); ok && closed.Code != gorilla.CloseAbnormalClosure {
				return CloseCode(closed.Code)
			}
			if strings.Contains(err.Error(), "timeout") {
				c.t.Fatal("the connection did not end")
			}
			return 0
		}
	}
}

func (f *fixture) nextEvent() *event.Event {
	f.t.Helper()
	select {
	case e := <-f.publisher.events:
		return e
	case <-time.After(patience):
		f.t.Fatal("nothing was published")
		return nil
	}
}

// incoming makes an answer as received from the bus.
func incoming(id, user, room, text string) bus.Incoming {
	return bus.Incoming{
		Event: &event.Event{V: event.Version, Source: "api-gateway", CorrelationID: "c-" + id, Type: event.TypeChatMessage, UserID: user, Channel: room,
			Egress: &event.Egress{Destination: "api-gateway", Type: event.EgressChat}, Candidates: []event.Candidate{{Text: text}}},
		Attributes: map[string]string{delivery.AttrDelivery: id},
		Published:  time.Unix(1_700_000_000, 0),
	}
}

func (f *fixture) connections() int {
	n, _ := f.hub.counts()
	return n
}

func (f *fixture) outcome(name string) int {
	return count(f.t, f.metrics.deliveries.WithLabelValues(name))
}

func count(t *testing.T, c prometheus.Counter) int {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}
