package discord

import (
	"time"

	"parley.internal/emulator/fake"
)

// How often things may be done, see
// https://discord.com/developers/docs/topics/rate-limits and
// https://discord.com/developers/docs/events/gateway#rate-limiting

// Window allows N things in any stretch of time of length Per. The zero Window
// allows everything.
type Window = fake.Window

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
		Global:     Window{N: 50, Per: time.Second},
		Messages:   Window{N: 5, Per: 5 * time.Second},
		Routes:     Window{N: 10, Per: 5 * time.Second},
		Identifies: Window{N: 1, Per: 5 * time.Second},
		Sessions:   Window{N: 1000, Per: 24 * time.Hour},
		Commands:   Window{N: 120, Per: time.Minute},
	}
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
