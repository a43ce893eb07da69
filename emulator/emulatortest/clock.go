package emulatortest

import (
	"sync"
	"time"
)

// Clock stands still until a test moves it. NewClock makes one; its methods may be called from any goroutine.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock is a clock that shows now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now is what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
