package twitch

import (
	"time"

	"parley.internal/gateway/outbox"
)

// timing holds the durations without a number on Twitch's pages.
type timing struct {
	ping         time.Duration // silence until a PING; the connection ends a third later without an answer
	join         time.Duration // from a JOIN without an answer to the next JOIN
	minBackoff   time.Duration // base of the first pause between connections
	maxBackoff   time.Duration // largest base
	reconnect    time.Duration // from a RECONNECT to the end of the connection, while messages are pending
	scan         time.Duration // between reads of the ledger
	retry        time.Duration // after a failure without a pause of its own
	pass         time.Duration // longest pause after a refusal that ends by itself; a moderator may end a time-out early
	claim        time.Duration // maximum age of a claim at a send; less than delivery.ClaimLease
	flush        time.Duration // for reading the rest and publishing queued events, at the end
	linger       time.Duration // in a channel after the end of its lease, until the next owner has joined
	publishDelay time.Duration // from a message to its published event
}

var defaultTiming = timing{
	ping: 45 * time.Second, join: 10 * time.Second, minBackoff: 500 * time.Millisecond, maxBackoff: 30 * time.Second,
	reconnect: 3 * time.Second, scan: 15 * time.Second, retry: 3 * time.Second, pass: 15 * time.Second, claim: 40 * time.Second, flush: 3 * time.Second,
	linger: 1500 * time.Millisecond, publishDelay: 500 * time.Millisecond,
}

// outbox returns the durations for answers and commands.
func (t timing) outbox() outbox.Timing {
	return outbox.Timing{Scan: t.scan, Retry: t.retry, Backoff: t.minBackoff, MaxBackoff: t.maxBackoff, Claim: t.claim}
}
