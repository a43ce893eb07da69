package websocket

import (
	"context"
	"errors"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// frame is an encoded frame on its way to one or many connections; they share it.
type frame struct {
	prepared *gorilla.PreparedMessage
	size     int
	kind     string // for the metrics
	receipt  *receipt
	delivery string    // id of the delivery that an answer belongs to
	attempt  int       // how often that was redriven
	opened   time.Time // when the entry of a user's answer was opened; zero if that is not known
	deadline time.Time // after which it must not be written any more; zero for none
}

// receipt tells whoever fans a frame out what became of it. It is resolved once for every connection that it was
// expected for.
type receipt struct {
	mu      sync.Mutex
	pending int
	written bool
	changed chan struct{} // closed when written turns true or pending turns 0; nil while nobody waits
}

// expect announces n more connections.
func (r *receipt) expect(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending += n
}

// resolve notes that the network took the frame of one connection, or that this will not happen any more.
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

// await returns true as soon as one connection's network took the frame, and false once none can any more. It fails
// only with the context's error.
func (r *receipt) await(ctx context.Context) (bool, error) {
	for {
		r.mu.Lock()
		if r.written || r.pending == 0 {
			defer r.mu.Unlock()
			return r.written, nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// Why a frame could not be put into a queue.
var (
	errQueueFull   = errors.New("queue full")
	errQueueClosed = errors.New("queue closed")
)

// queue holds what is still to be written to one connection, bounded by frames and by bytes. Any goroutine may push;
// one writes.
type queue struct {
	maxFrames, maxBytes int
	wake                chan struct{} // has a token when there may be something to write

	mu     sync.Mutex
	frames []frame // a ring would save nothing: it is emptied much more often than it is filled
	bytes  int
	closed bool
}

func newQueue(maxFrames, maxBytes int) *queue {
	return &queue{maxFrames: maxFrames, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// push never blocks. It fails with errQueueFull or errQueueClosed, and then the frame's receipt is the caller's to
// resolve.
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

// take hands over everything that waits, in order. spare is a slice whose memory may be used again. What is taken is
// still on its way, but no longer counts against the bounds.
func (q *queue) take(spare []frame) []frame {
	clear(spare)
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.frames
	q.frames, q.bytes = spare[:0], 0
	return taken
}

// close lets nothing more in, and gives what waits.
func (q *queue) close() []frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.frames
	q.frames, q.bytes, q.closed = nil, 0, true
	return taken
}
