package websocket

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"parley.internal/shared/delivery"
)

const (
	// maxUnsettled is the maximum weight of the unsettled deliveries of an instance: an entry weighs unsettledWeight plus
	// the number of its connections. 2 Mi are about 60,000 entries, or 16 MB of connection ids.
	maxUnsettled = 2 << 20
	// unsettledWeight is the weight of an entry without connections.
	unsettledWeight = 32
	// maxHandled is the maximum number of handled deliveries in each half of the memory, at 16 bytes. At the default
	// retention of 10 minutes, the memory suffices for 870 answers per second.
	maxHandled = 1 << 19
)

// errTooManyUnsettled refuses a new answer, because the unsettled deliveries have reached maxUnsettled. The bus delivers
// the answer again later.
var errTooManyUnsettled = errors.New("too many written answers wait for the ledger")

// recentDeliveries remembers deliveries as long as the bus may deliver them again. Both kinds are kept by time, and no
// number of newer deliveries displaces them:
//
//   - Unsettled deliveries. An error was returned to the bus, so the bus delivers the answer again. The entry holds the
//     connections that already have the frame. Above maxUnsettled, new answers are refused before they are written.
//   - Handled deliveries. The bus delivers an acknowledged answer again only by chance. The key suffices.
//
// Methods may be called concurrently.
type recentDeliveries struct {
	retention time.Duration // of an unacknowledged message at the bus
	now       func() time.Time

	mu        sync.Mutex
	unsettled map[deliveryKey]*localDelivery
	weight    int       // of all entries in unsettled
	swept     time.Time // last removal of expired entries

	// Handled keys are written to current. After the retention, current becomes previous: a key stays for one to two
	// retentions.
	current, previous map[deliveryKey]struct{}
	rotated           time.Time
}

// deliveryKey identifies one redrive of a delivery: after a redrive, the answer is written again. It is a truncated
// SHA-256 hash.
type deliveryKey [16]byte

func keyOf(ref delivery.Ref) (key deliveryKey) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", ref.ID, ref.RedriveCount))
	copy(key[:], sum[:])
	return key
}

func newRecentDeliveries(retention time.Duration, now func() time.Time) *recentDeliveries {
	return &recentDeliveries{
		retention: retention, now: now, unsettled: map[deliveryKey]*localDelivery{}, swept: now(),
		current: map[deliveryKey]struct{}{}, rotated: now(),
	}
}

// acquire returns the unsettled delivery, locked, or nil. With start, acquire adds a missing entry. handled reports that
// the delivery was handled before. The error is errTooManyUnsettled. The caller must call release.
func (r *recentDeliveries) acquire(key deliveryKey, start bool) (d *localDelivery, handled bool, err error) {
	for {
		d, handled, err = r.lookUp(key, start)
		if d == nil {
			return nil, handled, err
		}
		d.mu.Lock()
		if !d.removed {
			return d, false, nil
		}
		d.mu.Unlock() // the lock's previous holder has removed the entry
	}
}

func (r *recentDeliveries) lookUp(key deliveryKey, start bool) (d *localDelivery, handled bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d = r.unsettled[key]; d != nil {
		return d, false, nil
	}
	_, current := r.current[key]
	_, previous := r.previous[key]
	if handled = current || previous; handled || !start {
		return nil, handled, nil
	}
	r.sweep()
	if r.weight+unsettledWeight > maxUnsettled {
		return nil, false, errTooManyUnsettled
	}
	d = &localDelivery{key: key, until: r.now().Add(r.retention), weight: unsettledWeight}
	r.unsettled[key] = d
	r.weight += d.weight
	return d, false, nil
}

// release unlocks an acquired entry after an outcome of dispatch:
//
//   - outcomeFailed: the entry stays, because the bus delivers the answer again.
//   - outcomeDelivered, outcomeAwaited: the entry stays until settle or finish.
//   - outcomeLost: the entry is forgotten, because no connection has the frame.
//   - Any other outcome: the answer is handled.
func (r *recentDeliveries) release(d *localDelivery, outcome string) {
	defer d.mu.Unlock()
	switch outcome {
	case outcomeFailed, outcomeDelivered, outcomeAwaited:
	case outcomeLost:
		r.forget(d)
	default:
		r.finish(d)
	}
}

// settle marks an answer as handled that needs no record. The caller does not hold d.mu.
func (r *recentDeliveries) settle(d *localDelivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.removed {
		r.finish(d)
	}
}

// finish marks an answer as handled. The caller holds d.mu.
func (r *recentDeliveries) finish(d *localDelivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(d)
	now := r.now()
	if now.Sub(r.rotated) >= r.retention || len(r.current) >= maxHandled {
		r.previous, r.current, r.rotated = r.current, map[deliveryKey]struct{}{}, now
	}
	r.current[d.key] = struct{}{}
}

// forget removes an entry. The caller holds d.mu.
func (r *recentDeliveries) forget(d *localDelivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(d)
}

// weigh updates the weight of an acquired entry after a change of its connections.
func (r *recentDeliveries) weigh(d *localDelivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	weight := unsettledWeight + len(d.queuedFor)
	r.weight += weight - d.weight
	d.weight = weight
}

// sweep removes the unsettled deliveries that the bus no longer holds. The caller holds r.mu.
func (r *recentDeliveries) sweep() {
	now := r.now()
	if now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for _, d := range r.unsettled {
		if now.After(d.until) && d.mu.TryLock() {
			r.remove(d)
			d.mu.Unlock()
		}
	}
}

// remove removes an entry. The caller holds r.mu and d.mu.
func (r *recentDeliveries) remove(d *localDelivery) {
	d.removed = true
	r.weight -= d.weight
	delete(r.unsettled, d.key)
}
