package twitch

import (
	"context"
	"slices"
	"sync"
	"time"

	"parley.internal/shared/retry"
)

// limits are the account's rate limits, over all connections (https://dev.twitch.tv/docs/chat/#twitch-chatbot-rate-limits).
type limits struct {
	joins             int           // in joinWindow
	messages          int           // in messageWindow, in channels without a privilege of the bot
	moderatorMessages int           // in messageWindow, in all channels together
	spacing           time.Duration // between two messages of a channel without a privilege of the bot
	joinWindow        time.Duration
	messageWindow     time.Duration
}

// limitsOf returns Twitch's limits with slightly longer windows: the network may bring messages closer together.
func limitsOf(verified bool) limits {
	l := limits{joins: 20, messages: 20, moderatorMessages: 100, spacing: 1100 * time.Millisecond, joinWindow: 10500 * time.Millisecond, messageWindow: 31 * time.Second}
	if verified {
		l.joins, l.messages, l.moderatorMessages = 2000, 7500, 7500
	}
	return l
}

// pacer delays actions of one kind to keep a rate limit. Each instance uses only a share of the account's limit, because
// no counter spans the instances. It is safe for concurrent use.
type pacer struct {
	window time.Duration
	share  func(limit int) int // returns this instance's share of a limit

	mu    sync.Mutex
	times []time.Time          // of the actions within the window, oldest first
	last  map[string]time.Time // time of the last action, by channel
	now   func() time.Time
}

func newPacer(window time.Duration, share func(limit int) int) *pacer {
	return &pacer{window: window, share: share, last: map[string]time.Time{}, now: time.Now}
}

// wait returns when another action is allowed: at most limit actions in the window, and spacing after the last action in
// the same channel. It counts the action.
func (p *pacer) wait(ctx context.Context, channel string, limit int, spacing time.Duration) error {
	for {
		d := p.take(channel, limit, spacing)
		if d <= 0 {
			return nil
		}
		if err := retry.Sleep(ctx, d); err != nil {
			return err
		}
	}
}

// begin records the real start of the action after wait. The next action in the channel keeps its distance to the start.
func (p *pacer) begin(channel string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[channel] = p.now()
}

// take counts an action and returns 0, or returns the time until the action may be allowed.
func (p *pacer) take(channel string, limit int, spacing time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.times = slices.DeleteFunc(p.times, func(t time.Time) bool { return now.Sub(t) >= p.window })
	limit = max(1, p.share(limit))
	if n := len(p.times); n >= limit {
		return p.window - now.Sub(p.times[n-limit])
	}
	if last, ok := p.last[channel]; ok && now.Sub(last) < spacing {
		return spacing - now.Sub(last)
	}
	p.times = append(p.times, now)
	p.last[channel] = now
	return 0
}
