package discord

import "time"

// How often things may be done, see
// https://discord.com/developers/docs/topics/rate-limits and
// https://discord.com/developers/docs/events/gateway#rate-limiting

// Window allows N things in any stretch of time of length Per. The zero Window
// allows everything.
type Window struct {
	N   int
	Per time.Duration
}

// Limits are how often things may be done.
type Limits struct {
	// Global counts all requests of a bot to the HTTP API.
	Global Window
	// Messages counts the messages that a bot creates in a channel.
	Messages Window
	// Routes counts a bot's requests of every other kind, each for itself and
	// for the channel or guild that it is about.
	Routes Window
	// Identifies counts the sessions that a bot starts; who exceeds it gets an
	// Invalid Session.
	Identifies Window
	// Sessions is the session_start_limit; who exceeds it loses all sessions
	// and the token.
	Sessions Window
	// Commands counts what a client sends over a gateway connection; who
	// exceeds it is closed with 4008.
	Commands Window
}

// DefaultLimits are Discord's. Those of the routes are not documented and vary;
// these are of the size that Discord tells in its headers.
func DefaultLimits() Limits {
	return Limits{
		Global:     Window{50, time.Second},
		Messages:   Window{5, 5 * time.Second},
		Routes:     Window{10, 5 * time.Second},
		Identifies: Window{1, 5 * time.Second},
		Sessions:   Window{1000, 24 * time.Hour},
		Commands:   Window{120, time.Minute},
	}
}

// history is when something was done, oldest first, as far as a Window looks.
type history []time.Time

// left is how many more the window allows at now, and when it has room for all
// of them again. It forgets what the window does not look at any more.
func (h *history) left(now time.Time, w Window) (n int, full time.Duration) {
	old := 0
	for old < len(*h) && now.Sub((*h)[old]) >= w.Per {
		old++
	}
	*h = (*h)[old:]
	if len(*h) > 0 {
		full = (*h)[len(*h)-1].Add(w.Per).Sub(now)
	}
	return max(w.N-len(*h), 0), full
}

// take counts one at now if the window has room.
func (h *history) take(now time.Time, w Window) bool {
	if w.N == 0 {
		return true
	}
	if n, _ := h.left(now, w); n == 0 {
		return false
	}
	*h = append(*h, now)
	return true
}

// bucket counts requests from the first one until it resets.
type bucket struct {
	used  int
	reset time.Time
}

// take reports whether there was room, how much is left, and in how long the
// bucket resets.
func (b *bucket) take(now time.Time, w Window) (ok bool, left int, reset time.Duration) {
	if !now.Before(b.reset) {
		b.used, b.reset = 0, now.Add(w.Per)
	}
	if ok = b.used < w.N; ok {
		b.used++
	}
	return ok, w.N - b.used, b.reset.Sub(now)
}
