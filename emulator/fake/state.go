// Package fake is the common core of the platforms' fakes: a state with awaitable changes, goroutines that end with the
// server, HTTP with faults, queues of unsent frames, and rate limits.
//
// Start with [Core]: the server of each platform's fake embeds a Core, and so has the same methods for tests. This
// package must not know any platform's protocol.
package fake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
)

// ErrClosed is returned by calls interrupted by Close.
var ErrClosed = errors.New("fake: the server is closed")

// Mutex guards a fake's state. A reader unlocks with Unlock, a writer with UnlockChanged.
type Mutex struct {
	sync.Mutex
	changed chan struct{} // closed on the next change; nil without a waiter
}

// UnlockChanged unlocks, and wakes the callers of Await.
func (m *Mutex) UnlockChanged() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
	m.Unlock()
}

// next returns a channel that is closed on the next change.
func (m *Mutex) next() <-chan struct{} {
	m.Lock()
	defer m.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// Tasks holds a fake's goroutines, which end together. Use [NewTasks].
type Tasks struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	running sync.WaitGroup // grows only under mu, and never after the end of ctx
}

// NewTasks makes an empty group of goroutines.
func NewTasks() *Tasks {
	t := &Tasks{}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Context returns a context that ends when the fake begins to close.
func (t *Tasks) Context() context.Context { return t.ctx }

// Go runs f in a goroutine; Close waits for its end. Go returns false, and does not run f, if the fake is closing.
func (t *Tasks) Go(f func()) bool {
	if !t.begin() {
		return false
	}
	go func() {
		defer t.running.Done()
		f()
	}()
	return true
}

func (t *Tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.running.Add(1)
	return true
}

// end prevents new goroutines and cancels the context of the others.
func (t *Tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel()
}

// Secret returns a random string of 2n hexadecimal digits.
func Secret(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
