package discord

import (
	"time"

	"parley.internal/gateway/outbox"
)

// timing holds the times without a number in Discord's documentation. Tests shorten them.
type timing struct {
	handshake     time.Duration // from connecting to the first frame, and from IDENTIFY to READY
	write         time.Duration // timeout for writing one frame
	identify      time.Duration // minimum time between two new sessions (https://discord.com/developers/docs/events/gateway#rate-limiting)
	minBackoff    time.Duration
	maxBackoff    time.Duration
	operatorRetry time.Duration // pause after an error that only an operator can fix
	maxOffline    time.Duration // time without a connection after which the instance releases the lease
	scan          time.Duration // between two reads of the ledger
	retry         time.Duration // pause after an obstacle of unknown duration
	claim         time.Duration // maximum age of a claim for sending; less than delivery.ClaimLease
	watermark     time.Duration // between two writes of the watermarks
	flush         time.Duration // for publishing and sending the rest at the end
}

var defaultTiming = timing{
	handshake: 20 * time.Second, write: 10 * time.Second, identify: 5 * time.Second,
	minBackoff: 500 * time.Millisecond, maxBackoff: time.Minute, operatorRetry: 5 * time.Minute, maxOffline: 45 * time.Second,
	scan: 5 * time.Second, retry: 3 * time.Second, claim: 40 * time.Second, watermark: time.Second, flush: 3 * time.Second,
}

// outbox returns the times for answers and moderation commands.
func (t timing) outbox() outbox.Timing {
	return outbox.Timing{Scan: t.scan, Retry: t.retry, Backoff: t.minBackoff, MaxBackoff: t.maxBackoff, Claim: t.claim}
}
