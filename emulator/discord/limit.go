package discord

import (
	"time"

	"parley.internal/emulator/fake"
)

// Rate limits: https://discord.com/developers/docs/topics/rate-limits and
// https://discord.com/developers/docs/events/gateway#rate-limiting

// Window allows N events in any period of length Per. The zero Window has no limit.
type Window = fake.Window

// Limits holds the rate limits.
type Limits struct {
	// Global counts all requests of a bot to the HTTP API.
	Global Window
	// Messages counts the messages created by a bot in a channel.
	Messages Window
	// Routes counts a bot's other requests, per route and per channel or guild.
	Routes Window
	// Identifies counts the sessions started by a bot. Above the limit, a bot gets Invalid Session.
	Identifies Window
	// Sessions is the session_start_limit. Above the limit, a bot loses all sessions and the token.
	Sessions Window
	// Commands counts the messages of a client on a gateway connection. Above the limit, the connection is closed with
	// 4008.
	Commands Window
}

// DefaultLimits returns Discord's limits. The limits of routes are undocumented and vary; the values here are similar
// to the values in Discord's headers.
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

// bucket counts requests from the first request until the reset.
type bucket struct {
	used  int
	reset time.Time
}

// take counts a request if possible. It returns the remaining requests, and the time until the reset.
func (b *bucket) take(now time.Time, w Window) (ok bool, left int, reset time.Duration) {
	if !now.Before(b.reset) {
		b.used, b.reset = 0, now.Add(w.Per)
	}
	if ok = b.used < w.N; ok {
		b.used++
	}
	return ok, w.N - b.used, b.reset.Sub(now)
}
