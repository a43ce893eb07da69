package fake

import "sync"

// maxQueue is the largest number of frames that wait for a slow client. Then the connection is dropped.
const maxQueue = 1 << 14

// Queue holds the unsent frames of a connection, so that the fake never waits for a client. Use [NewQueue]. Its methods
// are safe for concurrent use.
type Queue[T any] struct {
	overflow func()
	ready    chan struct{}

	mu      sync.Mutex
	frames  []T
	closing bool
	code    int
}

// NewQueue makes an empty queue. overflow is called when a client does not read; it drops the connection and must not
// block.
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

// Close tells the writer to close the connection after the queued frames, with a code if the protocol has codes. Only
// the first call counts.
func (q *Queue[T]) Close(code int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closing {
		q.closing, q.code = true, code
		q.signal()
	}
}

// Closing reports whether Close was called.
func (q *Queue[T]) Closing() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closing
}

// Code returns the code of the first Close, or 0.
func (q *Queue[T]) Code() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.code
}

// Ready signals the writer, of which there must be only one, that Take has something to return.
func (q *Queue[T]) Ready() <-chan struct{} { return q.ready }

// Take empties the queue. last is true if no frames will follow.
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
