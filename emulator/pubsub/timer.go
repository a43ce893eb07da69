package pubsub

import (
	"container/heap"
	"time"
)

// purge drops every message published before t.
func (q *queue) purge(t time.Time) {
	q.mu.Lock()
	dropped := q.drop(func(e *entry) bool { return !e.published.Before(t) })
	q.active = time.Now()
	q.wake()
	q.mu.Unlock()
	q.reportSettled(dropped)
}

// drop removes the entries for which keep returns false, also leased entries, and returns their ids.
func (q *queue) drop(keep func(*entry) bool) (dropped []uint64) {
	thinned := map[*keyQueue]bool{}
	for id, e := range q.entries {
		if keep(e) {
			continue
		}
		q.release(e)
		e.state = gone
		delete(q.entries, id)
		dropped = append(dropped, id)
		if e.key != nil {
			thinned[e.key] = true
		}
	}
	for k := range thinned {
		k.thin()
		if len(k.entries) == 0 {
			delete(q.keys, k.key)
		}
		q.schedule(k)
	}
	if len(dropped) > 0 {
		// A consumer skips stale items, but without a consumer they would keep the dropped messages in memory.
		q.ready.retain(func(r runnable) bool {
			e, k := r.runnable()
			if k != nil {
				return k.home == &q.ready && len(k.entries) > 0
			}
			return e.state == waiting
		})
	}
	return dropped
}

// arm sets the timer to the next due moment. A timer that fires earlier stays: tick arms it again.
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

// oldest is the earliest publish time, zero for an empty queue.
func (q *queue) oldest() (t time.Time) {
	for _, e := range q.entries {
		if t.IsZero() || e.published.Before(t) {
			t = e.published
		}
	}
	return t
}

// tick handles everything due. It runs on the timer's goroutine.
func (q *queue) tick() {
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return
	}
	now := time.Now()
	q.armed = time.Time{}
	dead := q.endTimes(now)
	dropped := q.enforceRetention(now)
	expired := q.settings.ttl > 0 && len(q.consumers) == 0 && now.Sub(q.active) >= q.settings.ttl
	if !expired {
		q.arm()
	}
	q.wake()
	q.mu.Unlock()
	q.reportSettled(dropped)
	q.deadLetter(dead)
	if expired {
		q.callbacks.expired()
	}
}

// endTimes ends the leases and the pauses that are over. It returns the entries without delivery attempts left.
func (q *queue) endTimes(now time.Time) (dead []*entry) {
	for len(q.times) > 0 && !q.times[0].at.After(now) {
		e := q.times[0]
		if e.state == leased {
			dead = q.fail(e, now, dead)
			continue
		}
		heap.Pop(&q.times)
		if e.key == nil {
			q.ready.push(e)
		} else {
			q.schedule(e.key)
		}
	}
	return dead
}

// enforceRetention drops expired messages if a sweep is due. Leased messages stay, and messages on their way to the
// dead-letter topic.
func (q *queue) enforceRetention(now time.Time) (dropped []uint64) {
	r := q.settings.retention
	if r <= 0 || q.sweep.IsZero() || q.sweep.After(now) {
		return nil
	}
	dropped = q.drop(func(e *entry) bool {
		return e.state == leased || e.state == forwarding || now.Sub(e.published) < r
	})
	q.sweep = time.Time{}
	if len(q.entries) > 0 {
		// A sweep walks the whole backlog. One sweep per sixteenth of the retention costs next to nothing.
		q.sweep = now.Add(r / 16)
		if t := q.oldest().Add(r); t.After(q.sweep) {
			q.sweep = t
		}
	}
	return dropped
}
