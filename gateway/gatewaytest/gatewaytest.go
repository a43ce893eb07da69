// Package gatewaytest helps the tests of the gateway's packages: a Pub/Sub and a Firestore for one test ([World]), a bus
// without subscribers ([SilentBus]), and a network for tests of crashed instances ([Network]). Only tests may import the
// package. The tests of packages twitch, discord and outbox cover the package.
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
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

// Patience is the longest wait for a condition. It is long because test machines can be slow.
const Patience = time.Minute

const project = "test-project"

// Eventually waits until holds returns true. It fails the test after [Patience].
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not reached within %s: %s", Patience, what)
		}
	}
}

// SilentBus is a bus without subscribers, for tests of the ledger alone: each publication succeeds and goes nowhere.
type SilentBus struct{}

// Publish implements [delivery.Publisher].
func (SilentBus) Publish(context.Context, topology.Topic, bus.Outgoing) error { return nil }

// Announce implements [delivery.Announcer].
func (SilentBus) Announce(context.Context, []byte, map[string]string, deadletter.Announcement) error {
	return nil
}

// World is a Pub/Sub and a Firestore for one test, on the embedded servers.
type World struct {
	Firestore *firestore.Client
	Ledger    *delivery.Ledger
	Sender    *delivery.Sender // sends answers with a deadline of one minute

	t                  *testing.T
	busAddr, storeAddr string

	mu       sync.Mutex
	ingested []*event.Event
}

// NewWorld starts the servers and sets the emulator variables of the environment. Everything ends with the test.
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

// Bus connects to Pub/Sub. The caller closes the client.
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

// Events returns the events of a type published on the ingress topic, in order. An empty type returns all events.
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

// Entry returns the ledger entry of a delivery.
func (w *World) Entry(id string) delivery.Entry {
	w.t.Helper()
	e, err := w.Ledger.Get(w.t.Context(), id)
	w.must(err)
	return e
}

// Reaches waits until a delivery has a state, and returns the entry. text describes the delivery in a failure.
func (w *World) Reaches(id, text string, state delivery.State) delivery.Entry {
	w.t.Helper()
	Eventually(w.t, fmt.Sprintf("%.40q is %s", text, state), func() bool { return w.Entry(id).State == state })
	return w.Entry(id)
}

// Run runs an instance and delivers the messages of the instance's subscription, until stop is called or the test ends.
// stop waits for run and closes the Pub/Sub client.
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

// Network carries all connections of an instance. A test can cut the network at any moment, as in a crash. It is safe
// for concurrent use.
type Network struct {
	killed chan struct{}

	mu        sync.Mutex
	cut, lost bool
	conns     []net.Conn
}

// NewNetwork makes a working network.
func NewNetwork() *Network { return &Network{killed: make(chan struct{})} }

var errDead = errors.New("the instance is dead")

// Alive returns nil before Kill, and an error afterwards.
func (n *Network) Alive() error {
	select {
	case <-n.killed:
		return errDead
	default:
		return nil
	}
}

// Kill fails every connection and request from now on, including Firestore's. It must be called at most once.
func (n *Network) Kill() {
	close(n.killed)
	n.Cut()
}

// Cut closes the connections made by Dial and fails new ones.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for _, c := range n.conns {
		c.Close()
	}
}

// Lose makes Firestore unreachable, or reachable again.
func (n *Network) Lose(lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = lost
}

// Dial makes a connection. It fails after Cut and Kill.
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

// keep registers a connection for Cut; nil registers none. It returns an error after Cut.
func (n *Network) keep(c net.Conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return errors.New("the network is cut")
	}
	if c != nil {
		n.conns = append(n.conns, c)
	}
	return nil
}

// RoundTrip implements [http.RoundTripper]. It fails after Kill, including requests in progress.
func (n *Network) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := n.Alive(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	go func() { // ends with the request's context
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

// storeError returns nil if Firestore is reachable. The code of the error is permanent, so that clients do not retry.
func (n *Network) storeError() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost || n.Alive() != nil {
		return status.Error(codes.PermissionDenied, "the store is unreachable")
	}
	return nil
}

// Store connects to the world's Firestore over this network.
func (n *Network) Store(w *World) *firestore.Client {
	w.t.Helper()
	conn, err := grpc.NewClient(w.storeAddr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if err := n.storeError(); err != nil {
				return err
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if err := n.storeError(); err != nil {
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
