package lease

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/retry"
	"parley.internal/shared/store"
)

// maxClaims is the number of concurrent claims.
const maxClaims = 8

// balancer claims the keys assigned to a session, and releases all other keys.
type balancer struct {
	manager *Manager
	session *session
	hold    Holder
	wg      sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	held     map[string]*holding
	assigned []string // the keys assigned to the session
}

// holding is a key with a lease, or with a claim in progress.
type holding struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	owned  bool
}

// run claims and releases keys until ctx is done or the session is lost.
func (b *balancer) run(ctx context.Context, keys func() []string) {
	m, s := b.manager, b.session
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.lost, func() { cancel(context.Cause(s.lost)) })()
	claiming := new(errgroup.Group)
	claiming.SetLimit(maxClaims)
	defer claiming.Wait() //nolint:errcheck // the functions return no error
	var alive []member
	readAt := time.Time{}
	for {
		if now := time.Now(); now.Sub(readAt) >= m.config.Heartbeat*3/4 {
			found, err := m.aliveMembers(ctx)
			if err != nil && ctx.Err() == nil {
				m.log.WarnContext(ctx, "reading the members failed", "error", err)
			} else if err == nil {
				alive, readAt = found, now
			}
		}
		pending := false
		if ctx.Err() == nil {
			assigned := assignedKeys(m.kind, s.id, alive, keys())
			b.cancelUnassigned(assigned)
			m.members.Store(int64(len(alive)))
			for _, key := range assigned {
				if h, ok := b.reserve(ctx, key); ok {
					pending = true
					claiming.Go(func() error { // ends when the claim is refused, or when the holder has started
						b.claim(ctx, h, key)
						return nil
					})
				}
			}
		}
		wait := m.jittered(m.config.Heartbeat)
		if pending {
			wait = m.config.Heartbeat / 4 // the previous owner may be about to release a key
		}
		if retry.Sleep(ctx, wait) != nil {
			return // the context of every holder ends with ctx
		}
	}
}

// assignedKeys returns the keys assigned to a session, given the alive sessions: the keys for which the session has the
// highest score. The result is empty if the session is not in alive, because other instances may not see it either.
func assignedKeys(kind, session string, alive []member, keys []string) []string {
	score := func(member, key string) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s|%s|%s", kind, key, member) // never fails
		x := h.Sum64()
		// The upper bits of FNV hardly depend on the last bytes. The finalizer of SplitMix64 spreads the differences.
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	if !slices.ContainsFunc(alive, func(m member) bool { return m.id == session }) {
		return nil
	}
	var assigned []string
	for _, key := range keys {
		own := score(session, key)
		if !slices.ContainsFunc(alive, func(m member) bool { return m.id != session && score(m.id, key) > own }) {
			assigned = append(assigned, key)
		}
	}
	return assigned
}

// moving implements [Manager.Moving].
func (b *balancer) moving() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	moving := 0
	for _, key := range b.assigned {
		if h := b.held[key]; h == nil || !h.owned {
			moving++
		}
	}
	for key, h := range b.held {
		if h.owned && !slices.Contains(b.assigned, key) {
			moving++
		}
	}
	return moving
}

// cancelUnassigned stores the assignment, and ends the holders of all other keys.
func (b *balancer) cancelUnassigned(assigned []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.assigned = assigned
	for key, h := range b.held {
		if !slices.Contains(assigned, key) {
			h.cancel(ErrMoved)
		}
	}
}

// reserve makes a holding for a key, or reports false if the key already has a holding.
func (b *balancer) reserve(ctx context.Context, key string) (*holding, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[key] != nil {
		return nil, false
	}
	h := new(holding)
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	b.held[key] = h
	return h, true
}

func (b *balancer) unreserve(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[key].cancel(nil)
	delete(b.held, key)
}

// claim claims a key if it is free, and starts the holder. ctx ends with the session, or shortly before.
//
// While the session lives, claim unreserves a key only if the session certainly does not own the lease. Other instances
// never claim the lease of an alive session. If this session owned a lease without knowing it, no instance would do the
// work of the key. For the same reason, claim continues when the key is assigned to a different instance meanwhile, and
// releases the lease afterwards.
func (b *balancer) claim(ctx context.Context, h *holding, key string) {
	m := b.manager
	l, err := b.acquire(ctx, key)
	if l.session == nil && !errors.Is(err, errUncertain) {
		b.unreserve(key)
		return
	}
	b.wg.Go(func() { // ends after the holder has returned and the lease is released, or soon after ctx
		defer b.unreserve(key)
		for err != nil {
			if m.pause(ctx); ctx.Err() != nil {
				return
			}
			l, err = b.acquire(ctx, key)
		}
		if l.session == nil {
			return
		}
		b.mu.Lock()
		h.owned = true
		b.mu.Unlock()
		m.metrics.taken.Inc()
		m.metrics.held.Inc()
		defer m.metrics.held.Dec()
		m.log.InfoContext(ctx, "lease claimed", "key", key, "token", l.token)
		if h.ctx.Err() == nil {
			b.hold(h.ctx, l)
		}
		l.released.Store(true)
		m.release(ctx, l)
	})
}

func (b *balancer) acquire(ctx context.Context, key string) (Lease, error) {
	l, err := b.manager.acquire(ctx, b.session, key)
	if err != nil && !store.IsConflict(err) && ctx.Err() == nil {
		b.manager.log.WarnContext(ctx, "claim failed", "key", key, "error", err)
	}
	return l, err
}
