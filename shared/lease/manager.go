// Package lease distributes keys among instances: at any time, at most one instance does the work of a key. A key is a
// channel of a chat platform, for example, and the work is to read and to answer the channel. Start at [Manager.Run].
// The package knows nothing about the work behind a key.
//
// Documents in Firestore:
//
//	leaseMembers/{session}   the membership of an instance, renewed every [Config.Heartbeat]
//	leases/{kind}:{key}      the session with the lease of a key, and the lease's token
//
// A lease is valid as long as its session. So an instance renews all leases with a single write. If the last heartbeat
// of a session is older than the session's [Config.TTL], the first instance to notice ends the session and so frees its
// leases. An ended session never continues: a heartbeat succeeds only if no other instance has written the document. So
// an instance that was paused or offline for too long finds its session ended, and begins a new session.
//
// Every write has such a condition, and no write is part of a transaction. Firestore can keep the documents of a
// transaction locked for a minute after the client has died or lost its network
// (https://cloud.google.com/firestore/quotas, "Writes and transactions"). Meanwhile no instance could claim the leases.
//
// Times of different instances are compared by Firestore's clock alone: the update time of a document against its read
// time (https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#document). An instance's own clock
// measures only the time since the start of the last heartbeat. An instance treats its leases as lost [Config.Margin]
// before other instances may claim the keys.
//
// The assignment of keys follows from the set of alive sessions, by rendezvous hashing
// (https://www.cs.umich.edu/~jwha/papers/hrw.pdf). When an instance joins or leaves, only its own keys move. For a short
// time, instances can see different sets. Then two instances want the same key, and only the faster one gets the lease.
package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/shared/retry"
)

// retention is the time until Firestore deletes an unused document (TTL policies of both collections).
const retention = 24 * time.Hour

// Options are the dependencies and callbacks of a [Manager].
type Options struct {
	Log     *slog.Logger          // required
	Metrics prometheus.Registerer // required; two managers of the same kind can't share a registry
	// Now is the clock for measuring durations; time.Now if nil. The offset does not matter.
	Now func() time.Time
	// Tasks lists the parts of a key's work for which a lease stores an idle-since time: see [Lease.IdleSince].
	Tasks []string
	// Idle returns how long the work of all keys may already have been interrupted, for example the time since the
	// last message on a shared, possibly dead connection. Each heartbeat stores the value. If the owner dies, the
	// idle-since time is the last heartbeat minus the value. Nil means 0.
	Idle func() time.Duration
}

// Manager is an instance's part in sharing the keys of a kind. A Manager is safe for concurrent use, but only one call
// of [Manager.Run] at a time is allowed.
type Manager struct {
	client   *firestore.Client
	kind     string
	instance string
	config   Config
	log      *slog.Logger
	now      func() time.Time
	tasks    []string
	idle     func() time.Duration
	metrics  *metrics
	members  atomic.Int64
	balancer atomic.Pointer[balancer] // nil without a session
}

// New makes a manager for an instance. The caller still owns the client and closes it. kind names the keys: "twitch". All
// instances of a kind must have the same configuration.
func New(client *firestore.Client, kind, instance string, c Config, o Options) (*Manager, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		client: client, kind: kind, instance: instance, config: c, log: o.Log.With("leases", kind), now: o.Now, tasks: o.Tasks, idle: o.Idle,
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.idle == nil {
		m.idle = func() time.Duration { return 0 }
	}
	var err error
	m.metrics, err = newMetrics(kind, o.Metrics, m.Moving)
	return m, err
}

// Members returns the number of alive sessions at the last read, at least 1. The manager's own session counts once it
// has joined.
func (m *Manager) Members() int { return max(1, int(m.members.Load())) }

// Moving returns the number of leases in transition at this instance: leases assigned but not yet owned, and leases
// owned but assigned elsewhere. If all instances return 0, and see the same members, no key moves.
func (m *Manager) Moving() int {
	b := m.balancer.Load()
	if b == nil {
		return 0
	}
	return b.moving()
}

// Holder does the work of a key until ctx ends, and then returns soon. The lease is given back after the holder
// returns. If it returns early, the instance to which the key is assigned claims the key again.
type Holder func(ctx context.Context, l Lease)

// Run takes part in sharing until ctx is done. It calls hold in a new goroutine for each owned key. When ctx is done,
// the context of every holder ends. After the last holder has returned, all leases are free at once, and Run returns.
// While Firestore is unreachable, Run keeps trying. Run calls keys at every heartbeat.
func (m *Manager) Run(ctx context.Context, keys func() []string, hold Holder) {
	for {
		s, err := m.join(ctx)
		if err == nil && s != nil {
			m.serve(ctx, s, keys, hold)
		}
		if err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "join failed", "error", err)
		}
		if retry.Sleep(ctx, m.jittered(m.config.Heartbeat)) != nil {
			return
		}
	}
}

// jittered returns d, reduced by up to a fifth at random: instances with the same start time then write at different
// times.
func (m *Manager) jittered(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// pause waits before another attempt after an error of Firestore.
func (m *Manager) pause(ctx context.Context) {
	_ = retry.Sleep(ctx, m.jittered(m.config.Heartbeat/4)) // the caller checks ctx
}

// serve shares the keys until the session is lost or ctx is done, and returns after the last holder.
func (m *Manager) serve(ctx context.Context, s *session, keys func() []string, hold Holder) {
	steady := context.WithoutCancel(ctx) // the leases stay valid until the holders have returned
	s.lost, s.lose = context.WithCancelCause(steady)
	defer s.lose(nil)
	keeping, stopKeeping := context.WithCancel(steady)
	kept := make(chan struct{})
	go func() { // ends with stopKeeping, or when the session is lost
		defer close(kept)
		m.keepAlive(keeping, s)
	}()

	b := &balancer{manager: m, session: s, hold: hold, held: map[string]*holding{}}
	m.balancer.Store(b)
	defer m.balancer.Store(nil)
	b.run(ctx, keys)
	b.wg.Wait()
	stopKeeping()
	<-kept
	if s.lost.Err() != nil {
		m.metrics.lost.Inc()
		m.log.ErrorContext(ctx, "leases lost", "error", context.Cause(s.lost))
		return
	}
	m.leave(steady, s)
}
