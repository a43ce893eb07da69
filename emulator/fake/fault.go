package fake

import (
	"net/http"
	"slices"
	"time"
)

// HTTPFault describes the failure of an HTTP request, or of the opening of a WebSocket.
type HTTPFault struct {
	// Method and Path select requests; empty selects all. Path is a suffix such as "/messages" or "/oauth2/token"; for
	// a WebSocket the whole path.
	Method, Path string
	// Skip is the number of requests that pass first. Times is the number of requests that fail then; 0 means 1.
	Skip, Times int
	// Delay comes before the other effects.
	Delay time.Duration
	// Done executes the request before it fails. A failed WebSocket is not opened.
	Done bool
	// Status and Header are the answer. From 400 on the body holds an error; below 400 the body is empty. So 204
	// without Done is a request silently dropped by the platform.
	Status int
	Header http.Header
	// Message replaces the words of the error in the body.
	Message string
	// RetryAfter is the time until the rate limit ends, for Discord's answer with Status 429. The limit concerns the
	// route, or everything if Global is true. Twitch sends the time in Header.
	RetryAfter time.Duration
	Global     bool
	// Drop closes the connection without an answer. Hang waits until the client disconnects. Without Status, Drop and
	// Hang the request succeeds after Delay.
	Drop, Hang bool
}

// Faults holds pending faults of one kind in the order of their addition. It has no lock.
type Faults[F any] struct{ pending []*pending[F] }

type pending[F any] struct {
	fault       F
	skip, times int
}

// Add adds a fault. The first skip matching events pass, then the fault applies to the next times events, at least one.
func (f *Faults[F]) Add(fault F, skip, times int) {
	f.pending = append(f.pending, &pending[F]{fault, skip, max(times, 1)})
}

// Next returns the first matching fault that applies to an event, or nil, and counts the event.
func (f *Faults[F]) Next(fits func(*F) bool) *F {
	for i, p := range f.pending {
		if !fits(&p.fault) {
			continue
		}
		if p.skip > 0 {
			p.skip--
			continue
		}
		if p.times--; p.times == 0 {
			f.pending = slices.Delete(f.pending, i, i+1)
		}
		return &p.fault
	}
	return nil
}
