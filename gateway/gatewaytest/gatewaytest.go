// Package gatewaytest is what the tests of a gateway's parts share: a bus and a store of a test's own, and instances that
// can be killed.
package gatewaytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	firestoreserver "parley.internal/emulator/firestore"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

// Patience is how long what has to happen may take, also on a slow machine.
const Patience = time.Minute

const project = "test-project"

// Eventually waits until something holds, and fails the test if it does not.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %s still not: %s", Patience, what)
		}
	}
}

// World is a bus and a store, on the embedded servers.
type World struct {
	Firestore *firestore.Client
	Ledger    *delivery.Ledger
	Sender    *delivery.Sender // of answers with a minute to their deadline

	t                  *testing.T
	busAddr, storeAddr string

	mu       sync.Mutex
	ingested []*event.Event
}

// NewWorld starts the servers, which end with the test.
func NewWorld(t *testing.T) *World {
	t.Helper()
	w := &World{t: t}
	ps, err := pubsubserver.New(pubsubserver.WithOnPublish(func(topic string, m *pubsubpb.PubsubMessage) {
		if !strings.HasSuffix(topic, string(topology.Ingress)) {
			return
		}
		e, err := event.Decode(m.Data)
		if err != nil {
			t.Errorf("published on ingress: %v", err)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ingested = append(w.ingested, e)
	}))
	w.must(err)
	t.Cleanup(func() { ps.Close() })
	fs, err := firestoreserver.New()
	w.must(err)
	t.Cleanup(func() { fs.Close() })
	w.busAddr, w.storeAddr = ps.Addr(), fs.Addr()
	pub, err := pubsub.NewClient(t.Context(), project, w.dial(w.busAddr))
	w.must(err)
	t.Cleanup(func() { pub.Close() })
	for _, topic := range topology.Topics() {
		_, err := pub.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topology.Prefix{}.Topic(project, topic).String()})
		w.must(err)
	}
	w.Firestore, err = firestore.NewClient(t.Context(), project, w.dial(w.storeAddr))
	w.must(err)
	t.Cleanup(func() { w.Firestore.Close() })
	w.Ledger = delivery.NewLedger(w.Firestore, "test", time.Now)
	b := w.Bus("test")
	t.Cleanup(func() { b.Close() })
	w.Sender = delivery.NewSender(w.Ledger, b, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
	return w
}

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Bus connects to the bus. It is the caller's to close.
func (w *World) Bus(source string) *bus.Client {
	w.t.Helper()
	b, err := bus.Open(w.t.Context(), config.Deployment{Project: project, Database: "(default)"}, source, slog.New(slog.DiscardHandler), w.dial(w.busAddr))
	w.must(err)
	return b
}

// dial connects to an embedded server until the test ends. The servers' addresses are not in the environment, so that
// tests can run in parallel.
func (w *World) dial(addr string) option.ClientOption {
	w.t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	w.t.Cleanup(func() { conn.Close() })
	return option.WithGRPCConn(conn)
}

// Events are what was published on ingress, of one type; all if it is empty.
func (w *World) Events(kind string) []*event.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []*event.Event
	for _, e := range w.ingested {
		if kind == "" || e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}

// Entry is what the ledger says of a delivery.
func (w *World) Entry(id string) delivery.Entry {
	w.t.Helper()
	e, err := w.Ledger.Get(w.t.Context(), id)
	w.must(err)
	return e
}

// Reaches waits until a delivery has a state.
func (w *World) Reaches(id, text string, state delivery.State) delivery.Entry {
	w.t.Helper()
	Eventually(w.t, fmt.Sprintf("%.40q is %s", text, state), func() bool { return w.Entry(id).State == state })
	return w.Entry(id)
}

// Run runs an instance, which gets by the bus what is for it, until stop is called. It closes the bus then.
func (w *World) Run(name string, b *bus.Client, run func(context.Context), deliver func(context.Context, bus.Incoming) error) (stop func()) {
	w.t.Helper()
	sub, err := b.Subscribe(w.t.Context(), name)
	w.must(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var tasks sync.WaitGroup
	tasks.Go(func() { run(ctx) })
	tasks.Go(func() {
		if err := sub.Receive(ctx, deliver); err != nil && ctx.Err() == nil {
			w.t.Errorf("%s: %v", name, err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		b.Close()
	})
	w.t.Cleanup(stop)
	return stop
}

// Network is an instance's only way to everybody else, so that it can be as good as dead at any moment.
type Network struct {
	killed chan struct{}

	mu        sync.Mutex
	cut, lost bool
	conns     []net.Conn
}

// NewNetwork makes a network on which everything is reached.
func NewNetwork() *Network { return &Network{killed: make(chan struct{})} }

var errDead = errors.New("the instance is dead")

// Alive is nil until Kill.
func (n *Network) Alive() error {
	select {
	case <-n.killed:
		return errDead
	default:
		return nil
	}
}

// Kill ends it: nothing reaches anybody any more.
func (n *Network) Kill() {
	close(n.killed)
	n.Cut()
}

// Cut ends the connections that Dial made, and those that it would make.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for _, c := range n.conns {
		c.Close()
	}
}

// Lose takes the store away, or gives it back.
func (n *Network) Lose(lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = lost
}

// Dial makes a connection.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := n.keep(nil); err != nil {
		return nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if err := n.keep(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// keep notes a connection that is to end with Cut, unless that is over; nil notes none.
func (n *Network) keep(c net.Conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return errors.New("no way there")
	}
	if c != nil {
		n.conns = append(n.conns, c)
	}
	return nil
}

// RoundTrip makes it the transport of an HTTP client.
func (n *Network) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := n.Alive(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	go func() { // ends with the request's context, which its sender ends
		defer cancel()
		select {
		case <-n.killed:
		case <-r.Context().Done():
		}
	}()
	res, err := http.DefaultTransport.RoundTrip(r.WithContext(ctx))
	if dead := n.Alive(); dead != nil {
		return nil, dead
	}
	return res, err
}

// reach is why the store can't be reached; nil if it can be. It is nothing that a client tries again.
func (n *Network) reach() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost || n.Alive() != nil {
		return status.Error(codes.PermissionDenied, "the store can't be reached")
	}
	return nil
}

// Store connects to a world's Firestore.
func (n *Network) Store(w *World) *firestore.Client {
	w.t.Helper()
	conn, err := grpc.NewClient(w.storeAddr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if err := n.reach(); err != nil {
				return err
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if err := n.reach(); err != nil {
				return nil, err
			}
			return stream(ctx, desc, cc, method, opts...)
		}))
	w.must(err)
	client, err := firestore.NewClient(context.Background(), project, option.WithGRPCConn(conn))
	w.must(err)
	w.t.Cleanup(func() { conn.Close() })
	return client
}
