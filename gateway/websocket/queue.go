package websocket

import (
	"context"
	"errors"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// frame is an encoded frame, shared by the queues of all its connections.
type frame struct {
	prepared *gorilla.PreparedMessage
	size     int
	kind     string // for the metrics
	receipt  *receipt
	delivery string    // delivery id of an answer
	attempt  int       // redrive count of the delivery
	opened   time.Time // creation time of the entry of a user's answer; zero if unknown
	deadline time.Time // no write after this time; zero for none
}

// receipt collects the results of a frame from several connections. Each expected connection resolves the receipt once.
type receipt struct {
	mu      sync.Mutex
	pending int
	written bool
	changed chan struct{} // closed when written becomes true or pending becomes 0; nil without a waiter
}

// expect adds n connections.
func (r *receipt) expect(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending += n
}

// resolve adds the result of a connection: the frame was written to the network, or never will be.
func (r *receipt) resolve(written bool) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending--
	r.written = r.written || written
	if (r.written || r.pending == 0) && r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// result returns whether the frame was written, and whether the result is final: a frame was written, or every connection
// has resolved without a write. changed is closed when the result becomes final; it is nil if the result is final.
func (r *receipt) result() (written, decided bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written || r.pending == 0 {
		return r.written, true, nil
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return false, false, r.changed
}

// await waits for the final result. The only error is the context's.
func (r *receipt) await(ctx context.Context) (written bool, err error) {
	for {
		written, decided, changed := r.result()
		if decided {
			return written, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// The errors of queue.push.
var (
	errQueueFull   = errors.New("queue full")
	errQueueClosed = errors.New("queue closed")
)

// queue holds the unwritten frames of a connection. It is bounded in frames and in bytes. Any goroutine may call push,
// but only one may call take.
type queue struct {
	maxFrames, maxBytes int
	wake                chan struct{} // has a value if frames may be waiting; capacity 1

	mu     sync.Mutex
	frames []frame // no ring buffer: the queue is emptied much more often than filled
	bytes  int
	closed bool
}

func newQueue(maxFrames, maxBytes int) *queue {
	return &queue{maxFrames: maxFrames, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// push adds a frame without blocking. If it returns errQueueFull or errQueueClosed, the caller must resolve the frame's
// receipt.
func (q *queue) push(f frame) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errQueueClosed
	case len(q.frames) >= q.maxFrames || q.bytes+f.size > q.maxBytes:
		return errQueueFull
	}
	q.frames = append(q.frames, f)
	q.bytes += f.size
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take removes and returns all frames, in order. The queue reuses the memory of spare. Taken frames no longer count
// against the bounds.
func (q *queue) take(spare []frame) []frame {
	clear(spare)
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.frames
	q.frames, q.bytes = spare[:0], 0
	return taken
}

// close refuses further frames, and returns the waiting frames.
func (q *queue) close() []frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.frames
	q.frames, q.bytes, q.closed = nil, 0, true
	return taken
}
