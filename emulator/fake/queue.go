package fake

import "sync"

// maxQueue is how many frames may wait for a slow client before it is dropped.
const maxQueue = 1 << 14

// Queue holds what a connection has still to send, so that the stand-in never
// waits for a client. NewQueue makes one.
type Queue[T any] struct {
	overflow func()
	ready    chan struct{}

	mu      sync.Mutex
	frames  []T
	closing bool
	code    int
}

// NewQueue is an empty queue. overflow drops the connection of a client that does
// not read, and must not block.
func NewQueue[T any](overflow func()) *Queue[T] {
	return &Queue[T]{overflow: overflow, ready: make(chan struct{}, 1)}
}

// Push adds a frame, unless the queue is closing.
func (q *Queue[T]) Push(frame T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closing:
	case len(q.frames) >= maxQueue:
		q.overflow()
	default:
		q.frames = append(q.frames, frame)
		q.signal()
	}
}

// Close lets the writer close the connection once what is queued is out, with a
// code where it has one. The first Close counts.
func (q *Queue[T]) Close(code int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closing {
		q.closing, q.code = true, code
		q.signal()
	}
}

// Closing reports whether there was a Close.
func (q *Queue[T]) Closing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closing
}

// Code is what Close was called with, else 0.
func (q *Queue[T]) Code() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.code
}

// Ready tells the one writer that there is something to Take.
func (q *Queue[T]) Ready() <-chan struct{} { return q.ready }

// Take empties the queue, and reports whether these are the last frames.
func (q *Queue[T]) Take() (frames []T, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	frames, q.frames = q.frames, nil
	return frames, q.closing
}

func (q *Queue[T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
