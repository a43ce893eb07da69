// Package throttle limits Firestore look-ups of keys that strangers can invent, such as access tokens. Each look-up that
// finds nothing (a miss) costs a read. Only the read tells a valid key from an invented one, so the package delays
// look-ups and refuses only the overflow. Start at [Throttle.Wait].
//
// # Limits
//
// A gate counts the misses of one client address ([Address]), and another gate counts the misses of all addresses. Below
// the limit, a gate admits look-ups at once, as long as the limit holds even if all running look-ups miss; the others
// wait for an end. At the limit, a gate admits one look-up at a time, and each further miss delays the next look-up: by
// twice the time of the previous delay, up to a maximum. A look-up that finds its key delays nothing. So 1000 clients with
// valid keys behind one address (NAT) pass without delay, even beside a client with a wrong key. Misses are forgotten with
// time.
//
// At the limit a gate has few waiting places, and refuses the overflow with [ErrLimited], before any read. The next
// look-up is drawn from the waiting ones at random. While an attacker at the same address keeps sending, a client with a
// valid key thus competes with the attacker, and may need several attempts. After the attack it gets in within
// [MaxWait]. Clients at other addresses notice nothing. Callers let the keys that they have found before pass without
// Wait.
//
// The limits hold for one instance.
package throttle

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// MaxWait bounds the time in [Throttle.Wait]. It is longer than the longest delay of a gate. A client that is refused may
// try again after this time.
const MaxWait = 5 * time.Second

// maxAddresses bounds the number of gates. A gate takes about 200 bytes.
const maxAddresses = 10_000

// ErrLimited refuses a look-up: too many look-ups before it found nothing.
var ErrLimited = errors.New("too many look-ups that found nothing")

// policy holds the limits of a gate.
type policy struct {
	free       int           // misses without delay, and the maximum of concurrent look-ups
	first, max time.Duration // the first and the longest delay
	forget     time.Duration // one miss is forgotten in each such interval
	places     int           // waiting look-ups at the limit
}

// maxQueue is the number of waiting look-ups below the limit: a full instance has 1000 sockets.
const maxQueue = 1000

var (
	// perAddress lets an attacker's address cause 20 misses at once, then one in 2 s.
	perAddress = policy{free: 20, first: 500 * time.Millisecond, max: 2 * time.Second, forget: 10 * time.Second, places: 8}
	// overall limits an attack from many addresses: 1000 misses at once, then 20 to 100 per second, which costs a few
	// dollars per day.
	overall = policy{free: 1000, first: 10 * time.Millisecond, max: 50 * time.Millisecond, forget: 10 * time.Millisecond, places: 100}
)

// Throttle limits look-ups. It is safe for concurrent use and has no goroutines.
type Throttle struct {
	mu        sync.Mutex
	byAddress map[string]*gate
	all       *gate
}

// New makes a throttle.
func New() *Throttle {
	return &Throttle{byAddress: map[string]*gate{}, all: &gate{policy: overall}}
}

// Wait waits until the address may look up a key, for at most [MaxWait]. The caller then looks up the key, and calls done
// once: with true if there is no such key, with false if the key was found or the look-up failed. The only error is
// [ErrLimited].
func (t *Throttle) Wait(ctx context.Context, address string) (done func(missed bool), err error) {
	ctx, cancel := context.WithTimeout(ctx, MaxWait)
	defer cancel()
	g, err := t.enter(ctx, func() *gate { return t.gateOf(address) })
	if err != nil {
		return nil, err
	}
	if _, err := t.enter(ctx, func() *gate { return t.all }); err != nil {
		t.leave(g, false)
		return nil, err
	}
	return func(missed bool) {
		t.leave(t.all, missed)
		t.leave(g, missed)
	}, nil
}

// enter waits until the gate admits the caller, who must leave the gate. find runs under the lock.
func (t *Throttle) enter(ctx context.Context, find func() *gate) (*gate, error) {
	t.mu.Lock()
	g := find()
	if len(g.waiting) >= g.room() {
		t.mu.Unlock()
		return nil, ErrLimited
	}
	w := &waiter{decided: make(chan struct{})}
	g.waiting = append(g.waiting, w)
	t.admit(g)
	t.mu.Unlock()
	select {
	case <-w.decided:
	default:
		select {
		case <-w.decided:
		case <-ctx.Done():
		}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	switch i := slices.Index(g.waiting, w); {
	case i >= 0: // ctx has ended
		g.waiting = slices.Delete(g.waiting, i, i+1)
		t.tidy(g)
		return nil, ErrLimited
	case !w.admitted:
		return nil, ErrLimited
	}
	return g, nil
}

// leave ends an admitted look-up.
func (t *Throttle) leave(g *gate, missed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g.running--
	if missed {
		g.miss(time.Now())
	}
	t.admit(g)
	t.tidy(g)
}

// admit admits the waiting look-ups that may run now, refuses those without a place, and sets a timer for the next one.
// The lock must be held.
func (t *Throttle) admit(g *gate) {
	for len(g.waiting) > 0 {
		ok, wait := g.next(time.Now())
		if ok {
			g.running++
			i := 0
			if g.misses >= g.policy.free {
				i = rand.IntN(len(g.waiting)) // in order, a valid key would never get past an attacker who fills the queue
			}
			g.decide(i, true)
			continue
		}
		for len(g.waiting) > g.room() {
			g.decide(len(g.waiting)-1, false)
		}
		if wait > 0 && g.timer == nil {
			g.timer = time.AfterFunc(wait, func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				g.timer = nil
				t.admit(g)
			})
		}
		return
	}
}

// gateOf returns the gate of an address. The lock must be held.
func (t *Throttle) gateOf(address string) *gate {
	g := t.byAddress[address]
	if g == nil {
		if len(t.byAddress) >= maxAddresses {
			t.evict()
		}
		g = &gate{policy: perAddress, address: address}
		t.byAddress[address] = g
	}
	return g
}

// evict removes the idle gate with the fewest misses out of a random sample. Gates in use stay: there are at most as many
// as requests. The lock must be held.
func (t *Throttle) evict() {
	const sample = 16
	var least *gate
	n := 0
	for _, g := range t.byAddress { // in random order
		if g.running+len(g.waiting) > 0 {
			continue
		}
		if g.forgive(time.Now()); least == nil || g.misses < least.misses {
			least = g
		}
		if n++; n == sample {
			break
		}
	}
	if least != nil {
		delete(t.byAddress, least.address)
	}
}

// tidy removes the gate of an address without misses and look-ups. The lock must be held.
func (t *Throttle) tidy(g *gate) {
	if g != t.all && g.misses == 0 && g.running+len(g.waiting) == 0 {
		delete(t.byAddress, g.address)
	}
}

// gate counts the misses of one address, or of all. The lock of its Throttle guards it.
type gate struct {
	policy  policy
	address string
	misses  int       // not forgotten
	missed  time.Time // the last miss
	since   time.Time // misses are forgotten from then on
	running int       // admitted look-ups
	waiting []*waiter // in order of arrival
	timer   *time.Timer
}

type waiter struct {
	decided  chan struct{} // closed when the waiter leaves the queue, except by its own context
	admitted bool
}

// next reports whether one more look-up may run now. Otherwise wait is the time until then, or 0 if a running look-up
// must end first.
func (g *gate) next(now time.Time) (ok bool, wait time.Duration) {
	g.forgive(now)
	p := g.policy
	if over := g.misses - p.free; over < 0 {
		return g.running < -over, 0
	} else if g.running > 0 {
		return false, 0
	} else {
		wait = g.missed.Add(min(p.first<<over, p.max)).Sub(now)
		return wait <= 0, wait
	}
}

// room returns the maximum length of the queue.
func (g *gate) room() int {
	if g.misses < g.policy.free {
		return maxQueue
	}
	return g.policy.places
}

// maxDoublings bounds the number of counted misses above the limit, and so the time until they are forgotten.
const maxDoublings = 6

func (g *gate) miss(now time.Time) {
	g.forgive(now)
	if g.misses == 0 {
		g.since = now
	}
	g.missed, g.misses = now, min(g.misses+1, g.policy.free+maxDoublings)
}

func (g *gate) forgive(now time.Time) {
	if n := now.Sub(g.since) / g.policy.forget; n > 0 && g.misses > 0 {
		g.misses = max(0, g.misses-int(min(n, time.Duration(g.misses))))
		g.since = g.since.Add(n * g.policy.forget)
	}
}

// decide removes the waiter with an index from the queue.
func (g *gate) decide(i int, admitted bool) {
	w := g.waiting[i]
	g.waiting = slices.Delete(g.waiting, i, i+1)
	w.admitted = admitted
	close(w.decided)
}
