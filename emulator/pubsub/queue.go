package pubsub

import (
	"container/heap"
	"errors"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// This file is the engine of one subscription: what is waiting, what is leased
// to whom and until when, in which order keys go on, when a message comes back
// and when it is given up. It knows nothing of gRPC or HTTP, and takes time
// from package time only, so that testing/synctest can drive it.

// errClosed is what consumers of a closed queue get when the closer gave no
// reason of its own.
var errClosed = errors.New("queue closed")

// limits of one hand-over to a consumer.
const (
	maxBatchMessages = 1000
	maxBatchBytes    = 1 << 20
)

// message is one published message, shared by every subscription that has it,
// and never changed after it was published.
type message struct {
	id        uint64
	pb        *pubsubpb.PubsubMessage
	size      int // of pb on the wire, in bytes
	published time.Time
}

// settings are the parts of a subscription's configuration that the engine
// acts on.
type settings struct {
	ackDeadline time.Duration
	ordered     bool
	exactlyOnce bool
	minBackoff  time.Duration // both zero: redeliver at once
	maxBackoff  time.Duration
	maxAttempts int           // zero: no dead-letter policy
	retention   time.Duration // zero: for ever
	ttl         time.Duration // zero: the subscription never expires
}

// backoff is the pause before the next delivery of a message that failed the
// given number of times.
func (s *settings) backoff(failures int) time.Duration {
	d := s.minBackoff
	for i := 1; i < failures && d < s.maxBackoff; i++ {
		d *= 2
	}
	return min(d, s.maxBackoff)
}

// hooks are what a queue asks of its surroundings. Each is called without the
// queue's lock held, and none may be nil.
type hooks struct {
	// forward publishes a message that used up its delivery attempts to the
	// dead-letter topic. On an error the message is redelivered.
	forward func(m *message, attempts int) error
	// settled says that messages left the queue for good.
	settled func(ids []uint64)
	// expired says that nobody used the subscription for its whole ttl.
	expired func()
}

type state uint8

const (
	waiting    state = iota // for a consumer or, when in the heap, for its time
	leased                  // delivered, neither acknowledged nor given back
	acked                   // acknowledged, but an earlier one of its key is not
	forwarding              // on its way to the dead-letter topic
	gone                    // no longer in the queue
)

// entry is one message in one queue.
type entry struct {
	*message
	state    state
	leases   uint32 // deliveries so far; the latest one's number
	failures int    // nacks and expired leases
	holder   *consumer
	lane     *lane // nil for a message without order

	// at is when the lease of a leased entry ends, or when a waiting one may be
	// delivered again. It counts while index, the place in the heap, is not -1.
	at    time.Time
	index int
}

func (e *entry) runnable() (*entry, *lane) { return e, nil }

// lane is the stream of messages of one ordering key: entries in the order of
// publication, of which those before next were delivered.
type lane struct {
	key         string
	entries     []*entry
	next        int
	outstanding int // entries leased now, all of them to owner
	owner       *consumer
	home        *deque // the list the lane waits in, if any
}

func (l *lane) runnable() (*entry, *lane) { return nil, l }

// position finds an entry of the lane: ids grow along it.
func (l *lane) position(e *entry) (int, bool) {
	return slices.BinarySearchFunc(l.entries, e.id, func(x *entry, id uint64) int {
		switch {
		case x.id < id:
			return -1
		case x.id > id:
			return 1
		}
		return 0
	})
}

// head is the next entry to deliver, nil if there is none or it is not its time.
func (l *lane) head() *entry {
	for l.next < len(l.entries) && l.entries[l.next].state != waiting {
		l.next++
	}
	if l.next == len(l.entries) || l.entries[l.next].index >= 0 {
		return nil
	}
	return l.entries[l.next]
}

// delivery is one message handed to a consumer.
type delivery struct {
	ack     ackID
	message *message
	attempt int // from 1; zero without a dead-letter policy
}

// ackID names one lease: of which message, and which of its deliveries.
type ackID struct {
	id    uint64
	lease uint32
}

// queue is the backlog of one subscription and the consumers that drain it.
type queue struct {
	hooks hooks

	mu        sync.Mutex
	settings  settings
	entries   map[uint64]*entry
	lanes     map[string]*lane
	ready     deque    // entries and lanes that any consumer may take
	times     timeHeap // ends of leases and of pauses
	consumers []*consumer
	turn      int // where the search for an idle consumer begins
	timer     *time.Timer
	armed     time.Time // when timer fires; zero if it does not
	sweep     time.Time // when retention is next enforced; zero if nothing is held
	active    time.Time // when the subscription was last used
	err       error     // why the queue is closed
}

func newQueue(s settings, h hooks) *queue {
	q := &queue{
		hooks:    h,
		settings: s,
		entries:  map[uint64]*entry{},
		lanes:    map[string]*lane{},
		active:   time.Now(),
	}
	q.timer = time.AfterFunc(time.Hour, q.tick)
	q.timer.Stop()
	q.mu.Lock()
	q.arm()
	q.mu.Unlock()
	return q
}

// configure changes the settings. A change of ordering is not supported, as in
// the service.
func (q *queue) configure(s settings) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settings = s
	q.sweep = time.Time{}
	q.active = time.Now()
	q.arm()
}

// close ends the queue: every consumer gets err, nothing is kept.
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
	q.entries, q.lanes, q.ready, q.times = nil, nil, deque{}, nil
}

// len is the number of messages that are not acknowledged.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.entries)
	for _, l := range q.lanes {
		for _, e := range l.entries {
			if e.state == acked {
				n--
			}
		}
	}
	return n
}

// add appends published messages. Their ids must be greater than those of all
// messages added before.
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
		l := q.lanes[m.pb.OrderingKey]
		if l == nil {
			l = &lane{key: m.pb.OrderingKey}
			q.lanes[l.key] = l
		}
		e.lane = l
		l.entries = append(l.entries, e)
		q.schedule(l)
	}
	if wasEmpty {
		q.sweep = time.Time{}
		q.arm()
	}
	q.wake()
}

// schedule puts a lane that can go on where the consumer that may take it looks.
func (q *queue) schedule(l *lane) {
	if l.home != nil || l.head() == nil {
		return
	}
	switch {
	case l.owner == nil:
		l.home = &q.ready
		q.ready.push(l)
	case l.owner.perKey == pipelined && !l.owner.left:
		l.home = &l.owner.lanes
		l.owner.lanes.push(l)
		if l.owner.idle && l.owner.room() {
			l.owner.signal()
		}
	}
}

// wake signals one idle consumer with room, if there is something for it.
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

// keyMode is how many messages of one ordering key a consumer may hold.
type keyMode uint8

const (
	pipelined keyMode = iota // any number, in order: the consumer keeps the order
	batched                  // those of one take; no more until all are acknowledged
	single                   // one at a time
)

// consumer is one taker of a queue's messages: a stream, a pull, a push
// endpoint. Its fields are guarded by the queue's lock, except wakes.
type consumer struct {
	q     *queue
	wakes chan struct{} // holds a token when take may give something

	perKey      keyMode
	lease       time.Duration // zero: the holder always settles, without a deadline
	maxMessages int           // outstanding; zero: no limit
	maxBytes    int

	messages, bytes int // outstanding
	lanes           deque
	ownTurn         bool
	idle            bool
	left            bool
}

// join makes c a consumer of the queue until leave.
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

// leave ends the consumer. What it holds stays leased.
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
	for c.lanes.len() > 0 {
		if _, l := c.lanes.pop().runnable(); l.home == &c.lanes {
			l.home = nil
			q.schedule(l)
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

// setLease changes the length of the leases to come.
func (c *consumer) setLease(d time.Duration) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.lease = d
}

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

// nudge signals the consumer if it can go on.
func (c *consumer) nudge() {
	if c.idle && c.room() && (c.lanes.len() > 0 || c.q.ready.len() > 0) {
		c.signal()
	}
}

// take leases up to limit messages to the consumer, within its limits, without
// waiting. When it returns none the consumer waits on wakes.
func (c *consumer) take(limit int, into []delivery) ([]delivery, error) {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	// What others could take at the same moment is shared, so that no stream
	// gets a whole burst while another has nothing.
	share := q.ready.len()
	if c.perKey != batched {
		takers := 1
		for _, o := range q.consumers {
			if o != c && o.idle && o.room() {
				takers++
			}
		}
		share = (share + takers - 1) / takers
	}
	now := time.Now()
	size := 0
	for len(into) < limit && size < maxBatchBytes && c.room() {
		e := c.pick(&share)
		if e == nil {
			break
		}
		q.give(e, c, now)
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

// pick is the next entry for the consumer, by turns from its own lanes and from
// its share of what anyone may take, or nil.
func (c *consumer) pick(share *int) *entry {
	for {
		from := &c.lanes
		c.ownTurn = !c.ownTurn
		if *share > 0 && c.q.ready.len() > 0 && (c.lanes.len() == 0 || !c.ownTurn) {
			from = &c.q.ready
		}
		if from.len() == 0 {
			return nil
		}
		// An item may be stale: settled, or moved on, since it was listed.
		e, l := from.pop().runnable()
		if l != nil && l.home == from {
			l.home = nil
			e = l.head()
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

// give leases an entry.
func (q *queue) give(e *entry, c *consumer, now time.Time) {
	e.state = leased
	e.leases++
	e.holder = c
	c.messages++
	c.bytes += e.size
	if c.lease > 0 {
		e.at = now.Add(c.lease)
		heap.Push(&q.times, e)
	}
	if l := e.lane; l != nil {
		l.owner = c
		l.outstanding++
		l.next++
		if c.perKey != single && l.head() != nil {
			// Straight to the consumer's own list, also for a batch: a take
			// hands over what waits of a key in one go.
			l.home = &c.lanes
			c.lanes.push(l)
		}
	}
}

// release ends the lease of an entry, if it has one.
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
	if l := e.lane; l != nil {
		if l.outstanding--; l.outstanding == 0 {
			l.owner = nil
			if l.home != nil && l.home != &q.ready {
				l.home = nil
			}
		}
	}
	c.nudge()
}

// verdict is what became of one acknowledgement or change of a deadline.
type verdict bool

const (
	done  verdict = true
	stale verdict = false // the lease had ended
)

// ack acknowledges leases. A late one still counts while the message waits and
// has no order to keep; exactly-once subscriptions take none.
func (q *queue) ack(ids []ackID) ([]verdict, error) {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return nil, q.err
	}
	verdicts := make([]verdict, len(ids))
	var settled []uint64
	for i, id := range ids {
		e := q.entries[id.id]
		if e == nil || e.leases != id.lease {
			continue
		}
		late := e.state == waiting && e.lane == nil && !q.settings.exactlyOnce
		if e.state != leased && !late {
			continue
		}
		q.release(e)
		settled = q.settle(e, settled)
		verdicts[i] = done
	}
	q.active = time.Now()
	q.wake()
	q.mu.Unlock()
	if len(settled) > 0 {
		q.hooks.settled(settled)
	}
	return verdicts, nil
}

// settle takes an entry that is done out of the queue, or marks it when an
// earlier one of its key may still bring it back.
func (q *queue) settle(e *entry, settled []uint64) []uint64 {
	l := e.lane
	if l == nil {
		e.state = gone
		delete(q.entries, e.id)
		return append(settled, e.id)
	}
	e.state = acked
	n := 0
	for n < len(l.entries) && l.entries[n].state == acked {
		l.entries[n].state = gone
		delete(q.entries, l.entries[n].id)
		settled = append(settled, l.entries[n].id)
		n++
	}
	// The front is cut off without moving the rest: a lane may be long.
	clear(l.entries[:n])
	l.entries = l.entries[n:]
	l.next -= min(n, l.next)
	if len(l.entries) == 0 {
		delete(q.lanes, l.key)
	}
	q.schedule(l)
	return settled
}

// extend moves the ends of leases to d from now; zero gives the messages back.
func (q *queue) extend(ids []ackID, d time.Duration) ([]verdict, error) {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return nil, q.err
	}
	verdicts := make([]verdict, len(ids))
	var dead []*entry
	now := time.Now()
	for i, id := range ids {
		e := q.entries[id.id]
		if e == nil || e.leases != id.lease || e.state != leased {
			continue
		}
		verdicts[i] = done
		if d <= 0 {
			dead = q.fail(e, now, dead)
			continue
		}
		if e.index >= 0 {
			e.at = now.Add(d)
			heap.Fix(&q.times, e.index)
		}
	}
	q.active = now
	q.arm()
	q.wake()
	q.mu.Unlock()
	q.bury(dead)
	return verdicts, nil
}

// refuse ends leases whose messages were never sent, as if they had not been
// taken.
func (q *queue) refuse(ds []delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	now := time.Now()
	for _, d := range ds {
		if e := q.entries[d.ack.id]; e != nil && e.leases == d.ack.lease && e.state == leased {
			q.giveBack(e, now)
		}
	}
	q.arm()
	q.wake()
}

// fail counts a failed delivery: the message comes back, after its pause, or
// joins the dead.
func (q *queue) fail(e *entry, now time.Time, dead []*entry) []*entry {
	e.failures++
	if n := q.settings.maxAttempts; n > 0 && e.failures >= n {
		q.release(e)
		e.state = forwarding
		return append(dead, e)
	}
	q.giveBack(e, now)
	return dead
}

// giveBack makes an entry wait for its next delivery and, with it, every later
// one of its key that was delivered, even those acknowledged: see "Redelivery"
// in https://cloud.google.com/pubsub/docs/ordering.
func (q *queue) giveBack(e *entry, now time.Time) {
	q.release(e)
	e.state = waiting
	if pause := q.settings.backoff(e.failures); pause > 0 && e.failures > 0 {
		e.at = now.Add(pause)
		heap.Push(&q.times, e)
	}
	l := e.lane
	if l == nil {
		if e.index < 0 {
			q.ready.push(e)
		}
		return
	}
	i, _ := l.position(e)
	for _, later := range l.entries[i+1 : max(i+1, l.next)] {
		switch later.state {
		case leased:
			q.release(later)
			later.state = waiting
		case acked:
			later.state = waiting
		}
	}
	l.next = min(l.next, i)
	q.schedule(l)
}

// bury forwards dead messages, and gives back those that cannot be.
func (q *queue) bury(dead []*entry) {
	for _, e := range dead {
		err := q.hooks.forward(e.message, e.failures)
		q.mu.Lock()
		if q.err != nil || e.state != forwarding {
			q.mu.Unlock()
			continue
		}
		var settled []uint64
		if err != nil {
			q.giveBack(e, time.Now())
			q.arm()
		} else {
			settled = q.settle(e, nil)
		}
		q.wake()
		q.mu.Unlock()
		if len(settled) > 0 {
			q.hooks.settled(settled)
		}
	}
}

// drop takes out what keep refuses, leased or not.
func (q *queue) drop(keep func(*entry) bool) (dropped []uint64) {
	thinned := map[*lane]bool{}
	for id, e := range q.entries {
		if keep(e) {
			continue
		}
		q.release(e)
		e.state = gone
		delete(q.entries, id)
		dropped = append(dropped, id)
		if e.lane != nil {
			thinned[e.lane] = true
		}
	}
	for l := range thinned {
		isGone := func(e *entry) bool { return e.state == gone }
		l.next = len(slices.DeleteFunc(slices.Clone(l.entries[:l.next]), isGone))
		l.entries = slices.DeleteFunc(l.entries, isGone)
		if len(l.entries) == 0 {
			delete(q.lanes, l.key)
		}
		q.schedule(l)
	}
	return dropped
}

// purge drops every message published before t.
func (q *queue) purge(t time.Time) {
	q.mu.Lock()
	dropped := q.drop(func(e *entry) bool { return !e.published.Before(t) })
	q.active = time.Now()
	q.wake()
	q.mu.Unlock()
	if len(dropped) > 0 {
		q.hooks.settled(dropped)
	}
}

// arm sets the timer to the next moment something is due. It leaves the timer
// alone if that fires early enough: tick arms it again.
func (q *queue) arm() {
	if q.err != nil {
		return
	}
	var next time.Time
	soonest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if len(q.times) > 0 {
		soonest(q.times[0].at)
	}
	if q.settings.retention > 0 && len(q.entries) > 0 {
		if q.sweep.IsZero() {
			q.sweep = time.Now()
			if oldest := q.oldest(); oldest.Add(q.settings.retention).After(q.sweep) {
				q.sweep = oldest.Add(q.settings.retention)
			}
		}
		soonest(q.sweep)
	}
	if q.settings.ttl > 0 && len(q.consumers) == 0 {
		soonest(q.active.Add(q.settings.ttl))
	}
	if next.IsZero() || !q.armed.IsZero() && !next.Before(q.armed) {
		return
	}
	q.armed = next
	q.timer.Reset(time.Until(next))
}

func (q *queue) oldest() (t time.Time) {
	for _, e := range q.entries {
		if t.IsZero() || e.published.Before(t) {
			t = e.published
		}
	}
	return t
}

// tick does what is due. It runs on the timer's goroutine.
func (q *queue) tick() {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return
	}
	now := time.Now()
	q.armed = time.Time{}
	var dead []*entry
	for len(q.times) > 0 && !q.times[0].at.After(now) {
		e := q.times[0]
		if e.state == leased {
			dead = q.fail(e, now, dead)
			continue
		}
		heap.Pop(&q.times)
		if e.lane == nil {
			q.ready.push(e)
		} else {
			q.schedule(e.lane)
		}
	}
	var dropped []uint64
	if r := q.settings.retention; r > 0 && !q.sweep.IsZero() && !q.sweep.After(now) {
		dropped = q.drop(func(e *entry) bool {
			return e.state == leased || e.state == forwarding || now.Sub(e.published) < r
		})
		q.sweep = time.Time{}
		if len(q.entries) > 0 {
			// Sweeps walk the whole backlog: a sixteenth of the retention apart
			// they cost next to nothing.
			q.sweep = now.Add(r / 16)
			if t := q.oldest().Add(r); t.After(q.sweep) {
				q.sweep = t
			}
		}
	}
	expired := q.settings.ttl > 0 && len(q.consumers) == 0 && now.Sub(q.active) >= q.settings.ttl
	if !expired {
		q.arm()
	}
	q.wake()
	q.mu.Unlock()
	if len(dropped) > 0 {
		q.hooks.settled(dropped)
	}
	q.bury(dead)
	if expired {
		q.hooks.expired()
	}
}

// timeHeap orders entries by their at.
type timeHeap []*entry

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timeHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *timeHeap) Pop() any {
	n := len(*h) - 1
	e := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	e.index = -1
	return e
}

// runnable is what waits in a deque: an entry without order, or a lane.
type runnable interface{ runnable() (*entry, *lane) }

// deque is a first-in first-out list in a ring.
type deque struct {
	ring        []runnable
	first, size int
}

func (d *deque) len() int { return d.size }

func (d *deque) push(r runnable) {
	if d.size == len(d.ring) {
		ring := make([]runnable, max(16, 2*d.size))
		n := copy(ring, d.ring[d.first:])
		copy(ring[n:], d.ring[:d.first])
		d.ring, d.first = ring, 0
	}
	d.ring[(d.first+d.size)%len(d.ring)] = r
	d.size++
}

func (d *deque) pop() runnable {
	r := d.ring[d.first]
	d.ring[d.first] = nil
	d.first = (d.first + 1) % len(d.ring)
	d.size--
	if d.size == 0 && len(d.ring) > 1024 {
		*d = deque{}
	}
	return r
}
