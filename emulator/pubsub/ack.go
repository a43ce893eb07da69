package pubsub

import (
	"container/heap"
	"time"
)

// ack acknowledges leases. The results are in the order of ids. An acknowledgement after the end of the lease is still
// accepted while the message waits for redelivery, except with an ordering key or with exactly-once delivery.
func (q *queue) ack(ids []ackID) ([]ackResult, error) {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return nil, q.err
	}
	results := make([]ackResult, len(ids))
	var settled []uint64
	for i, id := range ids {
		e := q.entries[id.id]
		if e == nil || e.leases != id.lease {
			continue
		}
		late := e.state == waiting && e.key == nil && !q.settings.exactlyOnce
		if e.state != leased && !late {
			continue
		}
		q.release(e)
		settled = q.settle(e, settled)
		results[i] = ackDone
	}
	q.active = time.Now()
	q.wake()
	q.mu.Unlock()
	q.reportSettled(settled)
	return results, nil
}

func (q *queue) reportSettled(ids []uint64) {
	if len(ids) > 0 {
		q.callbacks.settled(ids)
	}
}

// settle removes an acknowledged or forwarded entry and appends its id to settled. An entry with an ordering key stays
// until all earlier entries of the key are settled: a redelivery of an earlier entry repeats the later entries.
func (q *queue) settle(e *entry, settled []uint64) []uint64 {
	k := e.key
	if k == nil {
		e.state = gone
		delete(q.entries, e.id)
		return append(settled, e.id)
	}
	e.state = acked
	before := len(settled)
	settled = k.cut(settled)
	for _, id := range settled[before:] {
		delete(q.entries, id)
	}
	if len(k.entries) == 0 {
		delete(q.keys, k.key)
	}
	q.schedule(k)
	return settled
}

// extend moves the ends of leases to d from now. The results are in the order of ids. A d of zero is a nack: the messages
// are redelivered, or dead-lettered after their last delivery attempt.
func (q *queue) extend(ids []ackID, d time.Duration) ([]ackResult, error) {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return nil, q.err
	}
	results := make([]ackResult, len(ids))
	var dead []*entry
	now := time.Now()
	for i, id := range ids {
		e := q.entries[id.id]
		if e == nil || e.leases != id.lease || e.state != leased {
			continue
		}
		results[i] = ackDone
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
	q.deadLetter(dead)
	return results, nil
}

// refuse ends the leases of unsent messages. The deliveries do not count as failures.
func (q *queue) refuse(ds []delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	now := time.Now()
	for _, d := range ds {
		if e := q.entries[d.ack.id]; e != nil && e.leases == d.ack.lease && e.state == leased {
			q.redeliver(e, now)
		}
	}
	q.arm()
	q.wake()
}

// fail counts a failed delivery. The message is redelivered after its backoff, or appended to dead if it has no
// delivery attempts left.
func (q *queue) fail(e *entry, now time.Time, dead []*entry) []*entry {
	e.failures++
	if n := q.settings.maxAttempts; n > 0 && e.failures >= n {
		q.release(e)
		e.state = forwarding
		return append(dead, e)
	}
	q.redeliver(e, now)
	return dead
}

// redeliver makes an entry wait for its next delivery, after the backoff of its failures. All later delivered entries of
// the same key are delivered again too, also acknowledged entries: see "Redelivery" in
// https://cloud.google.com/pubsub/docs/ordering.
func (q *queue) redeliver(e *entry, now time.Time) {
	q.release(e)
	e.state = waiting
	if pause := q.settings.backoff(e.failures); pause > 0 && e.failures > 0 {
		e.at = now.Add(pause)
		heap.Push(&q.times, e)
	}
	k := e.key
	if k == nil {
		if e.index < 0 {
			q.ready.push(e)
		}
		return
	}
	i, _ := k.position(e)
	for _, later := range k.entries[i+1 : max(i+1, k.next)] {
		switch later.state {
		case leased:
			q.release(later)
			later.state = waiting
		case acked:
			later.state = waiting
		}
	}
	k.next = min(k.next, i)
	q.schedule(k)
}

// deadLetter forwards messages without delivery attempts left. A message that cannot be forwarded is redelivered.
func (q *queue) deadLetter(dead []*entry) {
	for _, e := range dead {
		err := q.callbacks.forward(e.message, e.failures)
		q.mu.Lock()
		if q.err != nil || e.state != forwarding {
			q.mu.Unlock()
			continue
		}
		var settled []uint64
		if err != nil {
			q.redeliver(e, time.Now())
			q.arm()
		} else {
			settled = q.settle(e, nil)
		}
		q.wake()
		q.mu.Unlock()
		q.reportSettled(settled)
	}
}
