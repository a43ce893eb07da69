package enrichment

import (
	"errors"
	"sync"
	"time"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// maxBatch bounds the events decided together, so that the document still remembers all of them.
const maxBatch = maxRecent / 2

// errAborted is the outcome of a batch whose decision panicked. The bus delivers the events again.
var errAborted = errors.New("decision aborted")

// request is an event to decide about, and its decision.
type request struct {
	event *event.Event
	rules *rule.Set
	at    time.Time

	decision decision
	err      error
}

// batcher lets concurrent events of one user share a read and a write of the user's document. Without batches, a user
// who talks in many channels at once would make these events fail: each write of the document changes its version, so
// all other writes have to be repeated.
//
// While a batch of a user is being decided, further events of the user wait and become the next batch. The waiting calls
// are requests to the function, so the limit of concurrent requests bounds their number. A batcher must be made by
// newBatcher. It is safe for concurrent use.
type batcher struct {
	mu      sync.Mutex
	waiting map[identity.UserID][]*waiter // an entry exists, possibly empty, while a batch of the user is being decided
}

// waiter is a waiting call. Its channel receives the batch that the call has to decide, or nil if another call decided.
type waiter struct {
	request *request
	turn    chan []*waiter
}

func newBatcher() *batcher { return &batcher{waiting: map[identity.UserID][]*waiter{}} }

// do decides about q: either this call decides about a batch with q, or a concurrent call does. decide sets decision or
// err of each request. Calls of decide for one user never overlap, and a batch is in the order of the calls.
func (b *batcher) do(user identity.UserID, q *request, decide func([]*request)) {
	w := &waiter{request: q, turn: make(chan []*waiter, 1)}
	b.mu.Lock()
	queue, busy := b.waiting[user]
	if busy {
		b.waiting[user] = append(queue, w)
	} else {
		b.waiting[user] = nil
	}
	b.mu.Unlock()
	batch := []*waiter{w}
	if busy {
		// The wait is bounded: each batch ahead ends within decideTimeout. A wait that ended with the call's context could
		// lose the turn of all later calls.
		if batch = <-w.turn; batch == nil {
			return
		}
	}
	defer b.finish(user, batch)
	requests := make([]*request, len(batch))
	for i, w := range batch {
		requests[i], w.request.err = w.request, errAborted
	}
	decide(requests)
}

// finish releases the calls of a batch and gives the next batch to its first call.
func (b *batcher) finish(user identity.UserID, batch []*waiter) {
	for _, w := range batch[1:] {
		w.turn <- nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.waiting[user]
	if len(queue) == 0 {
		delete(b.waiting, user)
		return
	}
	n := min(len(queue), maxBatch)
	b.waiting[user] = queue[n:]
	queue[0].turn <- queue[:n:n]
}
