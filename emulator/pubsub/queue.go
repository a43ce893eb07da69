package pubsub

import (
	"container/heap"
	"errors"
	"sync"
	"time"
)

// errClosed is the error of a closed queue without a more specific reason.
var errClosed = errors.New("queue closed")

// settings are the parts of a subscription's configuration used by a queue.
type settings struct {
	ordered     bool
	exactlyOnce bool
	minBackoff  time.Duration // minBackoff and maxBackoff zero: redeliver at once
	maxBackoff  time.Duration
	maxAttempts int           // zero: no dead-letter policy
	retention   time.Duration // zero: unlimited
	ttl         time.Duration // zero: the subscription never expires
}

// backoff returns the pause before the next delivery of a message after the given number of failures. The pause starts
// at minBackoff and doubles with each failure, up to maxBackoff.
func (s *settings) backoff(failures int) time.Duration {
	d := s.minBackoff
	for i := 1; i < failures && d < s.maxBackoff; i++ {
		d *= 2
	}
	return min(d, s.maxBackoff)
}

// callbacks connect a queue with its server. They are called without the queue's lock. None may be nil.
type callbacks struct {
	// forward publishes a message without delivery attempts left to the dead-letter topic. After an error the message
	// is redelivered.
	forward func(m *message, attempts int) error
	// settled reports messages that left the queue for good.
	settled func(ids []uint64)
	// expired reports that nothing used the subscription for the whole ttl.
	expired func()
}

// queue is the backlog of one subscription with its consumers. It decides on delivery, order, leases, redelivery and
// dead-lettering. It does not use gRPC or HTTP. It reads the clock only by package time, for tests with testing/synctest.
type queue struct {
	callbacks callbacks

	mu        sync.Mutex
	settings  settings
	entries   map[uint64]*entry
	keys      map[string]*keyQueue
	ready     deque    // items for any consumer
	times     timeHeap // ends of leases and of pauses
	consumers []*consumer
	turn      int // start of the search for an idle consumer
	timer     *time.Timer
	armed     time.Time // when timer fires; zero if stopped
	sweep     time.Time // next enforcement of the retention; zero if not scheduled
	active    time.Time // the latest use of the subscription
	err       error     // why the queue is closed
}

func newQueue(s settings, c callbacks) *queue {
	q := &queue{
		callbacks: c,
		settings:  s,
		entries:   map[uint64]*entry{},
		keys:      map[string]*keyQueue{},
		active:    time.Now(),
	}
	q.timer = time.AfterFunc(time.Hour, q.tick)
	q.timer.Stop()
	q.mu.Lock()
	q.arm()
	q.mu.Unlock()
	return q
}

// configure changes the settings. As in the service, ordered must stay the same.
func (q *queue) configure(s settings) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settings = s
	q.sweep = time.Time{}
	q.active = time.Now()
	q.arm()
}

// close drops all messages. Every consumer gets err.
func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	q.err = err
	q.timer.Stop()
	for _, c := range q.consumers {
		c.signal()
	}
	q.entries, q.keys, q.ready, q.times = nil, nil, deque{}, nil
}

// len is the number of unacknowledged messages.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.entries)
	for _, k := range q.keys {
		for _, e := range k.entries {
			if e.state == acked {
				n--
			}
		}
	}
	return n
}

// add appends published messages. Their ids must be greater than all earlier ids.
func (q *queue) add(ms []*message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	wasEmpty := len(q.entries) == 0
	for _, m := range ms {
		e := &entry{message: m, index: -1}
		q.entries[m.id] = e
		if !q.settings.ordered || m.pb.OrderingKey == "" {
			q.ready.push(e)
			continue
		}
		k := q.keys[m.pb.OrderingKey]
		if k == nil {
			k = &keyQueue{key: m.pb.OrderingKey}
			q.keys[k.key] = k
		}
		e.key = k
		k.entries = append(k.entries, e)
		q.schedule(k)
	}
	if wasEmpty {
		q.sweep = time.Time{}
		q.arm()
	}
	q.wake()
}

// schedule adds k to the deque of the key's owner or, without an owner, to the ready items. It does nothing if no entry
// of k can be delivered now, or if the owner must settle all held messages of the key first.
func (q *queue) schedule(k *keyQueue) {
	if k.home != nil || k.head() == nil {
		return
	}
	switch {
	case k.owner == nil:
		k.home = &q.ready
		q.ready.push(k)
	case k.owner.perKey == pipelined && !k.owner.left:
		k.home = &k.owner.keys
		k.owner.keys.push(k)
		if k.owner.idle && k.owner.room() {
			k.owner.signal()
		}
	}
}

// wake signals one idle consumer with room if items are ready. A take of this consumer wakes the next consumer.
func (q *queue) wake() {
	if q.ready.len() == 0 {
		return
	}
	for i := range q.consumers {
		c := q.consumers[(q.turn+i)%len(q.consumers)]
		if c.idle && c.room() {
			q.turn = (q.turn + i + 1) % len(q.consumers)
			c.signal()
			return
		}
	}
}

// release ends the lease of an entry, if the entry has one, and removes the entry from the time heap.
func (q *queue) release(e *entry) {
	if e.index >= 0 {
		heap.Remove(&q.times, e.index)
	}
	c := e.holder
	if c == nil {
		return
	}
	e.holder = nil
	c.messages--
	c.bytes -= e.size
	if k := e.key; k != nil {
		if k.outstanding--; k.outstanding == 0 {
			k.owner = nil
			if k.home != nil && k.home != &q.ready {
				k.home = nil
			}
		}
	}
	c.nudge()
}
