package pubsub

import (
	"container/heap"
	"slices"
	"time"
)

// Limits of one take. The last message of a take may exceed maxBatchBytes.
const (
	maxBatchMessages = 1000
	maxBatchBytes    = 1 << 20
)

// keyMode limits the outstanding messages of one ordering key at one consumer.
type keyMode uint8

const (
	pipelined keyMode = iota // no limit: the consumer keeps the order
	batched                  // the messages of one take, and no more until all are settled
	single                   // one message at a time
)

// consumer takes messages from a queue: a stream, a pull, or a push endpoint. The queue's lock guards all fields except
// wakes.
type consumer struct {
	q     *queue
	wakes chan struct{} // holds a token when take may return messages

	perKey      keyMode
	lease       time.Duration // zero: no deadline, because the consumer settles every message
	maxMessages int           // outstanding; zero: no limit
	maxBytes    int           // outstanding; zero: no limit

	messages, bytes int   // outstanding
	keys            deque // queues of keys owned by this consumer
	ownTurn         bool  // the latest pick preferred keys
	idle            bool  // the latest take returned nothing
	left            bool  // leave was called
}

// join makes c a consumer of the queue until leave. The error is the reason of a closed queue.
func (q *queue) join(c *consumer) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	c.q = q
	c.wakes = make(chan struct{}, 1)
	q.consumers = append(q.consumers, c)
	q.active = time.Now()
	return nil
}

// leave ends the consumer. Its outstanding messages stay leased.
func (c *consumer) leave() {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.left {
		return
	}
	c.left = true
	q.consumers = slices.DeleteFunc(q.consumers, func(x *consumer) bool { return x == c })
	q.active = time.Now()
	if q.err != nil {
		return
	}
	for c.keys.len() > 0 {
		if _, k := c.keys.pop().runnable(); k.home == &c.keys {
			k.home = nil
			q.schedule(k)
		}
	}
	q.wake()
	q.arm()
}

// setMaxMessages changes the limit of outstanding messages.
func (c *consumer) setMaxMessages(n int) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.maxMessages = n
	c.nudge()
}

// setLease changes the length of future leases.
func (c *consumer) setLease(d time.Duration) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.lease = d
}

// room reports whether the limits allow another message.
func (c *consumer) room() bool {
	return (c.maxMessages <= 0 || c.messages < c.maxMessages) && (c.maxBytes <= 0 || c.bytes < c.maxBytes)
}

func (c *consumer) signal() {
	c.idle = false
	select {
	case c.wakes <- struct{}{}:
	default:
	}
}

// nudge signals an idle consumer with room, if messages are ready.
func (c *consumer) nudge() {
	if c.idle && c.room() && (c.keys.len() > 0 || c.q.ready.len() > 0) {
		c.signal()
	}
}

// take leases up to limit messages to the consumer, within its limits, and appends them to into. It does not block. If
// it returns none, the consumer waits on wakes.
func (c *consumer) take(limit int, into []delivery) ([]delivery, error) {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	share := c.share()
	now := time.Now()
	size := 0
	for len(into) < limit && size < maxBatchBytes && c.room() {
		e := c.pick(&share)
		if e == nil {
			break
		}
		c.hold(e, now)
		d := delivery{ack: ackID{e.id, e.leases}, message: e.message}
		if q.settings.maxAttempts > 0 {
			d.attempt = e.failures + 1
		}
		into = append(into, d)
		size += e.size
	}
	c.idle = len(into) == 0
	if !c.idle {
		q.active = now
		q.arm()
	}
	q.wake()
	return into, nil
}

// share is the number of ready items for this consumer. Idle consumers share the ready items, so that one stream does
// not take a whole burst while another stays empty.
func (c *consumer) share() int {
	n := c.q.ready.len()
	if c.perKey == batched {
		return n
	}
	takers := 1
	for _, o := range c.q.consumers {
		if o != c && o.idle && o.room() {
			takers++
		}
	}
	return (n + takers - 1) / takers
}

// pick returns the next entry for the consumer, or nil. It alternates between the consumer's own keys and its share of
// the ready items.
func (c *consumer) pick(share *int) *entry {
	for {
		from := &c.keys
		c.ownTurn = !c.ownTurn
		if *share > 0 && c.q.ready.len() > 0 && (c.keys.len() == 0 || !c.ownTurn) {
			from = &c.q.ready
		}
		if from.len() == 0 {
			return nil
		}
		// An item may be stale: settled or moved since it was listed.
		e, k := from.pop().runnable()
		if k != nil && k.home == from {
			k.home = nil
			e = k.head()
		}
		if e == nil || e.state != waiting {
			continue
		}
		if from == &c.q.ready {
			*share--
		}
		return e
	}
}

// hold leases an entry to the consumer.
func (c *consumer) hold(e *entry, now time.Time) {
	e.state = leased
	e.leases++
	e.holder = c
	c.messages++
	c.bytes += e.size
	if c.lease > 0 {
		e.at = now.Add(c.lease)
		heap.Push(&c.q.times, e)
	}
	if k := e.key; k != nil {
		k.owner = c
		k.outstanding++
		k.next++
		if c.perKey != single && k.head() != nil {
			// Also for batched: one take returns all waiting messages of a key.
			k.home = &c.keys
			c.keys.push(k)
		}
	}
}
