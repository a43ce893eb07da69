// Package fake is what the stand-ins for the platforms have in common: a
// state whose changes can be awaited, goroutines that end with the server, HTTP
// with faults, the frames that a connection has still to send, and limits.
//
// What a platform says, and how, its own package knows. Its server embeds a
// [Core], which has the methods that a test finds at every stand-in.
package fake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
)

// ErrClosed is returned by calls that a closing stand-in ended.
var ErrClosed = errors.New("fake: the server is closed")

// Mutex guards a stand-in's state. Who only read it unlocks with Unlock, who changed it with UnlockChanged.
type Mutex struct {
	sync.Mutex
	changed chan struct{} // closed on the next change; nil while nobody waits
}

// UnlockChanged also wakes those who await a change.
func (m *Mutex) UnlockChanged() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
	m.Unlock()
}

// next is closed on the next change.
func (m *Mutex) next() <-chan struct{} {
	m.Lock()
	defer m.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// Tasks are a stand-in's goroutines, which end together. NewTasks makes them.
type Tasks struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	running sync.WaitGroup // added to only under mu, and not once ctx has ended
}

// NewTasks are none, to which some can be added until the stand-in closes.
func NewTasks() *Tasks {
	t := &Tasks{}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Context ends when the stand-in begins to close.
func (t *Tasks) Context() context.Context { return t.ctx }

// Go runs f as a goroutine that the closing stand-in waits for, and reports false where it closes already.
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

// end lets none begin any more, and asks those that run to end.
func (t *Tasks) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel()
}

// Secret is a random string of 2n hexadecimal digits.
func Secret(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
