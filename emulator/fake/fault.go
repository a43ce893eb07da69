package fake

import (
	"net/http"
	"slices"
	"time"
)

// HTTPFault is something that goes wrong with a request over HTTP, or with the
// opening of a WebSocket.
type HTTPFault struct {
	// Method and Path say which; empty is any request. Path is the end of it,
	// such as "/messages" or "/oauth2/token"; for a WebSocket it is the whole.
	Method, Path string
	// Skip is how many requests pass first; Times is how many fail then, 1
	// where it is 0.
	Skip, Times int
	// Delay comes before everything else.
	Delay time.Duration
	// Done carries the request out, as if nothing was wrong, before it fails. A
	// WebSocket that fails is not opened.
	Done bool
	// Status is answered, and Header with it: with an error in the body from
	// 400 on, else without a body, so that 204 without Done is a request that
	// the platform drops silently.
	Status int
	Header http.Header
	// RetryAfter is when the rate limit ends that Discord answers with for the
	// Status 429: that of the route, or where Global is set of everything.
	// Twitch tells it in Header.
	RetryAfter time.Duration
	Global     bool
	// Drop ends the connection instead of answering. Hang lets the client wait
	// for as long as it likes. With none of Status, Drop and Hang the request
	// succeeds, after Delay.
	Drop, Hang bool
}

// Faults are what is still to go wrong with things of one kind, in the order in
// which it was added. They have no lock of their own.
type Faults[F any] struct{ pending []*pending[F] }

type pending[F any] struct {
	fault       F
	skip, times int
}

// Add makes a fault happen to things that it fits: skip of them pass first, then
// it happens to as many as times says, at least 1.
func (f *Faults[F]) Add(fault F, skip, times int) {
	f.pending = append(f.pending, &pending[F]{fault, skip, max(times, 1)})
}

// Next is the first fault that fits a thing and lets it not pass, or nil. It
// counts for that thing.
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
