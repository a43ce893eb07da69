package lease

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/config"
)

// quick is a configuration with short times.
var quick = Config{TTL: 800 * time.Millisecond, Heartbeat: 120 * time.Millisecond, MaxMembers: 8}

// calm has a TTL too long to end on a busy machine: for tests without an expiring session.
var calm = Config{TTL: 6 * time.Second, Heartbeat: 200 * time.Millisecond, MaxMembers: 8}

// patience is the time limit of every expected event.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv("LEASE_TEST_CHILD") != "" {
		child()
		return
	}
	emulatortest.Main(m)
}

// The states of a network.
const (
	up      = iota
	cut     // requests fail at once
	stalled // requests wait
)

// network is an instance's breakable connection to Firestore.
type network struct {
	mu    sync.Mutex
	state int
	next  chan struct{} // closed when the state changes
	// intercept is called for a write of a lease, once before sending and once after storing, with the session named in
	// the write. Its error becomes the result of the write. Nil intercepts nothing.
	intercept func(ctx context.Context, session string, stored bool) error
}

func newNetwork() *network { return &network{next: make(chan struct{})} }

func (n *network) set(state int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = state
	close(n.next)
	n.next = make(chan struct{})
}

// interceptWrites sets the function for the writes of leases.
func (n *network) interceptWrites(intercept func(ctx context.Context, session string, stored bool) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.intercept = intercept
}

func (n *network) pass(ctx context.Context) error {
	for {
		n.mu.Lock()
		state, next := n.state, n.next
		n.mu.Unlock()
		switch state {
		case up:
			return nil
		case cut:
			return status.Error(codes.Unavailable, "the network is cut")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}

func (n *network) interceptWrite(ctx context.Context, req any, stored bool) error {
	n.mu.Lock()
	intercept := n.intercept
	n.mu.Unlock()
	commit, ok := req.(*pb.CommitRequest)
	if intercept == nil || !ok || len(commit.Writes) != 1 {
		return nil
	}
	doc := commit.Writes[0].GetUpdate()
	if session, ok := doc.GetFields()["session"]; ok && strings.Contains(doc.GetName(), "/leases/") {
		return intercept(ctx, session.GetStringValue(), stored)
	}
	return nil
}

// dial connects to the Firestore at addr through the network.
func (n *network) dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	return emulatortest.Dial(t, addr,
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if err := cmp.Or(n.pass(ctx), n.interceptWrite(ctx, req, false)); err != nil {
				return err
			}
			if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
				return err
			}
			return cmp.Or(n.interceptWrite(ctx, req, true), n.pass(ctx)) // the answer passes the same network
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if err := n.pass(ctx); err != nil {
				return nil, err
			}
			return stream(ctx, desc, cc, method, opts...)
		}))
}

// world observes all instances of a test: the leases of each, and every conflict between two.
type world struct {
	t    *testing.T
	env  emulatortest.Env
	keys []string

	mu        sync.Mutex
	leases    map[string]map[*instance]Lease // by key
	tokens    map[string]int64               // the greatest seen, by key
	conflicts []string
}

func newWorld(t *testing.T, env emulatortest.Env, keys int) *world {
	w := &world{t: t, env: env, leases: map[string]map[*instance]Lease{}, tokens: map[string]int64{}}
	for i := range keys {
		w.keys = append(w.keys, fmt.Sprintf("room%d", i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.watch()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for _, c := range w.conflicts {
			t.Error(c)
		}
	})
	return w
}

// watch records a conflict for each key with two valid leases.
func (w *world) watch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, leases := range w.leases {
		for a, la := range leases {
			for b, lb := range leases {
				if a != b && la.Valid() && lb.Valid() && la.Valid() {
					w.conflicts = append(w.conflicts, fmt.Sprintf("%s: %s and %s both have a valid lease", key, a.name, b.name))
				}
			}
		}
	}
}

// holder returns the owner of a key; nil for none.
func (w *world) holder(key string) *instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, l := range w.leases[key] {
		if l.Valid() {
			return i
		}
	}
	return nil
}

// shares counts the keys of each instance.
func (w *world) shares() map[*instance]int {
	n := map[*instance]int{}
	for _, key := range w.keys {
		if i := w.holder(key); i != nil {
			n[i]++
		}
	}
	return n
}

func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			w.t.Fatalf("waited %s for %s; shares are %v", patience, what, w.shares())
		case <-tick.C:
		}
	}
}

// shared reports whether exactly the given instances own all keys.
func (w *world) shared(among ...*instance) func() bool {
	return func() bool {
		total := 0
		for i, n := range w.shares() {
			if !slices.Contains(among, i) {
				return false
			}
			total += n
		}
		return total == len(w.keys)
	}
}

// settled reports whether exactly the given instances own all keys, and no key moves.
func (w *world) settled(among ...*instance) func() bool {
	return func() bool {
		return w.shared(among...)() && !slices.ContainsFunc(among, func(i *instance) bool {
			return i.manager.Members() != len(among) || i.manager.Moving() != 0
		})
	}
}

type instance struct {
	name    string
	network *network
	manager *Manager
	metrics *prometheus.Registry
	begin   func()
	stop    context.CancelFunc
	stopped chan struct{}
}

// start makes an instance and lets it join.
func (w *world) start(name string, c Config, skew time.Duration) *instance {
	w.t.Helper()
	i := w.prepare(name, c, skew)
	i.begin()
	return i
}

// prepare makes an instance for joining at a call of begin.
func (w *world) prepare(name string, c Config, skew time.Duration) *instance {
	w.t.Helper()
	i := &instance{name: name, network: newNetwork(), metrics: prometheus.NewRegistry(), stopped: make(chan struct{})}
	client := dial(w.t, w.env.Project, option.WithGRPCConn(i.network.dial(w.t, w.env.Firestore)))
	var err error
	i.manager, err = New(client, "test", name, c, Options{
		Log: slog.New(slog.DiscardHandler), Metrics: i.metrics, Now: func() time.Time { return time.Now().Add(skew) },
		Tasks: []string{"work"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	i.stop = stop
	begun := make(chan struct{})
	i.begin = func() { close(begun) }
	go func() { // ends with stop
		defer close(i.stopped)
		select {
		case <-begun:
		case <-ctx.Done():
		}
		i.manager.Run(ctx, func() []string { return w.keys }, func(ctx context.Context, l Lease) {
			w.mu.Lock()
			if w.leases[l.Key()] == nil {
				w.leases[l.Key()] = map[*instance]Lease{}
			}
			w.leases[l.Key()][i] = l
			if l.Token() <= w.tokens[l.Key()] {
				w.conflicts = append(w.conflicts, fmt.Sprintf("%s: token %d after %d", l.Key(), l.Token(), w.tokens[l.Key()]))
			}
			w.tokens[l.Key()] = l.Token()
			w.mu.Unlock()
			<-ctx.Done()
			// the lease stays in the map: a lost lease must not become valid again
		})
	}()
	w.t.Cleanup(func() {
		i.network.set(cut)
		stop()
		<-i.stopped
	})
	return i
}

// crash ends an instance without releasing its leases.
func (i *instance) crash() {
	i.network.set(cut)
	i.stop()
	<-i.stopped
}

func value(m prometheus.Metric) float64 {
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		panic(err)
	}
	return d.GetCounter().GetValue()
}

// own returns env with a separate project for a parallel subtest.
func own(env emulatortest.Env, subtest string) emulatortest.Env {
	env.Project += "-" + strings.ReplaceAll(subtest, " ", "-")
	return env
}

func dial(t *testing.T, project string, opts ...option.ClientOption) *firestore.Client {
	t.Helper()
	client, err := firestore.NewClient(context.Background(), project, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestKeysAreSharedAndMoveOnJoinAndLeave(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 64) // enough keys to make the minimum shares below certain
		a := w.start("a", calm, 0)
		w.wait("a to own all", w.settled(a))
		b := w.start("b", calm, 0)
		w.wait("a and b to share", w.settled(a, b))
		if n := w.shares(); n[a] < 4 || n[b] < 4 {
			t.Errorf("a has %d keys and b %d of %d; want about the same", n[a], n[b], len(w.keys))
		}
		before := map[string]*instance{}
		for _, key := range w.keys {
			before[key] = w.holder(key)
		}
		c := w.start("c", calm, 0)
		w.wait("three to share", w.settled(a, b, c))
		if n := w.shares()[c]; n < 2 {
			t.Errorf("c has %d keys of %d; want about a third", n, len(w.keys))
		}
		for _, key := range w.keys {
			if now := w.holder(key); now != c && now != before[key] {
				t.Errorf("%s went from %s to %s when c came", key, before[key].name, now.name)
			}
		}
		b.stop()
		w.wait("a and c to share", w.settled(a, c))
	})
}

func TestKeysAreClaimedAfterACrash(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 16)
		// clocks that are 20 s apart
		a, b := w.start("a", quick, 10*time.Second), w.start("b", quick, -10*time.Second)
		w.wait("a and b to share", func() bool { return w.shared(a, b)() && w.shares()[a] > 0 })
		began := time.Now()
		a.crash()
		w.wait("b to own all", w.shared(b))
		// with the default configuration this takes less than 15 s: a TTL of 10 s, a heartbeat of 2.5 s, and the claims
		t.Logf("claims took %s with a TTL of %s and a heartbeat of %s", time.Since(began), quick.TTL, quick.Heartbeat)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, key := range w.keys {
			_, ownedByA := w.leases[key][a]
			if l := w.leases[key][b]; ownedByA && time.Since(l.IdleSince("work")).Abs() > time.Minute {
				t.Errorf("%s: idle since %s; want the last heartbeat of the previous owner", key, l.IdleSince("work"))
			}
		}
	})
}

func TestLeasesOfADisconnectedInstanceEndBeforeOthersClaimThem(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		for name, state := range map[string]int{"cut": cut, "stalled": stalled} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, own(env, name), 3)
				a := w.start("a", quick, 0)
				w.wait("a to own all", w.shared(a))
				a.network.set(state)
				b := w.start("b", quick, 0)
				w.wait("b to own all", w.shared(b))
				a.network.set(up)
				w.wait("both to share again", func() bool { return w.shared(a, b)() && w.shares()[a] > 0 || len(w.keys) == w.shares()[b] })
				a.stop()
				b.stop()
				<-a.stopped
				<-b.stopped
			})
		}
	})
}

func TestLeasesReturnAfterAnOutageOfFirestore(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 6)
		a, b := w.start("a", quick, 0), w.start("b", quick, 0)
		w.wait("a and b to share", w.shared(a, b))
		lost := func() float64 {
			return value(a.manager.metrics.lost) + value(b.manager.metrics.lost)
		}
		for _, n := range []*network{a.network, b.network} {
			n.set(cut)
		}
		failed := value(a.manager.metrics.heartbeats.WithLabelValues("failed"))
		w.wait("a heartbeat to fail", func() bool { // on a slow machine, the sessions may end before the next heartbeat
			return value(a.manager.metrics.heartbeats.WithLabelValues("failed")) > failed || len(w.shares()) == 0
		})
		for _, n := range []*network{a.network, b.network} {
			n.set(up)
		}
		w.wait("all to be owned", w.shared(a, b))
		if lost() > 0 {
			t.Log("a short outage ended leases; possible on a slow machine")
		}
		for _, n := range []*network{a.network, b.network} {
			n.set(cut)
		}
		w.wait("all to be lost", func() bool { return len(w.shares()) == 0 })
		for _, n := range []*network{a.network, b.network} {
			n.set(up)
		}
		w.wait("all to be owned again", w.shared(a, b))
	})
}

func TestNoKeyHasTwoOwnersDuringRandomFailures(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 5)
		var all []*instance
		for n := range 4 {
			all = append(all, w.start(fmt.Sprint("i", n), quick, time.Duration(n-2)*5*time.Second))
		}
		for n := range 6 {
			victim := rand.N(len(all))
			switch rand.N(4) {
			case 0:
				all[victim].crash()
				all[victim] = w.start(fmt.Sprint("new", n), quick, time.Duration(rand.N(21)-10)*time.Second)
			case 1:
				all[victim].stop()
				<-all[victim].stopped
				all[victim] = w.start(fmt.Sprint("new", n), quick, 0)
			case 2:
				all[victim].network.set(stalled)
			case 3:
				all[victim].network.set(cut)
			}
			select {
			case <-t.Context().Done():
			case <-time.After(rand.N(quick.TTL)):
			}
			all[victim].network.set(up)
		}
		w.wait("all to be owned after the failures", w.shared(all...))
	})
}

func TestOneWriteRenewsAllLeases(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 40)
		a := w.start("a", calm, 0)
		w.wait("a to own all", w.shared(a))
		beats := func() float64 { return value(a.manager.metrics.heartbeats.WithLabelValues("ok")) }
		writes := func() (n float64) {
			for _, purpose := range []string{"join", "take", "release", "end", "leave"} {
				n += value(a.manager.metrics.writes.WithLabelValues(purpose))
			}
			return n
		}
		if got := writes(); got != 41 {
			t.Errorf("%v writes at the start; want one for the session and one for each of 40 keys", got)
		}
		until := beats() + 4
		w.wait("four heartbeats", func() bool { return beats() >= until })
		if got := writes(); got != 41 {
			t.Errorf("%v writes during four heartbeats; want only the heartbeats themselves", got-41)
		}
	})
}

func TestAFailedReleaseIsRetried(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		for name, whenStored := range map[string]bool{"not stored": false, "stored without an answer": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, own(env, name), 16)
				a := w.start("a", calm, 0)
				w.wait("a to own all", w.settled(a))
				var failed atomic.Int32
				a.network.interceptWrites(func(_ context.Context, session string, stored bool) error {
					if session == "" && stored == whenStored && failed.Add(1) <= 3 {
						return status.Error(codes.Internal, "broken")
					}
					return nil
				})
				b := w.start("b", calm, 0)
				w.wait("a and b to share", func() bool { return failed.Load() > 0 && w.settled(a, b)() })
				a.stop()
				b.stop()
				<-a.stopped
				<-b.stopped
			})
		}
	})
}

// TestALateClaimIsReleased reassigns keys during their claims. The new instance gets the keys after every outcome of the
// write.
func TestALateClaimIsReleased(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		for name, answer := range map[string]error{
			"late answer": nil, "no answer": status.Error(codes.Internal, "broken"), "retried": status.Error(codes.Unavailable, "broken"),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, own(env, name), maxClaims)
				a := w.prepare("a", calm, 0)
				var asked atomic.Int32
				a.network.interceptWrites(func(ctx context.Context, session string, stored bool) error {
					if session == "" || !stored || asked.Add(1) > maxClaims {
						return nil
					}
					for a.manager.Members() < 2 { // cancelUnassigned runs before Members changes
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-time.After(time.Millisecond):
						}
					}
					return answer
				})
				a.begin()
				w.wait("a to claim all", func() bool { return asked.Load() >= maxClaims })
				b := w.start("b", calm, 0)
				w.wait("a and b to share", w.settled(a, b))
				a.stop()
				b.stop()
				<-a.stopped
				<-b.stopped
			})
		}
	})
}

func TestLeavingDoesNotWaitForFailedReleases(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 16)
		a := w.start("a", calm, 0)
		w.wait("a to own all", w.settled(a))
		var failed atomic.Int32
		a.network.interceptWrites(func(ctx context.Context, session string, _ bool) error {
			if session != "" {
				return nil
			}
			if failed.Add(1)%2 == 0 {
				return status.Error(codes.Internal, "broken")
			}
			<-ctx.Done()
			return ctx.Err()
		})
		b := w.start("b", calm, 0)
		w.wait("a to fail", func() bool { return failed.Load() > 1 })
		a.stop()
		began := time.Now()
		<-a.stopped
		if took := time.Since(began); took > calm.TTL/4 {
			t.Errorf("it took %s to leave", took)
		}
		w.wait("b to own all", w.settled(b))
		if took := time.Since(began); took > calm.TTL {
			t.Errorf("it took %s until all were owned; want the leases free when a left", took)
		}
	})
}

func TestMaxMembersLimitsTheGroup(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 8)
		c := quick
		c.MaxMembers = 1
		a := w.start("a", c, 0)
		w.wait("a to own all", w.shared(a))
		b := w.start("b", c, 0)
		w.wait("b to have read the members", func() bool { return b.manager.members.Load() == 1 })
		if n := w.shares()[b]; n != 0 {
			t.Errorf("b has %d keys; want none while the group is full", n)
		}
		a.crash()
		w.wait("b to join", w.shared(b))
	})
}

func TestALeaseIsReleasedWhenItsHolderReturns(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := dial(t, env.Project, env.FirestoreOption(t))
		m, err := New(client, "test", "a", quick, Options{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Tasks: []string{"work"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var under, times atomic.Int32
		var first Lease
		m.Run(ctx, func() []string { return []string{"any/key with ü"} }, func(_ context.Context, l Lease) {
			if under.Add(1) > 1 {
				t.Error("two holders of one key at a time")
			}
			defer under.Add(-1)
			if times.Add(1) == 1 {
				first = l
				return
			}
			if first.Valid() || !l.Valid() || l.Token() <= first.Token() || l.IdleSince("work").IsZero() {
				t.Errorf("first %+v (valid %t), then %+v (valid %t)", first, first.Valid(), l, l.Valid())
			}
			cancel()
		})
		if times.Load() < 2 {
			t.Error("the key was not claimed again")
		}
	})
}

// sessionHolder is a session without a balancer: a test claims and releases keys by hand.
type sessionHolder struct {
	*Manager
	session *session
}

func newSession(t *testing.T, client *firestore.Client, name string, idle time.Duration) sessionHolder {
	t.Helper()
	m, err := New(client, "test", name, calm, Options{
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Tasks: []string{"chat", "events"},
		Idle: func() time.Duration { return idle },
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.join(t.Context())
	for limit := time.Now().Add(patience); err != nil && time.Now().Before(limit); { // Run tries again, too
		s, err = m.join(t.Context())
	}
	if err != nil || s == nil {
		t.Fatalf("join: %v, %v", s, err)
	}
	s.lost, s.lose = context.WithCancelCause(t.Context())
	return sessionHolder{m, s}
}

func (h sessionHolder) lease(t *testing.T, key string) Lease {
	t.Helper()
	l, err := h.acquire(t.Context(), h.session, key)
	if err != nil || !l.Valid() {
		t.Fatalf("%s claims %s: %+v, %v", h.instance, key, l, err)
	}
	return l
}

// die ends the session in the way of another instance, and returns the time of the last heartbeat.
func (h sessionHolder) die(t *testing.T) time.Time {
	t.Helper()
	if err := h.endSession(t.Context(), member{id: h.session.id, instance: h.instance, updatedAt: h.session.version}); err != nil {
		t.Fatal(err)
	}
	snap, err := h.memberDoc(h.session.id).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var d memberDoc
	if err := snap.DataTo(&d); err != nil || !d.Ended {
		t.Fatalf("after its end: %+v, %v", d, err)
	}
	return d.Heartbeat
}

func TestIdleSinceIsKeptUntilAnOwnerChangesIt(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := dial(t, env.Project, env.FirestoreOption(t))
		idle := func(l Lease, task string, want time.Time) {
			t.Helper()
			if got := l.IdleSince(task); !got.Equal(want) {
				t.Errorf("owner %s: %s idle since %s; want %s", l.manager.instance, task, got, want)
			}
		}
		set := func(l Lease, task string, since time.Time) {
			t.Helper()
			if err := l.SetIdleSince(t.Context(), task, since); err != nil {
				t.Fatal(err)
			}
		}

		a := newSession(t, client, "a", 0)
		l := a.lease(t, "room")
		idle(l, "chat", time.Time{}) // the key never had an owner
		idle(l, "events", time.Time{})
		a.die(t) // before doing a task

		b := newSession(t, client, "b", 0) // dies in the same way
		l = b.lease(t, "room")
		began := l.IdleSince("chat")
		if age := time.Since(began); age < -time.Minute || age > time.Minute {
			t.Errorf("idle since %s; want the time of the first owner", began)
		}
		idle(l, "events", began)
		b.die(t)

		c := newSession(t, client, "c", 0) // does one of two tasks
		l = c.lease(t, "room")
		idle(l, "chat", began)
		set(l, "chat", time.Time{})
		died := c.die(t)

		d := newSession(t, client, "d", 0) // loses its connection, and releases the key
		l = d.lease(t, "room")
		idle(l, "chat", died)
		idle(l, "events", began)
		broken := died.Add(-time.Minute)
		set(l, "events", time.Time{})
		set(l, "chat", time.Time{})
		set(l, "chat", broken)
		d.release(t.Context(), l)

		e := newSession(t, client, "e", 30*time.Second) // dies after 30 s without a message
		last := l
		l = e.lease(t, "room")
		idle(l, "chat", broken)
		if got := l.IdleSince("events"); !got.After(died) {
			t.Errorf("events: idle since %s; want the time of the release, after %s", got, died)
		}
		if err := last.SetIdleSince(t.Context(), "chat", time.Time{}); !errors.Is(err, ErrLost) {
			t.Errorf("d changes a lease of e: %v", err)
		}
		set(l, "chat", time.Time{})
		set(l, "events", time.Time{})
		died = e.die(t)

		l = newSession(t, client, "f", 0).lease(t, "room")
		idle(l, "chat", died.Add(-30*time.Second))
		idle(l, "events", died.Add(-30*time.Second))
	})
}

// TestAnAbortedClaimLocksNothing aborts a claim at various points, like an instance without a network.
func TestAnAbortedClaimLocksNothing(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := dial(t, env.Project, env.FirestoreOption(t))
		a, b := newSession(t, client, "a", 0), newSession(t, client, "b", 0)
		a.lease(t, "room")
		a.die(t)
		for after := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(after)*200*time.Microsecond)
			if l, err := b.acquire(ctx, b.session, "room"); err == nil && l.session != nil {
				b.release(t.Context(), l)
			}
			cancel()
		}
		c := newSession(t, client, "c", 0)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for l := (Lease{}); l.session == nil; {
			var err error
			if l, err = c.acquire(ctx, c.session, "room"); err != nil {
				t.Fatal(err)
			}
			if l.session == nil { // a claim of b may be stored without an answer
				b.die(t)
			}
		}
	})
}

// child runs an instance in its own process. It prints the validity of every lease, each with the time of the check.
func child() {
	client, err := firestore.NewClient(context.Background(), os.Getenv("LEASE_TEST_CHILD"))
	if err != nil {
		panic(err)
	}
	m, err := New(client, "test", "child", quick, Options{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		panic(err)
	}
	m.Run(context.Background(), func() []string { return []string{"room0"} }, func(ctx context.Context, l Lease) {
		for tick := time.Tick(500 * time.Microsecond); ctx.Err() == nil; <-tick {
			asked := time.Now().UnixNano()
			fmt.Println(asked, l.Valid(), l.Token())
		}
		fmt.Println(time.Now().UnixNano(), "left", l.Token())
	})
}

func TestALeaseIsInvalidAfterItsProcessWasStopped(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		w := newWorld(t, env, 1)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LEASE_TEST_CHILD="+env.Project, "FIRESTORE_EMULATOR_HOST="+env.Firestore)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		var mu sync.Mutex
		var lastToken, took int64 // took is the time of b's claim
		var violations []string
		left := make(chan struct{})
		owned := make(chan struct{})
		go func() { // ends with the child
			lines := bufio.NewScanner(out)
			once, onceLeft := new(sync.Once), new(sync.Once)
			for lines.Scan() {
				f := strings.Fields(lines.Text())
				if len(f) != 3 {
					continue
				}
				at, _ := strconv.ParseInt(f[0], 10, 64)
				token, _ := strconv.ParseInt(f[2], 10, 64)
				mu.Lock()
				switch f[1] {
				case "true":
					lastToken = token
					once.Do(func() { close(owned) })
					if took != 0 && at > took {
						violations = append(violations, lines.Text())
					}
				case "left":
					onceLeft.Do(func() { close(left) })
				}
				mu.Unlock()
			}
		}()
		await := func(what string, c <-chan struct{}) {
			t.Helper()
			select {
			case <-c:
			case <-time.After(patience):
				t.Fatalf("waited for %s", what)
			}
		}
		await("the child to own the key", owned)
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		b := w.start("b", quick, 0)
		w.wait("b to claim", w.shared(b))
		now := time.Now().UnixNano()
		mu.Lock()
		took = now
		token := lastToken
		mu.Unlock()
		if w.tokens["room0"] <= token {
			t.Errorf("b's token %d is not greater than the child's, %d", w.tokens["room0"], token)
		}
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		await("the child to notice", left)
		mu.Lock()
		defer mu.Unlock()
		if len(violations) > 0 && w.holder("room0") == b {
			t.Errorf("after the stop, the child's lease was valid: %v", violations[:min(len(violations), 3)])
		}
	})
}

func TestConfig(t *testing.T) {
	c, err := config.Load[Config](nil)
	if err != nil {
		t.Fatal(err)
	}
	if worst := c.TTL + c.Heartbeat + c.Heartbeat/2; worst > 15*time.Second {
		t.Errorf("a crash is noticed after %s by default; want at most 15 s", worst)
	}
	for _, environ := range [][]string{{"LEASE_BEAT=9s"}, {"LEASE_BEAT=0"}, {"LEASE_SEATS=0"}} {
		if _, err := config.Load[Config](environ); err == nil {
			t.Errorf("%v is accepted", environ)
		}
	}
}
